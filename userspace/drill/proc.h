/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Child processes of the drill, each started in a network namespace, with its output in a log file. No shell anywhere. */
#ifndef SLUICE_DRILL_PROC_H
#define SLUICE_DRILL_PROC_H

#include <stdbool.h>
#include <sys/types.h>

/* Starts `argv` (argv[0] is looked up in PATH if it has no slash) in the namespace `netns` (-1: ours), its output appended to
 * `log`. The child has a process group of its own, so that Ctrl-C reaches only the drill, which then stops its children in
 * order; with `leashed` it is killed when the drill is. Returns its pid or negative errno.
 */
pid_t drill_proc_start(int netns, const char *log, bool leashed, char *const argv[]);
/* Starts and waits. Returns the exit code, 128 + signal, or negative errno. */
int drill_proc_run(int netns, const char *log, char *const argv[]);
/* SIGTERM, and SIGKILL if it is not gone after `timeout_ms`. Returns as above; a pid <= 0 is fine (0). */
int drill_proc_stop(pid_t pid, int timeout_ms);
/* Whether it still runs; if not, *status is set as above and the pid is gone. */
bool drill_proc_alive(pid_t pid, int *status);
/* Shows the last lines of a log on stderr. */
void drill_proc_tail(const char *log);

#endif
