/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The command line of `sluice drill`. One table is what is accepted and what --help shows. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli/cli.h"
#include "drill/crowd.h"
#include "drill/drill.h"

#define BOTS_MAX 2000000u
#define SPOOFED_MAX 2000000u
#define STOCK_MAX 1000000u
#define SECONDS_MIN 5u
#define SECONDS_MAX 3600u

enum choice {
	OPTION_BUYERS = 1,
	OPTION_BOTS,
	OPTION_SPOOFED,
	OPTION_STOCK,
	OPTION_SECONDS,
	OPTION_IPV6,
	OPTION_SEED,
	OPTION_MODE,
	OPTION_WORK_DIR,
	OPTION_REPORT,
	OPTION_KEEP,
	OPTION_TARGET,
	OPTION_SALE,
	OPTION_CONTROL,
	OPTION_YES,
	OPTION_OUTPUT,
	OPTION_HELP,
	OPTION_COUNT
};

static const struct {
	const char *name, *value, *help;
} table[OPTION_COUNT] = {
	[OPTION_BUYERS] = {"buyers", "N", "buyers who want one unit each (5000)"},
	[OPTION_BOTS] = {"bots", "N", "attempts by bots (20000)"},
	[OPTION_SPOOFED] = {"spoofed", "N", "SYNs with a made-up source, in our own namespaces only (10000)"},
	[OPTION_STOCK] = {"stock", "N", "units for sale (1000)"},
	[OPTION_SECONDS] = {"seconds", "N", "send the crowd home this long after the opening (40)"},
	[OPTION_IPV6] = {"ipv6-share", "PERCENT", "of the crowd that uses IPv6 (30)"},
	[OPTION_SEED] = {"seed", "N", "of everything random; the report shows the one that was used"},
	[OPTION_MODE] = {"mode", "MODE", "auto, native or generic: how the gate is attached (auto)"},
	[OPTION_WORK_DIR] = {"work-dir", "DIR",
		"keep config, logs and ledger here (default: a temporary directory, removed)"},
	[OPTION_REPORT] = {"report", "FILE", "also write the report as JSON to FILE"},
	[OPTION_KEEP] = {"keep", NULL, "leave namespaces, gate, daemon and writer running, and say how to reach them"},
	[OPTION_TARGET] = {"target", "HOST:PORT",
		"go against this server instead of namespaces of our own (needs --sale, --yes)"},
	[OPTION_SALE] = {"sale", "SLUG", "with --target: the sale to buy from"},
	[OPTION_CONTROL] = {"control-socket", "PATH",
		"with --target: its control socket; without it the ledger is not checked"},
	[OPTION_YES] = {"yes", NULL, "with --target: yes, this places real orders there"},
	[OPTION_OUTPUT] = {"output", "FORMAT", "-o: table or json, on stdout (table)"},
	[OPTION_HELP] = {"help", NULL, "-h: this text"},
};

static void show_help(void)
{
	puts("Usage: sluice drill [OPTION]...\n\n"
	     "Plays a whole flash sale with a crowd of buyers and bots and checks the books afterwards. Without --target it makes\n"
	     "two network namespaces, a gate, a daemon and a ledger of its own, and removes them at the end (needs root).\n");
	for (int i = 1; i < OPTION_COUNT; i++) {
		char left[40];

		snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].value ? " " : "",
			table[i].value ? table[i].value : "");
		printf("  %-24s %s\n", left, table[i].help);
	}
	puts("\nExit code: 0 every invariant holds, 1 the drill could not run, 2 usage, 7 an invariant is broken.");
}

static int usage(const char *what, const char *why)
{
	cli_say("%s: %s (\"sluice drill --help\" lists the options)", what, why);
	return CLI_USAGE;
}

static int take_count(int option, const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
	uint64_t count;

	if (cli_parse_count(text, min, max, &count)) {
		cli_say("--%s must be a whole number, %" PRIu32 " to %" PRIu32 ", not \"%s\"", table[option].name, min,
			max, text);
		return CLI_USAGE;
	}
	*out = (uint32_t)count;
	return 0;
}

