# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# (suite and mode are set by lib.sh)
# The gate beside other XDP programs in libxdp's dispatcher, on veth: alone in it, joined by another program, reloaded, thrown out and put
# back, and joining xdp-filter that was there first. coexist-native and coexist-generic are the modes of the hook; coexist-quick is the
# beginning of coexist-native.
#
# Where libxdp's dispatcher takes no program that changes packets on this kernel, which is asked with another program than the gate, there is
# nothing to share: then the tests are that sluice says so in one sentence and leaves everything as it was.
# shellcheck source=scripts/kernels/guest/world.sh
. /sluice/guest/world.sh

quick=
case $mode in
quick) quick=yes mode=native ;;
esac
case $mode in
native) loader_mode=native other_mode=generic hook=xdp ;;
generic) loader_mode=skb other_mode=native hook=xdpgeneric ;;
esac

holds() # PROGRAM TIMES
{
	shop xdp-loader status gate0 >/tmp/status || true
	cat /tmp/status
	holds_count=$(grep -c "[> ]$1 " /tmp/status || true)
	[ "$holds_count" -eq "$2" ] || fail "$1 is on gate0 $holds_count times instead of $2"
}

status_says() # MODE
{
	shop "$sluice" status --config "$config" | grep -q "gate0 *$1 *dispatcher" ||
		fail "status does not say $1: $(shop "$sluice" status --config "$config" | grep gate0)"
}

attach_alone()
{
	attach --coexist --mode "$mode"
	holds xdp_dispatcher 1
	holds sluice_gate 1
	status_says "$mode"
}

another_joins()
{
	shop xdp-loader load -m "$loader_mode" gate0 /sluice/pass.bpf.o
	holds xdp_dispatcher 1
	holds sluice_gate 1
	holds sluice_pass 1
	small_sale
	other_traffic
}

