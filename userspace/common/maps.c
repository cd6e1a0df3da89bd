/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Opens the gate's pins for daemon and commands, maps the shared words, runs the call door and sums the per-CPU counters.
 *
 * The names under the pin directory are the map names and "door". A gate of another ABI version is refused before anything in it
 * is believed.
 */
#include "common/maps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNTER_ROWS ((SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS)

static const struct {
	const char *name;
	size_t offset;
} pins[] = {
	{"services", offsetof(struct gate_maps, services)},
	{"ports", offsetof(struct gate_maps, ports)},
	{"limits", offsetof(struct gate_maps, limits)},
	{"control", offsetof(struct gate_maps, control_fd)},
	{"sales", offsetof(struct gate_maps, sales_fd)},
	{"stock", offsetof(struct gate_maps, stock_fd)},
	{"keys", offsetof(struct gate_maps, keys_fd)},
	{"admissions", offsetof(struct gate_maps, admissions)},
	{"ring", offsetof(struct gate_maps, ring)},
	{"buyers", offsetof(struct gate_maps, buyers)},
	{"issued", offsetof(struct gate_maps, issued)},
	{"rates", offsetof(struct gate_maps, rates)},
	{"recent", offsetof(struct gate_maps, recent)},
	{"syn_budget", offsetof(struct gate_maps, syn_budget)},
	{"lists", offsetof(struct gate_maps, lists)},
	{"list_index", offsetof(struct gate_maps, list_index)},
	{"denials", offsetof(struct gate_maps, denials)},
	{"answers", offsetof(struct gate_maps, answers)},
	{"homes", offsetof(struct gate_maps, homes)},
	{"counters", offsetof(struct gate_maps, counters)},
	{"calls", offsetof(struct gate_maps, calls)},
	{"shadow", offsetof(struct gate_maps, shadow)},
	{"watch", offsetof(struct gate_maps, watch)},
	{"events", offsetof(struct gate_maps, events)},
	{"door", offsetof(struct gate_maps, door)},
};
#define PIN_COUNT (sizeof(pins) / sizeof(pins[0]))

static int *pin_fd(struct gate_maps *maps, size_t i)
{
	return (int *)(void *)((char *)maps + pins[i].offset);
}

static __attribute__((format(printf, 4, 5))) int fail(int err, char *error, size_t error_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, error_size, format, args);
	va_end(args);
	return err;
}

static int open_pin(const char *pin_dir, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", pin_dir, name);
	return bpf_obj_get(path);
}

/* Through the directory's descriptor, for a daemon that may not walk the way to it any more (the bpf file system is root's alone). */
static int open_door(const struct gate_maps *maps)
{
	char path[64];

	if (maps->dir < 0)
		return open_pin(maps->pin_dir, "door");
	snprintf(path, sizeof(path), "/proc/self/fd/%d/door", maps->dir);
	return bpf_obj_get(path);
}

