/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The stateless handshake against a real kernel: cookies, what comes without a connection, and what belongs to one. */
#include <errno.h>
#include <fcntl.h>
#include <net/route.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "expect.h"

#define F_URG 32
#define WAIT_MS 2000
#define MIRROR_STEPS 10
#define COOKIE_SLACK 4

static const char request[] = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

#define for_each_network(frame) \
	for (int net_ = 0; net_ < 6 && ((frame) = frame_syn(net_ & 1), (frame).vlans = net_ / 2, 1); net_++)

/* --- SYN ------------------------------------------------------------------------------------------------------------------ */
static void a_syn_gets_a_cookie_and_never_more_bytes_than_it_had(void **state)
{
	uint8_t bytes[FRAME_MAX];
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		for (frame.tcp_option_bytes = 0; frame.tcp_option_bytes <= 40; frame.tcp_option_bytes += 4) {
			unsigned length = frame_write(&frame, bytes);

			gate_run(*state, bytes, length, &run);
			expect_reason(
				&run, SLUICE_REASON_SYN_COOKIE, "SYN with %u bytes of options", frame.tcp_option_bytes);
			expect_way_back(&run, &frame);
			expect_acknowledges(&run, &frame);
			assert_int_equal(run.parsed.flags, F_SYN | F_ACK);
			assert_int_equal(run.parsed.payload_len, 0);
			assert_true(run.length <= length);
			/* The MSS alone: the kernel would read wrong things out of any other option. */
			assert_int_equal(run.parsed.option_bytes, frame.tcp_option_bytes ? 4 : 0);
			assert_int_equal(run.parsed.mss, !frame.tcp_option_bytes ? 0 : frame.ip6 ? 1440 : 1460);
		}
	}
}

static void the_mss_offered_is_that_of_the_interface(void **state)
{
	struct gate *gate = *state;
	struct frame frame = frame_syn(false), frame6 = frame_syn(true);
	struct run run;

	gate->control->mss4 = 8960;
	gate->control->mss6 = 1220;
	gate_run_frame(gate, &frame, &run);
	assert_int_equal(run.parsed.mss, 8960);
	gate_run_frame(gate, &frame6, &run);
	assert_int_equal(run.parsed.mss, 1220);
}

static void a_syn_at_the_end_of_the_sequence_space_is_acknowledged_with_zero(void **state)
{
	struct frame frame = frame_syn(false);
	struct run run;

	frame.seq = 0xffffffff;
	gate_run_frame(*state, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "last sequence number");
	assert_int_equal(run.parsed.ack, 0);
}

static void cookies_of_two_clients_differ(void **state)
{
	struct frame frame = frame_syn(false), other = frame;
	struct run run, other_run;

	gate_run_frame(*state, &frame, &run);
	other.sport++;
	gate_run_frame(*state, &other, &other_run);
	assert_int_not_equal(run.parsed.seq, other_run.parsed.seq);
	other = frame;
	other.source = "192.0.2.11";
	gate_run_frame(*state, &other, &other_run);
	assert_int_not_equal(run.parsed.seq, other_run.parsed.seq);
}

static void a_syn_for_nobody_goes_to_the_kernel(void **state)
{
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		frame.dport = GATE_DEAD_PORT;
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_NO_LISTENER, "SYN to a port without listener");
	}
}

/* --- flags ---------------------------------------------------------------------------------------------------------------- */
static int reason_of_flags(unsigned flags, bool data)
{
	if ((flags & (F_SYN | F_FIN)) == (F_SYN | F_FIN))
		return SLUICE_REASON_SYN_FIN;
	if ((flags & (F_SYN | F_RST)) == (F_SYN | F_RST))
		return SLUICE_REASON_SYN_RST;
	switch (flags & (F_SYN | F_ACK | F_RST)) {
	case 0:
	case F_SYN | F_ACK:
		return SLUICE_REASON_TCP_FLAGS;
	case F_SYN:
		return data ? SLUICE_REASON_SYN_DATA : SLUICE_REASON_SYN_COOKIE;
	case F_ACK:
		return data || (flags & F_FIN) ? SLUICE_REASON_LEFTOVER_UNKNOWN : SLUICE_REASON_BARE_ACK;
	default:
		return SLUICE_REASON_RST_STRAY;
	}
}

