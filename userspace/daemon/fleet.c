/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The fleet's thread: rounds of calls to Redis on behalf of the parts; see fleet.h.
 *
 * One thread, and one round after another: so the parts need no locks among themselves, and Redis sees as few packets as there are rounds. A round is begun when a part
 * wants it, when somebody wakes the thread, or when a message came.
 */
#include "daemon/fleet.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_homes.h"
#include "daemon/fleet_keys.h"
#include "daemon/fleet_audit.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_nodes.h"
#include "daemon/fleet_settings.h"
#include "daemon/fleet_stream.h"
#include "fleet/redis_connection.h"

#define MS 1000000ULL
/* Rounds begin no closer together: what is wished meanwhile goes out at once. While Redis is away there is nothing to be had by hurry. */
#define GAP_NS (1 * MS)
#define GAP_AWAY_NS (50 * MS)
#define REST_NS (1000 * MS)
#define LEAVE_NS (2000 * MS)
#define LEAVE_GAP_NS (20 * MS)
/* A round that was begun in time may still get its answers. */
#define LEAVE_GRACE_NS (250 * MS)
/* An error reply that is the same again is logged so often. */
#define SAY_AGAIN_NS (60000 * MS)
#define ARGUMENTS_MAX 16384

struct asked {
	fleet_done done;
	void *arg;
	char *memory; /* argv, and the texts behind it */
};

struct fleet_round {
	struct redis_call calls[FLEET_CALLS_MAX];
	struct asked asked[FLEET_CALLS_MAX];
	unsigned count;
	bool is_full; /* somebody was sent away */
};

struct fleet {
	struct daemon *d;
	struct redis_link *link;
	const struct fleet_part *const *parts;
	unsigned part_count;
	pthread_t thread;
	bool is_started;
	atomic_bool stop;
	int wake_fd;
	struct fleet_round round;
	uint64_t round_began_ns;
	pthread_mutex_t lock; /* of the status */
	struct fleet_status status;
	char said[256]; /* the last error reply that was logged */
	uint64_t said_ns;
};

static const struct fleet_part *const fleet_parts[] = {
	&fleet_keys_part,
	&fleet_homes_part,
	&fleet_leases_part,
	&fleet_audit_part,
	&fleet_nodes_part,
	&fleet_settings_part,
	&fleet_stream_part,
	NULL,
};

/* --- names ------------------------------------------------------------------------------------------------------------------------ */
const char *fleet_sale_key(const struct daemon *d, const char *slug, const char *name, char *key)
{
	snprintf(key, FLEET_KEY_MAX, "%s:{%s}:%s", d->config.fleet.prefix, slug, name);
	return key;
}

/* No sale's slug has a dot, so no sale shares its keys. */
const char *fleet_key(const struct daemon *d, const char *name, char *key)
{
	snprintf(key, FLEET_KEY_MAX, "%s:{fleet}:%s", d->config.fleet.prefix, name);
	return key;
}

const char *fleet_channel(const struct daemon *d, char *channel)
{
	snprintf(channel, FLEET_CHANNEL_MAX, "%s:news", d->config.fleet.prefix);
	return channel;
}

/* --- calls -------------------------------------------------------------------------------------------------------------------------- */
/* One block for the array and the texts of all three lists. */
static char *copy_arguments(const char *const *lists[], const unsigned counts[], unsigned list_count, unsigned *total)
{
	size_t size = 0, count = 0;
	const char **argv;
	char *memory, *to;

	for (unsigned list = 0; list < list_count; list++) {
		count += counts[list];
		for (unsigned i = 0; i < counts[list]; i++)
			size += strlen(lists[list][i]) + 1;
	}
	memory = count <= ARGUMENTS_MAX ? malloc(count * sizeof(char *) + size) : NULL;
	if (!memory)
		return NULL;
	argv = (const char **)(void *)memory;
	to = memory + count * sizeof(char *);
	*total = 0;
	for (unsigned list = 0; list < list_count; list++)
		for (unsigned i = 0; i < counts[list]; i++) {
			argv[(*total)++] = to;
			to = stpcpy(to, lists[list][i]) + 1;
		}
	return memory;
}

