/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From bytes to a reason: what is malformed, a fragment, padded, tagged or cut short, and what is none of the gate's business. */
#include "expect.h"

#define PROTO_HOPOPTS 0
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_ESP 50
#define PROTO_AH 51
#define PROTO_ICMP6 58
#define PROTO_NONE 59
#define PROTO_DSTOPTS 60
#define PROTO_SCTP 132

#define OTHER_PORT 22
#define FRAGMENT_MORE4 0x2000
#define FRAGMENT_MORE6 1
#define EXTENSIONS_MAX 8
#define ETHERNET_MIN 60 /* without the check sequence */
#define IP_OPTION_WORDS_MAX 10

static void set16(uint8_t *at, unsigned value)
{
	at[0] = value >> 8;
	at[1] = value;
}

/* Every kind of link and network under a test: IPv4 and IPv6, no tag, one, two. */
#define for_each_network(frame) \
	for (int net_ = 0; net_ < 6 && ((frame) = frame_syn(net_ & 1), (frame).vlans = net_ / 2, 1); net_++)

static const char *name_of(const struct frame *frame, const char *what)
{
	static char name[128];

	snprintf(name, sizeof(name), "IPv%d, %d tags: %s", frame->ip6 ? 6 : 4, frame->vlans, what);
	return name;
}

/* --- Ethernet and tags --------------------------------------------------------------------------------------------------- */
static void a_frame_that_ends_inside_a_tag_is_malformed(void **state)
{
	uint8_t bytes[FRAME_MAX];
	struct frame frame = frame_syn(false);
	struct run run;

	for (frame.vlans = 1; frame.vlans <= 2; frame.vlans++) {
		frame_write(&frame, bytes);
		for (unsigned length = 14; length < frame_ip_offset(&frame); length++) {
			gate_run(*state, bytes, length, &run);
			expect_reason(&run, SLUICE_REASON_ETH_MALFORMED, "%d tags, %u bytes", frame.vlans, length);
		}
		gate_run(*state, bytes, frame_ip_offset(&frame), &run);
		expect_reason(&run, SLUICE_REASON_IP4_MALFORMED, "%d tags and no more", frame.vlans);
	}
}

static void two_tags_are_read_and_three_are_dropped(void **state)
{
	struct frame frame;
	struct run run;

	for (int ip6 = 0; ip6 < 2; ip6++) {
		frame = frame_syn(ip6);
		for (frame.vlans = 0; frame.vlans <= 2; frame.vlans++) {
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "%s", name_of(&frame, "SYN"));
			expect_way_back(&run, &frame);
		}
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_VLAN_DEPTH, "%s", name_of(&frame, "SYN"));
	}
}

static void padding_is_not_data(void **state)
{
	static const char data[] = "GET / HTTP/1.0\r\n\r\n";
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		frame.tcp_option_bytes = 0;
		gate_note(*state, &frame, true, 0);
		for (frame.padding = 0; frame.padding <= 46; frame.padding++) {
			frame.flags = F_SYN;
			frame.payload_len = 0;
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "%s", name_of(&frame, "padded SYN"));
			assert_int_equal(run.length, frame_tcp_offset(&frame) + 20);
			frame.flags = F_ACK;
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_BARE_ACK, "%s", name_of(&frame, "padded ACK"));
			frame.flags = F_ACK | F_FIN;
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_LEFTOVER, "%s", name_of(&frame, "padded FIN"));
			expect_acknowledges(&run, &frame);
			frame.payload = data;
			frame.payload_len = sizeof(data) - 1;
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_LEFTOVER, "%s", name_of(&frame, "padded data"));
			expect_acknowledges(&run, &frame);
		}
	}
}

static void a_request_in_a_padded_frame_is_read_to_its_own_end(void **state)
{
	struct gate *gate = *state;
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";
	struct frame frame = frame_syn(false);
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, 1000000000000ULL, 1);
	for (int i = 0; i < 2; i++) { /* the second is over the rate, so it is answered */
		frame.sport = 40000 + i;
		assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
		frame.padding = 100;
		gate_run_frame(gate, &frame, &run);
		frame.padding = 0;
	}
	expect_reason(&run, SLUICE_REASON_RATE_SOURCE, "a padded request over the rate");
	expect_acknowledges(&run, &frame);
}

