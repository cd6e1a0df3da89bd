/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The operator's side of a drill; see books.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "common/maps.h"
#include "common/timefmt.h"
#include "common/token.h"
#include "drill/books.h"
#include "drill/drill.h"

#define REST_TIMEOUT_MS 10000
#define POLL_MS 100
#define HOUR_S 3600u
#define DENY_TTL_S 3600

int drill_books_open(struct cli_api **api, const char *control_socket)
{
	const struct cli_globals globals = {.socket = control_socket};

	return cli_api_open(api, &globals) ? -EIO : 0;
}

int drill_books_create_sale(struct cli_api *api, const struct drill_sale *sale)
{
	char opens[TIME_TEXT_MAX], ends[TIME_TEXT_MAX];
	json_t *body = json_pack("{s:I, s:s, s:s, s:i}", "stock", (json_int_t)sale->stock, "opens_at",
		time_format_rfc3339(sale->opens_ns, opens), "ends_at", time_format_rfc3339(sale->ends_ns, ends),
		"per_buyer", (int)sale->per_buyer);

	return cli_api_ask(
		       api, "creating the drill's sale", "PUT", cli_api_path("/v1/sales/%s", sale->slug), body, NULL)
		? -EIO
		: 0;
}

int drill_books_end_sale(struct cli_api *api, const char *slug)
{
	return cli_api_ask(api, "ending a sale", "POST", cli_api_path("/v1/sales/%s/end", slug), NULL, NULL) ? -EIO : 0;
}

int drill_books_deny(struct cli_api *api, const char *prefix)
{
	json_t *body = json_pack("{s:i, s:s}", "ttl_seconds", DENY_TTL_S, "reason", "drill");

	return cli_api_ask(api, prefix, "PUT", cli_api_path("/v1/lists/deny/%s", prefix), body, NULL) ? -EIO : 0;
}

int drill_books_issue(
	struct cli_api *api, const char *slug, const char *name, uint32_t count, char (*tokens)[SLUICE_TOKEN_TEXT + 1])
{
	for (uint32_t i = 0; i < count; i++) {
		char buyer[64];
		const char *text;
		json_t *answer;

		snprintf(buyer, sizeof(buyer), "%s-%" PRIu32, name, i);
		if (cli_api_ask(api, "issuing a token", "POST", cli_api_path("/v1/sales/%s/tokens", slug),
			    json_pack("{s:s}", "buyer", buyer), &answer))
			return -EIO;
		text = json_string_value(json_object_get(answer, "token"));
		if (!text || strlen(text) != SLUICE_TOKEN_TEXT) {
			cli_say("the daemon issued a token without \"token\" of %d characters", SLUICE_TOKEN_TEXT);
			json_decref(answer);
			return -EPROTO;
		}
		memcpy(tokens[i], text, SLUICE_TOKEN_TEXT + 1);
		json_decref(answer);
	}
	return 0;
}

int drill_books_expire(const char *key_file, const char (*good)[SLUICE_TOKEN_TEXT + 1], uint32_t count,
	char (*expired)[SLUICE_TOKEN_TEXT + 1])
{
	uint32_t now_s = (uint32_t)(time_wall_ns() / 1000000000ULL);
	struct token_keys keys;
	struct sluice_token token;
	char error[512];
	int err;

	/* token_keys_load would make a missing file; ours to read is only the daemon's */
	if (access(key_file, R_OK)) {
		err = -errno;
		cli_say("cannot make expired tokens: the daemon's key file %s: %s", key_file, strerror(errno));
		return err;
	}
	err = token_keys_load(&keys, key_file, error, sizeof(error));
	if (err) {
		cli_say("cannot make expired tokens: %s", error);
		return err;
	}
	for (uint32_t i = 0; i < count && !err; i++) {
		err = token_open(&keys, good[i], SLUICE_TOKEN_TEXT, &token);
		token.issued_at_s = now_s - 2 * HOUR_S;
		token.expires_at_s = now_s - HOUR_S;
		token.serial ^= 1; /* another token, not a changed one */
		token_seal(&keys.slot[keys.current], &token, expired[i]);
	}
	if (err)
		cli_say("cannot make expired tokens: %s does not hold the key that the daemon signs with", key_file);
	explicit_bzero(&keys, sizeof(keys));
	return err;
}

/* --- reading --------------------------------------------------------------------------------------------------------------- */

static int64_t number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static int read_time(const json_t *object, const char *name, uint64_t *wall_ns)
{
	const char *text = json_string_value(json_object_get(object, name));

	if (text && !time_parse_rfc3339(text, wall_ns))
		return 0;
	cli_say("the daemon's answer has no time in \"%s\"", name);
	return -EPROTO;
}

struct order_list {
	struct drill_ledger *ledger;
	size_t capacity;
	int err;
};

