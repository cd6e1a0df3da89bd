/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Batches to the writer: an order is in one place at a time and keeps its turn, whatever the connection does. The writer is a socket that the test
 * reads and answers by hand.
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
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/metrics.h"
#include "daemon/pipeline_impl.h"

struct bench {
	struct daemon d;
	struct sluice_control control;
	struct pipeline *p;
	int listener, writer;
	uint32_t order_state; /* of every acknowledgement */
	char path[64];
};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	b->d.maps.control = &b->control;
	b->d.sales = sales_new(&b->d.maps);
	b->d.orders = orders_new();
	b->d.metrics = metrics_new();
	b->p = calloc(1, sizeof(*b->p));
	b->p->d = &b->d;
	b->d.pipeline = b->p;
	b->order_state = WIRE_ORDER_HELD;
	pthread_mutex_init(&b->p->lock, NULL);
	b->p->records = calloc(WIRE_BATCH_MAX, sizeof(*b->p->records));
	b->p->acks = calloc(WIRE_BATCH_MAX, sizeof(*b->p->acks));
	STAILQ_INIT(&b->p->pending);
	TAILQ_INIT(&b->p->sent);
	snprintf(b->path, sizeof(b->path), "/tmp/sluice-batches-%d.sock", getpid());
	b->listener = wire_listen(b->path, 0600, "");
	assert_true(b->listener >= 0);
	writer_link_init(&b->p->link);
	assert_int_equal(writer_link_open(&b->p->link, b->path), 0);
	b->writer = accept(b->listener, NULL, NULL);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;
	struct sent *sent;

	while ((sent = TAILQ_FIRST(&b->p->sent))) {
		TAILQ_REMOVE(&b->p->sent, sent, next);
		free(sent);
	}
	writer_link_free(&b->p->link);
	close(b->writer);
	close(b->listener);
	unlink(b->path);
	free(b->p->records);
	free(b->p->acks);
	free(b->p);
	orders_free(b->d.orders);
	sales_free(b->d.sales);
	metrics_free(b->d.metrics);
	free(b);
	return 0;
}

static void admit(struct bench *b, uint64_t first, uint64_t last)
{
	struct sluice_admission admission = {.sale = 1, .quantity = 1, .state = SLUICE_ADMISSION_DONE};

	for (uint64_t serial = first; serial <= last; serial++) {
		batches_enqueue(b->p, serial, &admission, false);
		b->control.in_flight++;
	}
}

/* What the writer gets next: the serials from `first` to `last`, in one frame. */
static void expect_batch(struct bench *b, uint64_t first, uint64_t last)
{
	struct wire_admit record;
	struct wire_header header;

	assert_int_equal(recv(b->writer, &header, sizeof(header), MSG_WAITALL), sizeof(header));
	assert_int_equal(header.type, WIRE_ADMIT);
	assert_int_equal(header.length, (last - first + 1) * sizeof(record));
	for (uint64_t serial = first; serial <= last; serial++) {
		assert_int_equal(recv(b->writer, &record, sizeof(record), MSG_WAITALL), sizeof(record));
		assert_int_equal(record.serial, serial);
	}
}

static int acknowledge(struct bench *b, uint64_t first, unsigned count, enum wire_ack_status status)
{
	struct wire_header header = {.type = WIRE_ADMIT, .length = count * (uint32_t)sizeof(struct wire_ack)};
	struct wire_ack *acks = calloc(count, sizeof(*acks));
	int err;

	for (unsigned i = 0; i < count; i++)
		acks[i] = (struct wire_ack){.serial = first + i,
			.seq = first + i,
			.committed_wall_ns = 1,
			.status = status,
			.order_state = status == WIRE_ACK_REFUSED ? 0 : b->order_state};
	err = batches_acknowledge(b->p, TAILQ_FIRST(&b->p->sent)->batch, &header, acks);
	free(acks);
	return err;
}

static enum order_state state_of(struct bench *b, uint64_t serial)
{
	struct order_view view;

	assert_int_equal(orders_find(b->d.orders, serial, &view), 0);
	return view.state;
}

static void a_lone_order_is_sent_at_once_and_later_ones_gather(void **state)
{
	struct bench *b = *state;

	admit(b, 1, 1);
	assert_int_equal(batches_send(b->p), 0);
	expect_batch(b, 1, 1);
	admit(b, 2, 3);
	assert_int_equal(batches_send(b->p), 0);
	expect_batch(b, 2, 3);
	/* Two are on their way: the rest waits, and goes as one. */
	for (uint64_t serial = 4; serial <= 20; serial++) {
		admit(b, serial, serial);
		assert_int_equal(batches_send(b->p), 0);
	}
	assert_int_equal(b->p->pending_count, 17);
	assert_int_equal(acknowledge(b, 1, 1, WIRE_ACK_STORED), 0);
	assert_int_equal(batches_send(b->p), 0);
	expect_batch(b, 4, 20);
	assert_int_equal(b->p->pending_count, 0);
}

static void what_was_not_acknowledged_goes_again_in_its_old_order(void **state)
{
	struct bench *b = *state;

	admit(b, 1, 5);
	assert_int_equal(batches_send(b->p), 0);
	expect_batch(b, 1, 5);
	admit(b, 6, 9);
	assert_int_equal(batches_send(b->p), 0);
	expect_batch(b, 6, 9);
	admit(b, 10, 10);
	/* The connection breaks: the younger batch first, as the pipeline does. */
	batches_take_back(b->p, &b->p->batches[1]);
	batches_take_back(b->p, &b->p->batches[0]);
	assert_int_equal(b->p->pending_count, 10);
	assert_int_equal(batches_send(b->p), 0);
	expect_batch(b, 1, 10);
	assert_int_equal(b->control.in_flight, 10);
}

