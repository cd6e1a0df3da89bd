#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Tries the Debian package where it will live: in a clean Debian 12 with systemd as process 1 (a chroot with namespaces of its own), with a veth
# pair as the shop's interface. Installs it, sells through it, upgrades it with the gate attached, boots again, removes and purges it. One line
# for each claim, PASS or FAIL; exit 0 if all hold. Called by `make check-deb`. Needs root, a Debian mirror and about two minutes.
#   test-deb.sh BUILD VERSION
# Environment: MIRROR (the first of this machine's package sources), MAKE. BUILD/check-deb/base.tar is kept as the clean system for the next time.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
build=$(realpath "$1") version=$2
next=$version+1
# shellcheck disable=SC2016 # the format is apt's to read
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)}
MAKE=${MAKE:-make}
work=$build/check-deb
place=$(mktemp -d --tmpdir sluice-deb-XXXXXX) || exit 1 # not in BUILD: make reads every *.d there, and a system has directories of such names
root=$place/root
groups=$place/cgroup
shop=sluice-deb-$$-shop
crowd=sluice-deb-$$-crowd
init=0
failed=0

say() { printf '%s\n' "$*"; }
die() { say "check-deb: $*" >&2; exit 1; }

halt()
{
	[ "$init" -eq 0 ] || kill -KILL "$init" 2>/dev/null
	init=0
	# Process 1 of a pid namespace takes the others with it; its cgroups are empty a moment later.
	for _ in $(seq 50); do
		find "$groups/sluice-deb-$$" -depth -type d -exec rmdir {} \; 2>/dev/null
		[ -d "$groups/sluice-deb-$$" ] || break
		sleep 0.1
	done
}

