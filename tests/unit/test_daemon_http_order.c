/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a buyer hears whose question the ledger answers late, or when he is gone. Listener and pipeline are made up: a question stays with the test, which says
 * when it is late and when it is answered.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "daemon/http_public.h"
#include "daemon/maintenance.h"
#include "daemon/order_facts.h"
#include "daemon/pipeline.h"

#define SERIAL 0x9f86d081884c7d65ULL
#define ID "9f86d081884c7d65"

struct place {
	struct daemon d;
	struct gate_maps maps;
	struct http_request *request;
	unsigned suspended, resumed;
	/* the question */
	const struct pipeline_hooks *hooks;
	void *arg;
	/* the answer */
	unsigned status;
	json_t *json;
};

static struct place *here;

/* --- what stands in for the rest of the daemon --- */
void MHD_suspend_connection(struct MHD_Connection *connection)
{
	(void)connection;
	here->suspended++;
}

void MHD_resume_connection(struct MHD_Connection *connection)
{
	(void)connection;
	here->resumed++;
}

int pipeline_tell(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg)
{
	(void)p;
	assert_null(here->hooks);
	if (hooks->prepare)
		assert_int_equal(hooks->prepare(&here->d, arg), 0);
	here->hooks = hooks;
	here->arg = arg;
	json_decref(question);
	return 0;
}

int pipeline_ask(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg,
	struct pipeline_answer *answer)
{
	(void)p;
	(void)question;
	(void)hooks;
	(void)arg;
	(void)answer;
	fail();
	return 0;
}

void pipeline_compare_anew(struct pipeline *p)
{
	(void)p;
	fail();
}

void maintenance_ask_figures(struct daemon *d)
{
	(void)d;
}

static enum MHD_Result tell(unsigned status, json_t *json)
{
	here->status = status;
	json_decref(here->json);
	here->json = json;
	return MHD_YES;
}

enum MHD_Result http_send_json(struct http_request *request, unsigned status, json_t *json)
{
	(void)request;
	return tell(status, json);
}

enum MHD_Result http_send_json_retry(
	struct http_request *request, unsigned status, json_t *json, unsigned retry_after_s)
{
	(void)request;
	(void)retry_after_s;
	return tell(status, json);
}

enum MHD_Result http_problem(struct http_request *request, unsigned status, const char *code, const char *format, ...)
{
	(void)request;
	(void)format;
	return tell(status, json_pack("{s:s}", "code", code));
}

enum MHD_Result http_problem_retry(struct http_request *request, unsigned status, const char *code,
	unsigned retry_after_s, const char *format, ...)
{
	char detail[256];
	va_list args;

	(void)request;
	(void)retry_after_s;
	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	return tell(status, json_pack("{s:s, s:s}", "code", code, "detail", detail));
}

enum MHD_Result http_send_refusal(struct http_request *request, enum sluice_answer answer, unsigned retry_after_s)
{
	(void)request;
	(void)answer;
	(void)retry_after_s;
	fail();
	return MHD_NO;
}

enum MHD_Result http_send_home(struct http_request *request, uint32_t node, const char *token)
{
	(void)request;
	(void)node;
	(void)token;
	fail();
	return MHD_NO;
}

/* --- the place --- */
static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	*state = here = place;
	place->d.sales = sales_new(&place->maps);
	place->d.orders = orders_new();
	atomic_store(&place->d.sales_known, true);
	pthread_rwlock_init(&place->d.keys_lock, NULL);
	place->d.keys.slot[1] = (struct sluice_key){.k0 = 1, .k1 = 2, .id = 1, .valid = 1};
	place->d.keys.current = 1;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;

	assert_null(place->hooks); /* every question has come to its end */
	free(place->request);
	json_decref(place->json);
	orders_free(place->d.orders);
	sales_free(place->d.sales);
	free(place);
	here = NULL;
	return 0;
}

/* An order that is held since before this daemon: its times are in the ledger. */
static void put_held(struct place *place)
{
	static const struct sluice_admission admission = {
		.serial = SERIAL, .sale = 1, .quantity = 1, .state = SLUICE_ADMISSION_DONE};
	struct order_ack ack = {.seq = 4, .state = ORDER_HELD, .known = true};
	int err;

	ack.order = orders_queue(place->d.orders, SERIAL, &admission, NULL, true, &err);
	assert_non_null(ack.order);
	orders_settle(place->d.orders, &ack, 1);
}

/* `lives_s`: how much longer the token is valid. */
static void ask(struct place *place, enum MHD_Result (*handle)(struct http_request *), int lives_s)
{
	uint32_t now_s = (uint32_t)(time_wall_ns() / 1000000000ULL);
	struct sluice_token token = {
		.quantity = 1, .sale = 1, .serial = SERIAL, .expires_at_s = now_s + (uint32_t)lives_s};

	place->request = calloc(1, sizeof(*place->request));
	place->request->d = &place->d;
	token_seal(&place->d.keys.slot[1], &token, place->request->captures[0]);
	assert_int_equal(handle(place->request), MHD_YES);
	assert_int_equal(place->suspended, 1);
	assert_int_equal(place->resumed, 0);
}

