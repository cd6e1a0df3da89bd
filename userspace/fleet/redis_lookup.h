/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A host's addresses, without waiting for them: getaddrinfo() has no time-out, and a resolver that is silent would hold up whoever asks. */
#ifndef SLUICE_FLEET_REDIS_LOOKUP_H
#define SLUICE_FLEET_REDIS_LOOKUP_H

#include <netdb.h>

#define REDIS_LOOKUPS_MAX 64 /* at a time, given up ones included */

struct redis_lookup;

/* An address as text is known at once: then *known gets it, and NULL is returned. Else a thread asks, one that was given up with this name if there is
 * one. Returns NULL and no *known if that cannot be started (`errno`; EAGAIN: too many are under way).
 */
struct redis_lookup *redis_lookup_start(const char *host, unsigned port, struct addrinfo **known);
/* Can be read when the answer is there. */
int redis_lookup_fd(const struct redis_lookup *lookup);
/* -EINPROGRESS: not yet. Else 0 and the addresses (freeaddrinfo), or an EAI_* error (-11, which EAGAIN is too, is one of them). */
int redis_lookup_take(struct redis_lookup *lookup, struct addrinfo **addresses);
/* NULL-safe. The thread may go on; what it finds is freed, unless somebody asks for the name again. */
void redis_lookup_drop(struct redis_lookup *lookup);

#endif
