/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluice attach: puts the gate on an interface.
 *
 * The order is that of what can fail: checks that change nothing, then maps and programs, then the hook, and the pins last. Until
 * everything stands, everything is undone on the way out: a file descriptor of an XDP link that is not pinned takes
 * its program with it, and pins without the one named `gate` are cleared away.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/coexist.h"
#include "cli/driver.h"
#include "cli/gate_look.h"
#include "cli/image.h"
#include "cli/loader.h"
#include "cli/loader_args.h"
#include "cli/pins.h"
#include "cli/preflight.h"
#include "cli/probe.h"

#define IP4_TCP_BYTES 40
#define IP6_TCP_BYTES 60
#define KERNEL_WORDS_BYTES 160

static const struct loader_command command = {
	.usage =
		"usage: sluice attach IFACE [--mode auto|native|generic] [--coexist] [--sysctl] [--config FILE] [--pin-dir DIR]\n\n"
		"Puts the gate on a network interface. A second interface joins the gate that is attached already.\n\n"
		"  -m, --mode MODE     native: in the driver; generic: in the stack, slower, with any driver;\n"
		"                      auto (default): native, else generic, and says which and why\n"
		"      --coexist       share the interface with other XDP programs (libxdp's dispatcher)\n"
		"      --sysctl        set net.ipv4.tcp_syncookies to 2, which the gate needs\n"
		"  -c, --config FILE   instead of " CONFIG_DEFAULT_PATH "\n"
		"  -p, --pin-dir DIR   instead of the config's\n\n"
		"Exit codes: 0 attached, 1 failed, 2 usage, 3 no such interface or file, 4 attached already or in use, 5 not allowed\n",
	.takes_interface = true,
	.takes_mode = true,
	.takes_coexist = true,
	.takes_sysctl = true,
};

struct attach {
	struct loader_args args;
	struct config config;
	struct pins pins;
	struct interface interface;
	struct image *image;
	struct probe *probe;
	struct sluice_control *control;
	int gate_fd; /* of the pinned program if the interface joins a gate, else the image's */
	int link_fd;
	unsigned dispatched_id; /* our program in libxdp's dispatcher; 0 = none */
	bool join;
	bool share;            /* by libxdp's dispatcher */
	bool joins_dispatcher; /* which was there before us */
	bool made_pins;
	bool native;
	bool is_veth; /* in native mode: one of its frames has room at the tail by luck at most */
	bool syncookies_changed;
	int syncookies_before;
};

/* Where a pin of this interface's name says that the gate is: the interface's own index, another one's (of another network namespace), or
 * 0 if it is nowhere any more.
 */
static unsigned pinned_where(const struct attach *attach, const struct pinned_interface *pin)
{
	unsigned id;
	int ifindex;

	if (!pin->coexist) {
		ifindex = pins_link_ifindex(pin->fd);
		return ifindex < 0 ? attach->interface.index : (unsigned)ifindex;
	}
	id = pins_program_id(pin->fd);
	if (coexist_holds(attach->interface.index, id))
		return attach->interface.index;
	return coexist_is_held_somewhere(id) ? UINT_MAX : 0;
}

/* A pin of this interface from before: attached, or the rest of an interface that is gone and came back. */
static int check_own_pin(struct attach *attach)
{
	struct pinned_interface all[PINS_INTERFACES_MAX];
	int count = pins_interfaces(&attach->pins, all), result = CLI_OK;

	if (count < 0) {
		cli_say("cannot read %s: %s", attach->pins.dir, strerror(-count));
		return CLI_FAILED;
	}
	for (int i = 0; i < count && result == CLI_OK; i++) {
		unsigned where;

		if (strcmp(all[i].name, attach->interface.name))
			continue;
		where = pinned_where(attach, &all[i]);
		if (where == 0) {
			pins_remove_interface(&attach->pins, &all[i]);
		} else if (where == attach->interface.index) {
			cli_say("the gate is attached to %s already (sluice reload replaces its program)", all[i].name);
			result = CLI_CONFLICT;
		} else {
			cli_say("the gate under %s is attached to another interface of the name %s, in another network namespace: use --pin-dir",
				attach->pins.dir, all[i].name);
			result = CLI_CONFLICT;
		}
	}
	pins_close_interfaces(all, count);
	return result;
}

