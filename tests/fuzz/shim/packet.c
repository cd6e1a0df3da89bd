/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The frame in hand, sockets and cookies of the shim.
 *
 * struct xdp_md has 32-bit addresses, so the frame really lies below 4 GiB. Read from kernel 6.1: net/core/filter.c (bpf_xdp_adjust_head,
 * bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_tcp_gen_syncookie, bpf_tcp_raw_check_syncookie_*), kernel/bpf/bpf_iter.c (bpf_loop).
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <sanitizer/asan_interface.h>
#include <string.h>
#include <sys/mman.h>

#include "../check.h"
#include "shim.h"

#define PAGE 4096
#define ARENA_BYTES (2 * SHIM_FRAME_MAX)
#define ARENAS 2
#define LOOP_MAX (1u << 23)
#define COOKIE_MSS 1460

struct shim_state shim;

static struct {
	uint8_t *arena[ARENAS];
	unsigned used; /* index of the arena that has the frame */
	bool at_end;
	struct xdp_md ctx;
} frame;

static void map_arenas(void)
{
	for (unsigned i = 0; i < ARENAS; i++) {
		uint8_t *pages =
			mmap(NULL, ARENA_BYTES + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

		CHECK(pages != MAP_FAILED && !mprotect(pages + PAGE, ARENA_BYTES, PROT_READ | PROT_WRITE),
			"no memory below 4 GiB");
		frame.arena[i] = pages + PAGE;
		ASAN_POISON_MEMORY_REGION(frame.arena[i], ARENA_BYTES);
	}
}

/* Leaves the arena in use and makes room in the other one. */
static uint8_t *frame_place(uint32_t length)
{
	uint8_t *at;

	CHECK(length <= ARENA_BYTES, "a frame of %u bytes", length);
	ASAN_POISON_MEMORY_REGION(frame.arena[frame.used], ARENA_BYTES);
	frame.used = (frame.used + 1) % ARENAS;
	frame.at_end = !frame.at_end;
	at = frame.arena[frame.used] + (frame.at_end ? ARENA_BYTES - length : 0);
	ASAN_UNPOISON_MEMORY_REGION(at, length);
	frame.ctx.data = (uint32_t)(uintptr_t)at;
	frame.ctx.data_end = (uint32_t)(uintptr_t)(at + length);
	frame.ctx.data_meta = frame.ctx.data;
	return at;
}

uint8_t *shim_frame_bytes(void)
{
	return (uint8_t *)(uintptr_t)frame.ctx.data;
}

uint32_t shim_frame_length(void)
{
	return frame.ctx.data_end - frame.ctx.data;
}

struct xdp_md *shim_frame_put(const void *bytes, uint32_t length, bool at_end)
{
	uint8_t *at;

	if (!frame.arena[0])
		map_arenas();
	frame.at_end = !at_end;
	at = frame_place(length);
	if (length)
		memcpy(at, bytes, length);
	return &frame.ctx;
}

/* Moves both ends; bytes that come in are what was there before at the head, zeros at the tail. */
static void frame_move(int head, int tail)
{
	static uint8_t copy[ARENA_BYTES];
	uint32_t length = shim_frame_length(), wanted = (uint32_t)((int)length - head + tail), skip;
	uint8_t *at;

	memcpy(copy, shim_frame_bytes(), length);
	at = frame_place(wanted);
	memset(at, 0, wanted);
	if (head < 0)
		memset(at, 0xa5, (size_t)-head);
	skip = head > 0 ? (uint32_t)head : 0;
	at += head < 0 ? -head : 0;
	wanted -= head < 0 ? (uint32_t)-head : 0;
	memcpy(at, copy + skip, length - skip < wanted ? length - skip : wanted);
}

static void check_context(const struct xdp_md *ctx)
{
	CHECK(ctx == &frame.ctx, "a helper was given another context");
}

long shim_xdp_adjust_head(struct xdp_md *ctx, int delta)
{
	check_context(ctx);
	if (delta < -(int)shim.head_room || delta > (int)shim_frame_length() - ETH_HLEN)
		return -EINVAL;
	shim.head_room = (unsigned)((int)shim.head_room + delta);
	frame_move(delta, 0);
	return 0;
}

long shim_xdp_adjust_tail(struct xdp_md *ctx, int delta)
{
	check_context(ctx);
	if (delta > (int)shim.tail_room || (int)shim_frame_length() + delta < ETH_HLEN)
		return -EINVAL;
	shim.tail_room = (unsigned)((int)shim.tail_room - delta);
	frame_move(0, delta);
	return 0;
}

static bool is_inside(uint32_t offset, uint32_t length)
{
	return offset <= 0xffff && length <= 0xffff && offset + length <= shim_frame_length();
}

long shim_xdp_load_bytes(struct xdp_md *ctx, uint32_t offset, void *to, uint32_t length)
{
	check_context(ctx);
	if (!is_inside(offset, length))
		return -EINVAL;
	memcpy(to, shim_frame_bytes() + offset, length);
	return 0;
}

long shim_xdp_store_bytes(struct xdp_md *ctx, uint32_t offset, const void *from, uint32_t length)
{
	check_context(ctx);
	if (!is_inside(offset, length))
		return -EINVAL;
	memcpy(shim_frame_bytes() + offset, from, length);
	return 0;
}

/* --- sockets ------------------------------------------------------------------------------------------------------------------------ */
static struct bpf_sock sock;

struct bpf_sock *shim_skc_lookup_tcp(
	void *ctx, struct bpf_sock_tuple *tuple, uint32_t size, uint64_t netns, uint64_t flags)
{
	check_context(ctx);
	CHECK(size == sizeof(tuple->ipv4) || size == sizeof(tuple->ipv6), "a tuple of %u bytes", size);
	CHECK(netns == (uint64_t)BPF_F_CURRENT_NETNS && !flags, "lookup in another namespace");
	if (!shim.socket_state)
		return NULL;
	sock.state = shim.socket_state;
	shim.sockets_held++;
	return &sock;
}

long shim_sk_release(void *given)
{
	CHECK(given == &sock && shim.sockets_held, "a socket is released that nobody holds");
	shim.sockets_held--;
	return 0;
}

/* --- cookies ------------------------------------------------------------------------------------------------------------------------ */
static uint32_t mix(uint64_t hash, const void *bytes, size_t count)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < count; i++)
		hash = (hash ^ at[i]) * 0x100000001b3ULL;
	return (uint32_t)(hash >> 24);
}

