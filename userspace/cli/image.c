/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Opens, sizes, loads, fills and pins the gate's object; see image.h. */
#include "cli/image.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include "cli/cli.h"
#include "common/answers.h"
#include "common/timefmt.h"
#include "gate.skel.h"

#define LOG_KEPT_BYTES 65536 /* of what the libraries say; the end is kept, where the verifier names the cause */
#define LOG_SHOWN_LINES 25
#define IP4_TCP_BYTES 40
#define IP6_TCP_BYTES 60

struct image {
	struct gate_bpf *skeleton;
};

/* --- what the libraries say ------------------------------------------------------------------------------------------------ */
static char log_text[LOG_KEPT_BYTES];
static size_t log_used;

static int log_append(const char *format, va_list args)
{
	int n;

	if (log_used > sizeof(log_text) / 2) { /* keep the younger half */
		memmove(log_text, log_text + log_used / 2, log_used - log_used / 2);
		log_used -= log_used / 2;
	}
	n = vsnprintf(log_text + log_used, sizeof(log_text) - log_used, format, args);
	if (n > 0)
		log_used += (size_t)n < sizeof(log_text) - log_used ? (size_t)n : sizeof(log_text) - log_used - 1;
	return n;
}

static int on_libbpf_print(enum libbpf_print_level level, const char *format, va_list args)
{
	return level <= LIBBPF_INFO ? log_append(format, args) : 0;
}

static int on_libxdp_print(enum libxdp_print_level level, const char *format, va_list args)
{
	return level <= LIBXDP_INFO ? log_append(format, args) : 0;
}

void image_quiet(void)
{
	libbpf_set_print(on_libbpf_print);
	libxdp_set_print(on_libxdp_print);
}

static void log_terminate(void)
{
	log_text[log_used < sizeof(log_text) ? log_used : sizeof(log_text) - 1] = '\0';
}

void image_say_log(void)
{
	const char *from = log_text + log_used;
	int lines = 0;

	log_terminate();
	while (from > log_text && (from[-1] != '\n' || lines++ < LOG_SHOWN_LINES))
		from--;
	if (*from)
		fprintf(stderr, "%s%s", from, log_text[log_used - 1] == '\n' ? "" : "\n");
	log_used = 0;
}

bool image_log_has(const char *words)
{
	log_terminate();
	return strstr(log_text, words);
}

void image_kernel_message(char *text, size_t size)
{
	static const char mark[] = "Kernel error message: ";
	const char *found = NULL, *next;

	log_terminate();
	for (next = log_text; (next = strstr(next, mark)); next += strlen(mark))
		found = next + strlen(mark);
	snprintf(text, size, "%.*s", found ? (int)strcspn(found, "\n") : 0, found ? found : "");
	log_used = 0;
}

/* --- open and load --------------------------------------------------------------------------------------------------------- */
static struct image *open_skeleton(void)
{
	struct image *image = calloc(1, sizeof(*image));

	if (image)
		image->skeleton = gate_bpf__open();
	if (!image || !image->skeleton) {
		cli_say("cannot open the gate's object: %s", strerror(errno));
		image_say_log();
		image_close(image);
		return NULL;
	}
	return image;
}

struct image *image_open(const struct config *config)
{
	struct image *image = open_skeleton();
	int err = 0;

	if (!image)
		return NULL;
	err |= bpf_map__set_max_entries(image->skeleton->maps.lists, config->gate.max_prefixes);
	err |= bpf_map__set_max_entries(image->skeleton->maps.admissions, config->gate.max_admissions);
	err |= bpf_map__set_max_entries(image->skeleton->maps.buyers, config->gate.max_admissions);
	err |= bpf_map__set_max_entries(image->skeleton->maps.issued, config->gate.max_tokens);
	err |= bpf_map__set_max_entries(image->skeleton->maps.rates, config_rate_sets(config->gate.max_sources));
	err |= bpf_map__set_max_entries(image->skeleton->maps.ring, config->gate.ring_bytes);
	if (err) {
		cli_say("cannot set the sizes of the gate's maps");
		image_close(image);
		return NULL;
	}
	return image;
}

/* Compares a map of the new object with the pinned one and takes the pinned one over. */
static int reuse_map(struct image *image, const struct pins *pins, const char *name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(image->skeleton->obj, name);
	struct bpf_map_info info = {0};
	__u32 length = sizeof(info);
	int fd = pins_open(pins, name);
	int err = 0;

	if (fd < 0) {
		cli_say("cannot open %s/%s: %s", pins->dir, name, strerror(-fd));
		return fd == -ENOENT ? CLI_CONFLICT : CLI_FAILED;
	}
	err = bpf_obj_get_info_by_fd(fd, &info, &length);
	if (err) {
		cli_say("cannot read about %s/%s: %s", pins->dir, name, strerror(-err));
		close(fd);
		return CLI_FAILED;
	}
	if (info.type != bpf_map__type(map) || info.key_size != bpf_map__key_size(map) ||
		info.value_size != bpf_map__value_size(map) || info.map_flags != bpf_map__map_flags(map)) {
		cli_say("the new program has another map \"%s\" (type %u, key %u, value %u bytes, flags 0x%x) than the gate that is attached "
			"(type %u, key %u, value %u, flags 0x%x): nothing was changed; detach and attach again",
			name, bpf_map__type(map), bpf_map__key_size(map), bpf_map__value_size(map),
			bpf_map__map_flags(map), info.type, info.key_size, info.value_size, info.map_flags);
		close(fd);
		return CLI_CONFLICT;
	}
	err = bpf_map__reuse_fd(map, fd);
	close(fd);
	if (err) {
		cli_say("cannot take over the map %s/%s: %s", pins->dir, name, strerror(-err));
		return CLI_FAILED;
	}
	return CLI_OK;
}

