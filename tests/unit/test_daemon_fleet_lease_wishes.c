/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What an operator wants of the total of a sale (fleet_lease_wishes.c) when answers are lost or others change it too. The coordinator is made up: the test says
 * what comes of each call, and looks at what was asked; so is the ledger. All on one thread: who wishes wakes that of the fleet, which is a function here.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/fleet_leases_impl.h"

#define STOCK 40
#define CALLS_MAX 16
#define LOOKS_MAX 8 /* of the ledger, and then the daemon stops: so no wait is one for real time */
/* Arguments of total.lua; the first 15 are those of all calls. */
#define OPERATION 15
#define RUN 17
#define TIME 18
#define ARGUMENTS 19

static struct daemon daemon_of_test;
static struct fleet_leases leases;

static struct {
	struct {
		int error;
		struct lease_reply reply;
	} answers[CALLS_MAX];
	unsigned answer_count, answered;
	struct lease_call calls[CALLS_MAX];
	unsigned call_count;
	fleet_done done;
	struct fleet_wish_item *asked; /* and not answered */
} coordinator;

static struct {
	struct fleet_stock shown[CALLS_MAX]; /* one for each look, and the last one from then on */
	unsigned count, looks;
} ledger;

/* --- what stands in for the rest of the daemon --- */
struct leased_sale *leases_find(struct fleet_leases *of, const char *slug)
{
	(void)of;
	(void)slug;
	return NULL;
}

bool leases_call(struct daemon *d, struct fleet_round *round, const char *slug, const struct lease_call *call,
	fleet_done done, void *arg)
{
	(void)d;
	(void)round;
	(void)slug;
	assert_null(coordinator.asked);
	assert_true(coordinator.call_count < CALLS_MAX);
	coordinator.calls[coordinator.call_count++] = *call;
	coordinator.done = done;
	coordinator.asked = arg;
	return true;
}

int leases_read_reply(const redisReply *reply, struct lease_reply *read)
{
	(void)reply;
	*read = coordinator.answers[coordinator.answered - 1].reply;
	return 0;
}

void fleet_wake(struct daemon *d)
{
	static const redisReply some_reply;

	for (;;) {
		struct fleet_wish_item *item;
		int error;

		fleet_wishes_step(d, leases.wishes, NULL);
		item = coordinator.asked;
		if (!item)
			return;
		assert_true(coordinator.answered < coordinator.answer_count);
		error = coordinator.answers[coordinator.answered++].error;
		coordinator.asked = NULL;
		coordinator.done(d, item, error, error ? NULL : &some_reply);
	}
}

int sales_find(struct sales *sales, const char *slug, struct sale *sale)
{
	(void)sales;
	*sale = (struct sale){.id = 1};
	snprintf(sale->slug, sizeof(sale->slug), "%s", slug);
	return 0;
}

int fleet_leases_stock(struct daemon *d, uint32_t sale, struct fleet_stock *stock)
{
	unsigned look = ledger.looks < ledger.count ? ledger.looks : ledger.count - 1;

	(void)sale;
	*stock = ledger.shown[look];
	if (++ledger.looks == LOOKS_MAX)
		atomic_store(&d->stopping, true);
	return 0;
}

/* --- steps --- */
static void will_answer(int error, struct lease_reply reply)
{
	assert_true(coordinator.answer_count < CALLS_MAX);
	coordinator.answers[coordinator.answer_count].error = error;
	coordinator.answers[coordinator.answer_count++].reply = reply;
}

static void will_show(uint64_t version, const char *operation)
{
	struct fleet_stock *stock = &ledger.shown[ledger.count++];

	assert_true(ledger.count <= CALLS_MAX);
	*stock = (struct fleet_stock){.version = version};
	snprintf(stock->operation, sizeof(stock->operation), "%s", operation);
}

static struct lease_reply said(enum lease_answer answer, int64_t total, int64_t version, const char *operation)
{
	struct lease_reply reply = {.answer = answer, .total = total, .version = version};

