/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The loader's commands. Each parses its own arguments (argv[0] is the command's name), says on stderr what is wrong, and returns
 * an exit code: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 not allowed.
 */
#ifndef SLUICE_CLI_LOADER_H
#define SLUICE_CLI_LOADER_H

int cmd_attach(int argc, char **argv);
int cmd_detach(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_status(int argc, char **argv);

#endif
