/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The command line of `sluice`: what is accepted, what is refused with exit code 2 before any daemon is asked, and that help shows
 * every option that is accepted. Run by check-unit.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/loader_args.h"
#include "common/timefmt.h"

#define NS 1000000000ULL
#define ARGS_MAX 24

static int program_argc;
static char *program_argv[ARGS_MAX];

static int fake_program(int argc, char **argv)
{
	program_argc = argc;
	for (int i = 0; i < argc && i < ARGS_MAX; i++)
		program_argv[i] = argv[i];
	return 42;
}

static const struct cli_program programs[] = {
	{"attach", "help of attach", fake_program},
	{NULL, NULL, NULL},
};

static char *said, *printed;

/* Runs "sluice `words`" (split at spaces); what it says and prints is in `said` and `printed`. */
static int run(const char *words)
{
	static char line[1024];
	char *argv[ARGS_MAX + 1] = {(char *)"sluice"};
	size_t size, said_size;
	FILE *out, *terminal = stderr;
	int argc = 1, code;

	free(said);
	free(printed);
	snprintf(line, sizeof(line), "%s", words);
	for (char *word = strtok(line, " "); word && argc < ARGS_MAX; word = strtok(NULL, " "))
		argv[argc++] = word;
	out = open_memstream(&printed, &size);
	stderr = open_memstream(&said, &said_size);
	code = cli_run(argc, argv, programs, stdin, out);
	fclose(out);
	fclose(stderr);
	stderr = terminal;
	return code;
}

static void assert_says(const char *words, int code, const char *sentence)
{
	assert_int_equal(run(words), code);
	if (!strstr(said, sentence))
		fail_msg("\"%s\" says \"%s\", not \"%s\"", words, said, sentence);
}

static void a_count_is_digits_within_its_range(void **state)
{
	static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "1e3", "0x10", "1.0", "1_000", "ten"};
	uint64_t count = 77;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(cli_parse_count(bad[i], 0, UINT64_MAX, &count), -EINVAL);
	assert_int_equal(cli_parse_count("0", 1, 10, &count), -ERANGE);
	assert_int_equal(cli_parse_count("11", 1, 10, &count), -ERANGE);
	assert_int_equal(cli_parse_count("18446744073709551616", 0, UINT64_MAX, &count), -ERANGE);
	assert_int_equal(count, 77);
	assert_int_equal(cli_parse_count("18446744073709551615", 0, UINT64_MAX, &count), 0);
	assert_true(count == UINT64_MAX);
	assert_int_equal(cli_parse_count("007", 1, 10, &count), 0);
	assert_int_equal(count, 7);
}

static void a_rate_is_off_or_a_plain_number(void **state)
{
	static const char *const bad[] = {"", "-5", "5/s", "nan", "inf", "1e3", "0x5", "5 ", ".", "1.2.3", "OFF"};
	double rate = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(cli_parse_rate(bad[i], &rate), -EINVAL);
	assert_int_equal(cli_parse_rate("0.0001", &rate), -ERANGE);
	assert_int_equal(cli_parse_rate("1000000001", &rate), -ERANGE);
	assert_true(rate == 7);
	assert_int_equal(cli_parse_rate("off", &rate), 0);
	assert_true(rate == 0);
	assert_int_equal(cli_parse_rate("0.5", &rate), 0);
	assert_true(rate == 0.5);
}

static void a_time_is_now_or_an_offset_or_rfc3339(void **state)
{
	uint64_t when = 1;

	(void)state;
	assert_int_equal(cli_parse_when("now", 200 * NS, &when), 0);
	assert_true(when == 200 * NS);
	assert_int_equal(cli_parse_when("+15m", 200 * NS, &when), 0);
	assert_true(when == 1100 * NS);
	assert_int_equal(cli_parse_when("2026-11-22T12:00:00Z", 0, &when), 0);
	assert_true(when == 1795348800ULL * NS);
	assert_int_equal(cli_parse_when("+", 0, &when), -EINVAL);
	assert_int_equal(cli_parse_when("15m", 0, &when), -EINVAL);
	assert_int_equal(cli_parse_when("-15m", 0, &when), -EINVAL);
	assert_int_equal(cli_parse_when("tomorrow", 0, &when), -EINVAL);
	assert_int_equal(cli_parse_when("+99999999999999999999d", 0, &when), -EINVAL);
	assert_int_equal(cli_parse_when("+18446744073709551615", 1, &when), -EINVAL);
}