static bool add_call(struct fleet_round *round, const struct redis_script *script, char *memory, unsigned argc,
	const char *key, fleet_done done, void *arg)
{
	if (!memory) {
		round->is_full = true;
		return false;
	}
	round->calls[round->count] = (struct redis_call){
		.key = key, .script = script, .argc = (int)argc, .argv = (const char *const *)(void *)memory};
	round->asked[round->count++] = (struct asked){done, arg, memory};
	return true;
}

static bool has_room(struct fleet_round *round)
{
	round->is_full = round->is_full || round->count == FLEET_CALLS_MAX;
	return round->count < FLEET_CALLS_MAX;
}

bool fleet_script(struct fleet_round *round, const char *script, const char *const *keys, unsigned key_count,
	const char *const *arguments, unsigned argument_count, fleet_done done, void *arg)
{
	const struct redis_script *found = redis_script_find(script);
	char number[16], *memory;
	const char *first[1] = {number};
	const char *const *lists[] = {first, keys, arguments};
	const unsigned counts[] = {1, key_count, argument_count};
	unsigned total = 0;

	assert(found && key_count);
	if (!has_room(round))
		return false;
	snprintf(number, sizeof(number), "%u", key_count);
	memory = copy_arguments(lists, counts, 3, &total);
	return add_call(round, found, memory, total, memory ? ((const char **)(void *)memory)[1] : NULL, done, arg);
}

bool fleet_command(struct fleet_round *round, const char *key, const char *const *words, unsigned count,
	fleet_done done, void *arg)
{
	/* The key is copied behind the words. */
	const char *first[1] = {key};
	const char *const *lists[] = {words, first};
	const unsigned counts[] = {count, key ? 1 : 0};
	unsigned total = 0;
	char *memory;

	if (!has_room(round))
		return false;
	memory = copy_arguments(lists, counts, 2, &total);
	return add_call(
		round, NULL, memory, count, memory && key ? ((const char **)(void *)memory)[count] : NULL, done, arg);
}

