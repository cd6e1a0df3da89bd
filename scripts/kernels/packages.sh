#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Fetches Debian's newest cloud kernel of a series, and busybox-static, by apt's own configuration of this machine. Called by run.sh.
#
#   packages.sh CACHE kernel SERIES    prints the path of linux-image-SERIES…-cloud-amd64_….deb in CACHE
#   packages.sh CACHE busybox          prints the path of a busybox that needs no library
#
# The machine's package lists are asked first. If they are empty or too old, newer ones are fetched into CACHE/apt, by the same
# sources; /etc/apt and /var/lib/apt stay as they are. Without network the newest package in CACHE is taken. Exit codes: 0 printed,
# 1 there is none (a sentence on stderr says why), 2 usage.
set -u

cache=${1:?usage: packages.sh CACHE kernel SERIES | busybox}
what=${2:?usage: packages.sh CACHE kernel SERIES | busybox}
mkdir -p "$cache" || exit 1
cache=$(cd "$cache" && pwd)
log=$cache/apt.log
: >"$log"

private=(-o "Dir::State=$cache/apt/state" -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$cache/apt/cache"
	-o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
[ "$(id -u)" -ne 0 ] || private+=(-o APT::Sandbox::User=root) # the cache may lie where _apt cannot read

say()
{
	echo "kernels: $*" >&2
}

have_apt()
{
	command -v apt-get >/dev/null && command -v apt-cache >/dev/null
}

update_private_lists()
{
	mkdir -p "$cache/apt/state/lists/partial" "$cache/apt/cache/archives/partial"
	apt-get "${private[@]}" update >>"$log" 2>&1
}

# "PACKAGE=VERSION", the newest of all whose name matches; nothing if apt knows none. More arguments: options of apt.
newest_of() # NAME-REGEX [OPTION...]
{
	local regex=$1 names
	shift
	names=$(apt-cache "$@" search --names-only "$regex" 2>>"$log" | awk '{ print $1 }')
	[ -n "$names" ] || return 0
	# shellcheck disable=SC2086 # package names have no spaces
	apt-cache "$@" madison $names 2>>"$log" | awk -F'|' '{ gsub(/ /, ""); print $2, $1 }' | sort -V | tail -n 1 |
		awk '{ print $2 "=" $1 }'
}

# apt-get download looks at a file that is there already, and fetches it only if it is another one.
download() # PACKAGE=VERSION [OPTION...]
{
	local package=$1
	shift
	(cd "$cache" && apt-get "$@" -o Acquire::Retries=1 -o Acquire::http::Timeout=20 download "$package" >>"$log" 2>&1)
}

cached() # GLOB
{
	local found
	found=$(find "$cache" -maxdepth 1 -name "$1" | sort -V | tail -n 1)
	[ -n "$found" ] && echo "$found"
}

# The newest package that apt can get, or else the newest in the cache.
fetch() # NAME-REGEX CACHE-GLOB WHAT
{
	local regex=$1 glob=$2 title=$3 package
	if have_apt; then
		package=$(newest_of "$regex")
		if [ -n "$package" ] && download "$package"; then
			cached "${package%%=*}_*.deb" && return 0
		fi
		if update_private_lists; then
			package=$(newest_of "$regex" "${private[@]}")
			if [ -n "$package" ] && download "$package" "${private[@]}"; then
				cached "${package%%=*}_*.deb" && return 0
			fi
		fi
	fi
	if cached "$glob"; then
		say "apt could not be asked for a newer $title; taking it from $cache"
		return 0
	fi
	if ! have_apt; then
		say "no $title: this machine has no apt, and $cache holds no package of it (put one there, or name another directory: KERNELS_CACHE=)"
	elif [ -z "${package:-}" ]; then
		say "no $title: the apt sources of this machine have none, or cannot be reached, and $cache holds no package of it ($log)"
	else
		say "no $title: ${package%%=*} could not be downloaded, and $cache holds no package of it ($log)"
	fi
	return 1
}

# A statically linked program has no line about an interpreter.
is_static()
{
	[ -x "$1" ] && ! ldd "$1" >/dev/null 2>&1
}

case $what in
kernel)
	series=${3:?usage: packages.sh CACHE kernel SERIES}
	fetch "^linux-image-${series//./\\.}\\..*-cloud-amd64\$" "linux-image-$series.*-cloud-amd64_*.deb" "Debian cloud kernel $series"
	;;
busybox)
	for candidate in /usr/bin/busybox /bin/busybox "$cache/busybox/bin/busybox" "$cache/busybox/usr/bin/busybox"; do
		if is_static "$candidate"; then
			echo "$candidate"
			exit 0
		fi
	done
	deb=$(fetch '^busybox-static$' 'busybox-static_*.deb' busybox-static) || exit 1
	dpkg-deb -x "$deb" "$cache/busybox" || exit 1
	for candidate in "$cache/busybox/bin/busybox" "$cache/busybox/usr/bin/busybox"; do
		if is_static "$candidate"; then
			echo "$candidate"
			exit 0
		fi
	done
	say "the package $deb holds no static busybox"
	exit 1
	;;
*)
	say "packages.sh: what is \"$what\"?"
	exit 2
	;;
esac
