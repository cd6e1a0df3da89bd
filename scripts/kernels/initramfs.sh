#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Builds the guest's whole file system as an initramfs: busybox, Sluice's programs and tests, the few tools that the guest's scripts call,
# their shared libraries as ldd finds them, and a few kernel modules in the order in which they must be loaded. Called by run.sh. Nothing of it is stripped or compressed: it never leaves this machine.
#
#   initramfs.sh BUILD BUSYBOX KERNEL_DEB OUTPUT_DIRECTORY
#
# Leaves OUTPUT_DIRECTORY/vmlinuz, initrd and release (the kernel's name). Exit codes: 0, 1 (a sentence on stderr).
set -eu

build=$(cd "$1" && pwd)
busybox=$2
deb=$3
out=$4
here=$(cd "$(dirname "$0")" && pwd)
# What of Sluice goes in, and which of the host's tools.
programs=(sluice sluiced sluice-writer kernels/load_gate)
tools=(ip curl ethtool xdp-loader xdp-filter)
PATH=$PATH:/usr/sbin:/sbin
modules=(virtio_pci virtio_net veth dummy)

die()
{
	echo "kernels: $*" >&2
	exit 1
}

package=$out/package
root=$out/root
rm -rf "$package" "$root"
mkdir -p "$package" "$root"/{dev,proc,sys,run,tmp,etc,usr/bin,usr/sbin,usr/lib,usr/lib64,sluice/tests,sluice/guest,modules}
for dir in bin sbin lib lib64; do
	ln -s "usr/$dir" "$root/$dir"
done
dpkg-deb -x "$deb" "$package" || die "cannot unpack $deb"
vmlinuz=$(echo "$package"/boot/vmlinuz-*)
[ -e "$vmlinuz" ] || die "$deb holds no kernel"
release=${vmlinuz##*/vmlinuz-}
mv "$vmlinuz" "$out/vmlinuz"
echo "$release" >"$out/release"
tree=$(echo "$package"/{usr/,}lib/modules/"$release")
tree=${tree%% *}
[ -d "$tree" ] || tree=$package/lib/modules/$release
[ -d "$tree" ] || die "$deb holds no modules for $release"

# --- modules: each after those that it names in its own "depends=" -------------------------------------------------------
loaded=' '
order=0
unpack_module() # FROM TO
{
	case $1 in
	*.xz) "$busybox" unxz -c "$1" >"$2" ;;
	*.gz) "$busybox" gunzip -c "$1" >"$2" ;;
	*.ko) cp "$1" "$2" ;;
	*) die "the module $1 is compressed in a way that is not known here" ;;
	esac
}

add_module() # NAME
{
	local name=${1//-/_} file target one
	case $loaded in *" $name "*) return ;; esac
	loaded="$loaded$name "
	file=$(find "$tree" -name "${name//_/[-_]}.ko*" | head -n 1)
	if [ -z "$file" ]; then
		grep -q "/${name//_/[-_]}\.ko" "$tree/modules.builtin" || die "kernel $release has no module $name"
		return 0 # part of the kernel itself
	fi
	target=$out/$name.ko
	unpack_module "$file" "$target"
	for one in $(tr '\0' '\n' <"$target" | sed -n 's/^depends=//p' | head -n 1 | tr , ' '); do
		add_module "$one"
	done
	order=$((order + 1))
	mv "$target" "$(printf '%s/modules/%02d-%s.ko' "$root" "$order" "$name")"
}
for module in "${modules[@]}"; do
	add_module "$module"
done

# --- programs, and whatever they are linked with ---------------------------------------------------------------------------
add_libraries() # PROGRAM
{
	local library
	ldd "$1" 2>/dev/null | grep -oE '/[^ ]+' | sort -u | while read -r library; do
		[ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"; }
	done
}

add_program() # FROM TO
{
	mkdir -p "$root$(dirname "$2")"
	cp -L "$1" "$root$2"
	add_libraries "$1"
}

add_program "$busybox" /bin/busybox
for program in "${programs[@]}"; do
	add_program "$build/$program" "/sluice/${program##*/}"
done
for program in "$build"/tests/packet/test_*; do
	case $program in *.o | *.d) continue ;; esac
	add_program "$program" "/sluice/tests/${program##*/}"
done
cp "$build/bpf/pass.bpf.o" "$build/bpf/probe.bpf.o" "$root/sluice/"
for tool in "${tools[@]}"; do
	from=$(command -v "$tool") || die "this machine has no $tool, which the guest's scripts call"
	add_program "$from" "/usr/sbin/$tool"
done
# What libxdp and xdp-filter load by themselves.
objects=$(ldd "$build/sluice" | awk '$1 ~ /^libxdp/ { print $3 }')
objects=$(dirname "$objects")/bpf
[ -e "$objects/xdp-dispatcher.o" ] || die "libxdp's dispatcher is not where it was looked for ($objects/xdp-dispatcher.o)"
mkdir -p "$root$objects"
cp "$objects"/xdp-dispatcher.o "$objects"/xdpfilt_* "$root$objects/" 2>/dev/null || true
cp "$here"/guest/* "$root/sluice/guest/"
mv "$root/sluice/guest/init" "$root/init"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

(cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$out/initrd"
rm -rf "$package" "$root"
