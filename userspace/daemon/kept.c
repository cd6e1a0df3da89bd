/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See kept.h: documents, limits, and the thread that writes what could not be written when it was set. */
#include "daemon/kept.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/answers_state.h"
#include "daemon/limits_kept.h"
#include "daemon/pipeline.h"
#include "daemon/shadow.h"

#define STEP_MS 200
/* Entries of lists whose time is over leave the ledger when gate and ledger are compared. */
#define COMPARE_NS 3600000000000ULL

static struct {
	pthread_t thread;
	atomic_bool running;
	atomic_bool is_stalled; /* the writer has not answered in time */
	atomic_bool limits_differ;
	pthread_mutex_t limits_lock; /* what is written last is what is in force */
	char *limits;                /* the ledger's document; NULL = none */
} kept = {.limits_lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local bool is_own_thread;

json_t *kept_note(json_t *answer, bool is_durable)
{
	if (answer && !is_durable)
		json_object_set_new(answer, "not_durable", json_true());
	return answer;
}

struct question *kept_ask_start(struct daemon *d, json_t *question)
{
	int error;

	if (!atomic_load(&kept.is_stalled) || is_own_thread)
		return pipeline_ask_start(d->pipeline, question, NULL, NULL, &error);
	json_decref(question);
	return NULL;
}

json_t *kept_ask_wait(struct daemon *d, struct question *question)
{
	struct pipeline_answer answer;

	if (!question)
		return NULL;
	pipeline_ask_wait(d->pipeline, question, &answer);
	if (answer.error == -EREMOTEIO)
		log_error("the order writer does not keep what is set (%s: %s)", answer.code, answer.detail);
	atomic_store(&kept.is_stalled, answer.error == -ETIMEDOUT);
	return answer.json;
}

json_t *kept_ask(struct daemon *d, json_t *question)
{
	return kept_ask_wait(d, kept_ask_start(d, question));
}

bool kept_write_document(struct daemon *d, const char *name, const char *text)
{
	json_t *answer = kept_ask(d, json_pack("{s:s, s:s, s:s}", "op", "document_put", "name", name, "value", text));
	bool is_written = answer;

	json_decref(answer);
	return is_written;
}

/* --- limits --------------------------------------------------------------------------------------------------------------------- */
static int read_state(const struct daemon *d, struct limits_state *state)
{
	__u32 zero = 0;

	state->shadow = shadow_flags(d);
	state->kept = __atomic_load_n(&d->maps.control->kept, __ATOMIC_ACQUIRE);
	return bpf_map_lookup_elem(d->maps.limits, &zero, &state->limits);
}

/* The ledger says so already; or has no document, and there is nothing to say. */
static bool is_known(const struct limits_state *state, const char *text)
{
	return kept.limits
		? !strcmp(text, kept.limits)
		: state->kept == SLUICE_KEPT_LIMITS || state->kept == (SLUICE_KEPT_LIMITS | SLUICE_KEPT_LISTS);
}

bool kept_write_limits(struct daemon *d)
{
	struct limits_state state;
	bool is_durable;
	char *text;

	pthread_mutex_lock(&kept.limits_lock);
	text = read_state(d, &state) ? NULL : limits_kept_text(&state);
	is_durable = text && state.kept & SLUICE_KEPT_LIMITS &&
		(is_known(&state, text) || kept_write_document(d, KEPT_LIMITS, text));
	atomic_store(&kept.limits_differ, !is_durable);
	/* What was not answered may be written all the same: then it is not known what the ledger has. */
	free(kept.limits);
	kept.limits = is_durable ? text : strdup("");
	if (!is_durable)
		free(text);
	pthread_mutex_unlock(&kept.limits_lock);
	return is_durable;
}

/* What is as the config has it needs no keeping. Not so before the ledger was read: there it is what counts against the ledger's. */
static uint64_t of_config(const struct daemon *d, const struct limits_state *state, uint64_t set)
{
	uint64_t back = 0;

	for (unsigned which = 0; which < SHADOW_SWITCHES; which++) {
		struct sluice_limit limit = {0};

		if (which < SLUICE_LIMIT_COUNT && set & SLUICE_KEPT_RATE(which)) {
			config_limit_to_gate(&d->config.limits[which], &limit);
			if (!memcmp(&limit, &state->limits.limit[which], sizeof(limit)))
				back |= SLUICE_KEPT_RATE(which);
		}
		if (set & SLUICE_KEPT_SHADOW(which) && !(state->shadow & shadow_flag(which)))
			back |= SLUICE_KEPT_SHADOW(which);
	}
	return back;
}

void kept_mark_limits(struct daemon *d, uint64_t set)
{
	struct limits_state state;
	uint64_t back = 0;

	if (!read_state(d, &state) && state.kept & SLUICE_KEPT_LIMITS)
		back = of_config(d, &state, set);
	__atomic_fetch_or(&d->maps.control->kept, set & ~back, __ATOMIC_SEQ_CST);
	__atomic_fetch_and(&d->maps.control->kept, ~back, __ATOMIC_SEQ_CST);
}

static void log_restored(const struct limits_state *before, const struct limits_state *after)
{
	for (unsigned which = 0; which < SLUICE_LIMIT_COUNT; which++) {
		struct config_limit limit;

		if (!((after->kept & ~before->kept) & SLUICE_KEPT_RATE(which)))
			continue;
		config_limit_from_gate(&after->limits.limit[which], &limit);
		log_info("limit %s: %g/s, burst %u, as it was set before this gate was attached", shadow_name(which),
			limit.rate, limit.burst);
	}
}

int kept_restore_limits(struct daemon *d, const char *text)
{
	struct limits_state before, state;
	char error[256] = "";
	__u32 zero = 0;
	int err, wrong = 0;

	pthread_mutex_lock(&kept.limits_lock);
	free(kept.limits);
	kept.limits = text ? strdup(text) : NULL;
	pthread_mutex_unlock(&kept.limits_lock);
	atomic_store(&kept.limits_differ, true);
	pthread_mutex_lock(&d->change_lock);
	err = read_state(d, &before);
	if (err || before.kept & SLUICE_KEPT_LIMITS)
		goto out;
	state = before;
	if (text)
		wrong = limits_kept_read(text, &state, error, sizeof(error));
	if (wrong)
		log_error(
			"the ledger's limits are not in force, those of the config file are: %s; put aside as " KEPT_LIMITS
				KEPT_ASIDE,
			error);
	err = bpf_map_update_elem(d->maps.limits, &zero, &state.limits, BPF_ANY);
	if (!err) {
		shadow_change(d, state.shadow & ~before.shadow, before.shadow & ~state.shadow);
		log_restored(&before, &state);
		__atomic_fetch_or(&d->maps.control->kept, state.kept | SLUICE_KEPT_LIMITS, __ATOMIC_SEQ_CST);
	}
out:
	pthread_mutex_unlock(&d->change_lock);
	if (err)
		log_error("the gate's limits cannot be changed: %s", strerror(-err));
	return wrong;
}

/* --- the thread ----------------------------------------------------------------------------------------------------------------- */
/* Without a lock: nobody who sets something waits for the answer. */
static bool writer_answers(struct daemon *d)
{
	json_t *answer;

	if (!atomic_load(&kept.is_stalled))
		return true;
	answer = kept_ask(d, json_pack("{s:s}", "op", "documents_list"));
	json_decref(answer);
	return answer;
}

static void *kept_run(void *arg)
{
	struct daemon *d = arg;
	uint64_t compared_ns = time_mono_ns();

	pthread_setname_np(pthread_self(), "kept");
	is_own_thread = true;
	while (atomic_load(&kept.running)) {
		if (atomic_load(&d->sales_known) && writer_answers(d)) {
			if (atomic_load(&kept.limits_differ))
				kept_write_limits(d);
			answers_write_again(d);
			if (time_mono_ns() - compared_ns > COMPARE_NS) {
				compared_ns = time_mono_ns();
				kept_lists_differ();
			}
			kept_lists_settle(d);
		}
		nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
	}
	return NULL;
}

int kept_start(struct daemon *d)
{
	int err;

	atomic_store(&kept.running, true);
	err = pthread_create(&kept.thread, NULL, kept_run, d);
	if (err)
		atomic_store(&kept.running, false);
	return -err;
}

void kept_stop(void)
{
	if (atomic_exchange(&kept.running, false))
		pthread_join(kept.thread, NULL);
	pthread_mutex_lock(&kept.limits_lock);
	free(kept.limits);
	kept.limits = NULL;
	pthread_mutex_unlock(&kept.limits_lock);
}
