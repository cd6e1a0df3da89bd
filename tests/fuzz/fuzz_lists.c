/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: deny and allow lists on both sides at once: userspace/common/lists.c writes entries and index, bpf/lists.h reads them.
 *
 * The input is a run of changes and questions. Claims: the gate's answer for an address is that of a walk over all entries; no sum of
 * changes leaves a bit too few in the index, and when all entries are gone it has no bit at all.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <errno.h>

#include "check.h"
#include "common/lists.h"
#include "libbpf.h"
#include "lists.h"

#define STEPS_MAX 48
#define ENTRIES_MAX 64
#define NOW_NS 1800000000000000000ULL
#define MAPPED_BITS 96
/* An IPv4 entry covers 2^(16 - length) slots of the index: a few short ones are enough for one input. */
#define WIDE_BITS 10
#define WIDE_MAX 2

static struct lists *open_lists;

static struct {
	struct sluice_list_key key;
	uint64_t expires;
} entries[ENTRIES_MAX];
static unsigned entry_count;

static bool is_mapped(const struct sluice_addr *addr)
{
	return !addr->hi && addr->lo >> 32 == 0xffff;
}

/* An IPv6 prefix is about IPv6 alone, also one that is so short that it has ::ffff:0:0/96 within. */
static bool covers(const struct sluice_list_key *key, const struct sluice_addr *addr)
{
	uint64_t hi = key->prefix_len >= 64 ? ~0ULL : ~0ULL << (64 - key->prefix_len);
	uint64_t lo = key->prefix_len >= 128 ? ~0ULL : key->prefix_len <= 64 ? 0 : ~0ULL << (128 - key->prefix_len);

	if (is_mapped(addr) != (key->prefix_len >= MAPPED_BITS && is_mapped(&key->addr)))
		return false;
	return (addr->hi & hi) == key->addr.hi && (addr->lo & lo) == key->addr.lo;
}

/* A few networks, so that entries meet: the top bits from a table, the rest from the input. */
static struct sluice_addr read_addr(struct input *input)
{
	static const struct sluice_addr bases[] = {{0, 0xffffc0000200}, {0, 0xffffc6336400}, {0x20010db800000000, 0},
		{0x20010db900000000, 0}, {0, 0xffff00000000}, {0xfe80000000000000, 0}, {0, 0}, {0, 0xffffffffff00}};
	struct sluice_addr addr = bases[input_u8(input) & 7];
	uint64_t host;

	input_copy(input, &host, 3);
	host &= 0xffffff;
	if (addr.hi) {
		addr.hi |= host >> 12;
		addr.lo |= host << 52 | (host & 0xff);
	} else {
		addr.lo ^= host;
	}
	return addr;
}

static unsigned find_entry(const struct sluice_list_key *key)
{
	unsigned i = 0;

	while (i < entry_count && memcmp(&entries[i].key, key, sizeof(*key)) != 0)
		i++;
	return i;
}

static struct sluice_list_key read_key(struct input *input)
{
	static const uint8_t lengths4[32] = {32, 24, 23, 16, 15, 8, 31, 30, 29, 28, 27, 26, 25, 22, 21, 20, 19, 18, 17,
		14, 13, 12, 11, 10, 9, 32, 24, 16, 16, 24, 32, 4};
	struct sluice_list_key key = {.addr = read_addr(input)};
	uint8_t choice = input_u8(input);
	bool mapped = is_mapped(&key.addr);

	key.list = choice & 1 ? SLUICE_LIST_ALLOW : SLUICE_LIST_DENY;
	key.prefix_len = mapped ? MAPPED_BITS + lengths4[choice >> 1 & 31] : 1 + (choice >> 1);
	key.addr.hi &= key.prefix_len >= 64 ? ~0ULL : ~0ULL << (64 - key.prefix_len);
	key.addr.lo &= key.prefix_len >= 128 ? ~0ULL : key.prefix_len <= 64 ? 0 : ~0ULL << (128 - key.prefix_len);
	return key;
}

