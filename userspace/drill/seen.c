/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bookkeeping of what clients saw; see seen.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drill/seen.h"

enum drill_answer drill_answer_of(int status, const char *code)
{
	static const struct {
		const char *code;
		enum drill_answer answer;
	} known[] = {
		{"sold_out", DRILL_SOLD_OUT},
		{"already_ordered", DRILL_HAS_ORDERED},
		{"sale_ended", DRILL_ENDED},
		{"sale_not_open", DRILL_LATER},
		{"rate_limited", DRILL_LATER},
		{"paused", DRILL_LATER},
		{"unavailable", DRILL_LATER},
		{"token_invalid", DRILL_REJECTED},
		{"token_expired", DRILL_REJECTED},
		{"wrong_network", DRILL_REJECTED},
		{"unknown_sale", DRILL_REJECTED},
	};

	if (status == 201)
		return DRILL_CREATED;
	if (status == 200)
		return DRILL_REPEATED;
	if (status == 202)
		return DRILL_PENDING;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!strcmp(known[i].code, code))
			return known[i].answer;
	}
	return DRILL_STRANGE;
}

const char *drill_answer_name(int status, const char *code, char *out)
{
	if (status == 201)
		snprintf(out, DRILL_CODE_MAX, "created");
	else if (status == 200)
		snprintf(out, DRILL_CODE_MAX, "repeated");
	else if (status == 202)
		snprintf(out, DRILL_CODE_MAX, "pending");
	else if (code[0])
		snprintf(out, DRILL_CODE_MAX, "%s", code);
	else
		snprintf(out, DRILL_CODE_MAX, "http_%d", status);
	return out;
}

bool drill_answer_is_final(enum drill_answer answer)
{
	switch (answer) {
	case DRILL_PENDING:
	case DRILL_LATER:
	case DRILL_STRANGE:
		return false;
	default:
		return true;
	}
}

/* Answers of parallel requests may overtake one another: only a request that began after a yes had arrived must not be refused. */
static bool follows_a_yes(const struct drill_seen *seen, const struct drill_word *word)
{
	return seen->first_yes_mono_ns && word->started_mono_ns >= seen->first_yes_mono_ns;
}

static void note_yes(struct drill_seen *seen, const struct drill_word *word)
{
	if (!seen->first_yes_mono_ns || word->ended_mono_ns < seen->first_yes_mono_ns) {
		seen->first_yes_mono_ns = word->ended_mono_ns;
		seen->first_yes_wall_ns = word->ended_wall_ns;
	}
	seen->sold_out = false;
	if (word->answer == DRILL_PENDING) {
		seen->pending++;
		return;
	}
	if (seen->created + seen->repeated == 0)
		seen->order_id = word->order_id;
	else if (seen->order_id != word->order_id)
		seen->other_orders++;
	if (word->answer == DRILL_CREATED)
		seen->created++;
	else
		seen->repeated++;
	seen->answered = true;
}

void drill_seen_note(struct drill_seen *seen, const struct drill_word *word)
{
	switch (word->answer) {
	case DRILL_CREATED:
	case DRILL_REPEATED:
	case DRILL_PENDING:
		note_yes(seen, word);
		return;
	case DRILL_LATER:
	case DRILL_STRANGE:
		return;
	case DRILL_REJECTED:
		seen->rejected++;
		break;
	default:
		break;
	}
	seen->answered = true;
	if (follows_a_yes(seen, word))
		seen->taken_back++;
	if (!seen->first_yes_mono_ns)
		seen->sold_out = word->answer == DRILL_SOLD_OUT;
}

void drill_tally_add(struct drill_tally *tally, const char *name, uint64_t count)
{
	uint32_t row = 0;

	while (row < tally->rows && strcmp(tally->row[row].name, name))
		row++;
	if (row == tally->rows) {
		if (row >= DRILL_TALLY_MAX - 1) {
			name = "other";
			row = DRILL_TALLY_MAX - 1;
		}
		if (row == tally->rows) {
			snprintf(tally->row[row].name, DRILL_CODE_MAX, "%s", name);
			tally->row[row].count = 0;
			tally->rows++;
		}
	}
	tally->row[row].count += count;
}

uint64_t drill_tally_get(const struct drill_tally *tally, const char *name)
{
	for (uint32_t row = 0; row < tally->rows; row++) {
		if (!strcmp(tally->row[row].name, name))
			return tally->row[row].count;
	}
	return 0;
}

uint64_t drill_tally_sum(const struct drill_tally *tally)
{
	uint64_t sum = 0;

	for (uint32_t row = 0; row < tally->rows; row++)
		sum += tally->row[row].count;
	return sum;
}

static int by_count(const void *a, const void *b)
{
	const struct {
		char name[DRILL_CODE_MAX];
		uint64_t count;
	} *x = a, *y = b;

	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return strcmp(x->name, y->name);
}

void drill_tally_sort(struct drill_tally *tally)
{
	qsort(tally->row, tally->rows, sizeof(tally->row[0]), by_count);
}
