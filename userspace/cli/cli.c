/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads a command line against the tables of the nouns and calls the verb. Global options may stand anywhere in a noun's command
 * line; before a program that parses its own arguments (attach, drill) only --help and --version are ours, and the
 * others are handed on. An option given twice is an error: of two stocks, neither is the obvious one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"

const struct cli_noun *const cli_nouns[] = {
	&cli_noun_sale,
	&cli_noun_stock,
	&cli_noun_limit,
	&cli_noun_deny,
	&cli_noun_allow,
	&cli_noun_answer,
	&cli_noun_token,
	&cli_noun_key,
	&cli_noun_order,
	&cli_noun_webhook,
	&cli_noun_cluster,
	&cli_noun_node,
	&cli_noun_stats,
	&cli_noun_explain,
	&cli_noun_monitor,
	&cli_noun_top,
	NULL,
};

enum global { GLOBAL_OUTPUT, GLOBAL_SOCKET, GLOBAL_URL, GLOBAL_SECRET, GLOBAL_HELP, GLOBAL_VERSION, GLOBAL_COUNT };

static const struct {
	const char *name;
	char letter;
	bool takes_value;
} global_options[GLOBAL_COUNT] = {
	[GLOBAL_OUTPUT] = {"output", 'o', true},
	[GLOBAL_SOCKET] = {"socket", 0, true},
	[GLOBAL_URL] = {"url", 0, true},
	[GLOBAL_SECRET] = {"secret-file", 0, true},
	[GLOBAL_HELP] = {"help", 'h', false},
	[GLOBAL_VERSION] = {"version", 0, false},
};

struct parser {
	int argc;
	char **argv;
	int at; /* the argument in hand */
	struct cli_globals globals;
	unsigned given; /* bit n: global option n was given */
	struct cli_call call;
};

/* Whether the argument in hand is the option `name` or `letter`; *attached is the value written in the same argument. */
static bool matches(const char *arg, const char *name, char letter, const char **attached)
{
	size_t length = strlen(name);

	*attached = NULL;
	if (letter && arg[0] == '-' && arg[1] == letter) {
		if (arg[2])
			*attached = arg + 2;
		return true;
	}
	if (strncmp(arg, "--", 2) || strncmp(arg + 2, name, length))
		return false;
	if (arg[2 + length] == '=')
		*attached = arg + 3 + length;
	return !arg[2 + length] || *attached;
}

/* The value of the option in hand: attached, or the next argument. */
static int take_value(struct parser *parser, const char *attached, bool takes_value, const char **value)
{
	const char *arg = parser->argv[parser->at];

	*value = "";
	if (!takes_value)
		return attached ? cli_usage(&parser->call, "%s takes no value", arg) : CLI_OK;
	if (attached) {
		*value = attached;
		return CLI_OK;
	}
	if (parser->at + 1 >= parser->argc)
		return cli_usage(&parser->call, "%s needs a value", arg);
	*value = parser->argv[++parser->at];
	return CLI_OK;
}

/* Returns CLI_OK with *found false if the argument is no global option. */
static int take_global(struct parser *parser, bool *found)
{
	const char *arg = parser->argv[parser->at], *attached, *value;
	unsigned i;
	int code;

	*found = false;
	for (i = 0; i < GLOBAL_COUNT; i++)
		if (matches(arg, global_options[i].name, global_options[i].letter, &attached))
			break;
	if (i == GLOBAL_COUNT)
		return CLI_OK;
	*found = true;
	if (parser->given & 1u << i)
		return cli_usage(&parser->call, "--%s is given twice", global_options[i].name);
	code = take_value(parser, attached, global_options[i].takes_value, &value);
	if (code)
		return code;
	parser->given |= 1u << i;
	switch (i) {
	case GLOBAL_OUTPUT:
		if (strcmp(value, "json") && strcmp(value, "table"))
			return cli_usage(&parser->call, "--output is \"table\" or \"json\", not \"%s\"", value);
		parser->globals.json = !strcmp(value, "json");
		break;
	case GLOBAL_SOCKET:
		parser->globals.socket = value;
		break;
	case GLOBAL_URL:
		parser->globals.url = value;
		break;
	case GLOBAL_SECRET:
		parser->globals.secret_file = value;
		break;
	default:
		break;
	}
	return CLI_OK;
}

