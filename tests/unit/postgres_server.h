/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A PostgreSQL server of the test program's own: data and Unix socket in one directory under /tmp, no TCP, started when it is
 * first needed. It runs as the user `postgres` when the tests run as root, whom initdb refuses.
 *
 * A guardian process ends the server and removes the directory when the test program ends, in whatever way.
 */
#ifndef SLUICE_TESTS_POSTGRES_SERVER_H
#define SLUICE_TESTS_POSTGRES_SERVER_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define POSTGRES_BIN "/usr/lib/postgresql/15/bin/"
#define POSTGRES_USER "postgres"
/* In the server's directory: where a test mounts a disk, and the data and socket of a second server. */
#define POSTGRES_SMALL_DISK "small"
#define POSTGRES_STANDBY "standby"
#define POSTGRES_PATIENCE_MS 30000
#define POSTGRES_STEP_MS 20

struct postgres_server {
	char directory[32]; /* "" = there is none yet */
	char data[48];
	char log[48];
	pid_t pid; /* 0 = stopped */
	pid_t guardian;
	int guardian_fd; /* its other end is the guardian's: when all copies are closed, it acts */
};

static struct postgres_server postgres_server;

static inline void postgres_become_user(void)
{
	struct passwd *user = geteuid() ? NULL : getpwnam(POSTGRES_USER);

	if (user && (initgroups(user->pw_name, user->pw_gid) || setgid(user->pw_gid) || setuid(user->pw_uid)))
		_exit(125);
}

/* Starts a program of the server's as its user, its output in the log. */
static inline pid_t postgres_spawn(const char *const *argv)
{
	pid_t pid = fork();
	int log;

	assert_true(pid >= 0);
	if (pid)
		return pid;
	log = open(postgres_server.log, O_WRONLY | O_CREAT | O_APPEND, 0644);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	postgres_become_user();
	if (!chdir("/"))
		execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(126);
}

static inline void postgres_show_log(void)
{
	char command[96];

	snprintf(command, sizeof(command), "tail -n 20 %s >&2", postgres_server.log);
	if (system(command))
		print_error("no log\n");
}

/* --- the guardian */
static inline int postgres_remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)kind;
	(void)where;
	return remove(path);
}

/* Ends at once the server whose data are in `data`: there is nothing to be kept. */
static inline void postgres_end(const char *data)
{
	char path[80];
	int pid = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/postmaster.pid", data);
	file = fopen(path, "r");
	if (file && fscanf(file, "%d", &pid) == 1 && pid > 1)
		kill(pid, SIGQUIT);
	if (file)
		fclose(file);
	for (unsigned ms = 0; pid > 1 && !kill(pid, 0) && ms < POSTGRES_PATIENCE_MS; ms += POSTGRES_STEP_MS)
		usleep(POSTGRES_STEP_MS * 1000);
}

