/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The differential test's stage: opened once, swept before each sequence, and the kernel's part of it (sockets, cookies). */
#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/addr.h"
#include "common/answers.h"
#include "common/lists.h"
#include "common/maps.h"
#include "common/timefmt.h"
#include "gate.skel.h"
#include "model_run.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define ADMISSIONS 30
#define BUYERS 20
#define RING_BYTES 4096
#define RATE_SETS 64
#define STOCK 20
#define RATE_SEED 0x5eed
#define OPEN_PORT 31000
#define WAITING_PORT 31001
#define WAITS_NS (30 * SECOND_NS) /* of the 60 s that the kernel keeps a connection in TIME_WAIT */

static void die(const char *what)
{
	fprintf(stderr, "cannot test against the model: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- the kernel's part ---------------------------------------------------------------------------------------------------- */
static int listen_on(const char *address, unsigned port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1 || bind(fd, (struct sockaddr *)&to, sizeof(to)) ||
		listen(fd, 128))
		die("a listener");
	return fd;
}

/* A connection over loopback from a port of our choice; the model hears of it. Returns the client's end. */
static int connect_from(struct arena *arena, bool ip6, unsigned sport, unsigned index)
{
	struct sockaddr_in6 from = {.sin6_family = AF_INET6,
				    .sin6_port = htons(sport),
				    .sin6_addr = IN6ADDR_LOOPBACK_INIT},
			    to = from;
	struct sockaddr_in from4 = {.sin_family = AF_INET,
				   .sin_port = htons(sport),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
			   to4 = from4;
	int fd = socket(ip6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	struct model_socket *known = &arena->model.sockets[index];
	struct sluice_addr loopback;

	to.sin6_port = to4.sin_port = htons(GATE_PORT);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
		bind(fd, ip6 ? (struct sockaddr *)&from : (struct sockaddr *)&from4,
			ip6 ? sizeof(from) : sizeof(from4)) ||
		connect(fd, ip6 ? (struct sockaddr *)&to : (struct sockaddr *)&to4, ip6 ? sizeof(to) : sizeof(to4)))
		die("a connection over loopback");
	if (addr_parse(ip6 ? "::1" : "127.0.0.1", &loopback))
		die("loopback");
	known->source = known->destination = model_addr_of(&loopback);
	known->sport = sport;
	known->dport = GATE_PORT;
	if (index >= arena->model.socket_count)
		arena->model.socket_count = index + 1;
	return fd;
}

/* Each time from the same ports: the kernel makes the next connection out of the one that waits, so that none is left over that the model does not
 * know.
 */
void arena_connect(struct arena *arena)
{
	static bool open;

	for (int ip6 = 0; ip6 < 2; ip6++) {
		char byte;
		int client, accepted;

		if (!open) { /* these two stay */
			connect_from(arena, ip6, OPEN_PORT, ip6);
			if (accept(arena->gate.listeners[0], NULL, NULL) < 0)
				die("accept");
		}
		client = connect_from(arena, ip6, WAITING_PORT, 2 + ip6);
		accepted = accept(arena->gate.listeners[0], NULL, NULL);
		if (accepted < 0)
			die("accept");
		close(accepted); /* who closes first waits */
		if (recv(client, &byte, 1, 0) != 0)
			die("the end of a connection");
		close(client);
		arena->model.sockets[2 + ip6].waits = true;
	}
	open = true;
	arena->waits_until = time_mono_ns() + WAITS_NS;
}

static void write_syncookies(const char *value)
{
	int fd = open("/proc/sys/net/ipv4/tcp_syncookies", O_WRONLY);

	if (fd < 0 || write(fd, value, 1) != 1)
		die("net.ipv4.tcp_syncookies");
	close(fd);
}

/* Somebody waits in an accept queue that has room for one. */
static void fill_queue(struct arena *arena)
{
	static unsigned sport = 40000;

	if (listen(arena->gate.listeners[0], 0))
		die("listen");
	arena->queued = connect_from(arena, false, sport++, 4);
	if (sport > 49000)
		sport = 40000;
}

static void empty_queue(struct arena *arena)
{
	struct linger now = {.l_onoff = 1};
	int accepted;

	if (arena->queued < 0)
		return;
	accepted = accept(arena->gate.listeners[0], NULL, NULL);
	if (accepted < 0 || setsockopt(accepted, SOL_SOCKET, SO_LINGER, &now, sizeof(now)))
		die("accept");
	close(accepted); /* with a RST: nothing is left of it */
	close(arena->queued);
	arena->queued = -1;
	arena->model.socket_count = 4;
	if (listen(arena->gate.listeners[0], 128))
		die("listen");
}

void arena_cookies(struct arena *arena, struct dice *dice)
{
	bool were_made = arena->model.cookies_made;

	empty_queue(arena);
	if (!were_made)
		write_syncookies("2");
	arena->model.queue_full = false;
	arena->model.cookies_made = true;
	if (were_made && dice_once_in(dice, 3)) {
		fill_queue(arena);
		arena->model.queue_full = true;
	} else if (were_made) {
		write_syncookies(dice_once_in(dice, 2) ? "1" : "0");
		arena->model.cookies_made = false;
	}
}

/* --- the SYN budget's slots ----------------------------------------------------------------------------------------------- */
static void read_budget(struct arena *arena, __u64 *tats)
{
	static __u32 keys[SLUICE_SYN_SLOTS];
	__u32 count = SLUICE_SYN_SLOTS, next;
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	if (bpf_map_lookup_batch(
		    bpf_map__fd(arena->gate.skel->maps.syn_budget), NULL, &next, keys, tats, &count, &opts) &&
		errno != ENOENT)
		die("the SYN budget");
}

static struct model_addr prefix_of(const char *source)
{
	struct sluice_addr addr;
	struct model_addr prefix;

	if (addr_parse(source, &addr))
		die(source);
	prefix = model_addr_of(&addr);
	if (model_addr_is_ip4(&prefix))
		prefix.byte[15] = 0;
	else
		memset(prefix.byte + 6, 0, 10);
	return prefix;
}

/* Each prefix must have one to itself, or the model could not tell whose charge it is. */
void arena_find_slots(struct arena *arena)
{
	static __u64 before[SLUICE_SYN_SLOTS], after[SLUICE_SYN_SLOTS];

	gate_reset(&arena->gate);
	gate_limit(&arena->gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 1);
	read_budget(arena, before);
	for (unsigned flow = 0; flow < SEQUENCE_FLOWS; flow++) {
		struct frame frame = frame_syn(flow % 2);
		struct model_addr prefix = prefix_of(arena_source(flow));
		unsigned known = 0, slot = 0;
		struct run run;

		while (known < arena->slot_count && memcmp(&arena->slots[known].prefix, &prefix, sizeof(prefix)) != 0)
			known++;
		if (known < arena->slot_count)
			continue;
		frame.source = arena_source(flow);
		gate_run_frame(&arena->gate, &frame, &run);
		read_budget(arena, after);
		while (slot < SLUICE_SYN_SLOTS && before[slot] == after[slot])
			slot++;
		if (run.reason != SLUICE_REASON_SYN_COOKIE || slot == SLUICE_SYN_SLOTS) {
			fprintf(stderr,
				"cannot test against the model: the prefix of %s has no SYN budget of its own (%s)\n",
				arena_source(flow), reason_label(run.reason));
			exit(1);
		}
		arena->slots[known] = (struct arena_slot){.prefix = prefix, .slot = slot};
		arena->slot_count++;
		memcpy(before, after, sizeof(before));
	}
	gate_reset(&arena->gate);
}

/* --- before each sequence ------------------------------------------------------------------------------------------------- */
static void sweep_hash(int fd)
{
	uint8_t key[64];

	while (!bpf_map_get_next_key(fd, NULL, key))
		if (bpf_map_delete_elem(fd, key))
			die("emptying a map");
}

/* Of the second bank. */
static void forget_homes(struct arena *arena)
{
	static const struct sluice_answer_bytes none;

	for (__u32 node = 0; node < MODEL_HOMES; node++) {
		__u32 place = SLUICE_HOMES + node;

		if (bpf_map_update_elem(bpf_map__fd(arena->gate.skel->maps.homes), &place, &none, 0))
			die("homes");
		arena->model.homes[1][node] = none;
	}
}

/* Only what the sequence before can have touched: a look at everything would take longer than the sequence. */
static void sweep(struct arena *arena)
{
	struct gate *gate = &arena->gate;
	struct model *model = &arena->model;
	static const struct sluice_answer_bytes none;
	__u64 zero = 0;

	for (uint64_t i = 0; i < model->recent_count; i++)
		gate->recent[model->recent[i].slot] = 0;
	for (unsigned i = 0; gate->syn_limited && i < arena->slot_count; i++)
		if (bpf_map_update_elem(bpf_map__fd(gate->skel->maps.syn_budget), &arena->slots[i].slot, &zero, 0))
			die("the SYN budget");
	gate->syn_limited = false;
	sweep_hash(bpf_map__fd(gate->skel->maps.admissions));
	sweep_hash(bpf_map__fd(gate->skel->maps.buyers));
	memset(gate->rates, 0, gate->rate_sets * sizeof(*gate->rates));
	while (model->listed_count)
		arena_list_remove(arena, model->listed_count - 1);
	for (__u32 code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		__u32 row = SLUICE_ANSWER_COUNT + code;

		if (arena->dirty_answers[code] &&
			bpf_map_update_elem(bpf_map__fd(gate->skel->maps.answers), &row, &none, 0))
			die("answers");
		if (arena->dirty_answers[code] && code == SLUICE_ANSWER_WRONG_NODE)
			forget_homes(arena);
		arena->dirty_answers[code] = false;
		model->answers[1][code] = none;
	}
	arena_drain(arena);
	ring_buffer__consume(arena->events);
	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		if (model->limits[id].interval_ns)
			arena_put_limit(arena, id, 0, 1);
	gate->syn_limited = false;
	if (!model->cookies_made || model->queue_full) {
		struct dice dice = dice_of(0);

		arena_cookies(arena, &dice);
	}
}

static struct model_sale open_sale(uint64_t slot)
{
	return (struct model_sale){.slot = slot,
		.id = slot,
		.opens = (ARENA_START_S - 10) * SECOND_NS,
		.ends = (ARENA_START_S + 3600) * SECOND_NS,
		.per_buyer = slot == GATE_SALE ? 2 : 1,
		.free = STOCK};
}

void arena_reset(struct arena *arena, uint64_t seed)
{
	struct model *model = &arena->model;
	uint64_t now = time_mono_ns();
	struct dice dice = dice_of(seed);

	sweep(arena);
	if (now > arena->waits_until)
		arena_connect(arena);
	memset(arena->flows, 0, sizeof(arena->flows));
	model->cookie_count = 0;
	model->bucket_count = model->prefix_count = model->recent_count = model->admission_count = model->buyer_count =
		0;
	model->syn_global_tat = model->in_flight = model->ring_used = 0;
	arena->expected_count = 0;
	model->orders_open = model->grows_head = model->grows_tail = true;
	model->deny_all = model->shadow_all = model->shadow_deny = model->shadow_pace = false;
	memset(model->shadow_limit, 0, sizeof(model->shadow_limit));
	model->banks = 0;
	model->node = dice_below(&dice, 2);
	model->rate_mask = RATE_SETS - 1;
	model->mss4 = 1460;
	model->mss6 = 1440;
	model->backlog_max = 0;
	model->heartbeat = now + 3 * HOUR_NS;
	model->wall_offset = ARENA_START_S * SECOND_NS - now;
	arena->watched = !dice_once_in(&dice, 4);
	arena_put_control(arena);
	model->sales[0] = open_sale(GATE_SALE);
	model->sales[1] = open_sale(8);
	model->sale_count = 2;
	for (int i = 0; i < 2; i++) {
		arena->put_in[i] = STOCK;
		arena_put_sale(arena, &model->sales[i]);
	}
	arena_put_key(arena, 0, (struct sluice_key){0});
	arena_put_key(arena, 1,
		(struct sluice_key){.k0 = 0x0706050403020100ULL, .k1 = 0x0f0e0d0c0b0a0908ULL, .id = 1, .valid = 1});
}

/* --- once ----------------------------------------------------------------------------------------------------------------- */
static int take_event(void *arg, void *data, size_t size)
{
	struct arena *arena = arg;
	const struct sluice_event *event = data;

	if (size != sizeof(*event))
		die("an event of another size");
	arena->event_mono = event->mono;
	arena->event = *event;
	return 0;
}

static int take_record(void *arg, void *data, size_t size)
{
	struct arena *arena = arg;

	if (size != sizeof(struct sluice_admitted))
		die("a record of another size");
	if (arena->drained < MODEL_ADMISSIONS)
		memcpy(&arena->drained_records[arena->drained], data, size);
	arena->drained++;
	return 0;
}

static void set_services(struct arena *arena)
{
	static const uint16_t ports[] = {GATE_PORT, GATE_TCP_PORT, GATE_DEAD_PORT, ARENA_NAMED_PORT};
	struct sluice_addr named;

	if (addr_parse(ARENA_NAMED_ADDRESS, &named))
		die(ARENA_NAMED_ADDRESS);
	for (int i = 0; i < 4; i++)
		arena->model.services[i] =
			(struct model_service){.any = i != 3, .port = ports[i], .tcp = i == 1, .listened = i != 2};
	arena->model.services[3].addr = model_addr_of(&named);
	arena->model.service_count = 4;
	gate_add_service(&arena->gate, 3, ARENA_NAMED_ADDRESS, ARENA_NAMED_PORT, SLUICE_SERVICE_SALE);
	arena->named_listener = listen_on(ARENA_NAMED_ADDRESS, ARENA_NAMED_PORT);
}

/* Two nodes have an address; that of a third, and the second bank, are empty at first. */
static void name_homes(struct arena *arena)
{
	for (__u32 node = 1; node < MODEL_HOMES - 1; node++) {
		gate_home(&arena->gate, node, node == 1 ? "https://shop1.example" : "http://[2001:db8::2]:8080");
		if (bpf_map_lookup_elem(bpf_map__fd(arena->gate.skel->maps.homes), &node, &arena->model.homes[0][node]))
			die("homes");
	}
}

void arena_open(struct arena *arena)
{
	struct sluice_watch watch = {.reasons = ~0ULL, .until_mono = ~0ULL, .threshold = ~0U};
	struct timespec tick;
	__u32 zero = 0;

	memset(arena, 0, sizeof(*arena));
	gate_open(&arena->gate,
		&(struct gate_sizes){
			.admissions = ADMISSIONS, .buyers = BUYERS, .ring_bytes = RING_BYTES, .rate_sets = RATE_SETS});
	arena->lists = lists_open(bpf_map__fd(arena->gate.skel->maps.lists),
		bpf_map__fd(arena->gate.skel->maps.list_index), bpf_map__fd(arena->gate.skel->maps.denials));
	arena->events = ring_buffer__new(bpf_map__fd(arena->gate.skel->maps.events), take_event, arena, NULL);
	arena->ring = ring_buffer__new(bpf_map__fd(arena->gate.skel->maps.ring), take_record, arena, NULL);
	if (!arena->lists || !arena->events || !arena->ring ||
		bpf_map_update_elem(bpf_map__fd(arena->gate.skel->maps.watch), &zero, &watch, 0))
		die("lists, rings and watch");
	for (__u32 code = 1; code < SLUICE_ANSWER_COUNT; code++)
		if (bpf_map_lookup_elem(
			    bpf_map__fd(arena->gate.skel->maps.answers), &code, &arena->model.answers[0][code]))
			die("answers");
	arena->model.cookies_made = true;
	arena->model.rate_seed = RATE_SEED;
	arena->model.admissions_max = ADMISSIONS;
	arena->model.buyers_max = BUYERS;
	arena->model.ring_bytes = RING_BYTES;
	arena->queued = -1;
	if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick))
		die("the timer's tick");
	arena->model.tick_ns = tick.tv_nsec;
	set_services(arena);
	arena_find_slots(arena);
	name_homes(arena);
	arena_connect(arena);
	arena_count_all(arena); /* what was counted up to here is not ours */
}

void arena_close(struct arena *arena)
{
	ring_buffer__free(arena->events);
	ring_buffer__free(arena->ring);
	lists_close(arena->lists);
	close(arena->named_listener);
	gate_close(&arena->gate);
}