static void every_combination_of_flags_without_a_connection_has_its_reason(void **state)
{
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		frame.payload = "x";
		for (unsigned flags = 0; flags < 256; flags++) {
			for (unsigned data = 0; data < 2; data++) {
				frame.flags = flags;
				frame.payload_len = data;
				gate_run_frame(*state, &frame, &run);
				expect_reason(&run, reason_of_flags(flags, data), "flags %02x, %u bytes of data", flags,
					data);
			}
		}
	}
}

/* --- leftovers ------------------------------------------------------------------------------------------------------------ */
static void leftovers_are_acknowledged_to_their_last_byte(void **state)
{
	static const uint32_t seqs[] = {0, 1000, 0x7fffffff, 0xfffffffe, 0xffffffff};
	static const uint8_t flags[] = {F_ACK, F_ACK | F_PSH, F_ACK | F_FIN, F_ACK | F_PSH | F_FIN, F_ACK | F_URG};
	static const unsigned lengths[] = {0, 1, 2, 100, 1400};
	static uint8_t data[1400];
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		frame.payload = data;
		for (unsigned i = 0; i < 5 * 5 * 5; i++) {
			frame.seq = seqs[i % 5];
			frame.ack = seqs[4 - i % 5] + 77;
			gate_note(*state, &frame, true, 0);
			frame.flags = flags[i / 5 % 5];
			frame.payload_len = lengths[i / 25];
			frame.tcp_option_bytes = i % 3 * 4;
			gate_run_frame(*state, &frame, &run);
			if (!frame.payload_len && !(frame.flags & F_FIN)) {
				expect_reason(&run, SLUICE_REASON_BARE_ACK, "nothing to acknowledge");
				continue;
			}
			expect_reason(
				&run, SLUICE_REASON_LEFTOVER, "%u bytes, flags %02x", frame.payload_len, frame.flags);
			expect_way_back(&run, &frame);
			expect_acknowledges(&run, &frame);
			assert_int_equal(run.parsed.seq, frame.ack);
			assert_int_equal(run.parsed.flags, F_ACK);
			assert_int_equal(run.parsed.payload_len, 0);
			assert_int_equal(run.parsed.option_bytes, 0);
		}
	}
}

/* XDP sees a whole batch before the kernel has made the socket of its first segment. */
static void what_follows_a_first_segment_goes_up_with_it(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "the first segment");
		frame.seq += frame.payload_len;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_FOLLOWS, "the second");
		assert_true(run.untouched);
		frame.flags = F_ACK | F_FIN;
		frame.payload_len = 0;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_FOLLOWS, "FIN");
		frame.sport++;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "of another connection");
		frame.sport--;
		gate_note(gate, &frame, false, 600000000);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "0.6 s later, and still no socket");
	}
}

/* An ACK is cumulative: one for the second segment would cover a first that never arrived, and the client would wait forever. */
static void nothing_is_acknowledged_before_the_first_segment_has_come(void **state)
{
	struct gate *gate = *state;
	struct frame first, frame;
	struct run run;

	for_each_network(first)
	{
		gate_reset(gate); /* tagged or not, it is one connection */
		assert_int_equal(gate_handshake(gate, &first, request, sizeof(request) - 1), 0);
		frame = first;
		frame.seq += frame.payload_len;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "second segment, the first was lost");
		frame.flags |= F_FIN;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "last segment, the first was lost");
		gate_run_frame(gate, &first, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "the first, sent again");
	}
}

static void the_rest_of_a_refused_request_is_acknowledged(void **state)
{
	static const char rest[] = "Cookie: more\r\n\r\n";
	struct gate *gate = *state;
	struct frame frame;
	struct run run;
	char order[512];
	unsigned length = gate_order_request(
		"not-a-token-not-a-token-not-a-token-not-a-token-not-a-token-not!", order, sizeof(order));

	for_each_network(frame)
	{
		assert_int_equal(gate_handshake(gate, &frame, order, length), 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_TOKEN_FORM, "refused");
		frame.seq += frame.payload_len;
		frame.ack += run.parsed.payload_len + 1;
		frame.payload = rest;
		frame.payload_len = sizeof(rest) - 1;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER, "its rest");
		expect_acknowledges(&run, &frame);
		gate_note(gate, &frame, true, 20000000000);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER, "20 s later");
		gate_note(gate, &frame, true, 23000000000);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "23 s later");
	}
}

/* The second segment was on its way when the answer to the first was lost. An acknowledgement would cover both, and the client would wait for an
 * answer that nobody has.
 */
