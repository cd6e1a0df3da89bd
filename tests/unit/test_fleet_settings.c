/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The settings of a fleet: the tables of several nodes, and a real Redis between them that runs the script of the daemon. What is lost, doubled, late or
 * forgotten is drawn by a seed; in the end all nodes and Redis must say the same, and what a node does must be what its table says.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fleet/settings_sync.h"
#include "fleet_scripts.h"

#define NODES 3
#define NAMES 14
#define SEEDS 150
#define STEPS 150
#define KEYS \
	"4", "t:{fleet}:settings", "t:{fleet}:settings:values", "t:{fleet}:settings:index", "t:{fleet}:settings:due"
#define KEY_COUNT 4
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char *const names[NAMES] = {"deny/10.0.0.1/32", "deny/10.0.0.2/32", "deny/10.0.0.3/32",
	"deny/2001:db8::/32", "allow/10.0.0.0/8", "allow/10.1.0.0/16", "limit/source", "limit/token", "shadow/deny",
	"answer/sold_out", "cors", "answer/paused", "sale/first", "sale/second"};
static const char *const key_names[KEY_COUNT] = {
	"t:{fleet}:settings", "t:{fleet}:settings:values", "t:{fleet}:settings:index", "t:{fleet}:settings:due"};

static uint64_t last_seed;

/* --- Redis ---------------------------------------------------------------------------------------------------------------------- */
static struct {
	pid_t pid;
	char dir[32], socket[64];
	redisContext *context;
	char sha[41];
} server;

static redisReply *call(const char *format, ...)
{
	redisReply *reply;
	va_list args;

	va_start(args, format);
	reply = redisvCommand(server.context, format, args);
	va_end(args);
	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("Redis: %s", reply->str);
	return reply;
}

static void forget(redisReply *reply)
{
	freeReplyObject(reply);
}

static void load_script(void)
{
	const struct web_asset *prelude = NULL, *script = NULL;
	redisReply *reply;
	char *both;

	for (const struct web_asset *asset = web_assets; asset->name; asset++) {
		if (!strcmp(asset->name, "prelude.lua"))
			prelude = asset;
		if (!strcmp(asset->name, "settings.lua"))
			script = asset;
	}
	assert_non_null(prelude);
	assert_non_null(script);
	assert_true(asprintf(&both, "%.*s\n%.*s", (int)prelude->size, (const char *)prelude->bytes, (int)script->size,
			    (const char *)script->bytes) > 0);
	reply = call("SCRIPT LOAD %s", both);
	snprintf(server.sha, sizeof(server.sha), "%s", reply->str);
	forget(reply);
	free(both);
}

static int start_redis(void **state)
{
	(void)state;
	snprintf(server.dir, sizeof(server.dir), "/tmp/sluice-redis-XXXXXX");
	if (!mkdtemp(server.dir))
		return -1;
	snprintf(server.socket, sizeof(server.socket), "%s/socket", server.dir);
	server.pid = fork();
	if (!server.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stdout))
			_exit(126);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", server.socket, "--dir",
			server.dir, "--save", "", "--appendonly", "no", (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 500; i++) {
		server.context = redisConnectUnix(server.socket);
		if (server.context && !server.context->err)
			break;
		redisFree(server.context);
		server.context = NULL;
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	if (!server.context)
		return -1;
	load_script();
	return 0;
}

static int tell_seed(void **state)
{
	(void)state;
	print_message("the last seed was %lu (SETTINGS_SEED=%lu runs it alone)\n", (unsigned long)last_seed,
		(unsigned long)last_seed);
	return 0;
}

static int stop_redis(void **state)
{
	(void)state;
	if (server.context)
		redisFree(server.context);
	if (server.pid > 0) {
		kill(server.pid, SIGTERM);
		waitpid(server.pid, NULL, 0);
	}
	unlink(server.socket);
	rmdir(server.dir);
	return 0;
}

static int flush(void **state)
{
	(void)state;
	forget(call("FLUSHALL"));
	load_script(); /* FLUSHALL leaves scripts alone; a restart would not */
	return 0;
}

