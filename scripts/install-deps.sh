#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Makes a bare Debian 12 able to build, test, demo, bench and lint Sluice. Looks for the things themselves (programs, pkg-config modules,
# headers, Python modules), installs the packages of those that are missing, and looks again. Idempotent; when nothing
# is missing it asks no package manager and takes a fraction of a second. `make check`, `demo` and `bench` call it first.
set -u

usage()
{
	cat <<'END'
usage: scripts/install-deps.sh [--check] [--quiet] [--help]

Installs what Sluice needs to be built, tested, shown, measured and linted on Debian 12.
  --check   install nothing; say what is missing, exit 1 if something is
  --quiet   say nothing if nothing is missing
Needs root or sudo if something is missing. Exit codes: 0 all there, 1 something is missing, 2 usage.
END
}

# what for | Debian package | how to see that it is there:
#   cmd:PROGRAM  mod:PKG-CONFIG-MODULE  file:PATH  py:MODULE of /usr/bin/python3
needs='
build  gcc                cmd:gcc
build  libc6-dev          file:/usr/include/stdio.h
build  linux-libc-dev     file:/usr/include/linux/bpf.h
build  make               cmd:make
build  pkg-config         cmd:pkg-config
build  clang              cmd:clang
build  bpftool            cmd:bpftool
build  libbpf-dev         mod:libbpf
build  libxdp-dev         mod:libxdp
build  libelf-dev         mod:libelf
build  zlib1g-dev         mod:zlib
build  libmicrohttpd-dev  mod:libmicrohttpd
build  libsqlite3-dev     mod:sqlite3
build  libjansson-dev     mod:jansson
build  libconfig-dev      mod:libconfig
build  libcurl4-openssl-dev mod:libcurl
test   libcmocka-dev      mod:cmocka
test   python3            file:/usr/bin/python3
test   python3-pytest     py:pytest
test   python3-scapy      py:scapy
test   iproute2           cmd:ip
test   iproute2           cmd:ss
test   ethtool            cmd:ethtool
test   curl               cmd:curl
test   wrk                cmd:wrk
test   procps             cmd:sysctl
test   util-linux         cmd:nsenter
test   util-linux         cmd:setpriv
test   faketime           cmd:faketime
test   chromium           cmd:chromium
test   chromium-driver    cmd:chromedriver
demo   sqlite3            cmd:sqlite3
lint   clang-format       cmd:clang-format
lint   cppcheck           cmd:cppcheck
lint   shellcheck         cmd:shellcheck
'

# Debian keeps administrators' programs where a plain user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

is_there()
{
	case $1 in
	cmd:*) command -v "${1#cmd:}" >/dev/null ;;
	mod:*) pkg-config --exists "${1#mod:}" 2>/dev/null ;;
	file:*) [ -e "${1#file:}" ] ;;
	py:*) /usr/bin/python3 -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec(sys.argv[1]))' \
		"${1#py:}" 2>/dev/null ;;
	*) echo "install-deps: no way to look for $1" >&2; return 1 ;;
	esac
}

# Prints the table's lines whose thing is not there.
missing()
{
	local purpose package probe
	while read -r purpose package probe; do
		[ -n "$purpose" ] || continue
		is_there "$probe" || echo "$purpose $package $probe"
	done <<<"$needs"
}

show()
{
	local purpose package probe
	while read -r purpose package probe; do
		printf '  %-6s %-22s (%s)\n' "$purpose" "$package" "${probe#*:}"
	done <<<"$1"
}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

check_only=0
quiet=0
for arg in "$@"; do
	case $arg in
	--check) check_only=1 ;;
	--quiet) quiet=1 ;;
	--help | -h) usage; exit 0 ;;
	*) echo "install-deps: there is no option $arg" >&2; usage >&2; exit 2 ;;
	esac
done

lacking=$(missing)
if [ -z "$lacking" ]; then
	[ "$quiet" -eq 1 ] || echo "install-deps: all $(grep -c : <<<"$needs") things that Sluice needs are there; nothing was installed"
	exit 0
fi

echo 'install-deps: missing:'
show "$lacking"
[ "$check_only" -eq 0 ] || exit 1
if ! command -v apt-get >/dev/null; then
	echo 'install-deps: this is not Debian (no apt-get): install the above by hand' >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
	echo 'install-deps: run this as root: packages must be installed and there is no sudo' >&2
	exit 1
fi

mapfile -t packages <<<"$(awk '{ print $2 }' <<<"$lacking" | sort -u)"
echo "install-deps: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! as_root apt-get -q update; then
	echo 'install-deps: apt-get update failed; trying with the package lists that are there' >&2
fi
if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${packages[@]}"; then
	echo "install-deps: apt-get could not install: ${packages[*]}" >&2
	exit 1
fi

hash -r
lacking=$(missing)
if [ -n "$lacking" ]; then
	echo 'install-deps: installed, but these are still not to be found:' >&2
	show "$lacking" >&2
	exit 1
fi
echo "install-deps: installed ${packages[*]}; everything Sluice needs is there now"