int image_open_on_pins(const struct pins *pins, struct image **image)
{
	int result = CLI_OK;

	*image = open_skeleton();
	if (!*image)
		return CLI_FAILED;
	for (size_t i = 0; pins_map_names[i] && result == CLI_OK; i++)
		result = reuse_map(*image, pins, pins_map_names[i]);
	if (result == CLI_OK)
		return CLI_OK;
	image_close(*image);
	*image = NULL;
	return result;
}

void image_close(struct image *image)
{
	if (!image)
		return;
	if (image->skeleton)
		gate_bpf__destroy(image->skeleton);
	free(image);
}

int image_load(struct image *image)
{
	int err = gate_bpf__load(image->skeleton);

	if (!err)
		return CLI_OK;
	image_say_log();
	if (err == -EPERM || err == -EACCES) {
		cli_say("the kernel refused to load the gate: %s", strerror(-err));
		return CLI_NOT_ALLOWED;
	}
	if (err == -ENOMEM || err == -E2BIG)
		cli_say("cannot load the gate: %s (smaller maps need less memory: the gate section of the config)",
			strerror(-err));
	else
		cli_say("cannot load the gate: %s (what the kernel said stands above)", strerror(-err));
	return CLI_FAILED;
}

/* --- fill ------------------------------------------------------------------------------------------------------------------ */
static int fill_services(struct gate_bpf *skeleton, const struct config *config)
{
	int services_fd = bpf_map__fd(skeleton->maps.services), ports_fd = bpf_map__fd(skeleton->maps.ports);
	int err = 0;

	for (__u32 i = 0; i < config->service_count && !err; i++) {
		const struct sluice_service *service = &config->services[i];
		__u32 port = service->port;
		__u64 on_port = 0;

		err = bpf_map_update_elem(services_fd, &i, service, BPF_ANY);
		if (!err)
			err = bpf_map_lookup_elem(ports_fd, &port, &on_port);
		on_port |= 1ULL << i;
		if (!err)
			err = bpf_map_update_elem(ports_fd, &port, &on_port, BPF_ANY);
	}
	return err;
}

static int fill_limits(struct gate_bpf *skeleton, const struct config *config)
{
	struct sluice_limits limits = {0};
	__u32 zero = 0;

	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		config_limit_to_gate(&config->limits[id], &limits.limit[id]);
	return bpf_map_update_elem(bpf_map__fd(skeleton->maps.limits), &zero, &limits, BPF_ANY);
}

static int fill_control(struct gate_bpf *skeleton, const struct config *config, const struct interface *interface)
{
	struct sluice_control control = {
		.magic = SLUICE_ABI_MAGIC,
		.abi_version = SLUICE_ABI_VERSION,
		.generation = 1,
		.wall_offset_ns = time_wall_ns() - time_mono_ns(),
		.flags = config->gate.deny_all ? SLUICE_CONTROL_DENY_ALL : 0,
		.mss4 = (__u16)(interface->mtu > IP4_TCP_BYTES ? interface->mtu - IP4_TCP_BYTES : 0),
		.mss6 = (__u16)(interface->mtu > IP6_TCP_BYTES ? interface->mtu - IP6_TCP_BYTES : 0),
		.backlog_max = config->gate.backlog_max,
		.rate_mask = config_rate_sets(config->gate.max_sources) - 1,
	};
	__u32 zero = 0;

	if (getrandom(&control.rate_seed, sizeof(control.rate_seed), 0) != sizeof(control.rate_seed))
		return -errno;
	return bpf_map_update_elem(bpf_map__fd(skeleton->maps.control), &zero, &control, BPF_ANY);
}

int image_fill(struct image *image, const struct config *config, const struct interface *interface)
{
	const char *what = "answers";
	int err = answers_write_defaults(bpf_map__fd(image->skeleton->maps.answers), config->daemon.cors_origin);

	if (!err) {
		what = "limits";
		err = fill_limits(image->skeleton, config);
	}
	if (!err) {
		what = "control";
		err = fill_control(image->skeleton, config, interface);
	}
	if (!err) {
		what = "services";
		err = fill_services(image->skeleton, config);
	}
	if (!err)
		return CLI_OK;
	cli_say("cannot fill the gate's map \"%s\": %s", what, strerror(-err));
	return CLI_FAILED;
}

/* --- pin ------------------------------------------------------------------------------------------------------------------- */
int image_pin(struct image *image, const struct pins *pins)
{
	const char *name = NULL;
	int err = 0;

	for (size_t i = 0; pins_map_names[i] && !err; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(image->skeleton->obj, pins_map_names[i]);

		name = pins_map_names[i];
		err = map ? pins_put(pins, name, bpf_map__fd(map)) : -ENOENT;
	}
	if (!err)
		err = pins_put(pins, name = "door", image_door_fd(image));
	if (!err)
		return CLI_OK;
	cli_say("cannot pin %s/%s: %s", pins->dir, name, strerror(-err));
	return CLI_FAILED;
}

struct bpf_object *image_object(struct image *image)
{
	return image->skeleton->obj;
}

int image_gate_fd(const struct image *image)
{
	return bpf_program__fd(image->skeleton->progs.sluice_gate);
}

int image_door_fd(const struct image *image)
{
	return bpf_program__fd(image->skeleton->progs.sluice_door);
}
