/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The fleet's keys on this node: a part of the fleet's rounds (fleet.h), asked by start, pipeline, issue and the control API.
 *
 * All nodes derive the same keys from one secret; through Redis go only the numbers of keys (scripts/keys.lua). A rotation has two phases: every node
 * accepts the next key, and when all have said so, all sign with it. The gate has two slots, so accepting the next key gives up the one before the
 * current; each node therefore tells when its tokens of that one are over, by its own clock, and no rotation begins before.
 *
 * What this node uses is in the file `fleet.keys` of the state directory, written before it is used. A daemon neither opens orders nor makes tokens
 * before it has once learned what its fleet uses: it may have been away in a rotation.
 */
#include "daemon/fleet_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet.h"
#include "daemon/issue.h"
#include "fleet/secret.h"

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define TELL_EVERY_NS \
	(10 * NS_PER_S) /* how late others hear that tokens of a key are over; what is new is seen with the report of fleet_nodes.c */
#define ROTATION_EVERY_NS (NS_PER_S / 2) /* while others are waited for */
#define NEWS_EVERY_NS (250 * NS_PER_MS)  /* messages come for other parts too */
#define SIGN_SLACK_S 2                   /* for a token that is sealed with the old key while it is being replaced */
#define SAY_AGAIN_NS (60 * NS_PER_S)
#define FILE_TITLE "sluice-fleet-keys 1"
#define FILE_MAX 256
#define FIRST_KEY 1
#define MEMBERS_MAX (4 * CONFIG_NODES_MAX + 1)
#define NUMBER_MAX 24
#define NODE_FIELDS 4 /* of each node in an answer */
#define NODES_AT 4    /* where they begin */
#define NOBODY "-"

struct rotation {
	bool force;
	char without[MEMBERS_MAX];
	enum { ROTATION_NONE, ROTATION_WANTED, ROTATION_ASKED, ROTATION_ANSWERED } state;
	int result;
	struct fleet_keys_refusal refusal;
};

struct fleet_keys {
	struct fleet_secret secret;
	char fingerprint[FLEET_FINGERPRINT_DIGITS + 1];
	char members[MEMBERS_MAX];
	char path[PATH_MAX];
	atomic_int standing;      /* enum fleet_keys_standing */
	pthread_mutex_t rotating; /* one asker at a time */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	struct fleet_keys_view view;
	bool has_view, stopped;
	struct rotation rotation;
	/* of the fleet's thread, after the start */
	struct fleet_key_numbers numbers;
	bool sure; /* this node has agreed with a fleet of this secret before */
	bool has_failed_to_save;
	uint64_t due_ns, told_ns, said_ns;
};

/* --- the file ------------------------------------------------------------------------------------------------------------------ */
static int save(struct fleet_keys *k, const struct fleet_key_numbers *numbers, bool sure)
{
	char text[FILE_MAX];
	int length = snprintf(text, sizeof(text),
		FILE_TITLE "\ncurrent %u\naccepted %u\nover_at %" PRIu64 "\nagreed %s\nend\n", numbers->current,
		numbers->accepted, numbers->over_at_s, sure ? k->fingerprint : NOBODY);
	int err = file_replace(k->path, text, (size_t)length);

	if (err < 0 && !k->has_failed_to_save)
		log_error("cannot write %s: %s. The keys in use stay, and a rotation waits for this node", k->path,
			strerror(-err));
	k->has_failed_to_save = err < 0;
	return err < 0 ? err : 0;
}

static bool scan(const char *text, struct fleet_key_numbers *numbers, char agreed[FLEET_FINGERPRINT_DIGITS + 1])
{
	int end = -1;

	return sscanf(text, FILE_TITLE " current %u accepted %u over_at %" SCNu64 " agreed %16s end %n",
		       &numbers->current, &numbers->accepted, &numbers->over_at_s, agreed, &end) == 4 &&
		end >= 0 && !text[end] && numbers->current >= FIRST_KEY && numbers->accepted >= numbers->current &&
		numbers->accepted - numbers->current <= 1;
}

