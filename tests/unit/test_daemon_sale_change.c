/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Changes of sales that the writer answers late, or not at all: the routes, the questions and the registry of the daemon, over maps that are plain memory.
 * The writer is a socket that nobody reads; its answers are made up.
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
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/fleet_settings_impl.h"
#include "daemon/pipeline_impl.h"
#include "daemon/sale_change.h"

#define HOUR_NS 3600000000000ULL
#define FLEETS 16777300 /* a number that Redis has given */

static struct sluice_sale slots[SLUICE_MAX_SALES];
static struct sluice_stock stocks[SLUICE_MAX_SALES];
static struct sluice_control control;

struct bench {
	struct daemon d;
	struct pipeline *p;
	struct http_listener listener;
	int writer;
};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	int ends[2];

	memset(slots, 0, sizeof(slots));
	memset(stocks, 0, sizeof(stocks));
	b->d.maps.sales = slots;
	b->d.maps.stock = stocks;
	b->d.maps.control = &control;
	b->d.sales = sales_new(&b->d.maps);
	b->d.metrics = metrics_new();
	b->d.settings = calloc(1, sizeof(*b->d.settings));
	b->d.settings->d = &b->d;
	b->d.settings->table = settings_new(1);
	pthread_mutex_init(&b->d.settings->lock, NULL);
	pthread_cond_init(&b->d.settings->told, NULL);
	pthread_cond_init(&b->d.settings->work, NULL);
	atomic_store(&b->d.sales_known, true);
	pthread_mutex_init(&b->d.change_lock, NULL);
	b->listener = (struct http_listener){.d = &b->d, .kind = METRICS_CONTROL};
	b->d.pipeline = b->p = calloc(1, sizeof(*b->p));
	b->p->d = &b->d;
	b->p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->p->asking_allowed = true;
	pthread_mutex_init(&b->p->lock, NULL);
	/* By another clock than the deadlines of those who wait, which are over long since: nobody waits here. */
	pthread_cond_init(&b->p->done, NULL);
	STAILQ_INIT(&b->p->asked);
	STAILQ_INIT(&b->p->again);
	TAILQ_INIT(&b->p->sent);
	writer_link_init(&b->p->link);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	b->p->link.fd = ends[0];
	b->writer = ends[1];
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	assert_true(STAILQ_EMPTY(&b->p->asked));
	assert_true(TAILQ_EMPTY(&b->p->sent));
	writer_link_free(&b->p->link);
	close(b->writer);
	close(b->p->wake_fd);
	free(b->p);
	settings_free(b->d.settings->table);
	free(b->d.settings);
	metrics_free(b->d.metrics);
	sales_free(b->d.sales);
	free(b);
	return 0;
}

static struct sale a_sale(uint32_t id, const char *slug)
{
	struct sale sale = {.id = id,
		.opens_ns = time_wall_ns() - HOUR_NS,
		.ends_ns = time_wall_ns() + HOUR_NS,
		.per_buyer = 1,
		.hold_seconds = 900,
		.order_mode = "confirm"};

	snprintf(sale.slug, sizeof(sale.slug), "%s", slug);
	return sale;
}

/* As the writer describes it. */
static json_t *described(const struct sale *sale, uint64_t put_in, uint64_t held, uint64_t orders)
{
	json_t *json = sales_to_ledger(sale);

	json_object_set_new(json, "put_in", json_integer((json_int_t)put_in));
	json_object_set_new(json, "held", json_integer((json_int_t)held));
	json_object_set_new(json, "confirmed", json_integer(0));
	json_object_set_new(json, "orders", json_integer((json_int_t)orders));
	return json;
}

/* A sale of 10 units that is open, in ledger and gate. */
static void sell(struct bench *b, struct sale *sale)
{
	json_t *json = described(sale, 10, 0, 0);

	assert_int_equal(sales_learn(b->d.sales, json, sale), 0);
	json_decref(json);
	sales_fill_slot(b->d.sales, sale, 10);
}