/* Addresses, ports and the client's first sequence number, as the kernel's; no time in it. */
static uint32_t cookie_of(const void *addresses, size_t count, const struct tcphdr *tcp, uint32_t first_seq)
{
	uint32_t hash = mix(0xcbf29ce484222325ULL, addresses, count);

	hash = mix(hash, tcp, 4);
	return mix(hash, &first_seq, sizeof(first_seq));
}

int64_t shim_tcp_gen_syncookie(void *given, void *ip, uint32_t ip_length, struct tcphdr *tcp, uint32_t tcp_length)
{
	struct tcphdr header;
	uint8_t options[60];
	uint32_t cookie;

	CHECK(given == &sock && shim.sockets_held, "a cookie for a socket that nobody holds");
	if (tcp_length < sizeof(header))
		return -EINVAL;
	CHECK(tcp_length <= sizeof(options), "a TCP header of %u bytes", tcp_length);
	memcpy(options, tcp, tcp_length); /* the kernel reads the options too */
	memcpy(&header, tcp, sizeof(header));
	if (tcp_length != header.doff * 4u || sock.state != BPF_TCP_LISTEN || !header.syn || header.ack || header.fin ||
		header.rst)
		return -EINVAL;
	if (shim.cookie_error)
		return shim.cookie_error;
	if (*(uint8_t *)ip >> 4 == 4 && ip_length >= sizeof(struct iphdr))
		cookie = cookie_of((uint8_t *)ip + 12, 8, &header, __builtin_bswap32(header.seq));
	else if (*(uint8_t *)ip >> 4 == 6 && ip_length >= sizeof(struct ipv6hdr))
		cookie = cookie_of((uint8_t *)ip + 8, 32, &header, __builtin_bswap32(header.seq));
	else
		return -EINVAL;
	return (int64_t)COOKIE_MSS << 32 | cookie;
}

static long check_cookie(const void *addresses, size_t count, const struct tcphdr *tcp)
{
	struct tcphdr header;
	bool good;

	memcpy(&header, tcp, sizeof(header));
	good = __builtin_bswap32(header.ack_seq) - 1 ==
		cookie_of(addresses, count, &header, __builtin_bswap32(header.seq) - 1);
	if (shim.cookie != SHIM_COOKIE_HONEST)
		good = shim.cookie == SHIM_COOKIE_GOOD;
	shim.cookie_was_good |= good;
	return good ? 0 : -EACCES;
}

long shim_tcp_raw_check_syncookie_ipv4(struct iphdr *ip, struct tcphdr *tcp)
{
	return check_cookie((uint8_t *)ip + 12, 8, tcp);
}

long shim_tcp_raw_check_syncookie_ipv6(struct ipv6hdr *ip, struct tcphdr *tcp)
{
	return check_cookie((uint8_t *)ip + 8, 32, tcp);
}

long shim_loop(uint32_t count, void *callback, void *arg, uint64_t flags)
{
	long (*step)(uint64_t index, void *arg);
	uint32_t i;

	memcpy(&step, &callback, sizeof(step));
	if (flags)
		return -EINVAL;
	if (count > LOOP_MAX)
		return -E2BIG;
	for (i = 0; i < count; i++)
		if (step(i, arg))
			return i + 1;
	return i;
}
