/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The timed paths; see paths.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/timefmt.h"
#include "gate.skel.h"
#include "paths.h"

#define STOCK 1000000000ULL
#define SSH_PORT 22
#define BATCH 4096

struct path_state path_state;

/* Refuses the second cell for good, within the bench's time. */
static const struct sluice_limit one_an_hour = {.interval_ns = 3600000000000ULL};

/* --- sources ---------------------------------------------------------------------------------------------------------- */
/* The nth source: distinct for 2^24 of them, and mostly each in a /24 (or /48) of its own, which is the dearer case. */
static void name_source(bool ip6, unsigned index, char *text)
{
	uint32_t n = (index * 0x9e3779u + 0x1234567u) & 0xffffff;

	if (ip6)
		snprintf(text, INET6_ADDRSTRLEN, "2001:db8:%x:%x::%x", n >> 8, (n & 0xff) + 1, index + 1);
	else
		snprintf(text, INET6_ADDRSTRLEN, "10.%u.%u.%u", n >> 16, n >> 8 & 0xff, n & 0xff);
}

static struct frame frame_from(const struct path *path, unsigned index)
{
	static char source[INET6_ADDRSTRLEN];
	struct frame frame = frame_syn(path->ip6);

	name_source(path->ip6, index, source);
	frame.source = source;
	frame.sport = 1024 + index * 7 % 60000;
	frame.seq = index * 0x01000193u;
	return frame;
}

static void use_addr(struct frame *frame, uint32_t addr)
{
	static char source[INET_ADDRSTRLEN];
	struct in_addr in = {.s_addr = htonl(addr)};

	frame->source = inet_ntop(AF_INET, &in, source, sizeof(source));
}

uint64_t path_buyer_of(uint64_t serial)
{
	return serial * 0x9e3779b97f4a7c15ULL;
}

/* --- frames ----------------------------------------------------------------------------------------------------------- */
static void fill_ssh(const struct path *path, unsigned index)
{
	static const char payload[64];
	struct frame frame = frame_from(path, index);

	frame.dport = SSH_PORT;
	frame.flags = F_ACK | F_PSH;
	frame.payload = payload;
	frame.payload_len = sizeof(payload);
	bench_put(path_state.bench, index, &frame);
}

static void fill_syn(const struct path *path, unsigned index)
{
	struct frame frame = frame_from(path, index);

	bench_put(path_state.bench, index, &frame);
}

static void fill_denied(const struct path *path, unsigned index)
{
	struct frame frame = frame_from(path, index);

	use_addr(&frame, deny_listed(&path_state.deny));
	bench_put(path_state.bench, index, &frame);
}

/* The shortest way on for a source that is on no list: no flag at all is dropped right after the lists. */
static void fill_unlisted(const struct path *path, unsigned index)
{
	struct frame frame = frame_from(path, index);

	use_addr(&frame, deny_unlisted(&path_state.deny));
	frame.flags = 0;
	bench_put(path_state.bench, index, &frame);
}

static void fill_bare_ack(const struct path *path, unsigned index)
{
	struct frame frame = frame_from(path, index);

	frame.flags = F_ACK;
	frame.ack = index;
	frame.tcp_option_bytes = 0;
	bench_put(path_state.bench, index, &frame);
}

static void fill_leftover_fin(const struct path *path, unsigned index)
{
	struct frame frame = frame_from(path, index);

	frame.flags = F_ACK | F_FIN;
	frame.ack = index;
	frame.tcp_option_bytes = 0;
	while (!gate_note(&path_state.bench->gate, &frame, true, 0)) /* the bench is of those that have a slot */
		frame.sport++;
	bench_put(path_state.bench, index, &frame);
}

static void fill_leftover_data(const struct path *path, unsigned index)
{
	static const char payload[100];
	struct frame frame = frame_from(path, index);

	frame.flags = F_ACK | F_PSH;
	frame.ack = index;
	frame.tcp_option_bytes = 0;
	frame.payload = payload;
	frame.payload_len = sizeof(payload);
	while (!gate_note(&path_state.bench->gate, &frame, true, 0)) /* the bench is of those that have a slot */
		frame.sport++;
	bench_put(path_state.bench, index, &frame);
}

