# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash
# A shop and a crowd in two network namespaces, joined by a veth pair or by two NICs; the programs of Sluice behind the gate; and a sale in
# small, of which each answer and each counter is known beforehand. Read by the suites nic and coexist.

sluice=/sluice/sluice
config=/tmp/sluice.conf
pins=/sys/fs/bpf/sluice
shop4=10.71.0.1 shop6=fd71::1 crowd4=10.71.0.2 crowd6=fd71::2
blocked4=10.71.0.66 # an address of the crowd that another program drops
sales=0
writer=0
daemon=0

shop()
{
	nsenter --net=/run/netns/shop "$@"
}

crowd()
{
	nsenter --net=/run/netns/crowd "$@"
}

world_namespaces()
{
	for ns in shop crowd; do
		ip netns add "$ns"
		ip -n "$ns" link set lo up
		nsenter --net="/run/netns/$ns" sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
	done
	shop sysctl -q -w net.ipv4.tcp_syncookies=2
}

world_addresses() # INTERFACE-OF-SHOP INTERFACE-OF-CROWD
{
	ip -n shop addr add "$shop4/24" dev "$1"
	ip -n shop addr add "$shop6/64" dev "$1" nodad
	ip -n crowd addr add "$crowd4/24" dev "$2"
	ip -n crowd addr add "$blocked4/24" dev "$2"
	ip -n crowd addr add "$crowd6/64" dev "$2" nodad
	ip -n shop link set "$1" up
	ip -n crowd link set "$2" up
}

# The gate's interface is called gate0.
world_of_veth()
{
	world_namespaces
	ip link add gate0 netns shop type veth peer name crowd0 netns crowd
	world_addresses gate0 crowd0
	# veth delivers what XDP sends back only to a peer that has a program too.
	ip -n crowd link set dev crowd0 xdp obj /sluice/pass.bpf.o sec xdp
}

nic_of() # MAC
{
	for nic in /sys/class/net/*; do
		[ "$(cat "$nic/address")" != "$1" ] || echo "${nic##*/}"
	done
}

world_of_nics() # MAC-OF-SHOP MAC-OF-CROWD
{
	world_namespaces
	gate_nic=$(nic_of "$1")
	crowd_nic=$(nic_of "$2")
	[ -n "$gate_nic" ] || fail "no NIC with the address $1"
	[ -n "$crowd_nic" ] || fail "no NIC with the address $2"
	ip link set "$gate_nic" netns shop name gate0
	ip link set "$crowd_nic" netns crowd name crowd0
	world_addresses gate0 crowd0
}

world_gone() # give NICs back, for the next world
{
	for pid in $daemon $writer; do
		[ "$pid" -eq 0 ] || kill "$pid" 2>/dev/null
	done
	wait
	shop "$sluice" detach --all --config "$config" >/dev/null 2>&1
	if [ -n "${gate_nic:-}" ]; then
		ip -n shop link set gate0 down
		ip -n crowd link set crowd0 down
		ip -n shop link set gate0 netns 1 name "$gate_nic"
		ip -n crowd link set crowd0 netns 1 name "$crowd_nic"
	fi
	ip netns del shop
	ip netns del crowd
	rm -rf /tmp/state
}

write_config()
{
	mkdir -m 0700 /tmp/state
	cat >"$config" <<-END
		gate: { pin_dir = "$pins"; max_prefixes = 4096; max_admissions = 16384; max_tokens = 16384; max_sources = 8192;
			ring_bytes = 262144; };
		daemon: { control_socket = "/tmp/state/control.sock"; state_dir = "/tmp/state"; control_listen = "";
			issue_source: { rate = 0.0; burst = 1; }; issue_buyer: { rate = 0.0; burst = 1; }; };
		writer: { socket = "/tmp/state/writer.sock"; ledger = "/tmp/state/ledger.db"; };
	END
}

attach() # [OPTION...]
{
	shop "$sluice" attach gate0 --config "$config" "$@"
}

# Not inside `try`: the programs stay for the tests that follow. Not through shop(): the process id would be that of a shell.
start_servers()
{
	nsenter --net=/run/netns/shop /sluice/sluice-writer --config "$config" >/tmp/writer.log 2>&1 &
	writer=$!
	nsenter --net=/run/netns/shop /sluice/sluiced --config "$config" >/tmp/daemon.log 2>&1 &
	daemon=$!
}

