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
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/state.h"

#ifndef CAP_BPF
#define CAP_BPF 39
#endif

/* The files that the daemon rewrites while it runs must be his who runs it. */
static int hand_over(const struct config *config, const struct passwd *user, char *error, size_t error_size)
{
	static const char *const names[] = {"", "/keys", "/control.secret", "/sluiced.lock"};
	char path[PATH_MAX];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", config->daemon.state_dir, names[i]);
		/* The directory may be shared with the order writer: its group is left alone. */
		if (lchown(path, user->pw_uid, i ? user->pw_gid : (gid_t)-1)) {
			int err = -errno;

			snprintf(error, error_size, "cannot give %s to the user %s: %s", path, user->pw_name,
				strerror(-err));
			return err;
		}
	}
	return 0;
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
	const char *name = config->daemon.user;
	int err = 0;

	if (*name && geteuid() == 0) {
		const struct passwd *user = getpwnam(name);

		if (!user) {
			snprintf(error, error_size, "there is no user \"%s\" (daemon.user)", name);
			return -ENOENT;
		}
		err = hand_over(config, user, error, error_size);
		if (err)
			return err;
		err = become(user);
	}
	/* Bounding set first: it needs a capability that goes next. Where it is not allowed, no_new_privs does the same. */
	for (unsigned long cap = 0; !err && cap <= CAP_LAST_CAP; cap++)
		if (cap != CAP_BPF)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (!err)
		err = keep_only_bpf();
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (err)
		snprintf(error, error_size, "cannot give up privileges: %s", strerror(-err));
	return err;
}
