/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the comparisons need of Sluice before they start, done quickly: run.py calls it.
 *
 *   prepare tokens KEY_FILE SALE_ID COUNT   prints COUNT request targets with tokens signed by the daemon's own keys, each of a buyer of
 *                                           its own: what the issuing API would give, without its rate
 *   prepare deny PIN_DIR < ADDRESSES        puts IPv4 addresses, one a line, on the deny list of a gate that has no daemon
 *   prepare filter MAP_ID < ADDRESSES       puts them into xdp-filter's map of addresses as `xdp-filter ip -m src` does one by one
 *   prepare heartbeat PIN_DIR SECONDS       stands in for the daemon's sign of life while run.py has stopped the daemon
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "../tool.h"
#include "common/lists.h"
#include "common/maps.h"
#include "common/token.h"

#define TTL_S 3600
#define MAPPED 0xffff00000000ULL
#define MAPPED_BITS 96
#define NS_PER_S 1000000000ULL
#define HEARTBEAT_PAUSE_NS 200000000L
/* xdp-tools, xdp-filter/common_kern_user.h */
#define FILTER_SOURCE 1ULL

static void make_tokens(const char *key_file, uint32_t sale, unsigned count)
{
	uint32_t now_s = (uint32_t)time(NULL);
	struct token_keys keys;
	char error[512], text[SLUICE_TOKEN_TEXT + 1];

	if (token_keys_load(&keys, key_file, error, sizeof(error)))
		die("%s", error);
	for (unsigned i = 0; i < count; i++) {
		struct sluice_token token = {
			.quantity = 1, .sale = sale, .issued_at_s = now_s, .expires_at_s = now_s + TTL_S};
		char name[32];
		int length = snprintf(name, sizeof(name), "buyer-%u", i);

		token.buyer = token_buyer_hash(&keys, name, (size_t)length);
		token.serial = token_serial(&keys, sale, token.buyer, 0);
		token_seal(&keys.slot[keys.current], &token, text);
		printf("/v1/orders/%s\n", text);
	}
}

/* Calls `add` for each address of standard input, in network byte order. */
static unsigned each_address(int (*add)(struct in_addr addr, void *arg), void *arg)
{
	char line[64];
	unsigned count = 0;

	while (fgets(line, sizeof(line), stdin)) {
		struct in_addr addr;
		int err;

		line[strcspn(line, "\n")] = '\0';
		if (inet_pton(AF_INET, line, &addr) != 1)
			die("%s is no IPv4 address", line);
		err = add(addr, arg);
		if (err)
			die("cannot add %s, number %u: %s", line, count + 1, strerror(-err));
		count++;
	}
	return count;
}

static int deny_one(struct in_addr addr, void *lists)
{
	struct sluice_addr key = {.lo = MAPPED | ntohl(addr.s_addr)};

	return lists_put(lists, SLUICE_LIST_DENY, &key, MAPPED_BITS + 32, 0, "bench");
}

static void deny(const char *pin_dir)
{
	struct gate_maps maps = {0};
	struct lists *lists;
	char error[512];

	if (gate_maps_open(&maps, pin_dir, error, sizeof(error)))
		die("%s", error);
	lists = lists_open(maps.lists, maps.list_index, maps.denials);
	if (!lists)
		die("cannot open the lists of %s: %s", pin_dir, strerror(errno));
	each_address(deny_one, lists);
	lists_close(lists);
	gate_maps_close(&maps);
}

static struct {
	int fd, cpus;
	uint64_t *flags; /* a per-CPU hash: one value a CPU */
} filter;

static int filter_one(struct in_addr addr, void *arg)
{
	(void)arg;
	return bpf_map_update_elem(filter.fd, &addr.s_addr, filter.flags, BPF_ANY) ? -errno : 0;
}

static void fill_filter(uint32_t map_id)
{
	struct bpf_map_info info = {0};
	uint32_t size = sizeof(info);

	filter.fd = bpf_map_get_fd_by_id(map_id);
	if (filter.fd < 0 || bpf_obj_get_info_by_fd(filter.fd, &info, &size))
		die("cannot open map %u: %s", map_id, strerror(errno));
	if (info.type != BPF_MAP_TYPE_PERCPU_HASH || info.key_size != 4 || info.value_size != 8)
		die("map %u is not the map of IPv4 addresses that this xdp-filter was known to have", map_id);
	filter.cpus = libbpf_num_possible_cpus();
	filter.flags = calloc((size_t)filter.cpus, sizeof(*filter.flags));
	if (!filter.flags)
		die("no memory");
	for (int i = 0; i < filter.cpus; i++)
		filter.flags[i] = FILTER_SOURCE;
	each_address(filter_one, NULL);
	free(filter.flags);
}

static void heartbeat(const char *pin_dir, double seconds)
{
	const struct timespec pause = {.tv_nsec = HEARTBEAT_PAUSE_NS};
	uint64_t end = time_mono_ns() + (uint64_t)(seconds * NS_PER_S);
	struct gate_maps maps = {0};
	char error[512];

	if (gate_maps_open(&maps, pin_dir, error, sizeof(error)))
		die("%s", error);
	while (time_mono_ns() < end) {
		__atomic_store_n(&maps.control->heartbeat_mono, time_mono_ns(), __ATOMIC_RELAXED);
		nanosleep(&pause, NULL);
	}
	gate_maps_close(&maps);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[1] : "";

	if (!strcmp(verb, "tokens") && argc == 5)
		make_tokens(argv[2], (uint32_t)strtoul(argv[3], NULL, 10), (unsigned)strtoul(argv[4], NULL, 10));
	else if (!strcmp(verb, "deny") && argc == 3)
		deny(argv[2]);
	else if (!strcmp(verb, "filter") && argc == 3)
		fill_filter((uint32_t)strtoul(argv[2], NULL, 10));
	else if (!strcmp(verb, "heartbeat") && argc == 4)
		heartbeat(argv[2], strtod(argv[3], NULL));
	else {
		fputs("usage: prepare tokens KEY_FILE SALE_ID COUNT | deny PIN_DIR | filter MAP_ID | heartbeat PIN_DIR SECONDS\n",
			stderr);
		return 2;
	}
	return 0;
}
