/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists as the daemon writes them (common/lists.h) and the gate reads them. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/addr.h"
#include "common/lists.h"
#include "common/timefmt.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define NEVER 0
#define OTHER_PORT 22
#define RANDOM_TESTS 3000

static const char request[] = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

static struct lists *lists;

static int lists_fd(struct gate *gate)
{
	return bpf_map__fd(gate->skel->maps.lists);
}

static int open_lists(void **state)
{
	struct gate *gate = *state;

	gate_reset(gate);
	lists = lists_open(
		lists_fd(gate), bpf_map__fd(gate->skel->maps.list_index), bpf_map__fd(gate->skel->maps.denials));
	return lists ? 0 : -1;
}

static int empty_lists(void **state)
{
	struct sluice_list_key key;
	int fd = lists_fd(*state);

	while (!bpf_map_get_next_key(fd, NULL, &key))
		if (lists_remove(lists, key.list, &key.addr, key.prefix_len))
			return -1;
	lists_close(lists);
	lists = NULL;
	return 0;
}

static struct sluice_list_key key_of(enum sluice_list list, const char *prefix)
{
	struct sluice_list_key key = {.list = list};
	unsigned len = 0;

	expect(!prefix_parse(prefix, &key.addr, &len), "%s is no prefix", prefix);
	key.prefix_len = len;
	return key;
}

static void put(enum sluice_list list, const char *prefix, uint64_t expires_wall)
{
	struct sluice_list_key key = key_of(list, prefix);

	assert_int_equal(lists_put(lists, list, &key.addr, key.prefix_len, expires_wall, "test"), 0);
}

static void take_out(enum sluice_list list, const char *prefix)
{
	struct sluice_list_key key = key_of(list, prefix);

	assert_int_equal(lists_remove(lists, list, &key.addr, key.prefix_len), 0);
}

static uint64_t hits(struct gate *gate, enum sluice_list list, const char *prefix)
{
	struct sluice_list_key key = key_of(list, prefix);
	struct sluice_list_entry entry;

	assert_int_equal(bpf_map_lookup_elem(lists_fd(gate), &key, &entry), 0);
	return entry.hits;
}

static int reason_from(struct gate *gate, const char *source)
{
	struct frame frame = frame_syn(strchr(source, ':') != NULL);
	struct run run;

	frame.source = source;
	gate_run_frame(gate, &frame, &run);
	expect_sound(&run, source);
	return run.reason;
}

#define expect_denied(gate, source) \
	expect(reason_from(gate, source) == SLUICE_REASON_DENIED, "%s is not denied", source)
#define expect_free(gate, source) \
	expect(reason_from(gate, source) == SLUICE_REASON_SYN_COOKIE, "%s is not answered", source)

/* --- matching ------------------------------------------------------------------------------------------------------------- */
static void a_listed_address_is_denied_and_its_neighbours_are_not(void **state)
{
	expect_free(*state, "192.0.2.10");
	put(SLUICE_LIST_DENY, "192.0.2.10", NEVER);
	put(SLUICE_LIST_DENY, "2001:db8:1::10", NEVER);
	expect_denied(*state, "192.0.2.10");
	expect_free(*state, "192.0.2.9");
	expect_free(*state, "192.0.2.11");
	expect_denied(*state, "2001:db8:1::10");
	expect_free(*state, "2001:db8:1::11");
	take_out(SLUICE_LIST_DENY, "192.0.2.10");
	expect_free(*state, "192.0.2.10");
}

static void every_segment_of_a_denied_source_is_dropped_whatever_it_is(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (int net = 0; net < 6; net++) {
		frame = frame_syn(net & 1);
		frame.vlans = net / 2;
		assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
		put(SLUICE_LIST_DENY, frame.ip6 ? "2001:db8:1::/48" : "192.0.2.0/24", NEVER);
		for (unsigned flags = 0; flags < 64; flags++) {
			frame.flags = flags;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_DENIED, "flags %02x", flags);
			assert_int_equal(run.service, 0);
		}
		frame.fragment = frame.ip6 ? 1 : 0x2000;
		frame.ip6_fragment_header = frame.ip6;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_DENIED, "fragment");
		take_out(SLUICE_LIST_DENY, frame.ip6 ? "2001:db8:1::/48" : "192.0.2.0/24");
	}
}

