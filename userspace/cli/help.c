/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Prints the tables that cli.c parses with: all commands, the verbs of a noun, the options of a verb. Called for --help (stdout)
 * and for a command line that stops too early (stderr).
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

#define NAME_WIDTH 34

static const char global_help[] =
	"Options for every command that asks the daemon\n"
	"  -o, --output table|json             how to print (table); json is what the control API answered\n"
	"      --socket PATH                   control socket (daemon.control_socket of /etc/sluice/sluice.conf)\n"
	"      --url URL                       control API over TCP instead, as http://127.0.0.1:9180\n"
	"      --secret-file FILE              file with the control secret, for --url (control.secret in daemon.state_dir)\n"
	"  -h, --help                          this text, or that of a command\n"
	"      --version                       version of this program\n"
	"\n"
	"Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 not allowed, 6 daemon unreachable, 7 an invariant is broken\n";

static void print_line(FILE *to, const char *left, const char *help)
{
	if (strlen(left) <= NAME_WIDTH)
		fprintf(to, "  %-*s  %s\n", NAME_WIDTH, left, help);
	else
		fprintf(to, "  %s\n  %-*s  %s\n", left, NAME_WIDTH, "", help);
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
	fprintf(to,
		"usage: sluice [OPTION...] COMMAND [ARGUMENT...]\n\nThe gate and its load generator (each has its own --help)\n");
	for (; programs->name; programs++)
		print_line(to, programs->name, programs->help);
	for (unsigned i = 0; cli_nouns[i]; i++) {
		fprintf(to, "\n%s\n", cli_nouns[i]->help);
		for (const struct cli_verb *verb = cli_nouns[i]->verbs; verb->name; verb++)
			print_verb(to, cli_nouns[i], verb);
	}
	fprintf(to, "\n%s", global_help);
}

void cli_help_noun(FILE *to, const struct cli_noun *noun)
{
	fprintf(to, "usage: sluice %s VERB [ARGUMENT...]\n\n%s\n", noun->name, noun->help);
	for (const struct cli_verb *verb = noun->verbs; verb->name; verb++)
		print_verb(to, noun, verb);
	fprintf(to, "\n%s", global_help);
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
	for (option = verb->options; option && option->name; option++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", option->name, option->value ? " " : "",
			option->value ? option->value : "");
		print_line(to, left, option->help);
	}
	fprintf(to, "\n%s", global_help);
}
