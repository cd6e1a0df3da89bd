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
#include "fleet/redis_impl.h"
#include "fleet/redis_script.h"
#include "fleet/redis_slots.h"
#include "redis_server.h"

#define MS 1000000ULL
#define REST_NS (50 * MS) /* after the first failure, before the next attempt, at the least */
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

static void what_the_kernel_did_not_take_is_surely_not_done(void **state)
{
	struct redis_link *link = link_to(server.address, 200);
	size_t size = 32u << 20;
	char *value = calloc(1, size);
	const char *argv[] = {"SET", "big", value};
	const size_t lengths[] = {3, 3, size};
	struct redis_call calls[3];

	(void)state;
	assert_non_null(value);
	ask_until_done(link, "k", "PING", &calls[0]);
	kill(server.pid, SIGSTOP);
	calls[0] = command("k", "INCR number");
	calls[1] = (struct redis_call){.key = "big", .argc = 3, .argv = argv, .lengths = lengths};
	calls[2] = command("k", "INCR number");
	redis_link_round(link, calls, 3);
	kill(server.pid, SIGCONT);
	assert_int_equal(calls[0].error, -ETIMEDOUT);
	assert_int_equal(calls[1].error, -ETIMEDOUT); /* begun */
	assert_int_equal(calls[2].error, -ENOTCONN);
	ask_until_done(link, "k", "GET number", &calls[0]);
	assert_string_equal(calls[0].reply->str, "1");
	ask_until_done(link, "k", "EXISTS big", &calls[0]);
	assert_int_equal(calls[0].reply->integer, 0);
	free(value);
	redis_link_free(link);
}

static void a_round_ends_when_it_is_told_to(void **state)
{
	struct redis_link *link = link_to(server.address, 60000);
	struct redis_call call;
	uint64_t began;

	(void)state;
	ask_until_done(link, "k", "PING", &call);
	kill(server.pid, SIGSTOP);
	began = time_mono_ns();
	redis_link_finish_by(link, began + 100 * MS);
	call = command("k", "INCR number");
	assert_int_equal(ask(link, &call), -ETIMEDOUT);
	assert_true(time_mono_ns() - began < 30000 * MS);
	kill(server.pid, SIGCONT);
	redis_link_free(link);
}

static void a_server_is_found_by_its_name_and_by_ipv6(void **state)
{
	struct redis_server both = {.options = {"--bind", "127.0.0.1", "::1"}};
	char name[64];
	struct redis_link *link;
	struct redis_call call;

	(void)state;
	redis_server_start(&both);
	snprintf(name, sizeof(name), "localhost:%u", both.port);
	link = link_to(name, 2000);
	call = command("k", "PING");
	assert_int_equal(ask(link, &call), 0);
	redis_link_free(link);
	snprintf(name, sizeof(name), "[::1]:%u", both.port);
	link = link_to(name, 2000);
	call = command("k", "PING");
	assert_int_equal(ask(link, &call), 0);
	redis_server_stop(&both, SIGKILL);
	call = command("k", "PING");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	assert_non_null(strstr(figures_of(link).failure, name)); /* with its brackets */
	redis_link_free(link);
	link = link_to("no-such-host.invalid:6379", 2000);
	call = command("k", "PING");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	assert_non_null(strstr(figures_of(link).failure, "no-such-host.invalid"));
	redis_link_free(link);
}

static void two_servers_that_are_no_cluster_are_not_used_together(void **state)
{
	struct redis_server other = {0};
	struct redis_link *link;
	struct redis_call call;
	char servers[80];

	(void)state;
	redis_server_start(&other);
	snprintf(servers, sizeof(servers), "%s,%s", server.address, other.address);
	link = link_to(servers, 500);
	call = command("k", "INCR number");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	assert_non_null(strstr(figures_of(link).failure, "no node of a Redis Cluster"));
	redis_link_free(link);
	redis_server_stop(&other, SIGKILL);
}

