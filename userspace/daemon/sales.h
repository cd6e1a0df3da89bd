/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The registry of sales: every sale of the ledger, by slug and by id, and the gate's slot of those that have one. */
#ifndef SLUICE_DAEMON_SALES_H
#define SLUICE_DAEMON_SALES_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/maps.h"

#define SALE_SLUG_MAX 63
#define SALE_MODE_MAX 16
#define SALE_ORDER_STATES 8 /* ORDER_STATE_COUNT */
/* Sales that nodes made when they were alone; those of a fleet have higher numbers (FIRST_ID of scripts/settings.lua). */
#define SALES_LAST_LONELY_ID 16777216u

/* Figures of a sale that change with every order. They live as long as the daemon, so others may keep the pointer. */
struct sale_counts {
	atomic_ullong put_in;    /* ledger: put in less taken away */
	atomic_ullong held;      /* ledger: units */
	atomic_ullong confirmed; /* ledger: units */
	atomic_ullong
		ordered; /* ledger: orders that it ever had, which is the number of the last one. Pipeline's thread */
	atomic_ullong pending; /* units admitted and not durable yet */
	atomic_ullong refused; /* units that the ledger refused: an alarm */
	atomic_ullong moving;  /* units out of the gate that are in no order of the ledger: on their way out, or back */
	atomic_ullong orders[SALE_ORDER_STATES]; /* orders that the daemon knows of, by enum order_state */
	atomic_ullong live_tokens;               /* entries in map "issued" */
	atomic_int balance;                      /* enum sale_balance; maintenance */
	atomic_uint changes;                     /* odd: several of these are being changed together */
};

/* Around a change of several figures, or of one and the gate's free units: who reads them together (maintenance_read_stock) sees all of it or
 * nothing. Pipeline's thread.
 */
static inline void sale_counts_change_begin(struct sale_counts *counts)
{
	if (counts)
		atomic_fetch_add(&counts->changes, 1);
}

static inline void sale_counts_change_end(struct sale_counts *counts)
{
	if (counts)
		atomic_fetch_add(&counts->changes, 1);
}

/* The ledger has the order of that number, and all before it. */
static inline void sale_counts_ordered(struct sale_counts *counts, uint64_t seq)
{
	if (counts && seq > atomic_load(&counts->ordered))
		atomic_store(&counts->ordered, seq);
}

enum sale_balance { SALE_BALANCED, SALE_SUSPECT, SALE_UNBALANCED };

struct sale {
	uint32_t id;
	char slug[SALE_SLUG_MAX + 1];
	char order_mode[SALE_MODE_MAX];
	uint64_t opens_ns, ends_ns; /* wall */
	uint32_t per_buyer, hold_seconds, pace_per_second, token_multiplier;
	uint32_t not_before_s; /* tokens issued before this second are revoked; not in the ledger, see revocation.h */
	bool paused, ended;
	bool more, withheld; /* of the fleet's leases, see sales_set_lease_flags; not in the ledger */
	bool swept;          /* see sales_mark_ended; not in the ledger */
	struct sale_counts *counts;
};

enum sale_state { SALE_SCHEDULED, SALE_OPEN, SALE_PAUSED, SALE_SOLD_OUT, SALE_ENDED };

struct sales;

struct sales *sales_new(struct gate_maps *maps);
/* This node is one of a fleet: sales that are learned from now on sell nothing here until sales_set_lease_flags says that they may. */
void sales_start_withheld(struct sales *sales);
void sales_free(struct sales *sales);

/* 1 to 63 characters of a-z 0-9 and hyphen, the first and the last no hyphen. */
bool sales_slug_is_valid(const char *slug);
/* Copies the sale. Returns 0 or -ENOENT. */
int sales_find(struct sales *sales, const char *slug, struct sale *sale);
int sales_find_id(struct sales *sales, uint32_t id, struct sale *sale);
/* NULL if unknown. The pointer stays valid. */
struct sale_counts *sales_counts(struct sales *sales, uint32_t id);
/* The sale at `index` (0..), in the order in which the registry learned of them; -ENOENT beyond the last. */
int sales_at(struct sales *sales, unsigned index, struct sale *sale);
unsigned sales_count(struct sales *sales);

