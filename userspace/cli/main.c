/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluice: the operator's command. The loader's verbs and the drill parse their own arguments; everything else is a noun with verbs over
 * the control API (cli.h).
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/doctor.h"
#include "cli/loader.h"
#include "cli/verify.h"
#include "drill/drill.h"

static const struct cli_program programs[] = {
	{"attach", "put the gate on an interface", cmd_attach},
	{"detach", "take it off again, with maps and pins", cmd_detach},
	{"reload", "replace the gate's program, keep its maps", cmd_reload},
	{"status", "the gate, its interface and its services", cmd_status},
	{"verify", "whether ledger and gate agree, and repair of what is certain", cmd_verify},
	{"doctor", "what on this machine can spoil a sale, and the pace that it bears", cmd_doctor},
	{"drill", "a flash sale with a crowd of buyers and bots", cmd_drill},
	{NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "help")) { /* for the build; see man.c */
		if (!strcmp(argv[2], "--man"))
			return cli_print_man(stdout, programs) ? CLI_FAILED : CLI_OK;
		if (!strcmp(argv[2], "--words"))
			return cli_print_words(stdout, programs) ? CLI_FAILED : CLI_OK;
	}
	return cli_run(argc, argv, programs, stdin, stdout);
}
