/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Stands in for libbpf's <bpf/bpf_helpers.h>, so that the headers of bpf/ compile unchanged into a normal program.
 *
 * A map is what its declaration says: the struct that __uint and __type make carries type, sizes and number of entries in the types
 * of its members, and each use registers it with the shim. So a map that is new in bpf/maps.h costs nothing here.
 */
#ifndef SLUICE_FUZZ_BPF_HELPERS_H
#define SLUICE_FUZZ_BPF_HELPERS_H

#include "shim.h"

#define SEC(name)
#define __uint(name, val) int(*name)[val]
#define __type(name, val) __typeof__(val) *name
#define __noinline __attribute__((noinline))
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define SHIM_UINT(map, member) ((__u32)(sizeof(*(map)->member) / sizeof(int)))

/* A map that a function got as `void *` is known by its address alone, so it must have been used by its name before. */
struct shim_untyped {
	int (*type)[1];
	int (*max_entries)[1];
	char *key;
	char *value;
};
#define SHIM_IS_UNTYPED(map) __builtin_types_compatible_p(__typeof__(map), void *)
#define SHIM_TYPED(map) \
	((__typeof__(__builtin_choose_expr(SHIM_IS_UNTYPED(map), (struct shim_untyped *)0, (map))))(map))

#define SHIM_RING(map) \
	({ \
		static struct shim_map *shim_known_; \
		if (!shim_known_) \
			shim_known_ = shim_map_register( \
				#map, (map), SHIM_UINT(map, type), SHIM_UINT(map, max_entries), 0, 0); \
		shim_known_; \
	})

#define SHIM_MAP(map) \
	({ \
		static struct shim_map *shim_known_; \
		if (SHIM_IS_UNTYPED(map)) \
			shim_known_ = shim_map_known(map); \
		else if (!shim_known_) \
			shim_known_ = shim_map_register(#map, (map), SHIM_UINT(SHIM_TYPED(map), type), \
				SHIM_UINT(SHIM_TYPED(map), max_entries), sizeof(*SHIM_TYPED(map)->key), \
				sizeof(*SHIM_TYPED(map)->value)); \
		shim_known_; \
	})

/* The verifier asks for as many readable bytes as the map's key and value have. */
#define SHIM_FITS(map, at, member) \
	_Static_assert(sizeof(*(at)) >= sizeof(*SHIM_TYPED(map)->member), "the " #member " is too short")

#define bpf_map_lookup_elem(map, key_at) \
	({ \
		SHIM_FITS(map, key_at, key); \
		shim_map_lookup(SHIM_MAP(map), (key_at)); \
	})
/* Before Linux 6.4 a map's error is an int in a register whose upper half is zero. */
#define bpf_map_update_elem(map, key_at, value_at, flags) \
	({ \
		SHIM_FITS(map, key_at, key); \
		SHIM_FITS(map, value_at, value); \
		long shim_error_ = shim_map_update(SHIM_MAP(map), (key_at), (value_at), (flags)); \
		shim.has_short_errors ? (long)(__u32)shim_error_ : shim_error_; \
	})
#define bpf_map_delete_elem(map, key_at) \
	({ \
		SHIM_FITS(map, key_at, key); \
		long shim_error_ = shim_map_delete(SHIM_MAP(map), (key_at)); \
		shim.has_short_errors ? (long)(__u32)shim_error_ : shim_error_; \
	})

#define bpf_ringbuf_reserve(map, size, flags) shim_ring_reserve(SHIM_RING(map), (size), (flags))
#define bpf_ringbuf_submit(record, flags) shim_ring_end((record), true)
#define bpf_ringbuf_discard(record, flags) shim_ring_end((record), false)

#define bpf_ktime_get_ns() ((__u64)shim.now_ns)
#define bpf_ktime_get_coarse_ns() ((__u64)(shim.now_ns - shim.now_ns % SHIM_TICK_NS))
#define bpf_jiffies64() ((__u64)(SHIM_JIFFIES_START + shim.now_ns / SHIM_TICK_NS))
#define bpf_get_prandom_u32() ((__u32)shim.random)
#define bpf_get_smp_processor_id() 0u

#define bpf_xdp_load_bytes shim_xdp_load_bytes
#define bpf_xdp_store_bytes shim_xdp_store_bytes
#define bpf_xdp_adjust_head shim_xdp_adjust_head
#define bpf_xdp_adjust_tail shim_xdp_adjust_tail
#define bpf_skc_lookup_tcp shim_skc_lookup_tcp
#define bpf_sk_release shim_sk_release
#define bpf_tcp_gen_syncookie shim_tcp_gen_syncookie
#define bpf_tcp_raw_check_syncookie_ipv4 shim_tcp_raw_check_syncookie_ipv4
#define bpf_tcp_raw_check_syncookie_ipv6 shim_tcp_raw_check_syncookie_ipv6
#define bpf_loop shim_loop

#endif
