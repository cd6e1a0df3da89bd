/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What other nodes have set is put in force here: under the same locks and by the same functions as a change by the control API, so gate, ledger and
 * files follow as ever; and compared first, because after a start all of the table is due and mostly in force already.
 *
 * The value is read from the table when the lock of what is set is held already: what is set by hand meanwhile comes before it or after it, and is then
 * in the table.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/addr.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_settings_impl.h"
#include "daemon/kept.h"
#include "daemon/limits_kept.h"
#include "daemon/sale_change.h"
#include "daemon/shadow.h"

#define PIECE 1000 /* entries of lists that go into the gate together */
#define LOCK_AGAIN_NS 1000000

/* What is due, taken out of the table's queue. The settings stay where they are: only this thread takes them out of the table. */
struct work {
	struct fleet_settings *s;
	struct daemon *d;
	struct setting *entries[PIECE];
	bool entry_was_refused[PIECE];
	unsigned entry_count;
	struct setting *again[2 * PIECE]; /* to be tried later */
	unsigned again_count;
	bool was_refused; /* what is worked on: and that was said */
};

static bool is_entry(const char *name)
{
	return !strncmp(name, "deny/", 5) || !strncmp(name, "allow/", 6);
}

/* As it is now; NULL: removed. What comes after this makes it due again. */
static char *take_value(struct fleet_settings *s, struct setting *setting)
{
	char *value;

	settings_lock(s);
	value = setting->value ? strdup(setting->value) : NULL;
	settings_unlock(s);
	return value;
}

static void try_again(struct work *work, struct setting *setting)
{
	work->again[work->again_count++] = setting;
}

static __attribute__((format(printf, 3, 4))) void refuse(
	struct work *work, struct setting *setting, const char *format, ...)
{
	char why[256];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	settings_lock(work->s);
	settings_refuse(work->s->table, setting);
	settings_unlock(work->s);
	if (!work->was_refused)
		log_error("%s, which was set on another node, is not in force here: %s", setting->name, why);
}

static bool is_text(const char *left, const char *right)
{
	return left && right && !strcmp(left, right);
}

/* --- limits and switches -------------------------------------------------------------------------------------------------------- */
static unsigned switch_of(const char *name)
{
	unsigned which = 0;

	while (which < SHADOW_SWITCHES && strcmp(shadow_name(which), name) != 0)
		which++;
	return which;
}

static int read_limit(const char *value, struct sluice_limit *limit)
{
	json_t *json = value ? json_loads(value, JSON_REJECT_DUPLICATES, NULL) : NULL;
	struct validate_error wrong;
	struct limit_body body = {0};
	struct config_limit wanted;
	uint32_t present = 0;
	int err = json_is_object(json)
		? validate_object(json, limit_fields, LIMIT_FIELD_SHADOW, &body, &present, &wrong)
		: -EINVAL;

	json_decref(json);
	if (err || present != (1u << LIMIT_FIELD_RATE | 1u << LIMIT_FIELD_BURST))
		return -EINVAL;
	wanted = (struct config_limit){.rate = body.rate, .burst = (uint32_t)body.burst};
	config_limit_to_gate(&wanted, limit);
	return 0;
}

/* A request that has the lock waits until this thread has saved what it has set. */
static void lock_changes(struct work *work)
{
	bool is_saved = settings_file_save(work->s);

	while (pthread_mutex_trylock(&work->d->change_lock)) {
		nanosleep(&(struct timespec){.tv_nsec = LOCK_AGAIN_NS}, NULL);
		if (is_saved)
			is_saved = settings_file_save(work->s);
	}
}