static void nothing_is_acknowledged_before_the_answer_has_come(void **state)
{
	static const char rest[] = "Cookie: more\r\n\r\n";
	struct gate *gate = *state;
	struct frame first, frame;
	struct run run;
	char order[512];
	unsigned length = gate_order_request(
		"not-a-token-not-a-token-not-a-token-not-a-token-not-a-token-not!", order, sizeof(order));

	for_each_network(first)
	{
		gate_reset(gate); /* tagged or not, it is one connection */
		assert_int_equal(gate_handshake(gate, &first, order, length), 0);
		gate_run_frame(gate, &first, &run);
		expect_reason(&run, SLUICE_REASON_TOKEN_FORM, "refused, and the answer is lost");
		frame = first;
		frame.seq += first.payload_len;
		for (int with_data = 0; with_data < 2; with_data++) {
			for (int fin = 0; fin < 2; fin++) {
				if (!with_data && !fin)
					continue;
				frame.flags = F_ACK | F_PSH | (fin ? F_FIN : 0);
				frame.payload = rest;
				frame.payload_len = with_data ? sizeof(rest) - 1 : 0;
				gate_run_frame(gate, &frame, &run);
				expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "%u bytes, flags %02x",
					frame.payload_len, frame.flags);
			}
		}
		gate_run_frame(gate, &first, &run);
		expect_reason(&run, SLUICE_REASON_TOKEN_FORM, "the first, sent again");
		frame.ack += run.parsed.payload_len; /* its data, and not yet its FIN */
		for (int i = 0; i < 2; i++, frame.ack++) {
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_LEFTOVER, "the second, sent again, %d", i);
			expect_acknowledges(&run, &frame);
		}
	}
}

/* A port may be used again at once: here with other numbers, and its first segment is lost. */
static void the_answer_to_an_earlier_connection_is_not_taken_for_this_ones(void **state)
{
	static const uint32_t seen[] = {0, SLUICE_ANSWER_MAX + 2, 0x8000, 0xffff, 0x10000};
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		frame.flags = F_ACK | F_FIN;
		gate_note(*state, &frame, true, 0);
		frame.ack--; /* that of the segment that was answered */
		for (unsigned i = 0; i < sizeof(seen) / sizeof(*seen); i++) {
			frame.ack += seen[i];
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "%u more acknowledged", seen[i]);
			frame.ack -= seen[i];
		}
		frame.ack += SLUICE_ANSWER_MAX + 1;
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER, "the longest answer");
	}
}

/* The time of a note has 24 bits, and its clock is not quite that of the look. */
static void a_note_is_as_old_as_its_time_says_across_a_wrap(void **state)
{
	static const struct {
		int64_t age;
		int reason;
	} ages[] = {{-20, SLUICE_REASON_LEFTOVER}, {-40, SLUICE_REASON_LEFTOVER_UNKNOWN}, {0, SLUICE_REASON_LEFTOVER},
		{SLUICE_RECENT_ANSWERED - 2, SLUICE_REASON_LEFTOVER},
		{SLUICE_RECENT_ANSWERED + 20, SLUICE_REASON_LEFTOVER_UNKNOWN},
		{SLUICE_RECENT_TIME_MASK - 100, SLUICE_REASON_LEFTOVER_UNKNOWN},
		{SLUICE_RECENT_TIME_MASK + 1LL, SLUICE_REASON_LEFTOVER}};
	struct frame frame = frame_syn(false);
	struct run run;

	frame.flags = F_ACK | F_FIN;
	for (unsigned i = 0; i < sizeof(ages) / sizeof(*ages); i++) {
		assert_true(gate_note(*state, &frame, true, (uint64_t)(ages[i].age << SLUICE_RECENT_SHIFT)));
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, ages[i].reason, "%lld steps old", (long long)ages[i].age);
	}
}

static void a_client_that_says_nothing_may_close(void **state)
{
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		assert_int_equal(gate_handshake(*state, &frame, NULL, 0), 0);
		frame.flags = F_ACK | F_FIN;
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER, "FIN");
		expect_acknowledges(&run, &frame);
	}
}

/* What the other side would send if it did as we do: the answer with both ends in each other's place. */
static struct frame mirror(const struct run *run, const struct frame *frame, uint8_t *payload)
{
	struct frame back = *frame;