/* Another run with the same data: so a restart looks, or a failover. */
static void change_server(void)
{
	forget(call("HSET %s server another", key_names[0]));
}

static void back_up(void)
{
	for (unsigned i = 0; i < KEY_COUNT; i++) {
		forget(call("DEL backup%u", i));
		forget(call("COPY %s backup%u", key_names[i], i));
	}
}

/* A replica that lagged takes over. */
static void go_back(void)
{
	for (unsigned i = 0; i < KEY_COUNT; i++) {
		forget(call("DEL %s", key_names[i]));
		forget(call("COPY backup%u %s", i, key_names[i]));
	}
	change_server();
}

/* --- nodes ---------------------------------------------------------------------------------------------------------------------- */
/* `file` is what a restart finds: texts by name, as they were when they were written. */
struct node {
	uint32_t id;
	unsigned lives;
	struct settings *settings;
	struct settings_sync *sync;
	char *does[NAMES]; /* what is in force here; NULL: nothing */
	struct {
		char *text;
		bool is_dirty;
	} file[NAMES];
	char file_gen[SETTINGS_GEN_SIZE];
	uint64_t file_place, file_contact;
};

/* A question on its way. */
struct message {
	int argc;
	const char **argv;
	struct settings_question question;
};

static unsigned index_of(const char *name)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (!strcmp(names[i], name))
			return i;
	fail_msg("no such name: %s", name);
	return 0;
}

static void write_one(struct node *node, const struct setting *setting)
{
	char text[256];
	unsigned i = index_of(setting->name);

	setting_format(setting, text, sizeof(text));
	free(node->file[i].text);
	node->file[i].text = strdup(text);
	node->file[i].is_dirty = setting->flags & SETTING_DIRTY;
}

static void write_file(struct node *node)
{
	struct setting *setting;

	while ((setting = settings_take_unsaved(node->settings)))
		write_one(node, setting);
	snprintf(node->file_gen, sizeof(node->file_gen), "%s", node->settings->unsure_count ? "" : node->sync->gen);
	node->file_place = node->sync->place;
	node->file_contact = node->sync->contact_us;
}

static void do_due(struct node *node)
{
	struct setting *setting;

	while ((setting = settings_take_due(node->settings))) {
		unsigned i = index_of(setting->name);

		free(node->does[i]);
		node->does[i] = setting->value ? strdup(setting->value) : NULL;
	}
}

static void start_node(struct node *node, uint32_t id)
{
	char life[SETTINGS_LIFE_SIZE];

	node->id = id;
	node->settings = settings_new(id);
	node->sync = calloc(1, sizeof(*node->sync));
	snprintf(life, sizeof(life), "life%u", ++node->lives);
	settings_sync_init(node->sync, node->settings, life);
	for (unsigned i = 0; i < NAMES; i++) {
		struct setting_view view = {.name = names[i]};
		char *copy;

		if (!node->file[i].text)
			continue;
		copy = strdup(node->file[i].text);
		assert_int_equal(setting_parse(copy, &view), 0);
		assert_int_equal(settings_load(node->settings, &view, node->file[i].is_dirty), 0);
		free(copy);
	}
	snprintf(node->sync->gen, sizeof(node->sync->gen), "%s", node->file_gen);
	node->sync->place = node->file_place;
	node->sync->contact_us = node->file_contact;
}

static void stop_node(struct node *node)
{
	settings_free(node->settings);
	free(node->sync);
}

static void end_node(struct node *node)
{
	stop_node(node);
	for (unsigned i = 0; i < NAMES; i++) {
		free(node->does[i]);
		free(node->file[i].text);
	}
}

/* As a route does it: in force at once, and in the file before it is answered. */
static void set(struct node *node, const char *name, const char *value)
{
	unsigned i = index_of(name);
	struct setting *known = settings_find(node->settings, name);
	bool is_final = (value && !strcmp(value, "ended")) || (known && known->stamp.is_final);

	free(node->does[i]);
	node->does[i] = value ? strdup(value) : NULL;
	assert_true(settings_set(node->settings, name, value, 0, is_final) >= 0);
	write_one(node, settings_find(node->settings, name));
}

