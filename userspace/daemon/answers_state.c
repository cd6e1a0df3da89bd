/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The operator's answers: the ledger's document "answers", its copy answers.json in the state directory, and the two banks of the gate's map "answers".
 * Called by main.c at the start, by recovery_kept.c when the ledger is there, by control_answers.c for changes, by http.c for what is in use.
 *
 * The ledger's document is what counts. The copy is for the time in which the writer is away, at a start above all: the right origin for the
 * sale page and the answers of the shop are wanted then more than ever. A change that the ledger has not is marked in it ("unsaved"), and then it counts.
 *
 * The answer wrong_node has besides its place in "answers" one for each node of the fleet, in map "homes": the same with the node's address. They
 * follow the bank of that answer.
 *
 * The promise is that no reader ever sends a mixture of two answers. A change goes into the bank that is not in use, and one store of
 * control.answer_banks makes it the one in use, for all answers at once. That leaves readers who looked at the word just before the last
 * store and still read the bank it took out of use; before that bank is written again,
 * - the gate's programs are waited for: they run inside of an RCU read-side section, and membarrier(MEMBARRIER_CMD_GLOBAL) returns when
 *   every such section that was open has ended (membarrier(2): it is the kernel's synchronize_rcu);
 * - our own threads notice by `rewrites`, and read again.
 */
#include "daemon/answers_state.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/maps.h"
#include "daemon/kept.h"

#define FILE_NAME "answers.json"
#define FILE_VERSION 1
/* Where there is no membarrier: far longer than a program can run, interrupts and a busy hypervisor included. */
#define GRACE_NS 100000000L

static struct {
	pthread_mutex_t lock;
	json_t *custom[SLUICE_ANSWER_COUNT];
	bool origin_is_set;
	bool is_partial;              /* the file may hold more of the operator's than is known here */
	bool is_unsaved;              /* the ledger has something else, or it is not known what */
	pthread_rwlock_t origin_lock; /* for `origin` alone, which every HTTP answer wants */
	char origin[ANSWER_ORIGIN_SIZE];
	atomic_uint rewrites; /* how often a bank was begun to be written */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .origin_lock = PTHREAD_RWLOCK_INITIALIZER};

/* What a change would make of the state. */
struct wanted {
	json_t *custom[SLUICE_ANSWER_COUNT]; /* borrowed */
	bool origin_is_set;
	bool is_unsaved;
	char origin[ANSWER_ORIGIN_SIZE];
};

void answers_lock(void)
{
	pthread_mutex_lock(&state.lock);
}

void answers_unlock(void)
{
	pthread_mutex_unlock(&state.lock);
}

const json_t *answers_custom(enum sluice_answer code)
{
	return state.custom[code];
}

bool answers_origin_is_set(void)
{
	return state.origin_is_set;
}

void answers_origin(char *origin)
{
	pthread_rwlock_rdlock(&state.origin_lock);
	memcpy(origin, state.origin, sizeof(state.origin));
	pthread_rwlock_unlock(&state.origin_lock);
}

static void set_origin(const char *origin)
{
	pthread_rwlock_wrlock(&state.origin_lock);
	snprintf(state.origin, sizeof(state.origin), "%s", origin);
	pthread_rwlock_unlock(&state.origin_lock);
}

/* --- the form of an answer ------------------------------------------------------------------------------------------------------ */
static __attribute__((format(printf, 3, 4))) const char *say(char *error, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, size, format, args);
	va_end(args);
	return error;
}

static const char *read_headers(const json_t *headers, struct answer_custom *custom, char *error, size_t size)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)headers, name, value) {
		if (!json_is_string(value))
			return say(error, size, "%.40s must be a text", name);
		if (custom->headers < ANSWER_HEADERS_MAX) {
			custom->header[custom->headers].name = name;
			custom->header[custom->headers].value = json_string_value(value);
		}
		custom->headers++; /* one too many is noticed by answer_check */
	}
	return NULL;
}