static int load(struct fleet_keys *k, bool *is_new, char *error, size_t error_size)
{
	char text[FILE_MAX + 1] = "", agreed[FLEET_FINGERPRINT_DIGITS + 1];
	int fd = open(k->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), err;
	ssize_t n;

	*is_new = false;
	if (fd < 0 && errno == ENOENT) {
		*is_new = true;
		k->numbers = (struct fleet_key_numbers){.current = FIRST_KEY, .accepted = FIRST_KEY};
		return 0;
	}
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	err = n < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	if (err) {
		snprintf(error, error_size, "cannot read %s: %s", k->path, strerror(-err));
		return err;
	}
	if ((size_t)n != strlen(text) || !scan(text, &k->numbers, agreed)) {
		snprintf(error, error_size,
			"%s is damaged: it says which keys this node uses. Restore it, or remove it: then the node asks its fleet, and a "
			"rotation may come too early for tokens of before",
			k->path);
		return -EINVAL;
	}
	k->sure = !strcmp(agreed, k->fingerprint);
	if (!k->sure && strcmp(agreed, NOBODY) != 0)
		log_warn(
			"the fleet's secret is another one than before: tokens that were issued with the former one are refused");
	return 0;
}

/* --- start and end --------------------------------------------------------------------------------------------------------------- */
static void list_members(const struct config *config, char *members)
{
	size_t used = 0;

	*members = '\0';
	for (unsigned i = 0; i < config->node_count; i++)
		used += (size_t)snprintf(
			members + used, MEMBERS_MAX - used, "%s%u", used ? "," : "", (unsigned)config->nodes[i].id);
}

int fleet_keys_open(struct daemon *d, char *error, size_t error_size)
{
	const struct config *config = &d->config;
	struct fleet_keys *k = calloc(1, sizeof(*k));
	char path[PATH_MAX];
	bool is_new;
	int err;

	if (!k) {
		snprintf(error, error_size, "no memory");
		return -ENOMEM;
	}
	pthread_mutex_init(&k->rotating, NULL);
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->changed, NULL);
	atomic_store(&k->standing, FLEET_KEYS_UNASKED);
	d->fleet_keys = k;
	if (*config->fleet.secret_file)
		snprintf(path, sizeof(path), "%s", config->fleet.secret_file);
	else
		snprintf(path, sizeof(path), "%s/fleet.secret", config->daemon.state_dir);
	err = fleet_secret_load(&k->secret, path, error, error_size);
	if (err)
		return err;
	fleet_secret_fingerprint(&k->secret, k->fingerprint);
	list_members(config, k->members);
	snprintf(k->path, sizeof(k->path), "%s/fleet.keys", config->daemon.state_dir);
	err = load(k, &is_new, error, error_size);
	if (err)
		return err;
	if (is_new && !access(d->keys_path, F_OK))
		log_warn("this node has joined a fleet: tokens that it issued before are refused");
	fleet_keys_derive(&k->secret, &k->numbers, &d->keys);
	return 0;
}

void fleet_keys_stop(struct daemon *d)
{
	struct fleet_keys *k = d->fleet_keys;

	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stopped = true;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
}

void fleet_keys_close(struct daemon *d)
{
	struct fleet_keys *k = d->fleet_keys;

	if (!k)
		return;
	d->fleet_keys = NULL;
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->lock);
	pthread_mutex_destroy(&k->rotating);
	explicit_bzero(&k->secret, sizeof(k->secret));
	free(k);
}

enum fleet_keys_standing fleet_keys_standing(const struct daemon *d)
{
	return (enum fleet_keys_standing)atomic_load(&d->fleet_keys->standing);
}