/* change_lock is held. Returns 0, -EALREADY, -EINVAL, or what the map says. */
static int put_limit(struct work *work, unsigned which, const char *value)
{
	char *present = settings_text_of_limit(work->d, which);
	bool is_same = is_text(present, value);
	struct sluice_limits limits;
	__u32 zero = 0;
	int err;

	free(present);
	if (is_same)
		return -EALREADY;
	err = bpf_map_lookup_elem(work->d->maps.limits, &zero, &limits);
	if (!err)
		err = read_limit(value, &limits.limit[which]);
	if (!err)
		err = bpf_map_update_elem(work->d->maps.limits, &zero, &limits, BPF_ANY);
	if (!err)
		kept_mark_limits(work->d, SLUICE_KEPT_RATE(which));
	return err;
}

static int put_shadow(struct work *work, unsigned which, const char *value)
{
	bool on = is_text(value, "true");

	if (!on && !is_text(value, "false"))
		return -EINVAL;
	if (on == !!(shadow_flags(work->d) & shadow_flag(which)))
		return -EALREADY;
	shadow_change(work->d, on ? shadow_flag(which) : 0, on ? 0 : shadow_flag(which));
	kept_mark_limits(work->d, SLUICE_KEPT_SHADOW(which));
	return 0;
}

static void apply_limit(struct work *work, struct setting *setting)
{
	bool is_rate = !strncmp(setting->name, "limit/", 6);
	unsigned which = switch_of(strchr(setting->name, '/') + 1);
	char *value;
	int err;

	if (which >= (is_rate ? (unsigned)SLUICE_LIMIT_COUNT : (unsigned)SHADOW_SWITCHES)) {
		refuse(work, setting, "there is no limit of this name in this version");
		return;
	}
	lock_changes(work);
	value = take_value(work->s, setting);
	err = is_rate ? put_limit(work, which, value) : put_shadow(work, which, value);
	pthread_mutex_unlock(&work->d->change_lock);
	if (!err) {
		log_info("%s is %s, as it was set on another node", setting->name, value);
		kept_write_limits(work->d);
	} else if (err != -EALREADY) {
		refuse(work, setting, "%s", err == -EINVAL ? "it is not understood" : strerror(-err));
	}
	free(value);
}

/* --- answers -------------------------------------------------------------------------------------------------------------------- */
/* answers_lock is held. `value` NULL: the default. */
static int put_answer(struct work *work, enum sluice_answer code, const char *value, struct answers_fault *fault)
{
	char *present = settings_text_of_answer(code), error[256];
	bool is_same = value ? is_text(present, value) : !present;
	struct answer_custom custom;
	const char *field;
	unsigned status;
	json_t *json;

	free(present);
	if (is_same)
		return -EALREADY;
	json = value ? json_loads(value, JSON_REJECT_DUPLICATES, NULL) : NULL;
	if (value && (!json || answers_read_custom(code, json, &custom, &field, &status, error, sizeof(error)))) {
		json_decref(json);
		return -EINVAL;
	}
	return answers_set(work->d, code, json, fault);
}

static int put_origin(struct work *work, const char *value, struct answers_fault *fault)
{
	char *present = settings_text_of_origin();
	bool is_same = value ? is_text(present, value) : !present;

	free(present);
	if (is_same)
		return -EALREADY;
	return value && !answer_origin_is_valid(value) ? -EINVAL : answers_set_origin(work->d, value, fault);
}

static void apply_answer(struct work *work, struct setting *setting)
{
	bool is_origin = !strcmp(setting->name, "cors");
	enum sluice_answer code = is_origin ? SLUICE_ANSWER_NONE : answer_of_code(setting->name + strlen("answer/"));
	struct answers_fault fault = {0};
	char *value;
	int err;

	if (!is_origin && code == SLUICE_ANSWER_NONE) {
		refuse(work, setting, "there is no answer of this name in this version");
		return;
	}
	answers_lock();
	value = take_value(work->s, setting);
	err = is_origin ? put_origin(work, value, &fault) : put_answer(work, code, value, &fault);
	answers_unlock();
	if (!err)
		log_info("%s is %s, as it was set on another node", setting->name,
			value ? "the operator's" : "the default");
	else if (err == -EMSGSIZE)
		refuse(work, setting, "with its headers the answer %s would have %zu bytes; one segment holds %d",
			answer_code(fault.code), fault.size, SLUICE_ANSWER_MAX);
	else if (err == -EINVAL)
		refuse(work, setting, "it is not understood");
	else if (err != -EALREADY) /* a full disk, mostly: it may be over some day */
		try_again(work, setting);
	free(value);
}

