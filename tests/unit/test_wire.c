/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of common/wire.c: frames over a socket pair, whole, cut and hostile; and who may listen where. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/wire.h"

#define SHORT_MS 50
#define LONG_MS 5000

struct pair {
	int left;
	int right;
	struct wire_header header;
	void *body;
	size_t capacity;
};

static int pair_open(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int fds[2];

	assert_non_null(pair);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	pair->left = fds[0];
	pair->right = fds[1];
	*state = pair;
	return 0;
}

static int pair_close(void **state)
{
	struct pair *pair = *state;

	close(pair->left);
	close(pair->right);
	free(pair->body);
	free(pair);
	return 0;
}

static int receive(struct pair *pair, int timeout_ms)
{
	return wire_receive(pair->right, &pair->header, &pair->body, &pair->capacity, timeout_ms);
}

static struct wire_header good_header(uint32_t length)
{
	return (struct wire_header){
		.magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = WIRE_QUERY, .id = 7, .length = length};
}

static void a_frame_arrives_as_it_was_sent(void **state)
{
	struct pair *pair = *state;

	assert_int_equal(wire_send(pair->left, WIRE_QUERY, 0x1122334455667788ULL, "hello", 5, LONG_MS), 0);
	assert_int_equal(receive(pair, LONG_MS), 0);
	assert_int_equal(pair->header.type, WIRE_QUERY);
	assert_true(pair->header.id == 0x1122334455667788ULL);
	assert_int_equal(pair->header.length, 5);
	assert_memory_equal(pair->body, "hello", 5);
}

static void a_frame_may_be_empty(void **state)
{
	struct pair *pair = *state;

	assert_int_equal(wire_send(pair->left, WIRE_HELLO, 1, NULL, 0, LONG_MS), 0);
	assert_int_equal(receive(pair, LONG_MS), 0);
	assert_int_equal(pair->header.length, 0);
}

static void frames_stay_apart(void **state)
{
	struct pair *pair = *state;

	assert_int_equal(wire_send(pair->left, WIRE_QUERY, 1, "long body", 9, LONG_MS), 0);
	assert_int_equal(wire_send(pair->left, WIRE_QUERY, 2, "x", 1, LONG_MS), 0);
	assert_int_equal(receive(pair, LONG_MS), 0);
	assert_int_equal(pair->header.id, 1);
	assert_int_equal(receive(pair, LONG_MS), 0);
	assert_int_equal(pair->header.id, 2);
	assert_memory_equal(pair->body, "x", 1);
}

static void *send_largest(void *arg)
{
	struct pair *pair = arg;
	char *body = malloc(WIRE_BODY_MAX);
	intptr_t error;

	for (uint32_t i = 0; i < WIRE_BODY_MAX; i++)
		body[i] = (char)(i * 31 >> 3);
	error = wire_send(pair->left, WIRE_QUERY, 3, body, WIRE_BODY_MAX, LONG_MS);
	free(body);
	return (void *)error;
}

static void the_largest_frame_passes_a_non_blocking_socket(void **state)
{
	struct pair *pair = *state;
	pthread_t thread;
	void *error;

	fcntl(pair->left, F_SETFL, O_NONBLOCK);
	fcntl(pair->right, F_SETFL, O_NONBLOCK);
	assert_int_equal(pthread_create(&thread, NULL, send_largest, pair), 0);
	assert_int_equal(receive(pair, LONG_MS), 0);
	pthread_join(thread, &error);
	assert_null(error);
	assert_int_equal(pair->header.length, WIRE_BODY_MAX);
	for (uint32_t i = 0; i < WIRE_BODY_MAX; i++)
		if (((char *)pair->body)[i] != (char)(i * 31 >> 3))
			fail_msg("byte %u differs", i);
}

static void a_body_beyond_the_limit_is_not_sent(void **state)
{
	struct pair *pair = *state;

	assert_int_equal(wire_send(pair->left, WIRE_QUERY, 1, "", WIRE_BODY_MAX + 1, LONG_MS), -EMSGSIZE);
	assert_int_equal(receive(pair, SHORT_MS), -ETIMEDOUT);
}

static void a_clean_end_is_told_from_a_cut(void **state)
{
	struct pair *pair = *state;
	struct wire_header header = good_header(10);

	close(pair->left);
	assert_int_equal(receive(pair, LONG_MS), -ENOTCONN);
	for (size_t cut = 1; cut < sizeof(header) + 10; cut++) {
		uint8_t frame[sizeof(header) + 10] = {0};
		int fds[2];

		memcpy(frame, &header, sizeof(header));
		close(pair->right);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		pair->right = fds[1];
		assert_int_equal(write(fds[0], frame, cut), cut);
		close(fds[0]);
		assert_int_equal(receive(pair, LONG_MS), -ECONNRESET);
	}
	pair->left = -1;
}

