/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The equation of a fleet: total = free + what is leased to the nodes, and what is leased to a node = what its ledger has put in. See verify_fleet.h.
 *
 * What one look finds can be an operation under way: the nodes and Redis are not asked at one moment.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verify_fleet.h"

enum kind {
	KIND_NOT_IN_REDIS,
	KIND_SETTLING,
	KIND_DEFICIT,
	KIND_TOTAL_SUM,
	KIND_OVERSOLD,
	KIND_NO_BOOK,
	KIND_NO_MEMBER,
	KIND_BALANCE,
	KIND_EPOCH,
	KIND_BOOK_SUM,
	KIND_GATE_SUM,
	KIND_TOTAL_KNOWN,
	KINDS
};

static const struct {
	const char *name, *invariant, *text;
} kinds[KINDS] = {
	[KIND_NOT_IN_REDIS] = {"not_in_redis", "I2", "nodes have leases of the sale, and Redis does not know it"},
	[KIND_SETTLING] = {"settling", "I2",
		"Redis has lost its memory and waits for nodes to tell it again: how many, of how many; nothing is leased meanwhile"},
	[KIND_DEFICIT] = {"deficit", "I1", "units that nodes hold beyond the total"},
	[KIND_TOTAL_SUM] = {"total_sum", "I2", "units free in Redis and leased to nodes, and the total"},
	[KIND_OVERSOLD] = {"oversold", "I1", "units in orders of all nodes, and the total"},
	[KIND_NO_BOOK] = {"no_book", "I2", "Redis has leased units to the node, and its ledger knows nothing of it"},
	[KIND_NO_MEMBER] = {"no_member", "I1", "the node's ledger has leased units, and Redis knows no such node"},
	[KIND_BALANCE] = {"balance", "I1", "units leased to the node: by its ledger, and by Redis"},
	[KIND_EPOCH] = {"epoch", "I1", "epoch of the node's lease: in its ledger, and in Redis"},
	[KIND_BOOK_SUM] = {"book_sum", "I1",
		"put in and refunded by the node's ledger, and what its book says is leased to it"},
	[KIND_GATE_SUM] = {"gate_sum", "I2", "free, in orders and on their way on the node, and put in"},
	[KIND_TOTAL_KNOWN] = {"total_known", "I2",
		"the total as the node's book has it, and as Redis has it; they call it the same version"},
};

static json_int_t number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

/* `node` NULL: of the whole sale. */
static void differs(struct fleet_look *look, enum kind kind, const char *sale, const char *node, json_int_t found,
	json_int_t expected)
{
	json_array_append_new(look->differences,
		json_pack("{s:s, s:s, s:s, s:o, s:I, s:I, s:s}", "invariant", kinds[kind].invariant, "difference",
			kinds[kind].name, "sale", sale, "node", node ? json_integer(atoi(node)) : json_null(), "found",
			found, "expected", expected, "detail", kinds[kind].text));
	json_array_append_new(look->seen, json_integer(1));
}

static void must_be(struct fleet_look *look, enum kind kind, const char *sale, const char *node, json_int_t found,
	json_int_t expected)
{
	if (found != expected)
		differs(look, kind, sale, node, found, expected);
}

/* The node's account of a sale, NULL if it has not answered or has no lease of it. */
static const json_t *account_of(const json_t *said, const char *slug)
{
	const json_t *account;
	size_t i;

	json_array_foreach(json_object_get(said, "sales"), i, account) {
		const char *name = json_string_value(json_object_get(account, "slug"));

		if (name && !strcmp(name, slug))
			return account;
	}
	return NULL;
}

struct sums {
	json_int_t balances, held, confirmed, refunded, unsold, settled, members;
	bool has_accounts;      /* a node knows of a lease */
	json_int_t silent_sold; /* by nodes that do not answer, as they last told Redis */
};

static void compare_account(
	struct fleet_look *look, const char *slug, const char *node, const json_t *account, const json_t *redis)
{
	const json_t *book = json_object_get(account, "book");
	json_int_t put_in = number(account, "put_in"), ordered = number(account, "held") + number(account, "confirmed");

	must_be(look, KIND_BOOK_SUM, slug, node, put_in + number(account, "refunded"), number(book, "balance"));
	must_be(look, KIND_GATE_SUM, slug, node, number(account, "free") + ordered + number(account, "in_flight"),
		put_in);
	if (json_is_object(redis) && number(book, "version") == number(redis, "version"))
		must_be(look, KIND_TOTAL_KNOWN, slug, node, number(book, "total"), number(redis, "total"));
}

