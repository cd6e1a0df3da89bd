/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See config_host.h. A directory is tried by a child that becomes the user: what the kernel says then is right, whatever modes, lists and mounts there are. */
#include "common/config_host.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"

#define CANNOT_TRY 255

static unsigned check_user(const char *key, const char *name)
{
	if (!*name || getpwnam(name))
		return 0;
	log_error(
		"%s: there is no user \"%s\": useradd --system --user-group --no-create-home --shell /usr/sbin/nologin %s",
		key, name, name);
	return 1;
}

static unsigned check_group(const char *key, const char *name)
{
	if (!*name || getgrnam(name))
		return 0;
	log_error("%s: there is no group \"%s\": groupadd --system %s, or name another", key, name, name);
	return 1;
}

static int become(const struct passwd *user)
{
	return initgroups(user->pw_name, user->pw_gid) || setgid(user->pw_gid) || setuid(user->pw_uid);
}

/* 0, an errno, or CANNOT_TRY. `user` NULL: who asks. */
static int try_to_write(const char *directory, const struct passwd *user)
{
	int status;
	pid_t child;

	if (user && user->pw_uid != geteuid() && geteuid() != 0)
		return CANNOT_TRY;
	child = fork();
	if (child < 0)
		return CANNOT_TRY;
	if (!child) {
		if (user && user->pw_uid != geteuid() && become(user))
			_exit(CANNOT_TRY);
		_exit(faccessat(AT_FDCWD, directory, W_OK | X_OK, AT_EACCESS) ? errno : 0);
	}
	if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		return CANNOT_TRY;
	return WEXITSTATUS(status);
}

/* One level that is missing is made at the start. A deeper gap is more likely a slip in the path. */
static unsigned check_missing(const char *key, const char *directory)
{
	char parent[CONFIG_PATH_MAX];
	struct stat info;

	snprintf(parent, sizeof(parent), "%s", directory);
	if (!stat(dirname(parent), &info) && S_ISDIR(info.st_mode))
		return 0;
	log_error("%s: there is no directory %s, and nothing above it to make it in: mkdir -p, or correct the path",
		key, directory);
	return 1;
}

/* `handed_over`: what is root's is given to the user at the start. */
static unsigned check_directory(const char *key, const char *directory, const char *user_name, bool handed_over)
{
	const struct passwd *user = *user_name ? getpwnam(user_name) : NULL;
	struct stat info;
	int err;

	if (*user_name && !user)
		return 0; /* has been said */
	if (stat(directory, &info)) {
		if (errno == ENOENT)
			return check_missing(key, directory);
		if (errno == EACCES) {
			log_warn("%s: %s can only be looked at as root", key, directory);
			return 0;
		}
		log_error("%s: %s cannot be looked at: %s", key, directory, strerror(errno));
		return 1;
	}
	if (!S_ISDIR(info.st_mode)) {
		log_error("%s: %s is no directory", key, directory);
		return 1;
	}
	if (handed_over && user && info.st_uid == 0)
		return 0;
	err = try_to_write(directory, user);
	if (err == CANNOT_TRY)
		log_warn(
			"%s: whether the user %s can write in %s can only be tried as root", key, user_name, directory);
	if (!err || err == CANNOT_TRY)
		return 0;
	if (user)
		log_error(
			"%s: the user %s cannot write in %s (%s): chown %s %s, and let him pass through what is above it",
			key, user_name, directory, strerror(err), user_name, directory);
	else
		log_error("%s: %s cannot be written: %s", key, directory, strerror(err));
	return 1;
}

unsigned config_check_daemon_host(const struct config *config)
{
	return check_user("daemon.user", config->daemon.user) +
		check_group("daemon.control_group", config->daemon.control_group) +
		check_directory("daemon.state_dir", config->daemon.state_dir, config->daemon.user, true);
}

unsigned config_check_writer_host(const struct config *config)
{
	unsigned errors =
		check_user("writer.user", config->writer.user) + check_group("writer.group", config->writer.group);
	char ledger[CONFIG_PATH_MAX];

	if (config->writer.in_postgres)
		return errors;
	snprintf(ledger, sizeof(ledger), "%s", config->writer.ledger);
	return errors + check_directory("writer.ledger", dirname(ledger), config->writer.user, false);
}