static void a_server_that_loads_its_data_is_waited_for(void **state)
{
	struct redis_server slow = {
		.options = {"--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"}};
	struct redis_link *link;
	struct redis_call call;
	unsigned loading = 0;

	(void)state;
	redis_server_start(&slow);
	redis_server_do(&slow, "DEBUG POPULATE 400");
	redis_server_do(&slow, "SAVE");
	link = link_to(slow.address, 2000);
	ask_until_done(link, "k", "GET key:0", &call);
	redis_server_stop(&slow, SIGKILL);
	redis_server_start(&slow);
	do {
		call = command("k", "GET key:0");
		if (ask(link, &call) == -EREMOTEIO) {
			assert_non_null(strstr(call.reply->str, "LOADING"));
			assert_false(figures_of(link).connected);
			assert_non_null(strstr(figures_of(link).failure, "LOADING"));
			loading++;
		}
		usleep(2000);
	} while (call.error);
	assert_true(loading > 0);
	assert_string_equal(call.reply->str, "value:0");
	redis_link_free(link);
	redis_server_stop(&slow, SIGKILL);
}

/* --- users -------------------------------------------------------------------------------------------------------------------------- */
static const char *write_password(const char *text, mode_t mode)
{
	static char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "%s/password", server.directory);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(chmod(path, mode), 0);
	return path;
}

static void a_user_logs_in_with_the_password_of_the_file_as_it_is_then(void **state)
{
	struct redis_options options = {
		.servers = server.address, .user = "node", .timeout_ms = 1000, .name = "sluiced-7"};
	struct redis_link *link;
	struct redis_call call;

	(void)state;
	redis_server_do(&server, "ACL SETUSER node on >secret ~a* +get +cluster|slots");
	options.password_file = write_password("wrong\n", 0600);
	link = redis_link_new(&options);
	call = command("a", "GET a");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	assert_non_null(strstr(figures_of(link).failure, "the log-in is refused: WRONGPASS"));
	assert_null(strstr(figures_of(link).failure, "wrong\n"));
	write_password("secret\nanything else\n", 0600);
	ask_until_done(link, "a", "GET a", &call);
	/* What the user may not do is an error of that call. */
	call = command("a", "SET a 1");
	assert_int_equal(ask(link, &call), -EREMOTEIO);
	assert_non_null(strstr(call.reply->str, "NOPERM"));
	assert_true(figures_of(link).connected);
	redis_link_free(link);
	write_password("secret\n", 0644);
	link = redis_link_new(&options);
	call = command("a", "GET a");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	assert_non_null(strstr(figures_of(link).failure, "nobody else may read"));
	redis_link_free(link);
	unlink(options.password_file);
	link = redis_link_new(&options);
	call = command("a", "GET a");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	assert_non_null(strstr(figures_of(link).failure, "No such file"));
	redis_link_free(link);
	redis_server_do(&server, "ACL DELUSER node");
}

/* --- a server that is no friend ------------------------------------------------------------------------------------------------------- */
struct fake {
	const char *answer;  /* to what is neither greeting nor question for slots */
	const char *failure; /* what is said of it */
	unsigned repeats;
	bool hangs_up;
	int fd;
	char address[32];
	pthread_t thread;
};

static void fake_talk(const struct fake *fake, int fd)
{
	char text[4096];
	ssize_t length;

	while ((length = read(fd, text, sizeof(text) - 1)) > 0) {
		const char *answer = fake->answer;
		unsigned repeats = fake->repeats;

		text[length] = '\0';
		if (strstr(text, "SETNAME")) {
			answer = "+OK\r\n";
			repeats = 1;
		} else if (strstr(text, "SLOTS")) {
			answer = "-ERR This instance has cluster support disabled\r\n";
			repeats = 1;
		}
		for (unsigned i = 0; i < repeats; i++)
			if (write(fd, answer, strlen(answer)) < 0)
				break;
		if (fake->hangs_up && answer == fake->answer)
			break;
	}
	close(fd);
}

static void *fake_run(void *arg)
{
	struct fake *fake = arg;
	int fd;

	while ((fd = accept(fake->fd, NULL, NULL)) >= 0)
		fake_talk(fake, fd);
	return NULL;
}

static void fake_start(struct fake *fake)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);

	fake->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fake->fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fake->fd, 8), 0);
	assert_int_equal(getsockname(fake->fd, (struct sockaddr *)&address, &length), 0);
	snprintf(fake->address, sizeof(fake->address), "127.0.0.1:%u", ntohs(address.sin_port));
	assert_int_equal(pthread_create(&fake->thread, NULL, fake_run, fake), 0);
}

static void fake_stop(struct fake *fake)
{
	shutdown(fake->fd, SHUT_RDWR);
	pthread_join(fake->thread, NULL);
	close(fake->fd);
}