/* For a sale of a node that is alone: the smallest id above those of its own sales whose slot is free or may be taken over; 0: every slot is in use. */
uint32_t sales_next_id(struct sales *sales, uint64_t wall_ns);
/* May a sale of this id have its slot? It is free, or nothing of the sale that has it can come back. */
bool sales_slot_is_free(struct sales *sales, uint32_t id, uint64_t wall_ns);
/* Which slots are in use, as hex digits of four slots each, the lowest bit first: SLUICE_MAX_SALES / 4 and a NUL. */
void sales_used_slots(struct sales *sales, uint64_t wall_ns, char *text);
/* Of all sales that are known; 0: there is none. */
uint32_t sales_highest_id(struct sales *sales);
/* Does the sale have its slot in the gate? */
bool sales_in_gate(struct sales *sales, const struct sale *sale);
uint64_t sales_free_units(struct sales *sales, const struct sale *sale); /* 0 without a slot */
/* May there be units for this node although none is free? Then the sale is not sold out. */
static inline bool sales_may_get_units(const struct sale *sale)
{
	return sale->more || sale->withheld;
}
enum sale_state sales_state(const struct sale *sale, uint64_t free_units, uint64_t wall_ns);
const char *sales_state_name(enum sale_state state);

/* Sets the second in the registry and, by one store, in the gate. */
void sales_set_not_before(struct sales *sales, uint32_t id, uint32_t not_before_s);
/* What the fleet's leases say of a sale: `more` units may come to this node, and it may not sell at the moment (`withheld`). In the registry and, by
 * one store, in the gate, if the sale has its slot there; a slot that it gets later starts with them. The judge reads the flags before the units, so
 * units that come must be given (sales_give_units) before `more` is taken away. Nothing for an unknown id. Any thread.
 */
void sales_set_lease_flags(struct sales *sales, uint32_t id, bool more, bool withheld);
/* Units that this node's judge has refused because they may be elsewhere, since the sale got its slot; only grows. 0 without a slot. */
uint64_t sales_wanted_units(struct sales *sales, const struct sale *sale);
/* Marks a sale that is over, of which the gate begins to forget admissions and buyers: neither a step of the clock nor a change opens it again as long as this
 * daemon runs. In the registry and, by one store, in the gate. Any thread.
 */
void sales_mark_ended(struct sales *sales, const struct sale *sale);

/* The rest is for the pipeline's thread. */

/* Learns of a sale, or changes it, from the writer's JSON, with the ledger's figures. *sale gets a copy.
 * Returns 0, -EPROTO for JSON that is not a sale, -ENOMEM.
 */
int sales_learn(struct sales *sales, const json_t *json, struct sale *sale);
/* All sales of the ledger are learned once more; sales_was_read tells afterwards which were among them. A sale is never forgotten, but the ledger may be
 * another one than before.
 */
void sales_begin_reading(struct sales *sales);
bool sales_was_read(struct sales *sales, uint32_t id);
/* Gives the sale its slot with `free_units`. Any sale that had the slot before loses it. */
void sales_fill_slot(struct sales *sales, const struct sale *sale, uint64_t free_units);
/* The sale loses its slot: the gate does not know it any more. */
void sales_leave_gate(struct sales *sales, const struct sale *sale);
/* Writes window, limits and flags into the slot that the sale has. The flags of its leases, whether it was swept, and before which second tokens are revoked are
 * the registry's, however old `sale` is; so with sales_fill_slot.
 */
void sales_write_words(struct sales *sales, const struct sale *sale);
/* The JSON object for the writer's sale_put. New reference. */
json_t *sales_to_ledger(const struct sale *sale);
/* Takes units out of the stock, all or none. Returns 0 or -ENOSPC. */
int sales_take_units(struct sales *sales, const struct sale *sale, uint64_t units);
void sales_give_units(struct sales *sales, const struct sale *sale, uint64_t units);
/* Free units as the ledger's figures have them, for a sale whose judge takes nothing any more. */
void sales_follow_books(struct sales *sales, const struct sale *sale);

#endif
