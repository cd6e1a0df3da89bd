/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* libxdp's dispatcher: a small XDP program on the hook that calls others one after another, each put in its place by "freplace"
 * (BPF_PROG_TYPE_EXT). See coexist.h.
 */
#include "cli/coexist.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>
#include <sys/utsname.h>
#include <xdp/libxdp.h>

#include "cli/cli.h"

static const enum xdp_attach_mode libxdp_mode[] = {
	[LOADER_AUTO] = XDP_MODE_NATIVE,
	[LOADER_NATIVE] = XDP_MODE_NATIVE,
	[LOADER_GENERIC] = XDP_MODE_SKB,
};

static int say_no_dispatcher(const char *interface, int err)
{
	struct utsname kernel = {0};
	char reason[128] = "";

	uname(&kernel);
	if (err)
		libxdp_strerror(err, reason, sizeof(reason));
	image_say_log();
	cli_say("cannot share %s: libxdp's dispatcher does not work on this kernel (%s)%s%s; it needs to attach one program to another (freplace), "
		"and on Linux 6.13 or newer libxdp 1.5.5. Nothing is attached; without --coexist the gate takes the interface alone",
		interface, kernel.release, *reason ? ": " : "", reason);
	return CLI_FAILED;
}

bool coexist_dispatcher_is_there(unsigned ifindex)
{
	struct xdp_multiprog *programs = xdp_multiprog__get_from_ifindex((int)ifindex);
	bool there;

	if (!programs || libxdp_get_error(programs))
		return false;
	there = !xdp_multiprog__is_legacy(programs);
	xdp_multiprog__close(programs);
	return there;
}

int coexist_attach(struct image *image, const struct interface *interface, enum loader_mode mode, unsigned *program_id)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .obj = image_object(image), .prog_name = "sluice_gate");
	struct xdp_program *program = xdp_program__create(&opts);
	int err = (int)libxdp_get_error(program);

	if (err)
		return say_no_dispatcher(interface->name, err);
	/* What the gate passes goes on to the programs after it; what it drops or answers is done with. */
	err = xdp_program__set_chain_call_enabled(program, XDP_PASS, true);
	if (!err)
		err = xdp_program__attach(program, (int)interface->index, libxdp_mode[mode], 0);
	if (!err && !coexist_dispatcher_is_there(interface->index)) {
		/* libxdp has attached the program alone and says nothing about it. */
		xdp_program__detach(program, (int)interface->index, libxdp_mode[mode], 0);
		err = say_no_dispatcher(interface->name, 0); /* an exit code, as the branches below */
	} else if (err == -EEXIST || err == -EBUSY) {
		cli_say("cannot share %s: the program that is on it is not in libxdp's dispatcher; its owner must attach it by libxdp "
			"(xdp-loader load), or take it off",
			interface->name);
		err = CLI_CONFLICT;
	} else if (err) {
		err = say_no_dispatcher(interface->name, err);
	} else {
		*program_id = xdp_program__id(program);
	}
	xdp_program__close(program); /* the object belongs to the image */
	return err;
}

int coexist_detach(unsigned ifindex, const char *interface, unsigned program_id)
{
	struct xdp_multiprog *programs = xdp_multiprog__get_from_ifindex((int)ifindex);
	struct xdp_program *program = NULL;
	int err;

	if (!programs || libxdp_get_error(programs))
		return CLI_NOT_FOUND;
	while ((program = xdp_multiprog__next_prog(program, programs)))
		if (xdp_program__id(program) == program_id)
			break;
	err = program ? xdp_program__detach(program, (int)ifindex, xdp_multiprog__attach_mode(programs), 0) : -ENOENT;
	xdp_multiprog__close(programs);
	if (err == -ENOENT)
		return CLI_NOT_FOUND;
	if (!err)
		return CLI_OK;
	image_say_log();
	cli_say("cannot take the gate out of the dispatcher on %s: %s", interface, strerror(-err));
	return CLI_FAILED;
}