static size_t whole_pages(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

static void *map_array(int fd, size_t bytes)
{
	void *at = mmap(NULL, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

static void unmap_array(void *at, size_t bytes)
{
	if (at)
		munmap(at, whole_pages(bytes));
}

/* Mapping checks size and kind on the kernel's side only as far as pages go; a map of another layout must not be believed. */
static int check_value_size(int fd, __u32 value_size, __u32 entries)
{
	struct bpf_map_info info = {0};
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &length) < 0)
		return -errno;
	return info.value_size == value_size && info.max_entries == entries ? 0 : -EPROTO;
}

static int map_shared_words(struct gate_maps *maps, char *error, size_t error_size)
{
	const struct {
		int fd;
		__u32 value_size, entries;
		const char *name;
	} wanted[] = {
		{maps->control_fd, sizeof(struct sluice_control), 1, "control"},
		{maps->sales_fd, sizeof(struct sluice_sale), SLUICE_MAX_SALES, "sales"},
		{maps->stock_fd, sizeof(struct sluice_stock), SLUICE_MAX_SALES, "stock"},
		{maps->keys_fd, sizeof(struct sluice_key), 2, "keys"},
	};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		int err = check_value_size(wanted[i].fd, wanted[i].value_size, wanted[i].entries);

		if (err)
			return fail(err, error, error_size,
				"map %s/%s has another layout than this program knows (%s): detach and attach again",
				maps->pin_dir, wanted[i].name, strerror(-err));
	}
	maps->control = map_array(maps->control_fd, sizeof(struct sluice_control));
	if (maps->control &&
		(maps->control->magic != SLUICE_ABI_MAGIC || maps->control->abi_version != SLUICE_ABI_VERSION))
		return fail(-EPROTO, error, error_size,
			"the gate under %s speaks ABI version %u and this program version %d: detach and attach again, "
			"or use the matching programs",
			maps->pin_dir, maps->control->magic == SLUICE_ABI_MAGIC ? maps->control->abi_version : 0,
			SLUICE_ABI_VERSION);
	maps->sales = map_array(maps->sales_fd, SLUICE_MAX_SALES * sizeof(struct sluice_sale));
	maps->stock = map_array(maps->stock_fd, SLUICE_MAX_SALES * sizeof(struct sluice_stock));
	maps->keys = map_array(maps->keys_fd, 2 * sizeof(struct sluice_key));
	if (!maps->control || !maps->sales || !maps->stock || !maps->keys)
		return fail(-errno, error, error_size, "cannot map the gate's words under %s: %s", maps->pin_dir,
			strerror(errno));
	return 0;
}

