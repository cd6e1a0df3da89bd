/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of the writer's poll loop over a real Unix socket: order of answers, malformed and half frames, daemons that
 * come, go and stall, a ledger that fails and recovers, and the stop. The server runs in a thread; the test is the
 * daemon.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/wire.h"
#include "ledger_fixture.h"
#include "writer/query.h"
#include "writer/server.h"

#define TIMEOUT_MS 5000

struct world {
	struct ledger_fixture *ledger;
	char socket[80];
	int listener;
	int stop;
	int fd; /* the daemon's end */
	pthread_t thread;
	int result;
	struct wire_header header;
	void *body;
	size_t capacity;
	int real_stderr;
};

static void *serve(void *arg)
{
	struct world *world = arg;

	world->result = writer_server_run(world->ledger->store, world->ledger->path, world->listener, world->stop);
	return NULL;
}

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	int null = open("/dev/null", O_WRONLY);

	assert_non_null(world);
	world->real_stderr = dup(STDERR_FILENO); /* alarms are wanted here; they would bury the result */
	dup2(null, STDERR_FILENO);
	close(null);
	fixture_setup_sqlite((void **)&world->ledger);
	assert_int_equal(fixture_sale(world->ledger, 1, 1, 100000), 0);
	snprintf(world->socket, sizeof(world->socket), "%s/sock", world->ledger->directory);
	world->listener = wire_listen(world->socket, 0600, NULL);
	world->stop = eventfd(0, EFD_CLOEXEC);
	assert_true(world->listener >= 0 && world->stop >= 0);
	assert_int_equal(pthread_create(&world->thread, NULL, serve, world), 0);
	world->fd = wire_connect(world->socket);
	assert_true(world->fd >= 0);
	*state = world;
	return 0;
}

static void stop_server(struct world *world)
{
	if (!world->listener)
		return;
	assert_int_equal(eventfd_write(world->stop, 1), 0);
	pthread_join(world->thread, NULL);
	assert_int_equal(world->result, 0);
	close(world->listener);
	world->listener = 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	stop_server(world);
	if (world->fd >= 0)
		close(world->fd);
	close(world->stop);
	unlink(world->socket);
	fixture_close(world->ledger);
	fixture_audit(world->ledger);
	fixture_teardown((void **)&world->ledger);
	dup2(world->real_stderr, STDERR_FILENO);
	close(world->real_stderr);
	free(world->body);
	free(world);
	return 0;
}

static void reconnect(struct world *world)
{
	if (world->fd >= 0)
		close(world->fd);
	world->fd = wire_connect(world->socket);
	assert_true(world->fd >= 0);
}

static void send_frame(struct world *world, enum wire_type type, uint64_t id, const void *body, size_t length)
{
	assert_int_equal(wire_send(world->fd, type, id, body, (uint32_t)length, TIMEOUT_MS), 0);
}

static void expect_answer(struct world *world, enum wire_type type, uint64_t id)
{
	int error = wire_receive(world->fd, &world->header, &world->body, &world->capacity, TIMEOUT_MS);

	if (error)
		fail_msg("no answer: %s", strerror(-error));
	if (world->header.type != type)
		fail_msg("type %u, expected %d: %.*s", world->header.type, (int)type, (int)world->header.length,
			(char *)world->body);
	assert_true(world->header.id == id);
}

/* The writer has closed: nothing more arrives but the end. */
static void expect_closed(struct world *world)
{
	char byte;
	struct pollfd poller = {.fd = world->fd, .events = POLLIN};

	assert_int_equal(poll(&poller, 1, TIMEOUT_MS), 1);
	if (recv(world->fd, &byte, 1, 0) > 0)
		fail_msg("the connection is still open");
}

static void send_orders(struct world *world, uint64_t id, uint64_t first, unsigned count)
{
	static struct wire_admit records[WIRE_BATCH_MAX];

	for (unsigned i = 0; i < count; i++)
		records[i] = fixture_record(1, first + i);
	send_frame(world, WIRE_ADMIT, id, records, count * sizeof(*records));
}

static void expect_acks(struct world *world, uint64_t id, uint64_t first, unsigned count, enum wire_ack_status status)
{
	const struct wire_ack *acks;

	expect_answer(world, WIRE_ADMIT, id);
	assert_int_equal(world->header.length, count * sizeof(*acks));
	acks = world->body;
	for (unsigned i = 0; i < count; i++) {
		assert_true(acks[i].serial == first + i);
		assert_int_equal(acks[i].status, status);
		assert_int_equal(acks[i].order_state, status == WIRE_ACK_REFUSED ? 0 : WIRE_ORDER_HELD);
	}
}