static void nothing_is_asked_of_a_daemon_if_the_command_line_is_wrong(void **state)
{
	(void)state;
	assert_says("sale", CLI_USAGE, "usage: sluice sale VERB");
	assert_says("nonsense", CLI_USAGE, "no command \"nonsense\"");
	assert_says("sale nonsense", CLI_USAGE, "no \"sale nonsense\"");
	assert_says("sale show", CLI_USAGE, "argument is missing: SLUG");
	assert_says("sale show a b", CLI_USAGE, "\"b\" is one argument too many");
	assert_says("sale show a --nonsense", CLI_USAGE, "no option --nonsense");
	assert_says("sale create a --opens now --ends +1h", CLI_USAGE, "--stock is missing");
	assert_says("sale create a --stock 10 --ends +1h", CLI_USAGE, "--opens is missing");
	assert_says("sale create a --stock 10 --stock 100 --opens now --ends +1h", CLI_USAGE, "--stock is given twice");
	assert_says("sale create a --stock 1e3 --opens now --ends +1h", CLI_USAGE, "\"1e3\" is not a whole number");
	assert_says("sale create a --stock 10 --opens soon --ends +1h", CLI_USAGE, "--opens: \"soon\" is not a time");
	assert_says("sale create a --stock 10 --opens +2h --ends now", CLI_USAGE, "not after the opening");
	assert_says("sale set a", CLI_USAGE, "nothing to change");
	assert_says("sale create a --stock 10 --opens now --ends +1h --per-buyer 101", CLI_USAGE, "--per-buyer");
	assert_says("sale create a --stock 10 --opens now --ends +1h --hold long", CLI_USAGE, "not a duration");
	assert_says("stock add a", CLI_USAGE, "missing");
	assert_says("stock add a 0", CLI_USAGE, "not a whole number");
	assert_says("stock remove a -5", CLI_USAGE, "no option -5");
	assert_says("limit set nonsense 5", CLI_USAGE, "no limit \"nonsense\"");
	assert_says("limit set source fast", CLI_USAGE, "\"fast\" is not");
	assert_says("limit set source 5 --burst 0", CLI_USAGE, "--burst");
	assert_says("deny add 192.0.2.1 --ttl 0", CLI_USAGE, "at least one second");
	assert_says("deny add 0.0.0.0/0", CLI_USAGE, "0.0.0.0/0 is wider than");
	assert_says("deny add 128.0.0.0/1 --ttl 1m", CLI_USAGE, "--force");
	assert_says("allow add 2000::/3", CLI_USAGE, "is wider than an IPv4 /8 or an IPv6 /16");
	assert_says("token issue a", CLI_USAGE, "--buyer is missing");
	assert_says("token issue a --buyer", CLI_USAGE, "--buyer needs a value");
	assert_says("order list --all=yes", CLI_USAGE, "takes no value");
	assert_says("-o xml sale list", CLI_USAGE, "not \"xml\"");
	assert_says("--socket /a sale list --socket /b", CLI_USAGE, "--socket is given twice");
	assert_says("--socket /a --url http://127.0.0.1:1 sale list", CLI_USAGE, "exclude each other");
	assert_says("--secret-file /a sale list", CLI_USAGE, "goes with --url");
	assert_says("--url ftp://x --secret-file /a sale list", CLI_USAGE, "is not a URL");
	assert_string_equal(printed, "");
}

static void global_options_stand_before_or_behind(void **state)
{
	(void)state;
	assert_says("--socket /nowhere/a.sock sale list", CLI_UNREACHABLE, "no daemon at /nowhere/a.sock");
	assert_says("sale --socket=/nowhere/a.sock list", CLI_UNREACHABLE, "no daemon at /nowhere/a.sock");
	assert_says("sale list --socket /nowhere/a.sock -ojson", CLI_UNREACHABLE, "no daemon at /nowhere/a.sock");
}