static void fill_page(const struct path *path, unsigned index)
{
	static const char request[] =
		"GET / HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
	struct frame frame = frame_from(path, index);

	bench_connect(path_state.bench, &frame, request, sizeof(request) - 1);
	bench_put(path_state.bench, index, &frame);
}

/* What a browser sends with fetch(), shortened to the most usual headers. */
static unsigned browser_request(const char *token, char *out, unsigned size)
{
	return snprintf(out, size,
		"POST /v1/orders/%s HTTP/1.1\r\nHost: shop.example:8080\r\n"
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: */*\r\n"
		"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nReferer: http://shop.example:8080/\r\n"
		"Origin: http://shop.example:8080\r\nConnection: keep-alive\r\nSec-Fetch-Mode: cors\r\nContent-Length: 0\r\n\r\n",
		token);
}

static void fill_token(const struct path *path, unsigned index, bool is_forged)
{
	struct frame frame = frame_from(path, index);
	uint64_t serial = path_state.serial + index;
	struct sluice_token token = gate_token(serial, path_buyer_of(serial));
	char text[SLUICE_TOKEN_TEXT + 1], request[FRAME_MAX];
	unsigned length;

	gate_token_text(&path_state.bench->gate, &token, text);
	if (is_forged)
		text[SLUICE_TOKEN_TEXT - 1] = text[SLUICE_TOKEN_TEXT - 1] == 'A' ? 'B' : 'A';
	if (path->form == FORM_BROWSER)
		length = browser_request(text, request, sizeof(request));
	else
		length = gate_order_request(text, request, sizeof(request));
	bench_connect(path_state.bench, &frame, request, length);
	bench_put(path_state.bench, index, &frame);
}

static void fill_order(const struct path *path, unsigned index)
{
	fill_token(path, index, false);
}

static void fill_forged(const struct path *path, unsigned index)
{
	fill_token(path, index, true);
}

/* A real connection over loopback, and a data segment of it. */
static void fill_connected(const struct path *path, unsigned index)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(GATE_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in own;
	socklen_t length = sizeof(own);
	struct frame frame = frame_from(path, index);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (client < 0 || connect(client, (struct sockaddr *)&to, sizeof(to)) ||
		getsockname(client, (struct sockaddr *)&own, &length))
		bench_die("cannot connect over loopback: %s", strerror(errno));
	path_state.peers[0] = client;
	path_state.peers[1] = accept(path_state.bench->gate.listeners[0], NULL, NULL);
	frame.source = "127.0.0.1";
	frame.sport = ntohs(own.sin_port);
	frame.flags = F_ACK | F_PSH;
	frame.tcp_option_bytes = 0;
	frame.payload = "GET /";
	frame.payload_len = 5;
	bench_put(path_state.bench, index, &frame);
}

/* --- state ------------------------------------------------------------------------------------------------------------ */
static void set_stock(uint64_t units)
{
	__atomic_store_n(&path_state.bench->gate.stock[GATE_SALE].free, units, __ATOMIC_SEQ_CST);
}

static void prepare_stock(const struct path *path)
{
	(void)path;
	set_stock(STOCK);
}

static void prepare_sold_out(const struct path *path)
{
	(void)path;
	set_stock(0);
}

static void prepare_over_rate(const struct path *path)
{
	(void)path;
	bench_limits(path_state.bench, &one_an_hour, &one_an_hour);
}

static void prepare_429(const struct path *path)
{
	(void)path;
	bench_limits(path_state.bench, &one_an_hour, &bench_generous);
}

static int ignore_record(void *context, void *data, size_t size)
{
	(void)context;
	(void)data;
	(void)size;
	return 0;
}

static void clear_map(int fd)
{
	static char keys[BATCH * sizeof(struct sluice_buyer_key)], values[BATCH * sizeof(struct sluice_admission)];
	__u32 at = 0, *from = NULL;
	int err = 0;

	while (!err) {
		__u32 count = BATCH;

		err = bpf_map_lookup_and_delete_batch(fd, from, &at, keys, values, &count, NULL);
		from = &at;
	}
	if (err != -ENOENT)
		bench_die("cannot clear a map: %s", strerror(-err));
}

/* What these frames' orders left in the maps. Nothing else is touched, so that the caches stay as the gate left them. */
static void remove_orders(struct gate_bpf *skel, unsigned first, unsigned used)
{
	static struct sluice_buyer_key buyers[BATCH];
	static __u64 serials[BATCH];
	__u32 count = used;

	if (used > BATCH)
		bench_die("%u orders in a round", used);
	for (unsigned i = 0; i < used; i++) {
		serials[i] = path_state.serial + first + i;
		buyers[i] = (struct sluice_buyer_key){.buyer = path_buyer_of(serials[i]), .sale = GATE_SALE};
	}
	if (bpf_map_delete_batch(bpf_map__fd(skel->maps.admissions), serials, &count, NULL))
		bench_die("cannot remove admissions: %s", strerror(errno));
	count = used;
	if (bpf_map_delete_batch(bpf_map__fd(skel->maps.buyers), buyers, &count, NULL))
		bench_die("cannot remove buyers: %s", strerror(errno));
}

/* No order was ever made; of several parts that are undone one after another, the last makes it so. */
static void reset_orders(struct bench *bench, unsigned round, unsigned first, unsigned used)
{
	struct gate_bpf *skel = bench->gate.skel;

	uint64_t units = __atomic_load_n(&bench->gate.stock[GATE_SALE].free, __ATOMIC_SEQ_CST);

	if (round && units != STOCK) {
		remove_orders(skel, first, used);
		set_stock(units + used);
	} else if (!round) {
		clear_map(bpf_map__fd(skel->maps.admissions));
		clear_map(bpf_map__fd(skel->maps.buyers));
		set_stock(STOCK);
	}
	if (ring_buffer__consume(path_state.ring) < 0)
		bench_die("cannot drain the ring");
	bench->gate.control->in_flight = 0;
}

void path_flood_rates(struct bench *bench)
{
	struct gate *gate = &bench->gate;
	__u64 now = time_mono_ns();

	for (unsigned i = 0; i < gate->rate_sets; i++)
		for (unsigned way = 0; way < SLUICE_RATE_WAYS; way++)
			gate->rates[i].way[way] =
				(struct sluice_rate){.name = 1ULL << 61 | path_state.junk++, .tat = now};
}

static void reset_rates(struct bench *bench, unsigned round, unsigned first, unsigned used)
{
	(void)round;
	(void)first;
	(void)used;
	path_flood_rates(bench);
}

/* No order was ever made, and nobody was ever seen: the table of rates is full of others. */
static void reset_strangers(struct bench *bench, unsigned round, unsigned first, unsigned used)
{
	reset_orders(bench, round, first, used);
	path_flood_rates(bench);
}

/* --- the list --------------------------------------------------------------------------------------------------------- */
/* clang-format off */
const struct path bench_paths[] = {
	{.id = "unprotected", .text = "unprotected traffic (ssh) passes", .target_ns = 40, .reason = SLUICE_REASON_UNPROTECTED,
		.is_unprotected = true, .frames = PATH_FRAMES, .fill = fill_ssh},
	{.id = "unprotected_ip6", .text = "the same over IPv6", .target_ns = 40, .reason = SLUICE_REASON_UNPROTECTED,
		.is_unprotected = true, .ip6 = true, .frames = PATH_FRAMES, .fill = fill_ssh},
	{.id = "syn", .text = "SYN answered", .target_ns = 350, .reason = SLUICE_REASON_SYN_COOKIE, .frames = PATH_FRAMES,
		.fill = fill_syn},
	{.id = "syn_ip6", .text = "SYN answered, IPv6", .target_ns = 350, .reason = SLUICE_REASON_SYN_COOKIE, .ip6 = true,
		.frames = PATH_FRAMES, .fill = fill_syn},
	{.id = "bare_ack", .text = "bare ACK swallowed", .reason = SLUICE_REASON_BARE_ACK, .frames = PATH_FRAMES,
		.fill = fill_bare_ack},
	{.id = "connected", .text = "data of a connection that the kernel has", .reason = SLUICE_REASON_SOCKET, .frames = 1,
		.fill = fill_connected},
	{.id = "leftover_fin", .text = "leftover ACK: FIN of a refused client", .target_ns = 150, .reason = SLUICE_REASON_LEFTOVER,
		.frames = PATH_FRAMES, .fill = fill_leftover_fin},
	{.id = "leftover_data", .text = "leftover ACK: 100 bytes of a refused client", .target_ns = 150,
		.reason = SLUICE_REASON_LEFTOVER, .frames = PATH_FRAMES, .fill = fill_leftover_data},
	{.id = "page", .text = "page request passes", .reason = SLUICE_REASON_REQUEST, .frames = PATH_FRAMES, .warm = 1,
		.fill = fill_page},
	{.id = "rate_answered", .text = "over the rate, answered 429", .reason = SLUICE_REASON_RATE_SOURCE, .frames = PATH_FRAMES,
		.warm = 2, .fill = fill_page, .prepare = prepare_429},
	{.id = "over_rate", .text = "over-rate drop", .target_ns = 110, .reason = SLUICE_REASON_RATE_DROP, .frames = PATH_FRAMES_OVER_RATE, .warm = 3,
		.fill = fill_page, .prepare = prepare_over_rate},
	{.id = "forged", .text = "forged token answered 401 (browser)", .target_ns = 500, .reason = SLUICE_REASON_TOKEN_MAC,
		.frames = PATH_FRAMES, .warm = 1, .form = FORM_BROWSER, .fill = fill_forged},
	{.id = "forged_curl", .text = "forged token answered 401 (curl: frame grows)", .target_ns = 500,
		.reason = SLUICE_REASON_TOKEN_MAC, .frames = PATH_FRAMES, .warm = 1, .fill = fill_forged},
	{.id = "sold_out", .text = "sold out answered (browser)", .target_ns = 500, .reason = SLUICE_REASON_SOLD_OUT,
		.frames = PATH_FRAMES, .warm = 2, .form = FORM_BROWSER, .fill = fill_order, .prepare = prepare_sold_out},
	{.id = "sold_out_curl", .text = "sold out answered (curl: frame grows)", .target_ns = 500, .reason = SLUICE_REASON_SOLD_OUT,
		.frames = PATH_FRAMES, .warm = 2, .fill = fill_order, .prepare = prepare_sold_out},
	{.id = "sold_out_ip6", .text = "sold out answered, IPv6 (curl)", .target_ns = 500, .reason = SLUICE_REASON_SOLD_OUT,
		.ip6 = true, .frames = PATH_FRAMES, .warm = 2, .fill = fill_order, .prepare = prepare_sold_out},
	{.id = "admitted", .text = "admitted", .target_ns = 900, .reason = SLUICE_REASON_ADMITTED, .is_once = true,
		.frames = PATH_FRAMES, .warm = 1, .form = FORM_BROWSER, .fill = fill_order, .prepare = prepare_stock,
		.reset = reset_orders},
	{.id = "admitted_ip6", .text = "admitted, IPv6", .target_ns = 900, .reason = SLUICE_REASON_ADMITTED, .ip6 = true,
		.is_once = true, .frames = PATH_FRAMES, .warm = 1, .form = FORM_CURL, .fill = fill_order, .prepare = prepare_stock,
		.reset = reset_orders},
	{.id = "admitted_again", .text = "admitted again: the same token", .reason = SLUICE_REASON_ADMITTED_AGAIN,
		.frames = PATH_FRAMES, .warm = 1, .form = FORM_BROWSER, .fill = fill_order, .prepare = prepare_stock},
	{.id = "denied_1", .text = "denied, list of 1", .target_ns = 60, .reason = SLUICE_REASON_DENIED, .frames = 1, .deny = 1,
		.fill = fill_denied},
	{.id = "denied_10k", .text = "denied, list of 10,000", .target_ns = 60, .reason = SLUICE_REASON_DENIED,
		.frames = PATH_FRAMES, .deny = 10000, .fill = fill_denied},
	{.id = "unlisted_10k", .text = "not on the list of 10,000: dropped behind it", .reason = SLUICE_REASON_TCP_FLAGS,
		.frames = PATH_FRAMES, .deny = 10000, .fill = fill_unlisted},
	{.id = "denied_1m", .text = "denied, list of 1,000,000", .target_ns = 120, .reason = SLUICE_REASON_DENIED,
		.frames = PATH_FRAMES, .deny = 1000000, .fill = fill_denied},
	{.id = "denied_1m_64k", .text = "the same, from 65,536 sources", .target_ns = 120, .reason = SLUICE_REASON_DENIED,
		.frames = BENCH_FRAMES_MAX, .deny = 1000000, .fill = fill_denied, .is_many_only = true},
	{.id = "unlisted_1m", .text = "not on the list of 1,000,000: dropped behind it", .reason = SLUICE_REASON_TCP_FLAGS,
		.frames = PATH_FRAMES, .deny = 1000000, .fill = fill_unlisted},
	/* From here on the table of rates is full. */
	{.id = "forged_stranger", .text = "forged token, source never seen, rates full", .reason = SLUICE_REASON_TOKEN_MAC,
		.is_once = true, .is_many_only = true, .frames = PATH_FRAMES, .rounds = 9, .form = FORM_BROWSER, .fill = fill_forged, .reset = reset_rates},
	{.id = "admitted_stranger", .text = "admitted, source never seen, rates full", .reason = SLUICE_REASON_ADMITTED,
		.is_once = true, .is_many_only = true, .frames = PATH_FRAMES, .rounds = 9, .form = FORM_BROWSER, .fill = fill_order,
		.prepare = prepare_stock, .reset = reset_strangers},
};
/* clang-format on */
const unsigned bench_path_count = sizeof(bench_paths) / sizeof(bench_paths[0]);

const struct path *path_find(const char *id)
{
	for (unsigned i = 0; i < bench_path_count; i++)
		if (!strcmp(bench_paths[i].id, id))
			return &bench_paths[i];
	bench_die("no path %s", id);
}

void paths_open(struct bench *bench)
{
	struct gate_bpf *skel = bench->gate.skel;

	memset(&path_state, 0, sizeof(path_state));
	path_state.bench = bench;
	path_state.serial = 1;
	path_state.peers[0] = path_state.peers[1] = -1;
	path_state.ring = ring_buffer__new(bpf_map__fd(skel->maps.ring), ignore_record, NULL, NULL);
	if (!path_state.ring)
		bench_die("cannot open the ring: %s", strerror(errno));
	deny_open(&path_state.deny, bpf_map__fd(skel->maps.lists), bpf_map__fd(skel->maps.list_index),
		bpf_map__fd(skel->maps.denials));
}

void paths_close(void)
{
	deny_close(&path_state.deny);
	ring_buffer__free(path_state.ring);
	for (int i = 0; i < 2; i++)
		if (path_state.peers[i] >= 0)
			close(path_state.peers[i]);
}

void path_prepare(const struct path *path)
{
	struct bench *bench = path_state.bench;

	bench_limits(bench, &bench_generous, &bench_generous);
	if (path->deny)
		deny_grow(&path_state.deny, path->deny);
	path_state.serial += BENCH_FRAMES_MAX;
	for (unsigned i = 0; i < path->frames; i++)
		path->fill(path, i);
	if (path->prepare)
		path->prepare(path);
}
