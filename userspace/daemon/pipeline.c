/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The pipeline's thread: ring -> batches -> writer -> acknowledgements -> waiting buyers. Started by main.c.
 *
 * The thread is always in one of two modes. Away or recovering: orders are closed in the gate, frames are exchanged one at a time
 * (recovery.c). Serving: orders are open, two batches and any number of questions may be on their way. It leaves the second mode by closing
 * orders, and enters it only when nothing is in flight and gate and ledger agree on every sale.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "common/log.h"
#include "common/realtime.h"
#include "common/timefmt.h"
#include "daemon/fleet_keys.h"
#include "daemon/heartbeat.h"
#include "daemon/pipeline_impl.h"

/* More than CLOSE_SETTLE_US: no judge that saw orders open is left when a new connection compares gate and ledger. */
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000
#define COMPARE_TIMEOUT_NS 10000000000ULL
#define COMPARE_POLL_US 5000
/* A judge that saw orders open runs for microseconds; after this none is left that did. */
#define CLOSE_SETTLE_US 20000

void pipeline_close_orders(struct daemon *d)
{
	__atomic_fetch_and(&d->maps.control->flags, ~SLUICE_CONTROL_ORDERS_OPEN, __ATOMIC_SEQ_CST);
}

static void close_orders(struct pipeline *p)
{
	pipeline_close_orders(p->d);
	atomic_store(&p->open, false);
}

void pipeline_open_orders(struct pipeline *p)
{
	/* A node of a fleet judges when it knows by which keys. */
	if (atomic_load(&p->d->stopping) || !fleet_keys_agreed(p->d))
		return;
	__atomic_fetch_or(&p->d->maps.control->flags, SLUICE_CONTROL_ORDERS_OPEN, __ATOMIC_SEQ_CST);
	atomic_store(&p->open, true);
	/* A stop that came in between has closed orders before they were opened. */
	if (atomic_load(&p->d->stopping))
		close_orders(p);
}

static int on_record(void *arg, void *data, size_t size)
{
	const struct sluice_admitted *record = data;

	if (size >= sizeof(*record))
		batches_enqueue(arg, record->serial, &record->admission, false);
	return 0;
}

static void take_submissions(struct pipeline *p)
{
	struct submission *submission;

	for (;;) {
		pthread_mutex_lock(&p->lock);
		submission = STAILQ_FIRST(&p->submitted);
		if (submission)
			STAILQ_REMOVE_HEAD(&p->submitted, next);
		pthread_mutex_unlock(&p->lock);
		if (!submission)
			return;
		batches_enqueue(p, submission->serial, &submission->admission, false);
		free(submission);
	}
}

void pipeline_pump(struct pipeline *p)
{
	uint64_t now = time_mono_ns();

	heartbeat_pipeline_alive();
	if (now >= p->late_look_ns) {
		questions_tell_late(p, now);
		p->late_look_ns = now + POLL_MS * 1000000ULL;
	}
	ring_buffer__consume(p->ring);
	take_submissions(p);
}

/* Waits for the ring, a wake-up, or the writer. */
static void wait_for_work(struct pipeline *p, int timeout_ms)
{
	struct pollfd fds[] = {
		{.fd = ring_buffer__epoll_fd(p->ring), .events = POLLIN},
		{.fd = p->wake_fd, .events = POLLIN},
		{.fd = p->link.fd, .events = POLLIN},
	};
	uint64_t wakes;

	if (writer_link_wants_write(&p->link))
		fds[2].events |= POLLOUT;
	if (poll(fds, 3, timeout_ms) > 0 && (fds[1].revents & POLLIN) && read(p->wake_fd, &wakes, sizeof(wakes)) < 0)
		log_debug("cannot read the pipeline's eventfd: %s", strerror(errno));
	pipeline_pump(p);
}

int pipeline_exchange(struct pipeline *p, enum wire_type type, const void *body, uint32_t length,
	struct wire_header *header, const void **answer)
{
	uint64_t id, began = time_mono_ns();
	int err = writer_link_send(&p->link, type, body, length, &id);

	while (!err) {
		struct pollfd fd = {
			.fd = p->link.fd, .events = POLLIN | (writer_link_wants_write(&p->link) ? POLLOUT : 0)};

		err = writer_link_next(&p->link, header, answer);
		if (err)
			break;
		if (atomic_load(&p->stop))
			return -ECANCELED;
		if (time_mono_ns() - began > WRITER_DEAD_NS)
			return -ETIMEDOUT;
		if (time_mono_ns() - began > DRAIN_SLOW_NS)
			atomic_store(&p->answers, false);
		poll(&fd, 1, POLL_MS);
		pipeline_pump(p);
		err = writer_link_flush(&p->link);
		if (!err)
			err = writer_link_fill(&p->link);
		/* A writer that answered and hung up has answered. */
		if (err == -ENOTCONN && writer_link_next(&p->link, header, answer) == 1)
			return header->id == id ? 0 : -EPROTO;
	}
	if (err < 0)
		return err;
	atomic_store(&p->answers, true);
	return header->id == id ? 0 : -EPROTO;
}

