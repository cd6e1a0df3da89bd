/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The thread that watches sales for news. Started by main.c; looks ten times a second and when a sale is due to open or to end, and at stocks once a
 * second, so that a unit that comes back and is sold again at once is no news.
 *
 * It remembers what it has told only in order not to ask again and again. Whether something is news the ledger decides, in one transaction with
 * recording it (sale_event): so each event is there once, however often the daemon starts.
 */
#include "daemon/sale_news.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/maintenance.h"
#include "daemon/pipeline.h"

#define NS_PER_S 1000000000ULL
#define STEP_NS 100000000ULL
#define STOCK_NS NS_PER_S
/* Questions in one step: after a start there are two for every sale that ever was, and orders have better use for the writer. */
#define STEP_QUESTIONS 50

static const char *const names[SALE_NEWS_COUNT] = {
	[SALE_NEWS_OPENED] = "sale.opened",
	[SALE_NEWS_SOLD_OUT] = "sale.sold_out",
	[SALE_NEWS_RESTOCKED] = "sale.restocked",
	[SALE_NEWS_ENDED] = "sale.ended",
};

static struct {
	pthread_t thread;
	atomic_bool running;
	struct sale_told *told; /* by the place of the sale in the registry */
	unsigned capacity;
} work;

enum sale_news sale_news_next(const struct sale *sale, const struct sale_sight *sight, const struct sale_told *told)
{
	bool over = sale->ended || sight->wall_ns >= sale->ends_ns, sold_out = !sight->free;

	if (told->ended)
		return SALE_NEWS_COUNT;
	/* One that was ended before its time never opened. One that opened and ended while nobody looked did both. */
	if (!told->opened && sight->wall_ns >= sale->opens_ns)
		return SALE_NEWS_OPENED;
	if (over)
		return SALE_NEWS_ENDED;
	if (!told->opened || !sight->stock_counts)
		return SALE_NEWS_COUNT;
	/* The last units may come back from a judge or a writer that says no. */
	if (sold_out && sight->unsettled)
		return SALE_NEWS_COUNT;
	/* Nor is it, where other nodes of the fleet may have some for this one. */
	if (sold_out && sales_may_get_units(sale))
		return SALE_NEWS_COUNT;
	if (told->stock_known && told->sold_out == sold_out)
		return SALE_NEWS_COUNT;
	return sold_out ? SALE_NEWS_SOLD_OUT : SALE_NEWS_RESTOCKED;
}

void sale_news_told(struct sale_told *told, enum sale_news news)
{
	switch (news) {
	case SALE_NEWS_OPENED:
		told->opened = true;
		break;
	case SALE_NEWS_ENDED:
		told->ended = true;
		break;
	default:
		told->stock_known = true;
		told->sold_out = news == SALE_NEWS_SOLD_OUT;
	}
}

/* Returns 0, or negative errno: the ledger cannot be asked now; -EREMOTEIO: not of this sale. */
static int tell(struct daemon *d, const struct sale *sale, struct sale_told *told, enum sale_news news)
{
	struct pipeline_answer answer;
	int err = pipeline_ask(d->pipeline,
		json_pack("{s:s, s:I, s:s}", "op", "sale_event", "sale", (json_int_t)sale->id, "type", names[news]),
		NULL, NULL, &answer);

	if (err)
		return err;
	sale_news_told(told, news);
	if (json_is_true(json_object_get(answer.json, "recorded")))
		log_info("%s: %s", names[news], sale->slug);
	json_decref(answer.json);
	return 0;
}

static void look(struct daemon *d, const struct sale *sale, bool at_stock, bool is_open, struct sale_sight *sight)
{
	struct stock_view stock;

	*sight = (struct sale_sight){.wall_ns = time_wall_ns()};
	if (!at_stock || !is_open || !sales_in_gate(d->sales, sale))
		return;
	maintenance_read_stock(d, sale, &stock);
	sight->free = stock.free;
	sight->unsettled = stock.in_flight;
	sight->stock_counts = stock.balanced;
}

static int make_room(unsigned count)
{
	unsigned capacity = work.capacity ? work.capacity : 64;
	struct sale_told *told;

	while (capacity < count)
		capacity *= 2;
	if (capacity == work.capacity)
		return 0;
	told = realloc(work.told, capacity * sizeof(*told));
	if (!told)
		return -ENOMEM;
	memset(told + work.capacity, 0, (capacity - work.capacity) * sizeof(*told));
	work.told = told;
	work.capacity = capacity;
	return 0;
}

/* How long until the next opening or end of a sale, STEP_NS at most. */
static void shorten(uint64_t *rest_ns, uint64_t wall_ns, uint64_t due_ns)
{
	if (due_ns > wall_ns && due_ns - wall_ns < *rest_ns)
		*rest_ns = due_ns - wall_ns;
}

/* Returns how long to rest. */
static uint64_t step(struct daemon *d, bool at_stock)
{
	uint64_t rest_ns = STEP_NS;
	struct pipeline_status status;
	unsigned questions = 0;
	struct sale sale;
	int err = make_room(sales_count(d->sales));

	pipeline_status(d->pipeline, &status);
	for (unsigned i = 0; !err && i < work.capacity && !sales_at(d->sales, i, &sale); i++) {
		struct sale_told *told = &work.told[i];
		struct sale_sight sight;
		enum sale_news news;

		if (told->ended)
			continue;
		look(d, &sale, at_stock, status.open, &sight);
		while (!err && questions < STEP_QUESTIONS &&
			(news = sale_news_next(&sale, &sight, told)) < SALE_NEWS_COUNT) {
			questions++;
			err = tell(d, &sale, told, news);
		}
		if (err == -EREMOTEIO) /* the others are none the worse for it */
			err = 0;
		shorten(&rest_ns, sight.wall_ns, sale.opens_ns);
		shorten(&rest_ns, sight.wall_ns, sale.ends_ns);
	}
	return rest_ns;
}

static void *sale_news_run(void *arg)
{
	struct daemon *d = arg;
	uint64_t stock_ns = 0;

	pthread_setname_np(pthread_self(), "sale_news");
	while (atomic_load(&work.running)) {
		uint64_t now = time_mono_ns(), rest_ns = STEP_NS;
		bool at_stock = now >= stock_ns;

		if (atomic_load(&d->sales_known))
			rest_ns = step(d, at_stock);
		if (at_stock)
			stock_ns = now + STOCK_NS;
		nanosleep(&(struct timespec){.tv_nsec = (long)rest_ns}, NULL);
	}
	return NULL;
}

int sale_news_start(struct daemon *d)
{
	int err;

	atomic_store(&work.running, true);
	err = pthread_create(&work.thread, NULL, sale_news_run, d);
	if (err)
		atomic_store(&work.running, false);
	return -err;
}

void sale_news_stop(void)
{
	if (!atomic_exchange(&work.running, false))
		return;
	pthread_join(work.thread, NULL);
	free(work.told);
	work.told = NULL;
	work.capacity = 0;
}
