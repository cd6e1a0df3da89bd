/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's end of the writer's socket: whole frames, in order, however they arrive, and no guess after a bad one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/writer_link.h"

struct pair {
	struct writer_link link;
	int listener, peer;
	char path[64];
};

static int open_pair(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	snprintf(pair->path, sizeof(pair->path), "/tmp/sluice-link-%d.sock", getpid());
	pair->listener = wire_listen(pair->path, 0600, "");
	assert_true(pair->listener >= 0);
	writer_link_init(&pair->link);
	assert_int_equal(writer_link_open(&pair->link, pair->path), 0);
	pair->peer = accept(pair->listener, NULL, NULL);
	assert_true(pair->peer >= 0);
	*state = pair;
	return 0;
}

static int close_pair(void **state)
{
	struct pair *pair = *state;

	writer_link_free(&pair->link);
	if (pair->peer >= 0)
		close(pair->peer);
	close(pair->listener);
	unlink(pair->path);
	free(pair);
	return 0;
}

static size_t make_frame(char *bytes, uint16_t type, uint64_t id, const char *body)
{
	struct wire_header header = {
		.magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type, .id = id, .length = (uint32_t)strlen(body)};

	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), body, strlen(body));
	return sizeof(header) + strlen(body);
}

static void put(struct pair *pair, const void *bytes, size_t count)
{
	assert_int_equal(send(pair->peer, bytes, count, MSG_NOSIGNAL), (ssize_t)count);
}

static void a_frame_in_single_bytes_is_given_out_once_and_whole(void **state)
{
	struct pair *pair = *state;
	struct wire_header header;
	const void *body;
	char bytes[64];
	size_t size = make_frame(bytes, WIRE_QUERY, 9, "{\"a\":1}");

	for (size_t i = 0; i < size; i++) {
		assert_int_equal(writer_link_next(&pair->link, &header, &body), 0);
		put(pair, bytes + i, 1);
		assert_int_equal(writer_link_fill(&pair->link), 0);
	}
	assert_int_equal(writer_link_next(&pair->link, &header, &body), 1);
	assert_int_equal(header.id, 9);
	assert_int_equal(header.length, 7);
	assert_memory_equal(body, "{\"a\":1}", 7);
	assert_int_equal(writer_link_next(&pair->link, &header, &body), 0);
}

static void frames_that_arrive_together_come_out_in_order(void **state)
{
	struct pair *pair = *state;
	struct wire_header header;
	const void *body;
	char bytes[256];
	size_t size = 0;

	for (uint64_t id = 1; id <= 5; id++)
		size += make_frame(bytes + size, WIRE_QUERY, id, "xyz");
	put(pair, bytes, size);
	assert_int_equal(writer_link_fill(&pair->link), 0);
	for (uint64_t id = 1; id <= 5; id++) {
		assert_int_equal(writer_link_next(&pair->link, &header, &body), 1);
		assert_int_equal(header.id, id);
	}
	assert_int_equal(writer_link_next(&pair->link, &header, &body), 0);
}

static void what_came_before_the_hang_up_can_still_be_read(void **state)
{
	struct pair *pair = *state;
	struct wire_header header;
	const void *body;
	char bytes[64];

	put(pair, bytes, make_frame(bytes, WIRE_QUERY, 1, "last"));
	close(pair->peer);
	pair->peer = -1;
	assert_int_equal(writer_link_fill(&pair->link), -ENOTCONN);
	assert_int_equal(writer_link_next(&pair->link, &header, &body), 1);
	assert_memory_equal(body, "last", 4);
}

static void a_header_that_is_not_ours_is_an_error(void **state)
{
	struct pair *pair = *state;
	struct wire_header bad[] = {
		{.magic = 0x47455420, .version = WIRE_VERSION},
		{.magic = WIRE_MAGIC, .version = WIRE_VERSION + 1},
		{.magic = WIRE_MAGIC, .version = WIRE_VERSION, .length = WIRE_BODY_MAX + 1},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct wire_header header;
		const void *body;

		put(pair, &bad[i], sizeof(bad[i]));
		assert_int_equal(writer_link_fill(&pair->link), 0);
		assert_int_equal(writer_link_next(&pair->link, &header, &body), -EPROTO);
		writer_link_close(&pair->link);
		close(pair->peer);
		assert_int_equal(writer_link_open(&pair->link, pair->path), 0);
		pair->peer = accept(pair->listener, NULL, NULL);
	}
}

static void a_peer_that_does_not_read_never_blocks_us(void **state)
{
	struct pair *pair = *state;
	size_t size = 1 << 20, got = 0, whole = 4 * (sizeof(struct wire_header) + size);
	char *body = malloc(size), *sink = malloc(65536);
	uint64_t id, last = 0;

	memset(body, 'b', size);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(writer_link_send(&pair->link, WIRE_QUERY, body, (uint32_t)size, &id), 0);
		assert_true(id > last);
		last = id;
	}
	assert_true(writer_link_wants_write(&pair->link));
	while (got < whole) {
		ssize_t n = recv(pair->peer, sink, 65536, MSG_DONTWAIT);

		if (n > 0)
			got += (size_t)n;
		else
			assert_int_equal(writer_link_flush(&pair->link), 0);
	}
	assert_false(writer_link_wants_write(&pair->link));
	free(body);
	free(sink);
}

static void nothing_is_sent_without_a_connection(void **state)
{
	struct pair *pair = *state;
	uint64_t id;

	writer_link_close(&pair->link);
	assert_int_equal(writer_link_send(&pair->link, WIRE_QUERY, "{}", 2, &id), -ENOTCONN);
}

static void a_writer_that_takes_no_connections_does_not_keep_us_waiting(void **state)
{
	struct pair *pair = *state;
	struct writer_link links[512];
	int err = 0, opened = 0;

	/* Nobody accepts: the queue fills up, and then we are told so. */
	while (!err && opened < 512) {
		writer_link_init(&links[opened]);
		err = writer_link_open(&links[opened], pair->path);
		opened += !err;
	}
	assert_int_equal(err, -EAGAIN);
	while (opened--)
		writer_link_free(&links[opened]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_frame_in_single_bytes_is_given_out_once_and_whole, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(frames_that_arrive_together_come_out_in_order, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(what_came_before_the_hang_up_can_still_be_read, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(a_header_that_is_not_ours_is_an_error, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(a_peer_that_does_not_read_never_blocks_us, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(nothing_is_sent_without_a_connection, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(
			a_writer_that_takes_no_connections_does_not_keep_us_waiting, open_pair, close_pair),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
