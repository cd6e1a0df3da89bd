/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The tables of the commands in two more forms, for the build: the middle of the manual page (man(7) macros), and the list of words that
 * bash completion is made of. `sluice help --man` and `sluice help --words` print them; scripts/packaging puts the rest around.
 *
 * A program that parses its own arguments has no table: its own --help is run and read.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/config.h"
#include "common/maps.h"
#include "sluice/reasons.h"

/* --- roff -------------------------------------------------------------------------------------------------------------------- */
/* As it stands in the help text: no character of it is an instruction, hyphens can be searched for and copied. */
static void put_char(FILE *to, char c)
{
	switch (c) {
	case '\\':
		fputs("\\e", to);
		break;
	case '-':
		fputs("\\-", to);
		break;
	case '\'':
		fputs("\\(aq", to);
		break;
	case '`':
		fputs("\\(ga", to);
		break;
	case '^':
		fputs("\\(ha", to);
		break;
	case '~':
		fputs("\\(ti", to);
		break;
	default:
		fputc(c, to);
	}
}

static void put(FILE *to, const char *text)
{
	if (*text == '.') /* at the start of a line it would be a macro */
		fputs("\\&", to);
	for (; *text; text++)
		put_char(to, *text);
}

/* "SLUG [N]" with the names in italics. */
static void put_operands(FILE *to, const char *text)
{
	bool italic = false;

	for (; *text; text++) {
		bool in_name = isalnum((unsigned char)*text) || *text == '-' || *text == '_';

		if (in_name != italic)
			fputs(in_name ? "\\fI" : "\\fR", to);
		italic = in_name;
		put_char(to, *text);
	}
	if (italic)
		fputs("\\fR", to);
}

static void put_option(FILE *to, char letter, const char *name, const char *value, const char *help)
{
	fputs(".TP\n", to);
	if (letter)
		fprintf(to, "\\fB\\-%c\\fR, ", letter);
	fputs("\\fB\\-\\-", to);
	put(to, name);
	fputs("\\fR", to);
	if (value) {
		fputc(' ', to);
		put_operands(to, value);
	}
	fputc('\n', to);
	put(to, help);
	fputc('\n', to);
}

static void put_verb(FILE *to, const struct cli_noun *noun, const struct cli_verb *verb)
{
	fputs(".TP\n\\fBsluice ", to);
	put(to, noun->name);
	if (*verb->name) {
		fputc(' ', to);
		put(to, verb->name);
	}
	fputs("\\fR", to);
	if (*verb->operands) {
		fputc(' ', to);
		put_operands(to, verb->operands);
	}
	if (verb->options)
		fputs(" [\\fIOPTION\\fR...]", to);
	fputc('\n', to);
	put(to, verb->help);
	fputc('\n', to);
	if (!verb->options)
		return;
	fputs(".RS\n", to);
	for (const struct cli_option *option = verb->options; option->name; option++)
		put_option(to, 0, option->name, option->value, option->help);
	fputs(".RE\n", to);
}

/* --- programs ---------------------------------------------------------------------------------------------------------------- */
/* What the program prints for --help, on the heap; NULL with errno. */
static char *help_of(const struct cli_program *program)
{
	char *argv[] = {strdup(program->name), (char[]){"--help"}, NULL};
	FILE *file = tmpfile();
	int out = dup(STDOUT_FILENO);
	char *text = NULL;
	long size = -1;

	fflush(stdout);
	if (argv[0] && file && out >= 0 && dup2(fileno(file), STDOUT_FILENO) >= 0) {
		program->run(2, argv);
		fflush(stdout);
		if (dup2(out, STDOUT_FILENO) >= 0 && !fseek(file, 0, SEEK_END))
			size = ftell(file);
	}
	if (size >= 0 && (text = calloc(1, (size_t)size + 1))) {
		rewind(file);
		if (fread(text, 1, (size_t)size, file) != (size_t)size) {
			free(text);
			text = NULL;
		}
	}
	if (out >= 0)
		close(out);
	if (file)
		fclose(file);
	free(argv[0]);
	return text;
}

static int put_program(FILE *to, const struct cli_program *program)
{
	char *help = help_of(program), *line, *rest = help;

	if (!help)
		return -EIO;
	fputs(".SS sluice ", to);
	put(to, program->name);
	fputc('\n', to);
	fputs(".EX\n", to);
	while ((line = strsep(&rest, "\n")) && rest) {
		put(to, line);
		fputc('\n', to);
	}
	fputs(".EE\n", to);
	free(help);
	return 0;
}

