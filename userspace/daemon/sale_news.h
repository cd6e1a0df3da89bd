/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sees what becomes of sales (they open, sell out, have units again, end) and has the ledger record it as events. */
#ifndef SLUICE_DAEMON_SALE_NEWS_H
#define SLUICE_DAEMON_SALE_NEWS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/sales.h"

enum sale_news { SALE_NEWS_OPENED, SALE_NEWS_SOLD_OUT, SALE_NEWS_RESTOCKED, SALE_NEWS_ENDED, SALE_NEWS_COUNT };

/* What the ledger has been asked to record of a sale since the daemon's start, whether it was news to it or not. */
struct sale_told {
	bool opened, ended;
	bool stock_known, sold_out; /* sold_out: as of the last of the two that was told */
};

/* How a sale stands. */
struct sale_sight {
	uint64_t wall_ns, free, unsettled; /* unsettled: units on their way somewhere */
	bool stock_counts;                 /* gate and ledger agree at this moment */
};

/* What to tell next of a sale, or SALE_NEWS_COUNT: nothing. No ledger and no clock in here. */
enum sale_news sale_news_next(const struct sale *sale, const struct sale_sight *sight, const struct sale_told *told);
/* It was told. */
void sale_news_told(struct sale_told *told, enum sale_news news);

/* Starts the thread, which needs a pipeline to ask. Returns 0 or negative errno. */
int sale_news_start(struct daemon *d);
void sale_news_stop(void); /* before the pipeline stops */

#endif