static int handle_frame(struct pipeline *p, const struct wire_header *header, const void *body)
{
	struct sent *sent = TAILQ_FIRST(&p->sent);
	int err = 0;

	if (!sent || header->id != sent->id)
		return -EPROTO;
	if (sent->batch)
		err = batches_acknowledge(p, sent->batch, header, body);
	else
		err = questions_answer(p, sent->question, header, body);
	if (err)
		return err;
	TAILQ_REMOVE(&p->sent, sent, next);
	free(sent);
	return 0;
}

static int handle_answers(struct pipeline *p)
{
	int hung_up, err;

	hung_up = writer_link_fill(&p->link);
	for (;;) {
		struct wire_header header;
		const void *body;

		err = writer_link_next(&p->link, &header, &body);
		if (err <= 0)
			return err ? err : hung_up;
		err = handle_frame(p, &header, body);
		if (err)
			return err;
	}
}

/* A writer that takes long, for one answer or because more is admitted than it drains: orders close until it has caught up, so that no buyer is
 * admitted into a queue that does not move.
 */
static int check_pace(struct pipeline *p)
{
	struct sent *oldest = TAILQ_FIRST(&p->sent);
	struct order *waiting = STAILQ_FIRST(&p->pending);
	uint64_t now = time_mono_ns(), age = oldest ? now - oldest->sent_ns : 0,
		 wait = waiting ? now - waiting->queued_ns : 0;
	bool slow = drain_is_behind(p->slow, age, wait);

	if (age > WRITER_DEAD_NS)
		return -ETIMEDOUT;
	atomic_store(&p->answers, age <= DRAIN_SLOW_NS);
	if (slow == p->slow)
		return 0;
	p->slow = slow;
	if (!slow) {
		log_info("the order writer keeps pace again: orders are open");
		pipeline_open_orders(p);
		return 0;
	}
	if (age > DRAIN_SLOW_NS)
		log_warn("the order writer has not answered for %llu s: orders are closed until it does",
			DRAIN_SLOW_NS / 1000000000ULL);
	else
		log_warn(
			"more orders are admitted than the order writer drains, and wait for %llu s: orders are closed until it keeps pace",
			DRAIN_SLOW_NS / 1000000000ULL);
	close_orders(p);
	return 0;
}

/* Returns when the connection is broken, or on stop with nothing left to wait for. */
static int serve(struct pipeline *p)
{
	int err = 0;

	/* Not before: to compare gate and ledger is a long piece of work, for which no buyer waits. */
	if (!p->is_realtime)
		realtime_enter();
	p->is_realtime = true;
	p->slow = false;
	pipeline_note_failure(p, NULL);
	pthread_mutex_lock(&p->lock);
	p->asking_allowed = true;
	pthread_mutex_unlock(&p->lock);
	if (!fleet_keys_agreed(p->d))
		log_info("orders stay closed until this node knows which keys its fleet uses");
	while (!err && !atomic_load(&p->stop)) {
		if (!p->slow && !atomic_load(&p->open)) {
			pipeline_open_orders(p);
			if (atomic_load(&p->open))
				log_info("orders are open: ledger %s", p->ledger);
		}
		err = questions_send(p);
		if (!err)
			err = batches_send(p);
		if (!err) {
			wait_for_work(p, POLL_MS);
			err = writer_link_flush(&p->link);
		}
		if (!err)
			err = handle_answers(p);
		if (!err)
			err = check_pace(p);
		if (!err && atomic_load(&p->compare))
			err = -ESTALE;
	}
	close_orders(p);
	return err;
}

/* The connection is gone. What was on its way is kept: orders go back to the head of the queue, questions are asked again. */
static void take_back_all(struct pipeline *p)
{
	struct sent *sent;

	writer_link_close(&p->link);
	while ((sent = TAILQ_LAST(&p->sent, sent_queue))) {
		TAILQ_REMOVE(&p->sent, sent, next);
		if (sent->batch)
			batches_take_back(p, sent->batch);
		else
			STAILQ_INSERT_HEAD(&p->again, sent->question, next);
		free(sent);
	}
	questions_fail_unsent(p, -ENOTCONN);
}

