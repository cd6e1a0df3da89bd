/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluice status: what is attached where, read from the pins alone, so it works without the daemon. Only why the daemon keeps orders closed is asked of it,
 * and a daemon that does not say so within a second is not waited for.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <jansson.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/coexist.h"
#include "cli/gate_look.h"
#include "cli/image.h"
#include "cli/loader.h"
#include "cli/loader_args.h"
#include "cli/pins.h"
#include "cli/table.h"
#include "common/addr.h"
#include "common/timefmt.h"

#define BATCH_ENTRIES 4096
#define NS_PER_MS 1000000
#define NS_PER_S 1000000000ULL
#define ASK_PATIENCE_MS 1000
#define SAID_MAX 1024

static const struct loader_command command = {
	.usage = "usage: sluice status [-o table|json] [--config FILE] [--pin-dir DIR]\n\n"
		 "Shows the gate: interfaces, program, services and maps.\n\n"
		 "  -o, --output FORM   table (default) or json\n"
		 "  -c, --config FILE   instead of " CONFIG_DEFAULT_PATH "\n"
		 "  -p, --pin-dir DIR   instead of the config's\n\n"
		 "Exit codes: 0 attached, 1 failed, 2 usage, 3 not attached, 4 another ABI version, 5 not allowed\n",
	.takes_output = true,
};

/* --- interfaces and programs ------------------------------------------------------------------------------------------------- */
static json_t *program_json(int fd)
{
	struct bpf_prog_info info = {0};
	__u32 length = sizeof(info);
	char tag[2 * BPF_TAG_SIZE + 1];

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &length))
		return json_null();
	for (int i = 0; i < BPF_TAG_SIZE; i++)
		snprintf(tag + 2 * i, 3, "%02x", info.tag[i]);
	return json_pack("{s:I, s:s, s:s, s:I}", "id", (json_int_t)info.id, "name", info.name, "tag", tag,
		"verified_instructions", (json_int_t)info.verified_insns);
}

/* The mode is a property of the interface, which can be asked only in its own network namespace. */
static const char *mode_of(const char *name, int ifindex, __u32 program_id)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);

	if (ifindex == 0)
		return "gone";
	if (if_nametoindex(name) != (unsigned)ifindex || bpf_xdp_query(ifindex, 0, &query) ||
		query.prog_id != program_id)
		return "other_namespace";
	return query.attach_mode == XDP_ATTACHED_SKB ? "generic" : "native";
}

/* In a dispatcher there is no link of ours to ask; libxdp knows only the interfaces of its own network namespace. */
static bool is_dispatched(const struct pinned_interface *interface)
{
	unsigned id = pins_program_id(interface->fd), ifindex = if_nametoindex(interface->name);

	return (ifindex && coexist_holds(ifindex, id)) || coexist_is_held_somewhere(id);
}

static json_t *dispatched_json(const struct pinned_interface *interface)
{
	unsigned id = pins_program_id(interface->fd), ifindex = if_nametoindex(interface->name);
	const char *mode = is_dispatched(interface) ? "other_namespace" : "gone";

	if (ifindex && coexist_holds(ifindex, id))
		mode = coexist_look(ifindex).native ? "native" : "generic";
	else
		ifindex = 0;
	return json_pack("{s:s, s:s, s:s, s:I, s:I}", "name", interface->name, "mode", mode, "attached", "dispatcher",
		"ifindex", (json_int_t)ifindex, "program_id", (json_int_t)id);
}

static json_t *interface_json(const struct pinned_interface *interface)
{
	struct bpf_link_info info = {0};
	__u32 length = sizeof(info);

	if (interface->coexist)
		return dispatched_json(interface);
	if (bpf_obj_get_info_by_fd(interface->fd, &info, &length))
		return json_null();
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "name", interface->name, "mode",
		mode_of(interface->name, (int)info.xdp.ifindex, info.prog_id), "attached", "exclusive", "ifindex",
		(json_int_t)info.xdp.ifindex, "program_id", (json_int_t)info.prog_id, "link_id", (json_int_t)info.id);
}

static json_t *services_json(const struct pins *pins)
{
	struct sluice_service all[SLUICE_MAX_SERVICES];
	json_t *services = json_array();
	int count = gate_services(pins, all);

	for (int i = 0; i < count; i++) {
		const struct sluice_service *service = &all[i];
		char address[ADDR_TEXT_MAX] = "any";

		if (service->addr.hi || service->addr.lo)
			addr_format(&service->addr, address);
		json_array_append_new(services,
			json_pack("{s:s%, s:s, s:i, s:s}", "name", service->name,
				strnlen(service->name, sizeof(service->name)), "address", address, "port",
				service->port, "kind", service->kind == SLUICE_SERVICE_TCP ? "tcp" : "sale"));
	}
	return services;
}

