/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* libbpf's map calls over the shim's maps; see libbpf.h. As libbpf 1.x: negative errno, and errno. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "libbpf.h"
#include "shim.h"

#define FD_FIRST 1000000 /* no descriptor of this process */
#define PINS_MAX 64

void (*libbpf_door)(void *context);

/* Pins that were opened. They stay open as long as the process. */
static struct {
	int fd;
	struct shim_map *map; /* NULL: the door */
} pins[PINS_MAX];
static unsigned pin_count;

static int result(long err)
{
	if (err)
		errno = (int)-err;
	return (int)err;
}

int libbpf_fd(const char *name)
{
	return FD_FIRST + (int)shim_map_index(shim_map_find(name));
}

static struct shim_map *map_of(int fd)
{
	struct shim_map *map = fd >= FD_FIRST ? shim_map_at((unsigned)(fd - FD_FIRST)) : NULL;

	for (unsigned i = 0; !map && i < pin_count; i++)
		if (pins[i].fd == fd)
			map = pins[i].map;
	CHECK(map, "descriptor %d is no map", fd);
	return map;
}

int bpf_map_lookup_elem(int fd, const void *key, void *value)
{
	struct shim_map *map = map_of(fd);
	const void *found = shim_map_lookup(map, key);

	if (!found)
		return result(-ENOENT);
	memcpy(value, found, shim_map_value_size(map));
	return 0;
}

int bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags)
{
	return result(shim_map_update(map_of(fd), key, value, flags));
}

int bpf_map_delete_elem(int fd, const void *key)
{
	return result(shim_map_delete(map_of(fd), key));
}

int bpf_map_get_next_key(int fd, const void *key, void *next)
{
	CHECK(shim_map_is_hash(map_of(fd)), "get_next_key of an array");
	return result(shim_map_next_key(map_of(fd), key, next));
}

/* A batch is a run of indices of an array. For a hash, whose entries may go while it is read, one batch is all of it. */
struct batch {
	char *keys, *values;
	uint32_t key_size, value_size, room, count;
};

static void batch_add(const void *key, void *value, void *arg)
{
	struct batch *batch = arg;

	if (batch->count < batch->room) {
		memcpy(batch->keys + (size_t)batch->count * batch->key_size, key, batch->key_size);
		memcpy(batch->values + (size_t)batch->count * batch->value_size, value, batch->value_size);
	}
	batch->count++;
}

int bpf_map_lookup_batch(
	int fd, void *in, void *out, void *keys, void *values, __u32 *count, const struct bpf_map_batch_opts *opts)
{
	struct shim_map *map = map_of(fd);
	struct batch batch = {.keys = keys,
		.values = values,
		.key_size = shim_map_key_size(map),
		.value_size = shim_map_value_size(map),
		.room = *count};
	uint32_t from = 0;

	(void)opts;
	if (!shim_map_is_hash(map)) {
		if (in)
			memcpy(&from, in, sizeof(from));
		for (; from < shim_map_max_entries(map) && batch.count < batch.room; from++, batch.count++) {
			memcpy((uint32_t *)keys + batch.count, &from, sizeof(from));
			memcpy((char *)values + (size_t)batch.count * batch.value_size,
				(char *)shim_map_memory(map) + (size_t)from * batch.value_size, batch.value_size);
		}
		memcpy(out, &from, sizeof(from));
		*count = batch.count;
		return result(from == shim_map_max_entries(map) ? -ENOENT : 0);
	}
	shim_map_each(map, batch_add, &batch);
	if (batch.count > batch.room)
		return result(-ENOSPC);
	*count = batch.count;
	memset(out, 0, sizeof(uint32_t));
	return result(-ENOENT);
}

int bpf_map_update_batch(
	int fd, const void *keys, const void *values, __u32 *count, const struct bpf_map_batch_opts *opts)
{
	struct shim_map *map = map_of(fd);
	const char *key = keys, *value = values;
	uint32_t done = 0;
	long err = 0;

	(void)opts;
	for (; done < *count; done++, key += shim_map_key_size(map), value += shim_map_value_size(map)) {
		err = shim_map_update(map, key, value, BPF_ANY);
		if (err)
			break;
	}
	*count = done;
	return result(err);
}

int bpf_map_delete_batch(int fd, const void *keys, __u32 *count, const struct bpf_map_batch_opts *opts)
{
	struct shim_map *map = map_of(fd);
	const char *key = keys;
	uint32_t done = 0;
	long err = 0;

	(void)opts;
	for (; done < *count; done++, key += shim_map_key_size(map)) {
		err = shim_map_delete(map, key);
		if (err)
			break;
	}
	*count = done;
	return result(err);
}

/* The last part of the path names the map. What the daemon maps into its memory is an array that is really shared with it. */
int bpf_obj_get(const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	static const char *const mapped[] = {"control", "sales", "stock", "keys"};
	struct shim_map *map = strcmp(name, "door") ? shim_map_find(name) : NULL;
	int fd = -1;

	for (unsigned i = 0; i < sizeof(mapped) / sizeof(mapped[0]); i++)
		if (!strcmp(mapped[i], name))
			fd = dup(shim_map_share(map));
	if (fd < 0)
		fd = memfd_create(name, MFD_CLOEXEC);
	CHECK(fd >= 0 && pin_count < PINS_MAX, "no descriptor for %s", path);
	pins[pin_count].fd = fd;
	pins[pin_count++].map = map;
	return fd;
}

int bpf_obj_get_info_by_fd(int fd, void *info, __u32 *length)
{
	const struct shim_map *map = map_of(fd);
	struct bpf_map_info about = {.value_size = shim_map_value_size(map), .max_entries = shim_map_max_entries(map)};

	memcpy(info, &about, *length < sizeof(about) ? *length : sizeof(about));
	return 0;
}

int bpf_prog_test_run_opts(int fd, struct bpf_test_run_opts *opts)
{
	(void)fd;
	CHECK(libbpf_door, "no door");
	libbpf_door((void *)(uintptr_t)opts->ctx_in);
	return 0;
}

/* A reader of a ring, which nothing ever comes to: targets take records by shim_ring_take(). */
struct ring_buffer *ring_buffer__new(
	int fd, ring_buffer_sample_fn on_record, void *arg, const struct ring_buffer_opts *opts)
{
	static char reader;

	(void)fd;
	(void)on_record;
	(void)arg;
	(void)opts;
	return (struct ring_buffer *)&reader;
}

void ring_buffer__free(struct ring_buffer *reader)
{
	(void)reader;
}

int ring_buffer__epoll_fd(const struct ring_buffer *reader)
{
	(void)reader;
	return -1;
}

int ring_buffer__consume(struct ring_buffer *reader)
{
	(void)reader;
	return 0;
}

int libbpf_num_possible_cpus(void)
{
	return 1;
}