/* --- following the fleet ----------------------------------------------------------------------------------------------------------- */
/* A key that others sign with already is in the gate since the first phase. Only a node that was away in it finds both at once. */
static void use_keys(struct daemon *d, const struct fleet_key_numbers *numbers)
{
	struct token_keys keys;

	fleet_keys_derive(&d->fleet_keys->secret, numbers, &keys);
	pthread_rwlock_wrlock(&d->keys_lock);
	memcpy(d->keys.slot, keys.slot, sizeof(keys.slot));
	d->keys.current = keys.current;
	pthread_rwlock_unlock(&d->keys_lock);
	explicit_bzero(&keys, sizeof(keys));
	issue_publish_keys(d);
}

/* Returns true if this node uses what the fleet does. */
static bool follow(struct daemon *d, uint32_t current, uint32_t next)
{
	struct fleet_keys *k = d->fleet_keys;
	struct fleet_key_numbers numbers = k->numbers;
	uint64_t latest_s;

	/* How long tokens of the key before may live, the ledger's sales say. */
	if (!atomic_load(&d->sales_known))
		return false;
	if (!fleet_keys_follow(&numbers, current, next, issue_latest_expiry(d) + SIGN_SLACK_S))
		return true;
	if (save(k, &numbers, k->sure))
		return false;
	use_keys(d, &numbers);
	if (numbers.current != k->numbers.current) {
		log_info("tokens are signed with key %u of the fleet from now on", numbers.current);
		/* A sale that was extended while the former key still signed. */
		latest_s = issue_latest_expiry(d) + SIGN_SLACK_S;
		if (latest_s > numbers.over_at_s) {
			numbers.over_at_s = latest_s;
			save(k, &numbers, k->sure);
		}
	} else {
		log_info("tokens of key %u of the fleet are accepted from now on", numbers.accepted);
	}
	k->numbers = numbers;
	k->due_ns = 0; /* the others wait for this */
	return true;
}

static uint64_t number_at(const redisReply *reply, size_t at)
{
	return at < reply->elements && reply->element[at]->type == REDIS_REPLY_STRING
		? strtoull(reply->element[at]->str, NULL, 10)
		: 0;
}

static const char *text_at(const redisReply *reply, size_t at)
{
	return at < reply->elements && reply->element[at]->type == REDIS_REPLY_STRING ? reply->element[at]->str : "";
}

static void read_view(const redisReply *reply, struct fleet_keys_view *view)
{
	*view = (struct fleet_keys_view){
		.current = (uint32_t)number_at(reply, 1),
		.next = (uint32_t)number_at(reply, 2),
	};
	snprintf(view->waiting, sizeof(view->waiting), "%s", text_at(reply, 3));
	for (size_t at = NODES_AT; at + NODE_FIELDS <= reply->elements && view->node_count < CONFIG_NODES_MAX;
		at += NODE_FIELDS)
		view->nodes[view->node_count++] = (struct fleet_keys_node){
			.node = (unsigned)number_at(reply, at),
			.accepted = (uint32_t)number_at(reply, at + 1),
			.signs = (uint32_t)number_at(reply, at + 2),
			.seen_ms = strtoll(text_at(reply, at + 3), NULL, 10),
		};
}

static void agree(struct daemon *d)
{
	struct fleet_keys *k = d->fleet_keys;

	if (fleet_keys_agreed(d))
		return;
	if (!k->sure && save(k, &k->numbers, true))
		return;
	k->sure = true;
	atomic_store(&k->standing, FLEET_KEYS_AGREED);
	log_info("the fleet's keys are agreed upon: key %u signs", k->numbers.current);
}

static void refuse(struct daemon *d)
{
	struct fleet_keys *k = d->fleet_keys;

	if (atomic_exchange(&k->standing, FLEET_KEYS_OTHER_SECRET) != FLEET_KEYS_OTHER_SECRET)
		log_error(
			"this node's secret is not that of its fleet (fingerprint here: %s): orders stay closed. Copy the file of another node, "
			"and start the daemon again",
			k->fingerprint);
}

