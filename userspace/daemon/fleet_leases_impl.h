/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What fleet_leases.c, fleet_lease_moves.c, fleet_lease_wishes.c and fleet_lease_views.c share; nobody else includes this.
 *
 * Everything belongs to the fleet's thread but what is marked.
 */
#ifndef SLUICE_DAEMON_FLEET_LEASES_IMPL_H
#define SLUICE_DAEMON_FLEET_LEASES_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/fleet_leases.h"
#include "daemon/fleet_wishes.h"
#include "daemon/sales.h"
#include "fleet/lease.h"

/* What the name of an operation that makes a sale begins with; those of changes of the total are other words (control_stock.c). */
#define LEASES_CREATION "create:"

enum leased_state {
	LEASED_UNREAD, /* what the ledger says of its lease is not known here yet: it sells nothing */
	LEASED_NOT,    /* it has units that were never leased: from before this node was one of a fleet, and its own */
	LEASED,
};

struct leased_sale {
	struct sale sale; /* the registry's, as of the last look */
	enum leased_state state;
	struct lease lease;
	uint64_t until_ns; /* nothing is due before that, if nothing changes */
	bool due;          /* something has happened */
	/* what the last look saw */
	uint64_t units, taken, wanted;
	bool over;
	struct lease_flags flags;
	bool has_flags;
	enum lease_trouble trouble; /* as it was logged last */
	/* the pipeline's thread tells what became of a move: error first, then the mark */
	int move_error;
	atomic_bool is_moved;
	/* under the lock of leases: for others */
	struct fleet_stock shown;
};

struct fleet_leases {
	struct lease_options options;
	struct lease stranger; /* for calls about sales that this node has no lease of */
	struct fleet_wishes *wishes;
	struct leased_sale **sales; /* in the order of the registry; under lock where others read */
	unsigned count, capacity;
	unsigned looks_left, look_at; /* sales that are still to be asked anew after a message, and where to go on */
	uint64_t refreshed_ns, books_due_ns, rest_ns;
	bool leaving;
	struct lease_action action; /* of the sale that is at its turn */
	char failure[128];          /* the last answer that was not understood, to say it once */

	pthread_mutex_t lock;
	json_t *books;  /* that came from the ledger and have not been looked at */
	json_t *unsure; /* object: slugs of sales of whose creation here no answer was heard */
	atomic_bool is_reading;
	atomic_ullong grants, granted, returns, returned, fences;
};

/* fleet_leases.c */
struct leased_sale *leases_find(struct fleet_leases *leases, const char *slug);
/* An argument list as fleet_script takes it. */
bool leases_call(struct daemon *d, struct fleet_round *round, const char *slug, const struct lease_call *call,
	fleet_done done, void *arg);
/* Takes an answer of a lease's script apart. Returns 0 or -EPROTO. */
int leases_read_reply(const redisReply *reply, struct lease_reply *read);

/* fleet_lease_moves.c: begins what leases->action says; what becomes of it is told by is_moved. */
void leases_move(struct daemon *d, struct leased_sale *sale, const struct lease_action *action);
/* Asks the ledger for the books of sales with ids above `after`; they come in leases->books. */
void leases_read_books(struct daemon *d, uint32_t after);

/* fleet_lease_views.c */
void leases_show(struct daemon *d, struct leased_sale *sale);

#endif