static void prefixes_of_every_length_match_to_the_bit(void **state)
{
	struct gate *gate = *state;

	for (int ip6 = 0; ip6 < 2; ip6++) {
		struct sluice_addr base, inside, outside;
		unsigned bits = ip6 ? 128 : 32, skip = 128 - bits;

		assert_int_equal(addr_parse(ip6 ? "2001:db8:ffff:aaaa:5555:3333:cccc:0f0f" : "203.0.113.85", &base), 0);
		for (unsigned len = 1; len <= bits; len++) {
			unsigned host = bits - len, full = len + skip;
			struct sluice_addr net = base;
			char text[ADDR_TEXT_MAX];

			if (host >= 64) {
				net.lo = 0;
				net.hi = host == 128 ? 0 : net.hi & ~0ULL << (host - 64);
			} else {
				net.lo &= ~0ULL << host;
			}
			/* The last address inside, and the one that differs in the last bit of the prefix. */
			inside = outside = net;
			if (host >= 64) {
				inside.lo = ~0ULL;
				inside.hi |= host == 64 ? 0 : ~0ULL >> (128 - host);
				outside.hi ^= 1ULL << (host - 64);
			} else {
				inside.lo |= host ? ~0ULL >> (64 - host) : 0;
				outside.lo ^= 1ULL << host;
			}
			assert_int_equal(lists_put(lists, SLUICE_LIST_DENY, &net, full, NEVER, ""), 0);
			expect_denied(gate, addr_format(&base, text));
			expect_denied(gate, addr_format(&inside, text));
			expect_free(gate, addr_format(&outside, text));
			assert_int_equal(lists_remove(lists, SLUICE_LIST_DENY, &net, full), 0);
			expect_free(gate, addr_format(&base, text));
		}
	}
}

static void an_ip4_prefix_shorter_than_its_index_slot_matches_all_of_it(void **state)
{
	put(SLUICE_LIST_DENY, "128.0.0.0/1", NEVER);
	put(SLUICE_LIST_DENY, "10.0.0.0/8", NEVER);
	put(SLUICE_LIST_DENY, "100.64.0.0/15", NEVER);
	expect_denied(*state, "128.0.0.1");
	expect_denied(*state, "203.0.113.1");
	expect_denied(*state, "10.0.0.1");
	expect_denied(*state, "10.255.255.254");
	expect_denied(*state, "100.65.255.254");
	expect_free(*state, "100.66.0.1");
	expect_free(*state, "11.0.0.1");
	expect_free(*state, "9.255.255.255");
	expect_free(*state, "127.1.2.3");
	expect_free(*state, "2001:db8::1");
}

static void an_ip6_prefix_shorter_than_its_index_slot_matches_all_of_it(void **state)
{
	put(SLUICE_LIST_DENY, "2000::/3", NEVER);
	put(SLUICE_LIST_DENY, "fd00::/31", NEVER);
	expect_denied(*state, "2001:db8::1");
	expect_denied(*state, "3fff:ffff::1");
	expect_free(*state, "4000::1");
	expect_denied(*state, "fd00:1::1");
	expect_free(*state, "fd00:2::1");
	expect_free(*state, "192.0.2.10");
	take_out(SLUICE_LIST_DENY, "2000::/3");
	expect_free(*state, "2001:db8::1");
	expect_denied(*state, "fd00:1::1");
}

/* A trie would answer with the /32 alone. */
static void an_expired_entry_does_not_hide_a_wider_one(void **state)
{
	uint64_t now = time_wall_ns();

	put(SLUICE_LIST_DENY, "192.0.2.10", now - SECOND_NS);
	put(SLUICE_LIST_DENY, "2001:db8:1::10", now - SECOND_NS);
	expect_free(*state, "192.0.2.10");
	expect_free(*state, "2001:db8:1::10");
	put(SLUICE_LIST_DENY, "192.0.2.0/24", NEVER);
	put(SLUICE_LIST_DENY, "2001:db8::/32", NEVER);
	expect_denied(*state, "192.0.2.10");
	expect_denied(*state, "2001:db8:1::10");
	assert_int_equal(hits(*state, SLUICE_LIST_DENY, "192.0.2.10"), 0);
	assert_int_equal(hits(*state, SLUICE_LIST_DENY, "192.0.2.0/24"), 1);
}

static void sixteen_lengths_over_one_address_are_all_looked_at(void **state)
{
	static const unsigned lens[] = {32, 31, 30, 28, 27, 26, 25, 24, 23, 22, 20, 18, 16, 14, 12, 8};
	uint64_t past = time_wall_ns() - SECOND_NS;
	struct sluice_addr source, net;

	assert_int_equal(addr_parse("192.0.2.10", &source), 0);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		net = source;
		net.lo &= ~0ULL << (32 - lens[i]);
		assert_int_equal(lists_put(lists, SLUICE_LIST_DENY, &net, lens[i] + 96, past, ""), 0);
		expect_free(*state, "192.0.2.10");
	}
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		net = source;
		net.lo &= ~0ULL << (32 - lens[i]);
		assert_int_equal(lists_put(lists, SLUICE_LIST_DENY, &net, lens[i] + 96, NEVER, ""), 0);
		expect_denied(*state, "192.0.2.10");
		assert_int_equal(lists_put(lists, SLUICE_LIST_DENY, &net, lens[i] + 96, past, ""), 0);
	}
}