	snprintf(reply.operation, sizeof(reply.operation), "%s", operation);
	return reply;
}

static const struct lease_call *last_call(void)
{
	assert_true(coordinator.call_count > 0);
	return &coordinator.calls[coordinator.call_count - 1];
}

/* A creation for which Redis has neither number nor stock of the sale. `error`: of the call that makes it. */
static int create(const char *slug, int error)
{
	struct lease_reply absent = {.answer = LEASE_ABSENT, .run = "run-of-now", .time_ms = 1700};
	uint64_t total;

	will_answer(0, absent);
	will_answer(error, said(LEASE_OK, STOCK, 1, "create"));
	return fleet_leases_create(&daemon_of_test, slug, STOCK, false, &total);
}

/* The sale is open at once, with all its units free. */
static void assert_was_carefree(void)
{
	const struct lease_call *call = last_call();

	assert_string_equal(call->script, "total");
	assert_int_equal(call->count, ARGUMENTS);
	assert_string_equal(lease_call_argument(call, RUN), "run-of-now");
	assert_string_equal(lease_call_argument(call, TIME), "1700");
}

/* All nodes tell what they hold before a unit is leased. */
static void assert_was_careful(void)
{
	const struct lease_call *call = last_call();

	assert_string_equal(call->script, "total");
	assert_int_equal(call->count, ARGUMENTS);
	assert_string_equal(lease_call_argument(call, RUN), "any");
	assert_string_equal(lease_call_argument(call, TIME), "0");
}

static int move(int64_t delta, const char *key, uint64_t *total)
{
	uint64_t available;

	return fleet_leases_move(&daemon_of_test, "drop", delta, key, total, &available);
}

static int setup(void **state)
{
	(void)state;
	memset(&coordinator, 0, sizeof(coordinator));
	memset(&ledger, 0, sizeof(ledger));
	memset(&daemon_of_test, 0, sizeof(daemon_of_test));
	memset(&leases, 0, sizeof(leases));
	daemon_of_test.leases = &leases;
	leases.options.node = 1;
	lease_init(&leases.stranger, &leases.options, NULL);
	pthread_mutex_init(&leases.lock, NULL);
	leases.unsure = json_object();
	leases.wishes = fleet_wishes_new();
	return leases.unsure && leases.wishes ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	json_decref(leases.unsure);
	fleet_wishes_free(leases.wishes);
	return 0;
}

/* --- a creation of which nothing was heard --- */
/* It may have been done, and sold from at another node, and lost with all that Redis had, the sale's number too: nothing else tells that it is not the first. */
static void a_creation_after_one_that_was_not_heard_of_lets_all_nodes_tell_first(void **state)
{
	static const int lost[] = {-ETIMEDOUT, -EREMOTEIO};

	(void)state;
	for (unsigned i = 0; i < sizeof(lost) / sizeof(lost[0]); i++) {
		assert_int_equal(create("drop", lost[i]), lost[i]);
		assert_was_carefree();
		assert_int_equal(create("drop", 0), 0);
		assert_was_careful();
	}
}

static void one_loss_is_not_forgotten_with_the_next(void **state)
{
	(void)state;
	assert_int_equal(create("drop", -ETIMEDOUT), -ETIMEDOUT);
	assert_int_equal(create("drop", -ETIMEDOUT), -ETIMEDOUT);
	assert_was_careful();
	assert_int_equal(create("drop", 0), 0);
	assert_was_careful();
}

/* Nodes that are down would be waited for without need. */
static void a_creation_is_open_at_once_where_every_answer_was_heard(void **state)
{
	(void)state;
	assert_int_equal(create("drop", -ETIMEDOUT), -ETIMEDOUT);
	assert_int_equal(create("other", 0), 0);
	assert_was_carefree();
	assert_int_equal(create("drop", 0), 0);
	assert_int_equal(create("drop", 0), 0);
	assert_was_carefree();
}

