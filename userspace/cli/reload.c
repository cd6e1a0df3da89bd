/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluice reload: replaces the gate's program on every interface by the one in this executable. No packet passes without a gate, and the
 * maps stay. What does not fit (another ABI version, another map) is refused before anything changes.
 *
 * On a hook of its own the gate is replaced in one atomic step. Libxdp's dispatcher has no such step: the new gate goes in behind the old one,
 * then the old one is taken out. What passes both in the milliseconds between is counted twice and charged twice to its source's rate, but
 * nothing is taken twice: the second judge finds the token admitted.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/coexist.h"
#include "cli/image.h"
#include "cli/loader.h"
#include "cli/loader_args.h"
#include "cli/pins.h"
#include "cli/preflight.h"

static const struct loader_command command = {
	.usage =
		"usage: sluice reload [--config FILE] [--pin-dir DIR]\n\n"
		"Replaces the gate's program by the one in this executable; no packet passes without a gate. Maps and their contents stay;\n"
		"services, sizes and other settings of the config are read at attach only.\n\n"
		"  -c, --config FILE   instead of " CONFIG_DEFAULT_PATH "\n"
		"  -p, --pin-dir DIR   instead of the config's\n\n"
		"Exit codes: 0 replaced, 1 failed, 2 usage, 3 not attached, 4 does not fit the gate that is attached, 5 not allowed\n",
};

/* Puts `program_fd` on all links. If one refuses, those before it get `old_fd` back. */
static int update_links(const struct pinned_interface *all, int count, int program_fd, int old_fd)
{
	for (int i = 0; i < count; i++) {
		int err;

		if (pins_link_ifindex(all[i].fd) == 0)
			continue; /* the interface is gone; detach clears its pin away */
		err = bpf_link_update(all[i].fd, program_fd, NULL);
		if (!err)
			continue;
		cli_say("cannot replace the program on %s: %s; the former one stays everywhere", all[i].name,
			strerror(-err));
		while (i-- > 0)
			if (pins_link_ifindex(all[i].fd) > 0 && bpf_link_update(all[i].fd, old_fd, NULL))
				cli_say("and %s keeps the new one: sluice reload again", all[i].name);
		return CLI_FAILED;
	}
	return CLI_OK;
}

/* Takes the program out of the dispatchers of the first `count` interfaces. */
static int leave_dispatchers(const struct pinned_interface *all, int count, unsigned program_id)
{
	int result = CLI_OK;

	for (int i = 0; i < count; i++)
		if (coexist_detach(if_nametoindex(all[i].name), all[i].name, program_id) == CLI_FAILED)
			result = CLI_FAILED;
	return result;
}

/* Loads the new gate into the dispatchers, behind the old one. If one refuses, it is taken out of all again. */
static int enter_dispatchers(
	const struct pinned_interface *all, int count, struct image *image, unsigned old_id, unsigned *new_id)
{
	int result = CLI_OK;

	for (int i = 0; i < count; i++) {
		if (coexist_holds(if_nametoindex(all[i].name), old_id))
			continue;
		cli_say("the gate is not in the dispatcher of an interface \"%s\" of this network namespace: reload where it is, or, if it was taken "
			"out by other means, attach again",
			all[i].name);
		return CLI_CONFLICT;
	}
	for (int i = 0; i < count && result == CLI_OK; i++) {
		struct interface interface = {.index = if_nametoindex(all[i].name)};
		bool native = coexist_look(interface.index).native;

		memcpy(interface.name, all[i].name, sizeof(interface.name));
		result = i ? coexist_join(*new_id, &interface, native)
			   : coexist_attach(image, &interface, native, new_id);
		if (result != CLI_OK)
			leave_dispatchers(all, i, *new_id);
	}
	return result;
}

static int pin_dispatched(const struct pins *pins, const struct pinned_interface *all, int count, int program_fd)
{
	char name[PINS_NAME_MAX];
	int err = 0;

	for (int i = 0; i < count && !err; i++)
		err = pins_put(pins, pins_interface_name(all[i].name, true, name), program_fd);
	return err;
}