static void *pipeline_run(void *arg)
{
	struct pipeline *p = arg;
	const char *path = p->d->config.writer.socket;
	int backoff_ms = BACKOFF_MIN_MS, last_err = 0;

	pthread_setname_np(pthread_self(), "pipeline");
	while (!atomic_load(&p->stop)) {
		int err = writer_link_open(&p->link, path);

		if (err) /* a writer that is gone is the cause now, whatever its store has said before */
			pipeline_note_failure(p, NULL);
		if (!err) {
			atomic_store(&p->answers, false); /* it takes connections while it is stopped, too */
			atomic_store(&p->connected, true);
			err = recovery_run(p);
		}
		if (!err) {
			backoff_ms = BACKOFF_MIN_MS;
			last_err = 0;
			atomic_fetch_add(&p->recoveries, 1);
			err = serve(p);
			atomic_fetch_add(&p->reconnects, 1);
		}
		atomic_store(&p->connected, false);
		take_back_all(p);
		if (atomic_load(&p->stop))
			break;
		if (err != last_err && err != -ESTALE)
			log_warn("no order writer at %s (%s): orders are closed; trying again", path, strerror(-err));
		last_err = err;
		for (uint64_t until = time_mono_ns() + (uint64_t)backoff_ms * 1000000;
			time_mono_ns() < until && !atomic_load(&p->stop);)
			wait_for_work(p, backoff_ms < POLL_MS ? backoff_ms : POLL_MS);
		backoff_ms = backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoff_ms * 2;
	}
	return NULL;
}

/* Every admission that the gate holds goes to the writer: which of them are durable, only the ledger knows. Orders are closed, so none is
 * added meanwhile, and what the judge of a former daemon's time counted in flight is counted anew.
 */
static int adopt_admissions(struct pipeline *p)
{
	struct sluice_admission admission;
	__u64 key, next;
	__u64 *cursor = NULL;
	unsigned claimed = 0;

	while (!bpf_map_get_next_key(p->d->maps.admissions, cursor, &next)) {
		key = next;
		cursor = &key;
		if (bpf_map_lookup_elem(p->d->maps.admissions, &key, &admission))
			continue;
		if (admission.state == SLUICE_ADMISSION_DONE)
			batches_enqueue(p, key, &admission, true);
		else if (admission.state == SLUICE_ADMISSION_CLAIMED)
			claimed++;
	}
	ring_buffer__consume(p->ring);
	__atomic_store_n(&p->d->maps.control->in_flight, p->pending_count, __ATOMIC_SEQ_CST);
	if (claimed)
		log_warn("%u tokens in the gate are claimed and not admitted; their units were never taken", claimed);
	if (p->pending_count)
		log_info("%u admissions are in the gate; they are compared with the ledger", p->pending_count);
	return 0;
}

static void free_all(struct pipeline *p)
{
	struct submission *submission;

	if (!p)
		return;
	while ((submission = STAILQ_FIRST(&p->submitted))) {
		STAILQ_REMOVE_HEAD(&p->submitted, next);
		free(submission);
	}
	ring_buffer__free(p->ring);
	if (p->wake_fd >= 0)
		close(p->wake_fd);
	writer_link_free(&p->link);
	free(p->records);
	free(p->acks);
	free(p);
}

static struct pipeline *pipeline_new(struct daemon *d)
{
	struct pipeline *p = calloc(1, sizeof(*p));
	pthread_condattr_t attr;

	if (!p)
		return NULL;
	p->d = d;
	writer_link_init(&p->link);
	STAILQ_INIT(&p->pending);
	TAILQ_INIT(&p->sent);
	STAILQ_INIT(&p->again);
	STAILQ_INIT(&p->asked);
	STAILQ_INIT(&p->submitted);
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->done, &attr);
	pthread_condattr_destroy(&attr);
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	atomic_store(&p->compare, true);
	p->records = calloc(WIRE_BATCH_MAX, sizeof(*p->records));
	p->acks = calloc(WIRE_BATCH_MAX, sizeof(*p->acks));
	p->ring = ring_buffer__new(d->maps.ring, on_record, p, NULL);
	if (p->wake_fd >= 0 && p->records && p->acks && p->ring)
		return p;
	free_all(p);
	return NULL;
}

int pipeline_start(struct daemon *d, char *error, size_t error_size)
{
	struct pipeline *p = pipeline_new(d);
	int err;

	if (!p) {
		snprintf(error, error_size, "cannot set up the pipeline from the gate's ring: %s", strerror(errno));
		return -errno;
	}
	usleep(CLOSE_SETTLE_US);
	d->pipeline = p;
	err = adopt_admissions(p);
	if (!err)
		err = -pthread_create(&p->thread, NULL, pipeline_run, p);
	if (err) {
		snprintf(error, error_size, "cannot start the pipeline: %s", strerror(-err));
		d->pipeline = NULL;
		free_all(p);
	}
	return err;
}

