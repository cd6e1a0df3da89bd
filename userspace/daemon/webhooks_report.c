/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What requests want of the webhooks: their state, a test, metrics, another try. Called by control_webhooks.c and metrics.c on their threads.
 *
 * Promises: nothing that is told has the secret in it, nor of the URL what may be one.
 */
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "daemon/sales.h"
#include "daemon/webhooks_impl.h"

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL

void webhooks_resume(struct daemon *d)
{
	struct webhooks *w = d->webhooks;

	pthread_mutex_lock(&w->lock);
	if (atomic_exchange(&w->is_gone, false))
		w->is_dirty = true;
	webhook_table_hurry(&w->table);
	pthread_mutex_unlock(&w->lock);
	curl_multi_wakeup(w->multi);
}

static json_t *time_json(uint64_t wall_ns)
{
	char text[TIME_TEXT_MAX];

	return wall_ns ? json_string(time_format_rfc3339(wall_ns, text)) : json_null();
}

static const char *state_name(const struct webhook_sale *sale, bool waits, bool is_gone)
{
	if (sale->is_sending)
		return "sending";
	if (!sale->has_news)
		return "done";
	if (is_gone)
		return "stopped";
	return waits ? "waiting" : "ready";
}

static json_t *sale_json(struct daemon *d, const struct webhook_sale *sale, bool is_gone)
{
	uint64_t wall = time_wall_ns(), mono = time_mono_ns();
	bool waits = !sale->is_sending && !is_gone && sale->has_news && sale->next_ns > mono;
	struct sale known;

	if (sales_find_id(d->sales, sale->id, &known))
		known.slug[0] = '\0';
	return json_pack("{s:s, s:I, s:s, s:I, s:o, s:I, s:I, s:o, s:o, s:o}", "sale", known.slug, "sale_id",
		(json_int_t)sale->id, "state", state_name(sale, waits, is_gone), "position", (json_int_t)sale->cursor,
		"oldest_at", time_json(sale->oldest_ns), "lag_seconds",
		(json_int_t)(sale->oldest_ns && sale->oldest_ns < wall ? (wall - sale->oldest_ns) / NS_PER_S : 0),
		"failures", (json_int_t)sale->attempts, "last_status",
		sale->status ? json_integer(sale->status) : json_null(), "last_failure",
		sale->failure ? json_string(webhook_failure_name(sale->failure)) : json_null(), "next_attempt_at",
		time_json(waits ? wall + (sale->next_ns - mono) : 0));
}

json_t *webhooks_status(struct daemon *d)
{
	struct webhooks *w = d->webhooks;
	uint64_t failed = 0;
	json_t *sales = json_array(), *status;
	const char *state = "on";

	if (!w)
		return json_pack("{s:s, s:n, s:I, s:I, s:I, s:o}", "state", "off", "url", "position", (json_int_t)0,
			"delivered", (json_int_t)0, "failed", (json_int_t)0, "sales", sales);
	for (unsigned i = 0; i < WEBHOOK_FAILURES; i++)
		failed += atomic_load(&w->failed[i]);
	pthread_mutex_lock(&w->lock);
	for (unsigned i = 0; w->is_loaded && i < w->table.count; i++)
		json_array_append_new(sales, sale_json(d, &w->table.sales[i], atomic_load(&w->is_gone)));
	if (!w->is_loaded)
		state = "starting";
	else if (atomic_load(&w->is_gone))
		state = "gone";
	status = json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}", "state", state, "url", w->shown_url, "position",
		(json_int_t)(w->is_loaded ? w->table.position : 0), "delivered", (json_int_t)atomic_load(&w->delivered),
		"failed", (json_int_t)failed, "sales", sales);
	pthread_mutex_unlock(&w->lock);
	return status;
}

static char *test_body(void)
{
	char time_text[TIME_TEXT_MAX];
	json_t *json = json_pack("{s:s, s:s, s:{s:s}}", "type", "webhook.test", "timestamp",
		time_format_rfc3339(time_wall_ns(), time_text), "data", "message", "This is a test of Sluice.");
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	return text;
}

