/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Arguments that the loader's commands share, and where the pin directory comes from. */
#ifndef SLUICE_CLI_LOADER_ARGS_H
#define SLUICE_CLI_LOADER_ARGS_H

#include <stdbool.h>

#include "common/config.h"

enum loader_mode { LOADER_AUTO, LOADER_NATIVE, LOADER_GENERIC };

struct loader_args {
	const char *interface; /* NULL = none given */
	const char *config_path;
	const char *pin_dir;
	enum loader_mode mode;
	bool coexist;
	bool sysctl;
	bool all;
	bool yes; /* goes with `all` */
	bool json;
	bool repair;
	bool dry_run;
	bool no_measure;
	bool fleet;
	const char *from;   /* NULL = not given */
	const char *socket; /* likewise */
	bool help;          /* was asked for and has been printed */
};

/* What a command takes; what it does not take is a usage error. */
struct loader_command {
	const char *usage; /* whole help text */
	bool takes_interface, takes_mode, takes_coexist, takes_sysctl, takes_all, takes_output, takes_repair,
		takes_measure, takes_fleet;
};

/* Returns an exit code (enum cli_exit); has said what is wrong. */
int loader_args_parse(struct loader_args *args, const struct loader_command *command, int argc, char **argv);
/* Reads the config file (--config, else the default one if it exists, else the defaults) and applies --pin-dir. */
int loader_args_config(const struct loader_args *args, struct config *config);

#endif