static void behind_two_dashes_everything_is_an_operand(void **state)
{
	(void)state;
	assert_says("--socket /nowhere/a.sock sale show -- --help", CLI_UNREACHABLE, "sale \"--help\"");
}

static void a_program_gets_its_own_arguments_and_those_before_its_name(void **state)
{
	(void)state;
	assert_int_equal(run("-o json attach eth0 --mode native"), 42);
	assert_int_equal(program_argc, 6);
	assert_string_equal(program_argv[0], "attach");
	assert_string_equal(program_argv[1], "-o");
	assert_string_equal(program_argv[2], "json");
	assert_string_equal(program_argv[3], "eth0");
	assert_string_equal(program_argv[5], "native");
	assert_int_equal(run("help attach"), 42);
	assert_int_equal(program_argc, 2);
	assert_string_equal(program_argv[1], "--help");
}

static void help_names_every_verb_and_option(void **state)
{
	char words[128];

	(void)state;
	assert_int_equal(run("--help"), CLI_OK);
	assert_non_null(strstr(printed, "attach"));
	for (unsigned i = 0; cli_nouns[i]; i++) {
		const struct cli_noun *noun = cli_nouns[i];

		for (const struct cli_verb *verb = noun->verbs; verb->name; verb++) {
			unsigned count = 0;

			snprintf(words, sizeof(words), "%s %s --help", noun->name, verb->name);
			assert_int_equal(run(words), CLI_OK);
			assert_non_null(strstr(printed, verb->help));
			for (const struct cli_option *option = verb->options; option && option->name; option++, count++)
				assert_non_null(strstr(printed, option->name));
			assert_true(count <= CLI_OPTIONS_MAX);
			assert_true(verb->operands_max <= CLI_OPERANDS_MAX);
		}
	}
	assert_int_equal(run("help sale"), CLI_OK);
	assert_non_null(strstr(printed, "sale create SLUG"));
	assert_int_equal(run("help nonsense"), CLI_USAGE);
}

static void the_version_is_printed(void **state)
{
	(void)state;
	assert_int_equal(run("--version"), CLI_OK);
	assert_string_equal(printed, "sluice " SLUICE_VERSION "\n");
}

static void a_status_has_one_exit_code(void **state)
{
	static const struct {
		long status;
		int code;
	} cases[] = {{200, CLI_OK}, {201, CLI_OK}, {202, CLI_OK}, {204, CLI_OK}, {400, CLI_USAGE}, {413, CLI_USAGE},
		{422, CLI_USAGE}, {401, CLI_NOT_ALLOWED}, {403, CLI_NOT_ALLOWED}, {404, CLI_NOT_FOUND},
		{409, CLI_CONFLICT}, {410, CLI_CONFLICT}, {405, CLI_FAILED}, {429, CLI_FAILED}, {500, CLI_FAILED},
		{503, CLI_FAILED}, {507, CLI_FAILED}, {0, CLI_FAILED}, {301, CLI_FAILED}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(cli_api_exit_code(cases[i].status), cases[i].code);
}

static void what_stands_in_a_path_is_encoded(void **state)
{
	char *path = cli_api_path("/v1/lists/%s/%s?limit=1000", "deny", "2001:db8::/32");

	(void)state;
	assert_string_equal(path, "/v1/lists/deny/2001%3Adb8%3A%3A%2F32?limit=1000");
	free(path);
	path = cli_api_path("/v1/sales/%s/pause", "a/../b?c#d \xc3\xa4%");
	assert_string_equal(path, "/v1/sales/a%2F..%2Fb%3Fc%23d%20%C3%A4%25/pause");
	free(path);
}

static int release(void **state)
{
	(void)state;
	free(said);
	free(printed);
	return 0;
}

/* A person at a terminal who types `typed`; the question goes where he sees it. */
static int confirmed_by(const char *typed, bool sees_the_question)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), code;
	FILE *terminal = stderr, *in, *seen;

	assert_true(master >= 0 && !grantpt(master) && !unlockpt(master));
	in = fopen(ptsname(master), "r");
	seen = fopen(sees_the_question ? ptsname(master) : "/dev/null", "w");
	assert_true(in && seen);
	assert_int_equal(write(master, typed, strlen(typed)), strlen(typed));
	stderr = seen;
	code = cli_confirm(in, "%s ends.", "It");
	stderr = terminal;
	fclose(seen);
	fclose(in);
	close(master);
	return code;
}