/* --- IPv4 ---------------------------------------------------------------------------------------------------------------- */
static void wrong_ip4_headers_are_malformed(void **state)
{
	static const struct {
		const char *what;
		unsigned at, value;
	} wrong[] = {
		{"version 5", 0, 0x5500},
		{"version 6", 0, 0x6500},
		{"header of 16 bytes", 0, 0x4400},
		{"header of 0 bytes", 0, 0x4000},
		{"header longer than the packet", 0, 0x4f00},
		{"total length 0", 2, 0},
		{"total length below the header", 2, 19},
		{"total length beyond the frame", 2, 61},
		{"total length 65535", 2, 65535},
	};
	uint8_t bytes[FRAME_MAX];
	struct frame frame = frame_syn(false);
	struct run run;
	unsigned length;

	for (frame.vlans = 0; frame.vlans <= 2; frame.vlans++) {
		for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
			length = frame_write(&frame, bytes);
			assert_int_equal(length, frame_ip_offset(&frame) + 60);
			set16(bytes + frame_ip_offset(&frame) + wrong[i].at, wrong[i].value);
			if (wrong[i].value == 0x4f00) /* 60 bytes of header in 59 */
				set16(bytes + frame_ip_offset(&frame) + 2, 59);
			gate_run(*state, bytes, length, &run);
			expect_reason(&run, SLUICE_REASON_IP4_MALFORMED, "%s", name_of(&frame, wrong[i].what));
		}
	}
}

static void ip4_options_are_skipped_and_not_sent_back(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	char token[SLUICE_TOKEN_TEXT + 1], request[512];
	struct run run;
	unsigned length;

	gate->stock[GATE_SALE].free = 100;
	for (int vlans = 0; vlans <= 2; vlans++) {
		for (unsigned words = 0; words <= IP_OPTION_WORDS_MAX; words++) {
			struct sluice_token wanted = gate_token(1 + vlans * 100 + words, 1 + vlans * 100 + words);

			frame = frame_syn(false);
			frame.vlans = vlans;
			frame.ip_option_words = words;
			frame.sport = 30000 + vlans * 100 + words;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "%u words of options", words);
			assert_int_equal(run.length, frame_ip_offset(&frame) + 20 + 24);
			gate_token_text(gate, &wanted, token);
			length = gate_order_request(token, request, sizeof(request));
			assert_int_equal(gate_handshake(gate, &frame, request, length), 0);
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_ADMITTED, "order behind %u words of options", words);
		}
	}
	assert_true(gate_is_conserved(gate, 100));
}

/* --- IPv6 ---------------------------------------------------------------------------------------------------------------- */
static void wrong_ip6_headers_are_malformed(void **state)
{
	uint8_t bytes[FRAME_MAX];
	struct frame frame = frame_syn(true);
	struct run run;
	unsigned length, ip;

	for (frame.vlans = 0; frame.vlans <= 2; frame.vlans++) {
		ip = frame_ip_offset(&frame);
		length = frame_write(&frame, bytes);
		bytes[ip] = 0x40;
		gate_run(*state, bytes, length, &run);
		expect_reason(&run, SLUICE_REASON_IP6_MALFORMED, "%s", name_of(&frame, "version 4"));
		bytes[ip] = 0x60;
		set16(bytes + ip + 4, length - ip - 40 + 1);
		gate_run(*state, bytes, length, &run);
		expect_reason(&run, SLUICE_REASON_IP6_MALFORMED, "%s", name_of(&frame, "payload beyond the frame"));
		set16(bytes + ip + 4, 65535);
		gate_run(*state, bytes, length, &run);
		expect_reason(&run, SLUICE_REASON_IP6_MALFORMED, "%s", name_of(&frame, "payload of 65535"));
		set16(bytes + ip + 4, 0);
		gate_run(*state, bytes, length, &run);
		expect_reason(&run, SLUICE_REASON_TCP_MALFORMED, "%s", name_of(&frame, "no payload"));
	}
}