	back.seq = run->parsed.seq;
	back.ack = run->parsed.ack;
	back.flags = run->parsed.flags;
	back.tcp_option_bytes = run->parsed.option_bytes;
	memcpy(payload, run->parsed.payload, run->parsed.payload_len);
	back.payload = payload;
	back.payload_len = run->parsed.payload_len;
	return back;
}

static void an_answer_that_is_mirrored_comes_to_rest(void **state)
{
	struct gate *gate = *state;
	static uint8_t payload[FRAME_MAX];
	struct frame frame;
	struct run run;
	unsigned steps;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, 1000000000000ULL, 1);
	for_each_network(frame)
	{
		for (int start = 0; start < 3; start++) {
			if (start == 1) {
				frame.flags = F_ACK | F_FIN;
			} else if (start == 2) { /* answered with data and FIN: the source's rate is spent */
				for (int i = 0; i < 2; i++) {
					frame = frame_syn(net_ & 1);
					frame.vlans = net_ / 2;
					frame.sport += i;
					assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
					gate_run_frame(gate, &frame, &run);
				}
				expect_reason(&run, SLUICE_REASON_RATE_SOURCE, "over the rate");
			}
			for (steps = 0; steps < MIRROR_STEPS; steps++) {
				gate_run_frame(gate, &frame, &run);
				expect_sound(&run, "a mirrored answer");
				if (run.action != XDP_TX)
					break;
				frame = mirror(&run, &frame, payload);
			}
			expect(steps <= 2, "start %d: %u answers to answers", start, steps);
		}
	}
}

static void no_bare_ack_is_ever_answered(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		/* The last step of the handshake, with its good cookie: swallowed, the client is not known yet. */
		assert_int_equal(gate_handshake(gate, &frame, "", 0), 0);
		frame.flags = F_ACK;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_BARE_ACK, "ACK of a cookie");
		for (unsigned i = 0; i < 50; i++) {
			frame.seq = frame.seq * 1103515245 + 12345;
			frame.ack = frame.ack * 69069 + 1;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_BARE_ACK, "ACK out of nowhere");
		}
	}
}

/* --- cookies -------------------------------------------------------------------------------------------------------------- */
static void data_behind_a_good_cookie_is_a_first_segment(void **state)
{
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		assert_int_equal(gate_handshake(*state, &frame, request, sizeof(request) - 1), 0);
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "first segment");
		frame.flags = F_ACK; /* no stack must set PSH */
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "the same again");
		frame.tcp_option_bytes = 12;
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "with options");
		frame.flags = F_ACK | F_FIN;
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "with FIN");
	}
}

static void a_service_of_kind_tcp_lets_the_first_data_through_unread(void **state)
{
	static const char order[] =
		"POST /v1/orders/0123456789012345678901234567890123456789012345678901234567890123 HTTP/1.1\r\n\r\n";
	struct frame frame;
	struct run run;

	for_each_network(frame)
	{
		frame.dport = GATE_TCP_PORT;
		assert_int_equal(gate_handshake(*state, &frame, order, sizeof(order) - 1), 0);
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_TCP_FIRST, "first data to kind tcp");
		assert_int_equal(run.service, 1);
	}
}

/* The cookie has the index of an MSS (0..3) in its low bits, so the kernel itself takes numbers that are off by up to three for
 * good: its socket is then off as well, and the bytes before are the client's loss.
 */
static void a_cookie_is_good_for_its_own_connection_alone(void **state)
{
	struct frame good, frame;
	struct run run;

	for_each_network(good)
	{
		gate_reset(*state); /* tagged or not, it is one connection */
		assert_int_equal(gate_handshake(*state, &good, request, sizeof(request) - 1), 0);
		for (int wrong = 0; wrong < 7; wrong++) {
			frame = good;
			switch (wrong) {
			case 0:
				frame.ack += COOKIE_SLACK;
				break;
			case 1:
				frame.ack ^= 0x01000000;
				break;
			case 2:
				frame.seq += COOKIE_SLACK;
				break;
			case 3:
				frame.seq -= COOKIE_SLACK;
				break;
			case 4:
				frame.sport++;
				break;
			case 5:
				frame.source = good.ip6 ? "2001:db8:1::11" : "192.0.2.11";
				break;
			case 6:
				frame.dport = GATE_TCP_PORT;
				break;
			}
			gate_run_frame(*state, &frame, &run);
			expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "IPv%d, wrong %d", good.ip6 ? 6 : 4, wrong);
		}
		gate_run_frame(*state, &good, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "the good one");
	}
}

