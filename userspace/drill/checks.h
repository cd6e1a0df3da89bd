/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The invariants, checked: what the clients saw against what the books say. Pure: values in, findings out. */
#ifndef SLUICE_DRILL_CHECKS_H
#define SLUICE_DRILL_CHECKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/books.h"
#include "drill/seen.h"

/* The books of one sale, once nothing is in flight any more. */
struct drill_ledger {
	bool known; /* false: no control socket, only the clients' view can be checked */
	struct books_order *orders;
	size_t count;
	int64_t put_in, free, held, confirmed, in_flight;
	bool balanced;             /* the daemon's own verdict */
	int64_t refused_by_ledger; /* admissions that the ledger's guard did not take: the gate said yes too often */
	uint64_t opens_ns, ends_ns;
	uint32_t per_buyer;
};

/* What the bots without a right got. */
struct drill_intruders {
	uint64_t admitted;        /* a 2xx to a request that had no right to one */
	uint64_t denied_answered; /* HTTP answers to sources on the deny list */
};

enum drill_verdict { DRILL_HOLDS, DRILL_BROKEN, DRILL_UNCHECKED };

enum drill_check {
	DRILL_CHECK_OVERSELL,
	DRILL_CHECK_UNDERSELL,
	DRILL_CHECK_DURABLE,
	DRILL_CHECK_ONCE,
	DRILL_CHECK_LIMIT,
	DRILL_CHECK_STANDS,
	DRILL_CHECK_WINDOW,
	DRILL_CHECK_RIGHT,
	DRILL_CHECKS
};

struct drill_finding {
	const char *id;   /* "I1" */
	const char *name; /* what must hold, in words */
	enum drill_verdict verdict;
	char detail[256]; /* the figures, or what is wrong */
};

struct drill_sums {
	uint64_t orders;     /* in the ledger, or seen if there is no ledger */
	uint64_t units;      /* in orders that hold units */
	uint64_t oversold;   /* units beyond the stock */
	uint64_t unsold;     /* units of the stock that no order holds */
	uint64_t duplicates; /* second orders of a token, orders of two tokens, orders beyond a buyer's limit */
};

/* `seen` has one entry per token that was used; entries of which nothing was heard are fine. Sorts `ledger->orders` by id.
 * Returns the number of broken invariants, or -ENOMEM.
 */
int drill_checks_run(const struct drill_seen *seen, size_t seen_count, struct drill_ledger *ledger,
	const struct drill_intruders *intruders, struct drill_finding finding[DRILL_CHECKS], struct drill_sums *sums);

#endif