/* A dispatcher is there already: the gate joins it, in its mode. */
static int check_dispatcher(struct attach *attach, bool native, unsigned dispatcher_id)
{
	const char *name = attach->interface.name;
	unsigned gate_id = coexist_find_gate(attach->interface.index);

	if (gate_id) {
		cli_say("a gate is in libxdp's dispatcher on %s already (program %u), but not one of %s: detach it with its own --pin-dir, or, if a "
			"loader was killed and left it, by xdp-loader unload %s --id %u",
			name, gate_id, attach->pins.dir, name, gate_id);
		return CLI_CONFLICT;
	}
	if (attach->args.mode != LOADER_AUTO && native != (attach->args.mode == LOADER_NATIVE)) {
		cli_say("libxdp's dispatcher is on %s in %s mode, and the programs in it share its mode: leave --mode away",
			name, native ? "native" : "generic");
		return CLI_CONFLICT;
	}
	attach->share = true;
	attach->native = native;
	attach->joins_dispatcher = true;
	cli_say("%s is shared: libxdp's dispatcher is on it (program %u), the gate joins it", name, dispatcher_id);
	return CLI_OK;
}

/* Who is on the hook decides if it must be shared. */
static int check_hook(struct attach *attach)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int err = bpf_xdp_query((int)attach->interface.index, 0, &query);
	char name[BPF_OBJ_NAME_LEN];
	struct dispatcher dispatcher;

	attach->share = attach->args.coexist;
	if (err) {
		cli_say("cannot ask for the XDP program of %s: %s", attach->interface.name, strerror(-err));
		return CLI_FAILED;
	}
	if (query.attach_mode == XDP_ATTACHED_NONE)
		return CLI_OK;
	dispatcher = coexist_look(attach->interface.index);
	if (dispatcher.there)
		return check_dispatcher(attach, dispatcher.native, query.prog_id);
	gate_program_name(query.prog_id, name, sizeof(name));
	if (!strcmp(name, GATE_PROGRAM_NAME)) {
		cli_say("a gate is on %s already (program %u), but not the one of %s: name its own --pin-dir, or take it off with that (sluice "
			"detach %s --pin-dir DIR)",
			attach->interface.name, query.prog_id, attach->pins.dir, attach->interface.name);
		return CLI_CONFLICT;
	}
	cli_say("another XDP program is on %s: %u \"%s\"%s, and libxdp's dispatcher does not hold it, so it cannot share: take it off (ip link set "
		"dev %s %s off)%s",
		attach->interface.name, query.prog_id, name, query.attach_mode == XDP_ATTACHED_SKB ? " (generic)" : "",
		attach->interface.name, query.attach_mode == XDP_ATTACHED_SKB ? "xdpgeneric" : "xdp",
		attach->share ? ", or have it attached by libxdp (xdp-loader load)"
			      : ", or have it attached by libxdp (xdp-loader load) and use --coexist");
	return CLI_CONFLICT;
}

/* A gate of a dispatcher can only go into another dispatcher, and one that has its interface for itself only onto another hook. */
static int check_kind(const struct attach *attach)
{
	bool for_dispatcher;
	int fd = pins_open(&attach->pins, "gate");

	if (fd < 0) {
		cli_say("cannot open %s/gate: %s", attach->pins.dir, strerror(-fd));
		return CLI_FAILED;
	}
	for_dispatcher = pins_program_is_extension(fd);
	close(fd);
	if (for_dispatcher == attach->share)
		return CLI_OK;
	if (for_dispatcher)
		cli_say("the gate under %s was loaded for libxdp's dispatcher and joins %s only with --coexist (or use --pin-dir for a gate of its own)",
			attach->pins.dir, attach->interface.name);
	else
		cli_say("%s would have to be shared by libxdp's dispatcher, and the gate under %s was not loaded for that: use --pin-dir for a gate of "
			"its own",
			attach->interface.name, attach->pins.dir);
	return CLI_CONFLICT;
}