/* Of a connection on which nothing was said yet: a byte before the first, which is nobody's (RFC 1122, 4.2.3.6). */
static void a_keepalive_probe_is_no_first_segment(void **state)
{
	struct gate *gate = *state;
	struct frame good, probe;
	struct run run;

	for_each_network(good)
	{
		gate_reset(gate); /* tagged or not, it is one connection */
		assert_int_equal(gate_handshake(gate, &good, "P", 1), 0);
		probe = good;
		probe.flags = F_ACK;
		probe.payload = "";
		for (int before = 0; before < 2; before++, probe.seq--) {
			gate_run_frame(gate, &probe, &run);
			expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "a byte, %d before", before);
		}
		gate_run_frame(gate, &good, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "a byte that was written");
		good.payload = "PO";
		good.payload_len = 2;
		good.flags = F_ACK;
		gate_run_frame(gate, &good, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "two, of more that follow");
	}
}

/* --- a real kernel -------------------------------------------------------------------------------------------------------- */
static void write_syncookies(const char *value)
{
	int fd = open("/proc/sys/net/ipv4/tcp_syncookies", O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, value, strlen(value)), strlen(value));
	close(fd);
}

/* Answers to the test's addresses have a way to go (out of loopback, and no further). */
static void route_clients(void)
{
	struct rtentry route = {.rt_flags = RTF_UP, .rt_dev = (char[]){"lo"}};
	struct in6_rtmsg route6 = {.rtmsg_dst_len = 48, .rtmsg_ifindex = 1, .rtmsg_metric = 1, .rtmsg_flags = RTF_UP};
	struct sockaddr_in *to = (struct sockaddr_in *)&route.rt_dst, *mask = (struct sockaddr_in *)&route.rt_genmask;
	int fd = socket(AF_INET, SOCK_DGRAM, 0), fd6 = socket(AF_INET6, SOCK_DGRAM, 0);

	to->sin_family = mask->sin_family = AF_INET;
	inet_pton(AF_INET, "192.0.2.0", &to->sin_addr);
	inet_pton(AF_INET, "255.255.255.0", &mask->sin_addr);
	inet_pton(AF_INET6, "2001:db8:1::", &route6.rtmsg_dst);
	if (ioctl(fd, SIOCADDRT, &route) && errno != EEXIST)
		fail_msg("route: %s", strerror(errno));
	if (ioctl(fd6, SIOCADDRT, &route6) && errno != EEXIST)
		fail_msg("IPv6 route: %s", strerror(errno));
	close(fd);
	close(fd6);
}

/* Hands the IP packet of an untagged frame to the kernel, as the driver would after XDP_PASS. */
static void deliver(const struct frame *frame)
{
	uint8_t bytes[FRAME_MAX];
	unsigned length = frame_write(frame, bytes);
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6};
	int fd = socket(frame->ip6 ? AF_INET6 : AF_INET, SOCK_RAW, IPPROTO_RAW);
	ssize_t sent;

	assert_true(fd >= 0);
	assert_int_equal(frame->vlans, 0);
	inet_pton(AF_INET, frame->destination, &to.sin_addr);
	inet_pton(AF_INET6, frame->destination, &to6.sin6_addr);
	if (frame->ip6)
		sent = sendto(fd, bytes + 14, length - 14, 0, (struct sockaddr *)&to6, sizeof(to6));
	else
		sent = sendto(fd, bytes + 14, length - 14, 0, (struct sockaddr *)&to, sizeof(to));
	expect(sent == (ssize_t)length - 14, "raw send: %s", strerror(errno));
	close(fd);
}

static int accept_in_time(int listener)
{
	struct pollfd poll_fd = {.fd = listener, .events = POLLIN};

	return poll(&poll_fd, 1, WAIT_MS) == 1 ? accept(listener, NULL, NULL) : -1;
}

/* The kernel has the first segment of a connection, and makes its socket. */
static int connection_of(struct gate *gate, const struct frame *frame)
{
	int fd;

	deliver(frame);
	fd = accept_in_time(gate->listeners[0]);
	assert_true(fd >= 0);
	return fd;
}

/* Its client gives it up; nothing is left of it. `frame` becomes the RST. */
static void give_up(struct frame *frame, int fd)
{
	frame->flags = F_RST | F_ACK;
	frame->payload_len = 0;
	deliver(frame);
	close(fd);
}