static void a_hostile_server_costs_a_bounded_wait_and_bounded_memory(void **state)
{
	static char many[65536], deep[64 * 4 + 1];
	struct fake fakes[] = {
		{.answer = "hello, world\r\n", .failure = "not the protocol", .repeats = 1},
		{.answer = "$100\r\nhalf of it", .failure = "not answered in time", .repeats = 1},
		{.answer = "$100\r\nhalf of it", .failure = "has closed", .repeats = 1, .hangs_up = true},
		{.answer = "", .failure = "has closed", .repeats = 1, .hangs_up = true},
		{.answer = "*2147483647\r\n", .failure = "too large", .repeats = 1},
		{.answer = "*4294967297\r\n", .failure = "too large", .repeats = 1},
		{.answer = "*-7\r\n", .failure = "not the protocol", .repeats = 1},
		{.answer = "$-7\r\n", .failure = "not the protocol", .repeats = 1},
		{.answer = "$99999999999999999999\r\n", .failure = "not the protocol", .repeats = 1},
		{.answer = ":99999999999999999999\r\n", .failure = "not the protocol", .repeats = 1},
		{.answer = deep, .failure = "not the protocol", .repeats = 1},
		{.answer = "+no end of line ", .failure = "not answered in time", .repeats = 1},
		{.answer = "\r\n", .failure = "not the protocol", .repeats = 1},
		{.answer = many, .failure = "64 MiB", .repeats = 2000}, /* begins a bulk of 2 GB, and goes on */
	};

	(void)state;
	memset(many, 'x', sizeof(many) - 1);
	memcpy(many, "$2000000000\r\n", strlen("$2000000000\r\n"));
	for (unsigned i = 0; i < 64; i++)
		memcpy(deep + 4 * i, "*1\r\n", 4);
	for (unsigned i = 0; i < sizeof(fakes) / sizeof(fakes[0]); i++) {
		bool is_endless = fakes[i].answer == many;
		struct redis_link *link;
		struct redis_call calls[2];
		uint64_t began;
		bool has_rested;

		fake_start(&fakes[i]);
		link = link_to(fakes[i].address, is_endless ? 10000 : 400);
		calls[0] = command("k", "INCR number");
		calls[1] = command("k", "INCR number");
		began = time_mono_ns();
		redis_link_round(link, calls, 2);
		if (calls[0].error != -ETIMEDOUT || calls[1].error != -ETIMEDOUT)
			fail_msg("server %u: %d %d: %s", i, calls[0].error, calls[1].error, figures_of(link).failure);
		assert_null(calls[0].reply);
		assert_non_null(strstr(figures_of(link).failure, fakes[i].failure));
		calls[0] = command("k", "INCR number");
		has_rested = time_mono_ns() - began >=
			REST_NS; /* where the machine had other things to do, or the server was waited for */
		assert_true(ask(link, &calls[0]) == -ENOTCONN || has_rested);
		redis_link_free(link);
		fake_stop(&fakes[i]);
	}
}

static void an_answer_too_many_is_never_taken_for_the_next_call(void **state)
{
	struct fake fake = {.answer = "+first\r\n+second\r\n", .repeats = 1};
	struct redis_call call;
	struct redis_link *link;
	unsigned answered = 0;

	(void)state;
	fake_start(&fake);
	link = link_to(fake.address, 500);
	for (int i = 0; i < 5; i++) {
		call = command("k", "GET k");
		if (!ask(link, &call)) {
			assert_string_equal(call.reply->str, "first");
			answered++;
		}
		usleep(20000);
	}
	assert_true(answered > 1);
	redis_link_free(link);
	fake_stop(&fake);
}

/* --- news ------------------------------------------------------------------------------------------------------------------------------ */
static bool wait_news(struct redis_link *link, unsigned ms)
{
	return redis_link_wait(link, -1, time_mono_ns() + ms * MS);
}

static void await_news(struct redis_link *link)
{
	uint64_t end = time_mono_ns() + PATIENCE_NS;

	while (!wait_news(link, 100))
		assert_true(time_mono_ns() < end);
}