/* What was asked first goes to the writer, which answers when the caller likes. */
static struct question *send_one(struct bench *b)
{
	struct question *question;
	struct sent *sent;

	assert_int_equal(questions_send(b->p), 0);
	sent = TAILQ_FIRST(&b->p->sent);
	assert_non_null(sent);
	question = sent->question;
	TAILQ_REMOVE(&b->p->sent, sent, next);
	free(sent);
	return question;
}

static void answer(struct bench *b, struct question *question, enum wire_type type, const char *body)
{
	struct wire_header header = {.type = (uint16_t)type, .length = (uint32_t)strlen(body)};

	assert_int_equal(questions_answer(b->p, question, &header, body), 0);
}

/* The ledger has made of the sale what it was asked for. */
static void make(struct bench *b, struct question *question, uint64_t put_in, uint64_t held, uint64_t orders)
{
	json_t *asked = json_loads(question->text, 0, NULL), *json = json_object();
	char *body;

	json_object_set(json, "sale", json_object_get(asked, "sale"));
	json_object_set_new(json_object_get(json, "sale"), "put_in", json_integer((json_int_t)put_in));
	json_object_set_new(json_object_get(json, "sale"), "held", json_integer((json_int_t)held));
	json_object_set_new(json_object_get(json, "sale"), "confirmed", json_integer(0));
	json_object_set_new(json_object_get(json, "sale"), "orders", json_integer((json_int_t)orders));
	body = json_dumps(json, JSON_COMPACT);
	answer(b, question, WIRE_QUERY, body);
	free(body);
	json_decref(json);
	json_decref(asked);
}

/* The status that a route answers with. */
static unsigned call(
	struct bench *b, enum MHD_Result (*route)(struct http_request *), const char *slug, const char *body)
{
	struct http_request request = {
		.listener = &b->listener, .d = &b->d, .label = "sale", .method = "PUT", .body = strdup(body)};

	request.body_length = strlen(body);
	snprintf(request.captures[0], sizeof(request.captures[0]), "%s", slug);
	route(&request);
	free(request.body);
	return request.status;
}

/* --- one change after the other ------------------------------------------------------------------------------------------------ */
static void a_change_is_open_until_the_ledger_has_answered_it(void **state)
{
	struct bench *b = *state;
	struct sale sale = a_sale(1, "drop");
	struct pipeline_answer said;
	struct question *question;

	sell(b, &sale);
	assert_false(sale_change_is_open(&b->d));
	assert_int_equal(sale_change_store(&b->d, &sale, -1, SALE_CHANGED_HERE, &said), -ETIMEDOUT);
	assert_true(sale_change_is_open(&b->d));
	question = send_one(b);
	assert_true(sale_change_is_open(&b->d));
	make(b, question, 10, 0, 0);
	assert_false(sale_change_is_open(&b->d));
	/* A refusal is an answer, */
	assert_int_equal(sale_change_store(&b->d, &sale, -1, SALE_CHANGED_ELSEWHERE, &said), -ETIMEDOUT);
	answer(b, send_one(b), WIRE_ERROR, "{\"code\":\"conflict\",\"detail\":\"no\"}");
	assert_false(sale_change_is_open(&b->d));
	/* and what was never asked is not open. */
	b->p->asking_allowed = false;
	assert_int_equal(sale_change_store(&b->d, &sale, -1, SALE_CHANGED_HERE, &said), -ENOTCONN);
	assert_false(sale_change_is_open(&b->d));
}

