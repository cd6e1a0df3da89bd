/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice drill --target`: names to addresses, and the public view of the sale. See target.h. */
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "common/timefmt.h"
#include "drill/drill.h"
#include "drill/target.h"

#define ASK_TIMEOUT_MS 10000

int drill_target_resolve(const char *text, union drill_address *v4, union drill_address *v6)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list, *one;
	const char *colon = strrchr(text, ':');
	char host[128];
	size_t length = colon ? (size_t)(colon - text) : 0;
	int err;

	memset(v4, 0, sizeof(*v4));
	memset(v6, 0, sizeof(*v6));
	if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	} else if (length && memchr(text, ':', length)) {
		length = 0; /* an IPv6 address without brackets: which colon is the port's? */
	}
	if (!length || length >= sizeof(host) || !colon[1]) {
		cli_say("--target must be HOST:PORT, such as shop.example:8080 or [2001:db8::1]:8080");
		return -EINVAL;
	}
	memcpy(host, text, length);
	host[length] = '\0';
	err = getaddrinfo(host, colon + 1, &hints, &list);
	if (err) {
		cli_say("--target: cannot find %s port %s: %s", host, colon + 1, gai_strerror(err));
		return -EINVAL;
	}
	for (one = list; one; one = one->ai_next) {
		if (one->ai_family == AF_INET && !v4->any.sa_family)
			memcpy(v4, one->ai_addr, sizeof(v4->v4));
		else if (one->ai_family == AF_INET6 && !v6->any.sa_family)
			memcpy(v6, one->ai_addr, sizeof(v6->v6));
	}
	freeaddrinfo(list);
	return 0;
}

struct reading {
	struct drill_target_sale *sale;
	const char *slug;
	int err;
};

static int read_sale(const json_t *body, struct drill_target_sale *sale)
{
	const char *opens = json_string_value(json_object_get(body, "opens_at"));
	const char *ends = json_string_value(json_object_get(body, "ends_at"));
	const char *state = json_string_value(json_object_get(body, "state"));

	if (!opens || !ends || !state || time_parse_rfc3339(opens, &sale->opens_ns) ||
		time_parse_rfc3339(ends, &sale->ends_ns))
		return -EPROTO;
	sale->per_buyer = (uint32_t)json_integer_value(json_object_get(body, "per_buyer"));
	sale->over = !strcmp(state, "ended");
	return 0;
}

static void got_sale(void *context, void *actor, uint32_t tag, const struct drill_result *result)
{
	struct reading *reading = context;
	json_t *body;

	(void)actor;
	(void)tag;
	if (result->outcome != DRILL_ANSWERED) {
		reading->err = result->error ? -result->error : -ETIMEDOUT;
		cli_say("no answer from the target: %s", strerror(-reading->err));
		return;
	}
	if (result->http.status != 200) {
		reading->err = -ENOENT;
		cli_say("the target answered %d when asked for the sale \"%s\"", result->http.status, reading->slug);
		return;
	}
	body = json_loadb(result->body, result->http.body_length, 0, NULL);
	reading->err = read_sale(body, reading->sale);
	json_decref(body);
	if (reading->err)
		cli_say("the target's answer about the sale \"%s\" is not that of a sluiced", reading->slug);
}

int drill_target_read_sale(const struct drill_plan *plan, struct drill_target_sale *sale)
{
	struct reading reading = {.sale = sale, .slug = plan->slug, .err = -ETIMEDOUT};
	struct drill_engine *engine = drill_engine_new(&reading, 1);
	char request[DRILL_REQUEST_MAX];
	struct drill_exchange exchange = {
		.target = plan->target4.any.sa_family ? &plan->target4 : &plan->target6,
		.request = request,
		.timeout_ms = ASK_TIMEOUT_MS,
		.done = got_sale,
	};
	int err;

	if (!engine)
		return -ENOMEM;
	memset(sale, 0, sizeof(*sale));
	exchange.length = (size_t)snprintf(request, sizeof(request),
		"GET /v1/sales/%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice-drill\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
		plan->slug, plan->host);
	err = drill_engine_start(engine, &exchange);
	if (!err)
		err = drill_engine_run(engine, time_mono_ns() + 2 * ASK_TIMEOUT_MS * 1000000ULL, &drill_interrupted);
	drill_engine_free(engine);
	return err ? err : reading.err;
}