static void up_to_eight_extension_headers_are_walked_and_nine_are_dropped(void **state)
{
	struct frame frame = frame_syn(true);
	struct run run;

	for (frame.vlans = 0; frame.vlans <= 2; frame.vlans++) {
		for (frame.ip6_extensions = 0; frame.ip6_extensions <= EXTENSIONS_MAX; frame.ip6_extensions++) {
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "%u extension headers", frame.ip6_extensions);
			expect_way_back(&run, &frame);
			assert_int_equal(run.length, frame_ip_offset(&frame) + 40 + 24);
		}
		for (; frame.ip6_extensions < 20; frame.ip6_extensions++) {
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_IP6_EXTENSIONS, "%u extension headers", frame.ip6_extensions);
		}
	}
}

struct extension {
	uint8_t type;
	unsigned bytes;
};

/* Puts a chain of extension headers between the IPv6 header and what follows it. Returns the new length. */
static unsigned insert_chain(
	uint8_t *bytes, unsigned length, unsigned ip, const struct extension *chain, unsigned count)
{
	uint8_t rest[FRAME_MAX], *next = bytes + ip + 6, *at = bytes + ip + 40;
	unsigned rest_length = length - ip - 40;
	uint8_t protocol = *next;

	memcpy(rest, at, rest_length);
	for (unsigned i = 0; i < count; i++) {
		*next = chain[i].type;
		memset(at, 0, chain[i].bytes);
		/* RFC 4302 section 2.2 counts words of 4 bytes less 2; RFC 8200 section 4 counts words of 8 less 1. */
		if (chain[i].type == PROTO_AH)
			at[1] = chain[i].bytes / 4 - 2;
		else if (chain[i].type != PROTO_FRAGMENT)
			at[1] = chain[i].bytes / 8 - 1;
		next = at;
		at += chain[i].bytes;
	}
	*next = protocol;
	memcpy(at, rest, rest_length);
	set16(bytes + ip + 4, at + rest_length - (bytes + ip + 40));
	return at + rest_length - bytes;
}

static void extension_headers_of_every_kind_and_length_lead_to_tcp(void **state)
{
	static const struct extension chains[][4] = {
		{{PROTO_HOPOPTS, 8}},
		{{PROTO_HOPOPTS, 64}},
		{{PROTO_ROUTING, 24}},
		{{PROTO_DSTOPTS, 256}},
		{{PROTO_AH, 24}},
		{{PROTO_AH, 28}},
		{{PROTO_AH, 8}},
		{{PROTO_HOPOPTS, 8}, {PROTO_ROUTING, 40}, {PROTO_AH, 20}, {PROTO_DSTOPTS, 16}},
	};
	uint8_t bytes[FRAME_MAX];
	struct frame frame = frame_syn(true);
	struct run run;

	for (unsigned i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
		unsigned count = 0, length = frame_write(&frame, bytes);

		while (count < 4 && chains[i][count].bytes)
			count++;
		length = insert_chain(bytes, length, frame_ip_offset(&frame), chains[i], count);
		gate_run(*state, bytes, length, &run);
		expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "chain %u", i);
		expect_way_back(&run, &frame);
	}
}

static void an_extension_header_beyond_the_packet_is_malformed(void **state)
{
	static const struct extension chain[] = {{PROTO_DSTOPTS, 8}};
	uint8_t bytes[FRAME_MAX];
	struct frame frame = frame_syn(true);
	unsigned ip = frame_ip_offset(&frame), length;
	struct run run;

	length = insert_chain(bytes, frame_write(&frame, bytes), ip, chain, 1);
	bytes[ip + 41] = 200; /* 1,608 bytes */
	gate_run(*state, bytes, length, &run);
	expect_reason(&run, SLUICE_REASON_IP6_MALFORMED, "a header longer than the packet");
	for (unsigned left = 0; left < 8; left++) {
		set16(bytes + ip + 4, left);
		gate_run(*state, bytes, ip + 40 + left, &run);
		expect_reason(&run, SLUICE_REASON_IP6_MALFORMED, "%u bytes of an extension header", left);
	}
}