stop_servers()
{
	kill "$daemon" "$writer"
	wait "$daemon" "$writer"
	daemon=0
	writer=0
}

control() # CURL-ARGUMENT...
{
	curl -s -m 20 --unix-socket /tmp/state/control.sock "$@"
}

is_ready()
{
	[ "$(control -o /dev/null -w '%{http_code}' http://localhost/readyz)" = 200 ]
}

# A reason that no packet had yet has no line.
packets() # REASON
{
	packets_line=$(control http://localhost/metrics | grep '^sluice_packets_total{' | grep 'service="shop"' | grep "reason=\"$1\"")
	packets_count=${packets_line##* }
	echo "${packets_count:-0}"
}

# Asks as the crowd and prints the status, or 000 if there was no answer.
ask() # METHOD HOST PATH [CURL-ARGUMENT...]
{
	ask_method=$1
	ask_url="http://$2:8080$3"
	shift 3
	crowd curl -s -g -m 20 -o /tmp/answer -w '%{http_code}' -X "$ask_method" "$@" "$ask_url" || true
}

expect_answer() # STATUS METHOD HOST PATH [CURL-ARGUMENT...]
{
	expected=$1
	shift
	got=$(ask "$@")
	[ "$got" = "$expected" ] || fail "$1 $3 was answered with $got instead of $expected: $(head -c 200 /tmp/answer)"
}

token_for() # SLUG BUYER
{
	expect_answer 201 POST "$shop4" "/v1/sales/$1/tokens" -d "{\"buyer\":\"$2\"}"
	token=$(sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' /tmp/answer)
	[ ${#token} -eq 64 ] || fail "no token in $(head -c 200 /tmp/answer)"
}

# The token with another last character, which is part of its signature.
forge() # TOKEN
{
	case $1 in
	*A) echo "${1%?}B" ;;
	*) echo "${1%?}A" ;;
	esac
}

expect_count() # REASON BEFORE RISE
{
	count=$(packets "$1")
	[ "$count" -eq $(($2 + $3)) ] || fail "the gate counted $((count - $2)) packets \"$1\" instead of $3"
}

# Two units. Each no comes from the gate itself, as its counters tell, and each yes is durable.
small_sale()
{
	until_true 20 is_ready
	sales=$(($(cat /tmp/sales 2>/dev/null || echo 0) + 1))
	echo "$sales" >/tmp/sales
	slug=sale-$sales
	shop "$sluice" sale create "$slug" --stock 2 --opens now --ends +1h --per-buyer 1 --socket /tmp/state/control.sock
	token_for "$slug" one
	first=$token
	token_for "$slug" one-again
	second=$token
	token_for "$slug" late
	late=$token
	echo "$late" >/tmp/late # for a test after this one: the shop issues no more when all is sold
	sold_out=$(packets sold_out)
	forged=$(packets token_mac)
	admitted=$(packets admitted)
	expect_answer 201 POST "$shop4" "/v1/orders/$first"
	expect_answer 200 POST "$shop4" "/v1/orders/$first"
	expect_answer 201 POST "[$shop6]" "/v1/orders/$second"
	expect_answer 409 POST "$shop4" "/v1/orders/$late"
	grep -q sold_out /tmp/answer || fail "the 409 does not say sold_out: $(cat /tmp/answer)"
	expect_answer 409 POST "[$shop6]" "/v1/orders/$late"
	expect_answer 401 POST "$shop4" "/v1/orders/$(forge "$late")"
	expect_answer 200 GET "$shop4" "/v1/sales/$slug"
	expect_count admitted "$admitted" 2
	expect_count sold_out "$sold_out" 2
	expect_count token_mac "$forged" 1
	shop "$sluice" stock show "$slug" --socket /tmp/state/control.sock
}

# What the gate does not protect goes through it untouched, both ways.
other_traffic()
{
	crowd ping -c 2 -W 5 "$shop4"
	crowd ping -6 -c 2 -W 5 "$shop6"
	shop sh -c 'echo untouched | nc -l -p 9999 -w 10' &
	sleep 0.5
	heard=$(crowd nc -w 10 "$shop4" 9999 </dev/null)
	wait
	[ "$heard" = untouched ] || fail "another port gave \"$heard\""
}

nothing_left()
{
	[ ! -e "$pins" ] || fail "pins are left: $(ls "$pins")"
	ip -n shop link show dev gate0 | grep -q 'prog/xdp' && fail "a program is left: $(ip -n shop link show dev gate0)"
	true
}