reload_in_dispatcher()
{
	until_true 20 is_ready
	before=$(control http://localhost/v1/status | json_number generation)
	shop "$sluice" reload --config "$config"
	holds sluice_gate 1
	holds sluice_pass 1
	status_says "$mode"
	shop "$sluice" status --config "$config" -o json | grep -q "\"generation\": *$((before + 1))" || fail 'the generation is the same'
	small_sale
}

attached_twice()
{
	refused 4 'attached to gate0 already' attach --coexist
}

thrown_out_and_put_back()
{
	held_before=$(shop "$sluice" status --config "$config" -o json | json_number in_flight)
	gate_id=$(sed -n 's/.*sluice_gate *\([0-9]*\) .*/\1/p' /tmp/status)
	[ -n "$gate_id" ] || fail "no id of the gate in: $(cat /tmp/status)"
	shop xdp-loader unload gate0 --id "$gate_id"
	refused 3 'no interface of this gate' shop "$sluice" status --config "$config"
	attach --coexist
	holds sluice_gate 1
	status_says "$mode"
	shop "$sluice" status --config "$config" -o json | grep -q "\"in_flight\": *$held_before" || fail 'the gate has other maps'
	small_sale
}

# One program in the dispatchers of two interfaces: traffic of both is one sale's.
a_second_interface()
{
	ip link add gate1 netns shop type veth peer name crowd1 netns crowd
	ip -n shop link set gate1 up
	ip -n crowd link set crowd1 up
	shop "$sluice" attach gate1 --config "$config" --coexist --mode "$mode"
	shop xdp-loader status gate1 | grep -q '[> ]sluice_gate ' || fail 'the gate is not in the dispatcher of gate1'
	shop "$sluice" reload --config "$config"
	[ "$(shop xdp-loader status gate1 | grep -c '[> ]sluice_gate ')" -eq 1 ] || fail 'gate1 has not one gate after the reload'
	small_sale
	shop "$sluice" detach gate1 --config "$config"
	shop xdp-loader status gate1 | grep -q 'No XDP program' || fail 'a dispatcher is left on gate1'
	holds sluice_gate 1
	small_sale
	ip -n shop link del gate1
}

leave_the_other()
{
	shop "$sluice" detach gate0 --config "$config"
	[ ! -e "$pins" ] || fail "pins are left: $(ls "$pins")"
	holds sluice_gate 0
	holds sluice_pass 1
	shop xdp-loader unload gate0 --all
	nothing_left
}

is_blocked()
{
	crowd ping -c 1 -W 3 -I "$blocked4" "$shop4" && fail "the other program lets $blocked4 through"
	crowd ping -c 1 -W 5 -I "$crowd4" "$shop4"
}

join_a_filter()
{
	shop xdp-filter load -m "$loader_mode" -p allow -f ipv4 gate0
	shop xdp-filter ip -m src "$blocked4"
	is_blocked
	refused 4 'leave --mode away' attach --mode "$other_mode"
	attach
	holds xdp_dispatcher 1
	holds sluice_gate 1
	holds xdpfilt_alw_ip 1
	status_says "$mode"
	is_blocked
}

blocked_before_the_gate()
{
	until_true 20 is_ready
	got=$(crowd curl -s -m 4 --interface "$blocked4" -o /dev/null -w '%{http_code}' "http://$shop4:8080/" || true)
	[ "$got" = 000 ] || fail "a source that xdp-filter drops was answered with $got"
	small_sale
	other_traffic
}

a_second_gate()
{
	refused 4 'a gate is in libxdp' attach --coexist --pin-dir /sys/fs/bpf/another
	[ ! -e /sys/fs/bpf/another ] || fail 'it left a pin directory'
}

leave_the_filter()
{
	shop "$sluice" detach --all --config "$config"
	holds sluice_gate 0
	holds xdpfilt_alw_ip 1
	is_blocked
	shop xdp-filter unload gate0
	nothing_left
}

a_foreign_program()
{
	ip -n shop link set dev gate0 "$hook" obj /sluice/pass.bpf.o sec xdp
	refused 4 "libxdp's dispatcher does not hold it" attach --coexist
	ip -n shop link set dev gate0 "$hook" off
	nothing_left
}

# --- where the dispatcher takes no program that changes packets ---------------------------------------------------------------
refused_alone()
{
	refused 1 'before 1.5.5' attach --coexist --mode "$mode"
	[ "$(wc -l </tmp/refused.log)" -eq 1 ] || fail 'it takes more than one line to say so'
	nothing_left
}

refused_beside_a_filter()
{
	shop xdp-filter load -m "$loader_mode" -p allow -f ipv4 gate0
	shop xdp-filter ip -m src "$blocked4"
	refused 1 'before 1.5.5' attach
	holds sluice_gate 0
	holds xdpfilt_alw_ip 1
	is_blocked
	shop xdp-filter unload gate0
	nothing_left
}

attach_without_sharing()
{
	attach --mode "$mode"
	shop "$sluice" detach gate0 --config "$config"
	nothing_left
}

dispatcher_takes_packet_changers()
{
	shop xdp-loader load -m "$loader_mode" -n sluice_probe gate0 /sluice/probe.bpf.o && shop xdp-loader unload gate0 --all
}

world_of_veth
write_config
if dispatcher_takes_packet_changers >/tmp/dispatcher.log 2>&1; then
	if try "sluice attach --coexist --mode $mode: alone in a dispatcher" attach_alone; then
		start_servers
		try 'a small sale goes through' small_sale
		try 'another program is loaded beside it: traffic passes both' another_joins
		[ -n "$quick" ] || try 'sluice reload replaces the gate in the dispatcher' reload_in_dispatcher
		try 'a second attach is refused' attached_twice
		[ -n "$quick" ] || try 'thrown out by xdp-loader it says so, and attach puts it back with its maps' thrown_out_and_put_back
		[ -n "$quick" ] || try 'a second interface joins, is reloaded and detached' a_second_interface
		stop_servers
		try 'sluice detach leaves the other program' leave_the_other
	fi
	if [ -z "$quick" ] && try 'xdp-filter was there first: sluice attach joins it' join_a_filter; then
		start_servers
		try 'what the filter drops never comes to the gate, the rest is sold to' blocked_before_the_gate
		try 'a second gate in one dispatcher is refused' a_second_gate
		stop_servers
		try 'sluice detach leaves the filter at work' leave_the_filter
	fi
else
	cat /tmp/dispatcher.log
	report fact "$suite" cannot "libxdp's dispatcher takes no program that changes packets on this kernel"
	try 'sluice attach --coexist says in one sentence that it cannot, and changes nothing' refused_alone
	try 'beside xdp-filter too, which stays at work' refused_beside_a_filter
	try 'without --coexist the gate attaches after it' attach_without_sharing
fi
try "a program outside libxdp's dispatcher: one sentence says that it cannot share" a_foreign_program
world_gone
