/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which buyers this node knows, of many sales at once: those with a live token, and those with an order. */
#ifndef SLUICE_DAEMON_FLEET_HOMES_KNOWN_H
#define SLUICE_DAEMON_FLEET_HOMES_KNOWN_H

#include <stddef.h>
#include <stdint.h>

struct homes_known {
	uint32_t sale;
	uint64_t *buyers; /* the caller's, freed by free(); a buyer may be there more than once */
	size_t count, capacity;
};

/* By number of the sale, as the other calls want them. */
void homes_known_sort(struct homes_known *all, size_t count);
/* NULL: the sale is not among them. */
struct homes_known *homes_known_find(struct homes_known *all, size_t count, uint32_t sale);
/* 0 or -ENOMEM. */
int homes_known_add(struct homes_known *known, uint64_t buyer);
/* Adds what the gate's maps "issued" and "admissions" have of these sales. Each map is walked once, however many sales they are. 0 or negative errno. */
int homes_known_read(int issued_fd, int admissions_fd, struct homes_known *all, size_t count);

#endif