/* --- lists ---------------------------------------------------------------------------------------------------------------------- */
static int read_key(const char *name, struct sluice_list_key *key)
{
	unsigned length;

	*key = (struct sluice_list_key){.list = *name == 'd' ? SLUICE_LIST_DENY : SLUICE_LIST_ALLOW};
	if (prefix_parse(strchr(name, '/') + 1, &key->addr, &length))
		return -EINVAL;
	key->prefix_len = (__u8)length;
	return 0;
}

static int read_entry(const char *value, struct sluice_list_entry *entry)
{
	json_t *json = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
	const char *label = "", *reason = "";
	json_int_t expires = 0;
	int err = json_unpack(json, "{s?s, s?s, s?I}", "label", &label, "reason", &reason, "expires_ns", &expires);

	*entry = (struct sluice_list_entry){.expires_wall = (__u64)expires};
	if (!err)
		lists_make_text(entry->text, label, reason);
	json_decref(json);
	return err || expires < 0 ? -EINVAL : 0;
}

/* All of a piece, or else one by one: those that fit. `d->lists_lock` is held. Lists that are full are said once for each piece, and only when something
 * new has no room.
 */
static void put_entries(struct work *work, const unsigned *places, const struct sluice_list_key *keys,
	struct sluice_list_entry *entries, unsigned count)
{
	uint64_t now = time_wall_ns();
	struct lists_result result;
	unsigned new_count = 0;

	if (!lists_put_many(work->d->lists, keys, entries, count, now, LISTS_OVERWRITE, &result))
		return;
	for (unsigned i = 0; i < count; i++) {
		int err = lists_put_many(work->d->lists, &keys[i], &entries[i], 1, now, LISTS_OVERWRITE, &result);
		bool was_refused = work->entry_was_refused[places[i]];

		if (!err)
			continue;
		work->was_refused = was_refused || (err == -E2BIG && new_count);
		new_count += err == -E2BIG && !was_refused;
		if (err == -E2BIG)
			refuse(work, work->entries[places[i]],
				"the lists are full: raise gate.max_prefixes and attach again, as on the other nodes");
		else
			refuse(work, work->entries[places[i]], "%s", strerror(-err));
	}
	if (new_count > 1)
		log_error("%u more entries of lists are not in force here for the same reason", new_count - 1);
}

/* What is to become of the entry: 1 to be put, -1 to be removed, 0 it is so already; or -EINVAL. */
static int compare_entry(struct work *work, struct setting *setting, struct sluice_list_key *key,
	struct sluice_list_entry *entry, uint64_t now)
{
	struct sluice_list_entry present;
	char *value = take_value(work->s, setting);
	int err = read_key(setting->name, key), change = 0;
	bool is_there = !err && !bpf_map_lookup_elem(work->d->maps.lists, key, &present);

	if (!err && value)
		err = read_entry(value, entry);
	if (!err && value && !(entry->expires_wall && entry->expires_wall <= now))
		change = is_there && present.expires_wall == entry->expires_wall &&
				!memcmp(present.text, entry->text, sizeof(present.text))
			? 0
			: 1;
	else if (!err)
		change = is_there ? -1 : 0;
	free(value);
	return err ? err : change;
}