/* Two nodes that each have agreed with a fleet, and not with each other: which is right, only the operator knows. */
static void say_other(struct fleet_keys *k)
{
	uint64_t now = time_mono_ns();

	if (k->said_ns && now - k->said_ns < SAY_AGAIN_NS)
		return;
	k->said_ns = now;
	log_error(
		"another node of this fleet has another secret than this one (fingerprint here: %s): neither accepts the other's tokens. "
		"Compare the files, and start the wrong one again with a copy of the right one",
		k->fingerprint);
}

/* What every good answer tells. Returns false if it was none, or the secret is not the fleet's. */
static bool take_answer(struct daemon *d, const redisReply *reply)
{
	struct fleet_keys *k = d->fleet_keys;
	struct fleet_keys_view view;

	if (!strcmp(text_at(reply, 0), "secret"))
		refuse(d);
	if (!strcmp(text_at(reply, 0), "other"))
		say_other(k);
	else if (strcmp(text_at(reply, 0), "ok") != 0)
		return false;
	read_view(reply, &view);
	k->due_ns = k->told_ns + (view.next && *view.waiting ? ROTATION_EVERY_NS : TELL_EVERY_NS);
	if (follow(d, view.current, view.next))
		agree(d);
	pthread_mutex_lock(&k->lock);
	k->view = view;
	k->has_view = true;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
	return true;
}

static void on_told(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct fleet_keys *k = d->fleet_keys;

	(void)arg;
	k->due_ns = k->told_ns + TELL_EVERY_NS;
	if (!error)
		take_answer(d, reply);
}

static void on_rotation(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct fleet_keys *k = d->fleet_keys;
	const char *word = error ? "" : text_at(reply, 0);
	struct fleet_keys_refusal refusal = {0};
	int result = error;

	(void)arg;
	if (!error && !take_answer(d, reply)) {
		refusal.node = (unsigned)number_at(reply, 1);
		refusal.until_s = number_at(reply, 2);
		result = !strcmp(word, "in_use")   ? -EBUSY
			: !strcmp(word, "unknown") ? -ENODATA
			: !strcmp(word, "secret")  ? -EACCES
						   : -EREMOTEIO;
	}
	k->due_ns = 0;
	pthread_mutex_lock(&k->lock);
	if (k->rotation.state == ROTATION_ASKED) { /* else its asker has given up */
		k->rotation.result = result;
		k->rotation.refusal = refusal;
		k->rotation.state = ROTATION_ANSWERED;
		pthread_cond_broadcast(&k->changed);
	}
	pthread_mutex_unlock(&k->lock);
}

/* --- the rounds -------------------------------------------------------------------------------------------------------------------- */
static bool add_call(struct daemon *d, struct fleet_round *round, const char *op, const char *const *more,
	unsigned more_count, fleet_done done)
{
	struct fleet_keys *k = d->fleet_keys;
	char key[FLEET_KEY_MAX], channel[FLEET_CHANNEL_MAX], node[NUMBER_MAX];
	const char *keys[] = {fleet_key(d, "keys", key)};
	const char *arguments[12] = {
		op, node, k->fingerprint, k->sure ? "1" : "0", k->members, fleet_channel(d, channel)};
	unsigned count = 6;

	snprintf(node, sizeof(node), "%u", d->config.fleet.node);
	for (unsigned i = 0; i < more_count; i++)
		arguments[count++] = more[i];
	return fleet_script(round, "keys", keys, 1, arguments, count, done, NULL);
}

static bool tell(struct daemon *d, struct fleet_round *round)
{
	const struct fleet_key_numbers *numbers = &d->fleet_keys->numbers;
	char accepted[NUMBER_MAX], signs[NUMBER_MAX], over[NUMBER_MAX], until[NUMBER_MAX];
	const char *arguments[] = {accepted, signs, over, until};

	snprintf(accepted, sizeof(accepted), "%u", numbers->accepted);
	snprintf(signs, sizeof(signs), "%u", numbers->current);
	snprintf(over, sizeof(over), "%u", fleet_keys_over(numbers, time_wall_ns() / NS_PER_S));
	snprintf(until, sizeof(until), "%" PRIu64, numbers->over_at_s);
	return add_call(d, round, "sync", arguments, 4, on_told);
}