/* --- TCP ----------------------------------------------------------------------------------------------------------------- */
static void tcp_headers_of_an_impossible_length_are_malformed(void **state)
{
	uint8_t bytes[FRAME_MAX];
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		unsigned length = frame_write(&frame, bytes), tcp = frame_tcp_offset(&frame);

		for (unsigned words = 0; words < 16; words++) {
			bytes[tcp + 12] = words << 4;
			gate_run(*state, bytes, length, &run);
			if (words < 5 || words > 10)
				expect_reason(&run, SLUICE_REASON_TCP_MALFORMED, "%u words of 10", words);
			else if (words < 10)
				expect_reason(&run, SLUICE_REASON_SYN_DATA, "%u words of 10", words);
			else
				expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "%u words of 10", words);
		}
	}
}

/* The packet ends inside the TCP header, and its IP header says so. */
static void a_packet_that_ends_inside_the_tcp_header_is_malformed(void **state)
{
	uint8_t bytes[FRAME_MAX];
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		unsigned tcp = frame_tcp_offset(&frame), ip = frame_ip_offset(&frame);

		frame.padding = 46;
		frame_write(&frame, bytes);
		for (unsigned left = 0; left < 40; left++) {
			set16(bytes + ip + (frame.ip6 ? 4 : 2), frame.ip6 ? left : 20 + left);
			/* With the padding, and without. */
			gate_run(*state, bytes, tcp + 40 + 46, &run);
			expect_reason(
				&run, SLUICE_REASON_TCP_MALFORMED, "%s (%u)", name_of(&frame, "cut header"), left);
			gate_run(*state, bytes, tcp + left, &run);
			expect_reason(
				&run, SLUICE_REASON_TCP_MALFORMED, "%s (%u)", name_of(&frame, "cut header"), left);
		}
	}
}

/* --- fragments ----------------------------------------------------------------------------------------------------------- */
static void set_fragment(struct frame *frame, unsigned offset_words, bool more)
{
	frame->ip6_fragment_header = frame->ip6;
	frame->fragment = frame->ip6 ? offset_words << 3 | (more ? FRAGMENT_MORE6 : 0)
				     : offset_words | (more ? FRAGMENT_MORE4 : 0);
}

static void first_fragments_are_dropped_at_protected_ports_alone(void **state)
{
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		set_fragment(&frame, 0, true);
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_FRAGMENT, "%s", name_of(&frame, "to a protected port"));
		frame.dport = OTHER_PORT;
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_UNPROTECTED, "%s", name_of(&frame, "to another port"));
		frame.dport = GATE_PORT;
		frame.protocol = PROTO_UDP;
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_UNPROTECTED, "%s", name_of(&frame, "of UDP"));
	}
}

static void later_fragments_have_no_port_and_pass(void **state)
{
	static const unsigned offsets[] = {2, 3, 100, 185, 8191};
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
			for (int more = 0; more < 2; more++) {
				set_fragment(&frame, offsets[i], more);
				gate_run_frame(*state, &frame, &run);
				expect_reason(&run, SLUICE_REASON_UNPROTECTED, "%s", name_of(&frame, "later fragment"));
			}
		}
	}
}

/* RFC 3128: a fragment at offset 8 would overwrite the flags of the first. */
static void a_tcp_fragment_over_the_flags_is_dropped_at_any_port(void **state)
{
	static const uint16_t dports[] = {GATE_PORT, OTHER_PORT};
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		for (int i = 0; i < 4; i++) {
			frame.dport = dports[i / 2];
			set_fragment(&frame, 1, i % 2);
			frame.protocol = PROTO_TCP;
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_FRAGMENT, "%s", name_of(&frame, "offset 8"));
			frame.protocol = PROTO_UDP;
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_UNPROTECTED, "%s", name_of(&frame, "offset 8 of UDP"));
		}
	}
}