static void a_message_is_heard_and_so_is_a_subscription_made_anew(void **state)
{
	struct redis_link *link = link_to(server.address, 300);
	int ends[2];

	(void)state;
	assert_int_equal(redis_link_subscribe(link, "fleet:news", NULL, NULL), 0);
	await_news(link); /* it begins: who knows what was missed */
	assert_false(wait_news(link, 50));
	redis_server_do(&server, "PUBLISH other x");
	assert_false(wait_news(link, 50));
	redis_server_do(&server, "PUBLISH fleet:news x");
	await_news(link);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_false(redis_link_wait(link, ends[0], time_mono_ns() + 60000 * MS));
	close(ends[0]);
	close(ends[1]);
	redis_server_stop(&server, SIGKILL);
	assert_false(wait_news(link, 100));
	redis_server_start(&server);
	await_news(link);
	/* A server that says nothing any more is asked, and left. */
	kill(server.pid, SIGSTOP);
	assert_false(wait_news(link, 6000)); /* PING_AFTER_NS and the time-out */
	kill(server.pid, SIGCONT);
	await_news(link);
	redis_server_do(&server, "PUBLISH fleet:news x");
	await_news(link);
	redis_link_free(link);
}

static void a_message_without_end_costs_bounded_memory(void **state)
{
	static char many[65536];
	struct fake fake = {.answer = many, .repeats = 2000};
	struct redis_link *link;
	uint64_t end = time_mono_ns() + PATIENCE_NS;

	(void)state;
	memset(many, 'x', sizeof(many) - 1);
	memcpy(many, "$2000000000\r\n", strlen("$2000000000\r\n"));
	fake_start(&fake);
	link = link_to(fake.address, 10000);
	assert_int_equal(redis_link_subscribe(link, "fleet:news", NULL, NULL), 0);
	while (!strstr(figures_of(link).deaf, "64 MiB")) {
		assert_false(wait_news(link, 10));
		assert_true(time_mono_ns() < end);
	}
	redis_link_free(link);
	fake_stop(&fake);
}

/* --- a cluster ------------------------------------------------------------------------------------------------------------------------- */
static struct redis_cluster cluster;

static int start_cluster(void **state)
{
	(void)state;
	if (!cluster.count)
		redis_cluster_start(&cluster, 3, true);
	for (unsigned i = 0; i < cluster.masters; i++)
		redis_server_do(&cluster.nodes[i], "FLUSHALL");
	return 0;
}

/* Slots of one round on each of three masters: {a} 15495, {b} 3300, {c} 7365. */
static const char *const tagged[] = {"{a}:n", "{b}:n", "{c}:n"};
#define OWNER_OF_B 0
#define OWNER_OF_C 1
#define OWNER_OF_A 2

static void ask_counts(struct redis_link *link, struct redis_call calls[3])
{
	for (int i = 0; i < 3; i++)
		calls[i] = count_call(tagged[i]);
	redis_link_round(link, calls, 3);
}

static void slots_are_those_of_the_specification(void **state)
{
	static const struct {
		const char *key;
		unsigned slot;
	} known[] = {{"123456789", 0x31c3}, {"{user1000}.following", 3443}, {"foo{}{bar}", 8363},
		{"foo{{bar}}zap", 4015}, {"foo{bar}{zap}", 5061}, {"", 0}, {"{a}:n", 15495}, {"a", 15495}};

	(void)state;
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		assert_int_equal(redis_slot_of(known[i].key, strlen(known[i].key)), known[i].slot);
}

static void addresses_are_read_and_others_refused(void **state)
{
	static const char *const wrong[] = {"", ":1", "a", "a:", "a:0", "a:65536", "a:1x", "[]:1", "[::1:1"};
	struct redis_address address;
	unsigned slot;

	(void)state;
	assert_int_equal(redis_address_read("[2001:db8::1]:6379", 18, &address), 0);
	assert_string_equal(address.host, "2001:db8::1");
	assert_int_equal(address.port, 6379);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(redis_address_read(wrong[i], strlen(wrong[i]), &address), -EINVAL);
	assert_int_equal(redis_redirect_read("MOVED 3999 ::1:6381", &slot, &address), 0);
	assert_string_equal(address.host, "::1");
	assert_int_equal(slot, 3999);
	assert_int_equal(redis_redirect_read("ASK 1 :6381", &slot, &address), 0);
	assert_string_equal(address.host, "");
	assert_int_equal(redis_redirect_read("MOVED 16384 a:1", &slot, &address), -EPROTO);
	assert_int_equal(redis_redirect_read("MOVED a:1", &slot, &address), -EPROTO);
}