/* The ids are remembered: with one of before, a creation after a loss would be called done. */
static void each_creation_is_an_operation_of_its_own(void **state)
{
	char first[LEASE_OPERATION_MAX];

	(void)state;
	assert_int_equal(create("drop", -ETIMEDOUT), -ETIMEDOUT);
	snprintf(first, sizeof(first), "%s", lease_call_argument(last_call(), OPERATION));
	assert_true(lease_operation_is_valid(first));
	assert_int_equal(create("drop", 0), 0);
	assert_string_not_equal(lease_call_argument(last_call(), OPERATION), first);
}

/* --- a change of the total --- */
static void a_change_is_done_when_the_ledger_has_that_version_by_that_operation(void **state)
{
	uint64_t total;

	(void)state;
	will_answer(0, said(LEASE_OK, STOCK + 5, 2, "mine"));
	will_show(1, "create");
	will_show(2, "other");
	will_show(2, "other");
	will_show(2, "mine");
	assert_int_equal(move(5, "mine", &total), 0);
	assert_int_equal(total, STOCK + 5);
	assert_string_equal(lease_call_argument(last_call(), OPERATION), "mine");
	assert_int_equal(ledger.looks, 4);
}

/* Redis has lost it, and the same version was made by somebody else: it may have to be made again. */
static void a_change_in_the_place_of_which_another_one_was_made_is_not_called_done(void **state)
{
	uint64_t total;

	(void)state;
	will_answer(0, said(LEASE_OK, STOCK + 5, 2, "mine"));
	will_show(2, "other");
	assert_int_equal(move(5, "mine", &total), -ETIMEDOUT);
}

static void a_change_upon_which_others_were_made_is_done(void **state)
{
	uint64_t total;

	(void)state;
	will_answer(0, said(LEASE_OK, STOCK + 5, 2, "mine"));
	will_show(3, "other");
	assert_int_equal(move(5, "mine", &total), 0);
}

/* The answer tells of the last change, and that is waited for. */
static void a_change_that_is_asked_for_again_is_done_when_the_ledger_has_what_came_after_it_too(void **state)
{
	uint64_t total;

	(void)state;
	will_answer(0, said(LEASE_OK, STOCK + 6, 3, "later"));
	will_show(2, "mine");
	will_show(3, "mine");
	will_show(3, "later");
	assert_int_equal(move(5, "mine", &total), 0);
	assert_int_equal(ledger.looks, 3);
}

/* A total that moves meanwhile is not this change: it is asked for under its own name until the coordinator has said that it was done. */
static void a_change_that_cannot_be_made_yet_is_asked_for_again(void **state)
{
	uint64_t total;

	(void)state;
	will_answer(0, said(LEASE_SETTLING, STOCK, 1, "create"));
	will_answer(0, said(LEASE_SHORT, STOCK + 5, 2, "other"));
	will_answer(0, said(LEASE_OK, STOCK, 3, "mine"));
	will_show(2, "other");
	will_show(3, "mine");
	assert_int_equal(move(-5, "mine", &total), 0);
	assert_int_equal(coordinator.call_count, 3);
	for (unsigned i = 0; i < coordinator.call_count; i++)
		assert_string_equal(lease_call_argument(&coordinator.calls[i], OPERATION), "mine");
	assert_int_equal(ledger.looks, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_creation_after_one_that_was_not_heard_of_lets_all_nodes_tell_first),
		TEST(one_loss_is_not_forgotten_with_the_next),
		TEST(a_creation_is_open_at_once_where_every_answer_was_heard),
		TEST(each_creation_is_an_operation_of_its_own),
		TEST(a_change_is_done_when_the_ledger_has_that_version_by_that_operation),
		TEST(a_change_in_the_place_of_which_another_one_was_made_is_not_called_done),
		TEST(a_change_upon_which_others_were_made_is_done),
		TEST(a_change_that_is_asked_for_again_is_done_when_the_ledger_has_what_came_after_it_too),
		TEST(a_change_that_cannot_be_made_yet_is_asked_for_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
