/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What an operator wants of the fleet's stock, as wishes (fleet_wishes.h): a sale's total made or changed, a node fenced, Redis rebuilt or read. The calls are
 * those of fleet/lease.h, which are safe to make again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_leases_impl.h"

/* A control request waits for so many rounds' time. */
#define WISH_ROUNDS 2
#define WISH_MIN_MS 1500
#define WISH_MAX_MS 10000
#define AGAIN_NS 100000000L
#define REGEN_TRIES 50

static const struct lease *lease_of(struct daemon *d, const char *slug)
{
	struct leased_sale *sale = leases_find(d->leases, slug);

	return sale && sale->state == LEASED ? &sale->lease : &d->leases->stranger;
}

static json_int_t wanted(const struct fleet_wish_item *item, const char *name)
{
	return json_integer_value(json_object_get(item->wish->wanted, name));
}

/* Something may have changed: the lease is to hear of it. */
static void look_anew(struct daemon *d, const char *slug)
{
	struct leased_sale *sale = leases_find(d->leases, slug);

	if (!sale || sale->state != LEASED)
		return;
	lease_look(&sale->lease);
	sale->due = true;
}

static bool ask_call(
	struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item, const struct lease_call *call)
{
	return leases_call(d, round, item->slug, call, fleet_wish_done, item);
}

/* Who wishes something waits for this node's promise to a new generation, also in a sale that is over. */
static void settle_now(struct daemon *d, const char *slug)
{
	struct leased_sale *sale = leases_find(d->leases, slug);

	if (!sale || sale->state != LEASED)
		return;
	lease_settle_now(&sale->lease);
	sale->due = true;
}

enum answer_use { ANSWER_TAKE, ANSWER_AGAIN, ANSWER_FAILED };

/* While Redis waits for the nodes to tell it what they hold, this one first promises itself to the new generation: ask again. */
static enum answer_use read_answer(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	if (leases_read_reply(reply, &item->answer)) {
		item->error = -EREMOTEIO;
		snprintf(item->failure, sizeof(item->failure), "an answer that this program does not understand");
		return ANSWER_FAILED;
	}
	if (item->answer.answer != LEASE_REGEN)
		return ANSWER_TAKE;
	settle_now(d, item->slug);
	item->error = ++item->tries > REGEN_TRIES ? -EAGAIN : 0;
	return item->error ? ANSWER_FAILED : ANSWER_AGAIN;
}

int fleet_leases_wish(struct daemon *d, struct fleet_wish *wish)
{
	unsigned timeout_ms = d->config.fleet.timeout_ms * WISH_ROUNDS;

	if (timeout_ms < WISH_MIN_MS)
		timeout_ms = WISH_MIN_MS;
	return fleet_wish_wait(d, d->leases->wishes, wish, timeout_ms < WISH_MAX_MS ? timeout_ms : WISH_MAX_MS);
}

/* A wish for one sale. Returns 0 with *item, of a wish that the caller frees; or an error, and nothing to free. */
static int wish_for(struct daemon *d, const struct fleet_wish_kind *kind, const char *slug, json_t *wanted_json,
	struct fleet_wish_item **item)
{
	struct fleet_wish *wish = fleet_wish_new(kind, 1, wanted_json);
	int err;

	if (!wish)
		return -ENOMEM;
	snprintf(wish->items[0].slug, sizeof(wish->items[0].slug), "%s", slug);
	err = fleet_leases_wish(d, wish);
	if (err)
		return err;
	*item = &wish->items[0];
	err = (*item)->error;
	if (err)
		fleet_wish_free(wish);
	return err;
}

/* A wish for every sale that has a lease here; the same. `slug` not NULL: only that one. */
static int wish_for_all(struct daemon *d, const struct fleet_wish_kind *kind, const char *slug, json_t *wanted_json,
	struct fleet_wish **wish, char *failure, size_t failure_size)
{
	struct fleet_leases *leases = d->leases;
	unsigned count = 0;
	int err;

	*failure = '\0';
	pthread_mutex_lock(&leases->lock);
	*wish = fleet_wish_new(kind, slug ? 1 : leases->count, wanted_json);
	for (unsigned i = 0; *wish && !slug && i < leases->count; i++)
		if (leases->sales[i]->state == LEASED)
			snprintf((*wish)->items[count++].slug, sizeof((*wish)->items[0].slug), "%s",
				leases->sales[i]->sale.slug);
	pthread_mutex_unlock(&leases->lock);
	if (!*wish)
		return -ENOMEM;
	if (slug)
		snprintf((*wish)->items[count++].slug, sizeof((*wish)->items[0].slug), "%s", slug);
	(*wish)->count = count;
	err = fleet_leases_wish(d, *wish);
	if (err)
		return err;
	err = fleet_wish_error(*wish, failure, failure_size);
	if (err)
		fleet_wish_free(*wish);
	return err;
}

