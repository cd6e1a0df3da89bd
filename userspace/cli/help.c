/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Prints the tables that cli.c parses with: all commands, the verbs of a noun, the options of a verb. Called for --help (stdout)
 * and for a command line that stops too early (stderr). man.c makes manual page and completion of the same tables.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "common/maps.h"

#define CODES_IN_LINE 4
#define NAME_WIDTH 34

const char cli_programs_heading[] = "The gate and its load generator";
const char cli_globals_heading[] = "Options for every command that asks the daemon";

const struct cli_global_help cli_globals_help[] = {
	{'o', "output", "table|json", "how to print (table); json is what the control API answered"},
	{0, "socket", "PATH", "control socket (daemon.control_socket of /etc/sluice/sluice.conf)"},
	{0, "url", "URL", "control API over TCP instead, as http://127.0.0.1:9180"},
	{0, "secret-file", "FILE", "file with the control secret, for --url (control.secret in daemon.state_dir)"},
	{'h', "help", NULL, "this text, or that of a command"},
	{0, "version", NULL, "version of this program"},
	{0, NULL, NULL, NULL},
};

const char *const cli_exit_help[] = {
	[CLI_OK] = "ok",
	[CLI_FAILED] = "failed",
	[CLI_USAGE] = "usage",
	[CLI_NOT_FOUND] = "not found",
	[CLI_CONFLICT] = "conflict",
	[CLI_NOT_ALLOWED] = "not allowed",
	[CLI_UNREACHABLE] = "daemon unreachable",
	[CLI_INVARIANT] = "an invariant is broken",
	NULL,
};

static void print_line(FILE *to, const char *left, const char *help)
{
	if (strlen(left) <= NAME_WIDTH)
		fprintf(to, "  %-*s  %s\n", NAME_WIDTH, left, help);
	else
		fprintf(to, "  %s\n  %-*s  %s\n", left, NAME_WIDTH, "", help);
}

static void print_globals(FILE *to)
{
	fprintf(to, "\n%s\n", cli_globals_heading);
	for (const struct cli_global_help *global = cli_globals_help; global->name; global++) {
		char left[64], letter[] = {'-', global->letter, ',', '\0'};

		snprintf(left, sizeof(left), "%-3s --%s%s%s", global->letter ? letter : "", global->name,
			global->value ? " " : "", global->value ? global->value : "");
		print_line(to, left, global->help);
	}
	fputs("\nExit codes:", to);
	for (int code = 0; cli_exit_help[code]; code++)
		fprintf(to, "%s %d %s", code ? "," : "", code, cli_exit_help[code]);
	fputc('\n', to);
}

static void print_verb(FILE *to, const struct cli_noun *noun, const struct cli_verb *verb)
{
	char left[128];

	snprintf(left, sizeof(left), "%s%s%s%s%s", noun->name, *verb->name ? " " : "", verb->name,
		*verb->operands ? " " : "", verb->operands);
	print_line(to, left, verb->help);
}

void cli_help_overview(FILE *to, const struct cli_program *programs)
{
	fprintf(to, "usage: sluice [OPTION...] COMMAND [ARGUMENT...]\n\n%s (each has its own --help)\n",
		cli_programs_heading);
	for (; programs->name; programs++)
		print_line(to, programs->name, programs->help);
	for (unsigned i = 0; cli_nouns[i]; i++) {
		fprintf(to, "\n%s\n", cli_nouns[i]->help);
		for (const struct cli_verb *verb = cli_nouns[i]->verbs; verb->name; verb++)
			print_verb(to, cli_nouns[i], verb);
	}
	print_globals(to);
}

void cli_help_noun(FILE *to, const struct cli_noun *noun)
{
	fprintf(to, "usage: sluice %s VERB [ARGUMENT...]\n\n%s\n", noun->name, noun->help);
	for (const struct cli_verb *verb = noun->verbs; verb->name; verb++)
		print_verb(to, noun, verb);
	print_globals(to);
}

/* The codes of the gate's answers, four in a line. */
static void print_codes(FILE *to)
{
	fputs("\nCODE is one of:", to);
	for (unsigned answer = SLUICE_ANSWER_NONE + 1; answer < SLUICE_ANSWER_COUNT; answer++)
		fprintf(to, "%s%s%s", (answer - 1) % CODES_IN_LINE ? " " : "\n  ", answer_code(answer),
			answer + 1 < SLUICE_ANSWER_COUNT ? "," : "\n\n");
}

void cli_help_verb(FILE *to, const struct cli_noun *noun, const struct cli_verb *verb)
{
	const struct cli_option *option = verb->options;

	fprintf(to, "usage: sluice %s", noun->name);
	if (*verb->name)
		fprintf(to, " %s", verb->name);
	if (*verb->operands)
		fprintf(to, " %s", verb->operands);
	for (; option && option->name; option++)
		if (option->required)
			fprintf(to, " --%s %s", option->name, option->value);
	fprintf(to, "%s\n\n%s\n", verb->options ? " [OPTION...]" : "", verb->help);
	if (!strcmp(verb->operands, "CODE"))
		print_codes(to);
	for (option = verb->options; option && option->name; option++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", option->name, option->value ? " " : "",
			option->value ? option->value : "");
		print_line(to, left, option->help);
	}
	print_globals(to);
}