static void a_tiny_first_fragment_is_dropped(void **state)
{
	uint8_t bytes[FRAME_MAX];
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		unsigned ip = frame_ip_offset(&frame), tcp;

		set_fragment(&frame, 0, true);
		tcp = frame_tcp_offset(&frame);
		frame_write(&frame, bytes);
		for (unsigned left = 0; left <= 16; left++) {
			set16(bytes + ip + (frame.ip6 ? 4 : 2), frame.ip6 ? 8 + left : 20 + left);
			gate_run(*state, bytes, tcp + left, &run);
			/* With the ports it is a fragment to them; without, nobody can say what it is for. */
			expect_reason(&run, left < 4 ? SLUICE_REASON_TCP_MALFORMED : SLUICE_REASON_FRAGMENT, "%s (%u)",
				name_of(&frame, "tiny fragment"), left);
		}
	}
}

/* RFC 6946: a fragment header on a packet that is whole. */
static void an_ip6_packet_with_an_atomic_fragment_header_is_whole(void **state)
{
	struct frame frame = frame_syn(true);
	struct run run;

	for (frame.vlans = 0; frame.vlans <= 2; frame.vlans++) {
		set_fragment(&frame, 0, false);
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "%s", name_of(&frame, "atomic fragment"));
		expect_way_back(&run, &frame);
	}
}

static void a_second_fragment_header_does_not_make_a_fragment_whole(void **state)
{
	static const struct extension chain[] = {{PROTO_FRAGMENT, 8}, {PROTO_FRAGMENT, 8}};
	uint8_t bytes[FRAME_MAX];
	struct frame frame = frame_syn(true);
	unsigned ip = frame_ip_offset(&frame), length;
	struct run run;

	for (unsigned i = 0; i < 2; i++) { /* the real one first, and last */
		length = insert_chain(bytes, frame_write(&frame, bytes), ip, chain, 2);
		bytes[ip + 40 + 8 * i + 3] = FRAGMENT_MORE6;
		gate_run(*state, bytes, length, &run);
		expect_reason(&run, SLUICE_REASON_FRAGMENT, "real fragment header %u of two", i);
	}
}

static void the_do_not_fragment_bit_does_not_matter(void **state)
{
	struct frame frame = frame_syn(false);
	struct run run;

	frame.fragment = 0x4000;
	gate_run_frame(*state, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "DF");
}

/* --- what is none of our business ---------------------------------------------------------------------------------------- */
static void other_protocols_pass_untouched(void **state)
{
	static const uint8_t protocols[] = {
		PROTO_ICMP, PROTO_UDP, PROTO_GRE, PROTO_ESP, PROTO_ICMP6, PROTO_NONE, PROTO_SCTP, 253};
	static const char data[] = "not for the gate";
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		for (unsigned i = 0; i < sizeof(protocols); i++) {
			frame.protocol = protocols[i];
			frame.payload = data;
			for (frame.payload_len = 0; frame.payload_len < sizeof(data); frame.payload_len += 5) {
				gate_run_frame(*state, &frame, &run);
				expect_reason(&run, SLUICE_REASON_UNPROTECTED, "%s", name_of(&frame, "not TCP"));
				assert_int_equal(run.service, SLUICE_MAX_SERVICES);
			}
		}
	}
}

static void other_ports_pass_untouched_whatever_the_flags(void **state)
{
	static const uint16_t ports[] = {0, 1, 22, 80, 443, 8079, 8083, 9180, 65535};
	static const char data[] = "POST /v1/orders/ is for another port";
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
			frame.dport = ports[i];
			frame.payload = data;
			for (unsigned flags = 0; flags < 256; flags += 17) {
				frame.flags = flags;
				frame.payload_len = flags % 3 ? sizeof(data) : 0;
				gate_run_frame(*state, &frame, &run);
				expect_reason(&run, SLUICE_REASON_UNPROTECTED, "%s", name_of(&frame, "another port"));
			}
		}
	}
}