static void each_question_is_answered_once_in_order(void **state)
{
	struct world *world = *state;
	static const char hello[] = "{\"version\":2,\"node\":1}", list[] = "{\"op\":\"sales_list\"}";

	/* all at once, so that frames lie back to back in the socket */
	send_frame(world, WIRE_HELLO, 1, hello, sizeof(hello) - 1);
	send_orders(world, 2, 1, 10);
	send_frame(world, WIRE_QUERY, 3, list, sizeof(list) - 1);
	send_orders(world, 4, 6, 10);
	send_frame(world, WIRE_QUERY, 5, "{}", 2);
	send_orders(world, 6, 16, 1);
	expect_answer(world, WIRE_HELLO, 1);
	assert_non_null(memmem(world->body, world->header.length, world->ledger->path, strlen(world->ledger->path)));
	expect_acks(world, 2, 1, 10, WIRE_ACK_STORED);
	expect_answer(world, WIRE_QUERY, 3);
	assert_non_null(memmem(world->body, world->header.length, "\"held\":10", 9));
	expect_answer(world, WIRE_ADMIT, 4);
	expect_answer(world, WIRE_ERROR, 5); /* a wrong question does not end the connection */
	expect_acks(world, 6, 16, 1, WIRE_ACK_STORED);
}

static void the_largest_batch_is_one_transaction(void **state)
{
	struct world *world = *state;

	send_orders(world, 1, 1, WIRE_BATCH_MAX);
	expect_acks(world, 1, 1, WIRE_BATCH_MAX, WIRE_ACK_STORED);
	send_orders(world, 2, 1, WIRE_BATCH_MAX);
	expect_acks(world, 2, 1, WIRE_BATCH_MAX, WIRE_ACK_KNOWN);
}

static void what_is_acknowledged_can_be_read_at_once(void **state)
{
	struct world *world = *state;

	for (unsigned i = 0; i < 20; i++) {
		char expected[16];

		send_orders(world, i, 1 + i * 5, 5);
		expect_acks(world, i, 1 + i * 5, 5, WIRE_ACK_STORED);
		snprintf(expected, sizeof(expected), "%u", (i + 1) * 5);
		assert_string_equal(fixture_sql(world->ledger, "SELECT count(*) FROM orders"), expected);
	}
}

static void malformed_frames_end_the_connection_and_store_nothing(void **state)
{
	struct world *world = *state;
	const struct wire_header good = {.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = WIRE_ADMIT,
		.id = 1,
		.length = sizeof(struct wire_admit)};
	const struct wire_admit record = fixture_record(1, 77);
	struct wire_header bad[11];

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		bad[i] = good;
	bad[0].magic++;
	bad[1].version++;
	bad[2].reserved = 1;
	bad[3].type = 0;
	bad[4].type = WIRE_ERROR;
	bad[5].type = 4;
	bad[6].length = 0;
	bad[7].length = sizeof(struct wire_admit) - 1;
	bad[8].length = (WIRE_BATCH_MAX + 1) * sizeof(struct wire_admit);
	bad[9].length = UINT32_MAX;
	bad[10].type = WIRE_QUERY;
	bad[10].length = 0;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		send(world->fd, &bad[i], sizeof(bad[i]), MSG_NOSIGNAL);
		send(world->fd, &record, sizeof(record), MSG_NOSIGNAL);
		expect_closed(world);
		reconnect(world);
	}
	send_orders(world, 2, 1, 1);
	expect_acks(world, 2, 1, 1, WIRE_ACK_STORED);
	assert_string_equal(fixture_sql(world->ledger, "SELECT count(*) FROM orders"), "1");
}

static void a_cut_frame_stores_nothing(void **state)
{
	struct world *world = *state;
	struct {
		struct wire_header header;
		struct wire_admit records[3];
	} frame = {.header = {.magic = WIRE_MAGIC,
			   .version = WIRE_VERSION,
			   .type = WIRE_ADMIT,
			   .length = 3 * sizeof(struct wire_admit)}};

	for (unsigned i = 0; i < 3; i++)
		frame.records[i] = fixture_record(1, 50 + i);
	for (size_t cut = 1; cut < sizeof(frame); cut++) {
		assert_int_equal(send(world->fd, &frame, cut, MSG_NOSIGNAL), cut);
		reconnect(world);
	}
	send_orders(world, 2, 1, 1);
	expect_acks(world, 2, 1, 1, WIRE_ACK_STORED);
	assert_string_equal(fixture_sql(world->ledger, "SELECT count(*) FROM orders"), "1");
}

