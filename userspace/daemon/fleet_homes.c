/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Homes of buyers: a part of the fleet's rounds (fleet.h), asked by the token routes; see fleet_homes.h and scripts/home.lua.
 *
 * A token is judged at one node alone, and there its buyer's units are counted. So a buyer's limit holds over all nodes if his tokens of a sale
 * have one home, and that is all that is asked of Redis: one script call for each sale and round, with all buyers that wait.
 *
 * When Redis has lost what it knew, each node tells the buyers whom it knows (those with a live token, or an order), and nobody new gets a home before
 * all have. What was answered "here" and has not become a token yet is told too, so nothing falls in between.
 */
#include "daemon/fleet_homes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet.h"
#include "daemon/fleet_homes_known.h"
#include "daemon/fleet_leases.h"
#include "daemon/issue.h"

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define QUESTIONS_MAX 65536 /* some 10 MB */
#define ASK_MAX 500         /* buyers in a call: Redis serves others meanwhile */
#define TELL_MAX 2000
#define ASK_GAP_NS \
	(50 * NS_PER_MS) /* between calls with questions: who comes meanwhile is asked for together; the first does not wait */
#define LOOK_EVERY_NS (20 * NS_PER_S) /* a message may be missed */
#define NEWS_EVERY_NS (NS_PER_S / 2)  /* messages come for other parts too */
#define TRY_AGAIN_NS (NS_PER_S / 2)
#define COMPLAIN_AFTER_NS (5 * NS_PER_S)
#define KEEP_S 86400 /* the homes of a sale stay so long after its end */
#define GEN_MAX 64
#define BUYER_DIGITS 16
#define NUMBER_MAX 24
#define COMMON_ARGUMENTS 6
#define HOMES_AT 3 /* in the answer to "ask" */

struct home_question {
	TAILQ_ENTRY(home_question) next;
	uint64_t buyer;
	uint32_t sale;
	char slug[SALE_SLUG_MAX + 1];
	uint64_t forget_s;
	void (*wake)(void *arg);
	void *arg;
	bool done;
	enum home_answer answer;
	unsigned node;
};
TAILQ_HEAD(questions, home_question);

/* One call that asks for buyers of one sale. */
struct batch {
	uint32_t sale;
	struct questions questions;
};

/* What the fleet's thread remembers of a sale that is not over. */
struct known_sale {
	uint32_t id;
	bool asked;       /* in this round */
	uint64_t look_ns; /* next */
	bool must_tell; /* to `gen`: what this node knows is to be collected, when all answers of the round have been taken */
	bool telling;      /* it goes out, a piece in each round */
	bool called;       /* a piece is on its way */
	char gen[GEN_MAX]; /* to which */
	char promised
		[GEN_MAX]; /* the gen that knows what this node knows; homes of another one are not taken. "" = none yet */
	uint64_t *buyers;
	size_t count, told;
	uint64_t waits_since_ns; /* for other nodes; 0 = not */
	bool has_complained;
};

struct fleet_homes {
	struct lease_members members; /* of the config */
	pthread_mutex_t lock;
	pthread_cond_t answered;
	/* under lock */
	struct questions waiting, open; /* open: on their way, or answered and not released */
	unsigned count;
	bool stopped;
	/* of the fleet's thread */
	struct known_sale *sales;
	size_t sale_count, sale_capacity, found_at;
	uint64_t look_ns, looked_ns, ask_ns; /* ask: not before */
};

/* --- start and end --------------------------------------------------------------------------------------------------------------- */
int fleet_homes_open(struct daemon *d, char *error, size_t error_size)
{
	struct fleet_homes *h = calloc(1, sizeof(*h));

	if (!h) {
		snprintf(error, error_size, "no memory");
		return -ENOMEM;
	}
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->answered, NULL);
	TAILQ_INIT(&h->waiting);
	TAILQ_INIT(&h->open);
	for (unsigned i = 0; i < d->config.node_count; i++)
		lease_members_add(&h->members, d->config.nodes[i].id);
	d->fleet_homes = h;
	return 0;
}

