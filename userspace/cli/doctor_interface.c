/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's interfaces, and the one that was named: up, XDP mode, MTU, offloads that change frames before or behind the gate; see doctor.h. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/coexist.h"
#include "cli/doctor.h"
#include "cli/driver.h"
#include "cli/gate_look.h"
#include "cli/pins.h"
#include "cli/preflight.h"

#define SAID_MAX 1024

/* 1, 0, or -1 if the driver does not tell. */
static int ask_offload(const char *name, __u32 command, __u32 flag)
{
	struct ethtool_value value = {.cmd = command};
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result = -1;

	if (fd < 0)
		return -1;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	request.ifr_data = (void *)&value;
	if (!ioctl(fd, SIOCETHTOOL, &request))
		result = flag ? !!(value.data & flag) : !!value.data;
	close(fd);
	return result;
}

static void look_at_offloads(struct doctor *doctor, const char *name)
{
	int rxvlan = ask_offload(name, ETHTOOL_GFLAGS, ETH_FLAG_RXVLAN),
	    lro = ask_offload(name, ETHTOOL_GFLAGS, ETH_FLAG_LRO), gro = ask_offload(name, ETHTOOL_GGRO, 0);
	char todo[64];

	if (rxvlan < 0 && lro < 0) {
		doctor_note(doctor, DOCTOR_WARN, "offloads", NULL, "%s: the driver does not tell its offloads", name);
		return;
	}
	if (rxvlan > 0) {
		snprintf(todo, sizeof(todo), "ethtool -K %s rxvlan off", name);
		doctor_note(doctor, DOCTOR_WARN, "offloads", todo,
			"%s strips VLAN tags before the gate: what came tagged would be answered untagged", name);
	}
	if (lro > 0) {
		snprintf(todo, sizeof(todo), "ethtool -K %s lro off", name);
		doctor_note(doctor, DOCTOR_WARN, "offloads", todo,
			"%s joins segments before the gate (LRO): a first segment is not what the buyer sent", name);
	}
	if (rxvlan <= 0 && lro <= 0)
		doctor_note(doctor, DOCTOR_OK, "offloads", NULL, "%s: rxvlan off, lro off, gro %s (behind the gate)",
			name, gro > 0 ? "on" : "off");
}

void doctor_note_driver(struct doctor *doctor, const char *name, const struct driver *driver)
{
	if (driver->dropped)
		doctor_note(doctor, DOCTOR_WARN, "answers",
			driver_is_veth(driver) ? "give its peer an XDP program (one that passes everything will do)"
					       : "see ethtool -S: does it still grow? more queues or longer rings",
			"%s has dropped answers of the gate, which no counter of the gate's shows: %s is %" PRIu64,
			name, driver->counter, driver->dropped);
	else if (driver_is_veth(driver))
		doctor_note(doctor, DOCTOR_OK, "answers", NULL, "%s has dropped none so far; a veth " DRIVER_VETH_RULE,
			name);
}

/* Strict reverse path filtering (RFC 3704 section 2.2) is behind the gate: what it drops has its unit by then. IPv6 has no such sysctl. */
static void look_at_reverse_path(struct doctor *doctor, const char *name)
{
	char path[sizeof("/proc/sys/net/ipv4/conf//rp_filter") + IFNAMSIZ], todo[128];
	long all = doctor_read_sysctl("/proc/sys/net/ipv4/conf/all/rp_filter"), own;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/rp_filter", name);
	own = doctor_read_sysctl(path);
	if ((own > all ? own : all) != 1) /* the larger of the two counts */
		return;
	snprintf(todo, sizeof(todo), "if they may leave by another: sysctl -w net.ipv4.conf.%s.rp_filter=2", name);
	doctor_note(doctor, DOCTOR_WARN, "firewall", todo,
		"rp_filter of %s is 1 (strict): orders are dropped behind the gate, with their unit, unless all answers leave by %s",
		name, name);
}

void doctor_note_xdp(struct doctor *doctor, const char *name, const struct doctor_xdp *xdp)
{
	if (xdp->mode == XDP_ATTACHED_NONE)
		doctor_note(doctor, DOCTOR_WARN, "xdp", "sluice attach", "%s has no XDP program", name);
	else if (!xdp->is_gate && xdp->is_other_gate)
		doctor_note(doctor, DOCTOR_WARN, "xdp", "name that gate's --pin-dir",
			"%s runs a gate (program %u), but not the one of %s", name, xdp->program_id,
			doctor->config->gate.pin_dir);
	else if (!xdp->is_gate)
		doctor_note(doctor, xdp->is_pinned ? DOCTOR_FAIL : DOCTOR_WARN, "xdp",
			"take that off, or share the interface (sluice attach --coexist)",
			"%s runs another XDP program, %u \"%s\", and not the gate", name, xdp->program_id,
			xdp->program_name);
	else if (xdp->mode == XDP_ATTACHED_SKB)
		doctor_note(doctor, DOCTOR_WARN, "xdp", "use an interface whose driver has native XDP",
			"%s runs the gate in generic mode: a socket buffer is made for every frame, also for those that are refused",
			name);
	else
		doctor_note(doctor, DOCTOR_OK, "xdp", NULL, "%s runs the gate in native mode", name);
}

