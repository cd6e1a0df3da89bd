/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Maps and rings of the shim. Arrays are one piece of memory, of which shim_reset() clears what was looked up; entries of a hash and
 * records of a ring are pieces of their own, so that the address sanitizer sees who reads or writes beside one.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../check.h"
#include "shim.h"

#define MAPS_MAX 64
#define PAGE 4096
#define RECORD_HEADER \
	8 /* bytes that the kernel puts before each record of a ring, and to whose multiple it is filled up */

struct entry {
	struct entry *next;
	void *value;
	unsigned char key[];
};

struct record {
	struct record *next;
	struct shim_map *map;
	size_t size;
	void *bytes;
};

struct shim_map {
	const char *name;
	const void *identity;
	uint32_t type, max_entries, room, key_size, value_size;
	bool keeps;
	int fd; /* of an array that is shared; 0 = not */
	/* arrays */
	unsigned char *values, *is_touched;
	uint32_t *touched, touched_count;
	/* hashes */
	struct entry *entries, *last;
	uint32_t count;
	/* rings: submitted, oldest first */
	struct record *records;
	size_t used;
};

static struct shim_map maps[MAPS_MAX];
static unsigned map_count;
static struct record *held; /* reserved, neither submitted nor discarded */

static bool is_array(const struct shim_map *map)
{
	return map->type == BPF_MAP_TYPE_ARRAY || map->type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

bool shim_map_is_hash(const struct shim_map *map)
{
	return map->type == BPF_MAP_TYPE_HASH;
}

struct shim_map *shim_map_register(const char *name, const void *identity, uint32_t type, uint32_t max_entries,
	uint32_t key_size, uint32_t value_size)
{
	struct shim_map *map = maps;

	while (map < maps + map_count && map->identity != identity)
		map++;
	if (map < maps + map_count)
		return map;
	CHECK(map_count < MAPS_MAX, "more than %d maps", MAPS_MAX);
	map_count++;
	*map = (struct shim_map){.name = name + (*name == '&'),
		.identity = identity,
		.type = type,
		.max_entries = max_entries,
		.room = max_entries,
		.key_size = key_size,
		.value_size = value_size};
	CHECK(is_array(map) || shim_map_is_hash(map) || type == BPF_MAP_TYPE_RINGBUF,
		"map %s is of type %u, which the shim does not know", map->name, type);
	if (is_array(map)) {
		map->values = calloc(max_entries, value_size);
		map->is_touched = calloc(max_entries, 1);
		map->touched = calloc(max_entries, sizeof(*map->touched));
		CHECK(map->values && map->is_touched && map->touched, "no memory for map %s", map->name);
	}
	return map;
}

struct shim_map *shim_map_known(const void *identity)
{
	unsigned i = 0;

	while (i < map_count && maps[i].identity != identity)
		i++;
	CHECK(i < map_count, "a map that nobody has used by its name");
	return &maps[i];
}

struct shim_map *shim_map_find(const char *name)
{
	unsigned i = 0;

	while (i < map_count && strcmp(maps[i].name, name) != 0)
		i++;
	CHECK(i < map_count, "no map is named %s", name);
	return &maps[i];
}

struct shim_map *shim_map_at(unsigned index)
{
	return index < map_count ? &maps[index] : NULL;
}

unsigned shim_map_index(const struct shim_map *map)
{
	return (unsigned)(map - maps);
}

uint32_t shim_map_key_size(const struct shim_map *map)
{
	return map->key_size;
}

uint32_t shim_map_value_size(const struct shim_map *map)
{
	return map->value_size;
}

uint32_t shim_map_max_entries(const struct shim_map *map)
{
	return map->max_entries;
}

void shim_map_limit(struct shim_map *map, uint32_t room)
{
	map->room = room ? room : map->max_entries;
}

void shim_map_keep(struct shim_map *map)
{
	map->keeps = true;
}

void *shim_map_memory(struct shim_map *map)
{
	return map->values;
}

int shim_map_share(struct shim_map *map)
{
	size_t bytes = ((size_t)map->max_entries * map->value_size + PAGE - 1) / PAGE * PAGE;
	unsigned char *shared;
	int fd = map->fd;

	if (fd)
		return fd;
	CHECK(is_array(map), "map %s cannot be shared", map->name);
	fd = memfd_create(map->name, MFD_CLOEXEC);
	CHECK(fd > 0 && !ftruncate(fd, (off_t)bytes), "no memory for map %s", map->name);
	shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(shared != MAP_FAILED, "no memory for map %s", map->name);
	memcpy(shared, map->values, (size_t)map->max_entries * map->value_size);
	free(map->values);
	map->values = shared;
	return map->fd = fd;
}

static void *array_at(struct shim_map *map, const void *key)
{
	uint32_t index;

	memcpy(&index, key, sizeof(index));
	if (index >= map->max_entries)
		return NULL;
	if (!map->is_touched[index]) {
		map->is_touched[index] = 1;
		map->touched[map->touched_count++] = index;
	}
	return map->values + (size_t)index * map->value_size;
}

static struct entry *hash_at(struct shim_map *map, const void *key)
{
	struct entry *entry = map->entries;

	while (entry && memcmp(entry->key, key, map->key_size) != 0)
		entry = entry->next;
	return entry;
}

void *shim_map_lookup(struct shim_map *map, const void *key)
{
	struct entry *entry;

	if (is_array(map))
		return array_at(map, key);
	entry = hash_at(map, key);
	return entry ? entry->value : NULL;
}

static long hash_add(struct shim_map *map, const void *key, const void *value)
{
	struct entry *entry;

	if (map->count >= map->room)
		return -E2BIG;
	entry = malloc(sizeof(*entry) + map->key_size);
	CHECK(entry, "no memory");
	entry->value = malloc(map->value_size);
	CHECK(entry->value, "no memory");
	entry->next = NULL;
	memcpy(entry->key, key, map->key_size);
	memcpy(entry->value, value, map->value_size);
	if (map->entries)
		map->last->next = entry;
	else
		map->entries = entry;
	map->last = entry;
	map->count++;
	return 0;
}

long shim_map_update(struct shim_map *map, const void *key, const void *value, uint64_t flags)
{
	void *old;

	if (shim.meanwhile_update && !--shim.meanwhile_update)
		shim.meanwhile();
	if (shim.failing_update && !--shim.failing_update) {
		shim.updates_failed++;
		return shim.update_error;
	}
	if (flags > BPF_EXIST)
		return -EINVAL;
	old = shim_map_lookup(map, key);
	if (old && flags == BPF_NOEXIST)
		return -EEXIST;
	if (old) {
		memcpy(old, value, map->value_size);
		return 0;
	}
	if (is_array(map))
		return -E2BIG;
	return flags == BPF_EXIST ? -ENOENT : hash_add(map, key, value);
}

long shim_map_delete(struct shim_map *map, const void *key)
{
	struct entry **link = &map->entries, *before = NULL;

	if (is_array(map))
		return -EINVAL;
	while (*link && memcmp((*link)->key, key, map->key_size) != 0) {
		before = *link;
		link = &before->next;
	}
	if (!*link)
		return -ENOENT;
	if (map->last == *link)
		map->last = before;
	before = *link;
	*link = before->next;
	free(before->value);
	free(before);
	map->count--;
	return 0;
}

void shim_map_each(struct shim_map *map, void (*visit)(const void *key, void *value, void *arg), void *arg)
{
	for (uint32_t i = 0; i < map->touched_count; i++)
		visit(&map->touched[i], map->values + (size_t)map->touched[i] * map->value_size, arg);
	for (struct entry *entry = map->entries; entry; entry = entry->next)
		visit(entry->key, entry->value, arg);
}

unsigned shim_map_count(struct shim_map *map)
{
	return map->count;
}

int shim_map_next_key(struct shim_map *map, const void *key, void *next)
{
	struct entry *entry = key ? hash_at(map, key) : NULL;

	entry = entry ? entry->next : map->entries;
	if (!entry)
		return -ENOENT;
	memcpy(next, entry->key, map->key_size);
	return 0;
}

/* FNV-1a over each entry, and a sum over the entries: their order does not matter, and one of an array that is all zero is none. */
struct digest {
	const struct shim_map *map;
	uint64_t sum;
};

static uint64_t fnv(const unsigned char *bytes, size_t count, uint64_t hash, bool *is_zero)
{
	for (size_t i = 0; i < count; i++) {
		*is_zero &= !bytes[i];
		hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
	}
	return hash;
}

static void digest_one(const void *key, void *value, void *arg)
{
	struct digest *digest = arg;
	bool ignored = true, is_zero = true;
	uint64_t hash = fnv(key, digest->map->key_size, 0xcbf29ce484222325ULL, &ignored);

	hash = fnv(value, digest->map->value_size, hash, &is_zero);
	if (!is_zero || shim_map_is_hash(digest->map))
		digest->sum += hash;
}

uint64_t shim_map_digest(struct shim_map *map)
{
	struct digest digest = {.map = map};

	shim_map_each(map, digest_one, &digest);
	return digest.sum;
}

/* --- rings ----------------------------------------------------------------------------------------------------------------------- */
static size_t record_room(size_t size)
{
	return (size + 2 * RECORD_HEADER - 1) / RECORD_HEADER * RECORD_HEADER;
}

void *shim_ring_reserve(struct shim_map *map, uint64_t size, uint64_t flags)
{
	struct record *record;

	CHECK(map->type == BPF_MAP_TYPE_RINGBUF && !flags, "reserve in map %s, flags %llu", map->name,
		(unsigned long long)flags);
	if (map->used + record_room(size) > map->room)
		return NULL;
	record = malloc(sizeof(*record));
	CHECK(record, "no memory");
	*record = (struct record){.next = held, .map = map, .size = size, .bytes = malloc(size)};
	CHECK(record->bytes, "no memory");
	memset(record->bytes, 0xa5, size); /* not zeroed: what was there before */
	held = record;
	map->used += record_room(size);
	shim.records_held++;
	return record->bytes;
}

static void record_free(struct record *record)
{
	record->map->used -= record_room(record->size);
	free(record->bytes);
	free(record);
}

void shim_ring_end(void *bytes, bool submit)
{
	struct record **link = &held, *record;

	while (*link && (*link)->bytes != bytes)
		link = &(*link)->next;
	record = *link;
	CHECK(record, "a record that is not reserved is submitted or discarded");
	*link = record->next;
	shim.records_held--;
	if (!submit) {
		record_free(record);
		return;
	}
	record->next = NULL;
	for (link = &record->map->records; *link;)
		link = &(*link)->next;
	*link = record;
}

size_t shim_ring_take(struct shim_map *map, void *bytes, size_t size)
{
	struct record *record = map->records;
	size_t got;

	if (!record)
		return 0;
	map->records = record->next;
	got = record->size;
	if (size)
		memcpy(bytes, record->bytes, got < size ? got : size);
	record_free(record);
	return got;
}

static void map_clear(struct shim_map *map)
{
	struct entry *next;

	if (map->fd)
		memset(map->values, 0, (size_t)map->max_entries * map->value_size);
	for (uint32_t i = 0; i < map->touched_count; i++) {
		memset(map->values + (size_t)map->touched[i] * map->value_size, 0, map->value_size);
		map->is_touched[map->touched[i]] = 0;
	}
	map->touched_count = 0;
	for (struct entry *entry = map->entries; entry; entry = next) {
		next = entry->next;
		free(entry->value);
		free(entry);
	}
	map->entries = map->last = NULL;
	map->count = 0;
	while (shim_ring_take(map, NULL, 0))
		;
	map->room = map->max_entries;
}

void shim_reset(void)
{
	while (held)
		shim_ring_end(held->bytes, false);
	for (unsigned i = 0; i < map_count; i++)
		if (!maps[i].keeps)
			map_clear(&maps[i]);
	shim = (struct shim_state){.now_ns = 1000000000ULL, .head_room = 256, .tail_room = 512};
}
