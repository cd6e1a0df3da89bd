/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluice detach: takes the gate off one interface or all; with the last one go the maps, the programs and the directory. Interfaces that
 * are gone (a deleted namespace, an unplugged card) are cleared away on the same occasion.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/coexist.h"
#include "cli/gate_look.h"
#include "cli/image.h"
#include "cli/loader.h"
#include "cli/loader_args.h"
#include "cli/pins.h"
#include "cli/preflight.h"

static const struct loader_command command = {
	.usage =
		"usage: sluice detach IFACE | --all [--yes] [--config FILE] [--pin-dir DIR]\n\n"
		"Takes the gate off an interface. With the last one all its maps go, and the records of admissions in them.\n"
		"Without IFACE and --all: the interface, if there is only one.\n\n"
		"      --all           off every interface\n"
		"      --yes           do not ask, though sluiced runs with this gate (nobody is asked without a terminal)\n"
		"  -c, --config FILE   instead of " CONFIG_DEFAULT_PATH "\n"
		"  -p, --pin-dir DIR   instead of the config's\n\n"
		"Exit codes: 0 detached, 1 failed, 2 usage, 3 not attached, 4 another loader is at work, 5 not allowed\n",
	.takes_interface = true,
	.takes_all = true,
};

static int detach_from_dispatcher(const struct pins *pins, const struct pinned_interface *interface)
{
	unsigned id = pins_program_id(interface->fd), ifindex = if_nametoindex(interface->name);
	int result = ifindex ? coexist_detach(ifindex, interface->name, id) : CLI_NOT_FOUND, err;

	if (result == CLI_FAILED)
		return result;
	if (result == CLI_NOT_FOUND && coexist_is_held_somewhere(id)) {
		/* Without its pins nobody could take it out any more. */
		cli_say("the gate is in a dispatcher of %s, but not in this network namespace: detach it there (if the interface is gone, "
			"xdp-loader clean removes what libxdp has left of it)",
			interface->name);
		return CLI_FAILED;
	}
	if (result == CLI_NOT_FOUND)
		cli_say("the gate was not in the dispatcher of %s any more", interface->name);
	err = pins_remove_interface(pins, interface);
	if (!err)
		return CLI_OK;
	cli_say("cannot remove the pin of %s: %s", interface->name, strerror(-err));
	return CLI_FAILED;
}

static int detach_one(const struct pins *pins, const struct pinned_interface *interface)
{
	int result = CLI_OK, err;

	if (interface->coexist) {
		result = detach_from_dispatcher(pins, interface);
	} else {
		/* Detaching works at once, also if some other process holds the link. */
		err = bpf_link_detach(interface->fd);
		if (err && pins_link_ifindex(interface->fd) > 0) {
			cli_say("cannot detach from %s: %s", interface->name, strerror(-err));
			return CLI_FAILED;
		}
		err = pins_remove_interface(pins, interface);
		if (err) {
			cli_say("cannot remove the pin of %s: %s", interface->name, strerror(-err));
			result = CLI_FAILED;
		}
	}
	if (result == CLI_OK)
		cli_say("detached from %s", interface->name);
	return result;
}

/* Detaches what was asked for. *left tells how many interfaces the gate is still on. */
static int detach_interfaces(const struct pins *pins, const struct loader_args *args, int *left)
{
	struct pinned_interface all[PINS_INTERFACES_MAX];
	int count = pins_interfaces(pins, all), result = CLI_OK;
	bool found = args->all;

	*left = 0;
	if (count < 0) {
		cli_say("cannot read %s: %s", pins->dir, strerror(-count));
		return count == -EACCES || count == -EPERM ? CLI_NOT_ALLOWED : CLI_FAILED;
	}
	if (!args->all && !args->interface && count > 1) {
		cli_say("the gate is on %d interfaces: name one, or use --all", count);
		pins_close_interfaces(all, count);
		return CLI_USAGE;
	}
	for (int i = 0; i < count; i++) {
		bool wanted = args->all || !args->interface || !strcmp(all[i].name, args->interface);
		bool gone = !all[i].coexist && pins_link_ifindex(all[i].fd) == 0;
		int one = CLI_OK;

		found = found || wanted;
		if (wanted || gone)
			one = detach_one(pins, &all[i]);
		else
			++*left;
		if (one != CLI_OK) {
			result = one;
			++*left;
		}
	}
	pins_close_interfaces(all, count);
	if (result == CLI_OK && count == 0 && !args->all && !args->interface) {
		cli_say("detach: which interface? (none is attached under %s; see sluice detach --help)", pins->dir);
		return CLI_USAGE;
	}
	if (result == CLI_OK && (!found || (count == 0 && !pins_has(pins, "control")))) {
		cli_say("the gate is not attached%s%s (pin directory %s)", args->interface ? " to " : "",
			args->interface ? args->interface : "", pins->dir);
		return CLI_NOT_FOUND;
	}
	return result;
}

/* With the gate goes the daemon, and with the last interface the gate. */
static int ask_first(const struct pins *pins, const struct loader_args *args)
{
	struct pinned_interface all[PINS_INTERFACES_MAX];
	struct sluice_control *control;
	int count, result = CLI_OK;
	char said[256];

	count = pins_interfaces(pins, all);
	if (count > 0)
		pins_close_interfaces(all, count);
	if (args->yes || (!args->all && count != 1))
		return CLI_OK;
	cli_say_into(said, sizeof(said));
	pins_map_control(pins, &control); /* what is wrong with it keeps nobody from detaching */
	cli_say_into(NULL, 0);
	if (control && gate_daemon_is_alive(control))
		result = cli_confirm(stdin,
			"sluiced runs with this gate%s, and ends with it; systemd starts it again, in vain, until a gate is attached.",
			__atomic_load_n(&control->flags, __ATOMIC_RELAXED) & SLUICE_CONTROL_ORDERS_OPEN
				? ", orders are open"
				: "");
	pins_unmap_control(control);
	return result;
}

int cmd_detach(int argc, char **argv)
{
	struct pins pins = {.lock_fd = -1};
	struct loader_args args;
	struct config config;
	int result = loader_args_parse(&args, &command, argc, argv);
	int left = 0, err;

	if (result != CLI_OK || args.help)
		return result;
	if (args.all && args.interface) {
		cli_say("detach: either an interface or --all");
		return CLI_USAGE;
	}
	result = loader_args_config(&args, &config);
	if (result == CLI_OK)
		result = preflight_privilege();
	if (result == CLI_OK)
		result = pins_init(&pins, config.gate.pin_dir);
	image_quiet();
	if (result == CLI_OK)
		result = ask_first(&pins, &args);
	if (result == CLI_OK)
		result = pins_lock(&pins, false);
	if (result == CLI_OK)
		result = detach_interfaces(&pins, &args, &left);
	if (result == CLI_OK && left == 0) {
		err = pins_remove_all(&pins);
		if (err) {
			cli_say("detached, but %s cannot be removed whole: %s", pins.dir, strerror(-err));
			result = CLI_FAILED;
		}
	}
	pins_unlock(&pins);
	return result;
}
