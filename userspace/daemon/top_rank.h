/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who was busiest in a sample of verdicts. */
#ifndef SLUICE_DAEMON_TOP_RANK_H
#define SLUICE_DAEMON_TOP_RANK_H

#include "daemon/watch.h"

/* A source (IPv4 address, IPv6 /64) or a prefix (/24, /48), as the rates count them. */
struct top_row {
	struct sluice_addr addr;
	unsigned len;    /* of the prefix, mapped form */
	double verdicts; /* estimated */
	double refused;  /* of those */
	unsigned reason; /* the most frequent */
	double reason_most;
};

/* Ranks `count` verdicts by source, or by prefix; sorts `sample` on the way. Writes no more than `max` rows, busiest first, and returns how
 * many. `all` (may be NULL) gets the number of different ones.
 */
unsigned top_rank(
	struct watched *sample, size_t count, bool by_prefix, struct top_row *rows, unsigned max, unsigned *all);

#endif
