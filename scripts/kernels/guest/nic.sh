# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# (suite and mode are set by lib.sh)
# The gate on a virtio NIC: real frames between two NICs of this guest, each in a network namespace of its own. nic-native and nic-generic
# use the pair that the emulator joins by itself (one queue, no offloads); nic-offload the pair on two tap devices of the host
# (several queues, checksum and segmentation offloads, as machines in a cloud have them).
# shellcheck source=scripts/kernels/guest/world.sh
. /sluice/guest/world.sh

attach_here()
{
	attach --mode "$gate_mode"
	shop "$sluice" status --config "$config" | grep -q "gate0 *$gate_mode" || fail "status does not say $gate_mode"
}

leave()
{
	shop "$sluice" detach gate0 --config "$config"
	nothing_left
}

# A body of 40 kB upwards, so that the sender's segments are as large as the offloads allow: once through the gate to the daemon, once
# refused by the gate on the first segment.
large_requests()
{
	until_true 20 is_ready
	head -c 40000 /dev/zero | tr '\0' x >/tmp/large
	expect_answer 401 POST "$shop4" /v1/orders/not-a-token --data-binary @/tmp/large
	forged=$(packets token_mac)
	expect_answer 401 POST "$shop4" "/v1/orders/$(forge "$(cat /tmp/late)")" --data-binary @/tmp/large
	expect_count token_mac "$forged" 1
}

# The answer to a forged token is made some 240 bytes longer than curl's request, and then the request longer, by steps: an answer may need more room in
# front of its frame than the driver's own header leaves it, and such a frame would be lost without a word.
answers_of_every_length()
{
	until_true 20 is_ready
	pad=
	head -c 240 /dev/zero | tr '\0' x >/tmp/long-answer
	shop "$sluice" answer set token_invalid --file /tmp/long-answer --content-type text/plain --socket /tmp/state/control.sock
	forged=$(forge "$(cat /tmp/late)")
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do
		expect_answer 401 POST "$shop4" "/v1/orders/$forged" -m 5 -H "X-Pad: $pad"
		pad=${pad}pads
	done
	shop "$sluice" answer reset token_invalid --socket /tmp/state/control.sock
}

gate_mode=$mode
here=52:54:00:00:00:01
there=52:54:00:00:00:02
if [ "$mode" = offload ]; then
	gate_mode=native
	here=52:54:00:00:00:03
	there=52:54:00:00:00:04
fi
if [ "$mode" = offload ] && [ -z "$(nic_of $here)" ]; then
	no_taps()
	{
		skip 'the host has no tap devices to lend (they need root and /dev/net/tun)'
	}
	try 'two NICs with several queues and offloads' no_taps
else
	world_of_nics $here $there
	write_config
	report fact "$suite" receive_queues "$(ip -n shop -d link show dev gate0 | sed -n 's/.*numrxqueues \([0-9]*\).*/\1/p')"
	if try "sluice attach --mode $gate_mode" attach_here; then
		warning=$(dmesg | sed -n 's/.*\(XDP request .*\)/\1/p' | tail -n 1)
		[ -z "$warning" ] || report fact "$suite" kernel_says "$warning"
		start_servers
		try 'a small sale goes through' small_sale
		try 'requests of 40 kB are answered, by the daemon and by the gate' large_requests
		try 'answers of every length arrive' answers_of_every_length
		try 'other traffic goes through' other_traffic
		stop_servers
		try 'detached, nothing is left' leave
	fi
	world_gone
fi
