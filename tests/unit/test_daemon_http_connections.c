/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who gives up a place at a listener, on socket pairs and with a made-up clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/timefmt.h"
#include "daemon/http_connections.h"

#define S 1000000000ULL
#define CLIENTS 64

static const struct sluice_addr alice = {.lo = 0xffff0a000001ULL}, bob = {.lo = 0xffff0a000002ULL};

struct client {
	int ours, theirs;
	struct http_connection *connection;
};

struct fixture {
	struct http_connections_counts counts;
	struct http_connections *list;
	struct client clients[CLIENTS];
	unsigned count;
};

static void make(struct fixture *f, unsigned places, unsigned per_source)
{
	struct http_connections_options options = {
		.places = places, .per_source = per_source, .patience_s = 10, .counts = &f->counts};

	*f = (struct fixture){0};
	f->list = http_connections_new(&options);
	assert_non_null(f->list);
}

static struct client *join(struct fixture *f, const struct sluice_addr *source, uint64_t now)
{
	struct client *client = &f->clients[f->count++];
	int fds[2];

	assert_true(f->count <= CLIENTS);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	client->ours = fds[0];
	client->theirs = fds[1];
	client->connection = http_connection_open(f->list, client->ours, source, now);
	assert_non_null(client->connection);
	return client;
}

static bool is_shut(const struct client *client)
{
	struct pollfd poller = {.fd = client->theirs, .events = POLLIN};

	return poll(&poller, 1, 0) == 1 && poller.revents & POLLHUP;
}

static void leave(struct client *client)
{
	http_connection_close(client->connection);
	client->connection = NULL;
	close(client->ours);
	close(client->theirs);
}

static void end(struct fixture *f)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->clients[i].connection)
			leave(&f->clients[i]);
	assert_int_equal(f->counts.open, 0);
	http_connections_free(f->list);
}

static void nobody_gives_way_while_there_is_room(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 32, 0);
	for (unsigned i = 0; i < 29; i++) /* 32 less a sixteenth and one */
		join(&f, &alice, i);
	for (unsigned i = 0; i < f.count; i++)
		assert_false(is_shut(&f.clients[i]));
	assert_int_equal(f.counts.open, 29);
	end(&f);
}

static void a_newcomer_costs_the_one_that_waits_longest_its_place(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 4, 0);
	for (unsigned i = 0; i < 3; i++)
		join(&f, i % 2 ? &alice : NULL, i);
	assert_false(is_shut(&f.clients[0]));
	join(&f, &bob, 3);
	assert_true(is_shut(&f.clients[0]));
	for (unsigned i = 1; i < 4; i++)
		assert_false(is_shut(&f.clients[i]));
	join(&f, &bob, 4);
	assert_true(is_shut(&f.clients[1]));
	assert_int_equal(f.counts.crowded, 2);
	end(&f);
}

static void who_works_keeps_the_place(void **state)
{
	struct fixture f;
	struct client *worker;

	(void)state;
	make(&f, 4, 2);
	worker = join(&f, &alice, 0);
	http_connection_work(worker->connection);
	for (unsigned i = 1; i < 20; i++)
		join(&f, &alice, i);
	http_connections_expire(f.list, 1000 * S);
	assert_false(is_shut(worker));
	for (unsigned i = 1; i < 20; i++)
		assert_true(is_shut(&f.clients[i]));
	end(&f);
}

static void an_answer_puts_a_connection_at_the_end_of_the_line(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 4, 0);
	for (unsigned i = 0; i < 3; i++)
		join(&f, &alice, i);
	http_connection_work(f.clients[0].connection);
	http_connection_rest(f.clients[0].connection, 3);
	http_connection_rest(f.clients[1].connection, 4); /* it had no request: its turn stays */
	join(&f, &alice, 5);
	assert_false(is_shut(&f.clients[0]));
	assert_true(is_shut(&f.clients[1]));
	end(&f);
}

static void a_source_with_its_share_costs_its_own(void **state)
{
	struct fixture f;
	struct client *honest;

	(void)state;
	make(&f, 64, 3);
	honest = join(&f, &bob, 0);
	for (unsigned i = 1; i < 30; i++)
		join(&f, &alice, i);
	assert_false(is_shut(honest));
	for (unsigned i = 1; i < 27; i++)
		assert_true(is_shut(&f.clients[i]));
	for (unsigned i = 27; i < 30; i++)
		assert_false(is_shut(&f.clients[i]));
	assert_int_equal(f.counts.crowded_source, 26);
	assert_int_equal(f.counts.crowded, 0);
	end(&f);
}

static void who_has_been_told_to_go_is_not_told_twice_and_counts_no_more(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 64, 2);
	for (unsigned i = 0; i < 3; i++)
		join(&f, &alice, i);
	assert_int_equal(f.counts.crowded_source, 1);
	http_connection_work(f.clients[0].connection); /* its request came at the same instant */
	http_connection_rest(f.clients[0].connection, 3);
	leave(&f.clients[0]);
	leave(&f.clients[2]);
	join(&f, &alice, 4);
	assert_int_equal(f.counts.crowded_source, 1);
	join(&f, &alice, 5);
	assert_int_equal(f.counts.crowded_source, 2);
	assert_true(is_shut(&f.clients[1]));
	end(&f);
}

