/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What an interface's driver tells by ethtool that matters to the gate: which driver it is, and whether it has dropped answers. A frame that
 * the gate answers (XDP_TX) and the driver then drops is in no counter of the gate's.
 */
#ifndef SLUICE_CLI_DRIVER_H
#define SLUICE_CLI_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#define DRIVER_NAME_MAX 32

struct driver {
	char name[DRIVER_NAME_MAX];    /* "veth"; "" if it cannot be told */
	char counter[DRIVER_NAME_MAX]; /* the largest that counts answers that were dropped */
	uint64_t dropped;              /* its value; 0 = none, or the driver does not count */
};

/* What a veth does with answers, to be said after its name. */
#define DRIVER_VETH_RULE "delivers the gate's answers only to a peer that has an XDP program of its own"

void driver_ask(const char *interface, struct driver *driver);
bool driver_is_veth(const struct driver *driver);
/* By its name: does this counter of a driver count XDP_TX frames that were not sent? Drivers agree on no name; these are of veth, virtio_net,
 * mlx5, ena and their like.
 */
bool driver_counts_drops(const char *counter);

#endif