static int check(struct attach *attach)
{
	int result = preflight_privilege();

	if (result == CLI_OK)
		result = preflight_interface(attach->args.interface, &attach->interface);
	if (result == CLI_OK)
		result = pins_init(&attach->pins, attach->config.gate.pin_dir);
	if (result == CLI_OK)
		result = pins_lock(&attach->pins, true);
	if (result == CLI_OK && !pins_has(&attach->pins, "gate"))
		pins_remove_all(
			&attach->pins); /* what a loader that was killed has left; a program on the hook goes with its link */
	if (result == CLI_OK)
		result = check_own_pin(attach);
	if (result == CLI_OK)
		result = check_hook(attach);
	if (result == CLI_OK && attach->args.mode == LOADER_NATIVE)
		result = preflight_mtu(&attach->interface);
	if (result != CLI_OK)
		return result;
	attach->join = pins_has(&attach->pins, "gate");
	result = attach->join ? check_kind(attach) : preflight_kernel();
	if (result == CLI_OK)
		result = preflight_syncookies(
			attach->args.sysctl, &attach->syncookies_changed, &attach->syncookies_before);
	return result;
}

/* --- the gate ---------------------------------------------------------------------------------------------------------------- */
static int join_gate(struct attach *attach)
{
	int result = pins_map_control(&attach->pins, &attach->control);

	if (result != CLI_OK)
		return result;
	attach->gate_fd = pins_open(&attach->pins, "gate");
	if (attach->gate_fd < 0) {
		cli_say("cannot open %s/gate: %s", attach->pins.dir, strerror(-attach->gate_fd));
		return CLI_FAILED;
	}
	cli_say("%s joins the gate that is pinned under %s: its services, limits and sizes stay as they are",
		attach->interface.name, attach->pins.dir);
	if (!attach->share)
		return CLI_OK;
	result = coexist_join(pins_program_id(attach->gate_fd), &attach->interface, attach->native);
	if (result == CLI_OK)
		attach->dispatched_id = pins_program_id(attach->gate_fd);
	return result;
}

static int make_gate(struct attach *attach)
{
	int result;

	attach->image = image_open(&attach->config);
	if (!attach->image)
		return CLI_FAILED;
	if (attach->share) {
		/* The dispatcher takes a program only while it is being loaded. Before the maps are filled the gate protects nothing and
		 * passes everything.
		 */
		result = coexist_attach(attach->image, &attach->interface, attach->native, &attach->dispatched_id);
	} else {
		result = image_load(attach->image);
	}
	if (result == CLI_OK)
		result = image_fill(attach->image, &attach->config, &attach->interface);
	if (result != CLI_OK)
		return result;
	attach->made_pins = true;
	attach->gate_fd = dup(image_gate_fd(attach->image));
	result = pins_make_directory(&attach->pins);
	if (result == CLI_OK)
		result = image_pin(attach->image, &attach->pins);
	if (result == CLI_OK)
		result = pins_map_control(&attach->pins, &attach->control);
	return result;
}

/* --- the hook ---------------------------------------------------------------------------------------------------------------- */
static int link_create(const struct attach *attach, int program_fd, bool native)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);

	return bpf_link_create(program_fd, (int)attach->interface.index, BPF_XDP, &opts);
}

/* A link says only a number. The same question by netlink makes the driver, or the kernel before it, say why; its words, or "". */
static void ask_why(const struct attach *attach, char *words, size_t size)
{
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts, .old_prog_fd = probe_program_fd(attach->probe));
	__u32 flags = XDP_FLAGS_DRV_MODE;

	if (!bpf_xdp_attach((int)attach->interface.index, opts.old_prog_fd, flags | XDP_FLAGS_UPDATE_IF_NOEXIST, NULL))
		bpf_xdp_detach((int)attach->interface.index, flags | XDP_FLAGS_REPLACE, &opts); /* it has come round */
	image_kernel_message(words, size);
}

static int say_link_failed(const struct attach *attach, int err, bool native)
{
	const char *name = attach->interface.name, *mode = native ? "native" : "generic";
	char words[KERNEL_WORDS_BYTES] = "";

	switch (err) {
	case -EBUSY:
	case -EEXIST:
		cli_say("another XDP program has come onto %s: see ip link show dev %s", name, name);
		return CLI_CONFLICT;
	case -EPERM:
	case -EACCES:
		cli_say("the kernel did not allow to attach to %s: %s", name, strerror(-err));
		return CLI_NOT_ALLOWED;
	case -ERANGE:
		/* What veth says when the frames of its peer are too large. */
		cli_say("the MTU of %s, or of its peer, is too large for XDP in native mode (one buffer a frame); the largest that works is %u",
			name, preflight_mtu_max());
		return CLI_FAILED;
	}
	if (native)
		ask_why(attach, words, sizeof(words));
	if (*words)
		cli_say("cannot attach to %s in %s mode: the kernel says \"%s\" (--mode generic works with any driver)",
			name, mode, words);
	else if (err == -EOPNOTSUPP)
		cli_say("cannot attach to %s in %s mode: the driver does not support it%s", name, mode,
			native ? " (--mode generic works with any driver)" : "");
	else
		cli_say("cannot attach to %s in %s mode: %s%s", name, mode, strerror(-err),
			native ? " (drivers refuse for large receive offload, or too few queues: dmesg may say more; --mode generic works with any driver)"
			       : "");
	return CLI_FAILED;
}