static void each_call_goes_to_the_master_of_its_key(void **state)
{
	struct redis_link *link = link_to(cluster.nodes[1].address, 2000);
	struct redis_call calls[3];

	(void)state;
	ask_counts(link, calls);
	for (int i = 0; i < 3; i++)
		assert_int_equal(calls[i].error, 0);
	assert_int_equal(figures_of(link).redirects, 0);
	assert_string_equal(redis_server_do(&cluster.nodes[OWNER_OF_A], "GET {a}:n"), "1");
	assert_string_equal(redis_server_do(&cluster.nodes[OWNER_OF_B], "GET {b}:n"), "1");
	assert_string_equal(redis_server_do(&cluster.nodes[OWNER_OF_C], "GET {c}:n"), "1");
	redis_link_free(link);
}

static void move_slot(unsigned slot, unsigned to)
{
	char id[48];

	redis_cluster_id(&cluster.nodes[to], id);
	redis_server_do(&cluster.nodes[to], "CLUSTER SETSLOT %u NODE %s", slot, id);
	redis_server_do(
		&cluster.nodes[to == OWNER_OF_A ? OWNER_OF_B : OWNER_OF_A], "CLUSTER SETSLOT %u NODE %s", slot, id);
}

static void a_slot_that_has_moved_is_followed_in_the_same_round(void **state)
{
	struct redis_link *link = link_to(cluster.addresses, 2000);
	struct redis_call calls[3];

	(void)state;
	ask_counts(link, calls);
	redis_server_do(&cluster.nodes[OWNER_OF_A], "FLUSHALL"); /* an empty slot moves at once */
	move_slot(15495, OWNER_OF_B);
	ask_counts(link, calls);
	for (int i = 0; i < 3; i++)
		assert_int_equal(calls[i].error, 0);
	assert_int_equal(calls[0].reply->integer, 1);
	assert_int_equal(figures_of(link).redirects, 1);
	ask_counts(link, calls);
	assert_int_equal(calls[0].reply->integer, 2);
	assert_int_equal(figures_of(link).redirects, 1); /* it is known now */
	/* And back. */
	redis_server_do(&cluster.nodes[OWNER_OF_B], "FLUSHALL");
	move_slot(15495, OWNER_OF_A);
	ask_counts(link, calls);
	assert_int_equal(calls[0].error, 0);
	redis_link_free(link);
}

static void one_redirection_makes_all_slots_be_asked_for_anew(void **state)
{
	struct redis_link *link = link_to(cluster.addresses, 2000);
	const unsigned other = redis_slot_of("{d}", 3); /* 11298: of the same master as {a} */
	struct redis_call calls[3], call;

	(void)state;
	ask_counts(link, calls);
	redis_server_do(&cluster.nodes[OWNER_OF_A], "FLUSHALL");
	move_slot(15495, OWNER_OF_B);
	move_slot(other, OWNER_OF_B);
	ask_counts(link, calls);
	ask_counts(link, calls); /* the slots may have come after the first round */
	assert_int_equal(figures_of(link).redirects, 1);
	call = count_call("{d}:n");
	assert_int_equal(ask(link, &call), 0);
	assert_int_equal(figures_of(link).redirects, 1);
	redis_server_do(&cluster.nodes[OWNER_OF_B], "FLUSHALL");
	move_slot(15495, OWNER_OF_A);
	move_slot(other, OWNER_OF_A);
	ask_counts(link, calls);
	assert_int_equal(calls[0].error, 0);
	redis_link_free(link);
}

static void a_slot_that_is_being_moved_is_asked_for_where_its_key_is(void **state)
{
	struct redis_link *link = link_to(cluster.addresses, 2000);
	struct redis_call calls[2];
	char from[48], to[48];

	(void)state;
	redis_cluster_id(&cluster.nodes[OWNER_OF_A], from);
	redis_cluster_id(&cluster.nodes[OWNER_OF_B], to);
	redis_server_do(&cluster.nodes[OWNER_OF_B], "CLUSTER SETSLOT 15495 IMPORTING %s", from);
	redis_server_do(&cluster.nodes[OWNER_OF_A], "CLUSTER SETSLOT 15495 MIGRATING %s", to);
	redis_server_do(&cluster.nodes[OWNER_OF_B], "SCRIPT FLUSH"); /* so that ASKING has to be said twice */
	for (int i = 0; i < 2; i++)
		calls[i] = count_call("{a}:gone");
	redis_link_round(link, calls, 2);
	for (int i = 0; i < 2; i++)
		assert_int_equal(calls[i].error, 0);
	assert_true(figures_of(link).redirects >= 2);
	redis_server_do(&cluster.nodes[OWNER_OF_B], "CLUSTER SETSLOT 15495 STABLE");
	redis_server_do(&cluster.nodes[OWNER_OF_A], "CLUSTER SETSLOT 15495 STABLE");
	redis_server_do(&cluster.nodes[OWNER_OF_B], "FLUSHALL");
	redis_link_free(link);
}