/* --- expiry --------------------------------------------------------------------------------------------------------------- */
static void an_entry_stops_matching_at_its_expiry(void **state)
{
	struct gate *gate = *state;
	uint64_t expires = time_wall_ns() + 3600 * SECOND_NS, offset = gate->control->wall_offset_ns;

	put(SLUICE_LIST_DENY, "192.0.2.0/24", expires);
	expect_denied(gate, "192.0.2.10");
	/* The wall clock steps to one second before it, and to it. */
	gate->control->wall_offset_ns = offset + 3599 * SECOND_NS;
	expect_denied(gate, "192.0.2.10");
	gate->control->wall_offset_ns = offset + 3600 * SECOND_NS;
	expect_free(gate, "192.0.2.10");
	gate->control->wall_offset_ns = offset;
	expect_denied(gate, "192.0.2.10");
	put(SLUICE_LIST_DENY, "192.0.2.0/24", 1);
	expect_free(gate, "192.0.2.10");
	put(SLUICE_LIST_DENY, "192.0.2.0/24", NEVER);
	gate->control->wall_offset_ns = offset + 100ULL * 365 * 86400 * SECOND_NS;
	expect_denied(gate, "192.0.2.10");
}

static void an_allow_entry_stops_at_its_expiry_too(void **state)
{
	struct gate *gate = *state;

	put(SLUICE_LIST_DENY, "192.0.2.0/24", NEVER);
	put(SLUICE_LIST_ALLOW, "192.0.2.10", time_wall_ns() + 60 * SECOND_NS);
	expect_free(gate, "192.0.2.10");
	gate->control->wall_offset_ns += 60 * SECOND_NS;
	expect_denied(gate, "192.0.2.10");
}

/* --- allow ---------------------------------------------------------------------------------------------------------------- */
static void allow_beats_deny_of_any_length(void **state)
{
	put(SLUICE_LIST_DENY, "192.0.2.10", NEVER);
	put(SLUICE_LIST_ALLOW, "192.0.0.0/8", NEVER);
	expect_free(*state, "192.0.2.10");
	put(SLUICE_LIST_DENY, "2001:db8::/32", NEVER);
	put(SLUICE_LIST_ALLOW, "2001:db8:1::10", NEVER);
	expect_free(*state, "2001:db8:1::10");
	expect_denied(*state, "2001:db8:1::11");
	put(SLUICE_LIST_DENY, "2001:db8:1::10", NEVER);
	expect_free(*state, "2001:db8:1::10");
	take_out(SLUICE_LIST_ALLOW, "2001:db8:1::10");
	expect_denied(*state, "2001:db8:1::10");
}

static void allow_beats_syn_budgets_and_rates(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		gate_limit(gate, id, 3600 * SECOND_NS, 1);
	put(SLUICE_LIST_ALLOW, "192.0.2.0/24", NEVER);
	put(SLUICE_LIST_ALLOW, "2001:db8:1::/48", NEVER);
	for (int i = 0; i < 100; i++) {
		frame = frame_syn(i & 1);
		frame.sport = 30000 + i;
		assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "request %d of an allowed source", i);
	}
	assert_int_equal(gate_rates_kept(gate), 0);
}

static void lists_hold_at_the_call_door_too(void **state)
{
	struct gate *gate = *state;
	struct sluice_call call = {.op = SLUICE_CALL_RATE};

	gate_limit(gate, SLUICE_LIMIT_SOURCE, 3600 * SECOND_NS, 1);
	put(SLUICE_LIST_ALLOW, "192.0.2.10", NEVER);
	put(SLUICE_LIST_ALLOW, "2001:db8::/32", NEVER);
	put(SLUICE_LIST_DENY, "198.51.100.0/24", NEVER);
	for (int i = 0; i < 10; i++) {
		addr_parse(i & 1 ? "2001:db8::1" : "192.0.2.10", &call.source);
		gate_call(gate, &call);
		assert_int_equal(call.reason, SLUICE_REASON_REQUEST);
	}
	addr_parse("192.0.2.11", &call.source);
	gate_call(gate, &call);
	assert_int_equal(call.reason, SLUICE_REASON_REQUEST);
	gate_call(gate, &call);
	assert_int_equal(call.reason, SLUICE_REASON_RATE_SOURCE);
	addr_parse("198.51.100.1", &call.source);
	gate_call(gate, &call);
	assert_int_equal(call.reason, SLUICE_REASON_DENIED);
}

