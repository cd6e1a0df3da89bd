/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the gate runs with, and whether that is what the config says and what the shop listens on; shadow mode; see doctor.h. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/doctor.h"
#include "cli/gate_look.h"
#include "cli/pins.h"
#include "common/addr.h"

#define SAID_MAX 1024
#define AGAIN "sluice detach --all && systemctl restart 'sluice-gate@*' sluiced"

void doctor_look_at_shadow(struct doctor *doctor, uint32_t flags)
{
	const char *mode = gate_shadow_mode(flags);

	if (!strcmp(mode, "all"))
		doctor_note(doctor, DOCTOR_WARN, "shadow", "sluice limit shadow all off",
			"THE WHOLE GATE IS IN SHADOW MODE: it refuses nobody");
	else if (!strcmp(mode, "some"))
		doctor_note(doctor, DOCTOR_WARN, "shadow", "sluice limit show names them",
			"some limits are in shadow mode: what is over them passes");
}

/* --- services -------------------------------------------------------------------------------------------------------------------- */
static bool is_any(const struct sluice_addr *addr)
{
	return !addr->hi && !addr->lo;
}

/* "[::]:8080" or "127.0.0.1:8080", which the config has checked. The address is all zero for any. Returns false for one that only this machine
 * reaches.
 */
static bool split_listen(const char *listen, struct sluice_addr *addr, unsigned *port)
{
	const char *colon = strrchr(listen, ':');
	char host[64];
	struct sluice_addr loopback;

	snprintf(host, sizeof(host), "%.*s", (int)(colon - listen), listen);
	*port = (unsigned)strtoul(colon + 1, NULL, 10);
	if (host[0] == '[') {
		memmove(host, host + 1, strlen(host));
		host[strcspn(host, "]")] = '\0';
	}
	if (addr_parse(host, addr) || !strcmp(host, "0.0.0.0"))
		*addr = (struct sluice_addr){0};
	addr_parse("::1", &loopback);
	return strncmp(host, "127.", 4) && memcmp(addr, &loopback, sizeof(loopback));
}

static void judge_listener(struct doctor *doctor, const struct sluice_service *services, unsigned count)
{
	const char *listen = doctor->config->daemon.public_listen;
	struct sluice_addr addr;
	unsigned port;

	if (!split_listen(listen, &addr, &port))
		return; /* behind a proxy on this machine */
	for (unsigned i = 0; i < count; i++)
		if (services[i].port == port &&
			(is_any(&addr) || is_any(&services[i].addr) || !memcmp(&addr, &services[i].addr, sizeof(addr))))
			return;
	doctor_note(doctor, DOCTOR_FAIL, "services",
		"give one of \"services\" that port, or let only this machine reach the shop (daemon.public_listen)",
		"the shop listens on %s, and the gate protects no service there: what comes in passes it unseen",
		listen);
}

static bool same_services(const struct config *config, const struct sluice_service *services, unsigned count)
{
	if (config->service_count != count)
		return false;
	for (unsigned i = 0; i < count; i++) {
		const struct sluice_service *a = &config->services[i], *b = &services[i];

		if (memcmp(&a->addr, &b->addr, sizeof(a->addr)) || a->port != b->port || a->kind != b->kind ||
			strncmp(a->name, b->name, sizeof(a->name)) != 0)
			return false;
	}
	return true;
}

void doctor_judge_services(struct doctor *doctor, const struct sluice_service *services, unsigned count,
	bool (*is_here)(const struct sluice_addr *addr))
{
	char text[ADDR_TEXT_MAX];

	judge_listener(doctor, services, count);
	for (unsigned i = 0; i < count; i++)
		if (!is_any(&services[i].addr) && !is_here(&services[i].addr))
			doctor_note(doctor, DOCTOR_WARN, "services", "unless it moves here later, correct \"services\"",
				"service \"%.*s\" is at %s, and this machine has no such address",
				(int)sizeof(services[i].name), services[i].name, addr_format(&services[i].addr, text));
	if (!same_services(doctor->config, services, count))
		doctor_note(doctor, DOCTOR_WARN, "services", AGAIN,
			"the gate was attached with other services than the config has now");
}

static bool is_local(const struct sluice_addr *addr)
{
	struct ifaddrs *all = NULL;
	bool found = false;

	if (getifaddrs(&all))
		return true; /* cannot be told */
	for (const struct ifaddrs *a = all; a && !found; a = a->ifa_next) {
		struct sluice_addr own;

		found = a->ifa_addr && !addr_from_sockaddr(a->ifa_addr, &own) && !memcmp(&own, addr, sizeof(own));
	}
	freeifaddrs(all);
	return found;
}

/* --- sizes ----------------------------------------------------------------------------------------------------------------------- */
static void look_at_size(
	struct doctor *doctor, const struct pins *pins, const char *map, const char *key, uint32_t value, uint32_t size)
{
	struct bpf_map_info info = {0};
	__u32 length = sizeof(info);
	int fd = pins_open(pins, map);

	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &length) && info.max_entries != size)
		doctor_note(doctor, DOCTOR_WARN, "sizes", AGAIN,
			"the gate was attached with another %s than %u, which the config has now (\"%s\" has room for %u)",
			key, value, map, info.max_entries);
	close(fd);
}

static void look_at_sizes(struct doctor *doctor, const struct pins *pins)
{
	const struct config *config = doctor->config;

	look_at_size(doctor, pins, "lists", "gate.max_prefixes", config->gate.max_prefixes, config->gate.max_prefixes);
	look_at_size(doctor, pins, "admissions", "gate.max_admissions", config->gate.max_admissions,
		config->gate.max_admissions);
	look_at_size(doctor, pins, "issued", "gate.max_tokens", config->gate.max_tokens, config->gate.max_tokens);
	look_at_size(doctor, pins, "rates", "gate.max_sources", config->gate.max_sources,
		config_rate_sets(config->gate.max_sources));
	look_at_size(doctor, pins, "ring", "gate.ring_bytes", config->gate.ring_bytes, config->gate.ring_bytes);
}

void doctor_look_at_gate(struct doctor *doctor)
{
	struct sluice_service services[SLUICE_MAX_SERVICES];
	struct sluice_control *control = NULL;
	struct pins pins;
	char said[SAID_MAX];
	int code, count;

	if (!doctor->attached || !doctor->may_bpf)
		return;
	cli_say_into(said, sizeof(said));
	code = pins_init(&pins, doctor->config->gate.pin_dir);
	if (!code)
		code = pins_map_control(&pins, &control);
	cli_say_into(NULL, 0);
	if (code) {
		doctor_note_said(doctor, DOCTOR_FAIL, "gate", said, "");
		return;
	}
	doctor_look_at_shadow(doctor, __atomic_load_n(&control->flags, __ATOMIC_RELAXED));
	pins_unmap_control(control);
	count = gate_services(&pins, services);
	if (count >= 0)
		doctor_judge_services(doctor, services, (unsigned)count, is_local);
	look_at_sizes(doctor, &pins);
}
