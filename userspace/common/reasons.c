/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Names and texts of reasons and answers for people and programs, made from the one list in sluice/reasons.h. Called wherever a
 * number from the gate is shown; a number that is out of range (a newer gate) shows as "?".
 */
#include <stddef.h>

#include "common/maps.h"

static const struct {
	const char *label;
	const char *text;
	enum sluice_action action;
	enum sluice_answer answer;
} reasons[SLUICE_REASON_COUNT] = {
#define X(name, label_, action_, answer_, text_) \
	[SLUICE_REASON_##name] = {label_, text_, SLUICE_ACTION_##action_, SLUICE_ANSWER_##answer_},
	SLUICE_REASONS(X)
#undef X
};

static const struct {
	const char *code;
	int status;
} answers[SLUICE_ANSWER_COUNT] = {
#define X(name, code_, status_, title_, retry_, detail_) [SLUICE_ANSWER_##name] = {code_, status_},
	SLUICE_ANSWERS(X)
#undef X
};

const char *reason_label(unsigned reason)
{
	return reason < SLUICE_REASON_COUNT ? reasons[reason].label : "?";
}

const char *reason_text(unsigned reason)
{
	return reason < SLUICE_REASON_COUNT ? reasons[reason].text : NULL;
}

enum sluice_action reason_action(unsigned reason)
{
	return reason < SLUICE_REASON_COUNT ? reasons[reason].action : SLUICE_ACTION_DROP;
}

enum sluice_answer reason_answer(unsigned reason)
{
	return reason < SLUICE_REASON_COUNT ? reasons[reason].answer : SLUICE_ANSWER_NONE;
}

const char *answer_code(unsigned answer)
{
	return answer < SLUICE_ANSWER_COUNT ? answers[answer].code : "?";
}

int answer_status(unsigned answer)
{
	return answer < SLUICE_ANSWER_COUNT ? answers[answer].status : 0;
}