const char *answers_read_custom(enum sluice_answer code, const json_t *json, struct answer_custom *custom,
	const char **field, unsigned *status, char *error, size_t size)
{
	const json_t *body = json_object_get(json, "body"), *type = json_object_get(json, "content_type");
	const json_t *headers = json_object_get(json, "headers");
	const char *name, *wrong;
	json_t *value;

	*status = 400;
	json_object_foreach((json_t *)(uintptr_t)json, name, value) {
		*field = name;
		if (strcmp(name, "body") != 0 && strcmp(name, "content_type") != 0 && strcmp(name, "headers") != 0)
			return say(error, size, "there is no field \"%.40s\" here", name);
	}
	*field = "body";
	if (!json_is_string(body))
		return say(error, size, body ? "it must be a text" : "it is missing");
	*field = "content_type";
	if (type && !json_is_string(type))
		return say(error, size, "it must be a text");
	*field = "headers";
	if (headers && !json_is_object(headers))
		return say(error, size, "it must be an object such as {\"X-Shop\":\"drop\"}");
	*custom = (struct answer_custom){
		.body = json_string_value(body), .content_type = type ? json_string_value(type) : ANSWER_TYPE_DEFAULT};
	wrong = headers ? read_headers(headers, custom, error, size) : NULL;
	if (wrong)
		return wrong;
	*status = 422;
	return answer_check(code, custom, field, error, size);
}

/* --- the gate ------------------------------------------------------------------------------------------------------------------- */
/* Entry `place` of a map with two banks of `count`, in the bank in use of `code`. */
static int read_bank(const struct gate_maps *maps, int fd, enum sluice_answer code, __u32 count, __u32 place,
	struct sluice_answer_bytes *out)
{
	for (;;) {
		unsigned before = atomic_load(&state.rewrites);
		__u32 bank = __atomic_load_n(&maps->control->answer_banks, __ATOMIC_ACQUIRE) >> code & 1;
		__u32 index = bank * count + place;
		int err = bpf_map_lookup_elem(fd, &index, out);

		atomic_thread_fence(memory_order_seq_cst);
		/* What was begun before we looked is in the bank that was not in use. What has begun since may be in ours. */
		if (err || atomic_load(&state.rewrites) == before)
			return err;
	}
}

int answers_read(const struct gate_maps *maps, enum sluice_answer code, struct sluice_answer_bytes *out)
{
	return read_bank(maps, maps->answers, code, SLUICE_ANSWER_COUNT, (__u32)code, out);
}

int answers_read_home(const struct gate_maps *maps, uint32_t node, struct sluice_answer_bytes *out)
{
	int err = -ENOENT;

	if (node < SLUICE_HOMES)
		err = read_bank(maps, maps->homes, SLUICE_ANSWER_WRONG_NODE, SLUICE_HOMES, node, out);
	return !err && out->len ? 0 : answers_read(maps, SLUICE_ANSWER_WRONG_NODE, out);
}