static void the_kernel_makes_the_socket_out_of_the_first_segment(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;
	char got[sizeof(request)];
	int fd;

	route_clients();
	for (int ip6 = 0; ip6 < 2; ip6++) {
		for (unsigned options = 0; options <= 20; options += 20) {
			frame = frame_syn(ip6);
			frame.sport = 41000 + options;
			frame.tcp_option_bytes = options;
			assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_REQUEST, "first segment");
			deliver(&frame);
			fd = accept_in_time(gate->listeners[0]);
			expect(fd >= 0, "IPv%d, %u bytes of options: the kernel refused the gate's cookie", ip6 ? 6 : 4,
				options);
			assert_int_equal(recv(fd, got, sizeof(got), MSG_DONTWAIT), sizeof(request) - 1);
			assert_memory_equal(got, request, sizeof(request) - 1);

			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SOCKET, "the first segment again");
			frame.seq += frame.payload_len;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SOCKET, "the second segment");
			frame.flags = F_RST | F_ACK;
			frame.payload_len = 0;
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SOCKET, "its RST");
			deliver(&frame);
			close(fd);
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_RST_STRAY, "RST after the RST");
		}
	}
}

static void a_request_repeated_on_its_socket_is_not_charged_again(void **state)
{
	struct gate *gate = *state;
	struct frame frame = frame_syn(false);
	struct run run;
	int fd;

	route_clients();
	gate_limit(gate, SLUICE_LIMIT_SOURCE, 1000000000000ULL, 2);
	frame.sport = 42000;
	assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_REQUEST, "first of two");
	fd = connection_of(gate, &frame);
	for (int i = 0; i < 6; i++) {
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_SOCKET, "retransmission %d", i);
	}
	frame.seq += frame.payload_len;
	give_up(&frame, fd);
	for (int i = 0; i < 2; i++) {
		frame = frame_syn(false);
		frame.sport = 42001 + i;
		assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, i ? SLUICE_REASON_RATE_SOURCE : SLUICE_REASON_REQUEST, "request %d of two", i + 2);
	}
}

/* A connection over loopback. `frame` becomes a segment of its client. */
static int connect_to(struct gate *gate, bool ip6, int *accepted, struct frame *frame)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(GATE_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 to6 = {
		.sin6_family = AF_INET6, .sin6_port = htons(GATE_PORT), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_storage me;
	socklen_t size = sizeof(me);
	int fd = socket(ip6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(ip6 ? connect(fd, (struct sockaddr *)&to6, sizeof(to6))
			     : connect(fd, (struct sockaddr *)&to, sizeof(to)),
		0);
	if (accepted) {
		*accepted = accept_in_time(gate->listeners[0]);
		assert_true(*accepted >= 0);
	}
	assert_int_equal(getsockname(fd, (struct sockaddr *)&me, &size), 0);
	*frame = frame_syn(ip6);
	frame->source = frame->destination;
	frame->sport = ntohs(ip6 ? ((struct sockaddr_in6 *)&me)->sin6_port : ((struct sockaddr_in *)&me)->sin_port);
	return fd;
}

static void segments_of_a_connection_pass_untouched(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (int ip6 = 0; ip6 < 2; ip6++) {
		int accepted, client = connect_to(gate, ip6, &accepted, &frame);

		frame.payload = "data";
		for (frame.vlans = 0; frame.vlans <= 2; frame.vlans++) {
			for (unsigned flags = 0; flags < 64; flags++) {
				for (frame.payload_len = 0; frame.payload_len <= 4; frame.payload_len += 4) {
					int reason = reason_of_flags(flags, frame.payload_len);

					frame.flags = flags;
					gate_run_frame(gate, &frame, &run);
					/* What no stack sends is dropped here too; a SYN-ACK is the kernel's business. */
					if (reason == SLUICE_REASON_SYN_FIN || reason == SLUICE_REASON_SYN_RST ||
						reason == SLUICE_REASON_SYN_DATA || !(flags & (F_SYN | F_ACK | F_RST)))
						expect_reason(&run, reason, "flags %02x of a connection", flags);
					else
						expect_reason(&run, SLUICE_REASON_SOCKET, "flags %02x of a connection",
							flags);
				}
			}
		}
		close(accepted);
		close(client);
	}
}

/* Behind one public address and port there may be two clients, of one address of the shop each. */
static void a_connection_to_another_address_is_another_connection(void **state)
{
	for (int ip6 = 0; ip6 < 2; ip6++) {
		struct frame frame = frame_syn(ip6), twin;
		struct run run;

		frame.flags = F_ACK | F_FIN;
		twin = frame;
		twin.destination = ip6 ? "::2" : "127.0.0.2";
		assert_true(gate_note(*state, &frame, true, 0));
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER, "of the one that was answered");
		gate_run_frame(*state, &twin, &run);
		expect_reason(&run, SLUICE_REASON_LEFTOVER_UNKNOWN, "of the other");
	}
}

/* Who has a network to himself chooses the lower half of his address. Were the upper one mixed without the seed, he could compute it. */
static void nobody_chooses_an_address_whose_connection_is_anothers(void **state)
{
	static const struct sluice_addr victims[] = {{.lo = 0xffffc0000207ULL}, {.hi = 0x20010db800010000ULL, .lo = 7}};
	const struct sluice_addr shop = {.hi = 0x20010db8000a0000ULL, .lo = 1};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct sluice_addr chosen = {.hi = 0x20010db8ffff0000ULL};

		chosen.lo =
			(chosen.hi * 0x9e3779b97f4a7c15ULL) ^ (victims[i].hi * 0x9e3779b97f4a7c15ULL) ^ victims[i].lo;
		for (__u32 seed = 0; seed < 1000; seed++)
			assert_true(sluice_flow_hash(&victims[i], &shop, 5555, 80, seed) !=
				sluice_flow_hash(&chosen, &shop, 5555, 80, seed));
	}
}