static void compare_node(struct fleet_look *look, const char *slug, const char *node, const json_t *said,
	const json_t *redis, struct sums *sums)
{
	const json_t *account = account_of(said, slug), *row = json_object_get(json_object_get(redis, "nodes"), node);
	const json_t *book = json_object_get(account, "book");
	json_int_t balance = number(row, "balance");

	sums->members += row != NULL;
	sums->settled += json_is_true(json_object_get(row, "settled"));
	sums->balances += balance;
	sums->has_accounts = sums->has_accounts || account;
	if (account) {
		sums->held += number(account, "held");
		sums->confirmed += number(account, "confirmed");
		sums->refunded += number(account, "refunded");
		sums->unsold += number(account, "free");
		compare_account(look, slug, node, account, redis);
	} else {
		sums->silent_sold += json_is_object(said) ? 0 : number(row, "sold");
	}
	/* The rest is of two that must agree. */
	if (!json_is_object(redis) || !json_is_object(said) || json_is_true(json_object_get(row, "fenced")))
		return;
	if (!row && account)
		differs(look, KIND_NO_MEMBER, slug, node, number(book, "balance"), 0);
	else if (!account && balance)
		differs(look, KIND_NO_BOOK, slug, node, 0, balance);
	else if (account && json_is_true(json_object_get(row, "settled"))) {
		must_be(look, KIND_BALANCE, slug, node, number(book, "balance"), balance);
		must_be(look, KIND_EPOCH, slug, node, number(book, "epoch"), number(row, "epoch"));
	}
}

static void compare_sale(struct fleet_look *look, const json_t *audit, const char *slug, const json_t *redis)
{
	const char *state = json_string_value(json_object_get(redis, "state")) ?: "unknown", *node;
	bool is_known = json_is_object(redis), is_open = is_known && !strcmp(state, "open");
	json_int_t total = number(redis, "total"), sold;
	size_t before = json_array_size(look->differences);
	struct sums sums = {0};
	json_t *said;

	json_object_foreach(json_object_get(audit, "nodes"), node, said)
		compare_node(look, slug, node, said, redis, &sums);
	/* A sale of before the fleet, which never had a unit. */
	if (!is_known && !sums.has_accounts)
		return;
	sold = sums.held + sums.confirmed + sums.refunded + sums.silent_sold;
	if (!is_known)
		differs(look, KIND_NOT_IN_REDIS, slug, NULL, 0, 0);
	/* Of what is over nothing is to be leased; a node that never spoke of it may be gone for good. */
	if (is_known && !is_open && !json_is_true(json_object_get(redis, "over")))
		differs(look, KIND_SETTLING, slug, NULL, sums.members - sums.settled, sums.members);
	if (is_open) {
		must_be(look, KIND_DEFICIT, slug, NULL, number(redis, "deficit"), 0);
		must_be(look, KIND_TOTAL_SUM, slug, NULL,
			number(redis, "free") + sums.balances - number(redis, "deficit"), total);
		if (sold > total)
			differs(look, KIND_OVERSOLD, slug, NULL, sold, total);
	}
	json_array_append_new(look->sales,
		json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "sale", slug, "state", state, "total",
			total, "free", number(redis, "free"), "on_nodes", sums.unsold, "held", sums.held, "confirmed",
			sums.confirmed, "refunded", sums.refunded, "unheard", sums.silent_sold, "equation",
			json_array_size(look->differences) > before ? "broken" : "holds"));
}

int fleet_look_compare(const json_t *audit, struct fleet_look *look)
{
	json_t *nodes = json_object_get(audit, "nodes"), *redis = json_object_get(audit, "redis"), *said;
	const char *name;

	*look = (struct fleet_look){
		.differences = json_array(), .sales = json_array(), .silent = json_array(), .seen = json_array()};
	if (!look->differences || !look->sales || !look->silent || !look->seen) {
		fleet_look_free(look);
		return -ENOMEM;
	}
	if (!json_is_object(nodes) || !json_is_object(redis)) {
		fleet_look_free(look);
		return -EPROTO;
	}
	json_object_foreach(nodes, name, said)
		if (!json_is_object(said))
			json_array_append_new(look->silent, json_integer(atoi(name)));
	json_object_foreach(redis, name, said)
		compare_sale(look, audit, name, said);
	return 0;
}

void fleet_look_free(struct fleet_look *look)
{
	json_decref(look->differences);
	json_decref(look->sales);
	json_decref(look->silent);
	json_decref(look->seen);
	memset(look, 0, sizeof(*look));
}

static unsigned seen(const struct fleet_look *look, size_t i)
{
	return (unsigned)json_integer_value(json_array_get(look->seen, i));
}

void fleet_look_follow(struct fleet_look *look, const struct fleet_look *before)
{
	json_t *difference, *was;
	size_t i, j;

	json_array_foreach(look->differences, i, difference)
		json_array_foreach(before->differences, j, was)
			if (json_equal(was, difference))
				json_array_set_new(look->seen, i, json_integer((json_int_t)seen(before, j) + 1));
}

bool fleet_look_is_unsure(const struct fleet_look *look, unsigned looks)
{
	for (size_t i = 0; i < json_array_size(look->differences); i++)
		if (seen(look, i) < looks)
			return true;
	return false;
}

static bool is_broken(const struct fleet_look *look, const json_t *sale)
{
	json_t *difference;
	size_t i;

	json_array_foreach(look->differences, i, difference)
		if (json_equal(json_object_get(difference, "sale"), json_object_get(sale, "sale")))
			return true;
	return false;
}

void fleet_look_judge(struct fleet_look *look, unsigned looks)
{
	json_t *sale;
	size_t i;

	for (i = json_array_size(look->differences); i-- > 0;)
		if (seen(look, i) < looks) {
			json_array_remove(look->differences, i);
			json_array_remove(look->seen, i);
		}
	json_array_foreach(look->sales, i, sale)
		json_object_set_new(sale, "equation", json_string(is_broken(look, sale) ? "broken" : "holds"));
}