static inline void postgres_guard(int fd)
{
	char path[64], byte;

	while (read(fd, &byte, 1) < 0 && errno == EINTR)
		;
	postgres_end(postgres_server.data);
	snprintf(path, sizeof(path), "%s/" POSTGRES_STANDBY, postgres_server.directory);
	postgres_end(path);
	snprintf(path, sizeof(path), "%s/" POSTGRES_SMALL_DISK, postgres_server.directory);
	umount2(path, MNT_DETACH); /* if a test failed with it in place */
	nftw(postgres_server.directory, postgres_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

static inline void postgres_dismiss(void)
{
	close(postgres_server.guardian_fd);
	/* Ours to collect before the guardian can see it gone. */
	if (postgres_server.pid)
		waitpid(postgres_server.pid, NULL, 0);
	waitpid(postgres_server.guardian, NULL, 0);
}

static inline void postgres_set_guardian(void)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	postgres_server.guardian = fork();
	assert_true(postgres_server.guardian >= 0);
	if (!postgres_server.guardian) {
		signal(SIGINT, SIG_IGN);
		signal(SIGTERM, SIG_IGN);
		setsid();
		close(ends[1]);
		postgres_guard(ends[0]);
	}
	close(ends[0]);
	postgres_server.guardian_fd = ends[1];
	atexit(postgres_dismiss);
}

/* --- starting and stopping */

/* Starts a server and waits until it answers at the socket in `directory`. Repeats it: a server does not start while a process of one
 * that was killed is still there.
 */
static inline pid_t postgres_start_at(const char *data, const char *directory, const char *setting)
{
	const char *const argv[] = {POSTGRES_BIN "postgres", "-D", data, "-k", directory, "-c",
		"listen_addresses=", "-c", "max_connections=20", "-c", "shared_buffers=32MB", "-c",
		"max_wal_size=128MB", "-c", setting, NULL};
	pid_t pid = 0;
	char conninfo[128];

	snprintf(conninfo, sizeof(conninfo), "host=%s user=" POSTGRES_USER " dbname=postgres connect_timeout=2",
		directory);
	for (unsigned ms = 0; ms < POSTGRES_PATIENCE_MS; ms += POSTGRES_STEP_MS) {
		if (!pid)
			pid = postgres_spawn(argv);
		if (PQping(conninfo) == PQPING_OK)
			return pid;
		usleep(POSTGRES_STEP_MS * 1000);
		if (waitpid(pid, NULL, WNOHANG) == pid)
			pid = 0;
	}
	postgres_show_log();
	fail_msg("the PostgreSQL server does not start");
	return 0;
}

static inline void postgres_start(void)
{
	postgres_server.pid = postgres_start_at(postgres_server.data, postgres_server.directory, "cluster_name=first");
}

static inline void postgres_stop(int sig)
{
	kill(postgres_server.pid, sig);
	assert_int_equal(waitpid(postgres_server.pid, NULL, 0), postgres_server.pid);
	postgres_server.pid = 0;
}

/* Runs SQL as `user` in `database`, as a person with psql would; `text` gets the first value, or the error. */
static inline bool postgres_try_at(
	const char *directory, const char *user, const char *database, const char *sql, char *text, size_t size)
{
	char conninfo[160];
	PGresult *result;
	PGconn *conn;
	bool done;

	snprintf(conninfo, sizeof(conninfo), "host=%s user=%s dbname=%s options='-c client_min_messages=warning'",
		directory, user, database);
	conn = PQconnectdb(conninfo);
	result = PQexec(conn, sql);
	done = PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK;
	snprintf(text, size, "%s",
		!done                                            ? PQerrorMessage(conn)
			: PQntuples(result) && PQnfields(result) ? PQgetvalue(result, 0, 0)
								 : "");
	PQclear(result);
	PQfinish(conn);
	return done;
}

static inline bool postgres_try(const char *user, const char *database, const char *sql, char *text, size_t size)
{
	return postgres_try_at(postgres_server.directory, user, database, sql, text, size);
}

/* The same where it must succeed. */
static inline const char *postgres_sql_as(const char *user, const char *database, const char *sql)
{
	static char text[512];

	if (!postgres_try(user, database, sql, text, sizeof(text)))
		fail_msg("%s: %s", sql, text);
	return text;
}

/* A process beside the test, which must not outlive it and not fail in its place: it ends by _exit. */
static inline pid_t postgres_fork(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static inline void postgres_server_need(void)
{
	const char *const argv[] = {POSTGRES_BIN "initdb", "-D", postgres_server.data, "-U", POSTGRES_USER, "-A",
		"trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", NULL};
	struct passwd *user = getpwnam(POSTGRES_USER);
	int status = -1;

	if (postgres_server.directory[0])
		return;
	if (access(POSTGRES_BIN "initdb", X_OK) || (!geteuid() && !user))
		fail_msg("these tests start a PostgreSQL server: install it (scripts/install-deps.sh --for test)");
	strcpy(postgres_server.directory, "/tmp/sluice-pg.XXXXXX");
	assert_non_null(mkdtemp(postgres_server.directory));
	if (!geteuid())
		assert_int_equal(chown(postgres_server.directory, user->pw_uid, user->pw_gid), 0);
	assert_int_equal(chmod(postgres_server.directory, 0755), 0);
	snprintf(postgres_server.data, sizeof(postgres_server.data), "%s/data", postgres_server.directory);
	snprintf(postgres_server.log, sizeof(postgres_server.log), "%s/log", postgres_server.directory);
	postgres_set_guardian();
	assert_true(waitpid(postgres_spawn(argv), &status, 0) > 0);
	if (status) {
		postgres_show_log();
		fail_msg("initdb failed (%d)", status);
	}
	postgres_start();
	postgres_sql_as(POSTGRES_USER, "postgres", "CREATE ROLE writer LOGIN");
	postgres_sql_as(POSTGRES_USER, "postgres", "CREATE DATABASE ledger OWNER writer");
}

#endif