static int take_text(int option, const char *text, char *out, size_t size)
{
	if (!*text || strlen(text) >= size) {
		cli_say("--%s must have 1 to %zu characters", table[option].name, size - 1);
		return CLI_USAGE;
	}
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

/* Made absolute, because daemon and writer get it by way of a config file that takes only absolute paths. */
static int take_path(int option, const char *text, char *out, size_t size)
{
	char here[PATH_MAX];
	int length;

	if (*text == '/')
		return take_text(option, text, out, size);
	if (!*text || !getcwd(here, sizeof(here)))
		return take_text(option, "", out, size);
	length = snprintf(out, size, "%s/%s", here, text);
	if (length < 0 || (size_t)length >= size)
		return usage(table[option].name, "the path is too long");
	return 0;
}

static int take_option(int option, const char *text, struct drill_options *options)
{
	char *end;

	switch (option) {
	case OPTION_BUYERS:
		return take_count(option, text, 1, DRILL_BUYERS_MAX, &options->buyers);
	case OPTION_BOTS:
		return take_count(option, text, 0, BOTS_MAX, &options->bots);
	case OPTION_SPOOFED:
		return take_count(option, text, 0, SPOOFED_MAX, &options->spoofed);
	case OPTION_STOCK:
		return take_count(option, text, 1, STOCK_MAX, &options->stock);
	case OPTION_SECONDS:
		return take_count(option, text, SECONDS_MIN, SECONDS_MAX, &options->seconds);
	case OPTION_IPV6:
		return take_count(option, text, 0, 100, &options->ipv6_share);
	case OPTION_SEED:
		errno = 0;
		options->seed = strtoull(text, &end, 0);
		return errno || end == text || *end ? usage("--seed", "not a number of 64 bits") : 0;
	case OPTION_MODE:
		if (strcmp(text, "auto") && strcmp(text, "native") && strcmp(text, "generic"))
			return usage("--mode", "auto, native or generic");
		return take_text(option, text, options->mode, sizeof(options->mode));
	case OPTION_WORK_DIR:
		return take_path(option, text, options->work_dir, sizeof(options->work_dir));
	case OPTION_REPORT:
		return take_path(option, text, options->report, sizeof(options->report));
	case OPTION_KEEP:
		options->keep = true;
		return 0;
	case OPTION_TARGET:
		return take_text(option, text, options->target, sizeof(options->target));
	case OPTION_SALE:
		return take_text(option, text, options->sale, sizeof(options->sale));
	case OPTION_CONTROL:
		return take_text(option, text, options->control_socket, sizeof(options->control_socket));
	case OPTION_YES:
		options->yes = true;
		return 0;
	case OPTION_OUTPUT:
	case 'o':
		if (strcmp(text, "table") && strcmp(text, "json"))
			return usage("--output", "table or json");
		options->json = !strcmp(text, "json");
		return 0;
	case OPTION_HELP:
	case 'h':
		show_help();
		return -1;
	default:
		return CLI_USAGE;
	}
}

static int check_together(const struct drill_options *options)
{
	if (!options->target[0]) {
		if (options->sale[0] || options->control_socket[0] || options->yes)
			return usage("--sale, --control-socket, --yes", "these go with --target");
		return 0;
	}
	if (!options->sale[0])
		return usage("--target", "needs --sale SLUG");
	if (!options->yes)
		return usage("--target", "places real orders there; add --yes if that is what you want");
	if (options->keep || options->work_dir[0])
		return usage("--keep, --work-dir", "these are for a drill in namespaces of its own, not for --target");
	return 0;
}

int drill_options_parse(int argc, char **argv, struct drill_options *options)
{
	struct option long_options[OPTION_COUNT] = {{0}};
	int option, code;

	*options = (struct drill_options){.buyers = 5000,
		.bots = 20000,
		.spoofed = 10000,
		.stock = 1000,
		.seconds = 40,
		.ipv6_share = 30,
		.mode = "auto"};
	if (getrandom(&options->seed, sizeof(options->seed), 0) != sizeof(options->seed))
		options->seed = (uint64_t)getpid();
	options->seed >>= 32; /* short enough to be copied from a report by hand */
	for (int i = 1; i < OPTION_COUNT; i++)
		long_options[i - 1] =
			(struct option){table[i].name, table[i].value ? required_argument : no_argument, NULL, i};
	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, "o:h", long_options, NULL)) != -1) {
		if (option == '?')
			return usage(argv[optind - 1], "no such option, or its value is missing");
		code = take_option(option, optarg, options);
		if (code)
			return code;
	}
	if (optind < argc)
		return usage(argv[optind], "drill takes options only");
	return check_together(options);
}
