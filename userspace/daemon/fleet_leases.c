/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See fleet_leases.h: the state machine of fleet/lease.h, run for every sale of the registry.
 *
 * The words of the gate are looked at on every turn of the fleet's thread (LOOK_NS), which costs some loads a sale; only where they have changed, or something is
 * due, is the lease asked what to do. So the gate is fed before it is empty, and a sale that rests costs a report now and then: the more seldom, the more
 * sales there are.
 */
#include "daemon/fleet_leases_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "common/token.h"
#include "daemon/maintenance.h"

#define MS 1000000ULL
#define NS_PER_S (1000 * MS)
#define LOOK_NS (20 * MS)
#define REFRESH_NS (200 * MS) /* the registry: windows, pauses. New sales are seen at once: somebody waits for them */
#define BOOKS_AGAIN_NS (200 * MS)
#define MOVE_AGAIN_NS (100 * MS) /* after the ledger has not taken a move */
/* A message says "look" and not at what. Sales that sell or lack units look at once; of the others so many on each turn, so that a thousand
 * sales at rest do not answer every message of a busy one.
 */
#define LOOKS_PER_TURN 16
/* Sales at rest are told of so often, all together. */
#define REST_CALLS_PER_S 64

/* --- sales ---------------------------------------------------------------------------------------------------------------------- */
struct leased_sale *leases_find(struct fleet_leases *leases, const char *slug)
{
	for (unsigned i = 0; i < leases->count; i++)
		if (!strcmp(leases->sales[i]->sale.slug, slug))
			return leases->sales[i];
	return NULL;
}

static struct leased_sale *find_id(struct fleet_leases *leases, uint32_t id)
{
	for (unsigned i = 0; i < leases->count; i++)
		if (leases->sales[i]->sale.id == id)
			return leases->sales[i];
	return NULL;
}

/* Under the lock: others may be reading the array. */
static bool make_room(struct fleet_leases *leases)
{
	unsigned capacity = leases->capacity ? leases->capacity * 2 : 64;
	struct leased_sale **sales;

	if (leases->count < leases->capacity)
		return true;
	sales = realloc(leases->sales, capacity * sizeof(*sales));
	if (!sales)
		return false;
	leases->sales = sales;
	leases->capacity = capacity;
	return true;
}

static void learn_new_sales(struct daemon *d)
{
	struct fleet_leases *leases = d->leases;
	struct sale sale;

	while (!sales_at(d->sales, leases->count, &sale)) {
		struct leased_sale *leased = calloc(1, sizeof(*leased));
		bool has_room;

		if (leased)
			leased->sale = sale;
		pthread_mutex_lock(&leases->lock);
		has_room = leased && make_room(leases);
		if (has_room)
			leases->sales[leases->count++] = leased;
		pthread_mutex_unlock(&leases->lock);
		if (!has_room) {
			free(leased);
			log_warn("no memory for the lease of sale %s, which sells nothing until there is", sale.slug);
			return;
		}
		leases->books_due_ns = 0;
	}
}

/* --- books ------------------------------------------------------------------------------------------------------------------------ */
static void set_flags(struct daemon *d, struct leased_sale *sale, struct lease_flags flags)
{
	if (sale->has_flags && sale->flags.more == flags.more && sale->flags.withheld == flags.withheld)
		return;
	sales_set_lease_flags(d->sales, sale->sale.id, flags.more, flags.withheld);
	if (sale->has_flags && sale->flags.withheld != flags.withheld)
		log_info("sale %s: this node %s", sale->sale.slug,
			flags.withheld ? "sells nothing until Redis has agreed to its lease"
				       : "sells what is leased to it");
	sale->flags = flags;
	sale->has_flags = true;
}

