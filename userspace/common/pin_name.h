/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Names of the pins that stand for the gate's interfaces: `link-eth0` (the XDP link) or `coexist-eth0` (the program, where libxdp's dispatcher holds it).
 * bpffs allows no dot in a name; interface names allow no colon; so eth0.100 is `link-eth0:100`.
 */
#ifndef SLUICE_COMMON_PIN_NAME_H
#define SLUICE_COMMON_PIN_NAME_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

#define PIN_LINK_PREFIX "link-"

/* Returns `name`. */
char *pin_name_of_interface(const char *interface, bool coexist, char *name, size_t size);
/* `interface` holds IF_NAMESIZE. False if the pin stands for no interface. */
bool pin_name_to_interface(const char *pin, char *interface, bool *coexist);

#endif