static void acknowledged_orders_are_durable_and_no_longer_in_flight(void **state)
{
	struct bench *b = *state;

	admit(b, 1, 3);
	assert_int_equal(batches_send(b->p), 0);
	assert_int_equal(acknowledge(b, 1, 3, WIRE_ACK_STORED), 0);
	for (uint64_t serial = 1; serial <= 3; serial++)
		assert_int_equal(state_of(b, serial), ORDER_HELD);
	assert_int_equal(b->control.in_flight, 0);
	assert_int_equal(atomic_load(&b->p->unsettled), 0);
	assert_int_equal(atomic_load(&b->p->durable), 3);
}

static void a_refused_order_is_an_alarm_and_not_in_flight(void **state)
{
	struct bench *b = *state;

	admit(b, 1, 1);
	assert_int_equal(batches_send(b->p), 0);
	assert_int_equal(acknowledge(b, 1, 1, WIRE_ACK_REFUSED), 0);
	assert_int_equal(state_of(b, 1), ORDER_REFUSED);
	assert_int_equal(b->control.in_flight, 0);
	assert_int_equal(atomic_load(&b->p->refused), 1);
	assert_int_equal(atomic_load(&b->p->durable), 0);
}

static void an_answer_that_does_not_fit_settles_nothing(void **state)
{
	struct bench *b = *state;
	struct wire_header error = {.type = WIRE_ERROR};
	const char *body = "{\"code\":\"store_error\",\"detail\":\"disk full\"}";

	admit(b, 1, 2);
	assert_int_equal(batches_send(b->p), 0);
	assert_int_equal(acknowledge(b, 1, 1, WIRE_ACK_STORED), -EPROTO);
	assert_int_equal(acknowledge(b, 7, 2, WIRE_ACK_STORED), -EPROTO);
	assert_int_equal(acknowledge(b, 1, 2, 9), -EPROTO);
	error.length = (uint32_t)strlen(body);
	assert_int_equal(batches_acknowledge(b->p, &b->p->batches[0], &error, body), -EREMOTEIO);
	assert_int_equal(state_of(b, 1), ORDER_QUEUED);
	assert_int_equal(state_of(b, 2), ORDER_QUEUED);
	assert_int_equal(b->control.in_flight, 2);
	assert_int_equal(atomic_load(&b->p->durable), 0);
	batches_take_back(b->p, &b->p->batches[0]);
	assert_int_equal(b->p->pending_count, 2);
}

static void an_order_that_was_over_before_is_compared_anew(void **state)
{
	struct bench *b = *state;

	admit(b, 1, 1);
	assert_int_equal(batches_send(b->p), 0);
	b->order_state = WIRE_ORDER_CONFIRMED;
	assert_int_equal(acknowledge(b, 1, 1, WIRE_ACK_KNOWN), 0);
	assert_int_equal(state_of(b, 1), ORDER_CONFIRMED);
	assert_false(atomic_load(&b->p->compare));
	admit(b, 2, 2);
	assert_int_equal(batches_send(b->p), 0);
	b->order_state = WIRE_ORDER_EXPIRED;
	assert_int_equal(acknowledge(b, 2, 1, WIRE_ACK_KNOWN), 0);
	assert_int_equal(state_of(b, 2), ORDER_EXPIRED);
	assert_true(atomic_load(&b->p->compare));
}

static void what_was_there_before_tells_nothing_of_the_writers_pace(void **state)
{
	struct bench *b = *state;

	admit(b, 1, 100);
	assert_int_equal(batches_send(b->p), 0);
	assert_int_equal(acknowledge(b, 1, 100, WIRE_ACK_KNOWN), 0);
	assert_true(b->p->drain.per_second == 0 && b->p->drain.commit_ns == 0);
	admit(b, 101, 200);
	assert_int_equal(batches_send(b->p), 0);
	assert_int_equal(acknowledge(b, 101, 100, WIRE_ACK_STORED), 0);
	assert_true(b->p->drain.per_second > 0 && b->p->drain.commit_ns > 0);
}

static void a_state_that_is_none_settles_nothing(void **state)
{
	struct bench *b = *state;

	admit(b, 1, 1);
	assert_int_equal(batches_send(b->p), 0);
	for (b->order_state = 0; b->order_state < 8; b->order_state += 6)
		assert_int_equal(acknowledge(b, 1, 1, WIRE_ACK_STORED), -EPROTO);
	assert_int_equal(state_of(b, 1), ORDER_QUEUED);
	batches_take_back(b->p, &b->p->batches[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_lone_order_is_sent_at_once_and_later_ones_gather, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_not_acknowledged_goes_again_in_its_old_order, setup, teardown),
		cmocka_unit_test_setup_teardown(
			acknowledged_orders_are_durable_and_no_longer_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refused_order_is_an_alarm_and_not_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_that_does_not_fit_settles_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(an_order_that_was_over_before_is_compared_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_was_there_before_tells_nothing_of_the_writers_pace, setup, teardown),
		cmocka_unit_test_setup_teardown(a_state_that_is_none_settles_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