static void what_is_not_ip_passes_untouched(void **state)
{
	/* ARP, RARP, LLDP, PPPoE, MPLS, an 802.3 length, and one that nobody has. */
	static const uint16_t types[] = {0x0806, 0x8035, 0x88cc, 0x8864, 0x8847, 0x0026, 0xffff};
	uint8_t bytes[FRAME_MAX];
	struct run run;

	for (int vlans = 0; vlans <= 2; vlans++) {
		for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
			struct frame frame = frame_syn(false);

			frame.vlans = vlans;
			frame_write(&frame, bytes);
			set16(bytes + 12 + 4 * vlans, types[i]);
			for (unsigned length = 14 + 4 * vlans; length < ETHERNET_MIN; length++) {
				gate_run(*state, bytes, length, &run);
				expect_reason(&run, SLUICE_REASON_UNPROTECTED, "type %04x", types[i]);
			}
		}
	}
}

static void a_service_with_an_address_covers_that_address_alone(void **state)
{
	struct gate *gate = *state;
	struct frame frame = frame_syn(false), frame6 = frame_syn(true);
	struct run run;

	gate_add_service(gate, 3, "198.51.100.7", 8090, SLUICE_SERVICE_SALE);
	frame.dport = frame6.dport = 8090;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_UNPROTECTED, "another address");
	gate_run_frame(gate, &frame6, &run);
	expect_reason(&run, SLUICE_REASON_UNPROTECTED, "another family");
	frame.destination = "198.51.100.7";
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_NO_LISTENER, "the service's address");
	assert_int_equal(run.service, 3);

	gate_add_service(gate, 3, "2001:db8::7", 8091, SLUICE_SERVICE_SALE);
	frame.dport = frame6.dport = 8091;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_UNPROTECTED, "another family");
	frame6.destination = "2001:db8::7";
	gate_run_frame(gate, &frame6, &run);
	expect_reason(&run, SLUICE_REASON_NO_LISTENER, "the service's address");
	frame6.destination = "2001:db8::8";
	gate_run_frame(gate, &frame6, &run);
	expect_reason(&run, SLUICE_REASON_UNPROTECTED, "its neighbour");
}

static void packets_are_counted_under_their_service(void **state)
{
	static const uint16_t dports[] = {GATE_PORT, GATE_TCP_PORT, GATE_DEAD_PORT};
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		for (int i = 0; i < 3; i++) {
			frame.dport = dports[i];
			gate_run_frame(*state, &frame, &run);
			assert_int_equal(run.service, i);
		}
	}
}

/* --- truncation ---------------------------------------------------------------------------------------------------------- */
static const char *const payloads[] = {"", "x", "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", NULL /* an order */};

/* Good frames of every kind: flags, options, extensions, with a valid cookie or not. Returns false when there are no more. */
static bool good_frame(struct gate *gate, unsigned kind, struct frame *frame)
{
	static char request[512];
	static uint64_t serial;
	char text[SLUICE_TOKEN_TEXT + 1];
	const char *payload = payloads[kind % 4];
	struct sluice_token token;

	if (kind >= 4 * 12)
		return false;
	serial++;
	token = gate_token(serial, serial);
	gate_token_text(gate, &token, text);
	gate_order_request(text, request, sizeof(request));
	*frame = frame_syn(kind / 4 & 1);
	frame->sport = 20000 + kind;
	frame->vlans = kind / 8 % 3;
	if (kind >= 24) {
		frame->ip_option_words = 3;
		frame->ip6_extensions = 2;
	}
	if (kind % 4)
		assert_int_equal(
			gate_handshake(gate, frame, payload ? payload : request, strlen(payload ? payload : request)),
			0);
	return true;
}

