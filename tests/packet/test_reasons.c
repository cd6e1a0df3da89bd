/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every reason of sluice/reasons.h can be produced: one trigger for each, and a reason without a trigger fails the test. The
 * other programs say what each reason must and must not catch; this one says that none of them is only a name.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/lists.h"
#include "common/timefmt.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define RACE_SECONDS 20
#define RACE_BATCH 1000
#define ADMISSIONS 128
#define BUYERS 64
#define RING_BYTES 4096
#define SOURCE4_MAPPED (0xffff00000000ULL | 0xc000020a) /* 192.0.2.10, the client of frame_syn */

static uint16_t next_port(void)
{
	static uint16_t port = 10000;

	return port++;
}

/* --- frames that are wrong by themselves ---------------------------------------------------------------------------------- */
static void run_syn(struct gate *gate, struct run *run, void (*change)(struct frame *frame))
{
	struct frame frame = frame_syn(false);

	frame.sport = next_port();
	if (change)
		change(&frame);
	gate_run_frame(gate, &frame, run);
}

/* A frame of which one byte is another. */
static void run_changed(struct gate *gate, struct run *run, bool ip6, int vlans, unsigned at, uint8_t value)
{
	struct frame frame = frame_syn(ip6);
	uint8_t bytes[FRAME_MAX];
	unsigned length;

	frame.vlans = vlans;
	length = frame_write(&frame, bytes);
	bytes[at] = value;
	gate_run(gate, bytes, length, run);
}

#define FRAME_TRIGGER(name, edit) \
	static void change_##name(struct frame *frame) \
	{ \
		edit; \
	} \
	static void trigger_##name(struct gate *gate, struct run *run) \
	{ \
		run_syn(gate, run, change_##name); \
	}

FRAME_TRIGGER(unprotected, frame->dport = 22)
FRAME_TRIGGER(no_listener, frame->dport = GATE_DEAD_PORT)
FRAME_TRIGGER(vlan_depth, frame->vlans = 3)
FRAME_TRIGGER(ip6_extensions, *frame = frame_syn(true); frame->ip6_extensions = 9)
FRAME_TRIGGER(fragment, frame->fragment = 0x2000)
FRAME_TRIGGER(tcp_flags, frame->flags = 0)
FRAME_TRIGGER(syn_data, frame->payload = "x"; frame->payload_len = 1)
FRAME_TRIGGER(syn_fin, frame->flags = F_SYN | F_FIN)
FRAME_TRIGGER(syn_rst, frame->flags = F_SYN | F_RST)
FRAME_TRIGGER(syn_cookie, frame->flags = F_SYN)
FRAME_TRIGGER(leftover_unknown, frame->flags = F_ACK | F_FIN)

static void run_after(struct gate *gate, struct run *run, bool answered)
{
	struct frame frame = frame_syn(false);

	frame.flags = F_ACK | F_FIN;
	gate_note(gate, &frame, answered, 0);
	gate_run_frame(gate, &frame, run);
}

static void trigger_leftover(struct gate *gate, struct run *run)
{
	run_after(gate, run, true);
}

static void trigger_follows(struct gate *gate, struct run *run)
{
	run_after(gate, run, false);
}

FRAME_TRIGGER(bare_ack, frame->flags = F_ACK)
FRAME_TRIGGER(rst_stray, frame->flags = F_RST)

static void trigger_eth_malformed(struct gate *gate, struct run *run)
{
	struct frame frame = frame_syn(false);
	uint8_t bytes[FRAME_MAX];

	frame.vlans = 1;
	frame_write(&frame, bytes);
	gate_run(gate, bytes, 16, run);
}

static void trigger_ip4_malformed(struct gate *gate, struct run *run)
{
	run_changed(gate, run, false, 0, 14, 0x44);
}

static void trigger_ip6_malformed(struct gate *gate, struct run *run)
{
	run_changed(gate, run, true, 0, 14, 0x50);
}

static void trigger_tcp_malformed(struct gate *gate, struct run *run)
{
	run_changed(gate, run, false, 0, 14 + 20 + 12, 0x40);
}

/* --- lists, budgets, sockets ---------------------------------------------------------------------------------------------- */
static void trigger_denied(struct gate *gate, struct run *run)
{
	struct sluice_addr addr = {.lo = SOURCE4_MAPPED};
	struct lists *lists = lists_open(bpf_map__fd(gate->skel->maps.lists), bpf_map__fd(gate->skel->maps.list_index),
		bpf_map__fd(gate->skel->maps.denials));

	assert_non_null(lists);
	assert_int_equal(lists_put(lists, SLUICE_LIST_DENY, &addr, 128, 0, "test"), 0);
	run_syn(gate, run, NULL);
	assert_int_equal(lists_remove(lists, SLUICE_LIST_DENY, &addr, 128), 0);
	lists_close(lists);
}

static void trigger_syn_prefix(struct gate *gate, struct run *run)
{
	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 1);
	run_syn(gate, run, NULL);
	run_syn(gate, run, NULL);
}