static void a_change_after_one_that_was_not_answered_takes_nothing_of_it_back(void **state)
{
	struct bench *b = *state;
	struct sale sale = a_sale(1, "drop");
	struct question *question;

	sell(b, &sale);
	assert_int_equal(call(b, control_pause_sale, "drop", ""), 503);
	question = send_one(b);
	/* All of these would be made of a sale that is not paused. */
	assert_int_equal(call(b, control_put_sale, "drop", "{\"pace_per_second\":7}"), 503);
	assert_int_equal(call(b, control_resume_sale, "drop", ""), 503);
	assert_int_equal(call(b, control_end_sale, "drop", ""), 503);
	assert_true(STAILQ_EMPTY(&b->p->asked));
	make(b, question, 10, 0, 0);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED);
	/* Now it is made of one that is. */
	assert_int_equal(call(b, control_put_sale, "drop", "{\"pace_per_second\":7}"), 503);
	make(b, send_one(b), 10, 0, 0);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED);
	assert_int_equal(slots[1].pace.interval_ns, 1000000000 / 7);
}

/* --- what the other nodes hear ----------------------------------------------------------------------------------------------------- */
/* What they are told of a sale; NULL: nothing. */
static const struct setting *told(struct bench *b, const char *slug)
{
	char name[SETTINGS_NAME_MAX + 1];

	snprintf(name, sizeof(name), "sale/%s", slug);
	return settings_find(b->d.settings->table, name);
}

static void assert_told(struct bench *b, const struct sale *sale)
{
	const struct setting *setting = told(b, sale->slug);
	char *wanted = settings_text_of_sale(sale);

	assert_non_null(setting);
	assert_string_equal(setting->value, wanted);
	assert_int_equal(setting->stamp.is_final, sale->ended);
	assert_true(setting->flags & SETTING_DIRTY);
	free(wanted);
}

static void a_sale_of_the_fleet_that_is_made_late_is_told_all_the_same(void **state)
{
	struct bench *b = *state;
	struct sale sale = a_sale(FLEETS, "drop");
	struct pipeline_answer said;

	assert_int_equal(sale_change_store(&b->d, &sale, 0, SALE_CHANGED_HERE, &said), -ETIMEDOUT);
	assert_null(told(b, "drop"));
	make(b, send_one(b), 0, 0, 0);
	assert_told(b, &sale);
	assert_int_not_equal(fleet_settings_change_of_sale(&b->d, &sale), 0);
}

static void a_pause_and_an_end_that_are_made_late_are_told_all_the_same(void **state)
{
	struct bench *b = *state;
	struct sale sale = a_sale(FLEETS, "drop");

	sell(b, &sale);
	assert_int_equal(call(b, control_pause_sale, "drop", ""), 503);
	make(b, send_one(b), 0, 0, 0);
	sale.paused = true;
	assert_told(b, &sale);
	assert_int_equal(call(b, control_end_sale, "drop", ""), 503);
	make(b, send_one(b), 0, 0, 0);
	sale.ended = true;
	assert_told(b, &sale);
}

/* As it was learned from the ledger, after a question that was given up, or by a daemon that knew nothing of its making. */
static void a_sale_of_the_fleet_that_nobody_was_told_of_is_told_with_its_next_change(void **state)
{
	struct bench *b = *state;
	struct sale sale = a_sale(FLEETS, "drop");
	struct pipeline_answer said;

	sell(b, &sale);
	assert_null(told(b, "drop"));
	assert_int_equal(sale_change_store(&b->d, &sale, -1, SALE_CHANGED_HERE, &said), -ETIMEDOUT);
	make(b, send_one(b), 0, 0, 0);
	assert_told(b, &sale);
}

static void what_another_node_has_set_and_what_is_not_made_is_not_told(void **state)
{
	struct bench *b = *state;
	struct sale sale = a_sale(FLEETS, "drop");
	struct pipeline_answer said;

	assert_int_equal(sale_change_store(&b->d, &sale, 0, SALE_CHANGED_HERE, &said), -ETIMEDOUT);
	answer(b, send_one(b), WIRE_ERROR, "{\"code\":\"conflict\",\"detail\":\"no\"}");
	assert_int_equal(sale_change_store(&b->d, &sale, 0, SALE_CHANGED_ELSEWHERE, &said), -ETIMEDOUT);
	make(b, send_one(b), 0, 0, 0);
	assert_null(told(b, "drop"));
}