/* Puts the probe program on the hook in the mode that was asked for, or the best that works. */
static int take_hook(struct attach *attach)
{
	int program_fd = probe_program_fd(attach->probe);
	char words[KERNEL_WORDS_BYTES] = "";
	int err = -EOPNOTSUPP;

	if (attach->args.mode != LOADER_GENERIC) {
		attach->native = true;
		attach->link_fd = err = link_create(attach, program_fd, true);
		if (err >= 0)
			return CLI_OK;
		if (attach->args.mode == LOADER_NATIVE || err == -EBUSY || err == -EEXIST || err == -EPERM ||
			err == -EACCES)
			return say_link_failed(attach, err, true);
		if (err == -ERANGE || attach->interface.mtu > preflight_mtu_max())
			cli_say("native mode does not work on %s: its MTU, or its peer's, is above %u, the largest for XDP with one buffer a frame: "
				"using generic mode, which copies such frames and is slower",
				attach->interface.name, preflight_mtu_max());
		else {
			ask_why(attach, words, sizeof(words));
			cli_say("native mode does not work on %s (%s%s): using generic mode, which is slower",
				attach->interface.name, *words ? "the kernel says: " : "",
				*words                       ? words
					: err == -EOPNOTSUPP ? "the driver does not support it"
							     : strerror(-err));
		}
	}
	attach->native = false;
	attach->link_fd = err = link_create(attach, program_fd, false);
	return err >= 0 ? CLI_OK : say_link_failed(attach, err, false);
}

/* What the gate needs to know of its interfaces: with several, the smallest MSS, and what can grow on any of them (the gate falls
 * back where a frame cannot).
 */
static void note_interface(struct attach *attach, const struct probe_result *probed)
{
	unsigned mss4 = attach->interface.mtu - IP4_TCP_BYTES, mss6 = attach->interface.mtu - IP6_TCP_BYTES;
	__u32 grow = 0;

	if (mss4 < attach->control->mss4)
		attach->control->mss4 = (__u16)mss4;
	if (mss6 < attach->control->mss6)
		attach->control->mss6 = (__u16)mss6;
	if (!probed->frames || probed->head_grows)
		grow |= SLUICE_GROW_HEAD;
	if (probed->frames ? probed->tail_grows : !attach->is_veth)
		grow |= SLUICE_GROW_TAIL;
	__atomic_fetch_or(&attach->control->grow, grow, __ATOMIC_RELAXED);
}

/* The probe program takes the hook, for the moment of the self-test. */
static int probe_hook(struct attach *attach, struct probe_result *probed)
{
	struct driver driver;
	int result;

	attach->probe = probe_open();
	if (!attach->probe)
		return CLI_FAILED;
	result = take_hook(attach);
	if (result == CLI_OK) {
		probe_run(attach->probe, &attach->interface, probed);
		driver_ask(attach->interface.name, &driver);
		attach->is_veth = attach->native && driver_is_veth(&driver);
		probed->tail_grows &= !attach->is_veth;
	}
	return result;
}

/* Before libxdp makes a dispatcher: which mode works, what the driver says if none does, and if frames can grow. Libxdp would only say
 * that something has failed.
 */
static int probe_before_sharing(struct attach *attach, struct probe_result *probed)
{
	int result = probe_hook(attach, probed);

	if (attach->link_fd >= 0) {
		bpf_link_detach(attach->link_fd);
		close(attach->link_fd);
		attach->link_fd = -1;
	}
	return result;
}