static void trigger_syn_global(struct gate *gate, struct run *run)
{
	gate_limit(gate, SLUICE_LIMIT_SYN_GLOBAL, HOUR_NS, 1);
	run_syn(gate, run, NULL);
	run_syn(gate, run, NULL);
}

/* A connection over loopback that nobody has accepted. */
static int connect_to_gate(uint16_t *port)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(GATE_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in me;
	socklen_t size = sizeof(me);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&me, &size), 0);
	*port = ntohs(me.sin_port);
	return fd;
}

static void trigger_socket(struct gate *gate, struct run *run)
{
	struct frame frame = frame_syn(false);
	int fd = connect_to_gate(&frame.sport);

	frame.source = "127.0.0.1";
	frame.flags = F_ACK;
	gate_run_frame(gate, &frame, run);
	close(accept(gate->listeners[0], NULL, NULL));
	close(fd);
}

static void trigger_accept_full(struct gate *gate, struct run *run)
{
	uint16_t port;
	int fd;

	assert_int_equal(listen(gate->listeners[0], 0), 0);
	fd = connect_to_gate(&port);
	run_syn(gate, run, NULL);
	close(accept(gate->listeners[0], NULL, NULL));
	close(fd);
	assert_int_equal(listen(gate->listeners[0], 128), 0);
}

static atomic_bool race_is_over;

static void pin_to(int nth)
{
	cpu_set_t allowed, one;
	int cpu = -1;

	sched_getaffinity(getpid(), sizeof(allowed), &allowed);
	for (; nth >= 0; nth--)
		do
			cpu = (cpu + 1) % CPU_SETSIZE;
		while (!CPU_ISSET(cpu, &allowed));
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
}

static void *close_and_open(void *arg)
{
	struct gate *gate = arg;

	pin_to(1);
	while (!atomic_load(&race_is_over)) {
		shutdown(gate->listeners[0], SHUT_RDWR);
		listen(gate->listeners[0], 128);
	}
	return NULL;
}

static void *send_syns(void *arg)
{
	struct gate *gate = arg;
	struct frame frame = frame_syn(false);
	uint64_t end = time_mono_ns() + RACE_SECONDS * SECOND_NS,
		 before = gate_counted(gate, SLUICE_REASON_COOKIE_FAILED);
	uint8_t bytes[FRAME_MAX];
	unsigned length = frame_write(&frame, bytes);
	struct run run;

	pin_to(0);
	do {
		for (int i = 0; i < RACE_BATCH; i++)
			gate_run_raw(gate, bytes, length, &run);
	} while (gate_counted(gate, SLUICE_REASON_COOKIE_FAILED) == before && time_mono_ns() < end);
	atomic_store(&race_is_over, true);
	return NULL;
}

/* The listener goes away between the lookup and the cookie: it takes a second CPU, and some tries. */
static void trigger_cookie_failed(struct gate *gate, struct run *run)
{
	uint64_t before = gate_counted(gate, SLUICE_REASON_COOKIE_FAILED);
	pthread_t closer, sender;

	atomic_store(&race_is_over, false);
	assert_int_equal(pthread_create(&closer, NULL, close_and_open, gate), 0);
	assert_int_equal(pthread_create(&sender, NULL, send_syns, gate), 0);
	pthread_join(sender, NULL);
	pthread_join(closer, NULL);
	assert_int_equal(listen(gate->listeners[0], 128), 0);
	memset(run, 0, sizeof(*run));
	run->action = XDP_DROP;
	run->reason = gate_counted(gate, SLUICE_REASON_COOKIE_FAILED) > before ? SLUICE_REASON_COOKIE_FAILED : -1;
}