static int take_option(struct parser *parser)
{
	const struct cli_option *options = parser->call.verb->options;
	const char *arg = parser->argv[parser->at], *attached, *value;
	bool global;
	int code = take_global(parser, &global);

	if (code || global)
		return code;
	for (unsigned i = 0; options && options[i].name; i++) {
		if (!matches(arg, options[i].name, 0, &attached))
			continue;
		if (parser->call.value[i])
			return cli_usage(&parser->call, "--%s is given twice", options[i].name);
		code = take_value(parser, attached, options[i].value, &value);
		if (!code)
			parser->call.value[i] = value;
		return code;
	}
	return cli_usage(&parser->call, "there is no option %s here", arg);
}

static int check_complete(const struct cli_call *call)
{
	const struct cli_option *options = call->verb->options;

	if (call->operands < call->verb->operands_min)
		return cli_usage(call, "%s is missing: %s",
			call->verb->operands_min - call->operands > 1 ? "more than one argument" : "an argument",
			call->verb->operands);
	for (unsigned i = 0; options && options[i].name; i++)
		if (options[i].required && !call->value[i])
			return cli_usage(call, "--%s is missing", options[i].name);
	if (call->globals->url && call->globals->socket)
		return cli_usage(call, "--url and --socket exclude each other");
	if (call->globals->secret_file && !call->globals->url)
		return cli_usage(call, "--secret-file goes with --url; the Unix socket needs no secret");
	return CLI_OK;
}

static int parse_verb(struct parser *parser)
{
	struct cli_call *call = &parser->call;
	bool only_operands = false;

	for (; parser->at < parser->argc; parser->at++) {
		const char *arg = parser->argv[parser->at];
		int code;

		if (!only_operands && !strcmp(arg, "--")) {
			only_operands = true;
		} else if (!only_operands && arg[0] == '-' && arg[1]) {
			code = take_option(parser);
			if (code)
				return code;
		} else if (call->operands == call->verb->operands_max) {
			return cli_usage(call, "\"%s\" is one argument too many", arg);
		} else if (!*arg) {
			return cli_usage(call, "an argument is empty");
		} else {
			call->operand[call->operands++] = arg;
		}
	}
	return CLI_OK;
}

static int run_verb(struct parser *parser)
{
	struct cli_call *call = &parser->call;
	int code = parse_verb(parser);

	if (parser->given & 1u << GLOBAL_HELP) {
		cli_help_verb(call->out, call->noun, call->verb);
		return CLI_OK;
	}
	if (!code)
		code = check_complete(call);
	if (!code)
		code = cli_api_open(&call->api, call->globals);
	if (!code) {
		cli_api_use_options(call->api, call->verb->options);
		code = call->verb->run(call);
	}
	cli_api_close(call->api);
	return code;
}

static int run_noun(struct parser *parser)
{
	struct cli_call *call = &parser->call;
	const struct cli_verb *verb = call->noun->verbs;
	const char *name;
	bool found;
	int code;

	if (!*verb->name) { /* no verbs: the noun is the command */
		call->verb = verb;
		return run_verb(parser);
	}
	for (; parser->at < parser->argc && parser->argv[parser->at][0] == '-'; parser->at++) {
		code = take_global(parser, &found);
		if (code)
			return code;
		if (!found)
			return cli_usage(call, "there is no option %s here", parser->argv[parser->at]);
	}
	if (parser->at == parser->argc) {
		bool asked = parser->given & 1u << GLOBAL_HELP;

		cli_help_noun(asked ? call->out : stderr, call->noun);
		return asked ? CLI_OK : CLI_USAGE;
	}
	name = parser->argv[parser->at++];
	for (; verb->name; verb++) {
		if (!strcmp(verb->name, name)) {
			call->verb = verb;
			return run_verb(parser);
		}
	}
	return cli_usage(call, "there is no \"%s %s\"", call->noun->name, name);
}

