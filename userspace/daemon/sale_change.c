/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See sale_change.h. */
#include "daemon/sale_change.h"

#include <stdio.h>

#include "common/log.h"
#include "common/timefmt.h"

/* On the pipeline's thread: the ledger has the sale; now the gate gets it. A slot that another sale needs stays with that one. */
static void on_stored(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct sale sale;
	uint64_t gone;

	(void)arg;
	if (answer->error)
		return;
	if (sales_learn(d->sales, json_object_get(answer->json, "sale"), &sale)) {
		log_error("the order writer describes a sale in a way that this daemon does not understand");
		return;
	}
	if (sales_in_gate(d->sales, &sale)) {
		sales_write_words(d->sales, &sale);
		return;
	}
	if (!sales_slot_is_free(d->sales, sale.id, time_wall_ns()))
		return;
	gone = atomic_load(&sale.counts->held) + atomic_load(&sale.counts->confirmed);
	sales_fill_slot(d->sales, &sale, atomic_load(&sale.counts->put_in) - gone);
	log_info("sale %s: created with %llu units", sale.slug, atomic_load(&sale.counts->put_in));
}

/* The last hook of every question, whatever became of it. */
static void on_settled(void *arg)
{
	struct daemon *d = arg;

	atomic_fetch_sub(&d->sales_changing, 1);
}

static const struct pipeline_hooks hooks = {.changes = true, .complete = on_stored, .release = on_settled};

bool sale_change_is_open(struct daemon *d)
{
	return atomic_load(&d->sales_changing) != 0;
}

int sale_change_store(struct daemon *d, const struct sale *sale, int64_t stock, struct pipeline_answer *answer)
{
	json_t *question = json_pack("{s:s, s:o}", "op", "sale_put", "sale", sales_to_ledger(sale));
	char key[64];

	if (stock >= 0) {
		snprintf(key, sizeof(key), "create:%u", sale->id);
		json_object_set_new(question, "stock", json_integer(stock));
		json_object_set_new(question, "key", json_string(key));
	}
	atomic_fetch_add(&d->sales_changing, 1);
	if (!pipeline_ask(d->pipeline, question, &hooks, d, answer))
		json_decref(answer->json);
	answer->json = NULL;
	return answer->error;
}
