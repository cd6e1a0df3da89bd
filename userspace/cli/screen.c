/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The terminal of `sluice top`, see screen.h. Control sequences of ECMA-48 and xterm's other screen; no library.
 *
 * "q" is made the terminal's quit character, so the kernel turns it into a signal at once, whatever the program waits for; the handlers use only
 * what is safe in one (write, tcsetattr, _exit).
 */
#include "cli/screen.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ENTER "\033[?1049h\033[?25l\033[H\033[J" /* other screen, no cursor, clear */
#define LEAVE "\033[?25h\033[?1049l"
#define HOME "\033[H"
#define REST_OF_LINE "\033[K"
#define REST_OF_SCREEN "\033[J"
#define ROWS 24
#define COLUMNS 80

static struct termios before;
static volatile sig_atomic_t is_open, has_termios;

static void say(const char *bytes, size_t length)
{
	while (length) {
		ssize_t put = write(STDOUT_FILENO, bytes, length);

		if (put <= 0)
			return; /* the terminal is gone */
		bytes += put;
		length -= (size_t)put;
	}
}

void cli_screen_close(void)
{
	if (!is_open)
		return;
	is_open = 0;
	say(LEAVE, strlen(LEAVE));
	if (has_termios)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
}

static void on_end(int number)
{
	(void)number;
	cli_screen_close();
	_exit(0);
}

static void on_death(int number)
{
	cli_screen_close();
	signal(number, SIG_DFL);
	raise(number);
}

static void take_keyboard(void)
{
	struct termios now;

	if (tcgetattr(STDIN_FILENO, &before))
		return; /* standard input is something else: Ctrl-C still works */
	has_termios = 1;
	now = before;
	now.c_lflag &= ~(tcflag_t)ECHO;
	now.c_lflag |= ISIG;
	now.c_cc[VQUIT] = 'q';
	now.c_cc[VSUSP] = _POSIX_VDISABLE; /* stopped, it would leave the terminal on the other screen */
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &now);
}

bool cli_screen_open(void)
{
	if (!isatty(STDOUT_FILENO))
		return false;
	is_open = 1;
	signal(SIGINT, on_end);
	signal(SIGQUIT, on_end);
	signal(SIGTERM, on_death);
	signal(SIGHUP, on_death);
	take_keyboard();
	say(ENTER, strlen(ENTER));
	return true;
}

char *cli_screen_clip(const char *text, unsigned rows, unsigned columns)
{
	char *clipped = NULL;
	size_t size;
	FILE *out = open_memstream(&clipped, &size);
	unsigned row = 0, column = 0, lines = 0, shown = rows;

	if (!out)
		return NULL;
	for (const char *c = text; *c; c++)
		lines += *c == '\n' || !c[1];
	if (lines > rows)
		rows--; /* the last one is for a sign that there is more */
	for (; *text && row < rows; text++) {
		if (*text == '\n') {
			fputs(REST_OF_LINE, out);
			if (++row < shown)
				fputc('\n', out);
			column = 0;
		} else if ((*text & 0xc0) == 0x80 ? column <= columns : ++column <= columns) {
			fputc(*text, out);
		}
	}
	if (lines > shown)
		fprintf(out, "%.*s" REST_OF_LINE, (int)columns, "(more: a higher window, or --rows 3)");
	return fclose(out) ? NULL : clipped;
}

void cli_screen_show(const char *text)
{
	struct winsize size = {.ws_row = ROWS, .ws_col = COLUMNS};
	char *clipped;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_row || !size.ws_col)
		size = (struct winsize){.ws_row = ROWS, .ws_col = COLUMNS};
	clipped = cli_screen_clip(text, size.ws_row, size.ws_col);
	if (!clipped)
		return;
	say(HOME, strlen(HOME));
	say(clipped, strlen(clipped));
	say(REST_OF_SCREEN, strlen(REST_OF_SCREEN));
	free(clipped);
}
