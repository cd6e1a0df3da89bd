#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Boots Debian's kernels in QEMU and runs Sluice's tests in them; called by `make kernels` and `make check-kernel`. See docs/kernels.md.
#
#   run.sh --build DIRECTORY [--quick]
#
# --quick: one kernel and the quick half of the suites, with result lines as scripts/check.sh counts them. Environment: KERNELS (which
# series), KERNELS_CACHE (directory of the packages), KERNELS_SUITES (instead of all; groups of one guest by spaces), KERNELS_ACCEL (tcg;
# kvm if the machine has a good one), KERNELS_TIMEOUT_S (of one guest). Leaves BUILD/kernels/report.json, and each guest's console and
# results beside it. Exit codes: 0 all passed (or, with --quick, skipped with a sentence), 1 something failed, 2 usage.
set -u
cd "$(dirname "$0")/../.." || exit 1

here=scripts/kernels
build=''
quick=''
while [ $# -gt 0 ]; do
	case $1 in
	--build) build=${2:-} && shift ;;
	--quick) quick=yes ;;
	*) echo "kernels: there is no option $1" >&2; exit 2 ;;
	esac
	shift
done
[ -n "$build" ] || { echo 'usage: scripts/kernels/run.sh --build DIRECTORY [--quick]' >&2; exit 2; }
out=$build/kernels
cache=${KERNELS_CACHE:-$out/cache}
accel=${KERNELS_ACCEL:-tcg}
timeout_s=${KERNELS_TIMEOUT_S:-600}
read -r -a series_list <<<"${KERNELS:-6.1 6.12}"
read -r -a groups <<<"${KERNELS_SUITES:-load,packet-all sale-native,sale-generic,nic-native,nic-generic,nic-offload,refusals coexist-native,coexist-generic}"
if [ -n "$quick" ]; then
	series_list=("${KERNELS:-6.1}")
	groups=('load,packet-quick,sale-native,coexist-quick')
	out=$out/quick
fi
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$out" || exit 1

# What keeps the tests from being run at all. In `make check` that is a skipped test; asked for by name it is a failure.
cannot_run() # SENTENCE
{
	echo "kernels: $1" >&2
	if [ -n "$quick" ]; then
		echo '[  SKIPPED ] 1 test(s).'
		exit 0
	fi
	exit 1
}

[ "$(uname -m)" = x86_64 ] || cannot_run "the guests are x86-64 and so are the programs that are tested in them; this machine is $(uname -m)"
for need in qemu-system-x86_64:qemu-system-x86 dpkg-deb:dpkg ip:iproute2 curl:curl ethtool:ethtool xdp-loader:xdp-tools xdp-filter:xdp-tools; do
	command -v "${need%%:*}" >/dev/null || cannot_run "not tested: ${need%%:*} is missing (Debian package ${need#*:})"
done
busybox=$($here/packages.sh "$cache" busybox) || cannot_run 'not tested: there is no busybox for the guest (the line above says why)'

case $accel in
tcg) machine=(-accel 'tcg,thread=multi' -cpu qemu64) ;;
*) machine=(-accel "$accel" -cpu host) ;;
esac

# Tap devices in a network namespace of QEMU's own: for NICs with several queues and offloads, which no other backend has.
prepare_taps()
{
	local i
	ip link set lo up &&
		ip link add bridge0 type bridge &&
		ip link set bridge0 up || return 1
	for i in 3 4; do
		ip tuntap add mode tap "tap$i" multi_queue vnet_hdr &&
			ip link set "tap$i" master bridge0 up || return 1
	done
	ip tuntap add mode tap tap5 vnet_hdr &&
		ip link set tap5 up
}
export -f prepare_taps
taps=''
if [ "$(id -u)" -eq 0 ] && [ -c /dev/net/tun ] && unshare -n bash -c prepare_taps 2>/dev/null; then
	taps=yes
fi

guest=0 # its process group
stop_guest()
{
	[ "$guest" -ne 0 ] || return 0
	kill -- "-$guest" 2>/dev/null
	for ((i = 0; i < 50; i++)); do
		kill -0 -- "-$guest" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL -- "-$guest" 2>/dev/null
	guest=0
}

interrupt()
{
	trap '' INT TERM
	stop_guest
	echo 'kernels: interrupted' >&2
	exit 130
}
trap interrupt INT TERM