static struct message ask(struct node *node)
{
	static const char *const head[] = {"EVALSHA", server.sha, KEYS};
	struct settings_more more = {.channel = "news", .busy = ""};
	struct message message = {0};

	assert_int_equal(settings_sync_ask(node->sync, &more, &message.question), 0);
	message.argc = (int)(COUNT(head) + message.question.count);
	message.argv = calloc((size_t)message.argc, sizeof(char *));
	memcpy(message.argv, head, sizeof(head));
	memcpy(message.argv + COUNT(head), message.question.arguments, message.question.count * sizeof(char *));
	return message;
}

static redisReply *deliver(const struct message *message)
{
	redisReply *reply = redisCommandArgv(server.context, message->argc, message->argv, NULL);

	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("Redis: %s", reply->str);
	return reply;
}

static void message_free(struct message *message)
{
	settings_question_free(&message->question);
	free(message->argv);
	*message = (struct message){0};
}

static void exchange(struct node *node)
{
	struct message message = ask(node);
	redisReply *reply = deliver(&message);

	assert_int_equal(settings_sync_take(node->sync, reply), 0);
	forget(reply);
	message_free(&message);
}

static void settle_all(struct node *nodes, unsigned count)
{
	for (unsigned round = 0; round < 12; round++)
		for (unsigned i = 0; i < count; i++)
			exchange(&nodes[i]);
	for (unsigned i = 0; i < count; i++) {
		do_due(&nodes[i]);
		assert_false(settings_sync_is_due(nodes[i].sync));
	}
}

static void assert_text(const char *left, const char *right, const char *what)
{
	if (left && right ? strcmp(left, right) != 0 : left != right)
		fail_msg("%s: \"%s\" and \"%s\"", what, left ? left : "(nothing)", right ? right : "(nothing)");
}

static const char *value_of(const struct node *node, const char *name)
{
	const struct setting *setting = settings_find(node->settings, name);

	return setting ? setting->value : NULL;
}

static void assert_all_equal(struct node *nodes, unsigned count)
{
	for (unsigned i = 0; i < NAMES; i++) {
		redisReply *reply = call("HGET %s %s", key_names[1], names[i]);
		const char *in_redis = reply->type == REDIS_REPLY_STRING ? reply->str : NULL;

		for (unsigned n = 0; n < count; n++) {
			const struct setting *setting = settings_find(nodes[n].settings, names[i]);
			char text[256] = "";

			if (setting)
				setting_format(setting, text, sizeof(text));
			assert_text(setting ? text : NULL, in_redis, names[i]);
			assert_text(nodes[n].does[i], setting ? setting->value : NULL, names[i]);
		}
		forget(reply);
	}
}

/* --- by chance ------------------------------------------------------------------------------------------------------------------ */
static uint64_t chance;

static unsigned draw(unsigned below)
{
	chance ^= chance << 13; /* xorshift64 */
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return (unsigned)(chance >> 11) % below;
}

static void set_by_chance(struct node *node)
{
	char value[32];
	unsigned i = draw(NAMES);
	const struct setting *known = settings_find(node->settings, names[i]);

	snprintf(value, sizeof(value), "%u", draw(1000));
	if (!strncmp(names[i], "sale/", 5) && (draw(8) == 0 || (known && known->stamp.is_final)))
		snprintf(value, sizeof(value), "ended");
	set(node, names[i], i < 6 && draw(3) == 0 ? NULL : value);
}

/* One question, and what the network makes of it. `late` comes at some time, or never. */
static void talk_by_chance(struct node *node, struct message *late)
{
	struct message message = ask(node);
	unsigned fate = draw(10);
	redisReply *reply;

	if (fate == 0) { /* the question is lost */
		settings_sync_lost(node->sync);
	} else if (fate == 1) { /* the answer is lost */
		forget(deliver(&message));
		settings_sync_lost(node->sync);
	} else if (fate == 2) { /* the question comes late, when nobody waits for its answer any more */
		settings_sync_lost(node->sync);
		message_free(late);
		*late = message;
		return;
	} else {
		reply = deliver(&message);
		assert_int_equal(settings_sync_take(node->sync, reply), 0);
		forget(reply);
		if (fate == 3) /* it was doubled on its way */
			forget(deliver(&message));
	}
	message_free(&message);
}

