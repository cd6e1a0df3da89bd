/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See stock_change.h. Called by control_stock.c and fleet_moves.c; all of it runs on the pipeline's thread. */
#include "daemon/stock_change.h"

#include <errno.h>
#include <inttypes.h>

#include "common/log.h"
#include "daemon/maintenance.h"

/* A sale that has lost its slot has its free units in the books alone. */
static int take(struct daemon *d, struct stock_change *change)
{
	struct stock_view stock;

	if (sales_in_gate(d->sales, &change->sale))
		return sales_take_units(d->sales, &change->sale, change->wanted);
	maintenance_read_stock(d, &change->sale, &stock);
	return stock.free < change->wanted ? -ENOSPC : 0;
}

int stock_change_prepare(struct daemon *d, struct stock_change *change)
{
	int err;

	if (!change->wanted)
		return 0;
	sale_counts_change_begin(change->sale.counts);
	err = take(d, change);
	if (!err) {
		change->taken = change->wanted;
		atomic_fetch_add(&change->sale.counts->moving, change->taken);
	}
	sale_counts_change_end(change->sale.counts);
	return err;
}

/* What the gate has free follows the difference in the ledger, so that a repeated key moves nothing twice. */
void stock_change_complete(struct daemon *d, struct stock_change *change, const struct pipeline_answer *answer)
{
	struct sale_counts *counts = change->sale.counts;
	int64_t before = (int64_t)atomic_load(&counts->put_in), after = before, give;

	if (answer->error && answer->error != -EREMOTEIO)
		return; /* not asked, or nobody knows: then the units stay out until gate and ledger are compared */
	if (!answer->error && json_is_integer(json_object_get(answer->json, "put_in")))
		after = json_integer_value(json_object_get(answer->json, "put_in"));
	sale_counts_change_begin(counts);
	atomic_store(&counts->put_in, (unsigned long long)after);
	give = after - before + (int64_t)change->taken;
	if (give > 0)
		sales_give_units(d->sales, &change->sale, (uint64_t)give);
	else if (give < 0 && sales_in_gate(d->sales, &change->sale) &&
		sales_take_units(d->sales, &change->sale, (uint64_t)-give))
		log_error("sale %s: the ledger has %" PRId64 " units fewer than the gate can give back",
			change->sale.slug, -give);
	atomic_fetch_sub(&counts->moving, change->taken);
	sale_counts_change_end(counts);
}
