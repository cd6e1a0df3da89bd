/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is in force on this node, as the texts that nodes tell each other, and what of it is news.
 *
 * limit/NAME {"burst","rate"}; shadow/NAME true or false; answer/CODE what the operator gave; cors the origin itself; deny/PREFIX and
 * allow/PREFIX {"expires_ns","label","reason"}, what is 0 or empty left out; sale/SLUG as in the ledger's sale_put. Keys of objects are sorted, so that one
 * state has one text.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_settings_impl.h"
#include "daemon/shadow.h"

#define PIECE 1000 /* entries that are noted with the lock held */
#define NS_PER_MS 1000000

/* --- texts ---------------------------------------------------------------------------------------------------------------------- */
static char *to_text(json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;

	json_decref(json);
	return text;
}

char *settings_text_of_limit(struct daemon *d, unsigned which)
{
	struct sluice_limits limits;
	struct config_limit limit;
	__u32 zero = 0;

	if (bpf_map_lookup_elem(d->maps.limits, &zero, &limits))
		return NULL;
	config_limit_from_gate(&limits.limit[which], &limit);
	return to_text(json_pack("{s:f, s:I}", "rate", limit.rate, "burst", (json_int_t)limit.burst));
}

char *settings_text_of_shadow(struct daemon *d, unsigned which)
{
	return to_text(json_boolean(shadow_flags(d) & shadow_flag(which)));
}

char *settings_text_of_answer(enum sluice_answer code)
{
	const json_t *custom = answers_custom(code);

	return custom ? to_text(json_deep_copy(custom)) : NULL;
}

char *settings_text_of_origin(void)
{
	char origin[ANSWER_ORIGIN_SIZE];

	answers_origin(origin);
	return answers_origin_is_set() ? strdup(origin) : NULL;
}

/* Bytes of the map that are not UTF-8 become "". */
char *settings_text_of_entry(const struct sluice_list_entry *entry)
{
	char label[LISTS_TEXT_SIZE], reason[LISTS_TEXT_SIZE];
	json_t *json = json_object();

	lists_read_text(entry, label, reason);
	if (*label)
		json_object_set_new(json, "label", json_string(label));
	if (strcmp(label, reason) != 0)
		json_object_set_new(json, "reason", json_string(reason));
	if (entry->expires_wall)
		json_object_set_new(json, "expires_ns", json_integer((json_int_t)entry->expires_wall));
	return to_text(json);
}

char *settings_text_of_sale(const struct sale *sale)
{
	return to_text(sales_to_ledger(sale));
}

void settings_name_of_entry(const struct sluice_list_key *key, char name[SETTINGS_NAME_MAX + 1])
{
	char prefix[ADDR_TEXT_MAX];

	snprintf(name, SETTINGS_NAME_MAX + 1, "%s/%s", key->list == SLUICE_LIST_DENY ? "deny" : "allow",
		prefix_format(&key->addr, key->prefix_len, prefix));
}

/* --- news ----------------------------------------------------------------------------------------------------------------------- */
/* The lock is held. */
static void note(struct fleet_settings *s, const char *name, const char *value, uint64_t until_ms, bool is_final)
{
	int err = 0;

	/* No way of setting something makes longer ones. */
	if (value && strlen(value) > SETTINGS_VALUE_MAX)
		err = -EMSGSIZE;
	if (!err)
		err = settings_set(s->table, name, value, until_ms, is_final);
	if (err < 0)
		log_error("the other nodes do not hear of %s: %s; set it there as well, or again here", name,
			strerror(-err));
}

/* Takes `value` over; NULL: removed. Returns the number of the change. */
static uint64_t note_one(struct fleet_settings *s, const char *name, char *value, bool is_final)
{
	uint64_t before, ops;

	settings_lock(s);
	before = s->table->ops;
	note(s, name, value, 0, is_final);
	ops = s->table->ops;
	pthread_cond_signal(&s->work);
	settings_unlock(s);
	free(value);
	if (ops != before)
		fleet_wake(s->d);
	return ops;
}

