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
	const char *label;
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

static const char *const labels[] = {"fuzz", "bots", "net"};
#define LABELS (sizeof(labels) / sizeof(labels[0]))
#define MANY_MAX 8

static bool is_too_wide(const struct sluice_list_key *key, unsigned *wide)
{
	return is_mapped(&key->addr) && key->prefix_len < MAPPED_BITS + WIDE_BITS && ++*wide > WIDE_MAX;
}

static void put(struct input *input, unsigned *wide)
{
	struct sluice_list_key key = read_key(input);
	uint8_t expires = input_u8(input);
	uint64_t until = expires & 1 ? NOW_NS + (uint64_t)((int8_t)expires * 1000000000LL) : 0;
	unsigned i = find_entry(&key);
	int err;

	if (i == ENTRIES_MAX || is_too_wide(&key, wide))
		return;
	if (input_u8(input) == 0xff) {
		shim.failing_update = 1 + expires % 4;
		shim.update_error = -ENOMEM;
	}
	err = lists_put(open_lists, (enum sluice_list)key.list, &key.addr, key.prefix_len, until, "fuzz");
	CHECK(!err || err == shim.update_error, "error %d", err);
	shim.failing_update = 0;
	if (err) { /* an entry that was there stays as it was, unless it is the forgetting of denials that failed */
		const struct sluice_list_entry *entry = bpf_map_lookup_elem(&lists, &key);

		if (!entry || entry->expires_wall != until || !lists_has_label(entry, labels[0]))
			return;
	}
	entries[i].key = key;
	entries[i].expires = until;
	entries[i].label = labels[0];
	entry_count += i == entry_count;
}

static void learn_entry(const void *key, void *value, void *arg)
{
	const struct sluice_list_entry *entry = value;

	(void)arg;
	memcpy(&entries[entry_count].key, key, sizeof(entries[entry_count].key));
	entries[entry_count].expires = entry->expires_wall;
	for (unsigned i = 0; i < LABELS; i++)
		if (lists_has_label(entry, labels[i]))
			entries[entry_count].label = labels[i];
	entry_count++;
}

/* Several at once. Of a key that comes twice the last one counts; what another label has stays, if it is not to be overwritten. */
static void put_many(struct input *input, unsigned *wide)
{
	struct sluice_list_key keys[MANY_MAX];
	struct sluice_list_entry values[MANY_MAX];
	struct lists_result result;
	unsigned count = 0, wanted = 1 + input_u8(input) % MANY_MAX, kept = 0, duplicates = 0;
	uint8_t flags = input_u8(input);
	bool fails = flags & 0x40;
	const char *label = labels[flags >> 2 & 3 ? (flags >> 2 & 3) - 1 : 0];

	flags &= LISTS_OVERWRITE | LISTS_DRY_RUN;
	while (count < wanted) {
		uint8_t seconds = input_u8(input);

		keys[count] = read_key(input);
		if (is_too_wide(&keys[count], wide) || entry_count + wanted > ENTRIES_MAX)
			return;
		memset(&values[count], 0, sizeof(values[count]));
		values[count].expires_wall = seconds ? NOW_NS + seconds : 0;
		lists_make_text(values[count++].text, label, "why");
	}
	shim.failing_update = fails ? wanted : 0;
	shim.update_error = -ENOMEM;
	fails = lists_put_many(open_lists, keys, values, count, NOW_NS, flags, &result) != 0;
	CHECK(!fails || !shim.failing_update, "put_many");
	shim.failing_update = 0;
	if (fails) { /* some may be in; the index must fit them all the same */
		entry_count = 0;
		shim_map_each(SHIM_MAP(&lists), learn_entry, NULL);
		return;
	}
	for (unsigned n = 0; n < count; n++) {
		unsigned i = find_entry(&keys[n]), later = n + 1;

		while (later < count && memcmp(&keys[later], &keys[n], sizeof(keys[n])) != 0)
			later++;
		if (later < count) {
			duplicates++;
			continue;
		}
		if (i < entry_count && entries[i].label != label && !(flags & LISTS_OVERWRITE) &&
			(!entries[i].expires || entries[i].expires > NOW_NS)) {
			kept++;
			continue;
		}
		if (flags & LISTS_DRY_RUN)
			continue;
		entries[i].key = keys[n];
		entries[i].expires = values[n].expires_wall;
		entries[i].label = label;
		entry_count += i == entry_count;
	}
	CHECK(result.kept == kept && result.duplicates == duplicates, "%u kept, %u duplicates", result.kept,
		result.duplicates);
	CHECK(result.added + result.refreshed + result.replaced + kept + duplicates == count, "%u added", result.added);
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

static void take_label_out(struct input *input)
{
	uint8_t choice = input_u8(input);
	enum sluice_list list = choice & 1 ? SLUICE_LIST_ALLOW : SLUICE_LIST_DENY;
	const char *label = labels[(choice >> 1) % LABELS];
	int removed = lists_remove_label(open_lists, list, label), wanted = 0;

	for (unsigned i = 0; i < entry_count;) {
		if (entries[i].key.list == list && entries[i].label == label) {
			forget(i);
			wanted++;
		} else {
			i++;
		}
	}
	CHECK(removed == wanted, "%d entries of label %s removed, not %d", removed, label, wanted);
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

	CHECK(lists_check(&pkt, SLUICE_DOOR_WIRE) == denied, "denied is %d", !denied);
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

/* What is in the gate's map is what was put there last. */
static void check_entry(unsigned i)
{
	const struct sluice_list_entry *entry = bpf_map_lookup_elem(&lists, &entries[i].key);

	CHECK(entry && entry->expires_wall == entries[i].expires && lists_has_label(entry, entries[i].label),
		"another entry");
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
	SHIM_MAP(&denials);
	SHIM_MAP(&control);
	shim_reset();
	open_lists = lists_open(libbpf_fd("lists"), libbpf_fd("list_index"), libbpf_fd("denials"));
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

		if (step < 64)
			put(&input, &wide);
		else if (step < 96)
			put_many(&input, &wide);
		else if (step < 120)
			take_out(&input);
		else if (step < 128)
			take_label_out(&input);
		else if (step < 250)
			ask(step & 1 && entry_count ? entries[step % entry_count].key.addr : read_addr(&input));
		else if (step < 255)
			sweep();
	}
	for (unsigned i = 0; i < entry_count; i++) {
		struct sluice_addr last = entries[i].key.addr;

		check_entry(i);
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
