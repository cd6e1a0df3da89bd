/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The checks of the drill; see checks.h. I1, I2, … are the invariants as docs/drill.md lists them. A check that needs the
 * ledger says "unchecked" without one; it never says "holds" about what it could not see.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "drill/checks.h"

static const struct {
	const char *id, *name;
} check_names[DRILL_CHECKS] = {
	[DRILL_CHECK_OVERSELL] = {"I1", "no unit is sold twice"},
	[DRILL_CHECK_UNDERSELL] = {"I2", "no unit is lost"},
	[DRILL_CHECK_DURABLE] = {"I3", "every yes is in the ledger"},
	[DRILL_CHECK_ONCE] = {"I4", "one token, one order"},
	[DRILL_CHECK_LIMIT] = {"I4", "no buyer is above the limit"},
	[DRILL_CHECK_STANDS] = {"I5", "no yes is taken back"},
	[DRILL_CHECK_WINDOW] = {"I6", "no order outside the window"},
	[DRILL_CHECK_RIGHT] = {"R", "only the right tokens get in"},
};

static void say(struct drill_finding *finding, enum drill_verdict verdict, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void say(struct drill_finding *finding, enum drill_verdict verdict, const char *format, ...)
{
	va_list args;

	finding->verdict = verdict;
	va_start(args, format);
	vsnprintf(finding->detail, sizeof(finding->detail), format, args);
	va_end(args);
}

static int compare(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int by_number(const void *a, const void *b)
{
	return compare(*(const uint64_t *)a, *(const uint64_t *)b);
}

static const struct books_order *find_order(const struct drill_ledger *ledger, uint64_t id)
{
	const struct books_order key = {.id = id};

	return ledger->count ? bsearch(&key, ledger->orders, ledger->count, sizeof(key), books_by_id) : NULL;
}

static bool said_yes(const struct drill_seen *seen)
{
	return seen->created + seen->repeated != 0;
}

/* Orders that clients were shown or promised, each once, sorted; also counts those that two tokens were shown. */
static int shown_orders(const struct drill_seen *seen, size_t count, uint64_t **out, size_t *shown, uint64_t *shared)
{
	uint64_t *ids = malloc((count + 1) * sizeof(*ids));
	size_t n = 0, unique = 0;

	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (said_yes(&seen[i]))
			ids[n++] = seen[i].order_id;
		else if (seen[i].pending) /* promised; its order will have the token's serial */
			ids[n++] = seen[i].serial;
	}
	qsort(ids, n, sizeof(*ids), by_number);
	for (size_t i = 0; i < n; i++) {
		if (!i || ids[i] != ids[i - 1])
			ids[unique++] = ids[i];
	}
	*shared = n - unique;
	*shown = unique;
	*out = ids;
	return 0;
}

static void check_oversell(
	const struct drill_ledger *ledger, size_t shown, struct drill_sums *sums, struct drill_finding *finding)
{
	uint64_t stock = ledger->put_in > 0 ? (uint64_t)ledger->put_in : 0;

	if (!ledger->known) {
		say(finding, DRILL_UNCHECKED, "%zu orders were seen; the stock is not known without the control socket",
			shown);
		return;
	}
	/* a yes that is missing in the ledger is a unit promised all the same */
	sums->oversold = sums->units > stock ? sums->units - stock : 0;
	if (shown > stock && shown - stock > sums->oversold)
		sums->oversold = shown - stock;
	sums->unsold = sums->units < stock ? stock - sums->units : 0;
	if (ledger->refused_by_ledger) {
		say(finding, DRILL_BROKEN, "the gate admitted %" PRId64 " more than the ledger's own guard would take",
			ledger->refused_by_ledger);
		return;
	}
	say(finding, sums->oversold ? DRILL_BROKEN : DRILL_HOLDS,
		"%" PRIu64 " units in %" PRIu64 " orders of a stock of %" PRIu64 "; clients were shown %zu orders",
		sums->units, sums->orders, stock, shown);
}

static void check_undersell(const struct drill_seen *seen, size_t count, const struct drill_ledger *ledger,
	const struct drill_sums *sums, struct drill_finding *finding)
{
	uint64_t refused = 0;
	int64_t units = (int64_t)sums->units;

	for (size_t i = 0; i < count; i++)
		refused += seen[i].sold_out;
	if (!ledger->known)
		say(finding, DRILL_UNCHECKED, "what is free is not known without the control socket");
	else if (ledger->in_flight)
		say(finding, DRILL_BROKEN, "%" PRId64 " units are still in flight though nobody asks any more",
			ledger->in_flight);
	else if (ledger->free + units != ledger->put_in)
		say(finding, DRILL_BROKEN, "%" PRId64 " free + %" PRId64 " ordered is not the %" PRId64 " put in",
			ledger->free, units, ledger->put_in);
	else if (ledger->held + ledger->confirmed != units || !ledger->balanced)
		say(finding, DRILL_BROKEN,
			"the daemon counts %" PRId64 " held + %" PRId64 " confirmed%s, the orders hold %" PRId64
			" units",
			ledger->held, ledger->confirmed, ledger->balanced ? "" : " and calls itself unbalanced", units);
	else if (ledger->free > 0 && refused)
		say(finding, DRILL_BROKEN,
			"%" PRIu64 " buyers were told \"sold out\" while %" PRId64 " units stayed free", refused,
			ledger->free);
	else
		say(finding, DRILL_HOLDS,
			"%" PRId64 " free + %" PRId64 " ordered = %" PRId64 " put in; %" PRIu64 " told \"sold out\"",
			ledger->free, units, ledger->put_in, refused);
}

static void check_durable(
	const uint64_t *ids, size_t shown, const struct drill_ledger *ledger, struct drill_finding *finding)
{
	uint64_t missing = 0, first = 0;

	if (!ledger->known) {
		say(finding, DRILL_UNCHECKED, "the ledger cannot be read without the control socket");
		return;
	}
	for (size_t i = 0; i < shown; i++) {
		if (!find_order(ledger, ids[i]) && !missing++)
			first = ids[i];
	}
	if (missing)
		say(finding, DRILL_BROKEN,
			"%" PRIu64 " of %zu orders that clients were shown are not in the ledger, first %016" PRIx64,
			missing, shown, first);
	else
		say(finding, DRILL_HOLDS, "all %zu orders that clients were shown are there", shown);
}

/* An order's id is its token's serial, which the drill reads from the token itself. */
static void check_once(const struct drill_seen *seen, size_t count, const struct drill_ledger *ledger, uint64_t shared,
	struct drill_sums *sums, struct drill_finding *finding)
{
	uint64_t foreign = 0, other = 0, twice = 0, again = 0;

	for (size_t i = 0; i < count; i++) {
		if (!said_yes(&seen[i]))
			continue;
		other += seen[i].other_orders != 0;
		foreign += seen[i].order_id != seen[i].serial;
		again += seen[i].repeated;
	}
	for (size_t i = 1; i < ledger->count; i++)
		twice += ledger->orders[i].id == ledger->orders[i - 1].id;
	sums->duplicates += other + twice + shared;
	if (other || shared || foreign || twice)
		say(finding, DRILL_BROKEN,
			"%" PRIu64 " tokens got two orders, %" PRIu64 " orders went to two tokens, %" PRIu64
			" have the id of another token, %" PRIu64 " are twice in the ledger",
			other, shared, foreign, twice);
	else
		say(finding, DRILL_HOLDS, "%" PRIu64 " repeated requests each got the order they had", again);
}

static int check_limit(const struct drill_ledger *ledger, struct drill_sums *sums, struct drill_finding *finding)
{
	struct books_order *orders;
	uint64_t above = 0, buyers = 0, worst = 0;

	if (!ledger->known) {
		say(finding, DRILL_UNCHECKED, "the ledger cannot be read without the control socket");
		return 0;
	}
	orders = malloc((ledger->count + 1) * sizeof(*orders));
	if (!orders)
		return -ENOMEM;
	if (ledger->count)
		memcpy(orders, ledger->orders, ledger->count * sizeof(*orders));
	qsort(orders, ledger->count, sizeof(*orders), books_by_buyer);
	for (size_t i = 0, next; i < ledger->count; i += next) {
		uint64_t units = books_buyer_units(&orders[i], ledger->count - i, &next);

		buyers++;
		if (units > worst)
			worst = units;
		if (units > ledger->per_buyer) {
			above++;
			sums->duplicates += units - ledger->per_buyer;
		}
	}
	free(orders);
	say(finding, above ? DRILL_BROKEN : DRILL_HOLDS,
		"%" PRIu64 " buyers have orders, none may have more than %" PRIu32 "; the most is %" PRIu64
		", above it: %" PRIu64,
		buyers, ledger->per_buyer, worst, above);
	return 0;
}

static void check_stands(const struct drill_seen *seen, size_t count, struct drill_finding *finding)
{
	uint64_t taken_back = 0, yes = 0;

	for (size_t i = 0; i < count; i++) {
		taken_back += seen[i].taken_back != 0;
		yes += seen[i].first_yes_mono_ns != 0;
	}
	if (taken_back)
		say(finding, DRILL_BROKEN, "%" PRIu64 " of %" PRIu64 " tokens were refused after a yes", taken_back,
			yes);
	else
		say(finding, DRILL_HOLDS, "%" PRIu64 " tokens got a yes, none was refused afterwards", yes);
}

/* By the orders' own times, and by the clock of the clients. */
static void check_window(
	const struct drill_seen *seen, size_t count, const struct drill_ledger *ledger, struct drill_finding *finding)
{
	uint64_t early = 0, late = 0, heard_early = 0, first = UINT64_MAX, last = 0;

	for (size_t i = 0; i < count; i++) {
		if (seen[i].first_yes_wall_ns && seen[i].first_yes_wall_ns < ledger->opens_ns)
			heard_early++;
	}
	for (size_t i = 0; i < ledger->count; i++) {
		uint64_t at = ledger->orders[i].admitted_ns;

		early += books_outside(&ledger->orders[i], ledger->opens_ns, ledger->ends_ns) < 0;
		late += books_outside(&ledger->orders[i], ledger->opens_ns, ledger->ends_ns) > 0;
		first = at < first ? at : first;
		last = at > last ? at : last;
	}
	if (early || late || heard_early)
		say(finding, DRILL_BROKEN,
			"%" PRIu64 " orders admitted before the opening, %" PRIu64 " after the end; %" PRIu64
			" clients heard a yes before the opening",
			early, late, heard_early);
	else if (!ledger->known)
		say(finding, DRILL_UNCHECKED,
			"no client heard a yes before the opening; the orders' times need the control socket");
	else if (!ledger->count)
		say(finding, DRILL_HOLDS, "no order");
	else
		say(finding, DRILL_HOLDS, "first admitted %.3f s after the opening, last %.3f s after it",
			(double)(int64_t)(first - ledger->opens_ns) / 1e9,
			(double)(int64_t)(last - ledger->opens_ns) / 1e9);
}

static void check_right(const struct drill_seen *seen, size_t count, const struct drill_intruders *intruders,
	struct drill_finding *finding)
{
	uint64_t rejected = 0;

	for (size_t i = 0; i < count; i++)
		rejected += seen[i].rejected != 0;
	if (rejected || intruders->admitted || intruders->denied_answered)
		say(finding, DRILL_BROKEN,
			"%" PRIu64 " requests without a right got in, %" PRIu64
			" denied sources got an answer, %" PRIu64 " good tokens were called bad",
			intruders->admitted, intruders->denied_answered, rejected);
	else
		say(finding, DRILL_HOLDS,
			"no bad token got in, no denied source an answer, no good token was called bad");
}

int drill_checks_run(const struct drill_seen *seen, size_t seen_count, struct drill_ledger *ledger,
	const struct drill_intruders *intruders, struct drill_finding finding[DRILL_CHECKS], struct drill_sums *sums)
{
	uint64_t *ids = NULL, shared = 0;
	size_t shown = 0;
	int err, broken = 0;

	memset(sums, 0, sizeof(*sums));
	err = shown_orders(seen, seen_count, &ids, &shown, &shared);
	if (err)
		return err;
	for (int i = 0; i < DRILL_CHECKS; i++) {
		finding[i].id = check_names[i].id;
		finding[i].name = check_names[i].name;
	}
	if (ledger->count)
		qsort(ledger->orders, ledger->count, sizeof(*ledger->orders), books_by_id);
	sums->orders = ledger->known ? ledger->count : shown;
	sums->units = ledger->known ? books_units(ledger->orders, ledger->count) : shown;
	check_oversell(ledger, shown, sums, &finding[DRILL_CHECK_OVERSELL]);
	check_undersell(seen, seen_count, ledger, sums, &finding[DRILL_CHECK_UNDERSELL]);
	check_durable(ids, shown, ledger, &finding[DRILL_CHECK_DURABLE]);
	check_once(seen, seen_count, ledger, shared, sums, &finding[DRILL_CHECK_ONCE]);
	err = check_limit(ledger, sums, &finding[DRILL_CHECK_LIMIT]);
	check_stands(seen, seen_count, &finding[DRILL_CHECK_STANDS]);
	check_window(seen, seen_count, ledger, &finding[DRILL_CHECK_WINDOW]);
	check_right(seen, seen_count, intruders, &finding[DRILL_CHECK_RIGHT]);
	free(ids);
	if (err)
		return err;
	for (int i = 0; i < DRILL_CHECKS; i++)
		broken += finding[i].verdict == DRILL_BROKEN;
	return broken;
}