void pipeline_drain(struct daemon *d, unsigned drain_ms)
{
	uint64_t until = time_mono_ns() + (uint64_t)drain_ms * 1000000;
	struct pipeline *p = d->pipeline;

	if (!p)
		return;
	usleep(CLOSE_SETTLE_US);
	while (atomic_load(&p->unsettled) && atomic_load(&p->connected) && time_mono_ns() < until)
		usleep(2000);
	if (atomic_load(&p->unsettled))
		log_warn("%llu admissions are not durable yet; they stay in the gate for the next start",
			(unsigned long long)atomic_load(&p->unsettled));
}

void pipeline_stop(struct daemon *d)
{
	struct pipeline *p = d->pipeline;
	struct question *question;
	uint64_t one = 1;

	if (!p || atomic_exchange(&p->stop, true))
		return;
	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		log_debug("cannot wake the pipeline: %s", strerror(errno));
	pthread_join(p->thread, NULL);
	/* The next start compares gate and ledger, whatever became of these. */
	while ((question = STAILQ_FIRST(&p->again))) {
		STAILQ_REMOVE_HEAD(&p->again, next);
		questions_finish(p, question, -ETIMEDOUT, NULL, NULL);
	}
}

void pipeline_free(struct daemon *d)
{
	if (d->pipeline)
		free_all(d->pipeline);
	d->pipeline = NULL;
}

void pipeline_compare_anew(struct pipeline *p)
{
	atomic_store(&p->compare, true);
}

void pipeline_submit(struct pipeline *p, uint64_t serial, const struct sluice_admission *admission)
{
	struct submission *submission = calloc(1, sizeof(*submission));
	uint64_t one = 1;

	if (!submission)
		return; /* the next round finds it again */
	submission->serial = serial;
	submission->admission = *admission;
	pthread_mutex_lock(&p->lock);
	STAILQ_INSERT_TAIL(&p->submitted, submission, next);
	pthread_mutex_unlock(&p->lock);
	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		log_debug("cannot wake the pipeline: %s", strerror(errno));
}

int pipeline_compare(struct pipeline *p)
{
	unsigned long long before = atomic_load(&p->recoveries);
	uint64_t until = time_mono_ns() + COMPARE_TIMEOUT_NS, one = 1;

	if (!atomic_load(&p->open))
		return -ENOTCONN;
	atomic_store(&p->compare, true);
	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		log_debug("cannot wake the pipeline: %s", strerror(errno));
	while (atomic_load(&p->recoveries) == before || !atomic_load(&p->open)) {
		if (time_mono_ns() > until || atomic_load(&p->stop))
			return -ETIMEDOUT;
		usleep(COMPARE_POLL_US);
	}
	return 0;
}

void pipeline_note_failure(struct pipeline *p, const char *detail)
{
	pthread_mutex_lock(&p->lock);
	snprintf(p->failure, sizeof(p->failure), "%s", detail ? detail : "");
	pthread_mutex_unlock(&p->lock);
}

/* The lock is held. */
static void say_why_closed(struct pipeline *p, char *why, size_t size)
{
	if (atomic_load(&p->d->stopping))
		snprintf(why, size, "sluiced stops");
	else if (*p->failure)
		snprintf(why, size, "the order writer's store fails: %s", p->failure);
	else if (!atomic_load(&p->connected))
		snprintf(why, size, "no order writer is at %s", p->d->config.writer.socket);
	else if (!atomic_load(&p->answers))
		snprintf(why, size, "the order writer is connected and does not answer");
	else if (atomic_load(&p->slow))
		snprintf(why, size, "more orders are admitted than the order writer drains");
	else if (!fleet_keys_agreed(p->d))
		snprintf(why, size, "this node does not know yet which keys its fleet uses");
	else
		snprintf(why, size, "gate and ledger are being compared");
}

void pipeline_status(struct pipeline *p, struct pipeline_status *status)
{
	memset(status, 0, sizeof(*status));
	status->connected = atomic_load(&p->connected) && atomic_load(&p->answers);
	status->open = atomic_load(&p->open);
	status->backlog = __atomic_load_n(&p->d->maps.control->in_flight, __ATOMIC_ACQUIRE);
	status->durable = atomic_load(&p->durable);
	status->refused = atomic_load(&p->refused);
	status->reconnects = atomic_load(&p->reconnects);
	pthread_mutex_lock(&p->lock);
	memcpy(status->ledger, p->ledger, sizeof(status->ledger));
	memcpy(status->store, p->store, sizeof(status->store));
	memcpy(status->failure, p->failure, sizeof(status->failure));
	if (!status->open)
		say_why_closed(p, status->why_closed, sizeof(status->why_closed));
	status->drain_per_second = p->drain.per_second;
	status->commit_s = p->drain.commit_ns / 1e9;
	pthread_mutex_unlock(&p->lock);
}