static void run_seed(uint64_t seed)
{
	struct node nodes[NODES] = {0};
	struct message late[NODES] = {0};
	bool has_backup = false;

	chance = seed * 0x9e3779b97f4a7c15ULL + 1;
	forget(call("FLUSHALL"));
	for (unsigned i = 0; i < NODES; i++)
		start_node(&nodes[i], i + 1);
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned which = draw(NODES);
		struct node *node = &nodes[which];

		switch (draw(24)) {
		case 0: /* Redis forgets everything */
			forget(call("FLUSHALL"));
			has_backup = false;
			break;
		case 1:
			change_server();
			break;
		case 2:
			back_up();
			has_backup = true;
			break;
		case 3:
			if (has_backup)
				go_back();
			break;
		case 4: /* a crash, and a start from what the file had */
			stop_node(node);
			start_node(node, which + 1);
			do_due(node);
			break;
		case 5:
			if (late[which].argc)
				forget(deliver(&late[which]));
			message_free(&late[which]);
			break;
		case 6: /* parts of it are lost */
			forget(call("DEL %s", key_names[1 + draw(2)]));
			break;
		case 7:
		case 8:
			write_file(node);
			break;
		case 9:
		case 10:
		case 11:
			do_due(node);
			break;
		case 12:
		case 13:
		case 14:
		case 15:
			set_by_chance(node);
			break;
		default:
			talk_by_chance(node, &late[which]);
		}
	}
	settle_all(nodes, NODES);
	assert_all_equal(nodes, NODES);
	for (unsigned i = 0; i < NODES; i++) {
		end_node(&nodes[i]);
		message_free(&late[i]);
	}
}

static void whatever_is_lost_doubled_or_late_all_nodes_end_the_same(void **state)
{
	const char *only = getenv("SETTINGS_SEED");

	(void)state;
	last_seed = only ? strtoull(only, NULL, 10) : 1;
	do
		run_seed(last_seed);
	while (!only && last_seed < SEEDS && ++last_seed);
}

/* --- one by one ----------------------------------------------------------------------------------------------------------------- */
static void start_all(struct node *nodes, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		start_node(&nodes[i], i + 1);
		exchange(&nodes[i]);
	}
}

static void end_all(struct node *nodes, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		end_node(&nodes[i]);
}

static void what_one_sets_reaches_the_others(void **state)
{
	struct node nodes[2] = {0};

	(void)state;
	start_all(nodes, 2);
	set(&nodes[0], "limit/source", "50");
	set(&nodes[0], "deny/10.0.0.1/32", "{}");
	assert_false(settings_has_sent(nodes[0].settings, nodes[0].settings->ops));
	exchange(&nodes[0]);
	exchange(&nodes[0]);
	assert_true(settings_has_sent(nodes[0].settings, nodes[0].settings->ops));
	exchange(&nodes[1]);
	exchange(&nodes[1]);
	assert_string_equal(value_of(&nodes[1], "limit/source"), "50");
	assert_string_equal(value_of(&nodes[1], "deny/10.0.0.1/32"), "{}");
	assert_int_equal(nodes[1].settings->due_count, 2);
	assert_int_equal(nodes[1].settings->dirty_count, 0); /* nothing is told back */
	settle_all(nodes, 2);
	assert_all_equal(nodes, 2);
	end_all(nodes, 2);
}

static void a_change_that_arrived_unheard_is_not_made_again_over_a_later_one(void **state)
{
	struct node nodes[2] = {0};
	struct message message;

	(void)state;
	start_all(nodes, 2);
	settle_all(nodes, 2);
	set(&nodes[0], "limit/source", "first");
	message = ask(&nodes[0]);
	forget(deliver(&message));
	settings_sync_lost(nodes[0].sync);
	message_free(&message);
	exchange(&nodes[1]);
	set(&nodes[1], "limit/source", "second");
	exchange(&nodes[1]);
	settle_all(nodes, 2);
	assert_string_equal(value_of(&nodes[0], "limit/source"), "second");
	assert_all_equal(nodes, 2);
	end_all(nodes, 2);
}