static void put(struct input *input, unsigned *wide)
{
	struct sluice_list_key key = read_key(input);
	uint8_t expires = input_u8(input);
	uint64_t until = expires & 1 ? NOW_NS + (uint64_t)((int8_t)expires * 1000000000LL) : 0;
	unsigned i = find_entry(&key);
	int err;

	if (i == ENTRIES_MAX ||
		(is_mapped(&key.addr) && key.prefix_len < MAPPED_BITS + WIDE_BITS && ++*wide > WIDE_MAX))
		return;
	if (input_u8(input) == 0xff) {
		shim.failing_update = 1 + expires % 4;
		shim.update_error = -ENOMEM;
	}
	err = lists_put(open_lists, (enum sluice_list)key.list, &key.addr, key.prefix_len, until, "fuzz");
	CHECK(!err || err == shim.update_error, "error %d", err);
	shim.failing_update = 0;
	if (err)
		return; /* an entry that was there stays as it was */
	entries[i].key = key;
	entries[i].expires = until;
	entry_count += i == entry_count;
}

static void forget(unsigned i)
{
	entries[i] = entries[--entry_count];
}

static void take_out(struct input *input)
{
	struct sluice_list_key key = entry_count ? entries[input_u8(input) % entry_count].key : read_key(input);
	unsigned i = find_entry(&key);
	int err = lists_remove(open_lists, (enum sluice_list)key.list, &key.addr, key.prefix_len);

	CHECK(err == (i < entry_count ? 0 : -ENOENT), "error %d", err);
	if (i < entry_count)
		forget(i);
}

static void sweep(void)
{
	int removed = lists_sweep(open_lists, NOW_NS, 1000), wanted = 0;

	for (unsigned i = 0; i < entry_count;) {
		if (entries[i].expires && entries[i].expires <= NOW_NS) {
			forget(i);
			wanted++;
		} else {
			i++;
		}
	}
	CHECK(removed == wanted, "%d entries removed, not %d", removed, wanted);
}

static bool is_on(enum sluice_list list, const struct sluice_addr *addr)
{
	for (unsigned i = 0; i < entry_count; i++)
		if (entries[i].key.list == list && covers(&entries[i].key, addr) &&
			(!entries[i].expires || entries[i].expires > NOW_NS))
			return true;
	return false;
}

static void ask(struct sluice_addr addr)
{
	struct packet pkt = {.source = addr, .is_ip6 = !is_mapped(&addr)};
	bool allowed = is_on(SLUICE_LIST_ALLOW, &addr), denied = !allowed && is_on(SLUICE_LIST_DENY, &addr);

	CHECK(lists_check(&pkt) == denied, "denied is %d", !denied);
	CHECK(pkt.allowed == allowed, "allowed is %d", pkt.allowed);
}

static void check_counts(void)
{
	for (enum sluice_list list = SLUICE_LIST_DENY; list <= SLUICE_LIST_ALLOW; list++) {
		unsigned wanted = 0;

		for (unsigned i = 0; i < entry_count; i++)
			wanted += entries[i].key.list == list;
		CHECK(lists_count(open_lists, list) == wanted, "%u entries counted, not %u",
			lists_count(open_lists, list), wanted);
	}
}

static void check_no_bit(const void *key, void *value, void *arg)
{
	static const struct sluice_list_index none;

	(void)key;
	(void)arg;
	CHECK(!memcmp(value, &none, sizeof(none)), "a bit without an entry");
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	SHIM_MAP(&lists);
	SHIM_MAP(&list_index);
	SHIM_MAP(&control);
	shim_reset();
	open_lists = lists_open(libbpf_fd("lists"), libbpf_fd("list_index"));
	CHECK(open_lists, "lists");
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};
	unsigned wide = 0;

	control_get()->wall_offset_ns = NOW_NS - shim.now_ns;
	for (unsigned i = 0; input.left && i < STEPS_MAX; i++) {
		uint8_t step = input_u8(&input);

		if (step < 96)
			put(&input, &wide);
		else if (step < 128)
			take_out(&input);
		else if (step < 250)
			ask(step & 1 && entry_count ? entries[step % entry_count].key.addr : read_addr(&input));
		else if (step < 255)
			sweep();
	}
	for (unsigned i = 0; i < entry_count; i++) {
		struct sluice_addr last = entries[i].key.addr;

		ask(entries[i].key.addr);
		last.lo |= entries[i].key.prefix_len <= 64 ? ~0ULL
			: entries[i].key.prefix_len < 128  ? ~0ULL >> (entries[i].key.prefix_len - 64)
							   : 0;
		ask(last);
	}
	check_counts();
	while (entry_count) {
		struct sluice_list_key key = entries[0].key;

		CHECK(!lists_remove(open_lists, (enum sluice_list)key.list, &key.addr, key.prefix_len), "an entry");
		forget(0);
	}
	shim_map_each(SHIM_MAP(&list_index), check_no_bit, NULL);
	shim_reset();
	return 0;
}
