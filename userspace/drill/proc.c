/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Child processes of the drill; see proc.h. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "drill/proc.h"

#define TAIL_LINES 12
#define TAIL_BYTES 4096
#define POLL_MS 10
#define EXEC_FAILED 127

static int code_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static _Noreturn void become(int netns, int log, pid_t parent, bool leashed, char *const argv[])
{
	static const int reset[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
	int null = open("/dev/null", O_RDONLY);

	for (size_t i = 0; i < sizeof(reset) / sizeof(reset[0]); i++)
		signal(reset[i], SIG_DFL);
	setpgid(0, 0);
	dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	if (leashed) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EXEC_FAILED); /* the drill died before the leash was on */
	}
	if (netns >= 0 && setns(netns, CLONE_NEWNET)) {
		dprintf(STDERR_FILENO, "cannot enter the network namespace: %s\n", strerror(errno));
		_exit(EXEC_FAILED);
	}
	execvp(argv[0], argv);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(EXEC_FAILED);
}

pid_t drill_proc_start(int netns, const char *log, bool leashed, char *const argv[])
{
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	pid_t parent = getpid(), pid;

	if (fd < 0)
		return -errno;
	pid = fork();
	if (!pid)
		become(netns, fd, parent, leashed, argv);
	if (pid < 0)
		pid = -errno;
	close(fd);
	return pid;
}

int drill_proc_run(int netns, const char *log, char *const argv[])
{
	pid_t pid = drill_proc_start(netns, log, true, argv);
	int status;

	if (pid < 0)
		return pid;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return code_of(status);
}

bool drill_proc_alive(pid_t pid, int *status)
{
	int raw;

	if (waitpid(pid, &raw, WNOHANG) == 0)
		return true;
	*status = code_of(raw);
	return false;
}

int drill_proc_stop(pid_t pid, int timeout_ms)
{
	const struct timespec nap = {0, POLL_MS * 1000000L};
	int status = 0;

	if (pid <= 0)
		return 0;
	kill(pid, SIGTERM);
	for (int waited = 0; waited < timeout_ms; waited += POLL_MS) {
		if (!drill_proc_alive(pid, &status))
			return status;
		nanosleep(&nap, NULL);
	}
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return code_of(status);
}

void drill_proc_tail(const char *log)
{
	FILE *file = fopen(log, "re");
	char text[TAIL_BYTES + 1];
	size_t length, at;
	int lines = 0;

	if (!file)
		return;
	if (fseek(file, -TAIL_BYTES, SEEK_END))
		rewind(file);
	length = fread(text, 1, TAIL_BYTES, file);
	fclose(file);
	while (length && text[length - 1] == '\n')
		length--;
	text[length] = '\0';
	for (at = length; at > 0; at--) {
		if (text[at - 1] == '\n' && ++lines == TAIL_LINES)
			break;
	}
	if (!length)
		return;
	fprintf(stderr, "  the last lines of %s:\n", log);
	for (char *rest = text + at, *line; (line = strsep(&rest, "\n"));)
		fprintf(stderr, "  | %s\n", line);
}
