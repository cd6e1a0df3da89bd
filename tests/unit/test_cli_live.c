/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the live commands are made of: events read from a stream in whatever pieces, verdicts as lines, the page of `sluice top`, a screen that is too
 * small.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/screen.h"
#include "cli/sse.h"
#include "cli/top.h"
#include "cli/verdict_line.h"

/* --- streams ---------------------------------------------------------------------------------------------------------------- */
static char seen[4096];
static int stop_after;

static int note(const char *name, const char *data, void *arg)
{
	size_t used = strlen(seen);

	(void)arg;
	snprintf(seen + used, sizeof(seen) - used, "[%s|%s]", name, data);
	return --stop_after == 0 ? 5 : 0;
}

static int feed(const char *text, size_t piece)
{
	static struct cli_sse sse;
	int result = 0;

	memset(&sse, 0, sizeof(sse));
	sse.on_event = note;
	*seen = '\0';
	for (size_t at = 0, length = strlen(text); at < length && !result; at += piece)
		result = cli_sse_feed(&sse, text + at, at + piece < length ? piece : length - at);
	return result;
}

static void events_come_whole_however_the_bytes_are_cut(void **state)
{
	static const char stream[] =
		": watching\n\ndata: {\"a\":1}\n\nevent: lost\ndata: {\"lost\":3}\n\n: alive\n\n"
		"id: 7\r\ndata:one\r\ndata: two\r\n\r\nevent: empty\n\ndata: last\n\ndata: cut off";

	(void)state;
	for (size_t piece = 1; piece < sizeof(stream); piece++) {
		stop_after = 0;
		assert_int_equal(feed(stream, piece), 0);
		assert_string_equal(seen, "[message|{\"a\":1}][lost|{\"lost\":3}][message|one\ntwo][message|last]");
	}
}

static void reading_ends_when_it_is_told_to(void **state)
{
	(void)state;
	stop_after = 2;
	assert_int_equal(feed("data: 1\n\ndata: 2\n\ndata: 3\n\n", 100), 5);
	assert_string_equal(seen, "[message|1][message|2]");
}

static void a_line_or_an_event_without_end_is_an_error(void **state)
{
	static char text[3 * CLI_SSE_LINE_MAX];

	(void)state;
	stop_after = 0;
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(feed(text, 100), -EMSGSIZE);
	for (size_t at = 0; at + 100 < sizeof(text); at += 100) {
		memcpy(text + at, "data: ", 6);
		text[at + 99] = '\n';
	}
	assert_int_equal(feed(text, 100), -EMSGSIZE);
	assert_string_equal(seen, "");
}

/* --- printing --------------------------------------------------------------------------------------------------------------- */
static char *printed(void (*print)(FILE *, const json_t *), const char *text)
{
	json_t *json = json_loads(text, 0, NULL);
	char *out = NULL;
	size_t size;
	FILE *file = open_memstream(&out, &size);

	assert_non_null(json);
	assert_non_null(file);
	print(file, json);
	fclose(file);
	json_decref(json);
	return out;
}

static void a_verdict_is_one_line_that_cannot_move_the_cursor(void **state)
{
	char *line = printed(cli_verdict_line,
		"{\"time\":\"2026-11-22T12:00:00Z\",\"reason\":\"sold_out\",\"source\":\"192.0.2.7\",\"service\":\"a\\u001b[2Jb\","
		"\"sale\":null,\"door\":\"wire\",\"shadow\":true,\"stands_for\":100.0}");

	(void)state;
	assert_non_null(strstr(line, "2026-11-22T12:00:00Z"));
	assert_non_null(strstr(line, "sold_out"));
	assert_non_null(strstr(line, "a?[2Jb"));
	assert_non_null(strstr(line, "x100"));
	assert_non_null(strstr(line, "shadow"));
	assert_null(strchr(line, '\033'));
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
	free(line);
}

static void print_three(FILE *out, const json_t *top)
{
	cli_top_print(out, top, 3);
}

static void top_shows_the_busiest_reasons_first(void **state)
{
	char *page = printed(print_three,
		"{\"time\":\"2026-11-22T12:00:00Z\",\"interval_ms\":1000,\"shadow_mode\":\"all\","
		"\"packets\":{\"shop\":{\"syn_cookie\":12.0,\"sold_out\":4000.0,\"socket\":1.5}},\"calls\":{\"admitted\":700.0},"
		"\"shadow\":{},\"orders\":{\"admitted_per_second\":3.0,\"durable_per_second\":2.0,\"in_flight\":1,\"open\":false},"
		"\"sales\":[{\"slug\":\"drop\",\"state\":\"open\",\"put_in\":10,\"free\":4,\"held\":6,\"confirmed\":0}],\"more_sales\":2,"
		"\"sources\":[{\"source\":\"192.0.2.7\",\"per_second\":812.4,\"refused_per_second\":800.0,\"reason\":\"sold_out\"}],"
		"\"prefixes\":[],\"sample\":{\"verdicts\":10,\"stands_for\":4712.0,\"sources\":1,\"prefixes\":1}}");

	(void)state;
	/* A line of its own, before all others, so that no terminal is too small for it. */
	assert_ptr_equal(strstr(page, "THE WHOLE GATE IS IN SHADOW MODE\n"), page);
	assert_non_null(strstr(page, "CLOSED"));
	assert_true(strstr(page, "sold_out") < strstr(page, "(call door)"));
	assert_true(strstr(page, "(call door)") < strstr(page, "syn_cookie"));
	assert_null(strstr(page, "socket")); /* the fourth */
	assert_non_null(strstr(page, "and 2 more"));
	assert_non_null(strstr(page, "sampled: 10 of about 4712 verdicts"));
	assert_non_null(strstr(page, "; 1 source, 1 prefix seen\n"));
	assert_non_null(strstr(page, "192.0.2.7              812"));
	assert_non_null(strstr(page, "BUSIEST SOURCE"));
	assert_non_null(strstr(page, "BUSIEST PREFIX"));
	free(page);
}

static void what_does_not_fit_on_the_screen_is_cut_off(void **state)
{
	char *clipped = cli_screen_clip("12345678\nü345ö78\nthree\nfour\n", 3, 5);

	(void)state;
	assert_string_equal(clipped, "12345\033[K\nü345ö\033[K\n(more\033[K");
	free(clipped);
	clipped = cli_screen_clip("one\ntwo\nthree\n", 3, 5); /* fits */
	assert_string_equal(clipped, "one\033[K\ntwo\033[K\nthree\033[K");
	free(clipped);
	clipped = cli_screen_clip("one\ntwo\n", 1, 5);
	assert_string_equal(clipped, "(more\033[K");
	free(clipped);
	clipped = cli_screen_clip("one\n", 10, 10);
	assert_string_equal(clipped, "one\033[K\n");
	free(clipped);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_come_whole_however_the_bytes_are_cut),
		cmocka_unit_test(reading_ends_when_it_is_told_to),
		cmocka_unit_test(a_line_or_an_event_without_end_is_an_error),
		cmocka_unit_test(a_verdict_is_one_line_that_cannot_move_the_cursor),
		cmocka_unit_test(top_shows_the_busiest_reasons_first),
		cmocka_unit_test(what_does_not_fit_on_the_screen_is_cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
