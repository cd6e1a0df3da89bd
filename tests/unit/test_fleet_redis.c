/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Proves: a call to Redis says exactly what is known of it; what is late is never taken for something else; a link comes back by itself from whatever
 * happens to the server; and a server that is hostile costs a bounded wait and bounded memory.
 *
 * Against real redis-servers, and fakes where a real one would not misbehave so.
 */
#include <pthread.h>

#include "common/timefmt.h"
#include "fleet/redis.h"
#include "fleet/redis_connection.h"
#include "fleet/redis_script.h"
#include "redis_server.h"

#define MS 1000000ULL
#define PATIENCE_NS (10000 * MS)
#define WORDS_MAX 8

static struct redis_script counter, broken;

static struct redis_link *link_to(const char *servers, unsigned timeout_ms)
{
	struct redis_link *link = redis_link_new(
		&(struct redis_options){.servers = servers, .user = "", .password_file = "", .timeout_ms = timeout_ms});

	assert_non_null(link);
	return link;
}

/* A command of words with blanks between; its memory lives until the next but 1023. */
static struct redis_call command(const char *key, const char *text)
{
	static struct {
		char text[128];
		const char *argv[WORDS_MAX];
	} pool[1024];
	static unsigned turn;
	char *rest, **words;
	int argc = 0;
	unsigned slot = turn++ % 1024;