static void a_change_by_hand_while_redis_was_away_is_not_overwritten_by_an_older_one(void **state)
{
	struct node nodes[2] = {0};

	(void)state;
	start_all(nodes, 2);
	set(&nodes[1], "limit/source", "before");
	exchange(&nodes[1]);
	set(&nodes[0], "limit/source", "by hand"); /* has not heard of it */
	settle_all(nodes, 2);
	assert_string_equal(value_of(&nodes[1], "limit/source"), "by hand");
	end_all(nodes, 2);
}

static void after_a_loss_the_nodes_tell_redis_again_and_what_was_removed_stays_removed(void **state)
{
	struct node nodes[NODES] = {0};

	(void)state;
	start_all(nodes, NODES);
	for (unsigned i = 0; i < NAMES; i++)
		set(&nodes[i % NODES], names[i], "7");
	settle_all(nodes, NODES);
	set(&nodes[2], names[0], NULL);
	settle_all(nodes, NODES);
	forget(call("FLUSHALL"));
	settle_all(nodes, NODES);
	for (unsigned i = 1; i < NAMES; i++)
		assert_string_equal(value_of(&nodes[i % NODES], names[i]), "7");
	assert_null(value_of(&nodes[0], names[0]));
	assert_all_equal(nodes, NODES);
	assert_int_equal(nodes[0].sync->losses, 1);
	end_all(nodes, NODES);
}

static void what_was_ended_stays_ended_whoever_comes_later(void **state)
{
	struct node nodes[2] = {0};

	(void)state;
	start_all(nodes, 2);
	set(&nodes[0], "sale/first", "open");
	settle_all(nodes, 2);
	set(&nodes[0], "sale/first", "ended");
	exchange(&nodes[0]);
	set(&nodes[1], "sale/first", "paused"); /* has not heard of it, and comes later */
	settle_all(nodes, 2);
	assert_string_equal(value_of(&nodes[1], "sale/first"), "ended");
	assert_all_equal(nodes, 2);
	end_all(nodes, 2);
}

static void of_what_nodes_bring_along_the_fleets_counts_and_the_rest_is_added(void **state)
{
	struct node nodes[2] = {0};

	(void)state;
	start_all(nodes, 1);
	set(&nodes[0], "limit/source", "of the fleet");
	settle_all(nodes, 1);
	start_node(&nodes[1], 2);
	assert_int_equal(settings_adopt(nodes[1].settings, "limit/source", "own", 0, false), 1);
	assert_int_equal(settings_adopt(nodes[1].settings, "deny/10.0.0.3/32", "own", 0, false), 1);
	nodes[1].does[index_of("limit/source")] = strdup("own");
	nodes[1].does[index_of("deny/10.0.0.3/32")] = strdup("own");
	settle_all(nodes, 2);
	assert_string_equal(value_of(&nodes[1], "limit/source"), "of the fleet");
	assert_string_equal(value_of(&nodes[0], "deny/10.0.0.3/32"), "own");
	assert_all_equal(nodes, 2);
	end_all(nodes, 2);
}

static void who_was_away_for_too_long_brings_nothing_back_that_was_removed(void **state)
{
	struct node nodes[2] = {0};

	(void)state;
	start_all(nodes, 2);
	set(&nodes[0], "deny/10.0.0.1/32", "{}");
	set(&nodes[0], "limit/source", "50");
	settle_all(nodes, 2);
	/* Node 2 sleeps; the entry is removed, and so long ago that nobody remembers. */
	set(&nodes[0], "deny/10.0.0.1/32", NULL);
	settle_all(nodes, 1);
	forget(call("ZADD %s 1 deny/10.0.0.1/32", key_names[3]));
	exchange(&nodes[0]);
	write_file(&nodes[0]);
	settings_find(nodes[0].settings, "deny/10.0.0.1/32")->stamp.version = 1;
	assert_int_equal(settings_forget_old(nodes[0].settings, nodes[0].sync->contact_us, 100), 1);
	assert_null(settings_find(nodes[0].settings, "deny/10.0.0.1/32"));
	nodes[1].sync->contact_us -= SETTINGS_KEEP_US + 1000000;
	set(&nodes[1], "deny/10.0.0.2/32", "by hand");
	settle_all(nodes, 2);
	assert_null(value_of(&nodes[1], "deny/10.0.0.1/32"));
	assert_null(nodes[1].does[index_of("deny/10.0.0.1/32")]);
	assert_string_equal(value_of(&nodes[0], "deny/10.0.0.2/32"), "by hand");
	assert_string_equal(value_of(&nodes[1], "limit/source"), "50");
	end_all(nodes, 2);
}

