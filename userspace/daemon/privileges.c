/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's rights after the start. Called by main.c once sockets and pins are open and no other thread runs.
 *
 * What stays is nothing: no capability at all. Work on maps and runs of the call door go by descriptors that are open already, and since
 * Linux 5.19 bpf() asks for CAP_BPF only to load programs and to make maps, also with kernel.unprivileged_bpf_disabled = 1 or 2. The one
 * thing that has to be opened later is the call door that `sluice reload` pins: see share_door.
 */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/sandbox.h"
#include "daemon/state.h"

#define PIN_DIR_MODE 0710 /* the group may pass through; it sees no list and changes nothing */
#define DOOR_MODE 0660    /* the kernel runs a pinned program only for those who may read and write the pin */

static const struct passwd *find_user(const struct config *config)
{
	return *config->daemon.user && geteuid() == 0 ? getpwnam(config->daemon.user) : NULL;
}

/* What root made here before is handed over. What belongs to another user is left to him: the order writer may live in the same directory. */
static int hand_over(const char *path, const struct passwd *user)
{
	struct stat info;

	if (lstat(path, &info))
		return errno == ENOENT ? 0 : -errno;
	if (info.st_uid != 0)
		return 0;
	return lchown(path, user->pw_uid, S_ISDIR(info.st_mode) ? (gid_t)-1 : user->pw_gid) ? -errno : 0;
}

int privileges_own_state(const struct config *config, char *error, size_t error_size)
{
	static const char *const names[] = {"", "/keys", "/control.secret", "/sluiced.lock", "/revoked",
		"/answers.json", "/webhook.secret", "/fleet.secret", "/fleet.keys", "/settings"};
	const struct passwd *user = find_user(config);
	char path[PATH_MAX];

	if (!user)
		return 0;
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int err;

		snprintf(path, sizeof(path), "%s%s", config->daemon.state_dir, names[i]);
		err = hand_over(path, user);
		if (err) {
			snprintf(error, error_size, "cannot give %s to the user %s: %s", path, user->pw_name,
				strerror(-err));
			return err;
		}
	}
	return 0;
}

int privileges_borrow_user(const struct config *config, bool on)
{
	const struct passwd *user;

	if (!*config->daemon.user)
		return 0;
	if (!on) /* root's are in the saved ids */
		return getuid() == 0 && (seteuid(0) || setegid(0)) ? -errno : 0;
	user = find_user(config);
	if (!user)
		return geteuid() == 0 ? -ENOENT : 0;
	return setegid(user->pw_gid) || seteuid(user->pw_uid) ? -errno : 0;
}

static int become(const struct passwd *user)
{
	if (initgroups(user->pw_name, user->pw_gid) || setgid(user->pw_gid) || setuid(user->pw_uid))
		return -errno;
	return 0;
}

/* Lets the daemon's group open the call door, and nothing else under the pin directory: maps, links and the gate stay root's. The loader
 * gives the door that it pins later the group and mode of the one before. Where this fails, the door that is open now goes on
 * judging after a reload, until the daemon is started again.
 */
static void share_door(const char *pin_dir, const struct passwd *user)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/door", pin_dir);
	if (chown(path, (uid_t)-1, user->pw_gid) || chmod(path, DOOR_MODE) || chown(pin_dir, (uid_t)-1, user->pw_gid) ||
		chmod(pin_dir, PIN_DIR_MODE))
		log_warn("cannot let the group of %s open %s (%s): restart sluiced after sluice reload", user->pw_name,
			path, strerror(errno));
}

int privileges_drop(const struct config *config, char *error, size_t error_size)
{
	static const struct sandbox sandbox = {.network = true, .maps = true};
	const struct passwd *user = find_user(config);
	int err = 0;

	if (user && user->pw_uid != 0)
		share_door(config->gate.pin_dir, user);
	sandbox_bound_capabilities(0);
	if (user)
		err = become(user);
	if (!err)
		err = sandbox_drop_capabilities(0);
	if (!err)
		err = sandbox_enter(&sandbox);
	if (err)
		snprintf(error, error_size, "cannot give up privileges: %s", strerror(-err));
	return err;
}