uint64_t fleet_settings_note_limits(struct daemon *d, uint64_t set)
{
	char name[SETTINGS_NAME_MAX + 1];
	uint64_t change = 0;

	for (unsigned which = 0; d->settings && which < SHADOW_SWITCHES; which++) {
		if (which < SLUICE_LIMIT_COUNT && set & SLUICE_KEPT_RATE(which)) {
			char *text = settings_text_of_limit(d, which);

			snprintf(name, sizeof(name), "limit/%s", shadow_name(which));
			if (text)
				change = note_one(d->settings, name, text, false);
		}
		if (set & SLUICE_KEPT_SHADOW(which)) {
			snprintf(name, sizeof(name), "shadow/%s", shadow_name(which));
			change = note_one(d->settings, name, settings_text_of_shadow(d, which), false);
		}
	}
	return change;
}

uint64_t fleet_settings_note_answer(struct daemon *d, enum sluice_answer code)
{
	char name[SETTINGS_NAME_MAX + 1];

	char *text;

	if (!d->settings)
		return 0;
	snprintf(name, sizeof(name), "answer/%s", answer_code(code));
	text = settings_text_of_answer(code);
	/* Without memory it must not look as if it had been removed. */
	return text || !answers_custom(code) ? note_one(d->settings, name, text, false) : 0;
}

uint64_t fleet_settings_note_origin(struct daemon *d)
{
	return d->settings ? note_one(d->settings, "cors", settings_text_of_origin(), false) : 0;
}

static void name_of_sale(const struct sale *sale, char name[SETTINGS_NAME_MAX + 1])
{
	snprintf(name, SETTINGS_NAME_MAX + 1, "sale/%s", sale->slug);
}

/* By this number on all nodes? Keys are sorted and nothing stands between them, so the number has one form. */
static bool is_of_sale(const struct setting *setting, const struct sale *sale)
{
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "\"id\":%" PRIu32 ",", sale->id);
	return setting && setting->value && strstr(setting->value, wanted);
}

void fleet_settings_note_sale(struct daemon *d, const struct sale *sale)
{
	char name[SETTINGS_NAME_MAX + 1], *value;
	const struct setting *setting;
	bool is_taken;

	if (!d->settings || sale->id <= SALES_LAST_LONELY_ID)
		return;
	name_of_sale(sale, name);
	settings_lock(d->settings);
	setting = settings_find(d->settings->table, name);
	is_taken = setting && !is_of_sale(setting, sale);
	settings_unlock(d->settings);
	value = is_taken ? NULL : settings_text_of_sale(sale);
	if (value)
		note_one(d->settings, name, value, sale->ended);
}

uint64_t fleet_settings_change_of_sale(struct daemon *d, const struct sale *sale)
{
	char name[SETTINGS_NAME_MAX + 1];
	const struct setting *setting;
	uint64_t change;

	if (!d->settings)
		return 0;
	name_of_sale(sale, name);
	settings_lock(d->settings);
	setting = settings_find(d->settings->table, name);
	change = is_of_sale(setting, sale) ? setting->op : 0;
	settings_unlock(d->settings);
	return change;
}

static uint64_t until_of(const struct sluice_list_entry *entry)
{
	return entry->expires_wall ? entry->expires_wall / NS_PER_MS + SETTINGS_EXPIRED_KEEP_MS : 0;
}

static void note_entry(struct fleet_settings *s, const struct sluice_list_key *key, uint64_t now_ns)
{
	char name[SETTINGS_NAME_MAX + 1], *value = NULL;
	struct sluice_list_entry entry = {0};
	bool is_there = !bpf_map_lookup_elem(s->d->maps.lists, key, &entry);

	if (is_there && entry.expires_wall && entry.expires_wall <= now_ns)
		is_there = false;
	settings_name_of_entry(key, name);
	if (is_there) {
		value = settings_text_of_entry(&entry);
		if (!value)
			return;
	}
	note(s, name, value, is_there ? until_of(&entry) : 0, false);
	free(value);
}