static void a_frame_may_arrive_byte_by_byte(void **state)
{
	struct world *world = *state;
	struct {
		struct wire_header header;
		struct wire_admit record;
	} frame = {.header = {.magic = WIRE_MAGIC,
			   .version = WIRE_VERSION,
			   .type = WIRE_ADMIT,
			   .id = 9,
			   .length = sizeof(struct wire_admit)},
		.record = fixture_record(1, 50)};

	for (size_t i = 0; i < sizeof(frame); i++) {
		assert_int_equal(send(world->fd, (const char *)&frame + i, 1, MSG_NOSIGNAL), 1);
		if (i % 8 == 0)
			usleep(200);
	}
	expect_acks(world, 9, 50, 1, WIRE_ACK_STORED);
}

static void a_new_connection_replaces_one_that_stalls(void **state)
{
	struct world *world = *state;
	int ghost = world->fd;

	/* the ghost stops in the middle of a header */
	assert_int_equal(send(ghost, "SLC", 3, MSG_NOSIGNAL), 3);
	world->fd = wire_connect(world->socket);
	assert_true(world->fd >= 0);
	send_orders(world, 1, 1, 5);
	expect_acks(world, 1, 1, 5, WIRE_ACK_STORED);
	close(world->fd);
	world->fd = ghost;
	expect_closed(world);
}

static void a_connection_that_says_nothing_replaces_nobody(void **state)
{
	struct world *world = *state;
	int silent;

	send_orders(world, 1, 1, 5);
	expect_acks(world, 1, 1, 5, WIRE_ACK_STORED);
	silent = wire_connect(world->socket);
	assert_true(silent >= 0);
	assert_int_equal(wire_listen(world->socket, 0600, NULL), -EADDRINUSE); /* connects, to see if it is alive */
	send_orders(world, 2, 6, 5);
	expect_acks(world, 2, 6, 5, WIRE_ACK_STORED);
	close(silent);
	send_orders(world, 3, 11, 5);
	expect_acks(world, 3, 11, 5, WIRE_ACK_STORED);
}

static void a_daemon_that_does_not_read_holds_up_nobody(void **state)
{
	struct world *world = *state;
	int ghost = world->fd, flags = fcntl(ghost, F_GETFL);
	static struct wire_admit records[1000];
	unsigned sent = 0;

	for (unsigned i = 0; i < 1000; i++)
		records[i] = fixture_record(1, 1 + i);
	/* ask, never read, until the writer does not take more */
	fcntl(ghost, F_SETFL, flags | O_NONBLOCK);
	while (sent < 1000 && !wire_send(ghost, WIRE_ADMIT, 1, records, sizeof(records), 300))
		sent++;
	assert_true(sent > 0 && sent < 1000);
	world->fd = wire_connect(world->socket);
	assert_true(world->fd >= 0);
	send_orders(world, 7, 1, 1000);
	expect_acks(world, 7, 1, 1000, WIRE_ACK_KNOWN);
	close(ghost);
}

static void a_daemon_that_comes_back_gets_its_orders_acknowledged(void **state)
{
	struct world *world = *state;

	for (unsigned i = 0; i < 30; i++) {
		send_orders(world, i, 1 + i * 10, 10);
		reconnect(world); /* killed before it could read the answer */
		send_orders(world, i, 1 + i * 10, 10);
		expect_answer(world, WIRE_ADMIT, i);
		assert_int_equal(((struct wire_ack *)world->body)->seq, 1 + i * 10);
	}
	assert_string_equal(fixture_sql(world->ledger, "SELECT count(*) || ' ' || max(seq) FROM orders"), "300 300");
}

static void refused_records_do_not_hold_back_the_others(void **state)
{
	struct world *world = *state;
	struct wire_admit records[3] = {fixture_record(1, 1), fixture_record(8, 2), fixture_record(1, 3)};
	const struct wire_ack *acks;

	send_frame(world, WIRE_ADMIT, 1, records, sizeof(records));
	expect_answer(world, WIRE_ADMIT, 1);
	acks = world->body;
	assert_int_equal(acks[0].status, WIRE_ACK_STORED);
	assert_int_equal(acks[1].status, WIRE_ACK_REFUSED);
	assert_int_equal(acks[1].seq, 0);
	assert_int_equal(acks[2].status, WIRE_ACK_STORED);
	assert_int_equal(acks[2].seq, 2);
}