static void only_a_person_who_says_yes_or_is_not_there_goes_on(void **state)
{
	FILE *nobody = fopen("/dev/null", "r");

	(void)state;
	assert_int_equal(confirmed_by("y\n", true), CLI_OK);
	assert_int_equal(confirmed_by("n\n", true), CLI_FAILED);
	assert_int_equal(confirmed_by("\n", true), CLI_FAILED);
	assert_int_equal(confirmed_by("\004", true), CLI_FAILED); /* end of file */
	assert_int_equal(confirmed_by("n\n", false), CLI_OK);
	assert_int_equal(cli_confirm(nobody, "It ends."), CLI_OK);
	fclose(nobody);
}

static const char *loader_says(const char *words)
{
	static const struct loader_command plain = {.usage = "", .takes_output = true};
	static char line[128], text[256];
	char *argv[ARGS_MAX + 1] = {(char *)"status"};
	struct loader_args args;
	int argc = 1, code;

	snprintf(line, sizeof(line), "%s", words);
	for (char *word = strtok(line, " "); word && argc < ARGS_MAX; word = strtok(NULL, " "))
		argv[argc++] = word;
	cli_say_into(text, sizeof(text));
	code = loader_args_parse(&args, &plain, argc, argv);
	cli_say_into(NULL, 0);
	assert_int_equal(code, CLI_USAGE);
	return text;
}

static void a_bad_option_of_the_loader_is_named(void **state)
{
	(void)state;
	assert_non_null(strstr(loader_says("--socket S"), "--socket is no option here"));
	assert_non_null(strstr(loader_says("--socket=S"), "--socket is no option here"));
	assert_non_null(strstr(loader_says("eth0 -m native"), "--mode is no option here"));
	assert_non_null(strstr(loader_says("--bogus=1"), "--bogus is no option here"));
	assert_non_null(strstr(loader_says("-x"), "-x is no option here"));
	assert_non_null(strstr(loader_says("--config"), "--config needs a value"));
	assert_non_null(strstr(loader_says("-c"), "-c needs a value"));
	assert_non_null(strstr(loader_says("--help=1"), "--help takes no value"));
}

/* A default of `create` beside an option of `set` reads as if leaving it away put that in. */
static void help_of_a_change_has_no_defaults(void **state)
{
	char *text = NULL;
	size_t size;

	(void)state;
	for (const struct cli_verb *verb = cli_noun_sale.verbs; verb->name; verb++) {
		FILE *out = open_memstream(&text, &size);

		cli_help_verb(out, &cli_noun_sale, verb);
		fclose(out);
		if (!strcmp(verb->name, "create"))
			assert_true(strstr(text, "(15m)") && strstr(text, "(1)"));
		if (!strcmp(verb->name, "set"))
			assert_true(!strstr(text, "(15m)") && !strstr(text, "(1)") && !strstr(text, "(0)"));
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_count_is_digits_within_its_range),
		cmocka_unit_test(a_rate_is_off_or_a_plain_number),
		cmocka_unit_test(a_time_is_now_or_an_offset_or_rfc3339),
		cmocka_unit_test(nothing_is_asked_of_a_daemon_if_the_command_line_is_wrong),
		cmocka_unit_test(global_options_stand_before_or_behind),
		cmocka_unit_test(behind_two_dashes_everything_is_an_operand),
		cmocka_unit_test(a_program_gets_its_own_arguments_and_those_before_its_name),
		cmocka_unit_test(help_names_every_verb_and_option),
		cmocka_unit_test(the_version_is_printed),
		cmocka_unit_test(a_status_has_one_exit_code),
		cmocka_unit_test(what_stands_in_a_path_is_encoded),
		cmocka_unit_test(only_a_person_who_says_yes_or_is_not_there_goes_on),
		cmocka_unit_test(a_bad_option_of_the_loader_is_named),
		cmocka_unit_test(help_of_a_change_has_no_defaults),
	};

	return cmocka_run_group_tests(tests, NULL, release);
}