static void wait_for_readers(void)
{
	struct timespec left = {.tv_nsec = GRACE_NS};

	if (!syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		return;
	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

/* What is to be in the maps. */
struct rendered {
	struct sluice_answer_bytes answers[SLUICE_ANSWER_COUNT];
	struct sluice_answer_bytes homes[SLUICE_HOMES]; /* all zero: no such node */
};

/* The longest URL makes the longest answer; all are tried all the same. */
static int render_homes(const struct daemon *d, const struct wanted *wanted, const struct answer_custom *custom,
	struct sluice_answer_bytes *homes, struct answers_fault *fault)
{
	for (unsigned i = 0; i < d->config.node_count; i++) {
		const struct config_node *node = &d->config.nodes[i];
		int err = answer_render_home(node->url, wanted->origin, custom, &homes[node->id], &fault->size);

		if (err)
			return err;
	}
	return 0;
}

static int render(
	const struct daemon *d, const struct wanted *wanted, struct rendered *all, struct answers_fault *fault)
{
	for (unsigned code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++) {
		struct answer_custom custom, *ours = wanted->custom[code] ? &custom : NULL;
		const char *field;
		unsigned status;
		char error[256];
		int err;

		if (ours &&
			answers_read_custom((enum sluice_answer)code, wanted->custom[code], &custom, &field, &status,
				error, sizeof(error)))
			return -EINVAL;
		fault->code = (enum sluice_answer)code;
		err = answer_render_custom(
			(enum sluice_answer)code, wanted->origin, ours, &all->answers[code], &fault->size);
		if (!err && code == SLUICE_ANSWER_WRONG_NODE)
			err = render_homes(d, wanted, ours, all->homes, fault);
		if (err)
			return err;
	}
	return 0;
}

/* Sets bits in `changed` for those that are not in use as they should be. */
static int find_changed(const struct gate_maps *maps, __u32 banks, const struct rendered *all, __u32 *changed)
{
	struct sluice_answer_bytes present;
	int err = 0;

	for (__u32 code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT && !err; code++) {
		__u32 index = (banks >> code & 1) * SLUICE_ANSWER_COUNT + code;

		err = bpf_map_lookup_elem(maps->answers, &index, &present);
		if (!err && memcmp(&present, &all->answers[code], sizeof(present)) != 0)
			*changed |= 1u << code;
	}
	for (__u32 node = 0; node < SLUICE_HOMES && !err; node++) {
		__u32 index = (banks >> SLUICE_ANSWER_WRONG_NODE & 1) * SLUICE_HOMES + node;

		err = bpf_map_lookup_elem(maps->homes, &index, &present);
		if (!err && memcmp(&present, &all->homes[node], sizeof(present)) != 0)
			*changed |= 1u << SLUICE_ANSWER_WRONG_NODE;
	}
	return err;
}

static int write_homes(const struct gate_maps *maps, __u32 bank, const struct rendered *all)
{
	int err = 0;

	for (__u32 node = 0; node < SLUICE_HOMES && !err; node++) {
		__u32 index = bank * SLUICE_HOMES + node;

		err = bpf_map_update_elem(maps->homes, &index, &all->homes[node], BPF_ANY);
	}
	return err;
}

/* Makes these the answers in use. On an error those before stay. */
static int publish(const struct gate_maps *maps, const struct rendered *all)
{
	__u32 banks = __atomic_load_n(&maps->control->answer_banks, __ATOMIC_ACQUIRE), changed = 0;
	int failed = find_changed(maps, banks, all, &changed);

	if (failed || !changed)
		return failed;
	wait_for_readers();
	atomic_fetch_add(&state.rewrites, 1);
	atomic_thread_fence(memory_order_seq_cst);
	for (__u32 code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++) {
		__u32 index = (~banks >> code & 1) * SLUICE_ANSWER_COUNT + code;
		int err = changed >> code & 1 ? bpf_map_update_elem(maps->answers, &index, &all->answers[code], BPF_ANY)
					      : 0;

		if (!err && code == SLUICE_ANSWER_WRONG_NODE && changed >> code & 1)
			err = write_homes(maps, ~banks >> code & 1, all);
		if (err)
			return err;
	}
	__atomic_store_n(&maps->control->answer_banks, banks ^ changed, __ATOMIC_RELEASE);
	return 0;
}

/* --- the file ------------------------------------------------------------------------------------------------------------------- */
static void file_path(const struct daemon *d, char path[PATH_MAX], const char *suffix)
{
	snprintf(path, PATH_MAX, "%s/" FILE_NAME "%s", d->config.daemon.state_dir, suffix);
}

static json_t *to_json(const struct wanted *wanted)
{
	json_t *answers = json_object(), *json;

	for (unsigned code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++)
		if (wanted->custom[code])
			json_object_set(answers, answer_code(code), wanted->custom[code]);
	json = json_pack("{s:i, s:o}", "version", FILE_VERSION, "answers", answers);
	if (json && wanted->origin_is_set)
		json_object_set_new(json, "cors_origin", json_string(wanted->origin));
	if (json && wanted->is_unsaved)
		json_object_set_new(json, "unsaved", json_true());
	return json;
}

static int put_aside(const char *path, const char *aside)
{
	return rename(path, aside) && errno != ENOENT ? -errno : 0;
}

static int save(const struct daemon *d, const struct wanted *wanted)
{
	char path[PATH_MAX], aside[PATH_MAX], *text;
	json_t *json = to_json(wanted);
	bool moved;
	int err = 0;

	text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	if (!text)
		return -ENOMEM;
	file_path(d, path, "");
	file_path(d, aside, ".rejected");
	if (state.is_partial)
		err = put_aside(path, aside);
	moved = state.is_partial && !err;
	if (!err)
		err = file_replace(path, text, strlen(text));
	/* Without it a crash of the machine may bring the file of before back; that is no reason to say that nothing was changed. */
	if (err > 0)
		log_warn("cannot sync the directory of %s", path);
	if (err >= 0)
		state.is_partial = false;
	else if (moved)
		put_aside(aside, path); /* back */
	free(text);
	return err < 0 ? err : 0;
}

/* Takes the document apart. Returns NULL or what is wrong with it. */
static const char *read_document(const json_t *json, struct wanted *wanted, char *error, size_t size)
{
	const json_t *origin = json_object_get(json, "cors_origin"), *answers = json_object_get(json, "answers");
	const char *name;
	json_t *value;

	if (json_integer_value(json_object_get(json, "version")) != FILE_VERSION || !json_is_object(answers))
		return say(error, size, "it is not of this version");
	if (origin && (!json_is_string(origin) || !answer_origin_is_valid(json_string_value(origin))))
		return say(error, size, "cors_origin is not an origin");
	if (origin) {
		wanted->origin_is_set = true;
		snprintf(wanted->origin, sizeof(wanted->origin), "%s", json_string_value(origin));
	}
	wanted->is_unsaved = json_is_true(json_object_get(json, "unsaved"));
	json_object_foreach((json_t *)(uintptr_t)answers, name, value) {
		enum sluice_answer code = answer_of_code(name);
		struct answer_custom custom;
		const char *field;
		char reason[192];
		unsigned status;

		if (code == SLUICE_ANSWER_NONE)
			return say(error, size, "there is no answer \"%.40s\"", name);
		if (answers_read_custom(code, value, &custom, &field, &status, reason, sizeof(reason)))
			return say(error, size, "%s: %s: %s", name, field, reason);
		wanted->custom[code] = value;
	}
	return NULL;
}

static void remember(const struct wanted *wanted)
{
	for (unsigned code = 0; code < SLUICE_ANSWER_COUNT; code++) {
		json_incref(wanted->custom[code]);
		json_decref(state.custom[code]);
		state.custom[code] = wanted->custom[code];
	}
	state.origin_is_set = wanted->origin_is_set;
	set_origin(wanted->origin);
}

/* --- the ledger ----------------------------------------------------------------------------------------------------------------- */
static void copy_state(struct wanted *wanted)
{
	memcpy(wanted->custom, state.custom, sizeof(wanted->custom));
	wanted->origin_is_set = state.origin_is_set;
	answers_origin(wanted->origin);
}

/* The lock is held. */
static bool write_ledger(struct daemon *d)
{
	struct wanted now = {0};
	json_t *json;
	char *text;
	bool is_written;

	copy_state(&now);
	json = to_json(&now);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	is_written = text && kept_write_document(d, KEPT_ANSWERS, text);
	free(text);
	return is_written;
}

/* In the file, too: the ledger knows what it says. The lock is held. */
static void mark_saved(struct daemon *d)
{
	struct wanted now = {0};
	int err;

	copy_state(&now);
	err = save(d, &now);
	if (err)
		log_error("cannot write %s/" FILE_NAME ": %s", d->config.daemon.state_dir, strerror(-err));
}

bool answers_are_durable(void)
{
	return !state.is_unsaved;
}

/* What is known here in part is not written over what is there whole; the next change is. */
void answers_write_again(struct daemon *d)
{
	answers_lock();
	if (state.is_unsaved && !state.is_partial && write_ledger(d)) {
		state.is_unsaved = false;
		mark_saved(d);
	}
	answers_unlock();
}

/* --- changes -------------------------------------------------------------------------------------------------------------------- */
/* Everything changes, or nothing: the file, then the gate, then what we remember. Then the ledger, which may be away. `custom` of `wanted` is
 * borrowed.
 */
static int change(struct daemon *d, const struct wanted *wanted, struct answers_fault *fault)
{
	struct rendered *all = calloc(1, sizeof(*all));
	struct wanted before = {0};
	int err = all ? render(d, wanted, all, fault) : -ENOMEM;

	copy_state(&before);
	before.is_unsaved = state.is_unsaved;
	if (!err)
		err = save(d, wanted);
	if (!err) {
		err = publish(&d->maps, all);
		if (err && save(d, &before))
			log_error("cannot take a change of %s/" FILE_NAME " back: it comes with the next start",
				d->config.daemon.state_dir);
	}
	free(all);
	if (err)
		return err;
	remember(wanted);
	state.is_unsaved = !write_ledger(d);
	if (!state.is_unsaved)
		mark_saved(d);
	return 0;
}

int answers_set(struct daemon *d, enum sluice_answer code, json_t *custom, struct answers_fault *fault)
{
	struct wanted wanted = {0};
	int err;

	copy_state(&wanted);
	wanted.is_unsaved = true;
	wanted.custom[code] = custom;
	err = change(d, &wanted, fault);
	json_decref(custom);
	return err;
}

int answers_set_origin(struct daemon *d, const char *origin, struct answers_fault *fault)
{
	struct wanted wanted = {0};

	copy_state(&wanted);
	wanted.is_unsaved = true;
	wanted.origin_is_set = origin != NULL;
	snprintf(wanted.origin, sizeof(wanted.origin), "%s", origin ? origin : d->config.daemon.cors_origin);
	return change(d, &wanted, fault);
}

/* --- start ---------------------------------------------------------------------------------------------------------------------- */
static int adopt(struct daemon *d, const struct wanted *wanted, struct answers_fault *fault)
{
	struct rendered *all = calloc(1, sizeof(*all));
	int err = all ? render(d, wanted, all, fault) : -ENOMEM;

	if (!err)
		err = publish(&d->maps, all);
	free(all);
	if (!err)
		remember(wanted);
	return err;
}

/* An answer that does not fit any more (the origin in the config has become longer, or what this version adds) is left out; the others are used. */
static void adopt_what_fits(struct daemon *d, struct wanted *wanted)
{
	struct answers_fault fault = {0};
	int err;

	while ((err = adopt(d, wanted, &fault)) == -EMSGSIZE && wanted->custom[fault.code]) {
		log_error(
			"the operator's answer %s is not in force: with its headers it has %zu bytes, and %d is the limit",
			answer_code(fault.code), fault.size, SLUICE_ANSWER_MAX);
		wanted->custom[fault.code] = NULL;
		state.is_partial = true;
	}
	if (!err)
		return;
	log_error("the answers stay as they are in the gate: %s", strerror(-err));
	state.is_partial = true;
}

struct source {
	int fd, err;
};

static size_t read_some(void *buffer, size_t size, void *arg)
{
	struct source *source = arg;
	ssize_t n;

	do
		n = read(source->fd, buffer, size);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		source->err = -errno;
	return (size_t)n;
}

/* Returns 0, -ENOENT, -EINVAL (it was read, and is not JSON) with a sentence, or another negative errno: what it holds is not known. */
static int read_file(const char *path, json_t **json, char *error, size_t size)
{
	struct source source = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
	json_error_t at;

	if (source.fd < 0)
		return -errno;
	*json = json_load_callback(read_some, &source, JSON_REJECT_DUPLICATES, &at);
	close(source.fd);
	if (*json || source.err)
		return source.err;
	if (json_error_code(&at) == json_error_out_of_memory)
		return -ENOMEM;
	say(error, size, "%s (line %d)", at.text, at.line);
	return -EINVAL;
}

/* Only what was read and is wrong is put aside. What could not be read may be good: it stays, and is used at the next start. */
void answers_start(struct daemon *d)
{
	char path[PATH_MAX], aside[PATH_MAX], error[512] = "";
	struct wanted wanted = {0}, defaults = {0};
	json_t *json = NULL;
	int err;

	file_path(d, path, "");
	file_path(d, aside, ".rejected");
	snprintf(defaults.origin, sizeof(defaults.origin), "%s", d->config.daemon.cors_origin);
	wanted = defaults;
	answers_lock();
	state.is_partial = false;
	err = read_file(path, &json, error, sizeof(error));
	if (!err && read_document(json, &wanted, error, sizeof(error)))
		err = -EINVAL;
	if (err == -EINVAL) {
		log_error("the operator's answers are not in force: %s: %s; put aside as %s", path, error, aside);
		err = put_aside(path, aside);
		if (err)
			log_error("cannot put %s aside: %s", path, strerror(-err));
		wanted = defaults;
	} else if (err && err != -ENOENT) {
		log_error("the operator's answers are not in force: cannot read %s: %s; it stays for the next start",
			path, strerror(-err));
		state.is_partial = true;
	}
	state.is_unsaved = wanted.is_unsaved;
	adopt_what_fits(d, &wanted);
	json_decref(json);
	answers_unlock();
}

static bool is_of_operator(void)
{
	bool any = state.origin_is_set;

	for (unsigned code = 0; code < SLUICE_ANSWER_COUNT; code++)
		any |= state.custom[code] != NULL;
	return any;
}

/* The lock is held. */
static int take_document(struct daemon *d, const char *text)
{
	struct wanted wanted = {0};
	char error[512] = "";
	json_error_t at;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &at);
	int err = 0;

	snprintf(wanted.origin, sizeof(wanted.origin), "%s", d->config.daemon.cors_origin);
	if (!json) {
		say(error, sizeof(error), "%s", at.text);
		err = -EINVAL;
	} else if (read_document(json, &wanted, error, sizeof(error))) {
		err = -EINVAL;
	}
	if (err) {
		log_error("the ledger's answers are not in force, those of " FILE_NAME
			  " are, if there are any: %s; put aside as " KEPT_ANSWERS KEPT_ASIDE,
			error);
		state.is_unsaved = true;
	} else {
		state.is_partial = false;
		adopt_what_fits(d, &wanted);
		if (!state.is_partial)
			mark_saved(d);
	}
	json_decref(json);
	return err;
}

int answers_restore(struct daemon *d, const char *text)
{
	int err = 0;

	answers_lock();
	if (!text)
		state.is_unsaved |= is_of_operator();
	else if (!state.is_unsaved)
		err = take_document(d, text);
	answers_unlock();
	return err;
}

void answers_stop(void)
{
	for (unsigned code = 0; code < SLUICE_ANSWER_COUNT; code++) {
		json_decref(state.custom[code]);
		state.custom[code] = NULL;
	}
}
