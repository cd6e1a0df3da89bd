#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Makes a bare Debian 12 able to build, test, demo, bench and lint Sluice. Looks for the things themselves (programs, pkg-config modules,
# headers, Python modules), installs the packages of those that are missing, and looks again. Idempotent; when nothing
# is missing it asks no package manager and takes a fraction of a second. `make check`, `demo` and `bench` call it first, each for
# what it needs. Servers among the packages (the peers of the bench) are kept from being started.
set -u

usage()
{
	cat <<'END'
usage: scripts/install-deps.sh [--for PURPOSE[,PURPOSE...]] [--check] [--quiet] [--help]

Installs what Sluice needs to be built, tested, shown, measured and linted on Debian 12.
  --for     only for these: build test fuzz kernels package checkdeb demo bench lint (all of them)
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
build  libpq-dev          mod:libpq
build  libjansson-dev     mod:jansson
build  libconfig-dev      mod:libconfig
build  libcurl4-openssl-dev mod:libcurl
build  nettle-dev         mod:nettle
build  libhiredis-dev     mod:hiredis
test   redis-server       cmd:redis-server
test   redis-tools        cmd:redis-cli
test   stunnel4           cmd:stunnel
test   liblua5.1-0-dev    mod:lua5.1
test   libcmocka-dev      mod:cmocka
test   python3            file:/usr/bin/python3
test   python3-pytest     py:pytest
test   python3-scapy      py:scapy
test   python3-jsonschema py:jsonschema
test   iproute2           cmd:ip
test   iproute2           cmd:ss
test   ethtool            cmd:ethtool
test   curl               cmd:curl
test   postgresql         file:/usr/lib/postgresql/15/bin/initdb
test   wrk                cmd:wrk
test   procps             cmd:sysctl
test   util-linux         cmd:nsenter
test   util-linux         cmd:setpriv
test   faketime           cmd:faketime
test   nftables           cmd:nft
test   chromium           cmd:chromium
test   chromium-driver    cmd:chromedriver
test   nghttp2-client     cmd:h2load
test   apache2-utils      cmd:ab
test   nodejs             cmd:node
test   bash-completion    file:/usr/share/bash-completion/bash_completion
build  libseccomp-dev     mod:libseccomp
test   mandoc             cmd:mandoc
test   groff-base         cmd:groff
test   systemd            cmd:systemd-analyze
test   binutils           cmd:readelf
test   xdp-tools          cmd:xdp-loader
test   spin               cmd:spin
fuzz   clang              cmd:clang
fuzz   libclang-rt-14-dev file:/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.fuzzer-x86_64.a
kernels qemu-system-x86   cmd:qemu-system-x86_64
kernels cpio              cmd:cpio
kernels busybox-static    cmd:busybox
package dpkg-dev          cmd:dpkg-shlibdeps
package fakeroot          cmd:fakeroot
package mandoc            cmd:mandoc
package lintian           cmd:lintian
checkdeb debootstrap      cmd:debootstrap
demo   sqlite3            cmd:sqlite3
bench  xdp-tools          cmd:xdp-trafficgen
bench  nginx-light        cmd:nginx
bench  haproxy            cmd:haproxy
bench  nftables           cmd:nft
bench  redis-server       cmd:redis-server
bench  redis-tools        cmd:redis-benchmark
bench  postgresql         file:/usr/lib/postgresql/15/bin/initdb
bench  wrk                cmd:wrk
bench  iproute2           cmd:ip
bench  ethtool            cmd:ethtool
bench  linux-perf         cmd:perf
bench  util-linux         cmd:nsenter
bench  python3            file:/usr/bin/python3
bench  python3-pytest     py:pytest
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
		case ,$purposes, in
		*,"$purpose",* | ,all,) ;;
		*) continue ;;
		esac
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
purposes=all
while [ $# -gt 0 ]; do
	case $1 in
	--for)
		[ $# -gt 1 ] || { echo 'install-deps: --for needs a purpose' >&2; exit 2; }
		purposes=$2
		shift
		;;
	--check) check_only=1 ;;
	--quiet) quiet=1 ;;
	--help | -h) usage; exit 0 ;;
	*) echo "install-deps: there is no option $1" >&2; usage >&2; exit 2 ;;
	esac
	shift
done
for purpose in ${purposes//,/ }; do
	grep -q "^$purpose " <<<"$needs" || [ "$purpose" = all ] || { echo "install-deps: nothing is needed for $purpose" >&2; exit 2; }
done

lacking=$(missing)
if [ -z "$lacking" ]; then
	[ "$quiet" -eq 1 ] || echo "install-deps: everything that Sluice needs ($purposes) is there; nothing was installed"
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

# Debian starts a server when it is installed, unless this file says no. One that is there already is the administrator's.
policy=/usr/sbin/policy-rc.d
remove_policy()
{
	[ -z "$policy_made" ] || as_root rm -f "$policy"
}
policy_made=
trap remove_policy EXIT
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 0755 "$policy" && policy_made=1
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