static void a_half_frame_times_out(void **state)
{
	struct pair *pair = *state;
	struct wire_header header = good_header(10);

	assert_int_equal(write(pair->left, &header, sizeof(header)), sizeof(header));
	assert_int_equal(write(pair->left, "12345", 5), 5);
	assert_int_equal(receive(pair, SHORT_MS), -ETIMEDOUT);
}

static void a_peer_that_does_not_read_times_out(void **state)
{
	struct pair *pair = *state;
	char *body = calloc(1, WIRE_BODY_MAX);

	assert_int_equal(wire_send(pair->left, WIRE_QUERY, 1, body, WIRE_BODY_MAX, SHORT_MS), -ETIMEDOUT);
	free(body);
}

static void a_peer_that_is_gone_is_an_error_and_no_signal(void **state)
{
	struct pair *pair = *state;

	close(pair->right);
	assert_int_equal(wire_send(pair->left, WIRE_QUERY, 1, "x", 1, LONG_MS), -EPIPE);
	pair->right = -1;
}

static void malformed_headers_are_refused_before_memory_is_given(void **state)
{
	struct pair *pair = *state;
	struct wire_header bad[] = {good_header(1), good_header(1), good_header(1), good_header(WIRE_BODY_MAX + 1),
		good_header(UINT32_MAX)};

	bad[0].magic ^= 1;
	bad[1].version++;
	bad[2].reserved = 1;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(write(pair->left, &bad[i], sizeof(bad[i])), sizeof(bad[i]));
		assert_int_equal(receive(pair, LONG_MS), -EPROTO);
		assert_null(pair->body);
	}
}

/* --- sockets
 * ---------------------------------------------------------------------------------------------------------
 */

struct place {
	char directory[32];
	char path[64];
};

static int place_make(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	assert_non_null(place);
	strcpy(place->directory, "/tmp/sluice-wire.XXXXXX");
	assert_non_null(mkdtemp(place->directory));
	snprintf(place->path, sizeof(place->path), "%s/sock", place->directory);
	*state = place;
	return 0;
}

static int place_remove(void **state)
{
	struct place *place = *state;

	unlink(place->path);
	assert_int_equal(rmdir(place->directory), 0);
	free(place);
	return 0;
}

static void listening_sets_the_mode_and_serves(void **state)
{
	struct place *place = *state;
	struct stat status;
	int listener = wire_listen(place->path, 0660, "");
	int client;

	assert_true(listener >= 0);
	assert_int_equal(stat(place->path, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0660);
	client = wire_connect(place->path);
	assert_true(client >= 0);
	assert_true(fcntl(client, F_GETFD) & FD_CLOEXEC);
	close(client);
	close(listener);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	struct place *place = *state;
	int first = wire_listen(place->path, 0600, NULL);
	int second;

	assert_true(first >= 0);
	assert_int_equal(wire_listen(place->path, 0600, NULL), -EADDRINUSE);
	close(first);
	assert_int_equal(wire_connect(place->path), -ECONNREFUSED);
	second = wire_listen(place->path, 0600, NULL);
	assert_true(second >= 0);
	close(second);
}

static void a_file_in_the_way_stays(void **state)
{
	struct place *place = *state;
	int fd = open(place->path, O_CREAT | O_WRONLY, 0600);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(wire_listen(place->path, 0600, NULL), -EEXIST);
	assert_int_equal(access(place->path, F_OK), 0);
}

static void what_cannot_be_an_address_is_refused(void **state)
{
	struct place *place = *state;
	char path[200];

	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(wire_listen(path, 0600, NULL), -ENAMETOOLONG);
	assert_int_equal(wire_connect(path), -ENAMETOOLONG);
	assert_int_equal(wire_connect(""), -EINVAL);
	assert_int_equal(wire_connect(place->path), -ENOENT);
	assert_int_equal(wire_listen(place->path, 0600, "no-such-group-here"), -EINVAL);
	assert_int_equal(access(place->path, F_OK), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_frame_arrives_as_it_was_sent, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(a_frame_may_be_empty, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(frames_stay_apart, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(the_largest_frame_passes_a_non_blocking_socket, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(a_body_beyond_the_limit_is_not_sent, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(a_clean_end_is_told_from_a_cut, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(a_half_frame_times_out, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(a_peer_that_does_not_read_times_out, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(a_peer_that_is_gone_is_an_error_and_no_signal, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(
			malformed_headers_are_refused_before_memory_is_given, pair_open, pair_close),
		cmocka_unit_test_setup_teardown(listening_sets_the_mode_and_serves, place_make, place_remove),
		cmocka_unit_test_setup_teardown(
			a_stale_socket_is_replaced_and_a_live_one_is_not, place_make, place_remove),
		cmocka_unit_test_setup_teardown(a_file_in_the_way_stays, place_make, place_remove),
		cmocka_unit_test_setup_teardown(what_cannot_be_an_address_is_refused, place_make, place_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
