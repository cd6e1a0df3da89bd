/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* libxdp's dispatcher: a small XDP program on the hook that calls others one after another, each put in its place by "freplace"
 * (BPF_PROG_TYPE_EXT). To take one in or out, libxdp makes a new dispatcher and swaps the two on the hook in one step. See coexist.h.
 */
#include "cli/coexist.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include "cli/cli.h"
#include "cli/gate_look.h"

/* The verifier's words, from Linux 6.13 on and in the stable series that took the change: the dispatcher's empty functions do not say that
 * what replaces them may change packets. Those of libxdp 1.5.5 do.
 */
#define CHANGES_PACKETS "Extension program changes packet data"

static int say_no_dispatcher(const char *interface, int err)
{
	struct utsname kernel = {0};
	char reason[128] = "";

	uname(&kernel);
	if (image_log_has(CHANGES_PACKETS)) {
		cli_say("cannot share %s: this kernel (%s) puts no program that changes packets, as the gate does, into the dispatcher of a libxdp "
			"before 1.5.5. Nothing was changed; without --coexist the gate takes the interface alone",
			interface, kernel.release);
		return CLI_FAILED;
	}
	if (err)
		libxdp_strerror(err, reason, sizeof(reason));
	image_say_log();
	cli_say("cannot share %s: libxdp's dispatcher does not work on this kernel (%s)%s%s; it needs to attach one program to another (freplace). "
		"Nothing was changed; without --coexist the gate takes the interface alone",
		interface, kernel.release, *reason ? ": " : "", reason);
	return CLI_FAILED;
}

/* The dispatcher of an interface, or NULL. */
static struct xdp_multiprog *dispatcher_of(unsigned ifindex)
{
	struct xdp_multiprog *programs = xdp_multiprog__get_from_ifindex((int)ifindex);

	if (!programs || libxdp_get_error(programs))
		return NULL;
	if (!xdp_multiprog__is_legacy(programs))
		return programs;
	xdp_multiprog__close(programs);
	return NULL;
}

struct dispatcher coexist_look(unsigned ifindex)
{
	struct xdp_multiprog *programs = dispatcher_of(ifindex);
	struct dispatcher found = {.there = programs};

	if (programs)
		found.native = xdp_multiprog__attach_mode(programs) != XDP_MODE_SKB;
	xdp_multiprog__close(programs);
	return found;
}

bool coexist_holds(unsigned ifindex, unsigned program_id)
{
	struct xdp_multiprog *programs = dispatcher_of(ifindex);
	struct xdp_program *program = NULL;

	while (programs && (program = xdp_multiprog__next_prog(program, programs)))
		if (xdp_program__id(program) == program_id)
			break;
	xdp_multiprog__close(programs);
	return program;
}

unsigned coexist_find_gate(unsigned ifindex)
{
	struct xdp_multiprog *programs = dispatcher_of(ifindex);
	struct xdp_program *program = NULL;
	unsigned id = 0;

	while (programs && !id && (program = xdp_multiprog__next_prog(program, programs)))
		if (!strcmp(xdp_program__name(program), GATE_PROGRAM_NAME))
			id = xdp_program__id(program);
	xdp_multiprog__close(programs);
	return id;
}

bool coexist_is_held_somewhere(unsigned program_id)
{
	bool held = false;

	for (__u32 id = 0; !held && !bpf_link_get_next_id(id, &id);) {
		struct bpf_link_info info = {0};
		__u32 length = sizeof(info);
		int fd = bpf_link_get_fd_by_id(id);

		if (fd < 0)
			continue; /* gone meanwhile */
		held = !bpf_obj_get_info_by_fd(fd, &info, &length) && info.type == BPF_LINK_TYPE_TRACING &&
			info.prog_id == program_id;
		close(fd);
	}
	return held;
}

static int put_into_dispatcher(struct xdp_program *program, const struct interface *interface, bool native)
{
	enum xdp_attach_mode mode = native ? XDP_MODE_NATIVE : XDP_MODE_SKB;
	int err = xdp_program__attach(program, (int)interface->index, mode, 0);

	if (!err) {
		if (coexist_look(interface->index).there)
			return CLI_OK;
		/* libxdp has attached the program alone and says nothing about it. */
		xdp_program__detach(program, (int)interface->index, mode, 0);
	}
	if (err == -EEXIST || err == -EBUSY) {
		cli_say("cannot share %s: the program that is on it is not in libxdp's dispatcher; its owner must attach it by libxdp "
			"(xdp-loader load), or take it off",
			interface->name);
		return CLI_CONFLICT;
	}
	return say_no_dispatcher(interface->name, err);
}

int coexist_attach(struct image *image, const struct interface *interface, bool native, unsigned *program_id)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .obj = image_object(image), .prog_name = GATE_PROGRAM_NAME);
	struct xdp_program *program = xdp_program__create(&opts);
	int result = (int)libxdp_get_error(program);

	if (result)
		return say_no_dispatcher(interface->name, result);
	/* What the gate passes goes on to the programs after it; what it drops or answers is done with. That is libxdp's default, which a
	 * program that is loaded already has too.
	 */
	xdp_program__set_chain_call_enabled(program, XDP_PASS, true);
	result = put_into_dispatcher(program, interface, native);
	if (result == CLI_OK)
		*program_id = xdp_program__id(program);
	xdp_program__close(program); /* the object belongs to the image */
	return result;
}

int coexist_join(unsigned program_id, const struct interface *interface, bool native)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .id = program_id);
	struct xdp_program *program = xdp_program__create(&opts);
	int result = (int)libxdp_get_error(program);

	if (result)
		return say_no_dispatcher(interface->name, result);
	result = put_into_dispatcher(program, interface, native);
	xdp_program__close(program);
	return result;
}

int coexist_detach(unsigned ifindex, const char *interface, unsigned program_id)
{
	struct xdp_multiprog *programs = dispatcher_of(ifindex);
	struct xdp_program *program = NULL;
	int err;

	while (programs && (program = xdp_multiprog__next_prog(program, programs)))
		if (xdp_program__id(program) == program_id)
			break;
	if (!program) {
		xdp_multiprog__close(programs);
		return CLI_NOT_FOUND;
	}
	err = xdp_program__detach(program, (int)ifindex, xdp_multiprog__attach_mode(programs), 0);
	xdp_multiprog__close(programs);
	if (!err)
		return CLI_OK;
	image_say_log();
	cli_say("cannot take the gate out of the dispatcher on %s: %s", interface, strerror(-err));
	return CLI_FAILED;
}
