/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* SYNs with a made-up source, as whole Ethernet frames on the client's veth. Only ever used inside the drill's own namespaces. */
#ifndef SLUICE_DRILL_SPOOF_H
#define SLUICE_DRILL_SPOOF_H

#include <stddef.h>
#include <stdint.h>

#include "drill/places.h"

#define DRILL_FRAME_MAX 96

/* Builds a SYN with an MSS option, its checksums complete. `from` and `to` are of one family and have their ports set.
 * `frame` holds DRILL_FRAME_MAX bytes. Returns the length.
 */
size_t drill_spoof_frame(uint8_t *frame, const uint8_t to_mac[6], const uint8_t from_mac[6],
	const union drill_address *from, const union drill_address *to, uint32_t sequence);

/* Opens a packet socket on `interface` in the calling thread's namespace. Returns an fd or negative errno. */
int drill_spoof_open(const char *interface);
/* Sends one frame; a full queue only loses it. Returns 0 or negative errno. */
int drill_spoof_send(int fd, const uint8_t *frame, size_t length);

#endif
