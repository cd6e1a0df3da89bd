/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A display that refreshes itself on a terminal and leaves it as it was. */
#ifndef SLUICE_CLI_SCREEN_H
#define SLUICE_CLI_SCREEN_H

#include <stdbool.h>

/* Takes the terminal: other screen, no echo, "q" and Ctrl-C end the program with exit code 0, at any moment, and give the terminal back.
 * Returns false, having done nothing, if standard output is no terminal.
 */
bool cli_screen_open(void);
/* Shows as much of `text` as there is room for. */
void cli_screen_show(const char *text);
void cli_screen_close(void); /* safe if it is not open */

/* The first `rows` lines of `text`, each cut to `columns` characters (code points), as cli_screen_show writes them; if there are more, the last row
 * says so. Frees nothing; the caller
 * frees what is returned (NULL: no memory).
 */
char *cli_screen_clip(const char *text, unsigned rows, unsigned columns);

#endif