/* --- hits and scope ------------------------------------------------------------------------------------------------------- */
static void each_match_is_counted_in_the_entry_that_matched(void **state)
{
	put(SLUICE_LIST_DENY, "192.0.2.0/24", NEVER);
	put(SLUICE_LIST_DENY, "192.0.2.10", NEVER);
	put(SLUICE_LIST_ALLOW, "192.0.2.20", NEVER);
	for (int i = 0; i < 7; i++)
		expect_denied(*state, "192.0.2.10");
	for (int i = 0; i < 3; i++)
		expect_denied(*state, "192.0.2.11");
	for (int i = 0; i < 5; i++)
		expect_free(*state, "192.0.2.20");
	assert_int_equal(hits(*state, SLUICE_LIST_DENY, "192.0.2.10"), 7);
	assert_int_equal(hits(*state, SLUICE_LIST_DENY, "192.0.2.0/24"), 3);
	assert_int_equal(hits(*state, SLUICE_LIST_ALLOW, "192.0.2.20"), 5);
	/* Replacing an entry keeps its hits. */
	put(SLUICE_LIST_DENY, "192.0.2.10", time_wall_ns() + SECOND_NS);
	assert_int_equal(hits(*state, SLUICE_LIST_DENY, "192.0.2.10"), 7);
}

static void the_deny_list_covers_other_ports_only_when_told(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	put(SLUICE_LIST_DENY, "192.0.2.10", NEVER);
	put(SLUICE_LIST_DENY, "2001:db8:1::/64", NEVER);
	put(SLUICE_LIST_ALLOW, "2001:db8:1::20", NEVER);
	for (int all = 0; all < 2; all++) {
		int reason = all ? SLUICE_REASON_DENIED : SLUICE_REASON_UNPROTECTED;

		if (all)
			gate->control->flags |= SLUICE_CONTROL_DENY_ALL;
		for (int net = 0; net < 6; net++) {
			frame = frame_syn(net & 1);
			frame.vlans = net / 2;
			frame.dport = OTHER_PORT;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, reason, "TCP to another port, scope %d", all);
			assert_int_equal(run.service, SLUICE_MAX_SERVICES);
			frame.protocol = 17;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, reason, "UDP, scope %d", all);
			frame.protocol = 0;
			frame.ip6_fragment_header = frame.ip6;
			frame.fragment = frame.ip6 ? 100 << 3 : 100;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, reason, "later fragment, scope %d", all);
			frame = frame_syn(net & 1);
			frame.dport = OTHER_PORT;
			frame.source = frame.ip6 ? "2001:db8:1::20" : "192.0.2.20";
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_UNPROTECTED, "a source that is allowed or not listed");
		}
	}
}

/* --- denials that are remembered ------------------------------------------------------------------------------------------ */
#define FLOOD 20000

static struct sluice_denial denial_at(struct gate *gate, __u32 slot)
{
	struct sluice_denial denial;

	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.denials), &slot, &denial), 0);
	return denial;
}

static struct sluice_addr address(const char *source)
{
	struct sluice_addr addr;

	expect(!addr_parse(source, &addr), "%s is no address", source);
	return addr;
}

static void write_denial(struct gate *gate, const char *source, unsigned way, uint64_t expires, uint64_t stamp)
{
	struct sluice_denial denial = {.source = address(source), .expires_wall = expires, .stamp = stamp};
	__u32 slot = sluice_denial_slot(&denial.source) | way;

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.denials), &slot, &denial, BPF_ANY), 0);
}

static bool is_remembered(struct gate *gate, const char *source)
{
	struct sluice_addr addr = address(source);
	struct sluice_denial last = denial_at(gate, SLUICE_DENIALS_SLOTS);

	for (uint32_t way = 0; way < 2; way++) {
		struct sluice_denial denial = denial_at(gate, sluice_denial_slot(&addr) | way);

		if (denial.stamp & SLUICE_DENIAL_FILLED && denial.stamp >> 32 == last.stamp >> 32 &&
			!memcmp(&denial.source, &addr, sizeof(addr)))
			return true;
	}
	return false;
}

/* As if the entry had been hit before. */
static void set_hits(struct gate *gate, const char *prefix, uint64_t count)
{
	struct sluice_list_key key = key_of(SLUICE_LIST_DENY, prefix);
	struct sluice_list_entry entry;

	assert_int_equal(bpf_map_lookup_elem(lists_fd(gate), &key, &entry), 0);
	entry.hits = count;
	assert_int_equal(bpf_map_update_elem(lists_fd(gate), &key, &entry, BPF_EXIST), 0);
}