/* The connection was resumed: its request is looked at again, answered, and gone. */
static void go_on(struct place *place, enum MHD_Result (*handle)(struct http_request *))
{
	assert_int_equal(place->resumed, 1);
	assert_int_equal(handle(place->request), MHD_YES);
	assert_int_equal(place->suspended, 1);
	json_decref(place->request->later);
	free(place->request);
	place->request = NULL;
}

static void be_late(struct place *place)
{
	assert_non_null(place->hooks->late);
	place->hooks->late(&place->d, place->arg);
}

static json_t *order_json(const char *state, json_int_t expires_ns)
{
	json_t *json = json_pack("{s:s, s:I, s:s, s:s, s:i, s:I, s:i, s:I, s:I, s:I, s:I, s:s, s:s, s:b}", "id", ID,
		"seq", (json_int_t)4, "state", state, "buyer", "00000000000000b0", "sale", 1, "network", (json_int_t)0,
		"quantity", 1, "admitted_ns", (json_int_t)1, "committed_ns", (json_int_t)2, "expires_ns", expires_ns,
		"resolved_ns", (json_int_t)(strcmp(state, "held") != 0), "source", "", "resolved_by", "", "restocked",
		false);
	struct told_order order;

	assert_int_equal(order_facts_read(json, &order), 0);
	return json;
}

static void answer(struct place *place, json_t *json)
{
	struct pipeline_answer answer = {.json = json};

	place->hooks->complete(&place->d, place->arg, &answer);
	if (place->hooks->release)
		place->hooks->release(place->arg);
	json_decref(json);
	place->hooks = NULL;
}

static const char *told(const struct place *place, const char *name)
{
	return json_string_value(json_object_get(place->json, name));
}

/* --- tests --- */
static void an_order_is_told_with_what_the_ledger_says_of_it(void **state)
{
	struct place *place = *state;

	put_held(place);
	ask(place, http_order_get, 60);
	answer(place, json_pack("{s:o}", "order", order_json("held", 5000000000)));
	go_on(place, http_order_get);
	assert_int_equal(place->status, 200);
	assert_string_equal(told(place, "expires_at"), "1970-01-01T00:00:05Z");
}

static void an_order_that_is_known_is_told_without_its_times_when_the_ledger_takes_too_long(void **state)
{
	struct place *place = *state;
	struct order_view view;

	put_held(place);
	ask(place, http_order_get, 60);
	be_late(place);
	go_on(place, http_order_get);
	assert_int_equal(place->status, 200);
	assert_string_equal(told(place, "state"), "held");
	assert_null(told(place, "expires_at"));
	/* The answer finds nobody, and is not lost. */
	answer(place, json_pack("{s:o}", "order", order_json("held", 5000000000)));
	assert_int_equal(place->resumed, 1);
	assert_int_equal(orders_find(place->d.orders, SERIAL, &view), 0);
	assert_true(view.has_times);
}

static void who_asks_for_an_order_of_long_ago_is_told_that_the_ledger_cannot_be_asked(void **state)
{
	struct place *place = *state;

	ask(place, http_order_get, -60);
	be_late(place);
	go_on(place, http_order_get);
	assert_int_equal(place->status, 503);
	assert_string_equal(told(place, "code"), "writer_away");
	answer(place, json_pack("{s:o}", "order", order_json("held", 0)));
}

static void a_cancellation_that_takes_too_long_may_still_happen_and_then_counts(void **state)
{
	struct place *place = *state;
	struct order_view view;

	put_held(place);
	ask(place, http_order_delete, 60);
	be_late(place);
	go_on(place, http_order_delete);
	assert_int_equal(place->status, 503);
	assert_non_null(strstr(told(place, "detail"), "may still be cancelled"));
	answer(place,
		json_pack("{s:[{s:s, s:o}]}", "results", "result", "changed", "order", order_json("cancelled", 0)));
	assert_int_equal(place->resumed, 1);
	assert_int_equal(orders_find(place->d.orders, SERIAL, &view), 0);
	assert_int_equal(view.state, ORDER_CANCELLED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_order_is_told_with_what_the_ledger_says_of_it),
		TEST(an_order_that_is_known_is_told_without_its_times_when_the_ledger_takes_too_long),
		TEST(who_asks_for_an_order_of_long_ago_is_told_that_the_ledger_cannot_be_asked),
		TEST(a_cancellation_that_takes_too_long_may_still_happen_and_then_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