static void a_fleet_that_was_off_for_long_loses_nothing_with_redis(void **state)
{
	struct node nodes[2] = {0};

	(void)state;
	start_all(nodes, 2);
	set(&nodes[0], "deny/10.0.0.1/32", "{}");
	settle_all(nodes, 2);
	forget(call("FLUSHALL"));
	for (unsigned i = 0; i < 2; i++) {
		struct setting *setting = settings_find(nodes[i].settings, "deny/10.0.0.1/32");

		nodes[i].sync->contact_us -= 2 * SETTINGS_KEEP_US;
		setting->stamp.version -= 2 * SETTINGS_KEEP_US + 1000000;
	}
	settle_all(nodes, 2);
	assert_string_equal(value_of(&nodes[0], "deny/10.0.0.1/32"), "{}");
	assert_all_equal(nodes, 2);
	end_all(nodes, 2);
}

static void many_come_in_pages(void **state)
{
	struct settings *settings[2] = {settings_new(1), settings_new(2)};
	struct node nodes[2] = {0};
	unsigned questions = 0;
	char name[64];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		nodes[i] = (struct node){.settings = settings[i], .sync = calloc(1, sizeof(*nodes[i].sync))};
		settings_sync_init(nodes[i].sync, settings[i], "life");
	}
	for (unsigned i = 0; i < 10 * SETTINGS_PUTS; i++) {
		snprintf(name, sizeof(name), "deny/10.0.%u.%u/32", i / 250, i % 250);
		assert_int_equal(settings_set(settings[0], name, "{\"label\":\"feed\"}", 0, false), 1);
	}
	while (settings_sync_is_due(nodes[0].sync) && questions++ < 100)
		exchange(&nodes[0]);
	assert_true(questions >= 10 && questions <= 12);
	questions = 0;
	while (settings_sync_is_due(nodes[1].sync) && questions++ < 100)
		exchange(&nodes[1]);
	assert_true(questions >= 10 && questions <= 12);
	assert_int_equal(settings[1]->live, 10 * SETTINGS_PUTS);
	assert_int_equal(nodes[1].sync->pulled, 10 * SETTINGS_PUTS);
	/* The same when it was in step before. */
	for (unsigned i = 0; i < 3 * SETTINGS_PUTS; i++) {
		snprintf(name, sizeof(name), "allow/10.0.%u.%u/32", i / 250, i % 250);
		assert_int_equal(settings_set(settings[0], name, "{}", 0, false), 1);
	}
	for (questions = 0; settings_sync_is_due(nodes[0].sync) && questions < 100; questions++)
		exchange(&nodes[0]);
	exchange(&nodes[1]);
	for (questions = 0; settings_sync_is_due(nodes[1].sync) && questions < 100; questions++)
		exchange(&nodes[1]);
	assert_int_equal(settings[1]->live, 13 * SETTINGS_PUTS);
	for (unsigned i = 0; i < 2; i++)
		stop_node(&nodes[i]);
}