/* --- maps ---------------------------------------------------------------------------------------------------------------------- */
/* Entries of a hash, or -1 if it cannot be told. */
static long long count_entries(int fd, const struct bpf_map_info *info)
{
	void *keys = malloc((size_t)BATCH_ENTRIES * info->key_size),
	     *values = malloc((size_t)BATCH_ENTRIES * info->value_size);
	__u32 bucket = 0, next = 0, count;
	long long entries = 0;
	bool started = false;
	int err = keys && values ? 0 : -ENOMEM;

	while (!err) {
		count = BATCH_ENTRIES;
		err = bpf_map_lookup_batch(fd, started ? &bucket : NULL, &next, keys, values, &count, NULL);
		if (!err || err == -ENOENT)
			entries += count;
		bucket = next;
		started = true;
	}
	free(keys);
	free(values);
	return err == -ENOENT ? entries : -1;
}

/* What the kernel charges for a map: /proc/self/fdinfo, "memlock: bytes". */
static unsigned long long map_bytes(int fd)
{
	char path[64], line[128];
	unsigned long long bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "memlock: %llu", &bytes) == 1)
			break;
	if (file)
		fclose(file);
	return bytes;
}

static json_t *maps_json(const struct pins *pins, unsigned long long *total)
{
	static const char *const counted[] = {
		"admissions", "buyers", "issued"}; /* a million list entries would take a second */
	json_t *maps = json_array();

	for (size_t i = 0; pins_map_names[i]; i++) {
		struct bpf_map_info info = {0};
		__u32 length = sizeof(info);
		long long entries = -1;
		int fd = pins_open(pins, pins_map_names[i]);

		if (fd < 0)
			continue;
		if (!bpf_obj_get_info_by_fd(fd, &info, &length)) {
			unsigned long long bytes = map_bytes(fd);

			for (size_t j = 0; j < sizeof(counted) / sizeof(counted[0]); j++)
				if (!strcmp(counted[j], pins_map_names[i]))
					entries = count_entries(fd, &info);
			*total += bytes;
			json_array_append_new(maps,
				json_pack("{s:s, s:o, s:I, s:I}", "name", pins_map_names[i], "entries",
					entries < 0 ? json_null() : json_integer(entries), "max_entries",
					(json_int_t)info.max_entries, "bytes", (json_int_t)bytes));
		}
		close(fd);
	}
	return maps;
}

/* --- output -------------------------------------------------------------------------------------------------------------------- */
/* Of a daemon that lives. NULL: it does not say. */
static json_t *ask_why_closed(const struct config *config)
{
	const struct cli_globals globals = {.socket = config->daemon.control_socket};
	struct cli_api *api = NULL;
	json_t *status = NULL, *why = NULL;
	char said[SAID_MAX];

	cli_say_into(said, sizeof(said));
	if (!cli_api_open(&api, &globals)) {
		cli_api_set_patience(api, ASK_PATIENCE_MS);
		if (!cli_api_ask(api, "status", "GET", cli_api_path("/v1/status"), NULL, &status))
			why = json_incref(json_object_get(status, "orders_closed_because"));
	}
	cli_say_into(NULL, 0);
	cli_api_close(api);
	json_decref(status);
	if (json_is_string(why))
		return why;
	json_decref(why);
	return NULL;
}

/* null if they are open. */
static json_t *why_closed_json(const struct sluice_control *control, const struct config *config)
{
	__u64 heartbeat = __atomic_load_n(&control->heartbeat_mono, __ATOMIC_RELAXED), now = time_mono_ns();
	json_t *why;

	if (!gate_daemon_is_alive(control) && !heartbeat)
		return json_string("no sluiced has run with this gate yet");
	if (!gate_daemon_is_alive(control))
		return json_sprintf("sluiced has given no sign of life for %llu s (systemctl status sluiced)",
			(unsigned long long)((now - heartbeat) / NS_PER_S));
	if (__atomic_load_n(&control->flags, __ATOMIC_RELAXED) & SLUICE_CONTROL_ORDERS_OPEN)
		return json_null();
	why = ask_why_closed(config);
	return why ? why : json_string("sluiced keeps them closed (journalctl -u sluiced)");
}

static json_t *control_json(const struct sluice_control *control, const struct config *config)
{
	__u64 heartbeat = __atomic_load_n(&control->heartbeat_mono, __ATOMIC_RELAXED), now = time_mono_ns();
	__u32 flags = __atomic_load_n(&control->flags, __ATOMIC_RELAXED);
	bool alive = gate_daemon_is_alive(control);

	return json_pack("{s:i, s:I, s:b, s:o, s:b, s:o, s:s, s:s, s:b, s:b, s:i, s:i, s:I}", "abi_version",
		(int)control->abi_version, "generation", (json_int_t)control->generation, "daemon_alive", alive,
		"heartbeat_age_ms",
		heartbeat && now >= heartbeat ? json_integer((json_int_t)((now - heartbeat) / NS_PER_MS)) : json_null(),
		"orders_open", alive && (flags & SLUICE_CONTROL_ORDERS_OPEN), "orders_closed_because",
		why_closed_json(control, config), "shadow", gate_shadow_mode(flags), "deny_scope",
		flags & SLUICE_CONTROL_DENY_ALL ? "all" : "protected", "frames_grow_at_head",
		!!(control->grow & SLUICE_GROW_HEAD), "frames_grow_at_tail", !!(control->grow & SLUICE_GROW_TAIL),
		"mss4", control->mss4, "mss6", control->mss6, "in_flight",
		(json_int_t)__atomic_load_n(&control->in_flight, __ATOMIC_RELAXED));
}