/* --- first segments ------------------------------------------------------------------------------------------------------- */
static void run_request(struct gate *gate, struct run *run, uint16_t dport, const char *request)
{
	struct frame frame = frame_syn(false);

	frame.sport = next_port();
	frame.dport = dport;
	assert_int_equal(gate_handshake(gate, &frame, request, strlen(request)), 0);
	gate_run_frame(gate, &frame, run);
}

static void trigger_request(struct gate *gate, struct run *run)
{
	run_request(gate, run, GATE_PORT, "GET / HTTP/1.1\r\n\r\n");
}

static void trigger_request_unread(struct gate *gate, struct run *run)
{
	run_request(gate, run, GATE_PORT, "POST /v1/orders/AAAA");
}

static void trigger_tcp_first(struct gate *gate, struct run *run)
{
	run_request(gate, run, GATE_TCP_PORT, "hello");
}

static void trigger_rate_source(struct gate *gate, struct run *run)
{
	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	trigger_request(gate, run);
	trigger_request(gate, run);
}

static void trigger_rate_prefix(struct gate *gate, struct run *run)
{
	gate_limit(gate, SLUICE_LIMIT_PREFIX, HOUR_NS, 1);
	trigger_request(gate, run);
	trigger_request(gate, run);
}

static void trigger_rate_drop(struct gate *gate, struct run *run)
{
	gate_limit(gate, SLUICE_LIMIT_ANSWER, HOUR_NS, 1);
	trigger_rate_source(gate, run);
	trigger_request(gate, run);
}

static void trigger_answer_failed(struct gate *gate, struct run *run)
{
	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate->control->grow = 0;
	trigger_request(gate, run);
	trigger_request(gate, run);
}

/* --- orders --------------------------------------------------------------------------------------------------------------- */
static void run_order(struct gate *gate, struct run *run, struct sluice_token token)
{
	char text[SLUICE_TOKEN_TEXT + 1];

	gate_token_text(gate, &token, text);
	gate_order(gate, false, next_port(), text, run);
}

#define ORDER_TRIGGER(name, change) \
	static void trigger_##name(struct gate *gate, struct run *run) \
	{ \
		struct sluice_token token = gate_token(1, 1); \
\
		change; \
		run_order(gate, run, token); \
	}

ORDER_TRIGGER(admitted, token.node = 1)
ORDER_TRIGGER(admitted_again, run_order(gate, run, token))
ORDER_TRIGGER(token_form, token.version = 2)
ORDER_TRIGGER(token_key, token.key_id = 2)
ORDER_TRIGGER(token_quantity, token.quantity = 0)
ORDER_TRIGGER(unknown_sale, token.sale = 8)
ORDER_TRIGGER(daemon_away, gate->control->heartbeat_mono = 0)
ORDER_TRIGGER(writer_away, gate->control->flags = 0)
ORDER_TRIGGER(not_open, gate->sales[GATE_SALE].opens_wall = ~0ULL)
ORDER_TRIGGER(paused, gate->sales[GATE_SALE].flags = SLUICE_SALE_PAUSED)
ORDER_TRIGGER(ended, gate->sales[GATE_SALE].flags = SLUICE_SALE_ENDED)
ORDER_TRIGGER(token_expired, token.expires_at_s = 1)
ORDER_TRIGGER(wrong_network, token.network = 1)
ORDER_TRIGGER(sold_out, gate->stock[GATE_SALE].free = 0)
ORDER_TRIGGER(backlog, gate->control->backlog_max = gate->control->in_flight = 1)
ORDER_TRIGGER(token_revoked, gate->sales[GATE_SALE].not_before_s = ~0U)
ORDER_TRIGGER(wrong_node, gate->control->node = 1; token.node = 2)
ORDER_TRIGGER(units_elsewhere, gate->sales[GATE_SALE].flags = SLUICE_SALE_WITHHELD)
ORDER_TRIGGER(buyer_limit, run_order(gate, run, gate_token(2, 1)))

static void trigger_token_mac(struct gate *gate, struct run *run)
{
	struct sluice_token token = gate_token(1, 1);
	char text[SLUICE_TOKEN_TEXT + 1];

	gate_token_text(gate, &token, text);
	text[SLUICE_TOKEN_TEXT - 1] = text[SLUICE_TOKEN_TEXT - 1] == 'A' ? 'B' : 'A';
	gate_order(gate, false, next_port(), text, run);
}

static void trigger_in_progress(struct gate *gate, struct run *run)
{
	struct sluice_admission claim = {.buyer = 1, .sale = GATE_SALE, .state = SLUICE_ADMISSION_CLAIMED};
	__u64 serial = 1;

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.admissions), &serial, &claim, 0), 0);
	run_order(gate, run, gate_token(1, 1));
}