static void tell_trouble(struct daemon *d, struct leased_sale *sale)
{
	enum lease_trouble trouble = lease_trouble(&sale->lease);

	if (trouble == sale->trouble)
		return;
	sale->trouble = trouble;
	if (trouble == LEASE_TROUBLE_DOUBLED)
		log_error(
			"sale %s: another daemon, on another machine or with another state directory, speaks to Redis as node %u: this one sells nothing. "
			"Each node needs a fleet.node of its own. If this is where node %u is now, stop the other one: this one goes on by itself 20 seconds later",
			sale->sale.slug, d->config.fleet.node, d->config.fleet.node);
	else if (trouble == LEASE_TROUBLE_SET_BACK)
		log_error(
			"sale %s: Redis knows of moves of units that this ledger does not have, so it is an older copy of the ledger of node %u or a new one, and "
			"does not know all that was sold: nothing of the sale is sold here. Bring the right ledger back; or give this machine a fleet.node that "
			"no node has had, and fence node %u with what it has sold (sluice node fence)",
			sale->sale.slug, d->config.fleet.node, d->config.fleet.node);
}

static void set_state(struct fleet_leases *leases, struct leased_sale *sale, enum leased_state state)
{
	pthread_mutex_lock(&leases->lock);
	sale->state = state;
	pthread_mutex_unlock(&leases->lock);
}

/* A sale without a book is new, and no unit of it was ever leased to this node; or this node has made it when it was alone. Its number tells, or that it has
 * units: those of a fleet's sale come with its book, in one transaction.
 */
static void take_book(struct daemon *d, struct leased_sale *sale, const json_t *json)
{
	const char *text = json_string_value(json_object_get(json, "document"));
	struct lease_book book;

	if (sale->state != LEASED_UNREAD)
		return;
	if (text && lease_book_decode(&book, text)) {
		log_error("sale %s: its document " FLEET_BOOK_PREFIX
			  "%u in the ledger cannot be read: this node sells nothing of it. Is this program older than "
			  "the one that wrote it?",
			sale->sale.slug, sale->sale.id);
		return;
	}
	if (!text && (sale->sale.id <= SALES_LAST_LONELY_ID || atomic_load(&sale->sale.counts->put_in))) {
		set_state(d->leases, sale, LEASED_NOT);
		set_flags(d, sale, (struct lease_flags){.more = false});
		return;
	}
	lease_init(&sale->lease, &d->leases->options, text ? &book : NULL);
	set_state(d->leases, sale, LEASED);
	sale->due = true;
}

static void read_books(struct daemon *d, uint64_t now)
{
	struct fleet_leases *leases = d->leases;
	uint32_t first = UINT32_MAX;
	json_t *books, *book;
	size_t i;

	pthread_mutex_lock(&leases->lock);
	books = json_copy(leases->books);
	json_array_clear(leases->books);
	pthread_mutex_unlock(&leases->lock);
	json_array_foreach(books, i, book) {
		struct leased_sale *sale = find_id(leases, (uint32_t)json_integer_value(json_object_get(book, "id")));

		if (sale)
			take_book(d, sale, book);
	}
	json_decref(books);
	if (now < leases->books_due_ns || atomic_load(&leases->is_reading))
		return;
	for (unsigned j = 0; j < leases->count; j++)
		if (leases->sales[j]->state == LEASED_UNREAD && leases->sales[j]->sale.id < first)
			first = leases->sales[j]->sale.id;
	if (first == UINT32_MAX)
		return;
	leases->books_due_ns = now + BOOKS_AGAIN_NS;
	leases_read_books(d, first - 1);
}

/* --- calls ------------------------------------------------------------------------------------------------------------------------- */
bool leases_call(struct daemon *d, struct fleet_round *round, const char *slug, const struct lease_call *call,
	fleet_done done, void *arg)
{
	const char *arguments[LEASE_ARGUMENTS_MAX];
	char key[FLEET_KEY_MAX];
	const char *keys[] = {fleet_sale_key(d, slug, "stock", key)};

	for (unsigned i = 0; i < call->count; i++)
		arguments[i] = lease_call_argument(call, i);
	return fleet_script(round, call->script, keys, 1, arguments, call->count, done, arg);
}