/* The frame is cut, and the IP header still tells the length that it had. */
static void a_frame_cut_at_any_byte_is_dropped_as_malformed(void **state)
{
	struct gate *gate = *state;
	uint8_t bytes[FRAME_MAX];
	struct frame frame;
	struct run run;
	unsigned runs = 0;

	for (unsigned kind = 0; good_frame(gate, kind, &frame); kind++) {
		unsigned whole = frame_write(&frame, bytes);

		for (unsigned length = 14; length < whole; length++, runs++) {
			int reason = length < frame_ip_offset(&frame) ? SLUICE_REASON_ETH_MALFORMED
				: frame.ip6                           ? SLUICE_REASON_IP6_MALFORMED
								      : SLUICE_REASON_IP4_MALFORMED;

			gate_run(gate, bytes, length, &run);
			expect_reason(&run, reason, "kind %u, %u of %u bytes", kind, length, whole);
		}
	}
	print_message("           %u cuts\n", runs);
	assert_true(gate_is_conserved(gate, 10));
}

/* The packet is cut, and its IP header tells the length that it has: what is left of the payload may be judged, not more. */
static void a_packet_cut_at_any_byte_is_never_an_order(void **state)
{
	struct gate *gate = *state;
	uint8_t bytes[FRAME_MAX];
	struct frame frame;
	struct run run;
	unsigned runs = 0;

	for (unsigned kind = 0; good_frame(gate, kind, &frame); kind++) {
		unsigned whole = frame_write(&frame, bytes), ip = frame_ip_offset(&frame),
			 tcp = frame_tcp_offset(&frame);
		unsigned start = ip + (frame.ip6 ? 40 : 20 + 4 * frame.ip_option_words);
		unsigned token_end = tcp + 20 + 16 + SLUICE_TOKEN_TEXT + 1;

		for (unsigned length = start; length < whole && length < token_end; length++, runs++) {
			set16(bytes + ip + (frame.ip6 ? 4 : 2), length - ip - (frame.ip6 ? 40 : 0));
			gate_run(gate, bytes, length, &run);
			expect_sound(&run, "a shorter packet");
			expect(run.reason != SLUICE_REASON_ADMITTED, "kind %u, %u of %u bytes: admitted", kind, length,
				whole);
			expect(length >= tcp + 20 || run.action == XDP_DROP, "kind %u, %u of %u bytes: %s", kind,
				length, whole, reason_label(run.reason));
		}
	}
	print_message("           %u cuts\n", runs);
	assert_true(gate_is_conserved(gate, 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(a_frame_that_ends_inside_a_tag_is_malformed),
		gate_test(two_tags_are_read_and_three_are_dropped),
		gate_test(padding_is_not_data),
		gate_test(a_request_in_a_padded_frame_is_read_to_its_own_end),
		gate_test(wrong_ip4_headers_are_malformed),
		gate_test(ip4_options_are_skipped_and_not_sent_back),
		gate_test(wrong_ip6_headers_are_malformed),
		gate_test(up_to_eight_extension_headers_are_walked_and_nine_are_dropped),
		gate_test(extension_headers_of_every_kind_and_length_lead_to_tcp),
		gate_test(an_extension_header_beyond_the_packet_is_malformed),
		gate_test(tcp_headers_of_an_impossible_length_are_malformed),
		gate_test(a_packet_that_ends_inside_the_tcp_header_is_malformed),
		gate_test(first_fragments_are_dropped_at_protected_ports_alone),
		gate_test(later_fragments_have_no_port_and_pass),
		gate_test(a_tcp_fragment_over_the_flags_is_dropped_at_any_port),
		gate_test(a_tiny_first_fragment_is_dropped),
		gate_test(an_ip6_packet_with_an_atomic_fragment_header_is_whole),
		gate_test(a_second_fragment_header_does_not_make_a_fragment_whole),
		gate_test(the_do_not_fragment_bit_does_not_matter),
		gate_test(other_protocols_pass_untouched),
		gate_test(other_ports_pass_untouched_whatever_the_flags),
		gate_test(what_is_not_ip_passes_untouched),
		gate_test(a_service_with_an_address_covers_that_address_alone),
		gate_test(packets_are_counted_under_their_service),
		gate_test(a_frame_cut_at_any_byte_is_dropped_as_malformed),
		gate_test(a_packet_cut_at_any_byte_is_never_an_order),
	};

	return cmocka_run_group_tests_name("parse", tests, setup_gate, close_gate);
}