static void print_rows(const char *title, const json_t *rows, const struct cli_column *columns)
{
	struct cli_table *table;
	const json_t *row;
	size_t i;

	printf("\n%s\n", title);
	table = cli_table_new(stdout, columns);
	json_array_foreach(rows, i, row)
		cli_table_add_json(table, row);
	cli_table_end(table);
}

static void print_table(json_t *status)
{
	static const struct cli_column interface_columns[] = {{"NAME", "name", false}, {"MODE", "mode", false},
		{"ATTACHED", "attached", false}, {"IFINDEX", "ifindex", true}, {"PROGRAM", "program_id", true},
		{NULL, NULL, false}};
	static const struct cli_column service_columns[] = {{"NAME", "name", false}, {"ADDRESS", "address", false},
		{"PORT", "port", true}, {"KIND", "kind", false}, {NULL, NULL, false}};
	static const struct cli_column map_columns[] = {{"NAME", "name", false}, {"ENTRIES", "entries", true},
		{"MAX", "max_entries", true}, {"BYTES", "bytes", true}, {NULL, NULL, false}};
	json_t *record = json_copy(status);

	json_object_del(record, "interfaces");
	json_object_del(record, "services");
	json_object_del(record, "maps");
	if (json_is_null(json_object_get(record, "orders_closed_because")))
		json_object_del(record, "orders_closed_because");
	cli_record_print(stdout, record);
	json_decref(record);
	print_rows("interfaces", json_object_get(status, "interfaces"), interface_columns);
	print_rows("services", json_object_get(status, "services"), service_columns);
	print_rows("maps", json_object_get(status, "maps"), map_columns);
}

static int show(const struct pins *pins, const struct config *config, bool as_json)
{
	struct pinned_interface all[PINS_INTERFACES_MAX];
	json_t *status = json_object(), *interfaces = json_array();
	struct sluice_control *control;
	unsigned long long total = 0;
	int result, count = 0, alive = 0, gate_fd = -1;

	result = pins_map_control(pins, &control);
	if (result != CLI_OK)
		goto out_free;
	count = pins_interfaces(pins, all);
	if (count <= 0) {
		cli_say("no gate is attached to an interface (pin directory %s)", pins->dir);
		result = CLI_NOT_FOUND;
		goto out_free;
	}
	for (int i = 0; i < count; i++) {
		alive += all[i].coexist ? is_dispatched(&all[i]) : pins_link_ifindex(all[i].fd) > 0;
		json_array_append_new(interfaces, interface_json(&all[i]));
	}
	pins_close_interfaces(all, count);
	gate_fd = pins_open(pins, "gate");
	json_object_set_new(status, "pin_dir", json_string(pins->dir));
	json_object_set_new(status, "program", program_json(gate_fd));
	json_object_update_new(status, control_json(control, config));
	json_object_set(status, "interfaces", interfaces);
	json_object_set_new(status, "services", services_json(pins));
	json_object_set_new(status, "maps", maps_json(pins, &total));
	json_object_set_new(status, "map_bytes", json_integer((json_int_t)total));
	if (as_json)
		cli_json_print(stdout, status);
	else
		print_table(status);
	if (gate_fd >= 0)
		close(gate_fd);
	if (__atomic_load_n(&control->flags, __ATOMIC_RELAXED) & SLUICE_CONTROL_SHADOW_ALL)
		cli_say("warning: the whole gate is in shadow mode: it refuses nobody (\"sluice limit shadow all off\" ends it)");
	if (!alive) {
		cli_say("no interface of this gate is there any more (sluice attach joins it again, sluice detach --all clears it away)");
		result = CLI_NOT_FOUND;
	}
out_free:
	pins_unmap_control(control);
	json_decref(interfaces);
	json_decref(status);
	return result;
}

int cmd_status(int argc, char **argv)
{
	struct loader_args args;
	struct config config;
	struct pins pins;
	int result = loader_args_parse(&args, &command, argc, argv);

	if (result != CLI_OK || args.help)
		return result;
	image_quiet();
	result = loader_args_config(&args, &config);
	if (result == CLI_OK)
		result = pins_init(&pins, config.gate.pin_dir);
	return result == CLI_OK ? show(&pins, &config, args.json) : result;
}