static void a_sale_from_before_the_fleet_stays_this_nodes_own(void **state)
{
	struct bench *b = *state;
	struct sale lonely = a_sale(1, "lonely"), other = a_sale(FLEETS, "other");
	struct setting_view theirs = {
		.name = "sale/other", .value = "{\"id\":16777301,}", .stamp = {.version = 1, .node = 2}};

	sell(b, &lonely);
	assert_int_equal(call(b, control_pause_sale, "lonely", ""), 503);
	make(b, send_one(b), 10, 0, 0);
	assert_null(told(b, "lonely"));
	assert_int_equal(fleet_settings_change_of_sale(&b->d, &lonely), 0);
	/* One that the fleet has by another number. */
	sell(b, &other);
	settings_merge(b->d.settings->table, &theirs);
	assert_int_equal(call(b, control_pause_sale, "other", ""), 503);
	make(b, send_one(b), 10, 0, 0);
	assert_string_equal(told(b, "other")->value, theirs.value);
	assert_int_equal(fleet_settings_change_of_sale(&b->d, &other), 0);
}

static void a_sale_of_the_fleet_that_this_node_died_over_is_told_at_its_next_start(void **state)
{
	struct bench *b = *state;
	struct sale made = a_sale(FLEETS, "made"), over = a_sale(FLEETS + 1, "over"), lonely = a_sale(1, "lonely"),
		    known = a_sale(FLEETS + 2, "known");
	struct setting_view theirs = {.name = "sale/known", .value = "theirs", .stamp = {.version = 1, .node = 2}};

	over.ends_ns = time_wall_ns() - 1;
	sell(b, &made);
	sell(b, &over);
	sell(b, &lonely);
	sell(b, &known);
	settings_merge(b->d.settings->table, &theirs);
	settings_adopt_sales(b->d.settings);
	assert_non_null(told(b, "made"));
	assert_true(told(b, "made")->flags & SETTING_UNSURE);
	assert_null(told(b, "over"));
	assert_null(told(b, "lonely"));
	assert_string_equal(told(b, "known")->value, "theirs");
}

/* --- the gate ---------------------------------------------------------------------------------------------------------------------- */
static void a_sale_that_did_not_fit_the_gate_is_not_opened_by_a_change(void **state)
{
	struct bench *b = *state;
	struct sale sale = a_sale(1, "large");

	sell(b, &sale);
	sales_leave_gate(b->d.sales, &sale); /* as recovery does */
	assert_int_equal(call(b, control_pause_sale, "large", ""), 503);
	make(b, send_one(b), 10, 0, 3); /* cancelled ones have spent tokens too */
	assert_int_equal(slots[1].id, 0);
	/* A sale that nobody has ordered of has nothing that could be missing. */
	sale = a_sale(2, "new");
	sell(b, &sale);
	sales_leave_gate(b->d.sales, &sale);
	assert_int_equal(call(b, control_resume_sale, "new", ""), 503);
	make(b, send_one(b), 10, 0, 0);
	assert_int_equal(slots[2].id, 2);
	assert_int_equal(stocks[2].free, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_change_is_open_until_the_ledger_has_answered_it, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_change_after_one_that_was_not_answered_takes_nothing_of_it_back, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_sale_of_the_fleet_that_is_made_late_is_told_all_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_pause_and_an_end_that_are_made_late_are_told_all_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_sale_of_the_fleet_that_nobody_was_told_of_is_told_with_its_next_change, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_another_node_has_set_and_what_is_not_made_is_not_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_sale_from_before_the_fleet_stays_this_nodes_own, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_sale_of_the_fleet_that_this_node_died_over_is_told_at_its_next_start, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_sale_that_did_not_fit_the_gate_is_not_opened_by_a_change, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
