/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sharing an interface with other XDP programs by libxdp's dispatcher. Never silent: where libxdp would fall back to a plain attach, the
 * attach is undone and the reason given. Functions that return int return an exit code (enum cli_exit) and have said what is wrong.
 *
 * A gate that was loaded for a dispatcher is a program of another type (BPF_PROG_TYPE_EXT) than one that has an interface for itself, and
 * cannot become the other. It can be put into several dispatchers, and again into one that it was taken out of.
 */
#ifndef SLUICE_CLI_COEXIST_H
#define SLUICE_CLI_COEXIST_H

#include <stdbool.h>

#include "cli/image.h"

/* What libxdp knows of an interface in this network namespace. */
struct dispatcher {
	bool there;  /* the program on the interface is libxdp's dispatcher */
	bool native; /* the mode that it is attached in */
};

struct dispatcher coexist_look(unsigned ifindex);
/* True if the program with this id is in the interface's dispatcher. */
bool coexist_holds(unsigned ifindex, unsigned program_id);
/* The id of a gate in the interface's dispatcher, whoever's; 0 = none. */
unsigned coexist_find_gate(unsigned ifindex);
/* True if the program is in some dispatcher, in any network namespace (or in the pins of one whose interface is gone). */
bool coexist_is_held_somewhere(unsigned program_id);

/* Loads the image as a part of the interface's dispatcher and attaches it; *program_id is the gate's. */
int coexist_attach(struct image *image, const struct interface *interface, bool native, unsigned *program_id);
/* Puts a gate that was loaded by coexist_attach into another dispatcher. */
int coexist_join(unsigned program_id, const struct interface *interface, bool native);
/* Takes the program with this id out of the interface's dispatcher. Returns CLI_NOT_FOUND if it is not in it. */
int coexist_detach(unsigned ifindex, const char *interface, unsigned program_id);

#endif