static int put_gate_on_hook(struct attach *attach, struct probe_result *probed)
{
	char name[PINS_NAME_MAX];
	int result = probe_hook(attach, probed), err;

	if (result != CLI_OK)
		return result;
	note_interface(attach, probed);
	err = bpf_link_update(attach->link_fd, attach->gate_fd, NULL);
	if (err) {
		cli_say("cannot put the gate on %s: %s", attach->interface.name, strerror(-err));
		return CLI_FAILED;
	}
	err = pins_put(&attach->pins, pins_interface_name(attach->interface.name, false, name), attach->link_fd);
	if (err) {
		cli_say("cannot pin %s/%s: %s", attach->pins.dir, name, strerror(-err));
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int attach_gate(struct attach *attach, struct probe_result *probed)
{
	char name[PINS_NAME_MAX];
	int result = check(attach);
	int err = 0;

	if (result == CLI_OK && attach->share && !attach->joins_dispatcher)
		result = probe_before_sharing(attach, probed);
	if (result == CLI_OK)
		result = attach->join ? join_gate(attach) : make_gate(attach);
	if (result != CLI_OK)
		return result;
	if (attach->share) {
		note_interface(attach, probed);
		err = pins_put(&attach->pins, pins_interface_name(attach->interface.name, true, name), attach->gate_fd);
	} else {
		result = put_gate_on_hook(attach, probed);
	}
	if (result == CLI_OK && !err && !attach->join)
		err = pins_put(&attach->pins, "gate", attach->gate_fd);
	if (!err)
		return result;
	cli_say("cannot pin the gate under %s: %s", attach->pins.dir, strerror(-err));
	return CLI_FAILED;
}

static void say_attached(const struct attach *attach, const struct probe_result *probed)
{
	cli_say("attached to %s (%s%s), pinned under %s", attach->interface.name,
		attach->share ? "libxdp's dispatcher, " : "", attach->native ? "native" : "generic", attach->pins.dir);
	if (attach->joins_dispatcher)
		cli_say("room for answers: not tested, the dispatcher was there before; the gate tries both ends of a frame at run time");
	else if (!probed->frames)
		cli_say("room for answers: no frame was seen; the gate tries both ends of a frame at run time");
	else
		cli_say("room for answers: frames can%s grow at the head and can%s at the tail%s",
			probed->head_grows ? "" : "not", probed->tail_grows ? "" : "not",
			probed->head_grows || probed->tail_grows
				? ""
				: ": answers longer than their request are sent in the short form");
}

static void say_driver(const struct attach *attach)
{
	struct driver driver;

	driver_ask(attach->interface.name, &driver);
	if (attach->native && driver_is_veth(&driver))
		cli_say("%s is a veth, which " DRIVER_VETH_RULE, attach->interface.name);
}

static void undo(struct attach *attach)
{
	struct pinned_interface own = {.coexist = attach->share};

	snprintf(own.name, sizeof(own.name), "%s", attach->interface.name);
	if (attach->dispatched_id)
		coexist_detach(attach->interface.index, attach->interface.name, attach->dispatched_id);
	if (attach->link_fd >= 0) {
		bpf_link_detach(attach->link_fd);
		pins_remove_interface(&attach->pins, &own);
	}
	if (attach->made_pins)
		pins_remove_all(&attach->pins);
	if (attach->syncookies_changed)
		preflight_restore_syncookies(attach->syncookies_before);
}

int cmd_attach(int argc, char **argv)
{
	struct attach attach = {.pins.lock_fd = -1, .gate_fd = -1, .link_fd = -1};
	struct probe_result probed = {0};
	int result = loader_args_parse(&attach.args, &command, argc, argv);

	if (result != CLI_OK || attach.args.help)
		return result;
	if (!attach.args.interface) {
		cli_say("attach: which interface? (see sluice attach --help)");
		return CLI_USAGE;
	}
	result = loader_args_config(&attach.args, &attach.config);
	if (result != CLI_OK)
		return result;
	image_quiet();
	result = attach_gate(&attach, &probed);
	if (result == CLI_OK) {
		say_attached(&attach, &probed);
		say_driver(&attach);
	} else {
		undo(&attach);
	}
	pins_unmap_control(attach.control);
	probe_close(attach.probe);
	if (attach.link_fd >= 0)
		close(attach.link_fd);
	if (attach.gate_fd >= 0)
		close(attach.gate_fd);
	image_close(attach.image);
	pins_unlock(&attach.pins);
	return result;
}
