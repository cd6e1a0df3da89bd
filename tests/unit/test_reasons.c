/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The one list of reasons and what is made of it: labels, answers, and docs/reasons.md, which is rendered here (`make docs`
 * writes it) and compared, so the page cannot lag behind the list.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/maps.h"
#include "sluice/reasons.h"

#define PAGE "docs/reasons.md"

static const char *const action_words[] = {"up to the kernel", "dropped", "a bare TCP segment back", "answered"};

static const char *const answer_details[] = {
#define X(name, code, status, title, retry, detail) detail,
	SLUICE_ANSWERS(X)
#undef X
};

static const int answer_retries[] = {
#define X(name, code, status, title, retry, detail) retry,
	SLUICE_ANSWERS(X)
#undef X
};

static char *render(void)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fprintf(out,
		"# Reasons\n\n"
		"Every packet, and every order judged through the call door, ends with exactly one of these. The label is the\n"
		"`reason` of `sluice_packets_total`, `sluice_bytes_total` and `sluice_calls_total`, and of `sluice stats`. This page is made\n"
		"from `include/sluice/reasons.h` by `make docs`.\n\n"
		"| reason | what happens | why |\n| --- | --- | --- |\n");
	for (unsigned i = 1; i < SLUICE_REASON_COUNT; i++) {
		fprintf(out, "| `%s` | %s", reason_label(i), action_words[reason_action(i)]);
		if (reason_action(i) == SLUICE_ACTION_ANSWER)
			fprintf(out, " %d `%s`", answer_status(reason_answer(i)), answer_code(reason_answer(i)));
		fprintf(out, " | %s |\n", reason_text(i));
	}
	fprintf(out, "\n## Answers\n\n| code | status | `Retry-After` | detail |\n| --- | --- | --- | --- |\n");
	for (unsigned i = 1; i < SLUICE_ANSWER_COUNT; i++)
		fprintf(out, "| `%s` | %d | %s | %s |\n", answer_code(i), answer_status(i),
			answer_retries[i] ? "yes" : "", answer_details[i]);
	fclose(out);
	return text;
}

static void every_reason_has_its_own_label_and_text(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SLUICE_REASON_COUNT; i++) {
		assert_true(strlen(reason_text(i)) > 5);
		for (const char *c = reason_label(i); *c; c++)
			assert_true(islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '_');
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(reason_label(i), reason_label(j));
	}
}

static void a_reason_has_an_answer_exactly_if_it_is_answered(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SLUICE_REASON_COUNT; i++)
		assert_int_equal(reason_action(i) == SLUICE_ACTION_ANSWER, reason_answer(i) != SLUICE_ANSWER_NONE);
}

static void every_answer_is_the_answer_of_some_reason(void **state)
{
	(void)state;
	for (unsigned answer = 1; answer < SLUICE_ANSWER_COUNT; answer++) {
		unsigned used = 0;

		for (unsigned i = 0; i < SLUICE_REASON_COUNT; i++)
			used += reason_answer(i) == answer;
		assert_true(used > 0);
	}
}

static void the_page_of_reasons_is_what_the_list_renders_to(void **state)
{
	char *want = render(), *have = calloc(1, 65536);
	FILE *page;

	(void)state;
	if (getenv("SLUICE_WRITE_DOCS")) {
		page = fopen(PAGE, "w");
		assert_non_null(page);
		fputs(want, page);
		fclose(page);
	}
	page = fopen(PAGE, "r");
	if (!page || !fread(have, 1, 65535, page) || strcmp(want, have))
		fail_msg("%s does not match include/sluice/reasons.h: run `make docs`", PAGE);
	fclose(page);
	free(want);
	free(have);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_reason_has_its_own_label_and_text),
		cmocka_unit_test(a_reason_has_an_answer_exactly_if_it_is_answered),
		cmocka_unit_test(every_answer_is_the_answer_of_some_reason),
		cmocka_unit_test(the_page_of_reasons_is_what_the_list_renders_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