int leases_read_reply(const redisReply *reply, struct lease_reply *read)
{
	const char *texts[LEASE_REPLY_TEXTS];
	size_t lengths[LEASE_REPLY_TEXTS];

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements > LEASE_REPLY_TEXTS)
		return -EPROTO;
	for (size_t i = 0; i < reply->elements; i++) {
		if (reply->element[i]->type != REDIS_REPLY_STRING)
			return -EPROTO;
		texts[i] = reply->element[i]->str;
		lengths[i] = reply->element[i]->len;
	}
	return lease_reply_decode(read, texts, lengths, reply->elements);
}

static void on_called(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct leased_sale *sale = arg;
	enum lease_outcome outcome = error == -ENOTCONN ? LEASE_NOT_DONE : LEASE_UNKNOWN;
	struct lease_reply read;

	if (!error && !leases_read_reply(reply, &read))
		outcome = LEASE_ANSWERED;
	else if (!error)
		log_error("sale %s: Redis answers in a way that this program does not understand", sale->sale.slug);
	if (outcome == LEASE_ANSWERED && read.answer == LEASE_FENCED) {
		atomic_fetch_add(&d->leases->fences, 1);
		log_warn(
			"sale %s: this node was fenced while it was away; what it has sold counts, what it has not sold goes back",
			sale->sale.slug);
	}
	lease_called(&sale->lease, outcome, outcome == LEASE_ANSWERED ? &read : NULL, time_mono_ns());
	sale->due = true;
	fleet_wake(d);
}

/* --- a turn ------------------------------------------------------------------------------------------------------------------------ */
static void look_at_words(struct daemon *d, const struct leased_sale *sale, struct lease_view *view)
{
	const struct sluice_stock *stock = &d->maps.stock[sale->sale.id % SLUICE_MAX_SALES];
	struct stock_view books;

	if (sales_in_gate(d->sales, &sale->sale)) {
		view->unsold = (int64_t)__atomic_load_n(&stock->free, __ATOMIC_ACQUIRE);
		view->admitted = __atomic_load_n(&stock->taken, __ATOMIC_RELAXED);
		view->wanted = __atomic_load_n(&stock->wanted, __ATOMIC_RELAXED);
		return;
	}
	maintenance_read_stock(d, &sale->sale, &books);
	view->unsold = (int64_t)books.free;
	view->admitted = sale->taken;
	view->wanted = sale->wanted;
}

/* Returns whether anything is new to the lease. */
static bool look(struct daemon *d, struct leased_sale *sale, uint64_t now, uint64_t wall, struct lease_view *view)
{
	bool is_new;

	*view = (struct lease_view){
		.now_ns = now,
		.order_max = sale->sale.per_buyer < SLUICE_MAX_QUANTITY ? sale->sale.per_buyer : SLUICE_MAX_QUANTITY,
		.ordered = atomic_load(&sale->sale.counts->ordered),
		.over = sale->sale.ended || wall >= sale->sale.ends_ns,
		.leaving = d->leases->leaving,
		.rest_ns = d->leases->rest_ns,
	};
	look_at_words(d, sale, view);
	is_new = sale->due || now >= sale->until_ns || view->over != sale->over ||
		(uint64_t)view->unsold != sale->units || view->admitted != sale->taken || view->wanted != sale->wanted;
	sale->units = (uint64_t)view->unsold;
	sale->taken = view->admitted;
	sale->wanted = view->wanted;
	sale->over = view->over;
	return is_new;
}

/* Returns false if the round was too full. */
static bool act(struct daemon *d, struct fleet_round *round, struct leased_sale *sale, uint64_t now)
{
	const struct lease_action *action = &d->leases->action;

	switch (action->kind) {
	case LEASE_CALL:
		if (leases_call(d, round, sale->sale.slug, &action->call, on_called, sale))
			return true;
		lease_called(&sale->lease, LEASE_NOT_DONE, NULL, now);
		sale->due = true;
		return false;
	case LEASE_MOVE:
		leases_move(d, sale, action);
		return true;
	default:
		sale->until_ns = action->until_ns;
		return true;
	}
}