start_guest() # DIRECTORY SUITES CONSOLE
{
	local dir=$1 arguments=()
	arguments=("${machine[@]}" -smp 2 -m 1500 -nodefaults -display none -monitor none -no-reboot
		-serial "file:$3" -serial "file:$dir/results" -kernel "$dir/vmlinuz" -initrd "$dir/initrd"
		-append "console=ttyS0 quiet panic=-1 suites=$2 limit=$timeout_s"
		-netdev 'hubport,id=n1,hubid=0' -device 'virtio-net-pci,netdev=n1,mac=52:54:00:00:00:01'
		-netdev 'hubport,id=n2,hubid=0' -device 'virtio-net-pci,netdev=n2,mac=52:54:00:00:00:02')
	if [ -z "$taps" ]; then
		qemu-system-x86_64 "${arguments[@]}"
		return
	fi
	for i in 3 4; do
		arguments+=(-netdev "tap,id=n$i,ifname=tap$i,script=no,downscript=no,queues=4"
			-device "virtio-net-pci,netdev=n$i,mac=52:54:00:00:00:0$i,mq=on,vectors=10")
	done
	arguments+=(-netdev 'tap,id=n5,ifname=tap5,script=no,downscript=no'
		-device 'virtio-net-pci,netdev=n5,mac=52:54:00:00:00:05,ctrl_guest_offloads=off')
	unshare -n bash -c 'prepare_taps && exec qemu-system-x86_64 "$@"' qemu "${arguments[@]}"
}

# The lines of a results file after the first N, for people.
show_results() # FILE N
{
	tail -n "+$(($2 + 1))" "$1" | awk -F'\t' '
		$1 == "test" { printf "  %-7s %-16s %6.1f s  %s%s\n", $3, $2, $4 / 1000, $5, $6 == "" ? "" : ": " $6 }'
}

run_guest() # DIRECTORY SUITES CONSOLE
{
	local dir=$1 shown=0 lines began=$SECONDS
	: >"$dir/results"
	: >"$3"
	set -m # in a process group of its own
	start_guest "$dir" "$2" "$3" >"$dir/qemu.log" 2>&1 </dev/null &
	guest=$!
	set +m
	while kill -0 "$guest" 2>/dev/null && [ $((SECONDS - began)) -lt "$timeout_s" ]; do
		sleep 1
		lines=$(wc -l <"$dir/results")
		if [ "$lines" -gt "$shown" ]; then
			show_results "$dir/results" "$shown"
			shown=$lines
		fi
	done
	stop_guest
	show_results "$dir/results" "$shown"
	grep -q '^end	' "$dir/results" && return
	printf 'test\tguest\tfailed\t%d\tthe guest comes to its end (%s)\tno end after %d s; the console is in %s\n' \
		$(((SECONDS - began) * 1000)) "$2" $((SECONDS - began)) "$3" >>"$dir/results"
	echo "kernels: the guest did not come to its end; its last words, of $3:"
	grep -v 'is not connected to host network' "$dir/qemu.log"
	tail -n 60 "$3" | tr -d '\r'
}

reports=()
for series in "${series_list[@]}"; do
	dir=$out/$series
	rm -rf "$dir"
	mkdir -p "$dir"
	if ! deb=$($here/packages.sh "$cache" kernel "$series"); then
		[ -z "$quick" ] || cannot_run "not tested: there is no kernel $series to test with (the line above says why)"
		printf 'kernel\t%s\ntest\tguest\tfailed\t0\tthe kernel package is there\tapt has none and the cache neither\n' "$series" \
			>"$dir/all.results"
		reports+=("$series=$dir/all.results")
		continue
	fi
	$here/initramfs.sh "$build" "$busybox" "$deb" "$dir" || exit 1
	printf 'kernel\t%s\nfact\tguest\tpackage\t%s\n' "$(cat "$dir/release")" "${deb##*/}" >"$dir/all.results"
	number=0
	for suites in "${groups[@]}"; do
		number=$((number + 1))
		echo "kernels: $(cat "$dir/release"), ${suites//,/, } (at most $timeout_s s)"
		began=$SECONDS
		run_guest "$dir" "$suites" "$dir/console-$number.log"
		cat "$dir/results" >>"$dir/all.results"
		printf 'fact\tguest\tseconds.%s\t%d\n' "$suites" $((SECONDS - began)) >>"$dir/all.results"
		rm -f "$dir/results" "$dir/qemu.log"
	done
	rm -f "$dir/initrd" "$dir/vmlinuz"
	reports+=("$series=$dir/all.results")
done

/usr/bin/python3 $here/report.py --report "$out/report.json" --accel "$accel" ${quick:+--counts} "${reports[@]}"
