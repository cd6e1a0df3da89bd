/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Questions to the writer (WIRE_QUERY): asked by HTTP and maintenance threads, sent and answered on the pipeline's thread.
 *
 * Promises: what was never sent fails at once when the writer is away, and has changed nothing. What was sent and not answered is asked again
 * on the next connection before anything else (every question is idempotent), so the gate's words never miss a change that
 * the ledger made; nobody waits for that longer than ASK_TIMEOUT_S. A store that failed at a change has not answered: a COMMIT whose answer
 * was lost, or whose sync failed, may be found made when the store is opened anew.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/pipeline_impl.h"

#define ASK_TIMEOUT_S 5
#define NS_PER_S 1000000000ULL
/* Connections on which the store answered everything that comes before a question, and failed at that one, before it is taken for the question's fault: some
 * four seconds.
 */
#define STORE_FAILURES_MAX 8

static void copy_text(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from ? from : "?");
}

void questions_read_error(const struct wire_header *header, const void *body, struct pipeline_answer *answer)
{
	json_t *json = json_loadb(body, header->length, 0, NULL);

	copy_text(answer->code, sizeof(answer->code), json_string_value(json_object_get(json, "code")));
	copy_text(answer->detail, sizeof(answer->detail), json_string_value(json_object_get(json, "detail")));
	json_decref(json);
}

/* The lock is held. */
static void unref(struct question *question)
{
	if (--question->refs)
		return;
	free(question->text);
	json_decref(question->answer.json);
	free(question);
}

static struct question *question_new(json_t *json, const struct pipeline_hooks *hooks, void *arg, unsigned refs)
{
	struct question *question = calloc(1, sizeof(*question));

	if (question)
		question->text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (!question || !question->text) {
		if (hooks && hooks->release)
			hooks->release(arg);
		free(question);
		return NULL;
	}
	question->hooks = hooks;
	question->arg = arg;
	if (hooks && hooks->late)
		question->late_ns = time_mono_ns() + ASK_TIMEOUT_S * NS_PER_S;
	question->refs = refs;
	return question;
}

/* Hands the question to the pipeline, or finds that the writer is away. */
static bool enqueue(struct pipeline *p, struct question *question)
{
	uint64_t one = 1;
	bool allowed;

	pthread_mutex_lock(&p->lock);
	allowed = p->asking_allowed;
	if (allowed)
		STAILQ_INSERT_TAIL(&p->asked, question, next);
	pthread_mutex_unlock(&p->lock);
	if (allowed && write(p->wake_fd, &one, sizeof(one)) < 0)
		log_debug("cannot wake the pipeline: %s", strerror(errno)); /* it looks every 100 ms anyway */
	return allowed;
}

static void run_complete(struct pipeline *p, struct question *question)
{
	const struct pipeline_hooks *hooks = question->hooks;

	if (hooks && hooks->complete)
		hooks->complete(p->d, question->arg, &question->answer);
	if (hooks && hooks->release)
		hooks->release(question->arg);
}

static void publish(struct pipeline *p, struct question *question)
{
	pthread_mutex_lock(&p->lock);
	question->done = true;
	pthread_cond_broadcast(&p->done);
	unref(question);
	pthread_mutex_unlock(&p->lock);
}

void questions_finish(
	struct pipeline *p, struct question *question, int error, const struct wire_header *header, const void *body)
{
	question->answer.error = error;
	/* cppcheck-suppress nullPointer ; only an error comes without a header */
	if (!error && header->type == WIRE_ERROR) {
		question->answer.error = -EREMOTEIO;
		questions_read_error(header, body, &question->answer);
	} else if (!error) {
		question->answer.json = json_loadb(body, header->length, 0, NULL);
		if (!question->answer.json) {
			question->answer.error = -EREMOTEIO;
			copy_text(question->answer.code, sizeof(question->answer.code), PIPELINE_STORE_ERROR);
			copy_text(question->answer.detail, sizeof(question->answer.detail),
				"the writer's answer is not JSON");
		}
	}
	run_complete(p, question);
	publish(p, question);
}

int questions_answer(struct pipeline *p, struct question *question, const struct wire_header *header, const void *body)
{
	struct pipeline_answer answer = {0};

	if (question->hooks && question->hooks->changes && header->type == WIRE_ERROR)
		questions_read_error(header, body, &answer);
	if (!strcmp(answer.code, PIPELINE_STORE_ERROR))
		pipeline_note_failure(p, answer.detail);
	if (!strcmp(answer.code, PIPELINE_STORE_ERROR) && ++question->failed < STORE_FAILURES_MAX) {
		log_warn(
			"the order writer's store has failed at a change (%s): orders are closed until it is asked again",
			answer.detail);
		return -EREMOTEIO;
	}
	if (question->failed == STORE_FAILURES_MAX) {
		log_error("the order writer's store fails at one change again and again (%s): it is given up",
			answer.detail);
		pipeline_compare_anew(p);
	}
	questions_finish(p, question, 0, header, body);
	return 0;
}

struct question *pipeline_ask_start(
	struct pipeline *p, json_t *json, const struct pipeline_hooks *hooks, void *arg, int *error)
{
	struct question *question = question_new(json, hooks, arg, 2);