static void trigger_pace(struct gate *gate, struct run *run)
{
	gate->sales[GATE_SALE].pace.interval_ns = HOUR_NS;
	run_order(gate, run, gate_token(1, 1));
	run_order(gate, run, gate_token(2, 2));
}

static void trigger_rate_token(struct gate *gate, struct run *run)
{
	gate_limit(gate, SLUICE_LIMIT_TOKEN, HOUR_NS, 1);
	trigger_backlog(gate, run);
	trigger_backlog(gate, run);
}

static void trigger_shadowed(struct gate *gate, struct run *run)
{
	gate->control->flags |= SLUICE_CONTROL_SHADOW_ALL;
	trigger_bare_ack(gate, run);
}

static void trigger_ring_full(struct gate *gate, struct run *run)
{
	gate->stock[GATE_SALE].free = 1000;
	for (unsigned i = 1; i <= BUYERS; i++)
		run_order(gate, run, gate_token(i, i));
}

static void trigger_admissions_full(struct gate *gate, struct run *run)
{
	struct sluice_admission other = {.sale = 99, .state = SLUICE_ADMISSION_DONE};
	__u64 serial = 1000;

	while (!bpf_map_update_elem(bpf_map__fd(gate->skel->maps.admissions), &serial, &other, BPF_NOEXIST))
		serial++;
	run_order(gate, run, gate_token(1, 1));
}

static void trigger_buyers_full(struct gate *gate, struct run *run)
{
	struct sluice_buyer_key key = {.buyer = 1000};
	struct sluice_buyer none = {0};

	while (!bpf_map_update_elem(bpf_map__fd(gate->skel->maps.buyers), &key, &none, BPF_NOEXIST))
		key.buyer++;
	run_order(gate, run, gate_token(1, 1));
}

