/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Idempotency keys of the control API (control_once.c) when the order writer fails between the change and the keeping of its answer. Route, listener and
 * ledger are made up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/order_changes.h"

#define DETAIL_MAX 512

static struct {
	int get_error, put_error; /* what comes of the two questions */
	json_t *kept;
	unsigned made; /* how often the route has changed something */
	unsigned route_status;
	/* the answer that went out */
	unsigned status;
	char code[32], detail[DETAIL_MAX], body[DETAIL_MAX];
	unsigned logged;
} world;

/* --- what stands in for the rest of the daemon --- */
const char *http_header(const struct http_request *request, const char *name)
{
	(void)request;
	return strcmp(name, HTTP_ONCE_KEY) != 0 ? NULL : "payment-1";
}

int MHD_get_connection_values(
	struct MHD_Connection *connection, enum MHD_ValueKind kind, MHD_KeyValueIterator iterator, void *arg)
{
	(void)connection;
	(void)kind;
	(void)iterator;
	(void)arg;
	return 0;
}

static enum MHD_Result tell(unsigned status, const char *code, const char *format, va_list args)
{
	world.status = status;
	snprintf(world.code, sizeof(world.code), "%s", code);
	vsnprintf(world.detail, sizeof(world.detail), format, args);
	return MHD_YES;
}

enum MHD_Result http_problem(struct http_request *request, unsigned status, const char *code, const char *format, ...)
{
	va_list args;

	(void)request;
	va_start(args, format);
	tell(status, code, format, args);
	va_end(args);
	return MHD_YES;
}

enum MHD_Result http_problem_field(
	struct http_request *request, unsigned status, const char *code, const char *field, const char *format, ...)
{
	va_list args;

	(void)request;
	(void)field;
	va_start(args, format);
	tell(status, code, format, args);
	va_end(args);
	return MHD_YES;
}

enum MHD_Result http_problem_retry(struct http_request *request, unsigned status, const char *code,
	unsigned retry_after_s, const char *format, ...)
{
	va_list args;

	(void)request;
	assert_int_not_equal(retry_after_s, 0);
	va_start(args, format);
	tell(status, code, format, args);
	va_end(args);
	return MHD_YES;
}

enum MHD_Result control_send_first_error(struct http_request *request, const struct pipeline_answer *answer)
{
	return http_problem_retry(request, 503, "writer_away", 2, "%s. Nothing was changed.", strerror(-answer->error));
}

static enum MHD_Result send_text(unsigned status, const char *text, size_t length)
{
	world.status = status;
	snprintf(world.body, sizeof(world.body), "%.*s", (int)length, text);
	return MHD_YES;
}

enum MHD_Result http_send_again(struct http_request *request, const struct http_text *answer)
{
	(void)request;
	return send_text(answer->status, answer->text, answer->length);
}

void control_log_change(const struct http_request *request)
{
	(void)request;
	world.logged++;
}

void pipeline_status(struct pipeline *p, struct pipeline_status *status)
{
	(void)p;
	memset(status, 0, sizeof(*status));
}

int pipeline_ask(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg,
	struct pipeline_answer *answer)
{
	bool is_put = !strcmp(json_string_value(json_object_get(question, "op")), "once_put");

	(void)p;
	(void)hooks;
	(void)arg;
	memset(answer, 0, sizeof(*answer));
	answer->error = is_put ? world.put_error : world.get_error;
	if (answer->error == -EREMOTEIO)
		snprintf(answer->code, sizeof(answer->code), "%s", PIPELINE_STORE_ERROR);
	if (!answer->error && is_put)
		world.kept = json_incref(json_object_get(question, "answer"));
	if (!answer->error)
		answer->json = is_put ? json_object() : json_pack("{s:O?}", "answer", world.kept);
	json_decref(question);
	return answer->error;
}

/* The route that is asked: it changes something, and answers as all do. */
static enum MHD_Result change(struct http_request *request)
{
	struct http_text answer = {.status = world.route_status, .type = "application/json", .text = "{}", .length = 2};
	enum MHD_Result result;

	world.made++;
	if (!request->keep(request, &answer, &result))
		return result;
	return send_text(answer.status, answer.text, answer.length);
}

/* Those that control_once.c knows by name. */
enum MHD_Result http_token_post_control(struct http_request *request)
{
	return change(request);
}

enum MHD_Result control_inspect_token(struct http_request *request)
{
	return change(request);
}

enum MHD_Result control_confirm_order(struct http_request *request)
{
	return change(request);
}

enum MHD_Result control_cancel_order(struct http_request *request)
{
	return change(request);
}

enum MHD_Result control_refund_order(struct http_request *request)
{
	return change(request);
}

/* --- tests --- */
static void ask(void)
{
	static const struct http_route route = {"POST", "/v1/sales/{}/stock", change, "stock"};
	char method[] = "POST", path[] = "/v1/sales/drop/stock", body[] = "{\"delta\":100}";
	struct daemon d = {0};
	struct http_request request = {.d = &d,
		.route = &route,
		.method = method,
		.path = path,
		.body = body,
		.body_length = sizeof(body) - 1};

	world.status = 0;
	*world.code = *world.detail = *world.body = '\0';
	world.logged = 0;
	assert_int_equal(control_handle(&request), MHD_YES);
	assert_int_equal(world.logged, 1);
}

static int make_world(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	world.route_status = 200;
	return 0;
}

static int end_world(void **state)
{
	(void)state;
	json_decref(world.kept);
	return 0;
}

static void a_change_is_made_once_and_its_answer_comes_again(void **state)
{
	(void)state;
	ask();
	assert_int_equal(world.status, 200);
	ask();
	assert_int_equal(world.status, 200);
	assert_string_equal(world.body, "{}");
	assert_int_equal(world.made, 1);
}

static void nothing_is_made_while_the_keys_cannot_be_read(void **state)
{
	(void)state;
	world.get_error = -ENOTCONN;
	ask();
	assert_int_equal(world.status, 503);
	assert_non_null(strstr(world.detail, "Nothing was changed"));
	assert_int_equal(world.made, 0);
}

static void a_change_that_was_made_is_not_denied_because_its_answer_could_not_be_kept(void **state)
{
	static const int errors[] = {-ENOTCONN, -ETIMEDOUT, -EREMOTEIO, -ENOMEM};

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		world.put_error = errors[i];
		ask();
		assert_int_equal(world.made, i + 1);
		assert_int_equal(world.status, 503);
		assert_string_equal(world.code, "writer_away");
		assert_null(strstr(world.detail, "Nothing was changed"));
		assert_non_null(strstr(world.detail, "The change was made"));
		/* The same key moves no stock twice; a fresh one would. */
		assert_non_null(strstr(world.detail, "the same " HTTP_ONCE_KEY));
	}
}

static void a_refusal_whose_answer_could_not_be_kept_has_changed_nothing(void **state)
{
	(void)state;
	world.route_status = 409;
	world.put_error = -ENOTCONN;
	ask();
	assert_int_equal(world.status, 503);
	assert_non_null(strstr(world.detail, "Nothing was changed"));
	assert_null(strstr(world.detail, "was made"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_world, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_change_is_made_once_and_its_answer_comes_again),
		TEST(nothing_is_made_while_the_keys_cannot_be_read),
		TEST(a_change_that_was_made_is_not_denied_because_its_answer_could_not_be_kept),
		TEST(a_refusal_whose_answer_could_not_be_kept_has_changed_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
