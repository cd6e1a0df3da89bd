/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sharing an interface with other XDP programs by libxdp's dispatcher. Never silent: where libxdp would fall back to a plain attach, the
 * attach is undone and the reason given. Functions return an exit code (enum cli_exit) and have said what is wrong.
 */
#ifndef SLUICE_CLI_COEXIST_H
#define SLUICE_CLI_COEXIST_H

#include <stdbool.h>

#include "cli/image.h"
#include "cli/loader_args.h"

/* True if the program on the interface is libxdp's dispatcher. */
bool coexist_dispatcher_is_there(unsigned ifindex);
/* Loads the image as a part of the dispatcher and attaches it; *program_id is the gate's. */
int coexist_attach(struct image *image, const struct interface *interface, enum loader_mode mode, unsigned *program_id);
/* Takes the program with this id out of the interface's dispatcher. Returns CLI_NOT_FOUND if it is not in it. */
int coexist_detach(unsigned ifindex, const char *interface, unsigned program_id);

#endif
