/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Proves: while Redis does not know all homes, home.lua gives nobody a new one before every node has told that may have buyers; and it takes nobody's
 * silence for granted by the word of an earlier run. Against a real redis-server, with stocks written by hand.
 */
#include "redis_server.h"

#include "fleet_scripts.h"

#define HOMES "t:{drop}:homes"
#define STOCK "t:{drop}:stock"
#define RUN_MAX 48
#define GEN_MAX 64

#define SOURCE_MAX 65536

static struct redis_server server;
static char source[SOURCE_MAX]; /* of the script, as the daemon sends it */

static void source_add(const char *name)
{
	size_t used = strlen(source);

	for (const struct web_asset *asset = web_assets; asset->name; asset++)
		if (!strcmp(asset->name, name)) {
			assert_true(used + asset->size < SOURCE_MAX);
			memcpy(source + used, asset->bytes, asset->size);
			return;
		}
	fail_msg("there is no %s", name);
}

static int read_script(void **state)
{
	(void)state;
	source_add("prelude.lua");
	source_add("home.lua");
	return 0;
}

static int start_server(void **state)
{
	(void)state;
	if (!server.pid)
		redis_server_start(&server);
	freeReplyObject(redis_server_ask(&server, "FLUSHALL"));
	return 0;
}

/* Node 1 of `members` asks for one buyer. */
static redisReply *asks(const char *members, const char *gen)
{
	redisReply *reply = redis_server_ask(&server, "EVAL %s 2 %s %s ask 1 %s channel 9999999999 %s 00000000000000aa",
		source, HOMES, STOCK, members, gen);

	if (reply->type != REDIS_REPLY_ARRAY)
		fail_msg("%s", reply->str ? reply->str : "no array");
	return reply;
}

/* Node tells that it knows nobody. */
static void tells(unsigned node, const char *members, const char *gen)
{
	redisReply *reply = redis_server_ask(&server, "EVAL %s 2 %s %s tell %u %s channel 9999999999 %s 1", source,
		HOMES, STOCK, node, members, gen);

	assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
	assert_string_equal(reply->element[0]->str, "told");
	freeReplyObject(reply);
}

/* Homes were lost: nodes that are there tell again, and then `wanted` are waited for. */
static void waits_for(const char *wanted, const char *members, const char *tellers)
{
	redisReply *reply = asks(members, "4-lost");
	char gen[GEN_MAX];

	snprintf(gen, sizeof(gen), "%s", reply->element[0]->str);
	freeReplyObject(reply);
	for (; *tellers; tellers++)
		tells((unsigned)(*tellers - '0'), members, gen);
	reply = asks(members, gen);
	assert_string_equal(reply->element[2]->str, wanted);
	assert_string_equal(reply->element[1]->str, *wanted ? "settling" : "open");
	assert_string_equal(reply->element[3]->str, *wanted ? "0" : "1");
	freeReplyObject(reply);
}

/* As server_run() of prelude.lua has it. */
static void run_of_server(char run[RUN_MAX])
{
	redisReply *about = redis_server_ask(&server, "INFO");
	const char *process = strstr(about->str, "\nrun_id:"), *mastership = strstr(about->str, "\nmaster_replid:");

	assert_true(process && mastership);
	snprintf(run, RUN_MAX, "%.20s%.20s", mastership + strlen("\nmaster_replid:"), process + strlen("\nrun_id:"));
	freeReplyObject(about);
}

static void stock_by(const char *run, const char *members)
{
	char head[128];

	snprintf(head, sizeof(head), "%s 7-abc open 100 1 - 100 0 0 0", run);
	freeReplyObject(redis_server_ask(&server, "HSET %s head %b members %s", STOCK, head, strlen(head), members));
}

static void row_is(unsigned node, unsigned settled, unsigned fenced)
{
	char row[128];

	snprintf(row, sizeof(row), "9 0 none 0 0 0 %u %u 0 0 0 0 0 - 0", settled, fenced);
	freeReplyObject(redis_server_ask(&server, "HSET %s n%u %b", STOCK, node, row, strlen(row)));
}

static void a_node_that_is_fenced_in_this_run_is_not_waited_for(void **state)
{
	char run[RUN_MAX];

	(void)state;
	run_of_server(run);
	stock_by(run, "1,2,3");
	row_is(1, 7, 0);
	row_is(2, 7, 0);
	row_is(3, 6, 7);
	waits_for("", "1,2,3", "12");
}

/* It may have come back since, and a replica that lagged does not know. */
static void a_fence_of_another_run_says_nothing(void **state)
{
	(void)state;
	stock_by("0123456789abcdef0123456789abcdef01234567", "1,2,3");
	row_is(1, 7, 0);
	row_is(2, 7, 0);
	row_is(3, 6, 7);
	waits_for("3", "1,2,3", "12");
}

static void a_fence_of_another_generation_says_nothing(void **state)
{
	char run[RUN_MAX];

	(void)state;
	run_of_server(run);
	stock_by(run, "1,2,3");
	row_is(3, 5, 6);
	waits_for("3", "1,2,3", "12");
}

/* It was taken out of the config, and may have buyers all the same: the stock waits for it too. */
static void a_member_of_the_sale_that_no_config_names_is_waited_for_until_it_is_fenced(void **state)
{
	char run[RUN_MAX];

	(void)state;
	run_of_server(run);
	stock_by(run, "1,2,3");
	row_is(1, 7, 0);
	row_is(2, 7, 0);
	row_is(3, 7, 0);
	waits_for("3", "1,2", "12");
	row_is(3, 7, 7);
	waits_for("", "1,2", "12");
}

/* Who the members are, Redis may have forgotten. */
static void a_stock_of_another_run_is_waited_for(void **state)
{
	char run[RUN_MAX], gen[GEN_MAX];
	redisReply *reply;

	(void)state;
	stock_by("0123456789abcdef0123456789abcdef01234567", "1,2");
	reply = asks("1,2", "4-lost");
	snprintf(gen, sizeof(gen), "%s", reply->element[0]->str);
	freeReplyObject(reply);
	tells(1, "1,2", gen);
	tells(2, "1,2", gen);
	reply = asks("1,2", gen);
	assert_string_equal(reply->element[1]->str, "settling");
	assert_string_equal(reply->element[3]->str, "0");
	freeReplyObject(reply);
	run_of_server(run);
	stock_by(run, "1,2");
	reply = asks("1,2", gen);
	assert_string_equal(reply->element[1]->str, "open");
	assert_string_equal(reply->element[3]->str, "1");
	freeReplyObject(reply);
}

/* A sale of one node's own, from before the fleet. */
static void a_sale_without_a_stock_in_redis_waits_for_the_nodes_of_the_config(void **state)
{
	(void)state;
	waits_for("2", "1,2", "1");
	waits_for("", "1,2", "12");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_node_that_is_fenced_in_this_run_is_not_waited_for, start_server),
		cmocka_unit_test_setup(a_fence_of_another_run_says_nothing, start_server),
		cmocka_unit_test_setup(a_fence_of_another_generation_says_nothing, start_server),
		cmocka_unit_test_setup(
			a_member_of_the_sale_that_no_config_names_is_waited_for_until_it_is_fenced, start_server),
		cmocka_unit_test_setup(a_stock_of_another_run_is_waited_for, start_server),
		cmocka_unit_test_setup(a_sale_without_a_stock_in_redis_waits_for_the_nodes_of_the_config, start_server),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN);
	failed = cmocka_run_group_tests(tests, read_script, NULL);
	redis_server_stop(&server, SIGKILL);
	return failed;
}