static void a_message_of_one_server_is_heard_at_another(void **state)
{
	struct redis_link *link = link_to(cluster.nodes[0].address, 1000);

	(void)state;
	redis_link_subscribe(link, "fleet:news", NULL, NULL);
	await_news(link);
	redis_server_do(&cluster.nodes[2], "PUBLISH fleet:news x");
	await_news(link);
	redis_link_free(link);
}

static void a_master_that_hangs_does_not_hold_up_the_calls_to_others(void **state)
{
	struct redis_link *link = link_to(cluster.addresses, 400);
	struct redis_call calls[3];

	(void)state;
	ask_counts(link, calls);
	kill(cluster.nodes[OWNER_OF_B].pid, SIGSTOP);
	ask_counts(link, calls);
	assert_int_equal(calls[0].error, 0);
	assert_int_equal(calls[1].error, -ETIMEDOUT);
	assert_int_equal(calls[2].error, 0);
	kill(cluster.nodes[OWNER_OF_B].pid, SIGCONT);
	for (int tries = 0; tries < 1000 && calls[1].error; tries++) {
		ask_counts(link, calls);
		assert_int_equal(calls[0].error, 0);
		assert_int_equal(calls[2].error, 0);
		usleep(2000);
	}
	assert_int_equal(calls[1].error, 0);
	redis_link_free(link);
}

static void a_master_that_dies_is_replaced_by_its_replica(void **state)
{
	struct redis_link *link = link_to(cluster.addresses, 500);
	struct redis_call calls[3];
	unsigned others = 0, tries = 0;
	bool is_over;

	(void)state;
	ask_counts(link, calls);
	assert_int_equal(calls[1].error, 0);
	assert_string_equal(redis_server_do(&cluster.nodes[OWNER_OF_B], "WAIT 1 1000"), "1");
	redis_server_stop(&cluster.nodes[OWNER_OF_B], SIGKILL);
	do {
		ask_counts(link, calls);
		others += calls[0].error || calls[2].error;
		usleep(5000);
		is_over = !calls[0].error && !calls[1].error && !calls[2].error;
	} while (!is_over && ++tries < 2000);
	assert_true(is_over);
	/* The others go on until the cluster itself says that it is down. */
	assert_true(others < tries);
	assert_true(calls[1].reply->integer >= 2);
	assert_true(figures_of(link).connected);
	redis_server_start(&cluster.nodes[OWNER_OF_B]);
	redis_link_free(link);
}

/* --- a server that leaves its cluster and goes on running ------------------------------------------------------------------------------ */
static struct redis_cluster shrunk;
#define LEFT 0
#define STAYS 1 /* has {a} from the beginning */

/* What redis-cli --cluster del-node does, of a server that has no keys. */
static void leave_cluster(void)
{
	char id[48];

	redis_cluster_id(&shrunk.nodes[LEFT], id);
	redis_server_do(&shrunk.nodes[STAYS], "CLUSTER FORGET %s", id);
	redis_server_do(&shrunk.nodes[LEFT], "CLUSTER RESET SOFT");
	redis_server_do(&shrunk.nodes[STAYS], "CLUSTER ADDSLOTSRANGE 0 %d", 16384 / 2 - 1);
	redis_cluster_await(&shrunk.nodes[STAYS], "CLUSTER INFO", "cluster_state:ok");
}

static void note_heard(void *arg, const char *message)
{
	unsigned *heard = arg;

	*heard += message && !strcmp(message, "units");
}