static bool is_creation(const char *operation)
{
	return !strncmp(operation, LEASES_CREATION, strlen(LEASES_CREATION));
}

/* A change of the total that this ledger had is not what the fleet has agreed to: Redis had lost it, and another was made without it. But a sale that was
 * made again with as many units is what it was.
 */
static void tell_lost_change(const struct leased_sale *sale, const struct lease_book *before)
{
	const struct lease_book *book = &sale->lease.book;

	if (is_creation(before->operation) && is_creation(book->operation) && before->total == book->total)
		return;
	if (before->version && before->version == book->version && strcmp(before->operation, book->operation) != 0)
		log_error(
			"sale %s: two changes of its total were made apart while Redis had lost the one: %s, to %" PRId64
			" units, which this node knew, and %s, to "
			"%" PRId64
			" units. The latter counts now, and the former is lost: if it is still wanted, make it again under another key",
			sale->sale.slug, before->operation, before->total, book->operation, book->total);
}

static void take_move(struct leased_sale *sale, uint64_t now)
{
	struct lease_book before;

	if (!atomic_load(&sale->is_moved))
		return;
	before = sale->lease.book;
	atomic_store(&sale->is_moved, false);
	lease_moved(&sale->lease, sale->move_error, now);
	tell_lost_change(sale, &before);
	sale->due = !sale->move_error || sale->move_error == -EAGAIN;
	sale->until_ns = sale->due ? 0 : now + MOVE_AGAIN_NS;
}

static bool turn(struct daemon *d, struct fleet_round *round, struct leased_sale *sale, uint64_t now, uint64_t wall)
{
	struct lease_flags flags;
	struct lease_view view;

	if (sale->state != LEASED)
		return true;
	take_move(sale, now);
	if (!look(d, sale, now, wall, &view))
		return true;
	sale->due = false;
	lease_next(&sale->lease, &view, &d->leases->action);
	lease_flags(&sale->lease, &flags);
	set_flags(d, sale, flags);
	tell_trouble(d, sale);
	leases_show(d, sale);
	return act(d, round, sale, now);
}

/* How long sales rest. Who does not hear what others want has to ask. */
static void choose_rest(struct daemon *d)
{
	struct fleet_leases *leases = d->leases;
	struct fleet_status status;
	uint64_t rest_ns;

	fleet_status(d, &status);
	rest_ns = status.redis.subscribed ? leases->count * (NS_PER_S / REST_CALLS_PER_S) : 0;
	for (unsigned i = 0; rest_ns < leases->rest_ns && i < leases->count; i++)
		leases->sales[i]->until_ns = 0;
	leases->rest_ns = rest_ns;
}

static void refresh(struct daemon *d, uint64_t now)
{
	struct fleet_leases *leases = d->leases;

	if (now < leases->refreshed_ns + REFRESH_NS && leases->count == sales_count(d->sales))
		return;
	leases->refreshed_ns = now;
	learn_new_sales(d);
	pthread_mutex_lock(&leases->lock);
	for (unsigned i = 0; i < leases->count; i++)
		sales_at(d->sales, i, &leases->sales[i]->sale);
	pthread_mutex_unlock(&leases->lock);
	choose_rest(d);
}

static bool is_busy(const struct leased_sale *sale)
{
	return !sale->over && (sale->units || sale->wanted || sale->flags.withheld);
}

static void ask_anew(struct leased_sale *sale)
{
	if (sale->state != LEASED)
		return;
	lease_look(&sale->lease);
	sale->due = true;
}

static void look_at_some(struct fleet_leases *leases)
{
	for (unsigned i = 0; i < LOOKS_PER_TURN && leases->looks_left && leases->count; i++) {
		leases->look_at %= leases->count;
		leases->looks_left--;
		if (!is_busy(leases->sales[leases->look_at]))
			ask_anew(leases->sales[leases->look_at]);
		leases->look_at++;
	}
}