/* --- the total --------------------------------------------------------------------------------------------------------------------- */
enum create_phase { CREATE_LOOK, CREATE_MAKE };

static bool ask_create(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	const struct lease *lease = lease_of(d, item->slug);
	struct lease_call call;

	if (item->phase == CREATE_LOOK)
		lease_show_call(lease, d->config.fleet.node, &call);
	else
		lease_create_call(lease, json_string_value(json_object_get(item->wish->wanted, "operation")),
			wanted(item, "total"),
			json_is_true(json_object_get(item->wish->wanted, "may_be_sold")) ? NULL : &item->answer, &call);
	return ask_call(d, round, item, &call);
}

static bool take_create(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	/* What there is tells its total also in another generation. */
	if (read_answer(d, item, reply) == ANSWER_TAKE && item->phase == CREATE_LOOK && !item->answer.version) {
		item->phase = CREATE_MAKE;
		return false;
	}
	return true;
}

static const struct fleet_wish_kind create_kind = {.ask = ask_create, .take = take_create};

/* Notes that what becomes of a creation may not be heard of. Returns whether that was so already. */
static bool note_unsure(struct fleet_leases *leases, const char *slug)
{
	bool was_unsure;

	pthread_mutex_lock(&leases->lock);
	was_unsure = json_object_get(leases->unsure, slug) != NULL;
	json_object_set_new(leases->unsure, slug, json_true());
	pthread_mutex_unlock(&leases->lock);
	return was_unsure;
}

static void note_sure(struct fleet_leases *leases, const char *slug)
{
	pthread_mutex_lock(&leases->lock);
	json_object_del(leases->unsure, slug);
	pthread_mutex_unlock(&leases->lock);
}

int fleet_leases_create(struct daemon *d, const char *slug, uint64_t stock, bool may_be_sold, uint64_t *total)
{
	bool was_unsure = note_unsure(d->leases, slug);
	struct fleet_wish_item *item;
	char operation[32];
	uint64_t random;
	int err;

	/* A creation after a loss is another operation, also of as many units. */
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EREMOTEIO;
	snprintf(operation, sizeof(operation), LEASES_CREATION "%016" PRIx64, random);
	err = wish_for(d, &create_kind, slug,
		json_pack("{s:s, s:I, s:b}", "operation", operation, "total", (json_int_t)stock, "may_be_sold",
			may_be_sold || was_unsure),
		&item);
	if (err)
		return err;
	note_sure(d->leases, slug);
	/* What is there already may have been made by a request whose answer was lost. */
	*total = item->answer.total > 0 ? (uint64_t)item->answer.total : 0;
	if (item->answer.answer == LEASE_REFUSED)
		err = -ETIMEDOUT;
	else if (item->answer.answer == LEASE_ABSENT)
		err = -EREMOTEIO;
	else if (*total != stock)
		err = -EEXIST;
	fleet_wish_free(item->wish);
	return err;
}

static bool ask_total(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	struct lease_call call;

	lease_total_call(lease_of(d, item->slug), json_string_value(json_object_get(item->wish->wanted, "operation")),
		wanted(item, "delta"), &call);
	return ask_call(d, round, item, &call);
}

static bool take_total(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	look_anew(d, item->slug);
	return read_answer(d, item, reply) != ANSWER_AGAIN;
}

static const struct fleet_wish_kind total_kind = {.ask = ask_total, .take = take_total};

/* The total is Redis's until a ledger has it too: that version, made by that operation and no other. */
static bool await_version(
	struct daemon *d, const char *slug, uint64_t version, const char *operation, uint64_t until_ns)
{
	struct fleet_stock stock;
	struct sale sale;

	while (time_mono_ns() < until_ns && !atomic_load(&d->stopping)) {
		if (!sales_find(d->sales, slug, &sale) && !fleet_leases_stock(d, sale.id, &stock) &&
			(stock.version > version || (stock.version == version && !strcmp(stock.operation, operation))))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS / 20}, NULL);
	}
	return false;
}

int fleet_leases_move(
	struct daemon *d, const char *slug, int64_t delta, const char *key, uint64_t *total, uint64_t *available)
{
	/* Nodes give back what they do not need within two seconds. */
	uint64_t until = time_mono_ns() + 3000000000ULL;
	char operation[LEASE_OPERATION_MAX];
	enum lease_answer answer;
	uint64_t version;
	int err;