static void a_ledger_that_fails_is_told_and_orders_go_on_when_it_is_back(void **state)
{
	struct world *world = *state;
	static const char list[] = "{\"op\":\"sales_list\"}";
	char away[80];

	snprintf(away, sizeof(away), "%s.away", world->ledger->path);
	send_orders(world, 1, 1, 5);
	expect_acks(world, 1, 1, 5, WIRE_ACK_STORED);
	assert_int_equal(rename(world->ledger->path, away), 0);
	for (unsigned i = 0; i < 3; i++) {
		send_orders(world, 2, 6, 5);
		expect_answer(world, WIRE_ERROR, 2);
		assert_non_null(memmem(world->body, world->header.length, "store_error", 11));
		send_frame(world, WIRE_QUERY, 3, list, sizeof(list) - 1);
		expect_answer(world, WIRE_ERROR, 3);
	}
	assert_int_equal(rename(away, world->ledger->path), 0);
	send_orders(world, 4, 6, 5);
	expect_acks(world, 4, 6, 5, WIRE_ACK_STORED);
}

/* Sends batches of the largest size, 1 to STALL_BATCHES, whether or not their answers are read. */
#define STALL_BATCHES 12

static void *send_batches(void *arg)
{
	static struct wire_admit records[WIRE_BATCH_MAX];
	struct world *world = arg;

	for (unsigned batch = 0; batch < STALL_BATCHES; batch++) {
		for (unsigned i = 0; i < WIRE_BATCH_MAX; i++)
			records[i] = fixture_record(1, 1 + batch * WIRE_BATCH_MAX + i);
		if (wire_send(world->fd, WIRE_ADMIT, batch, records, sizeof(records), TIMEOUT_MS))
			break;
	}
	return NULL;
}

/* Long enough for the writer to stand with an answer that the socket does not take. */
static void let_it_stall(void)
{
	usleep(300000);
}

static void a_daemon_that_reads_late_gets_every_answer_whole(void **state)
{
	struct world *world = *state;
	pthread_t sender;

	assert_int_equal(pthread_create(&sender, NULL, send_batches, world), 0);
	let_it_stall();
	for (unsigned batch = 0; batch < STALL_BATCHES; batch++)
		expect_acks(world, batch, 1 + batch * WIRE_BATCH_MAX, WIRE_BATCH_MAX, WIRE_ACK_STORED);
	pthread_join(sender, NULL);
}

static void a_stop_sends_the_answer_of_what_is_committed(void **state)
{
	struct world *world = *state;
	unsigned acknowledged = 0;
	pthread_t sender;
	char count[16];

	assert_int_equal(pthread_create(&sender, NULL, send_batches, world), 0);
	let_it_stall();
	assert_int_equal(eventfd_write(world->stop, 1), 0);
	while (!wire_receive(world->fd, &world->header, &world->body, &world->capacity, TIMEOUT_MS))
		acknowledged += world->header.length / sizeof(struct wire_ack);
	pthread_join(sender, NULL);
	stop_server(world);
	assert_true(acknowledged > 0 && acknowledged < STALL_BATCHES * WIRE_BATCH_MAX);
	snprintf(count, sizeof(count), "%u", acknowledged);
	assert_string_equal(fixture_sql(world->ledger, "SELECT count(*) FROM orders"), count);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_question_is_answered_once_in_order),
		TEST(the_largest_batch_is_one_transaction),
		TEST(what_is_acknowledged_can_be_read_at_once),
		TEST(malformed_frames_end_the_connection_and_store_nothing),
		TEST(a_cut_frame_stores_nothing),
		TEST(a_frame_may_arrive_byte_by_byte),
		TEST(a_new_connection_replaces_one_that_stalls),
		TEST(a_connection_that_says_nothing_replaces_nobody),
		TEST(a_daemon_that_does_not_read_holds_up_nobody),
		TEST(a_daemon_that_comes_back_gets_its_orders_acknowledged),
		TEST(refused_records_do_not_hold_back_the_others),
		TEST(a_ledger_that_fails_is_told_and_orders_go_on_when_it_is_back),
		TEST(a_daemon_that_reads_late_gets_every_answer_whole),
		TEST(a_stop_sends_the_answer_of_what_is_committed),
	};

	log_init("test_writer_server", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