static void flood(struct gate *gate, const char *source, unsigned packets)
{
	for (unsigned i = 0; i < packets; i++)
		expect_denied(gate, source);
}

static void put_and_remember(struct gate *gate, const char *prefix, uint64_t expires, const char *source)
{
	put(SLUICE_LIST_DENY, prefix, expires);
	set_hits(gate, prefix, SLUICE_LIST_EXACT_HITS);
	for (int i = 0; i < 100 * SLUICE_LIST_SAMPLE && !is_remembered(gate, source); i++)
		expect_denied(gate, source);
	expect(is_remembered(gate, source), "%s is not remembered", source);
	expect_denied(gate, source);
}

static void a_few_denials_are_counted_to_the_packet_and_not_remembered(void **state)
{
	put(SLUICE_LIST_DENY, "192.0.2.0/24", NEVER);
	flood(*state, "192.0.2.10", SLUICE_LIST_EXACT_HITS);
	assert_int_equal(hits(*state, SLUICE_LIST_DENY, "192.0.2.0/24"), SLUICE_LIST_EXACT_HITS);
	assert_false(is_remembered(*state, "192.0.2.10"));
}

/* The sample is one of 32: the estimate of so many packets is within six standard deviations, sqrt(31 n) each. */
static void a_flood_is_remembered_and_its_hits_are_estimated(void **state)
{
	static const char *const sources[] = {"192.0.2.10", "2001:db8:1::10"};
	static const char *const prefixes[] = {"192.0.2.10", "2001:db8:1::/64"};
	const double most = 6 * 788;

	for (int i = 0; i < 2; i++) {
		double counted;

		put(SLUICE_LIST_DENY, prefixes[i], NEVER);
		flood(*state, sources[i], FLOOD);
		assert_true(is_remembered(*state, sources[i]));
		counted = (double)hits(*state, SLUICE_LIST_DENY, prefixes[i]);
		expect(counted > FLOOD - most && counted < FLOOD + most && counted != FLOOD,
			"%u packets are counted as %.0f", FLOOD, counted);
	}
}

static void sources_that_take_turns_are_counted_alike(void **state)
{
	static const char *const sources[] = {"192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13"};
	const double most = 6 * 394;

	for (int i = 0; i < 4; i++)
		put(SLUICE_LIST_DENY, sources[i], NEVER);
	for (int i = 0; i < FLOOD; i++)
		expect_denied(*state, sources[i % 4]);
	for (int i = 0; i < 4; i++) {
		double counted = (double)hits(*state, SLUICE_LIST_DENY, sources[i]);

		expect(counted > FLOOD / 4 - most && counted < FLOOD / 4 + most, "%u packets are counted as %.0f",
			FLOOD / 4, counted);
	}
}

/* Every way in which a denial ends ends it for the next packet. */
static void a_remembered_denial_ends_with_its_entry(void **state)
{
	static const char *const sources[] = {"192.0.2.10", "2001:db8:1::10"};
	static const char *const prefixes[] = {"192.0.2.0/24", "2001:db8:1::/64"};
	uint64_t past = time_wall_ns() - SECOND_NS;
	struct lists_result result;

	for (int i = 0; i < 2; i++) {
		struct sluice_list_entry entry = {.expires_wall = past, .text = "test"};
		struct sluice_list_key key = key_of(SLUICE_LIST_DENY, prefixes[i]);

		put_and_remember(*state, prefixes[i], NEVER, sources[i]);
		take_out(SLUICE_LIST_DENY, prefixes[i]);
		expect_free(*state, sources[i]);
		put_and_remember(*state, prefixes[i], NEVER, sources[i]);
		put(SLUICE_LIST_DENY, prefixes[i], past);
		expect_free(*state, sources[i]);
		put_and_remember(*state, prefixes[i], NEVER, sources[i]);
		assert_int_equal(lists_put_many(lists, &key, &entry, 1, time_wall_ns(), LISTS_OVERWRITE, &result), 0);
		expect_free(*state, sources[i]);
		put_and_remember(*state, prefixes[i], NEVER, sources[i]);
		assert_int_equal(lists_remove_label(lists, SLUICE_LIST_DENY, "test"), 1);
		expect_free(*state, sources[i]);
	}
}

static void a_remembered_denial_ends_at_its_expiry(void **state)
{
	struct gate *gate = *state;
	uint64_t expires = time_wall_ns() + 3600 * SECOND_NS, offset = gate->control->wall_offset_ns;

	put_and_remember(gate, "192.0.2.0/24", expires, "192.0.2.10");
	gate->control->wall_offset_ns = offset + 3599 * SECOND_NS;
	expect_denied(gate, "192.0.2.10");
	gate->control->wall_offset_ns = offset + 3600 * SECOND_NS;
	expect_free(gate, "192.0.2.10");
	gate->control->wall_offset_ns = offset;
	expect_denied(gate, "192.0.2.10");
	/* What was swept out does not come back with the clock. */
	gate->control->wall_offset_ns = offset + 3600 * SECOND_NS;
	assert_int_equal(lists_sweep(lists, expires, 100), 1);
	gate->control->wall_offset_ns = offset;
	expect_free(gate, "192.0.2.10");
}

