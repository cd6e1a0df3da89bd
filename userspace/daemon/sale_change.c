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

static const struct pipeline_hooks hooks = {.changes = true, .complete = on_stored};

int sale_change_store(struct daemon *d, const struct sale *sale, int64_t stock, struct pipeline_answer *answer)
{
	json_t *question = json_pack("{s:s, s:o}", "op", "sale_put", "sale", sales_to_ledger(sale));
	char key[64];

	if (stock >= 0) {
		snprintf(key, sizeof(key), "create:%u", sale->id);
		json_object_set_new(question, "stock", json_integer(stock));
		json_object_set_new(question, "key", json_string(key));
	}
	if (!pipeline_ask(d->pipeline, question, &hooks, NULL, answer))
		json_decref(answer->json);
	answer->json = NULL;
	return answer->error;
}