/* --- all of them ---------------------------------------------------------------------------------------------------------- */
static void (*const triggers[SLUICE_REASON_COUNT])(struct gate *gate, struct run *run) = {
	[SLUICE_REASON_UNPROTECTED] = trigger_unprotected,
	[SLUICE_REASON_NO_LISTENER] = trigger_no_listener,
	[SLUICE_REASON_SOCKET] = trigger_socket,
	[SLUICE_REASON_REQUEST] = trigger_request,
	[SLUICE_REASON_REQUEST_UNREAD] = trigger_request_unread,
	[SLUICE_REASON_TCP_FIRST] = trigger_tcp_first,
	[SLUICE_REASON_ADMITTED] = trigger_admitted,
	[SLUICE_REASON_ADMITTED_AGAIN] = trigger_admitted_again,
	[SLUICE_REASON_SYN_COOKIE] = trigger_syn_cookie,
	[SLUICE_REASON_LEFTOVER] = trigger_leftover,
	[SLUICE_REASON_LEFTOVER_UNKNOWN] = trigger_leftover_unknown,
	[SLUICE_REASON_FOLLOWS] = trigger_follows,
	[SLUICE_REASON_ETH_MALFORMED] = trigger_eth_malformed,
	[SLUICE_REASON_VLAN_DEPTH] = trigger_vlan_depth,
	[SLUICE_REASON_IP4_MALFORMED] = trigger_ip4_malformed,
	[SLUICE_REASON_IP6_MALFORMED] = trigger_ip6_malformed,
	[SLUICE_REASON_IP6_EXTENSIONS] = trigger_ip6_extensions,
	[SLUICE_REASON_TCP_MALFORMED] = trigger_tcp_malformed,
	[SLUICE_REASON_FRAGMENT] = trigger_fragment,
	[SLUICE_REASON_TCP_FLAGS] = trigger_tcp_flags,
	[SLUICE_REASON_SYN_DATA] = trigger_syn_data,
	[SLUICE_REASON_SYN_FIN] = trigger_syn_fin,
	[SLUICE_REASON_SYN_RST] = trigger_syn_rst,
	[SLUICE_REASON_DENIED] = trigger_denied,
	[SLUICE_REASON_SYN_PREFIX] = trigger_syn_prefix,
	[SLUICE_REASON_SYN_GLOBAL] = trigger_syn_global,
	[SLUICE_REASON_ACCEPT_FULL] = trigger_accept_full,
	[SLUICE_REASON_COOKIE_FAILED] = trigger_cookie_failed,
	[SLUICE_REASON_BARE_ACK] = trigger_bare_ack,
	[SLUICE_REASON_RST_STRAY] = trigger_rst_stray,
	[SLUICE_REASON_RATE_DROP] = trigger_rate_drop,
	[SLUICE_REASON_IN_PROGRESS] = trigger_in_progress,
	[SLUICE_REASON_ANSWER_FAILED] = trigger_answer_failed,
	[SLUICE_REASON_RATE_SOURCE] = trigger_rate_source,
	[SLUICE_REASON_RATE_PREFIX] = trigger_rate_prefix,
	[SLUICE_REASON_TOKEN_FORM] = trigger_token_form,
	[SLUICE_REASON_TOKEN_KEY] = trigger_token_key,
	[SLUICE_REASON_TOKEN_MAC] = trigger_token_mac,
	[SLUICE_REASON_TOKEN_QUANTITY] = trigger_token_quantity,
	[SLUICE_REASON_UNKNOWN_SALE] = trigger_unknown_sale,
	[SLUICE_REASON_DAEMON_AWAY] = trigger_daemon_away,
	[SLUICE_REASON_WRITER_AWAY] = trigger_writer_away,
	[SLUICE_REASON_NOT_OPEN] = trigger_not_open,
	[SLUICE_REASON_PAUSED] = trigger_paused,
	[SLUICE_REASON_ENDED] = trigger_ended,
	[SLUICE_REASON_TOKEN_EXPIRED] = trigger_token_expired,
	[SLUICE_REASON_WRONG_NETWORK] = trigger_wrong_network,
	[SLUICE_REASON_SOLD_OUT] = trigger_sold_out,
	[SLUICE_REASON_PACE] = trigger_pace,
	[SLUICE_REASON_RATE_TOKEN] = trigger_rate_token,
	[SLUICE_REASON_BACKLOG] = trigger_backlog,
	[SLUICE_REASON_RING_FULL] = trigger_ring_full,
	[SLUICE_REASON_ADMISSIONS_FULL] = trigger_admissions_full,
	[SLUICE_REASON_BUYERS_FULL] = trigger_buyers_full,
	[SLUICE_REASON_SHADOWED] = trigger_shadowed,
	[SLUICE_REASON_TOKEN_REVOKED] = trigger_token_revoked,
	[SLUICE_REASON_WRONG_NODE] = trigger_wrong_node,
	[SLUICE_REASON_UNITS_ELSEWHERE] = trigger_units_elsewhere,
	[SLUICE_REASON_BUYER_LIMIT] = trigger_buyer_limit,
};

/* `none` is what no packet may ever have. `contended` is 64 exchanges lost in a row: two CPUs that did nothing else for millions of
 * calls never got there.
 */
static bool is_out_of_reach(int reason)
{
	return reason == SLUICE_REASON_NONE || reason == SLUICE_REASON_CONTENDED;
}

static void every_reason_can_be_produced(void **state)
{
	struct gate *gate = *state;
	struct run run;

	for (int reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		if (is_out_of_reach(reason))
			continue;
		expect(triggers[reason], "%s has no trigger", reason_label(reason));
		if (reason == SLUICE_REASON_COOKIE_FAILED && sysconf(_SC_NPROCESSORS_ONLN) < 2) {
			print_message("           %s needs two CPUs\n", reason_label(reason));
			continue;
		}
		gate_reset(gate);
		triggers[reason](gate, &run);
		expect_reason(&run, reason, "trigger of %s", reason_label(reason));
	}
	assert_int_equal(gate_counted(gate, SLUICE_REASON_NONE), 0);
}

static void reasons_that_answer_have_an_answer_and_no_others(void **state)
{
	(void)state;
	for (int reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		assert_int_equal(
			reason_action(reason) == SLUICE_ACTION_ANSWER, reason_answer(reason) != SLUICE_ANSWER_NONE);
}

static int setup_tiny_gate(void **state)
{
	static struct gate gate;

	gate_open(&gate, &(struct gate_sizes){.admissions = ADMISSIONS, .buyers = BUYERS, .ring_bytes = RING_BYTES});
	*state = &gate;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(every_reason_can_be_produced),
		cmocka_unit_test(reasons_that_answer_have_an_answer_and_no_others),
	};

	return cmocka_run_group_tests_name("reasons", tests, setup_tiny_gate, close_gate);
}
