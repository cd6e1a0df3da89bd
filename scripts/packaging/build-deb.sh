#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Builds sluice_VERSION_ARCH.deb in DIRECTORY (BUILD/deb), with dpkg's own tools and without a network. Called by `make deb`; the programs and manual
# pages are built by then. The same sources and compiler give the same package, byte for byte (SOURCE_DATE_EPOCH).
#   build-deb.sh BUILD VERSION [DIRECTORY]
# Environment: SOURCE_DATE_EPOCH, MAKE.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1 version=$2
: "${SOURCE_DATE_EPOCH:?} ${MAKE:=make}"
export SOURCE_DATE_EPOCH
debian=scripts/packaging/debian
arch=$(dpkg --print-architecture)
out=${3:-$build/deb}
mkdir -p "$out"
out=$(realpath "$out")
root=$out/root
trap 'rm -rf "$root" "$out/debian"' EXIT

for tool in dpkg-deb dpkg-shlibdeps strip gzip; do
	command -v "$tool" >/dev/null || { echo "build-deb: $tool is missing (packages dpkg-dev, binutils)" >&2; exit 1; }
done
rm -rf "$root" "$out/debian"
mkdir -p "$root/DEBIAN" "$out/debian"
umask 022

# --- files ---------------------------------------------------------------------------------------------------------------
# The programs are taken as they are (-o): what has been tested is what is packed.
"$MAKE" --no-print-directory -s -o all -o "$build/sluice" -o "$build/sluiced" -o "$build/sluice-writer" BUILD="$build" \
	DESTDIR="$root" prefix=/usr unitdir=/lib/systemd/system install install-units >/dev/null
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root"/usr/sbin/*
find "$root/usr/share/man" -type f -exec gzip -9n {} +

# The config is the example with the package's users, and a ledger and sockets of which each has one owner.
sed -e 's|^\(\tuser = \)"";\( *# run as, after start\)|\1"@USER@";\2|' docs/sluice.conf.example |
	awk '/^daemon:/ { user = "sluice" } /^writer:/ { user = "sluice-writer" } { sub(/@USER@/, user); print }' |
	sed -e 's|/run/sluice/writer.sock|/run/sluice-writer/writer.sock|; s|/var/lib/sluice/ledger.db|/var/lib/sluice-writer/ledger.db|' \
		>"$root/etc/sluice/sluice.conf"
chmod 0644 "$root/etc/sluice/sluice.conf"
"$build/sluiced" --check=syntax --config "$root/etc/sluice/sluice.conf" >/dev/null
echo /etc/sluice/sluice.conf >"$root/DEBIAN/conffiles"

doc=$root/usr/share/doc/sluice
rm -f "$doc/LICENSE"
install -m 0644 "$debian/copyright" "$doc/copyright"
printf 'sluice (%s) bookworm; urgency=medium\n\n  * Version %s; see README.md and docs/.\n\n -- Sluice maintainers <maintainers@sluice.example.org>  %s\n' \
	"$version" "$version" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
install -d "$root/usr/share/lintian/overrides"
install -m 0644 "$debian/lintian-overrides" "$root/usr/share/lintian/overrides/sluice"

# --- control --------------------------------------------------------------------------------------------------------------
for script in preinst postinst prerm postrm; do
	[ ! -e "$debian/$script" ] || install -m 0755 "$debian/$script" "$root/DEBIAN/$script"
done
# dpkg-shlibdeps wants a source package around it.
printf 'Source: sluice\n\nPackage: sluice\nArchitecture: any\n' >"$out/debian/control"
depends=$(cd "$out" && dpkg-shlibdeps -O -e root/usr/sbin/sluice -e root/usr/sbin/sluiced -e root/usr/sbin/sluice-writer | sed 's/^shlibs:Depends=//')
sed -e "s|@VERSION@|$version|; s|@ARCH@|$arch|; s|@SHLIBS@|$depends|" \
	-e "s|@SIZE@|$(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f 1)|" "$debian/control" >"$root/DEBIAN/control"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
chmod 0644 "$root"/DEBIAN/{control,conffiles,md5sums}

find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/sluice_${version}_$arch.deb" >/dev/null
echo "$out/sluice_${version}_$arch.deb"
