/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What `sluice verify` asks of the daemon: the ledger, where it is not a file that can be read (another store, another machine), and
 * what the daemon itself believes of each sale.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/verify.h"
#include "common/timefmt.h"

#define NS_PER_MS 1000000

static int64_t number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static int not_understood(const char *what)
{
	cli_say("the daemon describes %s in a way that this program does not understand", what);
	return CLI_FAILED;
}

static int out_of_memory(void)
{
	cli_say("no memory for the orders of the ledger");
	return CLI_FAILED;
}

static bool read_time(const json_t *object, const char *name, uint64_t *wall_ns)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text && !time_parse_rfc3339(text, wall_ns);
}

static int take_sale(const json_t *json, struct verify_ledger *ledger)
{
	const char *slug = json_string_value(json_object_get(json, "slug"));
	const char *state = json_string_value(json_object_get(json, "state"));
	const json_t *fleet;
	struct verify_sale *sale =
		verify_append(&ledger->sales, &ledger->sale_count, &ledger->sale_capacity, sizeof(*sale));

	if (!sale)
		return out_of_memory();
	if (!slug || strlen(slug) > VERIFY_SLUG_MAX || !state || !read_time(json, "opens_at", &sale->opens_ns) ||
		!read_time(json, "ends_at", &sale->ends_ns))
		return not_understood("a sale");
	sale->id = (uint32_t)number(json, "id");
	/* Times are told to the millisecond, and cut: the last one belongs to the window as far as can be seen. */
	sale->ends_ns += NS_PER_MS - 1;
	snprintf(sale->slug, sizeof(sale->slug), "%s", slug);
	sale->per_buyer = (uint32_t)number(json, "per_buyer");
	sale->paused = !strcmp(state, "paused");
	/* "ended" also when its time is over; only before that it was ended by hand */
	sale->ended = !strcmp(state, "ended") && sale->ends_ns > time_wall_ns();
	/* In a fleet "stock" is that of all nodes. */
	fleet = json_object_get(json, "fleet");
	sale->put_in = json_is_object(fleet) ? number(fleet, "put_in") : number(json, "stock");
	sale->held = number(json, "held");
	sale->confirmed = number(json, "confirmed");
	return CLI_OK;
}

static int read_windows(struct cli_api *api, struct verify_sale *sale)
{
	json_t *answer, *item;
	size_t i;
	int code = cli_api_ask(api, sale->slug, "GET", cli_api_path("/v1/sales/%s/windows", sale->slug), NULL, &answer);

	if (code)
		return code;
	json_array_foreach(json_object_get(answer, "windows"), i, item) {
		struct verify_window *window =
			verify_append(&sale->former, &sale->former_count, &sale->former_capacity, sizeof(*window));

		if (!window)
			code = out_of_memory();
		else if (!read_time(item, "opens_at", &window->opens_ns) ||
			!read_time(item, "ends_at", &window->ends_ns) || !read_time(item, "until", &window->until_ns))
			code = not_understood("a sale's former window");
		if (code)
			break;
		window->ends_ns += NS_PER_MS - 1;
		window->per_buyer = (uint32_t)number(item, "per_buyer");
	}
	json_decref(answer);
	return code;
}

struct order_walk {
	struct verify_ledger *ledger;
	int code;
};

static uint32_t sale_of_slug(const struct verify_ledger *ledger, const char *slug)
{
	for (size_t i = 0; i < ledger->sale_count; i++)
		if (!strcmp(ledger->sales[i].slug, slug))
			return ledger->sales[i].id;
	return 0;
}

static int take_order(const json_t *json, void *arg)
{
	struct order_walk *walk = arg;
	const char *id = json_string_value(json_object_get(json, "id"));
	const char *sale = json_string_value(json_object_get(json, "sale"));
	const char *buyer = json_string_value(json_object_get(json, "buyer"));
	const char *state = json_string_value(json_object_get(json, "state"));
	struct verify_ledger *ledger = walk->ledger;
	struct books_order *order =
		verify_append(&ledger->orders, &ledger->order_count, &ledger->order_capacity, sizeof(*order));

	if (!order)
		walk->code = out_of_memory();
	else if (!id || !sale || !buyer || !state || !books_set_state(order, state) ||
		!read_time(json, "admitted_at", &order->admitted_ns))
		walk->code = not_understood("an order");
	if (walk->code)
		return 1;
	order->id = strtoull(id, NULL, 16);
	order->buyer = strtoull(buyer, NULL, 16);
	order->sale = sale_of_slug(ledger, sale);
	order->seq = (uint64_t)number(json, "seq");
	order->quantity = (uint32_t)number(json, "quantity");
	return 0;
}

int verify_read_daemon(struct cli_api *api, struct verify_ledger *ledger)
{
	struct order_walk orders = {.ledger = ledger};
	const struct cli_api_walk walk = {
		.about = "reading the orders", .list = "orders", .visit = take_order, .arg = &orders};
	json_t *answer, *sale;
	size_t i;
	int code;

	memset(ledger, 0, sizeof(*ledger));
	code = cli_api_ask(api, "reading the sales", "GET", cli_api_path("/v1/sales"), NULL, &answer);
	if (code)
		return code;
	json_array_foreach(json_object_get(answer, "sales"), i, sale)
		if (!code)
			code = take_sale(sale, ledger);
	json_decref(answer);
	for (size_t s = 0; !code && s < ledger->sale_count; s++)
		code = read_windows(api, &ledger->sales[s]);
	if (!code)
		code = cli_api_walk(api, cli_api_path("/v1/orders?limit=1000"), &walk);
	if (!code)
		code = orders.code;
	if (code)
		verify_ledger_free(ledger);
	return code;
}

int verify_read_accounts(struct cli_api *api, const struct verify_ledger *ledger, const struct verify_gate *gate,
	struct verify_accounts *out)
{
	for (size_t i = 0; i < ledger->sale_count; i++) {
		const struct verify_sale *sale = &ledger->sales[i];
		struct verify_account *account;
		json_t *stock;
		int code;

		if (gate->slots[sale->id % SLUICE_MAX_SALES].id != sale->id)
			continue;
		code = cli_api_ask(
			api, sale->slug, "GET", cli_api_path("/v1/sales/%s/stock", sale->slug), NULL, &stock);
		if (code)
			return code;
		account = verify_append(&out->all, &out->count, &out->capacity, sizeof(*account));
		if (account) {
			account->sale = sale->id;
			account->put_in = number(stock, "put_in");
			account->free = number(stock, "free");
			account->held = number(stock, "held");
			account->confirmed = number(stock, "confirmed");
			account->in_flight = number(stock, "in_flight");
		}
		json_decref(stock);
		if (!account)
			return out_of_memory();
	}
	return CLI_OK;
}