static const struct cli_noun *noun_of(const char *name)
{
	for (unsigned i = 0; cli_nouns[i]; i++)
		if (!strcmp(cli_nouns[i]->name, name))
			return cli_nouns[i];
	return NULL;
}

/* A program gets the options that stood before its name as if they stood behind it. */
static int run_program(const struct cli_program *program, struct parser *parser)
{
	int before = parser->at - 1, argc = 0, code; /* parser->at is its name */
	char **argv = calloc((size_t)parser->argc + 1, sizeof(*argv));

	if (!argv) {
		cli_say("out of memory");
		return CLI_FAILED;
	}
	argv[argc++] = parser->argv[parser->at];
	for (int i = 1; i <= before; i++)
		argv[argc++] = parser->argv[i];
	for (int i = parser->at + 1; i < parser->argc; i++)
		argv[argc++] = parser->argv[i];
	code = program->run(argc, argv);
	free(argv);
	return code;
}

static int help_about(struct parser *parser, const struct cli_program *programs)
{
	static char help[] = "--help";
	const char *name;

	if (parser->at + 1 >= parser->argc) {
		cli_help_overview(parser->call.out, programs);
		return CLI_OK;
	}
	name = parser->argv[++parser->at];
	for (; programs->name; programs++)
		if (!strcmp(programs->name, name))
			return programs->run(2, (char *[]){parser->argv[parser->at], help, NULL});
	parser->call.noun = noun_of(name);
	if (!parser->call.noun)
		return cli_usage(&parser->call, "there is no command \"%s\"", name);
	parser->given |= 1u << GLOBAL_HELP;
	parser->at++;
	return run_noun(parser);
}

static int dispatch(struct parser *parser, const struct cli_program *programs)
{
	const char *name;
	bool found;
	int code;

	for (parser->at = 1; parser->at < parser->argc && parser->argv[parser->at][0] == '-'; parser->at++) {
		code = take_global(parser, &found);
		if (code)
			return code;
		if (!found)
			return cli_usage(&parser->call, "there is no option %s here", parser->argv[parser->at]);
	}
	if (parser->given & 1u << GLOBAL_VERSION) {
		fprintf(parser->call.out, "sluice %s\n", SLUICE_VERSION);
		return CLI_OK;
	}
	if (parser->at == parser->argc) {
		bool asked = parser->given & 1u << GLOBAL_HELP;

		cli_help_overview(asked ? parser->call.out : stderr, programs);
		return asked ? CLI_OK : CLI_USAGE;
	}
	name = parser->argv[parser->at];
	if (!strcmp(name, "help"))
		return help_about(parser, programs);
	for (const struct cli_program *program = programs; program->name; program++)
		if (!strcmp(program->name, name))
			return run_program(program, parser);
	parser->call.noun = noun_of(name);
	if (!parser->call.noun)
		return cli_usage(&parser->call, "there is no command \"%s\"", name);
	parser->at++;
	return run_noun(parser);
}

int cli_run(int argc, char **argv, const struct cli_program *programs, FILE *in, FILE *out)
{
	struct parser parser = {.argc = argc, .argv = argv, .call = {.in = in, .out = out}};
	int code;

	parser.call.globals = &parser.globals;
	code = dispatch(&parser, programs);
	/* A full disk behind a redirection must not look like an empty list. */
	if ((fflush(out) || ferror(out)) && code == CLI_OK) {
		cli_say("cannot write the output: %s", strerror(errno));
		return CLI_FAILED;
	}
	return code;
}