static int take_order(const json_t *element, void *arg)
{
	struct order_list *list = arg;
	struct drill_ledger *ledger = list->ledger;
	const char *id = json_string_value(json_object_get(element, "id"));
	const char *buyer = json_string_value(json_object_get(element, "buyer"));
	const char *state = json_string_value(json_object_get(element, "state"));
	struct books_order *order;

	if (ledger->count == list->capacity) {
		size_t more = list->capacity ? list->capacity * 2 : 1024;

		order = realloc(ledger->orders, more * sizeof(*order));
		if (!order) {
			list->err = -ENOMEM;
			return 1;
		}
		ledger->orders = order;
		list->capacity = more;
	}
	order = &ledger->orders[ledger->count];
	memset(order, 0, sizeof(*order));
	if (!id || !buyer || !state || !books_set_state(order, state) ||
		read_time(element, "admitted_at", &order->admitted_ns)) {
		cli_say("the daemon lists an order without id, buyer, state or time");
		list->err = -EPROTO;
		return 1;
	}
	order->id = strtoull(id, NULL, 16);
	order->buyer = strtoull(buyer, NULL, 16);
	order->seq = (uint64_t)number(element, "seq");
	order->quantity = (uint32_t)number(element, "quantity");
	ledger->count++;
	return 0;
}

static int read_stock(struct cli_api *api, const char *slug, struct drill_ledger *ledger)
{
	json_t *stock;

	if (cli_api_ask(api, "reading the stock", "GET", cli_api_path("/v1/sales/%s/stock", slug), NULL, &stock))
		return -EIO;
	ledger->put_in = number(stock, "put_in");
	ledger->free = number(stock, "free");
	ledger->held = number(stock, "held");
	ledger->confirmed = number(stock, "confirmed");
	ledger->in_flight = number(stock, "in_flight");
	ledger->balanced = json_is_true(json_object_get(stock, "balanced"));
	json_decref(stock);
	return 0;
}

int drill_books_read(struct cli_api *api, const char *slug, struct drill_ledger *ledger)
{
	const struct timespec nap = {0, POLL_MS * 1000000L};
	struct order_list list = {.ledger = ledger};
	const struct cli_api_walk walk = {
		.about = "reading the orders", .list = "orders", .visit = take_order, .arg = &list};
	json_t *sale;
	int err;

	if (cli_api_ask(api, slug, "GET", cli_api_path("/v1/sales/%s", slug), NULL, &sale))
		return -EIO;
	err = read_time(sale, "opens_at", &ledger->opens_ns);
	if (!err)
		err = read_time(sale, "ends_at", &ledger->ends_ns);
	ledger->per_buyer = (uint32_t)number(sale, "per_buyer");
	json_decref(sale);
	for (int waited = 0; !err && waited <= REST_TIMEOUT_MS; waited += POLL_MS) {
		err = read_stock(api, slug, ledger);
		if (!ledger->in_flight || drill_interrupted)
			break;
		nanosleep(&nap, NULL);
	}
	if (!err && cli_api_walk(api, cli_api_path("/v1/orders?sale=%s&limit=1000", slug), &walk))
		err = -EIO;
	if (!err)
		err = list.err;
	ledger->known = !err;
	return err;
}

/* An answer, or a drop that hit somebody: the end of a handshake and stray resets are daily business. */
static bool is_refusal(unsigned reason)
{
	if (reason == SLUICE_REASON_BARE_ACK || reason == SLUICE_REASON_RST_STRAY)
		return false;
	return reason_action(reason) == SLUICE_ACTION_DROP || reason_action(reason) == SLUICE_ACTION_ANSWER;
}

static void count_reason(struct drill_gate_counts *counts, const char *label, uint64_t count)
{
	if (!count)
		return;
	drill_tally_add(&counts->all, label, count);
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		if (!strcmp(reason_label(reason), label) && is_refusal(reason))
			drill_tally_add(&counts->refused, label, count);
	}
}

int drill_books_read_stats(struct cli_api *api, struct drill_gate_counts *counts)
{
	json_t *stats, *reasons, *count;
	const char *service, *label;

	memset(counts, 0, sizeof(*counts));
	if (cli_api_ask(api, "reading the gate's counters", "GET", cli_api_path("/v1/stats"), NULL, &stats))
		return -EIO;
	json_object_foreach(json_object_get(stats, "packets"), service, reasons) {
		json_object_foreach(reasons, label, count) {
			count_reason(counts, label, (uint64_t)number(count, "packets"));
		}
	}
	json_object_foreach(json_object_get(stats, "calls"), label, count) {
		count_reason(counts, label, (uint64_t)json_integer_value(count));
	}
	counts->refused_by_ledger = number(json_object_get(stats, "orders"), "refused_by_ledger");
	json_decref(stats);
	drill_tally_sort(&counts->all);
	drill_tally_sort(&counts->refused);
	return 0;
}
