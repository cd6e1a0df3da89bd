/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See shop.h. */
#include "shop.h"

#include <stdio.h>
#include <string.h>

struct process redis;
uint64_t now;
bool said;
unsigned calls;

bool ask(const struct lease_call *call, struct lease_reply *reply)
{
	struct answer answer;

	coordinator_run(&redis, now, call, &answer);
	if (answer.error)
		fail_msg("%s: %s", call->script, answer.message);
	said = answer.said;
	calls++;
	assert_int_equal(lease_reply_decode(reply, answer.texts, answer.lengths, answer.count), 0);
	return reply->answer == LEASE_OK;
}

void start(struct shop *shop)
{
	lease_init(&shop->lease, &shop->options, &shop->book);
}

void open_shop(struct shop *shop, unsigned node, const char *origin)
{
	*shop = (struct shop){.options = {.node = node, .lease_ms = 2000, .channel = "look"}};
	snprintf(shop->options.origin, sizeof(shop->options.origin), "%s", origin);
	for (unsigned member = 1; member <= NODES; member++)
		lease_members_add(&shop->options.members, member);
	start(shop);
}

void go_on(struct shop *shop, unsigned steps)
{
	struct lease_action action;
	struct lease_reply reply;

	while (steps--) {
		struct lease_view view = {.now_ns = now,
			.unsold = shop->unsold,
			.admitted = shop->admitted,
			.order_max = 1,
			.leaving = shop->leaving,
			.over = shop->over,
			.rest_ns = shop->rest_ns,
			.ordered = shop->admitted};

		lease_next(&shop->lease, &view, &action);
		if (action.kind == LEASE_WAIT)
			return;
		if (action.kind == LEASE_CALL) {
			ask(&action.call, &reply);
			lease_called(&shop->lease, LEASE_ANSWERED, &reply, now);
		} else {
			shop->unsold += action.units;
			shop->book = action.book;
			lease_moved(&shop->lease, 0, now);
		}
	}
}

void wait_for(struct shop *shop, uint64_t ns)
{
	now += ns;
	go_on(shop, STEPS_MAX);
}

bool sells(const struct shop *shop)
{
	struct lease_flags flags;

	lease_flags(&shop->lease, &flags);
	return !flags.withheld;
}

void sell(struct shop *shop, int64_t units)
{
	assert_true(sells(shop));
	assert_in_range(units, 1, shop->unsold);
	shop->unsold -= units;
	shop->admitted += (uint64_t)units;
}

void sell_into_the_next_lease(struct shop *shop)
{
	int64_t balance = shop->book.balance;

	for (unsigned i = 0; shop->book.balance == balance; i++) {
		assert_true(i < STEPS_MAX);
		if (shop->unsold)
			sell(shop, 1);
		wait_for(shop, 60 * MS);
	}
}

int64_t sold(const struct shop *shop)
{
	return shop->book.balance - shop->unsold;
}

int64_t free_units(const struct shop *shop)
{
	return shop->lease.last.free;
}

void begin_redis(void)
{
	now = 1000 * SECOND;
	memset(&redis, 0, sizeof(redis));
	memset(redis.run, 'a', sizeof(redis.run) - 1);
	memset(redis.replid, 'b', sizeof(redis.replid) - 1);
	redis.clock_us = 1700000000000000;
}

void begin(struct shop *one, struct shop *two)
{
	struct lease_reply reply;
	struct lease_call call;

	begin_redis();
	open_shop(one, 1, "here");
	open_shop(two, 2, "there");
	go_on(one, 1);
	lease_create_call(&one->lease, "create", TOTAL, &one->lease.last, &call);
	assert_true(ask(&call, &reply));
	for (unsigned i = 0; i < 4; i++) {
		wait_for(one, 600 * MS);
		wait_for(two, 0);
	}
	assert_true(sells(one) && sells(two));
	assert_true(one->unsold > 0 && two->unsold > 0);
}

void fence(struct shop *by, unsigned node, int64_t units)
{
	struct lease_reply reply;
	struct lease_call call;

	lease_show_call(&by->lease, node, &call);
	assert_true(ask(&call, &reply));
	lease_fence_call(&by->lease, node, &reply.row, units, units >= 0, &call);
	assert_true(ask(&call, &reply));
}

int scripts_open(void **state)
{
	(void)state;
	coordinator_open(NULL, NULL);
	return 0;
}

int scripts_close(void **state)
{
	(void)state;
	coordinator_close();
	return 0;
}