static void the_order_of_changes_is_that_of_their_stamps(void **state)
{
	struct settings *settings = settings_new(1);
	struct setting_view later = {.name = "limit/source", .value = "later", .stamp = {.version = 2, .node = 1}};
	struct setting_view older = {.name = "limit/source", .value = "older", .stamp = {.version = 1, .node = 3}};
	struct setting_view ended = {
		.name = "limit/source", .value = "final", .stamp = {.version = 1, .node = 1, .is_final = true}};
	struct setting *setting;
	uint64_t op;

	(void)state;
	assert_int_equal(settings_merge(settings, &later), 1);
	assert_int_equal(settings_merge(settings, &older), 0);
	setting = settings_find(settings, "limit/source");
	assert_string_equal(setting->value, "later");
	/* What was changed here and not told yet goes before all but what is final. */
	assert_int_equal(settings_set(settings, "limit/source", "here", 0, false), 1);
	op = setting->op;
	later.stamp.version = 9;
	assert_int_equal(settings_merge(settings, &later), 0);
	assert_string_equal(setting->value, "here");
	/* A change that was made after the question went out is not answered by its answer. */
	assert_int_equal(settings_set(settings, "limit/source", "again", 0, false), 1);
	settings_acknowledge(settings, setting, op, 10);
	assert_int_equal(settings->dirty_count, 1);
	assert_false(settings_has_sent(settings, setting->op));
	settings_acknowledge(settings, setting, setting->op, 11);
	assert_true(settings_has_sent(settings, setting->op));
	assert_int_equal(settings_merge(settings, &ended), 1);
	assert_int_equal(settings_merge(settings, &later), 0);
	assert_string_equal(setting->value, "final");
	settings_free(settings);
}

/* --- numbers of sales ----------------------------------------------------------------------------------------------------------- */
static redisReply *ask_sale(struct node *node, const char *slug, const char *highest, const char *busy)
{
	char number[16];

	snprintf(number, sizeof(number), "%u", node->id);
	return call("EVALSHA %s 4 %s %s %s %s sale %s %s news %s %s %s", server.sha, key_names[0], key_names[1],
		key_names[2], key_names[3], node->sync->gen, number, slug, highest, busy);
}

/* `word`: "ok", or "again" of one that was asked for before. */
static uint32_t new_sale(struct node *node, const char *slug, const char *highest, const char *busy, const char *word)
{
	redisReply *reply = ask_sale(node, slug, highest, busy);
	uint32_t id;

	assert_string_equal(reply->element[0]->str, word);
	id = (uint32_t)strtoul(reply->element[3]->str, NULL, 10);
	forget(reply);
	return id;
}

static void a_sale_gets_one_number_that_no_node_knows(void **state)
{
	struct node nodes[2] = {0};
	char busy[257];
	uint32_t first, second, third;
	redisReply *reply;

	(void)state;
	memset(busy, '0', sizeof(busy) - 1);
	busy[256] = '\0';
	start_all(nodes, 2);
	settle_all(nodes, 2);
	first = new_sale(&nodes[0], "first", "12", busy, "ok");
	assert_true(first > 16777216);
	assert_int_equal(new_sale(&nodes[1], "first", "0", busy, "again"), first);
	second = new_sale(&nodes[1], "second", "0", busy, "ok");
	assert_int_equal(second, first + 1);
	/* Node 1 knows a higher one; and node 2 has a sale in the slot behind it. */
	busy[((first + 1001) % 1024) / 4] = (char)('0' + (1 << (first + 1001) % 4));
	assert_int_equal(new_sale(&nodes[1], "second", "0", busy, "again"), second);
	{
		char highest[16];

		snprintf(highest, sizeof(highest), "%u", first + 1000);
		memset(busy, '0', sizeof(busy) - 1);
		third = new_sale(&nodes[0], "third", highest, busy, "ok");
	}
	assert_int_equal(third, first + 1002);
	set(&nodes[0], "sale/first", "open");
	settle_all(nodes, 2);
	reply = ask_sale(&nodes[1], "first", "0", busy);
	assert_string_equal(reply->element[0]->str, "exists");
	forget(reply);
	forget(call("FLUSHALL"));
	reply = ask_sale(&nodes[1], "fourth", "0", busy);
	assert_string_equal(reply->element[0]->str, "regen");
	forget(reply);
	end_all(nodes, 2);
}