	snprintf(pool[slot].text, sizeof(pool[slot].text), "%s", text);
	words = (char **)(uintptr_t)pool[slot].argv;
	for (char *word = strtok_r(pool[slot].text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		words[argc++] = word;
	return (struct redis_call){.key = key, .argc = argc, .argv = pool[slot].argv};
}

/* Adds to a number under the key, by a script. */
static struct redis_call count_call(const char *key)
{
	struct redis_call call = {.key = key, .script = &counter, .argc = 2};
	struct redis_call words = command(key, "1");
	static const char *argv[1024][2];
	static unsigned turn;
	const char **own = argv[turn++ % 1024];

	own[0] = words.argv[0];
	own[1] = key;
	call.argv = own;
	return call;
}

static int ask(struct redis_link *link, struct redis_call *call)
{
	redis_link_round(link, call, 1);
	return call->error;
}

/* Asks until it succeeds, as the daemon does round after round. */
static void ask_until_done(struct redis_link *link, const char *key, const char *text, struct redis_call *call)
{
	uint64_t end = time_mono_ns() + PATIENCE_NS;
	struct redis_figures figures;

	do {
		*call = command(key, text);
		if (!ask(link, call))
			return;
		usleep(2000);
	} while (time_mono_ns() < end);
	redis_link_figures(link, &figures);
	fail_msg("%s: still %d: %s", text, call->error, figures.failure);
}

static struct redis_figures figures_of(const struct redis_link *link)
{
	struct redis_figures figures;

	redis_link_figures(link, &figures);
	return figures;
}

/* --- one server ------------------------------------------------------------------------------------------------------------------- */
static struct redis_server server;

static int start_server(void **state)
{
	(void)state;
	if (!server.pid)
		redis_server_start(&server);
	redis_server_do(&server, "FLUSHALL");
	redis_server_do(&server, "SCRIPT FLUSH");
	return 0;
}

static void a_round_sends_all_its_calls_and_gives_each_its_own_answer(void **state)
{
	struct redis_link *link = link_to(server.address, 2000);
	struct redis_call calls[500];
	char text[64];

	(void)state;
	for (int i = 0; i < 250; i++) {
		snprintf(text, sizeof(text), "SET k%d v%d", i, i);
		calls[2 * i] = command("k", text);
		snprintf(text, sizeof(text), "ECHO e%d", i);
		calls[2 * i + 1] = command(NULL, text);
	}
	redis_link_round(link, calls, 500);
	for (int i = 0; i < 250; i++) {
		assert_int_equal(calls[2 * i].error, 0);
		assert_string_equal(calls[2 * i].reply->str, "OK");
		snprintf(text, sizeof(text), "e%d", i);
		assert_int_equal(calls[2 * i + 1].error, 0);
		assert_string_equal(calls[2 * i + 1].reply->str, text);
	}
	assert_string_equal(redis_server_do(&server, "GET k249"), "v249");
	assert_int_equal(figures_of(link).rounds, 1);
	assert_int_equal(figures_of(link).calls, 500);
	assert_true(figures_of(link).connected);
	redis_link_free(link);
}

static void a_script_is_sent_by_its_digest_and_as_text_where_it_is_unknown(void **state)
{
	struct redis_link *link = link_to(server.address, 2000);
	struct redis_call calls[20];

	(void)state;
	for (int round = 1; round <= 3; round++) {
		for (int i = 0; i < 20; i++)
			calls[i] = count_call("number");
		redis_link_round(link, calls, 20);
		for (int i = 0; i < 20; i++)
			assert_int_equal(calls[i].error, 0);
		redis_server_do(&server, "SCRIPT FLUSH");
	}
	assert_string_equal(redis_server_do(&server, "GET number"), "60");
	assert_int_equal(figures_of(link).errors, 0);
	assert_int_equal(figures_of(link).calls, 60);
	redis_link_free(link);
}

static void an_error_of_a_script_is_the_error_of_its_call_alone(void **state)
{
	struct redis_link *link = link_to(server.address, 2000);
	static const char *const argv[] = {"1", "number"};
	struct redis_call calls[3];

	(void)state;
	calls[0] = count_call("number");
	calls[1] = (struct redis_call){.key = "number", .script = &broken, .argc = 2, .argv = argv};
	calls[2] = count_call("number");
	redis_link_round(link, calls, 3);
	assert_int_equal(calls[0].error, 0);
	assert_int_equal(calls[1].error, -EREMOTEIO);
	assert_non_null(strstr(calls[1].reply->str, "on purpose"));
	assert_int_equal(calls[2].error, 0);
	assert_int_equal(figures_of(link).errors, 1);
	assert_true(figures_of(link).connected);
	redis_link_free(link);
}

static void a_server_that_sleeps_costs_one_timeout_and_its_late_answer_is_never_taken(void **state)
{
	struct redis_link *link = link_to(server.address, 60);
	struct redis_call calls[3], call;
	uint64_t began;

	(void)state;
	ask_until_done(link, NULL, "PING", &call);
	calls[0] = command("k", "DEBUG SLEEP 0.2");
	calls[1] = command("k", "ECHO late");
	calls[2] = command("k", "INCR number");
	began = time_mono_ns();
	redis_link_round(link, calls, 3);
	assert_true(time_mono_ns() - began < 2000 * MS); /* not one after the other, and not for ever */
	for (int i = 0; i < 3; i++)
		assert_int_equal(calls[i].error, -ETIMEDOUT);
	assert_int_equal(figures_of(link).timeouts, 1);
	assert_false(figures_of(link).connected);
	/* While it rests, at once and without doubt. */
	call = command("k", "INCR number");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	ask_until_done(link, "k", "ECHO fresh", &call);
	assert_string_equal(call.reply->str, "fresh");
	/* It was done, though nobody knew: hence not -ENOTCONN. */
	assert_string_equal(redis_server_do(&server, "GET number"), "1");
	assert_int_equal(figures_of(link).reconnects, 1);
	redis_link_free(link);
}

static void a_server_that_is_stopped_is_left_alone_and_found_again(void **state)
{
	struct redis_link *link = link_to(server.address, 60);
	struct redis_call call;
	unsigned unknown = 0, surely_not = 0;

	(void)state;
	ask_until_done(link, "k", "INCR number", &call);
	kill(server.pid, SIGSTOP);
	for (int i = 0; i < 10; i++) {
		call = command("k", "INCR number");
		unknown += ask(link, &call) == -ETIMEDOUT;
		surely_not += call.error == -ENOTCONN;
		usleep(10000);
	}
	kill(server.pid, SIGCONT);
	/* Only the call that found the connection in order was sent at all. */
	assert_int_equal(unknown, 1);
	assert_int_equal(surely_not, 9);
	ask_until_done(link, "k", "GET number", &call);
	assert_string_equal(call.reply->str, "2");
	redis_link_free(link);
}

static void what_was_not_sent_to_a_killed_server_is_surely_not_done(void **state)
{
	struct redis_link *link = link_to(server.address, 500);
	struct redis_call call;

	(void)state;
	ask_until_done(link, "k", "INCR number", &call);
	redis_server_stop(&server, SIGKILL);
	for (int i = 0; i < 5; i++) {
		call = command("k", "INCR number");
		assert_int_equal(ask(link, &call), -ENOTCONN);
	}
	assert_non_null(strstr(figures_of(link).failure, "refused"));
	assert_true(redis_link_resting_until(link) > time_mono_ns());
	redis_server_start(&server);
	ask_until_done(link, "k", "INCR number", &call);
	assert_int_equal(call.reply->integer, 1);
	assert_true(figures_of(link).connected);
	assert_string_equal(figures_of(link).failure, "");
	redis_link_free(link);
}

static void a_big_reply_and_a_big_call_come_through_whole(void **state)
{
	struct redis_link *link = link_to(server.address, 10000);
	size_t size = 8u << 20;
	char *value = malloc(size);
	const char *argv[] = {"SET", "big", value};
	const size_t lengths[] = {3, 3, size};
	struct redis_call call = {.key = "big", .argc = 3, .argv = argv, .lengths = lengths};

	(void)state;
	assert_non_null(value);
	for (size_t i = 0; i < size; i++)
		value[i] = (char)(i * 2654435761u >> 24);
	assert_int_equal(ask(link, &call), 0);
	call = command("big", "GET big");
	assert_int_equal(ask(link, &call), 0);
	assert_int_equal(call.reply->len, size);
	assert_memory_equal(call.reply->str, value, size);
	free(value);
	redis_link_free(link);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_round_sends_all_its_calls_and_gives_each_its_own_answer, start_server),
		cmocka_unit_test_setup(a_script_is_sent_by_its_digest_and_as_text_where_it_is_unknown, start_server),
		cmocka_unit_test_setup(an_error_of_a_script_is_the_error_of_its_call_alone, start_server),
		cmocka_unit_test_setup(
			a_server_that_sleeps_costs_one_timeout_and_its_late_answer_is_never_taken, start_server),
		cmocka_unit_test_setup(a_server_that_is_stopped_is_left_alone_and_found_again, start_server),
		cmocka_unit_test_setup(what_was_not_sent_to_a_killed_server_is_surely_not_done, start_server),
		cmocka_unit_test_setup(a_big_reply_and_a_big_call_come_through_whole, start_server),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN); /* as both programs do */
	redis_script_make(&counter, "counter", "return redis.call('INCR', KEYS[1])");
	redis_script_make(&broken, "broken", "return redis.error_reply('ERR on purpose')");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	redis_server_stop(&server, SIGKILL);
	redis_script_unmake(&counter);
	redis_script_unmake(&broken);
	return failed;
}