/* The kernel made it while the gate was in shadow, behind one of the same name that was answered. */
static void a_connection_found_behind_its_cookie_is_the_latest(void **state)
{
	struct gate *gate = *state;
	struct frame frame = frame_syn(false);
	struct run run;
	int fd;

	route_clients();
	frame.sport = 43010;
	assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
	fd = connection_of(gate, &frame);
	assert_true(gate_note(gate, &frame, true, 0));
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SOCKET, "its first data");
	frame.seq += frame.payload_len;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SOCKET, "its second segment");
	give_up(&frame, fd);
}

/* A connection that the server has closed first, so that the kernel waits behind it. `frame` becomes a SYN from the same port. */
static void let_wait(struct gate *gate, bool ip6, struct frame *frame)
{
	int accepted, client = connect_to(gate, ip6, &accepted, frame);
	char byte;

	close(accepted);
	assert_int_equal(recv(client, &byte, 1, 0), 0);
	close(client);
}

static void a_syn_in_time_wait_is_left_to_the_kernel(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (int ip6 = 0; ip6 < 2; ip6++) {
		let_wait(gate, ip6, &frame);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_SOCKET, "SYN of a 4-tuple in TIME_WAIT");
		frame.sport ^= 1;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "its neighbour");
	}
}

/* Nothing that follows will be a first segment: without this, a port in TIME_WAIT would be a way around the rate. */
static void a_syn_in_time_wait_is_charged_as_a_request(void **state)
{
	struct gate *gate = *state;
	struct frame frame, other;
	struct run run;

	for (int ip6 = 0; ip6 < 2; ip6++) {
		gate_reset(gate);
		gate_limit(gate, SLUICE_LIMIT_SOURCE, 1000000000000ULL, 3);
		gate_limit(gate, SLUICE_LIMIT_ANSWER, 1000000000000ULL, 2);
		let_wait(gate, ip6, &frame);
		for (int i = 0; i < 6; i++) {
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, i < 3 ? SLUICE_REASON_SOCKET : SLUICE_REASON_RATE_DROP, "SYN %d", i);
		}
		other = frame;
		other.sport ^= 1;
		assert_int_equal(gate_handshake(gate, &other, request, sizeof(request) - 1), 0);
		gate_run_frame(gate, &other, &run);
		expect_reason(&run, SLUICE_REASON_RATE_DROP, "a request of that source, which is muted by now");
		gate_reset(gate);
		gate_limit(gate, SLUICE_LIMIT_SOURCE, 1000000000000ULL, 1);
		gate->control->flags |= SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_SOURCE);
		for (int i = 0; i < 2; i++) {
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_SOCKET, "the limit only looks, SYN %d", i);
		}
	}
}