int cli_print_man(FILE *to, const struct cli_program *programs)
{
	int err = 0;

	fputs(".SH COMMANDS\n", to);
	for (unsigned i = 0; cli_nouns[i]; i++) {
		fputs(".SS ", to);
		put(to, cli_nouns[i]->help);
		fputc('\n', to);
		for (const struct cli_verb *verb = cli_nouns[i]->verbs; verb->name; verb++)
			put_verb(to, cli_nouns[i], verb);
	}
	fprintf(to, ".SS %s\n", cli_globals_heading);
	for (const struct cli_global_help *global = cli_globals_help; global->name; global++)
		put_option(to, global->letter, global->name, global->value, global->help);
	for (; !err && programs->name; programs++)
		err = put_program(to, programs);
	fputs(".SH EXIT STATUS\n", to);
	for (int code = 0; cli_exit_help[code]; code++) {
		fprintf(to, ".TP\n.B %d\n", code);
		put(to, cli_exit_help[code]);
		fputc('\n', to);
	}
	return err;
}

#define CODE_TEXT(name, code, status, title, retry, detail) code,
static const char *const answer_codes[] = {SLUICE_ANSWERS(CODE_TEXT)};

/* --- words ------------------------------------------------------------------------------------------------------------------- */
static void put_word(FILE *to, const char *name, const char *value)
{
	fprintf(to, " --%s%s%s", name, value ? "=" : "", value ? value : "");
}

/* "  -c, --config FILE   instead of …": the lines of a help text that begin with an option. */
static void put_program_options(FILE *to, const char *help)
{
	for (const char *line = help; line; line = strchr(line, '\n')) {
		const char *name, *value;
		size_t length, value_length;

		line += *line == '\n';
		name = line + strspn(line, " ");
		if (name == line || *name != '-')
			continue;
		name += name[1] == '-' ? 0 : strlen("-c, ");
		if (strncmp(name, "--", 2))
			continue;
		length = 2 + strspn(name + 2, "abcdefghijklmnopqrstuvwxyz0123456789-");
		value = name + length + (name[length] == ' ');
		value_length = strcspn(value, " \n");
		fprintf(to, " %.*s%s%.*s", (int)length, name, value_length ? "=" : "", (int)value_length, value);
	}
}

/* "usage: sluice attach IFACE [--mode …", "usage: sluice doctor [IFACE] …": the operand behind the name, if there is one. */
static void put_program_operand(FILE *to, const struct cli_program *program, const char *help)
{
	const char *name = strstr(help, program->name), *operand = name ? name + strlen(program->name) : "";
	size_t length;

	operand += strspn(operand, " [");
	length = strspn(operand, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
	if (operand[length] == ' ' || operand[length] == ']' || operand[length] == '\n')
		fprintf(to, "%.*s", (int)length, operand);
}

static int put_program_words(FILE *to, const struct cli_program *program)
{
	char *help = help_of(program);

	if (!help)
		return -EIO;
	fprintf(to, "%s;", program->name);
	put_program_operand(to, program, help);
	fputc(';', to);
	put_program_options(to, help);
	fputs(";program\n", to);
	free(help);
	return 0;
}

/* One line for each command: "name;operands; --option=VALUE --switch", and ";program" if it takes no global options. "*" has those, and
 * "=NAME" the values of an operand.
 */
int cli_print_words(FILE *to, const struct cli_program *programs)
{
	int err = 0;

	for (; !err && programs->name; programs++)
		err = put_program_words(to, programs);
	for (unsigned i = 0; cli_nouns[i]; i++) {
		for (const struct cli_verb *verb = cli_nouns[i]->verbs; verb->name; verb++) {
			fprintf(to, "%s%s%s;%s;", cli_nouns[i]->name, *verb->name ? " " : "", verb->name,
				verb->operands);
			for (const struct cli_option *option = verb->options; option && option->name; option++)
				put_word(to, option->name, option->value);
			fputc('\n', to);
		}
	}
	fputs("*;;", to);
	for (const struct cli_global_help *global = cli_globals_help; global->name; global++)
		put_word(to, global->name, global->value);
	fputs("\n=LIMIT;;", to);
	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		fprintf(to, " %s", config_limit_name((enum sluice_limit_id)id));
	fputs("\n=REASON;;", to);
	for (unsigned reason = 1; reason < SLUICE_REASON_COUNT; reason++) /* the first is "none" */
		fprintf(to, " %s", reason_label(reason));
	fputs("\n=CODE;;", to);
	for (size_t i = 1; i < sizeof(answer_codes) / sizeof(answer_codes[0]); i++) /* the first is "none" */
		fprintf(to, " %s", answer_codes[i]);
	fputs("\n=ACTION;; refused passed handshake\n=DOOR;; wire call\n=STATE;; held confirmed cancelled expired refunded\n",
		to);
	return err;
}
