/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a gate that is attached runs with, read from its pins; see gate_look.h. */
#include "cli/gate_look.h"

#include <bpf/bpf.h>
#include <stdio.h>
#include <unistd.h>

#include "common/timefmt.h"

const char *gate_shadow_mode(uint32_t flags)
{
	uint32_t some = SLUICE_CONTROL_SHADOW_DENY | SLUICE_CONTROL_SHADOW_PACE;

	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		some |= SLUICE_CONTROL_SHADOW_LIMIT(id);
	return flags & SLUICE_CONTROL_SHADOW_ALL ? "all" : flags & some ? "some" : "off";
}

void gate_program_name(uint32_t id, char *name, size_t size)
{
	struct bpf_prog_info info = {0};
	__u32 length = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	snprintf(name, size, "?");
	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &length) && info.name[0])
		snprintf(name, size, "%s", info.name);
	close(fd);
}

int gate_services(const struct pins *pins, struct sluice_service services[SLUICE_MAX_SERVICES])
{
	int fd = pins_open(pins, "services"), count = 0;

	if (fd < 0)
		return fd;
	for (uint32_t i = 0; i < SLUICE_MAX_SERVICES; i++)
		if (!bpf_map_lookup_elem(fd, &i, &services[count]) && services[count].kind != SLUICE_SERVICE_UNUSED)
			count++;
	close(fd);
	return count;
}

bool gate_daemon_is_alive(const struct sluice_control *control)
{
	uint64_t heartbeat = __atomic_load_n(&control->heartbeat_mono, __ATOMIC_RELAXED);

	return heartbeat && time_mono_ns() < heartbeat + SLUICE_HEARTBEAT_MAX_NS;
}