uint64_t fleet_settings_note_entries(struct daemon *d, const struct sluice_list_key *keys, unsigned count)
{
	struct fleet_settings *s = d->settings;
	uint64_t now = time_wall_ns(), change = 0;

	if (!s)
		return 0;
	for (unsigned at = 0; at < count; at += PIECE) {
		settings_lock(s);
		for (unsigned i = at; i < count && i < at + PIECE; i++)
			note_entry(s, &keys[i], now);
		change = s->table->ops;
		settings_unlock(s);
		fleet_wake(d);
	}
	settings_lock(s);
	pthread_cond_signal(&s->work);
	settings_unlock(s);
	return change;
}

/* --- what was here before ------------------------------------------------------------------------------------------------------- */
/* Takes `value` over. */
static void adopt(struct fleet_settings *s, const char *name, char *value, uint64_t until_ms)
{
	settings_lock(s);
	if (value && strlen(value) <= SETTINGS_VALUE_MAX && settings_adopt(s->table, name, value, until_ms, false) < 0)
		log_error("the other nodes do not hear of %s: no memory", name);
	settings_unlock(s);
	free(value);
}

static int adopt_entry(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	struct fleet_settings *s = arg;
	char name[SETTINGS_NAME_MAX + 1];

	if (entry->expires_wall && entry->expires_wall <= time_wall_ns())
		return 0;
	settings_name_of_entry(key, name);
	adopt(s, name, settings_text_of_entry(entry), until_of(entry));
	return !atomic_load(&s->is_running);
}

static void adopt_limits(struct fleet_settings *s)
{
	char name[SETTINGS_NAME_MAX + 1];
	uint64_t set;

	pthread_mutex_lock(&s->d->change_lock);
	set = __atomic_load_n(&s->d->maps.control->kept, __ATOMIC_ACQUIRE);
	for (unsigned which = 0; which < SHADOW_SWITCHES; which++) {
		snprintf(name, sizeof(name), "limit/%s", shadow_name(which));
		if (which < SLUICE_LIMIT_COUNT && set & SLUICE_KEPT_RATE(which))
			adopt(s, name, settings_text_of_limit(s->d, which), 0);
		snprintf(name, sizeof(name), "shadow/%s", shadow_name(which));
		if (set & SLUICE_KEPT_SHADOW(which))
			adopt(s, name, settings_text_of_shadow(s->d, which), 0);
	}
	pthread_mutex_unlock(&s->d->change_lock);
}

static void adopt_answers(struct fleet_settings *s)
{
	char name[SETTINGS_NAME_MAX + 1];

	answers_lock();
	for (unsigned code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++) {
		snprintf(name, sizeof(name), "answer/%s", answer_code((enum sluice_answer)code));
		adopt(s, name, settings_text_of_answer((enum sluice_answer)code), 0);
	}
	adopt(s, "cors", settings_text_of_origin(), 0);
	answers_unlock();
}

void settings_adopt_sales(struct fleet_settings *s)
{
	char name[SETTINGS_NAME_MAX + 1];
	struct sale sale;

	for (unsigned i = 0; !sales_at(s->d->sales, i, &sale); i++) {
		if (sale.id <= SALES_LAST_LONELY_ID || sales_state(&sale, 1, time_wall_ns()) == SALE_ENDED)
			continue;
		name_of_sale(&sale, name);
		adopt(s, name, settings_text_of_sale(&sale), 0);
	}
}

void settings_adopt_all(struct fleet_settings *s)
{
	size_t before, after;

	settings_lock(s);
	before = s->table->count;
	settings_unlock(s);
	adopt_limits(s);
	adopt_answers(s);
	settings_adopt_sales(s);
	if (lists_each(s->d->lists, SLUICE_LIST_DENY, adopt_entry, s) ||
		lists_each(s->d->lists, SLUICE_LIST_ALLOW, adopt_entry, s))
		log_warn("not all entries of this node's lists could be read, and the other nodes may lack some");
	settings_lock(s);
	after = s->table->count;
	settings_unlock(s);
	if (after > before)
		log_info("fleet: %zu settings of this node were unknown to it until now, and go to the others",
			after - before);
	fleet_wake(s->d);
}
