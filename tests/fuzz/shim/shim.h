/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The kernel as far as the gate's programs need one, over plain memory: maps, the frame in hand, a clock, sockets, SYN cookies.
 *
 * A target sets `shim` and the maps, puts a frame in place, calls the program, and looks at what it did. Each helper does what its kernel
 * counterpart promises and refuses what that refuses; what a program must not do (hold a socket, forget a ring slot, read beside
 * the frame or a map value) ends the process.
 */
#ifndef SLUICE_FUZZ_SHIM_H
#define SLUICE_FUZZ_SHIM_H

#include <linux/bpf.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHIM_FRAME_MAX 4096
#define SHIM_TICK_NS 4000000ULL /* CONFIG_HZ=250 */
#define SHIM_JIFFIES_START \
	0xffff8000u /* the lower half wraps early, as it does in the kernel, five minutes after the boot */

enum shim_cookie { SHIM_COOKIE_HONEST, SHIM_COOKIE_GOOD, SHIM_COOKIE_BAD };

/* What the next run meets. shim_reset() makes it: time 1 s, no socket, honest cookies, 256 bytes of head room, 512 of tail room. */
struct shim_state {
	uint64_t now_ns; /* CLOCK_MONOTONIC, never 0 */
	uint32_t random;
	unsigned socket_state;   /* BPF_TCP_* of the socket that a lookup finds; 0 = none */
	enum shim_cookie cookie; /* what the check of a cookie says */
	int cookie_error;        /* what making one returns, if not 0 */
	unsigned head_room, tail_room;
	unsigned failing_update; /* the n-th map update from now fails with update_error; 0 = none */
	int update_error;
	unsigned meanwhile_update; /* at the n-th map update from now another CPU comes in between; 0 = none */
	void (*meanwhile)(void);
	bool has_short_errors; /* maps return errors as before Linux 6.4 */
	/* seen */
	unsigned sockets_held;
	unsigned records_held;
	unsigned updates_failed; /* as the target wanted it; the target clears it */
	bool cookie_was_good;    /* a check of a cookie has succeeded; the target clears it */
};
extern struct shim_state shim;

/* --- maps ------------------------------------------------------------------------------------------------------------------- */
struct shim_map;

/* `name` may begin with '&'. The same identity gives the same map. */
struct shim_map *shim_map_register(const char *name, const void *identity, uint32_t type, uint32_t max_entries,
	uint32_t key_size, uint32_t value_size);
struct shim_map *shim_map_known(const void *identity); /* both end the process if nobody registered it */
struct shim_map *shim_map_find(const char *name);
struct shim_map *shim_map_at(unsigned index); /* NULL beyond the last */
unsigned shim_map_index(const struct shim_map *map);
uint32_t shim_map_key_size(const struct shim_map *map);
uint32_t shim_map_value_size(const struct shim_map *map);
uint32_t shim_map_max_entries(const struct shim_map *map);
bool shim_map_is_hash(const struct shim_map *map);
/* A hash, or a ring in bytes, that is full earlier; 0 = as declared. */
void shim_map_limit(struct shim_map *map, uint32_t room);
/* Keeps what it has at shim_reset(): for what is filled once and only read. */
void shim_map_keep(struct shim_map *map);
/* The whole memory of an array. */
void *shim_map_memory(struct shim_map *map);
/* Moves an array into a file that a program may mmap(2); pointers into it are stale then. Returns the descriptor. From then on
 * shim_reset() clears all of it.
 */
int shim_map_share(struct shim_map *map);

void *shim_map_lookup(struct shim_map *map, const void *key);
long shim_map_update(struct shim_map *map, const void *key, const void *value, uint64_t flags);
long shim_map_delete(struct shim_map *map, const void *key);
/* Hash: entries in no special order. Array: those that were looked up since the reset. Calls `visit` for each. */
void shim_map_each(struct shim_map *map, void (*visit)(const void *key, void *value, void *arg), void *arg);
unsigned shim_map_count(struct shim_map *map);
/* Hash: the key behind `key` (NULL, or one that is gone: the first). Returns 0 or -ENOENT. */
int shim_map_next_key(struct shim_map *map, const void *key, void *next);
/* A number that changes when an entry does. */
uint64_t shim_map_digest(struct shim_map *map);

void *shim_ring_reserve(struct shim_map *map, uint64_t size, uint64_t flags);
void shim_ring_end(void *record, bool submit);
/* The oldest record that was submitted, up to `size` bytes of it. Returns its size, 0 if there is none. */
size_t shim_ring_take(struct shim_map *map, void *record, size_t size);

/* --- frame and context ------------------------------------------------------------------------------------------------------- */
/* Lies between pages that nobody may touch, its first byte behind one or its last byte before one; the room beside it is poisoned. Each
 * move of an end takes it to another place, so that a pointer from before is a defect that shows.
 */
struct xdp_md *shim_frame_put(const void *bytes, uint32_t length, bool at_end);
uint8_t *shim_frame_bytes(void);
uint32_t shim_frame_length(void);

/* Maps, rings and state as at the start. */
void shim_reset(void);

/* --- helpers ------------------------------------------------------------------------------------------------------------------ */
long shim_xdp_load_bytes(struct xdp_md *ctx, uint32_t offset, void *to, uint32_t length);
long shim_xdp_store_bytes(struct xdp_md *ctx, uint32_t offset, const void *from, uint32_t length);
long shim_xdp_adjust_head(struct xdp_md *ctx, int delta);
long shim_xdp_adjust_tail(struct xdp_md *ctx, int delta);
struct bpf_sock *shim_skc_lookup_tcp(
	void *ctx, struct bpf_sock_tuple *tuple, uint32_t size, uint64_t netns, uint64_t flags);
long shim_sk_release(void *sock);
int64_t shim_tcp_gen_syncookie(void *sock, void *ip, uint32_t ip_length, struct tcphdr *tcp, uint32_t tcp_length);
long shim_tcp_raw_check_syncookie_ipv4(struct iphdr *ip, struct tcphdr *tcp);
long shim_tcp_raw_check_syncookie_ipv6(struct ipv6hdr *ip, struct tcphdr *tcp);
long shim_loop(uint32_t count, void *callback, void *arg, uint64_t flags);

#endif