/* The program that a pin of ours says to be on its interface; 0 = none. */
static unsigned pinned_program(const struct pinned_interface *pin)
{
	struct bpf_link_info info = {0};
	__u32 length = sizeof(info);

	if (!pin)
		return 0;
	if (pin->coexist)
		return pins_program_id(pin->fd);
	return bpf_obj_get_info_by_fd(pin->fd, &info, &length) ? 0 : info.prog_id;
}

/* `pin` is NULL for an interface that our gate does not claim. */
static void look_at_mode(struct doctor *doctor, const struct interface *interface, const struct pinned_interface *pin)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	unsigned ours = pinned_program(pin);

	if (bpf_xdp_query((int)interface->index, 0, &query)) {
		doctor_note(doctor, DOCTOR_WARN, "xdp", NULL, "%s: the kernel does not tell what XDP program is on it",
			interface->name);
	} else {
		struct doctor_xdp xdp = {.mode = query.attach_mode, .program_id = query.prog_id, .is_pinned = pin};

		gate_program_name(query.prog_id, xdp.program_name, sizeof(xdp.program_name));
		xdp.is_gate = ours && (pin->coexist ? coexist_holds(interface->index, ours) : ours == query.prog_id);
		xdp.is_other_gate = !strcmp(xdp.program_name, GATE_PROGRAM_NAME) || coexist_find_gate(interface->index);
		doctor_note_xdp(doctor, interface->name, &xdp);
	}
	if (query.attach_mode != XDP_ATTACHED_SKB && interface->mtu > preflight_mtu_max())
		doctor_note(doctor, DOCTOR_FAIL, "mtu", "lower it, or attach with --mode generic",
			"%s: an MTU of %u is too large for XDP in native mode, %u is the largest", interface->name,
			interface->mtu, preflight_mtu_max());
	else
		doctor_note(doctor, DOCTOR_OK, "mtu", NULL, "%s: %u", interface->name, interface->mtu);
}

static void look_at_interface(struct doctor *doctor, const char *name, const struct pinned_interface *pin)
{
	struct interface interface;
	struct driver driver;
	char said[SAID_MAX];
	int code;

	cli_say_into(said, sizeof(said));
	code = preflight_interface(name, &interface);
	cli_say_into(NULL, 0);
	if (code) {
		doctor_note_said(doctor, DOCTOR_FAIL, "interface", said, name);
		return;
	}
	look_at_mode(doctor, &interface, pin);
	driver_ask(name, &driver);
	doctor_note_driver(doctor, name, &driver);
	look_at_offloads(doctor, name);
	look_at_reverse_path(doctor, name);
}

void doctor_look_at_interfaces(struct doctor *doctor)
{
	struct pinned_interface all[PINS_INTERFACES_MAX];
	char said[SAID_MAX];
	struct pins pins;
	bool seen = false;
	int count = 0;

	cli_say_into(said, sizeof(said));
	if (pins_init(&pins, doctor->config->gate.pin_dir) == CLI_OK)
		count = pins_interfaces(&pins, all);
	cli_say_into(NULL, 0);
	if (count < 0) {
		doctor_note(doctor, doctor->may_bpf ? DOCTOR_FAIL : DOCTOR_WARN, "gate", "run this as root",
			"%s cannot be looked into: %s", doctor->config->gate.pin_dir, strerror(-count));
		doctor->attached = true; /* there is something */
		count = 0;
	} else if (!count) {
		doctor_note(doctor, DOCTOR_WARN, "gate", "sluice attach IFACE", "no gate is attached (%s)",
			doctor->config->gate.pin_dir);
	} else {
		doctor->attached = true;
		doctor_note(
			doctor, DOCTOR_OK, "gate", NULL, "attached to %d interface%s", count, count == 1 ? "" : "s");
	}
	for (int i = 0; i < count; i++) {
		if (doctor->interface && !strcmp(doctor->interface, all[i].name))
			seen = true;
		look_at_interface(doctor, all[i].name, &all[i]);
	}
	if (doctor->interface && !seen)
		look_at_interface(doctor, doctor->interface, NULL);
	pins_close_interfaces(all, count);
}