clean_up()
{
	halt
	umount "$groups" 2>/dev/null && rmdir "$groups"
	for ns in "$shop" "$crowd"; do
		ip netns del "$ns" 2>/dev/null
	done
	umount -l "$root/proc" 2>/dev/null
	rm -rf --one-file-system "$place"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

[ "$(id -u)" -eq 0 ] || die 'needs root'
for tool in debootstrap ip unshare nsenter curl; do
	command -v "$tool" >/dev/null || die "$tool is missing (apt-get install debootstrap iproute2 util-linux curl)"
done

# --- a claim: CLAIM COMMAND... -----------------------------------------------------------------------------------------
claim()
{
	local what=$1 out
	shift
	if out=$("$@" 2>&1 </dev/null); then
		say "PASS $what"
	else
		say "FAIL $what"
		[ -z "$out" ] || printf '%s\n' "$out" | tail -n 20 | sed 's/^/     /'
		failed=$((failed + 1))
		return 1
	fi
}

# What the rest stands on: without it there is nothing more to see.
need()
{
	claim "$@" && return
	[ "$init" -eq 0 ] || box journalctl --no-pager -n 40 -u 'sluice*'
	die 'the rest cannot be tried'
}

# --- the machine -----------------------------------------------------------------------------------------------------------
box() { nsenter -t "$init" -m -p -n -u -i -C -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive HOME=/root "$@"; }
wait_for()
{
	for _ in $(seq 150); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	say "waited in vain: $*"
	"$@"
}

make_base()
{
	local base=$place/base

	[ ! -e "$work/base.tar" ] || return 0
	debootstrap --variant=minbase --include=systemd,systemd-sysv,udev,dbus,iproute2,adduser bookworm "$base" "$MIRROR" >"$work/debootstrap.log" 2>&1 ||
		die "debootstrap failed: see $work/debootstrap.log (MIRROR=$MIRROR)"
	printf 'APT::Install-Recommends "false";\n' >"$base/etc/apt/apt.conf.d/99check-deb"
	# Only the network's devices: the others are the host's.
	mkdir -p "$base/etc/systemd/system/systemd-udev-trigger.service.d"
	printf '[Service]\nExecStart=\nExecStart=-udevadm trigger --subsystem-match=net --action=add\n' \
		>"$base/etc/systemd/system/systemd-udev-trigger.service.d/net.conf"
	# What would write to the host's kernel, or wait for a console.
	for unit in systemd-sysctl.service systemd-modules-load.service e2scrub_reap.service console-getty.service; do
		ln -s /dev/null "$base/etc/systemd/system/$unit"
	done
	tar -C "$base" --numeric-owner -cf "$work/base.tar.new" . && mv "$work/base.tar.new" "$work/base.tar"
	rm -rf --one-file-system "$base"
}

make_network()
{
	# shellcheck disable=SC2015 # any of it
	ip netns add "$shop" && ip netns add "$crowd" &&
		ip link add veth0 netns "$shop" type veth peer name veth0 netns "$crowd" &&
		ip -n "$shop" addr add 10.75.0.1/24 dev veth0 && ip -n "$crowd" addr add 10.75.0.2/24 dev veth0 &&
		ip -n "$shop" link set lo up && ip -n "$shop" link set veth0 up && ip -n "$crowd" link set veth0 up &&
		nsenter --net="/run/netns/$crowd" ip link set dev veth0 xdp obj "$build/bpf/pass.bpf.o" sec xdp || die 'cannot make the network'
}

# Runs as process 1 until pivot_root; systemd does the rest.
# shellcheck disable=SC2016 # for the shell in the new namespaces to expand
boot_script='
	set -e
	root=$1
	mount --make-rprivate /
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount -t tmpfs tmpfs "$root/run"
	mkdir -p "$root/sys/fs/cgroup"
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
	mount -t bpf bpf "$root/sys/fs/bpf" -o mode=0700,nosuid,nodev,noexec
	mount -t tmpfs tmpfs "$root/dev" -o mode=0755
	for device in null zero full random urandom tty; do
		touch "$root/dev/$device"
		mount --bind "/dev/$device" "$root/dev/$device"
	done
	mkdir -p "$root/dev/shm" "$root/dev/pts"
	mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666,mode=0620
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"
	touch "$root/dev/console"
	# Without it process 1 would take this for a container without udev, and know no device units.
	mkdir -p "$root/run/udev"
	touch "$root/run/udev/control"
	cd "$root"
	pivot_root . mnt
	umount -l /mnt
	container=other exec /lib/systemd/systemd --log-target=journal --show-status=no'

boot()
{
	mkdir -p "$groups"
	mountpoint -q "$groups" || mount -t cgroup2 none "$groups" || die 'cannot mount a cgroup2 file system, so systemd cannot run here'
	mkdir -p "$groups/sluice-deb-$$"
	(
		echo "$BASHPID" >"$groups/sluice-deb-$$/cgroup.procs"
		exec nsenter --net="/run/netns/$shop" unshare -C -m -p -u -i -f --kill-child bash -c "$boot_script" bash "$root"
	) >>"$work/boot.log" 2>&1 &
	local unshare=$!
	wait_for pgrep -P "$unshare" || die "cannot boot: see $work/boot.log"
	init=$(pgrep -P "$unshare")
	wait_for is_up || die "systemd did not come up: see $work/boot.log"
}
is_up() { box systemctl is-system-running | grep -q -E 'running|degraded'; }

# --- what is looked at -------------------------------------------------------------------------------------------------------
status_json() { box sluice status -o json; }
link_id() { status_json | grep -o '"link_id": [0-9]*'; }
program_id() { status_json | sed -n '/"program": {/,/}/p' | grep -o '"id": [0-9]*'; }
pid_of() { box systemctl show -p MainPID --value "$1"; }
is_active() { box systemctl --quiet is-active "$@"; }
all_active() { local unit; for unit; do is_active "$unit" || { say "$unit does not run"; return 1; }; done; }
has_xdp() { ip -n "$shop" link show dev veth0 | grep -q 'prog/xdp'; }
open_orders() { box sluice status | grep -q '^orders_open  *yes'; }
proc_status() { awk -v name="$2:" '$1 == name { $1 = $1; print }' "/proc/$(host_pid "$1")/status"; }
# systemd tells the pid in its own namespace.
host_pid()
{
	local inner status
	inner=$(pid_of "$1")
	for status in /proc/[0-9]*/status; do
		[ "$(awk '$1 == "NSpid:" { print $NF, NF }' "$status" 2>/dev/null)" = "$inner 3" ] || continue
		[ "$(readlink "${status%status}ns/pid")" = "$(readlink "/proc/$init/ns/pid")" ] && { status=${status#/proc/}; echo "${status%/status}"; return; }
	done
	return 1
}
order() { nsenter --net="/run/netns/$crowd" curl -s -o /dev/null -w '%{http_code}' --max-time 10 "${@:2}" "http://10.75.0.1:8080/v1/orders/$1"; }
token() { box sluice token issue "$1" --buyer "$2" -o json | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p'; }
buy() { local t; t=$(token "$1" "$2") && [ -n "$t" ] && echo "$t" >"$work/token" && got=$(order "$t" -X POST) && { [ "$got" = 201 ] || { say "answer $got"; return 1; }; }; }
still_has() { got=$(order "$(cat "$work/token")"); [ "$got" = 200 ] || { say "answer $got"; return 1; }; }
put_deb() { cp "$1" "$root/tmp.deb"; }

# Looks at the interface a hundred times a second for as long as COMMAND runs; fails if it ever sees no program there.
never_without_gate()
{
	local out="$work/watch" rc
	: >"$out"
	( while [ -e "$out" ]; do has_xdp || echo bare >>"$out"; sleep 0.01; done ) &
	local watcher=$!
	"$@"
	rc=$?
	local bare
	bare=$(wc -l <"$out")
	rm -f "$out"
	wait "$watcher" 2>/dev/null
	[ "$bare" -eq 0 ] || { say "the interface was seen $bare times without a gate"; return 1; }
	return $rc
}
same() { [ "$1" = "$2" ] || { say "was: $1, is: $2"; return 1; }; }
differs() { [ -n "$2" ] && [ "$1" != "$2" ] && return; say "was: $1, is: $2"; return 1; }
confined()
{
	local set
	for set in CapPrm CapEff CapBnd CapInh CapAmb; do
		same "$set: 0000000000000000" "$(proc_status "$1" $set)" || return 1
	done
	same 'NoNewPrivs: 1' "$(proc_status "$1" NoNewPrivs)" && same 'Seccomp: 2' "$(proc_status "$1" Seccomp)"
}
runs_as() { local uid; uid=$(box id -u "$2"); same "Uid: $uid $uid $uid $uid" "$(proc_status "$1" Uid)"; }
absent() { box test ! -e "$1"; }
not() { ! "$@"; }

# Notes what runs, for the claims that come after.
note() { link=$(link_id) program=$(program_id) daemon=$(pid_of sluiced) writer=$(pid_of sluice-writer); }
is_as_noted() { same "$link $program $daemon $writer" "$(link_id) $(program_id) $(pid_of sluiced) $(pid_of sluice-writer)"; }
gate_is_as_noted() { same "$link $program" "$(link_id) $(program_id)"; }
gate_is_replaced() { same "$link" "$(link_id)" && differs "$program" "$(program_id)"; }
services_are_new() { differs "$daemon" "$(pid_of sluiced)" && differs "$writer" "$(pid_of sluice-writer)"; }
stop_the_gate_unit() { box systemctl stop sluice-gate@veth0 && has_xdp; }
start_the_gate_unit() { box systemctl start sluice-gate@veth0 && gate_is_as_noted; }
upgrade() { box dpkg -i /tmp.deb >"$work/upgrade.log" 2>&1; }
# systemd has handed it to a daemon so many times.
has_kept_listener() { [ "$(box journalctl --no-pager -q -u sluiced | grep -c 'kept during the restart')" -ge "$1" ]; }
orders_are() { same "$2" "$(box sluice order list --all --sale "$1" -o json | grep -c '"seq":')"; }
nothing_is_left() { absent /var/lib/sluice && absent /etc/sluice && ! find "$root/etc/systemd/system" -name 'sluice*' | grep .; }

# --- packages --------------------------------------------------------------------------------------------------------------
arch=$(dpkg --print-architecture)
deb=$build/deb/sluice_${version}_$arch.deb
[ -e "$deb" ] || die "$deb is not there (make deb)"
mkdir -p "$work"
say "building version $next"
"$MAKE" --no-print-directory BUILD="$work/next" VERSION="$next" deb >"$work/next.log" 2>&1 || die "cannot build version $next: see $work/next.log"
newer=$work/next/deb/sluice_${next}_$arch.deb
make_base
mkdir "$root"
tar -C "$root" --numeric-owner -xf "$work/base.tar" || die 'cannot unpack the clean system'
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/hosts "$root/etc/hosts"
make_network

# apt needs the host's network, which the booted system has not.
install_first()
{
	put_deb "$deb" && mount --bind /proc "$root/proc" || return 1
	chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
		chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends /tmp.deb curl
	local rc=$?
	umount "$root/proc"
	return $rc
}
need 'apt installs the package and all it depends on' install_first
claim 'sluice --help works' chroot "$root" sluice --help
claim 'the users are there, and the daemon is in the group of the writer' chroot "$root" sh -c 'id sluice-writer && id sluice | grep sluice-writer'

boot
claim 'a new installation runs nothing' not is_active sluiced sluice-writer

# --- a shop ------------------------------------------------------------------------------------------------------------------
need 'the units are enabled and started' box systemctl enable --now sluice-gate@veth0 sluice-writer sluiced
need 'the gate is on the interface' wait_for has_xdp
need 'orders are open' wait_for open_orders
claim 'the daemon runs as sluice' runs_as sluiced sluice
claim 'the writer runs as sluice-writer' runs_as sluice-writer sluice-writer
claim 'the daemon has no capability, and a system call filter' confined sluiced
claim 'the writer has no capability, and a system call filter' confined sluice-writer
claim 'a sale is made' box sluice sale create drop-1 --stock 100 --opens now --ends +60m --per-buyer 5
need 'a buyer gets an order' wait_for buy drop-1 first
note
claim 'stopping the gate unit leaves the gate on' stop_the_gate_unit
claim 'starting it again leaves it as it is' start_the_gate_unit

# --- upgrades ------------------------------------------------------------------------------------------------------------------
put_deb "$newer"
need 'an upgrade during an open sale leaves the gate on' never_without_gate upgrade
claim 'it says what is left to do' grep 'a sale is open' "$work/upgrade.log"
claim 'gate, daemon and writer run on' is_as_noted
claim 'the program on disk is the new one' same "sluice $next" "$(box sluice --version)"
claim 'what it said replaces the gate in place and restarts the rest' \
	never_without_gate box sh -c 'sluice reload && systemctl restart sluice-writer sluiced'
claim 'the link is the same, the program another' gate_is_replaced
claim 'orders are open again' wait_for open_orders
claim 'the listener was kept through the restart' has_kept_listener 1
claim 'the daemon is killed' box systemctl kill -s KILL sluiced
claim 'it is started again, on the same listener' wait_for has_kept_listener 2
claim 'orders are open again after that' wait_for open_orders
claim 'the order of before is still there' wait_for still_has
claim 'a buyer gets an order from the new version' wait_for buy drop-1 second
claim 'the sale ends' box sluice sale end drop-1
note
claim 'an upgrade without an open sale leaves the gate on' never_without_gate upgrade
claim 'it replaces the program' gate_is_replaced
claim 'it restarts daemon and writer' services_are_new
claim 'orders are open again after it' wait_for open_orders
claim 'no order was lost' orders_are drop-1 2

# --- the machine boots again ----------------------------------------------------------------------------------------------------
claim 'a sale for after the boot is made' box sluice sale create drop-2 --stock 10 --opens now --ends +60m
claim 'a buyer gets an order of it' wait_for buy drop-2 third
halt
boot
need 'after a boot the gate is on the interface by itself' wait_for has_xdp
need 'after a boot orders are open' wait_for open_orders
claim 'the order from before the boot is still there' wait_for still_has
claim 'a buyer gets an order after the boot' wait_for buy drop-2 fourth

# --- a removal that comes to nothing --------------------------------------------------------------------------------------------------
# Another loader is at work, so the gate cannot be taken off.
remove_in_vain() { ! box flock /sys/fs/bpf dpkg -r sluice; }
need 'while the gate cannot be taken off, the package cannot be removed' remove_in_vain
claim 'the gate is still on' has_xdp
claim 'daemon, writer and gate unit run again' all_active sluiced sluice-writer sluice-gate@veth0
claim 'orders are open again after it' wait_for open_orders
claim 'a buyer gets an order after it' wait_for buy drop-2 fifth

# --- the end ------------------------------------------------------------------------------------------------------------------------
need 'dpkg removes the package' box dpkg -r sluice
claim 'the gate is off' not has_xdp
claim 'its pins are gone' absent /sys/fs/bpf/sluice
claim 'daemon and writer are gone' not is_active sluiced sluice-writer
claim 'keys and ledger are still there' box test -s /var/lib/sluice/keys -a -s /var/lib/sluice-writer/ledger.db
need 'dpkg purges the package' box dpkg -P sluice
claim 'keys, config and links of the units are gone' nothing_is_left
claim 'the ledger is kept' box test -s /var/lib/sluice-writer/ledger.db

[ "$failed" -eq 0 ] || { say "check-deb: $failed FAILED"; exit 1; }
say 'check-deb: all hold'