	*error = question ? 0 : -ENOMEM;
	if (!question || enqueue(p, question))
		return question;
	if (hooks && hooks->release)
		hooks->release(arg);
	question->refs = 1;
	pthread_mutex_lock(&p->lock);
	unref(question);
	pthread_mutex_unlock(&p->lock);
	*error = -ENOTCONN;
	return NULL;
}

int pipeline_ask_wait(struct pipeline *p, struct question *question, struct pipeline_answer *answer)
{
	struct timespec deadline;

	memset(answer, 0, sizeof(*answer));
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += ASK_TIMEOUT_S;
	pthread_mutex_lock(&p->lock);
	while (!question->done && pthread_cond_timedwait(&p->done, &p->lock, &deadline) != ETIMEDOUT)
		;
	if (question->done) {
		*answer = question->answer;
		question->answer.json = NULL;
	} else {
		answer->error = -ETIMEDOUT;
	}
	unref(question);
	pthread_mutex_unlock(&p->lock);
	return answer->error;
}

int pipeline_ask(
	struct pipeline *p, json_t *json, const struct pipeline_hooks *hooks, void *arg, struct pipeline_answer *answer)
{
	int error;
	struct question *question = pipeline_ask_start(p, json, hooks, arg, &error);

	if (question)
		return pipeline_ask_wait(p, question, answer);
	memset(answer, 0, sizeof(*answer));
	return answer->error = error;
}

int pipeline_tell(struct pipeline *p, json_t *json, const struct pipeline_hooks *hooks, void *arg)
{
	struct question *question = question_new(json, hooks, arg, 1);

	if (!question)
		return -ENOMEM;
	if (!enqueue(p, question)) {
		question->answer.error = -ENOTCONN;
		run_complete(p, question);
		pthread_mutex_lock(&p->lock);
		unref(question);
		pthread_mutex_unlock(&p->lock);
	}
	return 0;
}

static struct question *take_asked(struct pipeline *p)
{
	struct question *question;

	pthread_mutex_lock(&p->lock);
	question = STAILQ_FIRST(&p->asked);
	if (question)
		STAILQ_REMOVE_HEAD(&p->asked, next);
	pthread_mutex_unlock(&p->lock);
	return question;
}

int questions_send(struct pipeline *p)
{
	struct question *question;

	while ((question = take_asked(p))) {
		struct sent *sent = calloc(1, sizeof(*sent));
		int err = sent ? 0 : -ENOMEM;

		if (!err && question->hooks && question->hooks->prepare)
			err = question->hooks->prepare(p->d, question->arg);
		if (err) {
			free(sent);
			questions_finish(p, question, err, NULL, NULL);
			continue;
		}
		sent->question = question;
		sent->sent_ns = time_mono_ns();
		TAILQ_INSERT_TAIL(&p->sent, sent, next);
		err = writer_link_send(
			&p->link, WIRE_QUERY, question->text, (uint32_t)strlen(question->text), &sent->id);
		if (err)
			return err;
	}
	return 0;
}

int questions_exchange_again(struct pipeline *p)
{
	struct question *question;

	while ((question = STAILQ_FIRST(&p->again))) {
		struct wire_header header;
		const void *body;
		int err = pipeline_exchange(
			p, WIRE_QUERY, question->text, (uint32_t)strlen(question->text), &header, &body);

		if (err)
			return err;
		STAILQ_REMOVE_HEAD(&p->again, next);
		err = questions_answer(p, question, &header, body);
		if (err) {
			STAILQ_INSERT_HEAD(&p->again, question, next);
			return err;
		}
	}
	return 0;
}

static void tell_late(struct pipeline *p, struct question *question, uint64_t now_ns)
{
	if (!question->late_ns || now_ns < question->late_ns)
		return;
	question->late_ns = 0;
	question->hooks->late(p->d, question->arg);
}

/* What has not been sent is sent, or fails, within a round of the thread. */
void questions_tell_late(struct pipeline *p, uint64_t now_ns)
{
	struct question *question;
	struct sent *sent;

	TAILQ_FOREACH(sent, &p->sent, next)
	if (sent->question)
		tell_late(p, sent->question, now_ns);
	STAILQ_FOREACH(question, &p->again, next)
	tell_late(p, question, now_ns);
}

void questions_fail_unsent(struct pipeline *p, int error)
{
	struct question *question;

	pthread_mutex_lock(&p->lock);
	p->asking_allowed = false;
	pthread_mutex_unlock(&p->lock);
	while ((question = take_asked(p)))
		questions_finish(p, question, error, NULL, NULL);
}

int questions_exchange(struct pipeline *p, json_t *question, json_t **answer)
{
	char *text = question ? json_dumps(question, JSON_COMPACT) : NULL;
	struct wire_header header;
	const void *body;
	int err;

	json_decref(question);
	*answer = NULL;
	if (!text)
		return -ENOMEM;
	err = pipeline_exchange(p, WIRE_QUERY, text, (uint32_t)strlen(text), &header, &body);
	if (!err && header.type == WIRE_ERROR) {
		struct pipeline_answer refusal = {0};

		questions_read_error(&header, body, &refusal);
		log_error("the order writer could not answer (%s: %s)", refusal.code, refusal.detail);
		err = -EREMOTEIO;
	}
	if (!err) {
		*answer = json_loadb(body, header.length, 0, NULL);
		err = *answer ? 0 : -EPROTO;
	}
	free(text);
	return err;
}
