# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# (suite and mode are set by lib.sh)
# What drivers and kernels cannot do, `sluice attach` says in one sentence, with what to do instead, and leaves the interface as it was.
# shellcheck source=scripts/kernels/guest/world.sh
. /sluice/guest/world.sh

# The words, on one line, and nothing else.
refused_in_one_sentence() # EXIT-CODE WORDS COMMAND...
{
	refused "$@"
	[ "$(wc -l </tmp/refused.log)" -eq 1 ] || fail 'it takes more than one line to say so'
	nothing_left
}

large_frames()
{
	ip -n shop link set gate0 mtu 9000
	refused_in_one_sentence 1 'MTU of gate0 is 9000, too large for XDP in native mode.*--mode generic' attach --mode native
	attach --mode auto
	shop "$sluice" status --config "$config" | grep -q 'gate0 *generic' || fail 'auto did not take generic mode'
	shop "$sluice" detach gate0 --config "$config"
	ip -n shop link set gate0 mtu 1500
}

# A NIC whose host merges segments and computes checksums, and lets the guest not turn it off.
fixed_offloads()
{
	refused_in_one_sentence 1 'in native mode: the kernel says "virtio_net: .*--mode generic' attach --mode native
}

auto_says_why()
{
	attach >/tmp/auto.log 2>&1
	cat /tmp/auto.log
	grep -q 'native mode does not work on gate0 (the kernel says: virtio_net: .*using generic mode' /tmp/auto.log ||
		fail "auto did not say why it took generic mode: $(head -n 1 /tmp/auto.log)"
	shop "$sluice" detach gate0 --config "$config"
	nothing_left
}

no_native()
{
	ip -n shop link add dummy0 type dummy
	ip -n shop link set dummy0 up
	refused 1 'in native mode: the kernel says ".*--mode generic' \
		shop "$sluice" attach dummy0 --config "$config" --mode native
	[ "$(wc -l </tmp/refused.log)" -eq 1 ] || fail 'it takes more than one line to say so'
	[ ! -e "$pins" ] || fail "pins are left: $(ls "$pins")"
}

cookies_off()
{
	shop sysctl -q -w net.ipv4.tcp_syncookies=1
	refused_in_one_sentence 1 'tcp_syncookies is 1' attach
	shop sysctl -q -w net.ipv4.tcp_syncookies=2
}

no_offloads_here()
{
	skip 'the host has no tap devices to lend (they need root and /dev/net/tun)'
}

world_of_nics 52:54:00:00:00:01 52:54:00:00:00:02
write_config
try 'an MTU of 9,000 on virtio' large_frames
try 'a driver without native XDP' no_native
try 'SYN cookies that are not forced' cookies_off
world_gone
if [ -n "$(nic_of 52:54:00:00:00:05)" ]; then
	world_of_nics 52:54:00:00:00:05 52:54:00:00:00:02
	try 'virtio with offloads that the guest cannot turn off: the driver is quoted' fixed_offloads
	try 'there auto takes generic mode and says why' auto_says_why
	world_gone
else
	try 'virtio with offloads that the guest cannot turn off' no_offloads_here
fi