static void apply_entries(struct work *work)
{
	struct sluice_list_key *keys = calloc(PIECE, sizeof(*keys)), *gone = calloc(PIECE, sizeof(*gone));
	struct sluice_list_entry *entries = calloc(PIECE, sizeof(*entries));
	unsigned put[PIECE]; /* their places in the piece */
	unsigned put_count = 0, gone_count = 0;
	uint64_t now = time_wall_ns();

	if (!keys || !gone || !entries) {
		for (unsigned i = 0; i < work->entry_count; i++)
			try_again(work, work->entries[i]);
		goto out;
	}
	kept_lists_lock();
	for (unsigned i = 0; i < work->entry_count; i++) {
		struct sluice_list_key key;
		int change = compare_entry(work, work->entries[i], &key, &entries[put_count], now);

		work->was_refused = work->entry_was_refused[i];
		if (change == -EINVAL)
			refuse(work, work->entries[i], "it is not understood");
		if (change > 0) {
			keys[put_count] = key;
			put[put_count++] = i;
		}
		if (change < 0 && change != -EINVAL)
			gone[gone_count++] = key;
	}
	pthread_mutex_lock(&work->d->lists_lock);
	if (put_count)
		put_entries(work, put, keys, entries, put_count);
	for (unsigned i = 0; i < gone_count; i++)
		lists_remove(work->d->lists, gone[i].list, &gone[i].addr, gone[i].prefix_len);
	pthread_mutex_unlock(&work->d->lists_lock);
	if (put_count)
		kept_write_entries(work->d, keys, put_count);
	if (gone_count)
		kept_write_entries(work->d, gone, gone_count);
	kept_lists_unlock();
	if (put_count || gone_count)
		log_info("lists: %u entries put and %u removed, as it was done on other nodes", put_count, gone_count);
out:
	free(keys);
	free(gone);
	free(entries);
}

/* --- sales ---------------------------------------------------------------------------------------------------------------------- */
int settings_sale_of_text(const char *value, const char *slug, struct sale *sale)
{
	json_t *json = value ? json_loads(value, JSON_REJECT_DUPLICATES, NULL) : NULL;
	json_int_t id, opens, ends, per_buyer, hold, pace, multiplier;
	const char *named, *mode;
	int paused, ended;
	int err = !json ||
		json_unpack(json, "{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:b, s:b}", "id", &id, "slug", &named,
			"opens_ns", &opens, "ends_ns", &ends, "per_buyer", &per_buyer, "hold_seconds", &hold,
			"pace_per_second", &pace, "order_mode", &mode, "token_multiplier", &multiplier, "paused",
			&paused, "ended", &ended);

	if (!err)
		err = strcmp(named, slug) != 0 || !sales_slug_is_valid(slug) || id < 1 || id > UINT32_MAX ||
			strlen(mode) >= SALE_MODE_MAX;
	if (!err) {
		*sale = (struct sale){.id = (uint32_t)id,
			.opens_ns = (uint64_t)opens,
			.ends_ns = (uint64_t)ends,
			.per_buyer = (uint32_t)per_buyer,
			.hold_seconds = (uint32_t)hold,
			.pace_per_second = (uint32_t)pace,
			.token_multiplier = (uint32_t)multiplier,
			.paused = paused,
			.ended = ended};
		snprintf(sale->slug, sizeof(sale->slug), "%s", slug);
		snprintf(sale->order_mode, sizeof(sale->order_mode), "%s", mode);
	}
	json_decref(json);
	return err ? -EINVAL : 0;
}