static void an_ipv6_source_is_its_64(void **state)
{
	struct sluice_addr home = {.hi = 0x20010db800000001ULL}, other = {.hi = 0x20010db800000002ULL, .lo = 1};
	struct fixture f;

	(void)state;
	make(&f, 64, 2);
	join(&f, &other, 0);
	for (unsigned i = 1; i < 6; i++) {
		home.lo = i;
		join(&f, &home, i);
	}
	assert_false(is_shut(&f.clients[0]));
	assert_int_equal(f.counts.crowded_source, 3);
	end(&f);
}

static void patience_ends(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 64, 0);
	join(&f, &alice, 1 * S);
	join(&f, &alice, 5 * S);
	http_connections_expire(f.list, 11 * S - 1);
	assert_false(is_shut(&f.clients[0]));
	http_connections_expire(f.list, 11 * S);
	assert_true(is_shut(&f.clients[0]));
	assert_false(is_shut(&f.clients[1]));
	http_connections_expire(f.list, 15 * S);
	assert_true(is_shut(&f.clients[1]));
	assert_int_equal(f.counts.late, 2);
	end(&f);
}

static void the_only_one_is_never_told_to_go_for_itself(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 1, 1);
	join(&f, &alice, 0);
	assert_false(is_shut(&f.clients[0]));
	http_connection_work(f.clients[0].connection);
	join(&f, &alice, 1);
	assert_false(is_shut(&f.clients[1]));
	end(&f);
}

static void a_newcomer_waits_until_the_others_had_their_grace(void **state)
{
	struct http_connections_counts counts = {0};
	struct http_connections_options options = {.places = 4, .patience_s = 10, .grace_ms = 50, .counts = &counts};
	struct fixture f = {.list = http_connections_new(&options)};
	uint64_t start = time_mono_ns();

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		join(&f, &alice, start);
	join(&f, &alice, time_mono_ns());
	assert_true(time_mono_ns() - start >= 50000000);
	assert_true(is_shut(&f.clients[0]));
	for (unsigned i = 1; i < 4; i++)
		http_connection_work(f.clients[i].connection);
	start = time_mono_ns();
	join(&f, &alice, start); /* nobody waits but itself: no place to wait for */
	assert_true(time_mono_ns() - start < 50000000);
	assert_int_equal(counts.crowded, 1);
	end(&f);
}

static void no_memory_for_a_connection_is_no_crash(void **state)
{
	(void)state;
	http_connection_work(NULL);
	http_connection_rest(NULL, 1);
	http_connection_close(NULL);
	assert_false(http_connection_first(NULL));
}

static void only_the_first_request_is_the_first(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 8, 0);
	join(&f, NULL, 0);
	assert_true(http_connection_first(f.clients[0].connection));
	assert_false(http_connection_first(f.clients[0].connection));
	end(&f);
}

static void the_list_watches_by_itself(void **state)
{
	struct fixture f;
	struct pollfd poller;

	(void)state;
	make(&f, 8, 0);
	assert_int_equal(http_connections_watch(f.list), 0);
	poller = (struct pollfd){
		.fd = join(&f, NULL, 0)->theirs, .events = POLLIN}; /* waits since the machine was started */
	assert_int_equal(poll(&poller, 1, 5000), 1);
	assert_true(is_shut(&f.clients[0]));
	end(&f);
}

static void *come_and_go(void *arg)
{
	struct http_connections *list = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	for (unsigned i = 0; i < 3000; i++) {
		struct sluice_addr source = {.lo = 0xffff0a000000ULL + (unsigned)rand_r(&seed) % 5};
		struct http_connection *connection;
		int fds[2];

		if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
			return "no socket pair";
		connection = http_connection_open(list, fds[0], &source, i);
		if (!connection)
			return "no connection";
		if (rand_r(&seed) % 2)
			http_connection_work(connection);
		if (rand_r(&seed) % 2)
			http_connection_rest(connection, i);
		if (!(rand_r(&seed) % 16))
			http_connections_expire(list, i + 10 * S);
		http_connection_close(connection);
		close(fds[0]);
		close(fds[1]);
	}
	return NULL;
}

static void many_threads_leave_nothing_behind(void **state)
{
	pthread_t threads[4];
	struct fixture f;
	void *complaint;

	(void)state;
	make(&f, 3, 1);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, f.list), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], &complaint);
		assert_null(complaint);
	}
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_gives_way_while_there_is_room),
		cmocka_unit_test(a_newcomer_costs_the_one_that_waits_longest_its_place),
		cmocka_unit_test(who_works_keeps_the_place),
		cmocka_unit_test(an_answer_puts_a_connection_at_the_end_of_the_line),
		cmocka_unit_test(a_source_with_its_share_costs_its_own),
		cmocka_unit_test(who_has_been_told_to_go_is_not_told_twice_and_counts_no_more),
		cmocka_unit_test(an_ipv6_source_is_its_64),
		cmocka_unit_test(patience_ends),
		cmocka_unit_test(the_only_one_is_never_told_to_go_for_itself),
		cmocka_unit_test(a_newcomer_waits_until_the_others_had_their_grace),
		cmocka_unit_test(no_memory_for_a_connection_is_no_crash),
		cmocka_unit_test(only_the_first_request_is_the_first),
		cmocka_unit_test(the_list_watches_by_itself),
		cmocka_unit_test(many_threads_leave_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