static void allow_beats_a_remembered_denial(void **state)
{
	struct gate *gate = *state;
	uint64_t soon = time_wall_ns() + 3600 * SECOND_NS, offset = gate->control->wall_offset_ns;
	struct sluice_list_key key = key_of(SLUICE_LIST_ALLOW, "192.0.0.0/8");
	struct sluice_list_entry entry = {.text = "test"};
	struct lists_result result;

	put_and_remember(gate, "192.0.2.10", NEVER, "192.0.2.10");
	put(SLUICE_LIST_ALLOW, "192.0.2.0/24", soon);
	expect_free(gate, "192.0.2.10");
	/* It has expired, and holds again when the clock is set back: until it is gone, nobody near it is remembered. */
	gate->control->wall_offset_ns = offset + 3600 * SECOND_NS;
	flood(gate, "192.0.2.10", 20 * SLUICE_LIST_SAMPLE);
	assert_false(is_remembered(gate, "192.0.2.10"));
	gate->control->wall_offset_ns = offset;
	expect_free(gate, "192.0.2.10");
	take_out(SLUICE_LIST_ALLOW, "192.0.2.0/24");
	put_and_remember(gate, "192.0.2.10", NEVER, "192.0.2.10");
	assert_int_equal(lists_put_many(lists, &key, &entry, 1, time_wall_ns(), 0, &result), 0);
	expect_free(gate, "192.0.2.10");
}

/* One packet in SLUICE_LIST_SAMPLE is looked up whatever is remembered, so one try does not tell; each denial draws anew. */
static bool is_believed(struct gate *gate, const char *source)
{
	for (int i = 0; i < 8; i++) {
		if (reason_from(gate, source) == SLUICE_REASON_DENIED)
			return true;
		expect_denied(gate, "192.0.2.10");
	}
	return false;
}

/* A slot is believed if it is of this source, of this generation, filled and not being filled. */
static void a_slot_of_another_time_or_source_is_not_believed(void **state)
{
	static const char *const sources[] = {"192.0.2.99", "2001:db8:1::99"};
	struct gate *gate = *state;
	uint64_t generation, filled;

	put_and_remember(gate, "192.0.2.10", NEVER, "192.0.2.10");
	generation = denial_at(gate, SLUICE_DENIALS_SLOTS).stamp >> 32 << 32;
	filled = generation | SLUICE_DENIAL_FILLED;
	for (int i = 0; i < 4; i++) {
		struct sluice_denial other = {.source = address(sources[i % 2]), .stamp = filled};
		unsigned way = i / 2;
		__u32 slot = sluice_denial_slot(&other.source) | way;

		write_denial(gate, sources[i % 2], way, 0, filled);
		assert_true(is_believed(gate, sources[i % 2]));
		write_denial(gate, sources[i % 2], way, 0, filled | SLUICE_DENIAL_FILLING);
		assert_false(is_believed(gate, sources[i % 2]));
		write_denial(gate, sources[i % 2], way, 0, generation);
		assert_false(is_believed(gate, sources[i % 2]));
		write_denial(gate, sources[i % 2], way, 0, filled - (1ULL << 32));
		assert_false(is_believed(gate, sources[i % 2]));
		write_denial(gate, sources[i % 2], way, 1, filled);
		assert_false(is_believed(gate, sources[i % 2]));
		other.source.hi ^= 1;
		assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.denials), &slot, &other, BPF_ANY), 0);
		assert_false(is_believed(gate, sources[i % 2]));
	}
	assert_true(is_remembered(gate, "192.0.2.10"));
}

/* Gives one of a source's two places to somebody else. */
static void occupy(struct gate *gate, const char *source, unsigned way)
{
	struct sluice_denial other = {.source = address(source)}, last = denial_at(gate, SLUICE_DENIALS_SLOTS);
	__u32 slot = sluice_denial_slot(&other.source) | way, last_slot = SLUICE_DENIALS_SLOTS;
	int fd = bpf_map__fd(gate->skel->maps.denials);

	last.stamp |= SLUICE_DENIAL_FILLED;
	other.stamp = last.stamp;
	other.source.hi ^= 1 + way;
	assert_int_equal(bpf_map_update_elem(fd, &slot, &other, BPF_ANY), 0);
	assert_int_equal(bpf_map_update_elem(fd, &last_slot, &last, BPF_ANY), 0);
}

