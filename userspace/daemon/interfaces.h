/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Whether the gate is still on its interfaces. One that is deleted, or whose driver makes it anew, takes the gate's program with it; the maps, and so
 * everything else that the daemon sees of the gate, stay.
 */
#ifndef SLUICE_DAEMON_INTERFACES_H
#define SLUICE_DAEMON_INTERFACES_H

#include <jansson.h>
#include <net/if.h>

#include "daemon/daemon.h"

#define INTERFACES_MAX 64

struct interface_view {
	char name[IF_NAMESIZE];
	bool is_attached;
};

struct interfaces_summary {
	unsigned pinned, attached;
	bool is_known;     /* false: the pins cannot be read, and nothing is said of them */
	char missing[256]; /* names, with commas; cut off where there are too many */
};

/* Before privileges are dropped: opens the pin directory to read, and the links of the interfaces that are there. What goes wrong is logged, and then
 * nothing is known. Never fails.
 */
void interfaces_open(struct daemon *d);
void interfaces_close(struct daemon *d);
/* Looks again, and logs what has changed. The maintenance thread, every other second; costs a walk through the pin directory. */
void interfaces_look(struct daemon *d);

/* Any thread. How many there are, at most INTERFACES_MAX. */
unsigned interfaces_view(struct daemon *d, struct interface_view *views);
void interfaces_summarize(struct daemon *d, struct interfaces_summary *summary);
/* [{"name","attached"}] */
json_t *interfaces_json(struct daemon *d);

#endif