	for (;;) {
		struct fleet_wish_item *item;

		err = wish_for(d, &total_kind, slug,
			json_pack("{s:s, s:I}", "operation", key, "delta", (json_int_t)delta), &item);
		if (err)
			return err;
		answer = item->answer.answer;
		*total = item->answer.total > 0 ? (uint64_t)item->answer.total : 0;
		*available = item->answer.free > 0 ? (uint64_t)item->answer.free : 0;
		version = item->answer.version > 0 ? (uint64_t)item->answer.version : 0;
		memcpy(operation, item->answer.operation, sizeof(operation));
		fleet_wish_free(item->wish);
		if (answer == LEASE_OK || answer == LEASE_ABSENT || answer == LEASE_REFUSED || time_mono_ns() >= until)
			break;
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS}, NULL);
	}
	switch (answer) {
	case LEASE_OK:
		return await_version(d, slug, version, operation, until) ? 0 : -ETIMEDOUT;
	case LEASE_SHORT:
		return -ENOSPC;
	case LEASE_REFUSED:
		return -ERANGE;
	case LEASE_ABSENT:
		return -ENOENT;
	default:
		return -EAGAIN;
	}
}

/* --- a node that is gone -------------------------------------------------------------------------------------------------------------- */
enum fence_phase { FENCE_LOOK, FENCE_SET };

static bool ask_fence(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	const struct lease *lease = lease_of(d, item->slug);
	unsigned node = (unsigned)wanted(item, "node");
	struct lease_call call;

	if (item->phase == FENCE_LOOK)
		lease_show_call(lease, node, &call);
	else
		lease_fence_call(lease, node, &item->answer.row, wanted(item, "sold"), wanted(item, "exact"), &call);
	return ask_call(d, round, item, &call);
}

static bool take_fence(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	const struct lease_row *row = &item->answer.row;
	enum answer_use use = read_answer(d, item, reply);

	if (use != ANSWER_TAKE || item->phase == FENCE_SET) {
		look_anew(d, item->slug);
		item->phase = use == ANSWER_AGAIN ? FENCE_LOOK : item->phase;
		return use != ANSWER_AGAIN;
	}
	item->known = json_pack("{s:I, s:I}", "balance", (json_int_t)row->balance, "sold", (json_int_t)row->sold);
	if (item->answer.answer == LEASE_ABSENT ||
		!lease_members_has(&item->answer.members, (unsigned)wanted(item, "node")))
		return true;
	/* Whoever read its ledger looked before: a node that has spoken since then is alive. */
	if (wanted(item, "heard") >= 0 && wanted(item, "heard") != row->heard)
		return true;
	item->phase = FENCE_SET;
	return false;
}

static const struct fleet_wish_kind fence_kind = {.ask = ask_fence, .take = take_fence};

static const char *fence_result(const struct fleet_wish_item *item)
{
	if (item->phase == FENCE_LOOK)
		return item->answer.answer == LEASE_OK &&
				lease_members_has(&item->answer.members, (unsigned)wanted(item, "node"))
			? "heard_of"
			: "unknown";
	switch (item->answer.answer) {
	case LEASE_OK:
		return "fenced";
	case LEASE_REFUSED:
		return "out_of_range";
	default:
		return "heard_of";
	}
}

static json_t *fence_row(const struct fleet_wish_item *item)
{
	const struct lease_row *row = &item->answer.row;
	const char *result = fence_result(item);
	json_int_t held = json_integer_value(json_object_get(item->known, "balance"));
	bool is_fenced = !strcmp(result, "fenced");

	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "sale", item->slug, "result", result, "balance", held,
		"sold",
		is_fenced && row->balance >= 0 ? (json_int_t)row->balance
					       : json_integer_value(json_object_get(item->known, "sold")),
		"given_back",
		is_fenced && row->balance >= 0 && held > row->balance ? held - (json_int_t)row->balance : 0, "epoch",
		(json_int_t)row->epoch);
}

int fleet_leases_fence(
	struct daemon *d, const struct fleet_fence *fence, json_t *rows, char *failure, size_t failure_size)
{
	struct fleet_wish *wish;
	int err = wish_for_all(d, &fence_kind, fence->slug,
		json_pack("{s:i, s:I, s:i, s:I}", "node", (int)fence->node, "sold", (json_int_t)fence->sold, "exact",
			fence->is_exact, "heard", (json_int_t)fence->heard),
		&wish, failure, failure_size);

	if (err)
		return err;
	for (unsigned i = 0; i < wish->count; i++)
		json_array_append_new(rows, fence_row(&wish->items[i]));
	fleet_wish_free(wish);
	return 0;
}

/* --- Redis as a whole --------------------------------------------------------------------------------------------------------------------- */
static bool ask_rebuild(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	const struct lease *lease = lease_of(d, item->slug);
	struct lease_call call;

	if (!item->phase)
		lease_show_call(lease, d->config.fleet.node, &call);
	else
		lease_rebuild_call(lease, &call);
	return ask_call(d, round, item, &call);
}