/* --- a round -------------------------------------------------------------------------------------------------------------------------- */
/* An error that a server gives is a mistake of somebody: a right that the user lacks, a server that is full. */
static void say_error(struct fleet *fleet, const redisReply *reply, uint64_t now)
{
	if (!strncmp(fleet->said, reply->str, sizeof(fleet->said) - 1) && now - fleet->said_ns < SAY_AGAIN_NS)
		return;
	snprintf(fleet->said, sizeof(fleet->said), "%s", reply->str);
	for (char *c = fleet->said; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	fleet->said_ns = now;
	log_warn("redis answers: %s", fleet->said);
}

static void note_status(struct fleet *fleet, uint64_t now)
{
	struct redis_figures figures;
	bool was_connected, is_first, was_deaf;

	redis_link_figures(fleet->link, &figures);
	pthread_mutex_lock(&fleet->lock);
	was_connected = fleet->status.connected;
	was_deaf = *fleet->status.redis.deaf;
	is_first = !*fleet->status.redis.failure && !was_connected;
	fleet->status.redis = figures;
	fleet->status.connected = figures.connected;
	if (figures.connected)
		fleet->status.away_ns = 0;
	else if (was_connected || !fleet->status.away_ns)
		fleet->status.away_ns = now;
	pthread_mutex_unlock(&fleet->lock);
	if (figures.connected && !was_connected)
		log_info("redis: connected (%s)", fleet->d->config.fleet.redis);
	else if (!figures.connected && (was_connected || is_first))
		log_warn("redis is away, and this node goes on with what it has: %s", figures.failure);
	/* While the rest of Redis is away it goes without saying. */
	if (figures.connected && was_connected && *figures.deaf && !was_deaf)
		log_warn("redis: news of other nodes are not heard, and looked for from time to time instead: %s",
			figures.deaf);
}

/* Asks, and tells those who have asked. Returns false if nobody was reached. */
static bool ask(struct fleet *fleet)
{
	struct fleet_round *round = &fleet->round;
	bool is_reached = false;
	uint64_t now;

	redis_link_round(fleet->link, round->calls, round->count);
	now = time_mono_ns();
	note_status(fleet, now);
	for (unsigned i = 0; i < round->count; i++) {
		const struct redis_call *call = &round->calls[i];
		struct asked *asked = &round->asked[i];

		is_reached = is_reached || call->error != -ENOTCONN;
		if (call->error == -EREMOTEIO)
			say_error(fleet, call->reply, now);
		if (asked->done)
			asked->done(fleet->d, asked->arg, call->error, call->reply);
		free(asked->memory);
		asked->memory = NULL;
	}
	return is_reached;
}

static void begin(struct fleet *fleet, uint64_t now)
{
	fleet->round.count = 0;
	fleet->round.is_full = false;
	fleet->round_began_ns = now;
}

/* Returns when the next round is due, at the latest. */
static uint64_t step(struct fleet *fleet)
{
	uint64_t now = time_mono_ns(), due = now + REST_NS, gap = GAP_NS;

	begin(fleet, now);
	for (unsigned i = 0; i < fleet->part_count; i++) {
		uint64_t wish = fleet->parts[i]->step(fleet->d, &fleet->round, now);

		due = wish < due ? wish : due;
	}
	if (fleet->round.count && !ask(fleet))
		gap = GAP_AWAY_NS;
	if (fleet->round.is_full)
		due = now;
	return due > now + gap ? due : now + gap;
}

static void pause_until(uint64_t mono_ns)
{
	uint64_t now = time_mono_ns();

	if (now < mono_ns)
		nanosleep(&(struct timespec){.tv_nsec = (long)(mono_ns - now)}, NULL);
}

/* Waits for the next round's time, a message, or somebody who wakes: but not less than a moment from the beginning of the last. */
static void wait_for_next(struct fleet *fleet, uint64_t due)
{
	eventfd_t wakes;

	redis_link_wait(fleet->link, fleet->wake_fd, due);
	if (!atomic_load(&fleet->stop))
		pause_until(fleet->round_began_ns + (fleet->status.connected ? GAP_NS : GAP_AWAY_NS));
	eventfd_read(fleet->wake_fd, &wakes);
}

/* Without Redis there is nobody to take leave of. */
static void leave(struct fleet *fleet)
{
	uint64_t now = time_mono_ns(), until = now + LEAVE_NS;
	bool is_done, was_reached = true;

	do {
		bool is_reached = true;

		is_done = true;
		begin(fleet, now);
		for (unsigned i = 0; i < fleet->part_count; i++)
			if (fleet->parts[i]->leave)
				is_done = fleet->parts[i]->leave(fleet->d, &fleet->round, now) && is_done;
		if (fleet->round.count)
			is_reached = ask(fleet);
		if (!is_reached && !was_reached)
			break;
		was_reached = is_reached;
		if (!is_done)
			pause_until(now + LEAVE_GAP_NS);
		now = time_mono_ns();
	} while (!is_done && now < until);
}

static void *fleet_run(void *arg)
{
	struct fleet *fleet = arg;

	pthread_setname_np(pthread_self(), "fleet");
	while (!atomic_load(&fleet->stop))
		wait_for_next(fleet, step(fleet));
	leave(fleet);
	return NULL;
}

/* --- start and stop ---------------------------------------------------------------------------------------------------------------------- */
/* A mistake is better said at the start than again and again when Redis is needed. */
static int check_password(const struct config *config, char *error, size_t error_size)
{
	char password[REDIS_PASSWORD_MAX];
	const char *why;
	int err;

	if (!*config->fleet.redis_password_file)
		return 0;
	err = redis_password_read(config->fleet.redis_password_file, password, &why);
	explicit_bzero(password, sizeof(password));
	if (err)
		snprintf(error, error_size, "%s (fleet.redis_password_file): %s", config->fleet.redis_password_file,
			why);
	return err;
}

/* What a message of this topic is about; NULL: it is of another. */
static const char *about(const char *message, const char *topic)
{
	size_t length = strlen(topic);

	if (strncmp(message, topic, length) != 0 || (message[length] && message[length] != ' '))
		return NULL;
	return message + length + (message[length] == ' ');
}

static bool is_of_a_topic(const struct fleet *fleet, const char *message)
{
	for (unsigned i = 0; i < fleet->part_count; i++)
		if (fleet->parts[i]->topic && about(message, fleet->parts[i]->topic))
			return true;
	return false;
}

static void hear(void *arg, const char *message)
{
	struct fleet *fleet = arg;
	bool is_for_all = !message || !is_of_a_topic(fleet, message);

	for (unsigned i = 0; i < fleet->part_count; i++) {
		const struct fleet_part *part = fleet->parts[i];
		const char *of_part = is_for_all || !part->topic ? NULL : about(message, part->topic);

		if (part->news && (is_for_all || !part->topic || of_part))
			part->news(fleet->d, of_part);
	}
}

void fleet_hear(struct daemon *d, const char *message)
{
	hear(d->fleet, message);
}

static int open_link(struct fleet *fleet, const struct config *config)
{
	char name[32], channel[FLEET_CHANNEL_MAX];
	const struct redis_options options = {.servers = config->fleet.redis,
		.user = config->fleet.redis_user,
		.password_file = config->fleet.redis_password_file,
		.name = name,
		.timeout_ms = config->fleet.timeout_ms};

	snprintf(name, sizeof(name), "sluiced-%u", config->fleet.node);
	fleet->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fleet->wake_fd < 0)
		return -errno;
	fleet->link = redis_link_new(&options);
	if (!fleet->link)
		return -errno;
	return redis_link_subscribe(fleet->link, fleet_channel(fleet->d, channel), hear, fleet);
}