static bool is_other_there(struct gate *gate, const char *source, unsigned way)
{
	struct sluice_addr addr = address(source);
	struct sluice_denial denial = denial_at(gate, sluice_denial_slot(&addr) | way);

	addr.hi ^= 1 + way;
	return !memcmp(&denial.source, &addr, sizeof(addr));
}

/* One packet more than are counted exactly, and not one that must be drawn. */
static void a_free_place_is_taken_at_once_and_drives_nobody_out(void **state)
{
	static const char *const source = "192.0.2.10";
	struct gate *gate = *state;

	for (unsigned taken = 0; taken < 2; taken++) {
		put(SLUICE_LIST_DENY, source, NEVER);
		set_hits(gate, source, SLUICE_LIST_EXACT_HITS);
		occupy(gate, source, taken);
		expect_denied(gate, source);
		assert_true(is_remembered(gate, source));
		assert_true(is_other_there(gate, source, taken));
		take_out(SLUICE_LIST_DENY, source);
	}
}

/* The source is remembered in the end, in either place, and what it drove out is denied or not as its own entries say. */
static void a_full_pair_of_places_lets_a_source_in_by_a_draw(void **state)
{
	static const char *const source = "192.0.2.10";
	struct gate *gate = *state;
	unsigned driven_out[2] = {0}, packets = 0;

	for (int i = 0; i < 64; i++) {
		put(SLUICE_LIST_DENY, source, NEVER);
		set_hits(gate, source, SLUICE_LIST_EXACT_HITS);
		occupy(gate, source, 0);
		occupy(gate, source, 1);
		for (; !is_remembered(gate, source); packets++)
			expect_denied(gate, source);
		for (unsigned way = 0; way < 2; way++)
			driven_out[way] += !is_other_there(gate, source, way);
		take_out(SLUICE_LIST_DENY, source);
	}
	assert_int_equal(driven_out[0] + driven_out[1], 64);
	expect(driven_out[0] > 8 && driven_out[1] > 8, "%u and %u were driven out", driven_out[0], driven_out[1]);
	/* A draw of one in 32, 64 times: 2,048 on average, with a standard deviation of 252. */
	expect(packets > 2048 - 6 * 252 && packets < 2048 + 6 * 252, "it took %u packets", packets);
}

/* Where denials are not counted as denied, there is nothing to draw a sample by. */
static void shadow_mode_and_call_door_count_each_hit(void **state)
{
	struct gate *gate = *state;
	struct sluice_call call = {.op = SLUICE_CALL_RATE, .source = address("192.0.2.10")};
	uint64_t before;

	put_and_remember(gate, "192.0.2.0/24", NEVER, "192.0.2.10");
	before = hits(gate, SLUICE_LIST_DENY, "192.0.2.0/24");
	for (int i = 0; i < 200; i++) {
		gate_call(gate, &call);
		assert_int_equal(call.reason, SLUICE_REASON_DENIED);
	}
	gate->control->flags |= SLUICE_CONTROL_SHADOW_DENY;
	for (int i = 0; i < 200; i++)
		expect_free(gate, "192.0.2.10");
	assert_int_equal(hits(gate, SLUICE_LIST_DENY, "192.0.2.0/24"), before + 400);
}

/* --- against a model ------------------------------------------------------------------------------------------------------ */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13; /* xorshift64 (Marsaglia 2003) */
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

struct model_entry {
	struct sluice_addr addr;
	unsigned len; /* 0 = none */
	enum sluice_list list;
	bool expired;
};

static bool covers(const struct model_entry *entry, const struct sluice_addr *addr)
{
	for (unsigned bit = 0; bit < entry->len; bit++) {
		uint64_t a = bit < 64 ? addr->hi : addr->lo, b = bit < 64 ? entry->addr.hi : entry->addr.lo;

		if ((a ^ b) >> (63 - bit % 64) & 1)
			return false;
	}
	return true;
}

/* Few distinct bits, so that prefixes nest and meet often. */
static struct sluice_addr random_addr(uint64_t *seed)
{
	uint64_t r = next_random(seed);
	struct sluice_addr addr = {.lo = 0xffff00000000ULL | (r & 0xc0c10103)};

	if (r >> 40 & 1) {
		addr.hi = (r & 0x8001000100010001ULL) | 0x2000000000000000ULL;
		addr.lo = next_random(seed) & 0x8000000000010001ULL;
	}
	return addr;
}