int gate_maps_open(struct gate_maps *maps, const char *pin_dir, char *error, size_t error_size)
{
	struct stat info;
	int err;

	memset(maps, 0, sizeof(*maps));
	for (size_t i = 0; i < PIN_COUNT; i++)
		*pin_fd(maps, i) = -1;
	maps->dir = -1;
	if ((size_t)snprintf(maps->pin_dir, sizeof(maps->pin_dir), "%s", pin_dir) >= sizeof(maps->pin_dir))
		return fail(-ENAMETOOLONG, error, error_size, "the pin directory's name is too long: %s", pin_dir);
	for (size_t i = 0; i < PIN_COUNT; i++) {
		int fd = open_pin(pin_dir, pins[i].name);

		if (fd >= 0) {
			*pin_fd(maps, i) = fd;
			continue;
		}
		err = fd == -EACCES ? -EPERM : fd;
		if (err == -ENOENT && i == 0)
			fail(err, error, error_size,
				"no gate is attached (nothing is pinned under %s): sluice attach IFACE", pin_dir);
		else if (err == -ENOENT)
			err = fail(-EPROTO, error, error_size,
				"the gate under %s was attached by another version (it has no \"%s\"): detach and attach again, "
				"or use the matching programs",
				pin_dir, pins[i].name);
		else if (err == -EPERM)
			fail(err, error, error_size,
				"may not open %s/%s: needs root, or CAP_BPF and access to the directory", pin_dir,
				pins[i].name);
		else
			fail(err, error, error_size, "cannot open %s/%s: %s", pin_dir, pins[i].name, strerror(-err));
		goto out_close;
	}
	maps->dir = open(pin_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (maps->dir >= 0 && !fstatat(maps->dir, "control", &info, AT_SYMLINK_NOFOLLOW))
		maps->control_pin = info.st_ino;
	err = map_shared_words(maps, error, error_size);
	if (err)
		goto out_close;
	maps->door_generation = __atomic_load_n(&maps->control->generation, __ATOMIC_ACQUIRE);
	/* The door was opened before its generation was known; open it once more, so that it is at least that new. */
	maps->door_generation--;
	err = gate_maps_refresh(maps);
	if (!err)
		return 0;
	fail(err, error, error_size, "cannot open %s/door: %s", pin_dir, strerror(-err));
out_close:
	gate_maps_close(maps);
	return err;
}

void gate_maps_close(struct gate_maps *maps)
{
	unmap_array(maps->control, sizeof(struct sluice_control));
	unmap_array(maps->sales, SLUICE_MAX_SALES * sizeof(struct sluice_sale));
	unmap_array(maps->stock, SLUICE_MAX_SALES * sizeof(struct sluice_stock));
	unmap_array(maps->keys, 2 * sizeof(struct sluice_key));
	for (size_t i = 0; i < PIN_COUNT; i++)
		if (*pin_fd(maps, i) > STDERR_FILENO)
			close(*pin_fd(maps, i));
	if (maps->dir > STDERR_FILENO)
		close(maps->dir);
	memset(maps, 0, sizeof(*maps));
}

/* The new door takes the old one's file descriptor number, so a thread that is about to call never sees a closed one. The loader
 * pins the new door before it counts the generation up; reading them in the other order can only reopen once too often.
 */
int gate_maps_refresh(struct gate_maps *maps)
{
	__u64 generation = __atomic_load_n(&maps->control->generation, __ATOMIC_ACQUIRE);
	int fd, err = 0;

	if (generation == __atomic_load_n(&maps->door_generation, __ATOMIC_RELAXED))
		return 0;
	fd = open_door(maps);
	if (fd < 0)
		return fd;
	if (dup3(fd, maps->door, O_CLOEXEC) < 0)
		err = -errno;
	close(fd);
	if (!err)
		__atomic_store_n(&maps->door_generation, generation, __ATOMIC_RELAXED);
	return err;
}

/* A detach removes every pin, and the directory too. What is in a directory of the same name afterwards is another gate's. */
bool gate_maps_are_orphans(const struct gate_maps *maps)
{
	struct stat info;

	if (maps->dir < 0 || fstat(maps->dir, &info))
		return false;
	if (!info.st_nlink)
		return true;
	if (fstatat(maps->dir, "control", &info, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT;
	return maps->control_pin && info.st_ino != maps->control_pin;
}

int gate_maps_call(struct gate_maps *maps, struct sluice_call *call)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = call, .ctx_size_in = sizeof(*call));

	/* An old door still judges rightly (it works on the same maps), so a failed reopening is no reason to refuse. */
	gate_maps_refresh(maps);
	return bpf_prog_test_run_opts(maps->door, &opts);
}

/* Sums an array of `words_per_row` 64-bit words for each row over all CPUs. */
static int sum_per_cpu(int fd, unsigned rows, unsigned words_per_row, __u64 *out)
{
	int cpus = libbpf_num_possible_cpus();
	size_t row_words = (size_t)words_per_row * (cpus > 0 ? (size_t)cpus : 0);
	__u64 *values;
	int err = 0;

	if (cpus < 0)
		return cpus;
	values = malloc(row_words * sizeof(*values));
	if (!values)
		return -ENOMEM;
	memset(out, 0, (size_t)rows * words_per_row * sizeof(*out));
	for (__u32 row = 0; row < rows; row++) {
		err = bpf_map_lookup_elem(fd, &row, values);
		if (err)
			break;
		for (size_t i = 0; i < row_words; i++)
			out[row * words_per_row + i % words_per_row] += values[i];
	}
	free(values);
	return err;
}

_Static_assert(sizeof(struct sluice_counter) == 2 * sizeof(__u64), "a counter is two words");

int gate_maps_read_counters(const struct gate_maps *maps, struct sluice_counter *out)
{
	return sum_per_cpu(maps->counters, COUNTER_ROWS, 2, (__u64 *)out);
}

int gate_maps_read_calls(const struct gate_maps *maps, __u64 *out)
{
	return sum_per_cpu(maps->calls, SLUICE_REASON_ROWS, 1, out);
}

int gate_maps_read_shadow(const struct gate_maps *maps, __u64 *out)
{
	return sum_per_cpu(maps->shadow, SLUICE_REASON_ROWS, 1, out);
}
