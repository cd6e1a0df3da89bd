/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a command of `sluice` is made of: nouns with verbs, verbs with operands and options, all declared in tables.
 *
 * A table is read twice: by cli.c, which parses the command line against it, and by help.c, which prints it. So the usage
 * text cannot differ from what is accepted. A verb's function gets a parsed struct cli_call and returns an exit code.
 * Data goes to call->out (stdout), everything said to a person to stderr.
 */
#ifndef SLUICE_CLI_CLI_H
#define SLUICE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct cli_api;

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_NOT_FOUND = 3,
	CLI_CONFLICT = 4,
	CLI_NOT_ALLOWED = 5,
	CLI_UNREACHABLE = 6, /* no daemon at the control socket or URL */
	CLI_INVARIANT = 7,   /* an invariant of the gate or the ledger does not hold */
};

#define CLI_OPTIONS_MAX 10
#define CLI_OPERANDS_MAX 2
/* The largest number that every JSON reader keeps exact (2^53 - 1); more units than anybody sells. */
#define CLI_COUNT_MAX 9007199254740991ULL

struct cli_option {
	const char *name;  /* without the dashes; NULL ends the table */
	const char *value; /* what it takes, as help shows it; NULL for a switch */
	const char *help;
	bool required;
};

struct cli_call;

struct cli_verb {
	const char *name;     /* NULL ends the table; "" = the noun alone is the command */
	const char *operands; /* as help shows them: "SLUG [N]" */
	const char *help;
	unsigned operands_min;
	unsigned operands_max;
	const struct cli_option *options; /* NULL for none */
	int (*run)(const struct cli_call *call);
};

struct cli_noun {
	const char *name;
	const char *help;
	const struct cli_verb *verbs;
};

/* A command that parses its own arguments (loader, drill). argv[0] is its name. */
struct cli_program {
	const char *name; /* NULL ends the table */
	const char *help;
	int (*run)(int argc, char **argv);
};

struct cli_globals {
	bool json;
	const char *socket;      /* NULL = from the config file, else its default */
	const char *url;         /* NULL = use the Unix socket */
	const char *secret_file; /* NULL = control.secret in the state directory */
};

struct cli_call {
	const struct cli_noun *noun;
	const struct cli_verb *verb;
	const struct cli_globals *globals;
	const char *operand[CLI_OPERANDS_MAX];
	unsigned operands;
	const char *value[CLI_OPTIONS_MAX]; /* by place in verb->options; NULL = not given, "" for a switch that was */
	struct cli_api *api;
	FILE *in;
	FILE *out;
};

/* The commands, each in the file of its name. */
extern const struct cli_noun cli_noun_sale;
extern const struct cli_noun cli_noun_stock;
extern const struct cli_noun cli_noun_limit;
extern const struct cli_noun cli_noun_deny;
extern const struct cli_noun cli_noun_allow;
extern const struct cli_noun cli_noun_answer;
extern const struct cli_noun cli_noun_token;
extern const struct cli_noun cli_noun_key;
extern const struct cli_noun cli_noun_order;
extern const struct cli_noun cli_noun_webhook;
extern const struct cli_noun cli_noun_cluster;
extern const struct cli_noun cli_noun_node;
extern const struct cli_noun cli_noun_stats;
extern const struct cli_noun cli_noun_explain;
extern const struct cli_noun cli_noun_monitor;
extern const struct cli_noun cli_noun_top;
/* All of them; ends with NULL. */
extern const struct cli_noun *const cli_nouns[];

/* Runs a command line: global options, then a noun with its verb or one of `programs`. Returns an exit code. */
int cli_run(int argc, char **argv, const struct cli_program *programs, FILE *in, FILE *out);

/* --- help.c ----------------------------------------------------------------------------------------------------------- */
void cli_help_overview(FILE *to, const struct cli_program *programs);
void cli_help_noun(FILE *to, const struct cli_noun *noun);
void cli_help_verb(FILE *to, const struct cli_noun *noun, const struct cli_verb *verb);

/* What the help says about the global options (cli.c parses them); ends with a NULL name. */
struct cli_global_help {
	char letter; /* 0 = none */
	const char *name, *value, *help;
};
extern const struct cli_global_help cli_globals_help[];
extern const char cli_globals_heading[], cli_programs_heading[];
extern const char *const cli_exit_help[]; /* by enum cli_exit; ends with NULL */

/* --- man.c ------------------------------------------------------------------------------------------------------------ */
/* For the build: sections COMMANDS and EXIT STATUS of sluice(8), and the words of bash completion, one command a line. They run the programs
 * with --help. Return 0 or negative errno.
 */
int cli_print_man(FILE *to, const struct cli_program *programs);
int cli_print_words(FILE *to, const struct cli_program *programs);

/* The end of a word that stands behind a number: "" for one, else "s". */
const char *cli_plural(unsigned long long count);

/* --- said to people ----------------------------------------------------------------------------------------------------- */
/* One line on stderr: "sluice: …". Control characters (text may come from a server) are shown as '?'. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* From here on sentences are put into `text`, one a line, cut to `size`; NULL: onto stderr again. For who makes findings of them (doctor). */
void cli_say_into(char *text, size_t size);
/* The same, and where to read more. Returns CLI_USAGE. */
int cli_usage(const struct cli_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- values -------------------------------------------------------------------------------------------------------------- */
/* Digits only, min..max. Returns 0, -EINVAL (not a whole number) or -ERANGE. */
int cli_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *count);
/* "50", "0.5" or "off" (0); 0, or 0.001..1e9 per second. Returns 0, -EINVAL or -ERANGE. */
int cli_parse_rate(const char *text, double *rate);
/* "now", "+15m" (from now), or RFC 3339. Returns 0 or -EINVAL. */
int cli_parse_when(const char *text, uint64_t now_ns, uint64_t *wall_ns);

/* These say what is wrong with which option and return CLI_USAGE. An option that was not given leaves *count as it is. */
int cli_option_count(const struct cli_call *call, unsigned option, uint64_t min, uint64_t max, uint64_t *count);
int cli_option_duration_s(const struct cli_call *call, unsigned option, uint64_t *seconds);
int cli_operand_count(const struct cli_call *call, unsigned operand, uint64_t min, uint64_t max, uint64_t *count);

/* The name of a change: the option's text, or a new one. `key` holds CLI_KEY_MAX + 1. */
#define CLI_KEY_MAX 64
#define CLI_KEY_HELP "name of this change: sent again with the same key, it is made once (a new name)"
int cli_option_key(const struct cli_call *call, unsigned option, char *key);

/* Reads one line (without its end) from call->in into `text`; for what must not stand in a command line that every user of the
 * machine can read. Says what is wrong and returns CLI_USAGE if there is none, if it is longer, or if more follows.
 */
int cli_read_line(const struct cli_call *call, const char *what, char *text, size_t size);

/* Says what is about to be done and asks whether to, if a person is there to answer: `in` and standard error are a terminal. Returns CLI_OK to go
 * on (yes, or nobody to ask), else CLI_FAILED, having said that nothing was changed.
 */
#define CLI_YES_OPTION \
	{ \
		"yes", NULL, "do not ask (nobody is asked without a terminal)", false \
	}
int cli_confirm(FILE *in, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