static void the_gate_agrees_with_a_list_that_is_read_one_by_one(void **state)
{
	struct gate *gate = *state;
	struct model_entry model[40] = {0};
	const char *given = getenv("SLUICE_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : time_wall_ns(), past = time_wall_ns() - SECOND_NS;
	unsigned denied = 0, allowed = 0;

	print_message("           SLUICE_SEED=%llu\n", (unsigned long long)seed);
	seed |= 1;
	for (int i = 0; i < RANDOM_TESTS; i++) {
		struct model_entry *entry = &model[next_random(&seed) % 40];
		struct sluice_addr addr = random_addr(&seed);
		bool deny = false, allow = false;
		char text[ADDR_TEXT_MAX];
		bool ip4 = addr_is_ipv4(&addr);
		int reason;

		if (entry->len) {
			assert_int_equal(lists_remove(lists, entry->list, &entry->addr, entry->len), 0);
			entry->len = 0;
		} else {
			*entry = (struct model_entry){
				.addr = addr, .list = next_random(&seed) % 4 ? SLUICE_LIST_DENY : SLUICE_LIST_ALLOW};
			entry->len = ip4 ? 97 + next_random(&seed) % 32 : 4 + next_random(&seed) % 125;
			entry->expired = next_random(&seed) % 4 == 0;
			if (entry->len < 64)
				entry->addr.hi &= ~0ULL << (64 - entry->len);
			if (entry->len <= 64)
				entry->addr.lo = 0;
			else if (entry->len < 128)
				entry->addr.lo &= ~0ULL << (128 - entry->len);
			for (int k = 0; k < 40; k++) /* the same prefix twice would be one entry */
				if (&model[k] != entry && model[k].len == entry->len && model[k].list == entry->list &&
					covers(&model[k], &entry->addr))
					entry->len = 0;
			if (entry->len)
				assert_int_equal(lists_put(lists, entry->list, &entry->addr, entry->len,
							 entry->expired ? past : NEVER, ""),
					0);
		}
		addr = random_addr(&seed);
		for (int k = 0; k < 40; k++) {
			if (!model[k].len || model[k].expired || !covers(&model[k], &addr))
				continue;
			deny |= model[k].list == SLUICE_LIST_DENY;
			allow |= model[k].list == SLUICE_LIST_ALLOW;
		}
		reason = reason_from(gate, addr_format(&addr, text));
		expect(reason == (deny && !allow ? SLUICE_REASON_DENIED : SLUICE_REASON_SYN_COOKIE),
			"step %d: %s is %s", i, text, reason_label(reason));
		denied += deny && !allow;
		allowed += allow;
	}
	print_message("           %u of %d denied, %u allowed\n", denied, RANDOM_TESTS, allowed);
	assert_true(denied > RANDOM_TESTS / 50 && allowed > RANDOM_TESTS / 50);
}

#define list_test(function) cmocka_unit_test_setup_teardown(function, open_lists, empty_lists)

int main(void)
{
	const struct CMUnitTest tests[] = {
		list_test(a_listed_address_is_denied_and_its_neighbours_are_not),
		list_test(every_segment_of_a_denied_source_is_dropped_whatever_it_is),
		list_test(prefixes_of_every_length_match_to_the_bit),
		list_test(an_ip4_prefix_shorter_than_its_index_slot_matches_all_of_it),
		list_test(an_ip6_prefix_shorter_than_its_index_slot_matches_all_of_it),
		list_test(an_expired_entry_does_not_hide_a_wider_one),
		list_test(sixteen_lengths_over_one_address_are_all_looked_at),
		list_test(an_entry_stops_matching_at_its_expiry),
		list_test(an_allow_entry_stops_at_its_expiry_too),
		list_test(allow_beats_deny_of_any_length),
		list_test(allow_beats_syn_budgets_and_rates),
		list_test(lists_hold_at_the_call_door_too),
		list_test(each_match_is_counted_in_the_entry_that_matched),
		list_test(the_deny_list_covers_other_ports_only_when_told),
		list_test(a_few_denials_are_counted_to_the_packet_and_not_remembered),
		list_test(a_flood_is_remembered_and_its_hits_are_estimated),
		list_test(sources_that_take_turns_are_counted_alike),
		list_test(a_remembered_denial_ends_with_its_entry),
		list_test(a_remembered_denial_ends_at_its_expiry),
		list_test(allow_beats_a_remembered_denial),
		list_test(a_slot_of_another_time_or_source_is_not_believed),
		list_test(a_free_place_is_taken_at_once_and_drives_nobody_out),
		list_test(a_full_pair_of_places_lets_a_source_in_by_a_draw),
		list_test(shadow_mode_and_call_door_count_each_hit),
		list_test(the_gate_agrees_with_a_list_that_is_read_one_by_one),
	};

	return cmocka_run_group_tests_name("lists", tests, setup_gate, close_gate);
}