json_t *webhooks_test(struct daemon *d)
{
	struct webhooks *w = d->webhooks;
	uint64_t wall = time_wall_ns(), began = time_mono_ns();
	struct webhook_outcome outcome;
	struct webhook_post post;
	char id[WEBHOOK_ID_MAX];
	json_t *json, *detail;
	CURLcode code;
	int err = webhook_post_open(&post, &d->config);

	if (err)
		return NULL;
	snprintf(id, sizeof(id), "evt_test_%llu", (unsigned long long)wall);
	pthread_mutex_lock(&w->lock);
	err = webhook_post_prepare(&post, &w->secret.keys, id, wall / NS_PER_S, test_body());
	pthread_mutex_unlock(&w->lock);
	if (err) {
		webhook_post_close(&post);
		return NULL;
	}
	code = curl_easy_perform(post.easy);
	webhook_post_read(&post, code, &outcome);
	detail = json_string(outcome.failure ? post.error : ""); /* NULL: a certificate's name that is not UTF-8 */
	json = json_pack("{s:s, s:b, s:o, s:o, s:o, s:I}", "id", id, "delivered", !outcome.failure, "status",
		outcome.status ? json_integer(outcome.status) : json_null(), "failure",
		outcome.failure ? json_string(webhook_failure_name(outcome.failure)) : json_null(), "detail",
		detail ? detail : json_string("?"), "milliseconds", (json_int_t)((time_mono_ns() - began) / NS_PER_MS));
	webhook_post_close(&post);
	return json;
}

static uint64_t oldest_of(const struct webhook_table *table)
{
	uint64_t oldest = 0;

	for (unsigned i = 0; i < table->count; i++)
		if (table->sales[i].oldest_ns && (!oldest || table->sales[i].oldest_ns < oldest))
			oldest = table->sales[i].oldest_ns;
	return oldest;
}

void webhooks_render(struct daemon *d, FILE *out)
{
	struct webhooks *w = d->webhooks;
	uint64_t wall = time_wall_ns(), oldest, failing = 0;
	unsigned outstanding;
	bool is_on;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	is_on = w->is_loaded && !atomic_load(&w->is_gone);
	outstanding = w->is_loaded ? w->table.count : 0;
	oldest = w->is_loaded ? oldest_of(&w->table) : 0;
	for (unsigned i = 0; i < outstanding; i++)
		failing += w->table.sales[i].attempts > 0;
	pthread_mutex_unlock(&w->lock);
	fprintf(out,
		"# HELP sluice_webhooks_on 1 while webhooks are posted, 0 before the ledger was read and after the receiver said 410.\n"
		"# TYPE sluice_webhooks_on gauge\nsluice_webhooks_on %d\n"
		"# HELP sluice_webhooks_delivered_total Events that the receiver has taken, since the start.\n"
		"# TYPE sluice_webhooks_delivered_total counter\nsluice_webhooks_delivered_total %llu\n"
		"# HELP sluice_webhooks_failed_total Attempts that failed, by what was wrong.\n"
		"# TYPE sluice_webhooks_failed_total counter\n",
		is_on, atomic_load(&w->delivered));
	for (unsigned i = WEBHOOK_DELIVERED + 1; i < WEBHOOK_FAILURES; i++)
		fprintf(out, "sluice_webhooks_failed_total{class=\"%s\"} %llu\n", webhook_failure_name(i),
			atomic_load(&w->failed[i]));
	fprintf(out,
		"# HELP sluice_webhooks_sales Sales with events that are not delivered yet, and those whose last attempt failed.\n"
		"# TYPE sluice_webhooks_sales gauge\nsluice_webhooks_sales{state=\"outstanding\"} %u\n"
		"sluice_webhooks_sales{state=\"failing\"} %llu\n"
		"# HELP sluice_webhooks_lag_seconds Age of the oldest event that is known and not delivered.\n"
		"# TYPE sluice_webhooks_lag_seconds gauge\nsluice_webhooks_lag_seconds %.3f\n",
		outstanding, (unsigned long long)failing,
		oldest && oldest < wall ? (double)(wall - oldest) / 1e9 : 0.0);
}