/* change_lock is held. Returns false to try again. */
static bool put_sale(struct work *work, struct setting *setting, struct sale *sale)
{
	struct pipeline_answer answer;
	struct sale known;
	bool exists, is_same, is_over = sale->ended || sale->ends_ns <= time_wall_ns();
	enum sale_change_where where = SALE_CHANGED_ELSEWHERE;
	char *text, *wanted;

	if (sale_change_is_open(work->d))
		return false;
	exists = !sales_find(work->d->sales, sale->slug, &known);
	if (exists && known.id != sale->id) {
		refuse(work, setting,
			"this node has a sale of that name from before it belonged to the fleet (id %u), and that stays its own",
			known.id);
		return true;
	}
	if (!exists && is_over) /* and was before this node heard of it: there is nothing to sell */
		return true;
	if (!exists && !sales_find_id(work->d->sales, sale->id, &known)) {
		refuse(work, setting, "this node has given its id %u to the sale %s", sale->id, known.slug);
		return true;
	}
	if (!exists && !sales_slot_is_free(work->d->sales, sale->id, time_wall_ns())) {
		refuse(work, setting,
			"its place in the gate is taken by a sale of this node alone, until that is over");
		return false;
	}
	if (exists) {
		/* Ended here, and this node died before it had noted that: which is final, so the others hear of it now. */
		if (known.ended && !sale->ended)
			where = SALE_CHANGED_HERE;
		sale->ended |= known.ended;
		text = settings_text_of_sale(&known);
		wanted = settings_text_of_sale(sale);
		is_same = is_text(text, wanted);
		free(text);
		free(wanted);
		if (is_same && where == SALE_CHANGED_HERE)
			fleet_settings_note_sale(work->d, sale);
		if (is_same)
			return true;
	}
	if (sale_change_store(work->d, sale, exists ? -1 : 0, where, &answer)) {
		if (answer.error == -EREMOTEIO)
			refuse(work, setting, "the ledger refused: %s", answer.detail);
		return answer.error == -EREMOTEIO && !strcmp(answer.code, "conflict");
	}
	log_info("sale %s is %s as on another node", sale->slug, exists ? "set" : "made");
	return true;
}

static void apply_sale(struct work *work, struct setting *setting)
{
	struct sale sale;
	bool is_done = true;
	char *value;

	lock_changes(work);
	value = take_value(work->s, setting);
	if (settings_sale_of_text(value, setting->name + strlen("sale/"), &sale))
		refuse(work, setting, "it is not understood");
	else
		is_done = put_sale(work, setting, &sale);
	pthread_mutex_unlock(&work->d->change_lock);
	if (!is_done)
		try_again(work, setting);
	free(value);
}

/* --- all ------------------------------------------------------------------------------------------------------------------------ */
static void apply_one(struct work *work, struct setting *setting)
{
	const char *name = setting->name;

	if (!strncmp(name, "limit/", 6) || !strncmp(name, "shadow/", 7))
		apply_limit(work, setting);
	else if (!strncmp(name, "answer/", 7) || !strcmp(name, "cors"))
		apply_answer(work, setting);
	else if (!strncmp(name, "sale/", 5))
		apply_sale(work, setting);
	else
		refuse(work, setting, "this version knows no such setting");
}

/* Takes the entries of lists among what is due as one piece, up to the first that is something else, or that one alone. */
static struct setting *take_work(struct work *work)
{
	struct fleet_settings *s = work->s;
	struct setting *other = NULL;

	work->entry_count = 0;
	settings_lock(s);
	while (work->entry_count < PIECE && !other) {
		struct setting *next = TAILQ_FIRST(&s->table->due);

		if (!next || (work->entry_count && !is_entry(next->name)))
			break;
		work->was_refused = next->flags & SETTING_REFUSED;
		settings_take_due(s->table);
		if (is_entry(next->name)) {
			work->entry_was_refused[work->entry_count] = work->was_refused;
			work->entries[work->entry_count++] = next;
		} else {
			other = next;
		}
	}
	settings_unlock(s);
	return other;
}

bool settings_apply_due(struct fleet_settings *s)
{
	struct work *work = calloc(1, sizeof(*work));
	struct setting *other;
	bool is_done;

	if (!work)
		return false;
	work->s = s;
	work->d = s->d;
	while (atomic_load(&s->is_running) && work->again_count <= PIECE / 2) {
		other = take_work(work);
		if (other)
			apply_one(work, other);
		else if (work->entry_count)
			apply_entries(work);
		else
			break;
		if (work->again_count && work->entry_count)
			break;
	}
	settings_lock(s);
	for (unsigned i = 0; i < work->again_count; i++) {
		unsigned refused = work->again[i]->flags & SETTING_REFUSED;

		settings_put_due(s->table, work->again[i]);
		if (refused)
			settings_refuse(s->table, work->again[i]);
	}
	is_done = !work->again_count;
	settings_unlock(s);
	free(work);
	return is_done;
}
