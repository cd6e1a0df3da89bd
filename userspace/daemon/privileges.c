/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's rights after the start. Called by main.c once sockets and pins are open and no other thread runs.
 *
 * What stays is CAP_BPF: kernels before 5.18 want it for every bpf() call when unprivileged BPF is off, later ones for none that the daemon makes
 * on descriptors it holds. Not CAP_NET_ADMIN, not CAP_SYS_ADMIN, nothing of files. A user who is not root and has no capability at all
 * keeps what he has.
 */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/state.h"

#ifndef CAP_BPF
#define CAP_BPF 39
#endif

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
	static const char *const names[] = {"", "/keys", "/control.secret", "/sluiced.lock"};
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

static int keep_only_bpf(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}}, now[2];

	if (syscall(SYS_capget, &header, now))
		return -errno;
	data[CAP_BPF / 32].effective = data[CAP_BPF / 32].permitted = now[CAP_BPF / 32].permitted & 1u << CAP_BPF % 32;
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static int become(const struct passwd *user)
{
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || initgroups(user->pw_name, user->pw_gid) || setgid(user->pw_gid) ||
		setuid(user->pw_uid))
		return -errno;
	return 0;
}

int privileges_drop(const struct config *config, char *error, size_t error_size)
{
	const struct passwd *user = find_user(config);
	int err = 0;

	/* First, because it needs a capability that goes next. Where it is not allowed, no_new_privs does the same. */
	for (unsigned long cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (cap != CAP_BPF)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (user)
		err = become(user);
	if (!err)
		err = keep_only_bpf();
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (err)
		snprintf(error, error_size, "cannot give up privileges: %s", strerror(-err));
	return err;
}