static void a_half_open_connection_of_the_kernel_is_a_connection(void **state)
{
	struct gate *gate = *state;
	struct frame frame = frame_syn(false);
	struct run run;

	route_clients();
	frame.sport = 43000;
	write_syncookies("1"); /* so that the kernel keeps a request socket */
	deliver(&frame);
	write_syncookies("2");
	frame.flags = F_ACK;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SOCKET, "ACK to a request socket");
	frame.flags = F_SYN;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SOCKET, "SYN again to a request socket");
	frame.flags = F_RST | F_ACK;
	frame.seq++;
	deliver(&frame); /* the kernel forgets it */
}

static void no_cookie_while_the_accept_queue_is_full(void **state)
{
	struct gate *gate = *state;
	struct frame frame, syn = frame_syn(false), syn6 = frame_syn(true);
	struct run run;
	int client, accepted;

	assert_int_equal(listen(gate->listeners[0], 0), 0);
	client = connect_to(gate, false, NULL, &frame);
	gate_run_frame(gate, &syn, &run);
	expect_reason(&run, SLUICE_REASON_ACCEPT_FULL, "SYN to a full queue");
	gate_run_frame(gate, &syn6, &run);
	expect_reason(&run, SLUICE_REASON_ACCEPT_FULL, "IPv6 SYN to a full queue");
	accepted = accept_in_time(gate->listeners[0]);
	assert_true(accepted >= 0);
	gate_run_frame(gate, &syn, &run);
	expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "SYN after accept");
	assert_int_equal(listen(gate->listeners[0], 128), 0);
	close(client);
	close(accepted);
}

static void no_cookie_when_the_kernel_makes_none(void **state)
{
	struct frame frame = frame_syn(false), frame6 = frame_syn(true);
	struct run run;

	for (int value = 0; value < 2; value++) {
		write_syncookies(value ? "1" : "0");
		gate_run_frame(*state, &frame, &run);
		expect_reason(&run, SLUICE_REASON_ACCEPT_FULL, "tcp_syncookies = %d", value);
		gate_run_frame(*state, &frame6, &run);
		expect_reason(&run, SLUICE_REASON_ACCEPT_FULL, "tcp_syncookies = %d", value);
	}
	write_syncookies("2");
	gate_run_frame(*state, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "tcp_syncookies = 2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(a_syn_gets_a_cookie_and_never_more_bytes_than_it_had),
		gate_test(the_mss_offered_is_that_of_the_interface),
		gate_test(a_syn_at_the_end_of_the_sequence_space_is_acknowledged_with_zero),
		gate_test(cookies_of_two_clients_differ),
		gate_test(a_syn_for_nobody_goes_to_the_kernel),
		gate_test(every_combination_of_flags_without_a_connection_has_its_reason),
		gate_test(leftovers_are_acknowledged_to_their_last_byte),
		gate_test(what_follows_a_first_segment_goes_up_with_it),
		gate_test(nothing_is_acknowledged_before_the_first_segment_has_come),
		gate_test(the_rest_of_a_refused_request_is_acknowledged),
		gate_test(nothing_is_acknowledged_before_the_answer_has_come),
		gate_test(the_answer_to_an_earlier_connection_is_not_taken_for_this_ones),
		gate_test(a_note_is_as_old_as_its_time_says_across_a_wrap),
		gate_test(a_client_that_says_nothing_may_close),
		gate_test(an_answer_that_is_mirrored_comes_to_rest),
		gate_test(no_bare_ack_is_ever_answered),
		gate_test(data_behind_a_good_cookie_is_a_first_segment),
		gate_test(a_service_of_kind_tcp_lets_the_first_data_through_unread),
		gate_test(a_cookie_is_good_for_its_own_connection_alone),
		gate_test(a_keepalive_probe_is_no_first_segment),
		gate_test(the_kernel_makes_the_socket_out_of_the_first_segment),
		gate_test(a_request_repeated_on_its_socket_is_not_charged_again),
		gate_test(segments_of_a_connection_pass_untouched),
		gate_test(a_connection_to_another_address_is_another_connection),
		gate_test(nobody_chooses_an_address_whose_connection_is_anothers),
		gate_test(a_connection_found_behind_its_cookie_is_the_latest),
		gate_test(a_syn_in_time_wait_is_left_to_the_kernel),
		gate_test(a_syn_in_time_wait_is_charged_as_a_request),
		gate_test(a_half_open_connection_of_the_kernel_is_a_connection),
		gate_test(no_cookie_while_the_accept_queue_is_full),
		gate_test(no_cookie_when_the_kernel_makes_none),
	};

	return cmocka_run_group_tests_name("handshake", tests, setup_gate, close_gate);
}
