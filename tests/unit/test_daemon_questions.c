/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Questions to the writer: what its answers do to those that change something, above all when they leave open what has become of the change. The
 * writer is a socket that nobody reads; its frames are made up.
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
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/timefmt.h"
#include "daemon/pipeline_impl.h"

struct bench {
	struct daemon d;
	struct pipeline *p;
	int writer;
	unsigned completed, released, late;
	int error; /* as it was told */
};

static void on_complete(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct bench *b = arg;

	(void)d;
	b->completed++;
	b->error = answer->error;
}

static void on_release(void *arg)
{
	((struct bench *)arg)->released++;
}

static void on_late(struct daemon *d, void *arg)
{
	struct bench *b = arg;

	(void)d;
	assert_int_equal(b->completed, 0);
	b->late++;
}

static const struct pipeline_hooks impatient = {.late = on_late, .complete = on_complete, .release = on_release};
static const struct pipeline_hooks changing = {.changes = true, .complete = on_complete, .release = on_release};
static const struct pipeline_hooks reading = {.complete = on_complete, .release = on_release};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	int ends[2];

	b->p = calloc(1, sizeof(*b->p));
	b->p->d = &b->d;
	b->p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->p->asking_allowed = true;
	pthread_mutex_init(&b->p->lock, NULL);
	pthread_cond_init(&b->p->done, NULL);
	STAILQ_INIT(&b->p->asked);
	STAILQ_INIT(&b->p->again);
	TAILQ_INIT(&b->p->sent);
	writer_link_init(&b->p->link);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	b->p->link.fd = ends[0];
	b->writer = ends[1];
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	writer_link_free(&b->p->link);
	close(b->writer);
	close(b->p->wake_fd);
	free(b->p);
	free(b);
	return 0;
}

/* Asks, and takes the question out of what is on its way: it is the caller's then, as in a recovery. */
static struct question *send_question(struct bench *b, const struct pipeline_hooks *hooks)
{
	struct question *question;
	struct sent *sent;

	assert_int_equal(pipeline_tell(b->p, json_pack("{s:s}", "op", "test"), hooks, b), 0);
	assert_int_equal(questions_send(b->p), 0);
	sent = TAILQ_FIRST(&b->p->sent);
	assert_non_null(sent);
	question = sent->question;
	TAILQ_REMOVE(&b->p->sent, sent, next);
	free(sent);
	return question;
}

static int answer(struct bench *b, struct question *question, enum wire_type type, const char *body)
{
	struct wire_header header = {.type = (uint16_t)type, .length = (uint32_t)strlen(body)};

	return questions_answer(b->p, question, &header, body);
}

static int refuse(struct bench *b, struct question *question, const char *code)
{
	char body[96];

	snprintf(body, sizeof(body), "{\"code\":\"%s\",\"detail\":\"cannot commit\"}", code);
	return answer(b, question, WIRE_ERROR, body);
}

static void nobody_is_told_that_a_change_was_not_made_which_the_store_failed_at(void **state)
{
	struct bench *b = *state;
	struct question *question = send_question(b, &changing);

	assert_int_equal(refuse(b, question, PIPELINE_STORE_ERROR), -EREMOTEIO);
	assert_int_equal(b->completed, 0);
	assert_int_equal(b->released, 0);
	/* The next connection: there it turns out to have been made. */
	assert_int_equal(answer(b, question, WIRE_QUERY, "{}"), 0);
	assert_int_equal(b->completed, 1);
	assert_int_equal(b->released, 1);
	assert_int_equal(b->error, 0);
}

static void a_change_that_every_store_fails_at_does_not_close_orders_for_ever(void **state)
{
	struct bench *b = *state;
	struct question *question = send_question(b, &changing);

	for (unsigned i = 1; i < 8; i++)
		assert_int_equal(refuse(b, question, PIPELINE_STORE_ERROR), -EREMOTEIO);
	assert_false(atomic_load(&b->p->compare));
	assert_int_equal(refuse(b, question, PIPELINE_STORE_ERROR), 0);
	assert_int_equal(b->completed, 1);
	assert_int_equal(b->error, -EREMOTEIO);
	/* What has become of it in the gate is found by a comparison. */
	assert_true(atomic_load(&b->p->compare));
}

static void a_refusal_is_an_answer(void **state)
{
	struct bench *b = *state;

	assert_int_equal(refuse(b, send_question(b, &changing), "conflict"), 0);
	assert_int_equal(b->completed, 1);
	assert_int_equal(b->error, -EREMOTEIO);
	assert_false(atomic_load(&b->p->compare));
}

static void who_only_reads_hears_at_once_that_the_store_failed(void **state)
{
	struct bench *b = *state;

	assert_int_equal(refuse(b, send_question(b, &reading), PIPELINE_STORE_ERROR), 0);
	assert_int_equal(b->completed, 1);
	assert_int_equal(b->error, -EREMOTEIO);
}

#define PATIENCE_NS 5000000000ULL

/* Nobody is kept waiting by a writer that stands still, nor by one that is away. */
static void who_waits_for_a_writer_that_does_not_answer_is_told_so_once(void **state)
{
	struct bench *b = *state;
	uint64_t now = time_mono_ns();
	struct question *question;
	struct sent *sent;

	assert_int_equal(pipeline_tell(b->p, json_pack("{s:s}", "op", "test"), &impatient, b), 0);
	assert_int_equal(questions_send(b->p), 0);
	questions_tell_late(b->p, now + PATIENCE_NS - 1);
	assert_int_equal(b->late, 0);
	questions_tell_late(b->p, now + 2 * PATIENCE_NS);
	questions_tell_late(b->p, now + 3 * PATIENCE_NS);
	assert_int_equal(b->late, 1);
	/* The answer comes after all. */
	sent = TAILQ_FIRST(&b->p->sent);
	TAILQ_REMOVE(&b->p->sent, sent, next);
	question = sent->question;
	free(sent);
	assert_int_equal(answer(b, question, WIRE_QUERY, "{}"), 0);
	assert_int_equal(b->completed, 1);
	assert_int_equal(b->released, 1);
}

static void who_is_to_be_asked_for_again_is_told_so_while_there_is_no_writer(void **state)
{
	struct bench *b = *state;
	struct question *question = send_question(b, &impatient);

	STAILQ_INSERT_TAIL(&b->p->again, question, next);
	questions_tell_late(b->p, time_mono_ns() + 2 * PATIENCE_NS);
	assert_int_equal(b->late, 1);
	STAILQ_REMOVE_HEAD(&b->p->again, next);
	questions_finish(b->p, question, -ETIMEDOUT, NULL, NULL);
	assert_int_equal(b->completed, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			nobody_is_told_that_a_change_was_not_made_which_the_store_failed_at, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_change_that_every_store_fails_at_does_not_close_orders_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refusal_is_an_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(who_only_reads_hears_at_once_that_the_store_failed, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_waits_for_a_writer_that_does_not_answer_is_told_so_once, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_is_to_be_asked_for_again_is_told_so_while_there_is_no_writer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
