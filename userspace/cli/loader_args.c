/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Arguments of attach, detach, reload, status, verify and doctor; see loader_args.h. */
#include "cli/loader_args.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

enum {
	OPTION_MODE = 'm',
	OPTION_CONFIG = 'c',
	OPTION_PIN_DIR = 'p',
	OPTION_OUTPUT = 'o',
	OPTION_HELP = 'h',
	OPTION_COEXIST = 256,
	OPTION_SYSCTL,
	OPTION_ALL,
	OPTION_REPAIR,
	OPTION_DRY_RUN,
	OPTION_FROM,
	OPTION_NO_MEASURE,
	OPTION_FLEET,
	OPTION_SOCKET,
	OPTION_YES
};

static const struct option options[] = {
	{"mode", required_argument, NULL, OPTION_MODE},
	{"config", required_argument, NULL, OPTION_CONFIG},
	{"pin-dir", required_argument, NULL, OPTION_PIN_DIR},
	{"output", required_argument, NULL, OPTION_OUTPUT},
	{"help", no_argument, NULL, OPTION_HELP},
	{"coexist", no_argument, NULL, OPTION_COEXIST},
	{"sysctl", no_argument, NULL, OPTION_SYSCTL},
	{"all", no_argument, NULL, OPTION_ALL},
	{"repair", no_argument, NULL, OPTION_REPAIR},
	{"dry-run", no_argument, NULL, OPTION_DRY_RUN},
	{"from", required_argument, NULL, OPTION_FROM},
	{"no-measure", no_argument, NULL, OPTION_NO_MEASURE},
	{"fleet", no_argument, NULL, OPTION_FLEET},
	{"socket", required_argument, NULL, OPTION_SOCKET},
	{"yes", no_argument, NULL, OPTION_YES},
	{0},
};

static int refuse(const char *command, const char *what)
{
	cli_say("%s: %s (see sluice %s --help)", command, what, command);
	return CLI_USAGE;
}

static bool parse_mode(const char *text, enum loader_mode *mode)
{
	static const char *const names[] = {
		[LOADER_AUTO] = "auto", [LOADER_NATIVE] = "native", [LOADER_GENERIC] = "generic"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i], text)) {
			*mode = (enum loader_mode)i;
			return true;
		}
	}
	return false;
}

/* By the name that it was given: an option that getopt_long did not understand ('?', ':'; it stands before optind), or that this command does not
 * take.
 */
static int refuse_option(const char *command, int option, char *const *argv)
{
	const char *arg = argv[optind - 1], *wrong = "is no option here";
	char name[64] = {'-', (char)optopt, '\0'};

	for (size_t i = 0; options[i].name; i++)
		if (options[i].val == option)
			snprintf(name, sizeof(name), "--%s", options[i].name);
	if ((option == '?' || option == ':') && !strncmp(arg, "--", 2))
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(arg, "="), arg);
	if (option == ':')
		wrong = "needs a value";
	else if (option == '?' && optopt && name[1] == '-')
		wrong = "takes no value";
	cli_say("%s: %s %s (see sluice %s --help)", command, name, wrong, command);
	return CLI_USAGE;
}

/* One option. Returns an exit code. */
static int take(struct loader_args *args, const struct loader_command *command, char *const *argv, int option)
{
	const char *name = argv[0];

	switch (option) {
	case OPTION_CONFIG:
		args->config_path = optarg;
		return CLI_OK;
	case OPTION_PIN_DIR:
		args->pin_dir = optarg;
		return CLI_OK;
	case OPTION_HELP:
		args->help = true;
		return CLI_OK;
	case OPTION_MODE:
		if (!command->takes_mode)
			break;
		return parse_mode(optarg, &args->mode) ? CLI_OK
						       : refuse(name, "--mode must be auto, native or generic");
	case OPTION_OUTPUT:
		if (!command->takes_output)
			break;
		args->json = !strcmp(optarg, "json");
		return args->json || !strcmp(optarg, "table") ? CLI_OK : refuse(name, "-o must be table or json");
	case OPTION_COEXIST:
		args->coexist = true;
		if (!command->takes_coexist)
			break;
		return CLI_OK;
	case OPTION_SYSCTL:
		args->sysctl = true;
		if (!command->takes_sysctl)
			break;
		return CLI_OK;
	case OPTION_ALL:
		args->all = true;
		if (!command->takes_all)
			break;
		return CLI_OK;
	case OPTION_YES:
		args->yes = true;
		if (!command->takes_all)
			break;
		return CLI_OK;
	case OPTION_REPAIR:
		args->repair = true;
		if (!command->takes_repair)
			break;
		return CLI_OK;
	case OPTION_DRY_RUN:
		args->dry_run = true;
		if (!command->takes_repair)
			break;
		return CLI_OK;
	case OPTION_FROM:
		args->from = optarg;
		if (!command->takes_repair)
			break;
		return !strcmp(optarg, "file") || !strcmp(optarg, "daemon")
			? CLI_OK
			: refuse(name, "--from must be file or daemon");
	case OPTION_NO_MEASURE:
		args->no_measure = true;
		if (!command->takes_measure)
			break;
		return CLI_OK;
	case OPTION_FLEET:
		args->fleet = true;
		if (!command->takes_fleet)
			break;
		return CLI_OK;
	case OPTION_SOCKET:
		args->socket = optarg;
		if (!command->takes_fleet)
			break;
		return CLI_OK;
	default:
		break;
	}
	return refuse_option(name, option, argv);
}

int loader_args_parse(struct loader_args *args, const struct loader_command *command, int argc, char **argv)
{
	int option;

	memset(args, 0, sizeof(*args));
	optind = 0; /* the caller may have parsed options before: start over (GNU) */
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":m:c:p:o:h", options, NULL)) != -1) {
		int result = take(args, command, argv, option);

		if (result != CLI_OK)
			return result;
	}
	if (args->help) {
		fputs(command->usage, stdout);
		return CLI_OK;
	}
	if (optind < argc && command->takes_interface)
		args->interface = argv[optind++];
	if (optind < argc)
		return refuse(argv[0], "too many operands");
	if (args->dry_run && !args->repair)
		return refuse(argv[0], "--dry-run goes with --repair");
	if (args->fleet && (args->repair || args->from))
		return refuse(
			argv[0], "--fleet only looks, and each node reads its own ledger: no --repair, no --from");
	return CLI_OK;
}

int loader_args_config(const struct loader_args *args, struct config *config)
{
	const char *path = args->config_path ? args->config_path : CONFIG_DEFAULT_PATH;
	char error[512];
	int err;

	config_defaults(config);
	err = config_load(config, path, error, sizeof(error));
	if (err && !(err == -ENOENT && !args->config_path)) {
		cli_say("%s", error);
		return err == -ENOENT ? CLI_NOT_FOUND : CLI_FAILED;
	}
	if (args->pin_dir) {
		if (strlen(args->pin_dir) >= sizeof(config->gate.pin_dir)) {
			cli_say("--pin-dir is too long");
			return CLI_USAGE;
		}
		snprintf(config->gate.pin_dir, sizeof(config->gate.pin_dir), "%s", args->pin_dir);
	}
	return CLI_OK;
}