/* --- texts ---------------------------------------------------------------------------------------------------------------------- */
static void a_setting_is_read_back_as_it_was_written(void **state)
{
	static const char *const bad[] = {"", "1", "1 2 0 0", "1 2 0 0 ", "1 2 2 0 v", "-1 2 0 0 v",
		"1 99999999999 0 0 v", "1 2 0 0 y", "1 2 0 0 xy", "99999999999999999999999 2 0 0 v", "1 2 0 0 v1\nx",
		"1 2 0 0 v\r"};
	char text[64] = "1795766400000000 2 1 33 v{\"a b\":1}", again[64];
	struct setting_view view = {.name = "cors"};
	struct settings *settings = settings_new(1);

	(void)state;
	assert_int_equal(setting_parse(text, &view), 0);
	assert_string_equal(view.value, "{\"a b\":1}");
	assert_int_equal(settings_load(settings, &view, true), 0);
	setting_format(settings_find(settings, "cors"), again, sizeof(again));
	assert_string_equal(again, "1795766400000000 2 1 33 v{\"a b\":1}");
	assert_int_equal(settings->dirty_count, 1);
	settings_free(settings);
	for (size_t i = 0; i < COUNT(bad); i++) {
		snprintf(text, sizeof(text), "%s", bad[i]);
		assert_int_equal(setting_parse(text, &view), -EINVAL);
	}
	assert_true(setting_name_is_valid("deny/::1/128"));
	assert_false(setting_name_is_valid(""));
	assert_false(setting_name_is_valid("a b"));
	assert_false(setting_name_is_valid("a\nb"));
	assert_false(setting_name_is_valid("@")); /* a line of the file that is no setting begins so */
}

/* What Redis calls its generation is a word of a line in the file. */
static void a_generation_that_is_no_word_is_not_taken(void **state)
{
	static const struct {
		const char *gen;
		int result;
	} cases[] = {{"0a1b-17", 0}, {"", -EPROTO}, {"a b", -EPROTO}, {"a\nb", -EPROTO}, {"\xc3\xa4", -EPROTO}};
	struct settings *settings = settings_new(1);
	struct settings_sync *sync = calloc(1, sizeof(*sync));

	(void)state;
	assert_non_null(sync);
	settings_sync_init(sync, settings, "life");
	for (size_t i = 0; i < COUNT(cases); i++) {
		redisReply word = {.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t) "regen", .len = 5};
		redisReply gen = {.type = REDIS_REPLY_STRING,
			.str = (char *)(uintptr_t)cases[i].gen,
			.len = strlen(cases[i].gen)};
		redisReply now = {.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t) "1795766400000000", .len = 16};
		redisReply *parts[] = {&word, &gen, &now};
		redisReply answer = {.type = REDIS_REPLY_ARRAY, .elements = 3, .element = parts};

		assert_int_equal(settings_sync_take(sync, &answer), cases[i].result);
		assert_string_equal(sync->gen, "0a1b-17");
	}
	free(sync);
	settings_free(settings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_one_sets_reaches_the_others, flush),
		cmocka_unit_test_setup(a_change_that_arrived_unheard_is_not_made_again_over_a_later_one, flush),
		cmocka_unit_test_setup(a_change_by_hand_while_redis_was_away_is_not_overwritten_by_an_older_one, flush),
		cmocka_unit_test_setup(
			after_a_loss_the_nodes_tell_redis_again_and_what_was_removed_stays_removed, flush),
		cmocka_unit_test_setup(what_was_ended_stays_ended_whoever_comes_later, flush),
		cmocka_unit_test_setup(of_what_nodes_bring_along_the_fleets_counts_and_the_rest_is_added, flush),
		cmocka_unit_test_setup(who_was_away_for_too_long_brings_nothing_back_that_was_removed, flush),
		cmocka_unit_test_setup(a_fleet_that_was_off_for_long_loses_nothing_with_redis, flush),
		cmocka_unit_test_setup(many_come_in_pages, flush),
		cmocka_unit_test_setup(a_sale_gets_one_number_that_no_node_knows, flush),
		cmocka_unit_test(the_order_of_changes_is_that_of_their_stamps),
		cmocka_unit_test(a_setting_is_read_back_as_it_was_written),
		cmocka_unit_test(a_generation_that_is_no_word_is_not_taken),
		cmocka_unit_test_setup_teardown(
			whatever_is_lost_doubled_or_late_all_nodes_end_the_same, flush, tell_seed),
	};

	return cmocka_run_group_tests(tests, start_redis, stop_redis);
}