void fleet_homes_close(struct daemon *d)
{
	struct fleet_homes *h = d->fleet_homes;
	struct home_question *question;

	if (!h)
		return;
	d->fleet_homes = NULL;
	while ((question = TAILQ_FIRST(&h->open))) {
		TAILQ_REMOVE(&h->open, question, next);
		free(question);
	}
	for (size_t i = 0; i < h->sale_count; i++)
		free(h->sales[i].buyers);
	free(h->sales);
	pthread_cond_destroy(&h->answered);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

/* --- questions ----------------------------------------------------------------------------------------------------------------------- */
/* From here on the question belongs to its asker, who may release it before this returns. */
static void answer(struct fleet_homes *h, struct home_question *question, enum home_answer given, unsigned node)
{
	void (*wake)(void *) = question->wake;
	void *arg = question->arg;

	pthread_mutex_lock(&h->lock);
	question->answer = given;
	question->node = node;
	question->done = true;
	pthread_cond_broadcast(&h->answered);
	pthread_mutex_unlock(&h->lock);
	if (wake)
		wake(arg);
}

struct home_question *fleet_homes_ask(
	struct daemon *d, const struct sale *sale, uint64_t buyer, void (*wake)(void *arg), void *arg)
{
	struct fleet_homes *h = d->fleet_homes;
	struct home_question *question = calloc(1, sizeof(*question));
	bool stopped;

	if (!question)
		return NULL;
	question->buyer = buyer;
	question->sale = sale->id;
	memcpy(question->slug, sale->slug, sizeof(question->slug));
	question->forget_s = sale->ends_ns / NS_PER_S + KEEP_S;
	question->wake = wake;
	question->arg = arg;
	pthread_mutex_lock(&h->lock);
	if (h->count >= QUESTIONS_MAX) {
		pthread_mutex_unlock(&h->lock);
		free(question);
		return NULL;
	}
	h->count++;
	stopped = h->stopped;
	if (stopped)
		TAILQ_INSERT_TAIL(&h->open, question, next);
	else
		TAILQ_INSERT_TAIL(&h->waiting, question, next);
	pthread_mutex_unlock(&h->lock);
	if (stopped)
		answer(h, question, HOME_UNKNOWN, 0);
	else
		fleet_wake(d);
	return question;
}

void fleet_homes_wait(struct daemon *d, struct home_question *question)
{
	struct fleet_homes *h = d->fleet_homes;

	pthread_mutex_lock(&h->lock);
	while (!question->done)
		pthread_cond_wait(&h->answered, &h->lock);
	pthread_mutex_unlock(&h->lock);
}

enum home_answer fleet_homes_answer(const struct home_question *question, unsigned *node)
{
	*node = question->node;
	return question->answer;
}

void fleet_homes_release(struct daemon *d, struct home_question *question)
{
	struct fleet_homes *h = d->fleet_homes;

	if (!question)
		return;
	pthread_mutex_lock(&h->lock);
	TAILQ_REMOVE(&h->open, question, next);
	h->count--;
	pthread_mutex_unlock(&h->lock);
	free(question);
}

void fleet_homes_stop(struct daemon *d)
{
	struct fleet_homes *h = d->fleet_homes;
	struct home_question *question;

	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	h->stopped = true;
	while ((question = TAILQ_FIRST(&h->waiting))) {
		TAILQ_REMOVE(&h->waiting, question, next);
		TAILQ_INSERT_TAIL(&h->open, question, next);
		pthread_mutex_unlock(&h->lock);
		answer(h, question, HOME_UNKNOWN, 0);
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
}

/* --- sales ----------------------------------------------------------------------------------------------------------------------------- */
/* Each turn asks for all of them, mostly in this order: so it begins where the last one was found. */
static struct known_sale *find_sale(struct fleet_homes *h, uint32_t id)
{
	for (size_t n = 0; n < h->sale_count; n++) {
		size_t i = (h->found_at + n) % h->sale_count;

		if (h->sales[i].id != id)
			continue;
		h->found_at = i;
		return &h->sales[i];
	}
	return NULL;
}

static struct known_sale *learn_sale(struct fleet_homes *h, uint32_t id)
{
	struct known_sale *known = find_sale(h, id);

	if (known)
		return known;
	if (h->sale_count == h->sale_capacity) {
		size_t capacity = h->sale_capacity ? 2 * h->sale_capacity : 16;
		struct known_sale *all = realloc(h->sales, capacity * sizeof(*all));

		if (!all)
			return NULL;
		h->sales = all;
		h->sale_capacity = capacity;
	}
	known = &h->sales[h->sale_count++];
	*known = (struct known_sale){.id = id};
	return known;
}

static void end_telling(struct known_sale *known)
{
	free(known->buyers);
	known->buyers = NULL;
	known->count = known->told = 0;
	known->must_tell = known->telling = known->called = false;
}

static void forget_sale(struct fleet_homes *h, struct known_sale *known)
{
	end_telling(known);
	*known = h->sales[--h->sale_count];
}

/* --- what this node knows ------------------------------------------------------------------------------------------------------------- */
/* Adds to `all`, which are sorted. */
static int collect(struct daemon *d, struct homes_known *all, size_t count)
{
	struct fleet_homes *h = d->fleet_homes;
	struct home_question *question;
	int err = 0;

	/* First those who are on their way from an answer to a token: later they are in the map. */
	pthread_mutex_lock(&h->lock);
	TAILQ_FOREACH(question, &h->open, next)
	{
		struct homes_known *known = homes_known_find(all, count, question->sale);

		if (!err && known && question->done && question->answer == HOME_HERE)
			err = homes_known_add(known, question->buyer);
	}
	pthread_mutex_unlock(&h->lock);
	return err ? err : homes_known_read(d->maps.issued, d->maps.admissions, all, count);
}

static void want_telling(struct known_sale *known, const char *gen)
{
	if ((known->telling || known->must_tell) && !strcmp(known->gen, gen))
		return;
	end_telling(known);
	known->must_tell = true;
	snprintf(known->gen, sizeof(known->gen), "%s", gen);
	known->look_ns = 0;
}

static bool must_tell_now(const struct known_sale *known, uint64_t now_ns)
{
	return known->must_tell && !known->called && now_ns >= known->look_ns;
}

/* Of all sales that are to be told of, at once: after a loss that is each of them, and one costs as long a walk as a thousand. */
static void begin_telling(struct daemon *d, uint64_t now_ns)
{
	struct fleet_homes *h = d->fleet_homes;
	struct homes_known *all;
	size_t count = 0;
	int err;

	for (size_t i = 0; i < h->sale_count; i++)
		count += must_tell_now(&h->sales[i], now_ns);
	if (!count)
		return;
	all = calloc(count, sizeof(*all));
	err = all ? 0 : -ENOMEM;
	for (size_t i = 0, at = 0; all && i < h->sale_count; i++)
		if (must_tell_now(&h->sales[i], now_ns))
			all[at++].sale = h->sales[i].id;
	if (!err) {
		homes_known_sort(all, count);
		err = collect(d, all, count);
	}
	for (size_t i = 0; i < h->sale_count; i++) {
		struct known_sale *known = &h->sales[i];
		struct homes_known *found;

		if (!must_tell_now(known, now_ns))
			continue;
		known->must_tell = false;
		if (err) {
			known->look_ns = now_ns + TRY_AGAIN_NS;
			continue;
		}
		found = homes_known_find(all, count, known->id);
		known->buyers = found->buyers;
		known->count = found->count;
		found->buyers = NULL;
		known->telling = true;
		known->look_ns = 0;
	}
	if (err)
		log_error("cannot read which buyers of %zu sales are at home here: %s", count, strerror(-err));
	for (size_t i = 0; all && i < count; i++)
		free(all[i].buyers);
	free(all);
}

/* --- answers of Redis -------------------------------------------------------------------------------------------------------------------- */
static const char *text_at(const redisReply *reply, size_t at)
{
	return reply && at < reply->elements && reply->element[at]->type == REDIS_REPLY_STRING ? reply->element[at]->str
											       : "";
}

/* Nodes that are silent keep new buyers out: the operator should know which. Nobody is missing, and the homes are not open yet: the stock is of an
 * earlier run of Redis, and no node has begun it anew.
 */
static void complain(struct known_sale *known, bool is_open, const char *missing, const char *slug)
{
	uint64_t now = time_mono_ns();

	if (is_open) {
		if (known->has_complained)
			log_info("sale %s: the homes of all buyers are known again", slug);
		known->waits_since_ns = 0;
		known->has_complained = false;
		return;
	}
	if (!known->waits_since_ns)
		known->waits_since_ns = now;
	if (known->has_complained || now - known->waits_since_ns < COMPLAIN_AFTER_NS)
		return;
	known->has_complained = true;
	if (!*missing)
		log_warn(
			"sale %s: new buyers get no token before a node has told Redis anew what it holds, because Redis was restarted; see its "
			"trouble in sluice sale show",
			slug);
	else
		log_warn(
			"sale %s: new buyers get no token before node %s has told which buyers it knows, because Redis has lost that; start that "
			"node, or fence it (sluice node fence)",
			slug, missing);
}

static void take_state(struct daemon *d, uint32_t sale, const redisReply *reply)
{
	struct known_sale *known = find_sale(d->fleet_homes, sale);
	struct sale of;

	if (!known || sales_find_id(d->sales, sale, &of))
		return;
	complain(known, strcmp(text_at(reply, 1), "open") == 0, text_at(reply, 2), of.slug);
	/* Others that are waited for tell soon, and a message says so; while one is away, look now and then. */
	if (!known->telling && !known->must_tell)
		known->look_ns = time_mono_ns() + (known->waits_since_ns ? NS_PER_S : LOOK_EVERY_NS);
	if (strcmp(text_at(reply, 0), known->promised) != 0)
		want_telling(known, text_at(reply, 0));
}

static void on_homes(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct fleet_homes *h = d->fleet_homes;
	struct batch *batch = arg;
	struct home_question *question;
	size_t at = HOMES_AT;

	if (!error && !*text_at(reply, 0))
		error = -EPROTO;
	while ((question = TAILQ_FIRST(&batch->questions))) {
		unsigned node = error ? 0 : (unsigned)strtoul(text_at(reply, at++), NULL, 10);
		enum home_answer given = error         ? HOME_UNKNOWN
			: !node                        ? HOME_SETTLING
			: node == d->config.fleet.node ? HOME_HERE
						       : HOME_ELSEWHERE;

		TAILQ_REMOVE(&batch->questions, question, next);
		pthread_mutex_lock(&h->lock);
		TAILQ_INSERT_TAIL(&h->open, question, next);
		pthread_mutex_unlock(&h->lock);
		answer(h, question, given, node);
	}
	if (!error)
		take_state(d, batch->sale, reply);
	free(batch);
}

static void on_told(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct known_sale *known = find_sale(d->fleet_homes, (uint32_t)(uintptr_t)arg);

	if (!known || !known->called)
		return;
	known->called = false;
	if (!error && strcmp(text_at(reply, 0), "told") != 0) { /* lost again */
		end_telling(known);
		known->look_ns = 0;
		return;
	}
	if (error) { /* the same piece again */
		known->look_ns = time_mono_ns() + TRY_AGAIN_NS;
		return;
	}
	for (size_t i = 1; i < reply->elements; i++)
		issue_take_back(d, known->id, strtoull(text_at(reply, i), NULL, 16));
	known->told += known->count - known->told < TELL_MAX ? known->count - known->told : TELL_MAX;
	if (known->told < known->count)
		return;
	if (known->count)
		log_info("sale %u: Redis has been told %zu times which buyers are at home here", known->id,
			known->count);
	memcpy(known->promised, known->gen, sizeof(known->promised));
	end_telling(known);
	known->look_ns = time_mono_ns() + TRY_AGAIN_NS;
}

/* --- the rounds -------------------------------------------------------------------------------------------------------------------------- */
/* Adds a call with the common arguments and then those of `more`. Nodes that were taken out of the config may have buyers all the same, and after a loss
 * only the ledgers know of them.
 */
static bool add_call(struct daemon *d, struct fleet_round *round, uint32_t sale, const char *slug, uint64_t forget_s,
	const char *op, const char *gen, const char *const *more, size_t more_count, fleet_done done, void *arg)
{
	char homes[FLEET_KEY_MAX], stock[FLEET_KEY_MAX], channel[FLEET_CHANNEL_MAX], node[NUMBER_MAX],
		expires[NUMBER_MAX], members_text[LEASE_MEMBERS_TEXT_MAX];
	struct lease_members members = d->fleet_homes->members;
	const char *keys[] = {fleet_sale_key(d, slug, "homes", homes), fleet_sale_key(d, slug, "stock", stock)};
	const char *arguments[COMMON_ARGUMENTS + 1 + TELL_MAX] = {
		op, node, members_text, fleet_channel(d, channel), expires, gen};

	fleet_leases_join_members(d, sale, &members);
	lease_members_encode(&members, members_text);
	snprintf(node, sizeof(node), "%u", d->config.fleet.node);
	snprintf(expires, sizeof(expires), "%" PRIu64, forget_s);
	for (size_t i = 0; i < more_count; i++)
		arguments[COMMON_ARGUMENTS + i] = more[i];
	return fleet_script(round, "home", keys, 2, arguments, COMMON_ARGUMENTS + (unsigned)more_count, done, arg);
}

/* One call for the first waiting question and those behind it of the same sale. Returns false if the round is full. */
static bool ask_batch(struct daemon *d, struct fleet_round *round, struct questions *waiting)
{
	struct home_question *first = TAILQ_FIRST(waiting), *question, *after;
	char buyers[ASK_MAX][BUYER_DIGITS + 1];
	const char *arguments[ASK_MAX];
	struct batch *batch = calloc(1, sizeof(*batch));
	struct known_sale *known = learn_sale(d->fleet_homes, first->sale);
	size_t count = 0;

	if (!batch)
		return false;
	batch->sale = first->sale;
	TAILQ_INIT(&batch->questions);
	for (question = first; question && count < ASK_MAX; question = after) {
		after = TAILQ_NEXT(question, next);
		if (question->sale != batch->sale)
			continue;
		TAILQ_REMOVE(waiting, question, next);
		TAILQ_INSERT_TAIL(&batch->questions, question, next);
		snprintf(buyers[count], sizeof(buyers[count]), "%016" PRIx64, question->buyer);
		arguments[count] = buyers[count];
		count++;
	}
	if (add_call(d, round, first->sale, first->slug, first->forget_s, "ask", known ? known->promised : "",
		    arguments, count, on_homes, batch)) {
		if (known)
			known->asked = true;
		return true;
	}
	TAILQ_CONCAT(waiting, &batch->questions, next);
	free(batch);
	return false;
}

/* Rounds are short: one question each would make a call of each. */
static bool ask_waiting(struct daemon *d, struct fleet_round *round, uint64_t now_ns)
{
	struct fleet_homes *h = d->fleet_homes;
	struct questions waiting;
	bool has_room = true;

	if (now_ns < h->ask_ns)
		return true;
	TAILQ_INIT(&waiting);
	pthread_mutex_lock(&h->lock);
	TAILQ_CONCAT(&waiting, &h->waiting, next);
	pthread_mutex_unlock(&h->lock);
	if (!TAILQ_EMPTY(&waiting))
		h->ask_ns = now_ns + ASK_GAP_NS;
	while (has_room && !TAILQ_EMPTY(&waiting))
		has_room = ask_batch(d, round, &waiting);
	if (!has_room) {
		h->ask_ns = 0;
		pthread_mutex_lock(&h->lock);
		TAILQ_CONCAT(&waiting, &h->waiting, next);
		TAILQ_CONCAT(&h->waiting, &waiting, next);
		pthread_mutex_unlock(&h->lock);
	}
	return has_room;
}

static bool tell_piece(struct daemon *d, struct fleet_round *round, const struct sale *sale, struct known_sale *known)
{
	char buyers[TELL_MAX][BUYER_DIGITS + 1];
	const char *arguments[1 + TELL_MAX];
	size_t count = known->count - known->told;

	if (count > TELL_MAX)
		count = TELL_MAX;
	arguments[0] = known->told + count == known->count ? "1" : "0";
	for (size_t i = 0; i < count; i++) {
		snprintf(buyers[i], sizeof(buyers[i]), "%016" PRIx64, known->buyers[known->told + i]);
		arguments[1 + i] = buyers[i];
	}
	known->called = add_call(d, round, known->id, sale->slug, sale->ends_ns / NS_PER_S + KEEP_S, "tell", known->gen,
		arguments, 1 + count, on_told, (void *)(uintptr_t)known->id);
	return known->called;
}

static bool look(struct daemon *d, struct fleet_round *round, const struct sale *sale, const struct known_sale *known)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return false;
	batch->sale = sale->id;
	TAILQ_INIT(&batch->questions);
	if (add_call(d, round, batch->sale, sale->slug, sale->ends_ns / NS_PER_S + KEEP_S, "ask", known->promised, NULL,
		    0, on_homes, batch))
		return true;
	free(batch);
	return false;
}

/* Tells, and looks where nobody has asked. */
static bool tend_sale(struct daemon *d, struct fleet_round *round, const struct sale *sale, uint64_t now_ns)
{
	struct known_sale *known = learn_sale(d->fleet_homes, sale->id);

	if (!known)
		return true; /* no memory: the next look tries again */
	if (known->called || now_ns < known->look_ns)
		return true;
	if (known->telling)
		return tell_piece(d, round, sale, known);
	if (known->asked)
		return true;
	if (!look(d, round, sale, known))
		return false;
	known->look_ns = now_ns + LOOK_EVERY_NS;
	return true;
}

static uint64_t step(struct daemon *d, struct fleet_round *round, uint64_t now_ns)
{
	struct fleet_homes *h = d->fleet_homes;
	bool has_room = ask_waiting(d, round, now_ns);
	uint64_t wall_ns = time_wall_ns(), next_ns = now_ns + NS_PER_S;
	struct known_sale *known;
	struct sale sale;

	begin_telling(d, now_ns);
	for (unsigned i = 0; has_room && !sales_at(d->sales, i, &sale); i++) {
		known = find_sale(h, sale.id);
		if (sales_state(&sale, 1, wall_ns) != SALE_ENDED)
			has_room = tend_sale(d, round, &sale, now_ns);
		else if (known && !known->called)
			forget_sale(h, known);
	}
	for (size_t i = 0; i < h->sale_count; i++) {
		h->sales[i].asked = false;
		if (!h->sales[i].called && h->sales[i].look_ns < next_ns)
			next_ns = h->sales[i].look_ns;
	}
	if (h->ask_ns > now_ns && h->ask_ns < next_ns)
		next_ns = h->ask_ns;
	return has_room ? next_ns : now_ns;
}

static void news(struct daemon *d, const char *about)
{
	struct fleet_homes *h = d->fleet_homes;
	uint64_t soon_ns = time_mono_ns();

	(void)about;
	if (soon_ns < h->looked_ns + NEWS_EVERY_NS)
		soon_ns = h->looked_ns + NEWS_EVERY_NS;
	h->looked_ns = soon_ns;
	for (size_t i = 0; i < h->sale_count; i++)
		if (h->sales[i].look_ns > soon_ns)
			h->sales[i].look_ns = soon_ns;
}

const struct fleet_part fleet_homes_part = {.name = "homes", .topic = "homes", .step = step, .news = news};
