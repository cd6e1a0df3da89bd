/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See sale_change.h. */
#include "daemon/sale_change.h"

#include <stdio.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_settings.h"

/* The ledger has the sale; now the gate gets it. A slot that another sale needs stays with that one. A sale that has sold and has no slot did not fit the maps, or
 * has lost it to a younger one: to judge by it the gate would need the admissions and buyers too, which is recovery.c's work.
 */
static void put_in_gate(struct daemon *d, const struct sale *sale)
{
	if (sales_in_gate(d->sales, sale)) {
		sales_write_words(d->sales, sale);
		return;
	}
	if (!sales_slot_is_free(d->sales, sale->id, time_wall_ns()))
		return;
	if (atomic_load(&sale->counts->ordered)) {
		log_warn("sale %s: changed, and closed as before: its orders are not in the gate", sale->slug);
		return;
	}
	sales_fill_slot(d->sales, sale, atomic_load(&sale->counts->put_in));
	log_info("sale %s: created with %llu units", sale->slug, atomic_load(&sale->counts->put_in));
}

static bool take(struct daemon *d, const struct pipeline_answer *answer, struct sale *sale)
{
	if (answer->error)
		return false;
	if (sales_learn(d->sales, json_object_get(answer->json, "sale"), sale)) {
		log_error("the order writer describes a sale in a way that this daemon does not understand");
		return false;
	}
	put_in_gate(d, sale);
	return true;
}

/* Both on the pipeline's thread. */
static void on_followed(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct sale sale;

	(void)arg;
	take(d, answer, &sale);
}

/* Also if nobody waits any more: the other nodes must not be without what is in force here. */
static void on_changed(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct sale sale;

	(void)arg;
	if (take(d, answer, &sale))
		fleet_settings_note_sale(d, &sale);
}

/* The last hook of every question, whatever became of it. */
static void on_settled(void *arg)
{
	struct daemon *d = arg;

	atomic_fetch_sub(&d->sales_changing, 1);
}

static const struct pipeline_hooks hooks[] = {
	[SALE_CHANGED_HERE] = {.changes = true, .complete = on_changed, .release = on_settled},
	[SALE_CHANGED_ELSEWHERE] = {.changes = true, .complete = on_followed, .release = on_settled},
};

bool sale_change_is_open(struct daemon *d)
{
	return atomic_load(&d->sales_changing) != 0;
}

int sale_change_store(struct daemon *d, const struct sale *sale, int64_t stock, enum sale_change_where where,
	struct pipeline_answer *answer)
{
	json_t *question = json_pack("{s:s, s:o}", "op", "sale_put", "sale", sales_to_ledger(sale));
	char key[64];

	if (stock >= 0) {
		snprintf(key, sizeof(key), "create:%u", sale->id);
		json_object_set_new(question, "stock", json_integer(stock));
		json_object_set_new(question, "key", json_string(key));
	}
	atomic_fetch_add(&d->sales_changing, 1);
	if (!pipeline_ask(d->pipeline, question, &hooks[where], d, answer))
		json_decref(answer->json);
	answer->json = NULL;
	return answer->error;
}