int fleet_open_with(
	struct daemon *d, const struct fleet_part *const *parts, unsigned part_count, char *error, size_t error_size)
{
	struct fleet *fleet;
	int err;

	if (!config_is_fleet(&d->config))
		return 0;
	err = check_password(&d->config, error, error_size);
	if (err)
		return err;
	fleet = calloc(1, sizeof(*fleet));
	if (!fleet) {
		snprintf(error, error_size, "no memory for the way to Redis");
		return -ENOMEM;
	}
	fleet->d = d;
	fleet->parts = parts;
	fleet->part_count = part_count;
	fleet->wake_fd = -1;
	fleet->status.away_ns = time_mono_ns();
	pthread_mutex_init(&fleet->lock, NULL);
	d->fleet = fleet;
	err = open_link(fleet, &d->config);
	if (err)
		snprintf(error, error_size, "cannot prepare the way to Redis (fleet.redis): %s", strerror(-err));
	return err;
}

/* What a part keeps beside its calls. */
static int open_parts(struct daemon *d, char *error, size_t error_size)
{
	int err = fleet_nodes_open(d);

	if (err)
		snprintf(error, error_size, "no memory for the fleet");
	return err;
}

static void free_parts(struct daemon *d)
{
	fleet_nodes_free(d);
}

int fleet_open(struct daemon *d, char *error, size_t error_size)
{
	unsigned count = 0;
	int err;

	while (fleet_parts[count])
		count++;
	err = fleet_open_with(d, fleet_parts, count, error, error_size);
	if (!err && d->fleet)
		err = open_parts(d, error, error_size);
	return err;
}

int fleet_start(struct daemon *d)
{
	struct fleet *fleet = d->fleet;
	int err;

	if (!fleet)
		return 0;
	err = -pthread_create(&fleet->thread, NULL, fleet_run, fleet);
	fleet->is_started = !err;
	return err;
}

void fleet_stop(struct daemon *d)
{
	struct fleet *fleet = d->fleet;

	if (!fleet || !fleet->is_started || atomic_exchange(&fleet->stop, true))
		return;
	redis_link_finish_by(fleet->link, time_mono_ns() + LEAVE_NS + LEAVE_GRACE_NS);
	fleet_wake(d);
	pthread_join(fleet->thread, NULL);
}

void fleet_free(struct daemon *d)
{
	struct fleet *fleet = d->fleet;

	if (!fleet)
		return;
	free_parts(d);
	redis_link_free(fleet->link);
	if (fleet->wake_fd >= 0)
		close(fleet->wake_fd);
	pthread_mutex_destroy(&fleet->lock);
	free(fleet);
	d->fleet = NULL;
}

void fleet_wake(struct daemon *d)
{
	if (d->fleet)
		eventfd_write(d->fleet->wake_fd, 1);
}

void fleet_status(struct daemon *d, struct fleet_status *status)
{
	pthread_mutex_lock(&d->fleet->lock);
	*status = d->fleet->status;
	pthread_mutex_unlock(&d->fleet->lock);
}