/* Puts the new gate wherever the old one is. */
static int enter(const struct pinned_interface *all, int count, struct image *image, int old_gate, unsigned *new_id)
{
	int result;

	if (all[0].coexist)
		return enter_dispatchers(all, count, image, pins_program_id(old_gate), new_id);
	result = image_load(image);
	return result == CLI_OK ? update_links(all, count, image_gate_fd(image), old_gate) : result;
}

static int replace(const struct pins *pins, struct image *image, const struct pinned_interface *all, int count)
{
	int old_gate = pins_open(pins, "gate"), old_door = pins_open(pins, "door");
	bool dispatched = all[0].coexist; /* one program is never both */
	unsigned new_id = 0;
	int result = CLI_FAILED, err;

	if (old_gate < 0 || old_door < 0) {
		cli_say("the pins under %s are not complete: detach and attach again", pins->dir);
		goto out_close;
	}
	result = enter(all, count, image, old_gate, &new_id);
	if (result != CLI_OK)
		goto out_close;
	err = dispatched ? pin_dispatched(pins, all, count, image_gate_fd(image)) : 0;
	if (!err)
		err = pins_put(pins, "door", image_door_fd(image));
	if (!err) {
		err = pins_put(pins, "gate", image_gate_fd(image));
		if (err)
			pins_put(pins, "door", old_door);
	}
	if (err) {
		cli_say("cannot pin the new program under %s: %s; the former one goes back", pins->dir, strerror(-err));
		result = CLI_FAILED;
		if (dispatched) {
			pin_dispatched(pins, all, count, old_gate);
			leave_dispatchers(all, count, new_id);
		} else {
			update_links(all, count, old_gate, image_gate_fd(image));
		}
	} else if (dispatched) {
		result = leave_dispatchers(all, count, pins_program_id(old_gate));
	}
out_close:
	if (old_gate >= 0)
		close(old_gate);
	if (old_door >= 0)
		close(old_door);
	return result;
}

static int reload(const struct pins *pins)
{
	struct pinned_interface all[PINS_INTERFACES_MAX];
	struct sluice_control *control;
	struct image *image = NULL;
	int count = 0, alive = 0, result;

	result = pins_map_control(pins, &control);
	if (result != CLI_OK)
		return result;
	count = pins_interfaces(pins, all);
	if (count <= 0) {
		cli_say("no gate is attached (pin directory %s)", pins->dir);
		result = CLI_NOT_FOUND;
		goto out_unmap;
	}
	for (int i = 0; i < count; i++)
		alive += all[i].coexist || pins_link_ifindex(all[i].fd) > 0;
	result = image_open_on_pins(pins, &image);
	if (result == CLI_OK)
		result = replace(pins, image, all, count);
	if (result == CLI_OK) {
		/* After the door is pinned: a daemon that sees the new number finds the new door. */
		__u64 generation = __atomic_add_fetch(&control->generation, 1, __ATOMIC_RELEASE);

		cli_say("replaced the program on %d interface%s (generation %llu)", alive, alive == 1 ? "" : "s",
			(unsigned long long)generation);
	}
	image_close(image);
	pins_close_interfaces(all, count);
out_unmap:
	pins_unmap_control(control);
	return result;
}

int cmd_reload(int argc, char **argv)
{
	struct pins pins = {.lock_fd = -1};
	struct loader_args args;
	struct config config;
	int result = loader_args_parse(&args, &command, argc, argv);

	if (result != CLI_OK || args.help)
		return result;
	result = loader_args_config(&args, &config);
	if (result == CLI_OK)
		result = preflight_privilege();
	if (result == CLI_OK)
		result = pins_init(&pins, config.gate.pin_dir);
	image_quiet();
	if (result == CLI_OK)
		result = pins_lock(&pins, false);
	if (result == CLI_OK)
		result = reload(&pins);
	pins_unlock(&pins);
	return result;
}