static uint64_t step(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	struct fleet_leases *leases = d->leases;
	uint64_t wall = time_wall_ns();
	bool all;

	all = fleet_wishes_step(d, leases->wishes, round);
	if (!atomic_load(&d->sales_known))
		return now + LOOK_NS;
	refresh(d, now);
	read_books(d, now);
	look_at_some(leases);
	for (unsigned i = 0; all && i < leases->count; i++)
		all = turn(d, round, leases->sales[i], now, wall);
	return all ? now + LOOK_NS : now;
}

/* `slug`: a sale in which somebody wants units. */
static void news(struct daemon *d, const char *slug)
{
	struct fleet_leases *leases = d->leases;

	if (slug) {
		for (unsigned i = 0; i < leases->count; i++)
			if (!strcmp(leases->sales[i]->sale.slug, slug))
				ask_anew(leases->sales[i]);
		return;
	}
	for (unsigned i = 0; i < leases->count; i++)
		if (is_busy(leases->sales[i]))
			ask_anew(leases->sales[i]);
	leases->looks_left = leases->count;
}

static bool leave(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	struct fleet_leases *leases = d->leases;
	bool all = true;

	leases->leaving = true;
	for (unsigned i = 0; i < leases->count; i++) {
		struct leased_sale *sale = leases->sales[i];
		struct lease_view view;

		sale->due = true;
		turn(d, round, sale, now, time_wall_ns());
		if (sale->state != LEASED)
			continue;
		look(d, sale, now, time_wall_ns(), &view);
		all = all && lease_is_left(&sale->lease, &view);
	}
	return all;
}

const struct fleet_part fleet_leases_part = {
	.name = "leases", .topic = "lease", .step = step, .news = news, .leave = leave};

/* Where this daemon runs, which no copy of its disk can say elsewhere: this boot of this machine, and the place of the state directory on it. Without
 * /proc or the directory it is the place alone, or nowhere.
 */
static void find_origin(const struct daemon *d, char *origin)
{
	struct {
		char boot[40];
		uint64_t device, inode;
	} place = {0};
	struct stat stat_of;
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (file && !fgets(place.boot, sizeof(place.boot), file))
		*place.boot = '\0';
	if (file)
		fclose(file);
	if (!stat(d->config.daemon.state_dir, &stat_of)) {
		place.device = stat_of.st_dev;
		place.inode = stat_of.st_ino;
	}
	snprintf(origin, LEASE_ORIGIN_MAX, "%016" PRIx64, (uint64_t)siphash24(&place, sizeof(place), 0, 0));
}

/* --- life ---------------------------------------------------------------------------------------------------------------------------- */
int fleet_leases_open(struct daemon *d)
{
	const struct config *config = &d->config;
	struct fleet_leases *leases;

	if (!config_is_fleet(config))
		return 0;
	leases = calloc(1, sizeof(*leases));
	if (!leases)
		return -ENOMEM;
	leases->options.node = config->fleet.node;
	leases->options.lease_ms = config->fleet.lease_ms;
	leases->options.fence_after_ms = config->fleet.fence_after_s * 1000;
	fleet_channel(d, leases->options.channel);
	find_origin(d, leases->options.origin);
	for (unsigned i = 0; i < config->node_count; i++)
		lease_members_add(&leases->options.members, config->nodes[i].id);
	lease_init(&leases->stranger, &leases->options, NULL);
	pthread_mutex_init(&leases->lock, NULL);
	leases->books = json_array();
	leases->unsure = json_object();
	leases->wishes = fleet_wishes_new();
	d->leases = leases;
	return leases->books && leases->unsure && leases->wishes ? 0 : -ENOMEM;
}

void fleet_leases_free(struct daemon *d)
{
	struct fleet_leases *leases = d->leases;

	if (!leases)
		return;
	for (unsigned i = 0; i < leases->count; i++)
		free(leases->sales[i]);
	free(leases->sales);
	fleet_wishes_free(leases->wishes);
	json_decref(leases->books);
	json_decref(leases->unsure);
	free(leases);
	d->leases = NULL;
}