/* Nobody is redirected: what was asked of the cluster was never at the one that leaves. */
static void a_subscription_leaves_a_server_that_has_left_its_cluster(void **state)
{
	struct redis_link *link;
	struct redis_call call = count_call("{a}:n");
	unsigned heard = 0;
	uint64_t end;

	(void)state;
	redis_cluster_start(&shrunk, 2, false);
	link = link_to(shrunk.addresses, 1000);
	assert_int_equal(redis_link_subscribe(link, "fleet:news", note_heard, &heard), 0);
	assert_int_equal(ask(link, &call), 0);
	await_news(link);
	assert_int_equal(link->news.port, shrunk.nodes[LEFT].port);
	leave_cluster();
	/* It answers PING for ever. The first one is asked for now, not in five seconds. */
	link->news_heard_ns -= 60000 * MS;
	end = time_mono_ns() + PATIENCE_NS;
	while (link->news.port != shrunk.nodes[STAYS].port || !figures_of(link).subscribed) {
		call = count_call("{a}:n");
		assert_int_equal(ask(link, &call), 0);
		wait_news(link, 10);
		assert_true(time_mono_ns() < end);
	}
	redis_server_do(&shrunk.nodes[STAYS], "PUBLISH fleet:news units");
	await_news(link);
	assert_int_equal(heard, 1);
	redis_link_free(link);
}

static void a_server_that_has_left_its_cluster_does_not_say_where_keys_are(void **state)
{
	struct redis_link *link = link_to(shrunk.addresses, 1000); /* the one that left is named first */
	struct redis_call call = count_call("{a}:n");

	(void)state;
	assert_int_equal(ask(link, &call), 0);
	redis_link_free(link);
	link = link_to(shrunk.nodes[LEFT].address, 300);
	call = count_call("{a}:n");
	assert_int_equal(ask(link, &call), -ENOTCONN);
	assert_non_null(strstr(figures_of(link).failure, "in no Redis Cluster"));
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
		cmocka_unit_test_setup(what_the_kernel_did_not_take_is_surely_not_done, start_server),
		cmocka_unit_test_setup(a_round_ends_when_it_is_told_to, start_server),
		cmocka_unit_test_setup(a_server_is_found_by_its_name_and_by_ipv6, start_server),
		cmocka_unit_test_setup(two_servers_that_are_no_cluster_are_not_used_together, start_server),
		cmocka_unit_test_setup(a_server_that_loads_its_data_is_waited_for, start_server),
		cmocka_unit_test_setup(a_user_logs_in_with_the_password_of_the_file_as_it_is_then, start_server),
		cmocka_unit_test(a_hostile_server_costs_a_bounded_wait_and_bounded_memory),
		cmocka_unit_test(an_answer_too_many_is_never_taken_for_the_next_call),
		cmocka_unit_test_setup(a_message_is_heard_and_so_is_a_subscription_made_anew, start_server),
		cmocka_unit_test(a_message_without_end_costs_bounded_memory),
		cmocka_unit_test(slots_are_those_of_the_specification),
		cmocka_unit_test(addresses_are_read_and_others_refused),
		cmocka_unit_test_setup(each_call_goes_to_the_master_of_its_key, start_cluster),
		cmocka_unit_test_setup(a_slot_that_has_moved_is_followed_in_the_same_round, start_cluster),
		cmocka_unit_test_setup(one_redirection_makes_all_slots_be_asked_for_anew, start_cluster),
		cmocka_unit_test_setup(a_slot_that_is_being_moved_is_asked_for_where_its_key_is, start_cluster),
		cmocka_unit_test_setup(a_message_of_one_server_is_heard_at_another, start_cluster),
		cmocka_unit_test_setup(a_master_that_hangs_does_not_hold_up_the_calls_to_others, start_cluster),
		cmocka_unit_test_setup(a_master_that_dies_is_replaced_by_its_replica, start_cluster),
		cmocka_unit_test(a_subscription_leaves_a_server_that_has_left_its_cluster),
		cmocka_unit_test(a_server_that_has_left_its_cluster_does_not_say_where_keys_are),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN); /* as both programs do */
	redis_script_make(&counter, "counter", "return redis.call('INCR', KEYS[1])");
	redis_script_make(&broken, "broken", "return redis.error_reply('ERR on purpose')");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	redis_server_stop(&server, SIGKILL);
	redis_cluster_stop(&cluster);
	redis_cluster_stop(&shrunk);
	redis_script_unmake(&counter);
	redis_script_unmake(&broken);
	return failed;
}
