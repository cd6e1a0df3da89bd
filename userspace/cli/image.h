/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's object file, which is part of this program: opened, sized, loaded, filled, pinned. Used by attach and reload.
 * Functions that return int return an exit code (enum cli_exit) and have said what is wrong.
 */
#ifndef SLUICE_CLI_IMAGE_H
#define SLUICE_CLI_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/pins.h"
#include "cli/preflight.h"
#include "common/config.h"

struct bpf_object;
struct image;

/* From here on libbpf and libxdp speak to a buffer; image_say_log shows its end. */
void image_quiet(void);
void image_say_log(void);
/* True if the libraries have said these words since the log was last shown or emptied. */
bool image_log_has(const char *words);
/* What the kernel answered last with a refusal by netlink, as libbpf logged it since the last call; "" if it gave no words. */
void image_kernel_message(char *text, size_t size);

/* Opens the object for a new gate with the sizes of `config`. NULL after a message. */
struct image *image_open(const struct config *config);
/* Opens it on top of the maps of the gate that is pinned; refuses if one of them differs. Returns CLI_CONFLICT then. */
int image_open_on_pins(const struct pins *pins, struct image **image);
void image_close(struct image *image); /* NULL-safe; what is pinned stays */

/* Makes maps, verifies programs. */
int image_load(struct image *image);
/* Services, ports, limits, control word, answers. `interface` gives the MSS. */
int image_fill(struct image *image, const struct config *config, const struct interface *interface);
/* Pins maps and door. The gate itself is pinned by the caller once all else stands: it marks the pins as complete. */
int image_pin(struct image *image, const struct pins *pins);

struct bpf_object *image_object(struct image *image);
int image_gate_fd(const struct image *image);
int image_door_fd(const struct image *image);

#endif
