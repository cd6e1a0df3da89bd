/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What must be true before a gate can be attached: privilege, kernel, interface, sysctl. Each check says what is wrong and what to do,
 * changes nothing, and returns an exit code (enum cli_exit).
 */
#ifndef SLUICE_CLI_PREFLIGHT_H
#define SLUICE_CLI_PREFLIGHT_H

#include <net/if.h>
#include <stdbool.h>

struct interface {
	char name[IF_NAMESIZE];
	unsigned index;
	unsigned mtu;
};

/* CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN instead of the two). */
int preflight_privilege(void);
/* Asks the running kernel for every program type, map type and helper that the gate needs and names those it lacks. */
int preflight_kernel(void);
/* The interface exists in this network namespace, has Ethernet headers, and is up. */
int preflight_interface(const char *name, struct interface *interface);
/* The largest MTU whose frames fit one XDP buffer (a page less head room and the kernel's trailer). */
unsigned preflight_mtu_max(void);
int preflight_mtu(const struct interface *interface);
/* net.ipv4.tcp_syncookies of this network namespace must be 2. With `may_set` it is set, and *changed tells it; *before is what it was. */
int preflight_syncookies(bool may_set, bool *changed, int *before);
/* Puts it back after a failure. */
void preflight_restore_syncookies(int before);

#endif