static uint64_t step(struct daemon *d, struct fleet_round *round, uint64_t now_ns)
{
	struct fleet_keys *k = d->fleet_keys;
	struct rotation *rotation = &k->rotation;
	const char *arguments[2];
	bool full = false;

	pthread_mutex_lock(&k->lock);
	if (rotation->state == ROTATION_WANTED) {
		arguments[0] = rotation->force ? "1" : "0";
		arguments[1] = rotation->without;
		if (add_call(d, round, "rotate", arguments, 2, on_rotation))
			rotation->state = ROTATION_ASKED;
		else
			full = true;
	}
	pthread_mutex_unlock(&k->lock);
	if (now_ns >= k->due_ns) {
		if (tell(d, round)) {
			k->told_ns = now_ns;
			k->due_ns = now_ns + TELL_EVERY_NS;
		} else {
			full = true;
		}
	}
	return full ? now_ns : k->due_ns;
}

static void news(struct daemon *d, const char *about)
{
	struct fleet_keys *k = d->fleet_keys;

	(void)about;
	if (k->due_ns > k->told_ns + NEWS_EVERY_NS)
		k->due_ns = k->told_ns + NEWS_EVERY_NS;
}

const struct fleet_part fleet_keys_part = {.name = "keys", .topic = "keys", .step = step, .news = news};

/* --- for the control API ------------------------------------------------------------------------------------------------------------- */
int fleet_keys_view(struct daemon *d, struct fleet_keys_view *view)
{
	struct fleet_keys *k = d->fleet_keys;
	int err = -ENODATA;

	pthread_mutex_lock(&k->lock);
	if (k->has_view) {
		*view = k->view;
		err = 0;
	}
	pthread_mutex_unlock(&k->lock);
	return err;
}

static struct timespec after_ms(unsigned ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * (long)NS_PER_MS;
	if (until.tv_nsec >= (long)NS_PER_S) {
		until.tv_nsec -= (long)NS_PER_S;
		until.tv_sec++;
	}
	return until;
}

/* Under lock. Returns what became of the question. */
static int ask_for_rotation(struct daemon *d, bool force, const char *without)
{
	struct fleet_keys *k = d->fleet_keys;
	/* A round that is under way, and one of ours. */
	struct timespec until = after_ms(2 * d->config.fleet.timeout_ms + 1000);
	struct rotation *rotation = &k->rotation;
	int err = 0;

	rotation->force = force;
	snprintf(rotation->without, sizeof(rotation->without), "%s", without);
	rotation->state = ROTATION_WANTED;
	fleet_wake(d);
	while (rotation->state != ROTATION_ANSWERED && !k->stopped && !err)
		err = -pthread_cond_timedwait(&k->changed, &k->lock, &until);
	if (rotation->state == ROTATION_ANSWERED)
		err = rotation->result;
	else
		err = rotation->state == ROTATION_ASKED ? -ETIMEDOUT : -ENOTCONN;
	rotation->state = ROTATION_NONE;
	return err;
}

int fleet_keys_rotate(struct daemon *d, bool force, const char *without, unsigned wait_ms, struct fleet_keys_view *view,
	struct fleet_keys_refusal *refusal)
{
	struct fleet_keys *k = d->fleet_keys;
	struct timespec until;
	int err, waited = 0;

	pthread_mutex_lock(&k->rotating);
	pthread_mutex_lock(&k->lock);
	err = ask_for_rotation(d, force, without);
	*refusal = k->rotation.refusal;
	until = after_ms(wait_ms);
	while (!err && k->view.next && !k->stopped && !waited)
		waited = pthread_cond_timedwait(&k->changed, &k->lock, &until);
	*view = k->view;
	pthread_mutex_unlock(&k->lock);
	pthread_mutex_unlock(&k->rotating);
	return err;
}
