/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The one list of problem codes: every answer of the gate is in it, and docs/problems.md, which is rendered here (`make docs` writes it) and
 * compared, so the page cannot lag behind the list.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/maps.h"
#include "daemon/problems.h"
#include "sluice/reasons.h"

#define PAGE "docs/problems.md"

static char *render(void)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fprintf(out,
		"# Problems\n\n"
		"The `code` of every problem document (RFC 9457). Its `type` is `/problems/CODE`, which both listeners serve; the refusals of the\n"
		"gate itself leave `type` out. This page is made from `userspace/daemon/problems.h` by `make docs`.\n\n"
		"| code | status | what it means | what to do |\n| --- | --- | --- | --- |\n");
	for (const struct problem_text *problem = problem_texts; problem->code; problem++)
		fprintf(out, "| `%s` | %s | %s | %s |\n", problem->code, problem->statuses, problem->meaning,
			problem->remedy);
	fclose(out);
	return text;
}

static void every_code_is_there_once_with_a_sentence(void **state)
{
	(void)state;
	for (const struct problem_text *problem = problem_texts; problem->code; problem++) {
		assert_ptr_equal(problem_find(problem->code), problem);
		assert_int_equal(strspn(problem->code, "abcdefghijklmnopqrstuvwxyz_"), strlen(problem->code));
		assert_true(strlen(problem->meaning) > 10);
	}
	assert_null(problem_find("nonsense"));
}

static void every_answer_of_the_gate_is_a_problem_with_its_status(void **state)
{
	char status[16];

	(void)state;
	for (unsigned i = 1; i < SLUICE_ANSWER_COUNT; i++) {
		const struct problem_text *problem = problem_find(answer_code(i));

		assert_non_null(problem);
		snprintf(status, sizeof(status), "%d", answer_status(i));
		assert_non_null(strstr(problem->statuses, status));
	}
}

static void the_page_of_problems_is_what_the_list_renders_to(void **state)
{
	char *wanted = render(), *found = NULL;
	size_t size = 0;
	FILE *page;

	(void)state;
	if (getenv("SLUICE_WRITE_DOCS")) {
		page = fopen(PAGE, "w");
		assert_non_null(page);
		fputs(wanted, page);
		fclose(page);
	}
	page = fopen(PAGE, "r");
	assert_non_null(page);
	assert_true(getdelim(&found, &size, '\0', page) > 0);
	fclose(page);
	assert_string_equal(found, wanted);
	free(found);
	free(wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_is_there_once_with_a_sentence),
		cmocka_unit_test(every_answer_of_the_gate_is_a_problem_with_its_status),
		cmocka_unit_test(the_page_of_problems_is_what_the_list_renders_to),
	};

	return cmocka_run_group_tests_name("problems", tests, NULL, NULL);
}