static bool take_rebuild(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	enum answer_use use = read_answer(d, item, reply);

	/* A new generation is what was wished. */
	if (item->phase && use == ANSWER_AGAIN) {
		look_anew(d, item->slug);
		return true;
	}
	if (use != ANSWER_TAKE)
		return use == ANSWER_FAILED;
	if (item->phase++)
		return true;
	item->known = json_pack("{s:s, s:o}", "sale", item->slug, "free_before",
		item->answer.answer == LEASE_ABSENT ? json_null() : json_integer((json_int_t)item->answer.free));
	return item->answer.answer == LEASE_ABSENT;
}

static const struct fleet_wish_kind rebuild_kind = {.ask = ask_rebuild, .take = take_rebuild};

int fleet_leases_rebuild(struct daemon *d, json_t *rows, char *failure, size_t failure_size)
{
	struct fleet_wish *wish;
	int err = wish_for_all(d, &rebuild_kind, NULL, NULL, &wish, failure, failure_size);

	if (err)
		return err;
	for (unsigned i = 0; i < wish->count; i++)
		json_array_append(rows, wish->items[i].known);
	fleet_wish_free(wish);
	return 0;
}

/* One call for each node, and what is of the sale comes with each. The first phases are the nodes of the config; then those that only Redis knows, by
 * number.
 */
static unsigned node_of_phase(const struct daemon *d, unsigned phase)
{
	return phase < d->config.node_count ? d->config.nodes[phase].id : phase - d->config.node_count;
}

/* Returns false if there is none. */
static bool next_node(const struct daemon *d, struct fleet_wish_item *item)
{
	while (++item->phase <= d->config.node_count + LEASE_NODE_MAX) {
		unsigned node = node_of_phase(d, item->phase);

		if (item->phase < d->config.node_count ||
			(!config_node(&d->config, node) && lease_members_has(&item->answer.members, node)))
			return true;
	}
	return false;
}

static bool ask_read(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	struct lease_call call;

	lease_show_call(lease_of(d, item->slug), node_of_phase(d, item->phase), &call);
	return ask_call(d, round, item, &call);
}

static json_t *members_json(const struct lease_members *members)
{
	json_t *json = json_array();

	for (unsigned node = 1; node <= LEASE_NODE_MAX; node++)
		if (lease_members_has(members, node))
			json_array_append_new(json, json_integer(node));
	return json;
}

static void add_row(struct daemon *d, struct fleet_wish_item *item)
{
	unsigned node = node_of_phase(d, item->phase);
	const struct lease_row *row = &item->answer.row;
	/* Units of the last operation are told only of a grant: with them a ledger proves to be the node's own, or not. */
	json_int_t granted = row->op == LEASE_OP_GRANT ? (json_int_t)row->units : 0;
	char name[12];

	if (!lease_members_has(&item->answer.members, node))
		return;
	snprintf(name, sizeof(name), "%u", node);
	json_object_set_new(json_object_get(item->known, "nodes"), name,
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "balance", (json_int_t)row->balance, "sold",
			(json_int_t)row->sold, "epoch", (json_int_t)row->epoch, "seq", (json_int_t)row->seq, "granted",
			granted, "written", (json_int_t)row->written, "heard", (json_int_t)row->heard, "fenced",
			row->fenced, "settled", !lease_members_has(&item->answer.missing, node)));
}

static bool take_read(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	const struct leased_sale *sale = leases_find(d->leases, item->slug);
	const struct lease_reply *answer = &item->answer;
	enum answer_use use = read_answer(d, item, reply);

	if (use != ANSWER_TAKE) {
		look_anew(d, item->slug);
		return use == ANSWER_FAILED;
	}
	if (answer->answer == LEASE_ABSENT)
		return true;
	if (!item->known)
		item->known = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:{}}", "state",
			answer->open ? "open" : "settling", "over", sale && sale->over, "total",
			(json_int_t)answer->total, "version", (json_int_t)answer->version, "free",
			(json_int_t)(answer->free > 0 ? answer->free : 0), "outside", (json_int_t)answer->outside,
			"deficit", (json_int_t)(answer->free < 0 ? -answer->free : 0), "missing",
			members_json(&answer->missing), "nodes");
	add_row(d, item);
	return !next_node(d, item);
}

static const struct fleet_wish_kind read_kind = {.ask = ask_read, .take = take_read};

int fleet_leases_read(struct daemon *d, json_t **sales, char *failure, size_t failure_size)
{
	struct fleet_wish *wish;
	int err = wish_for_all(d, &read_kind, NULL, NULL, &wish, failure, failure_size);

	if (err)
		return err;
	*sales = json_object();
	for (unsigned i = 0; i < wish->count; i++)
		json_object_set(*sales, wish->items[i].slug, wish->items[i].known ? wish->items[i].known : json_null());
	fleet_wish_free(wish);
	return 0;
}
