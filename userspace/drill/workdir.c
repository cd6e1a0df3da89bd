/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The drill's files: a work directory with the servers' config, logs, sockets, state and ledger. Called by arena.c. Promises never to
 * touch a ledger that no drill has made.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "drill/arena.h"
#include "drill/places.h"
#include "drill/workdir.h"

#define MARKER ".sluice-drill" /* in a work directory: what lies here is ours to replace */
#define SHARED_SHARE 3         /* per cent of the buyers; see buyers.c */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

void drill_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* What an earlier drill left there, and only if one did: the path may be that of a real ledger. */
static int clear_work_dir(const struct drill_arena *arena)
{
	static const char *const ours[] = {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock",
		"sluice.conf", "attach.log", "detach.log", "ip.log", "sluiced.log", "sluice-writer.log", "control.sock",
		"writer.sock"};
	char path[DRILL_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/" MARKER, arena->work_dir);
	if (access(path, F_OK)) {
		snprintf(path, sizeof(path), "%s/ledger.db", arena->work_dir);
		if (!access(path, F_OK)) {
			cli_say("%s is there and not from a drill: choose another --work-dir", path);
			return -EEXIST;
		}
		return 0;
	}
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", arena->work_dir, ours[i]);
		unlink(path);
	}
	drill_remove_tree(arena->state_dir);
	return 0;
}

int drill_workdir_make(struct drill_arena *arena, const struct drill_options *options)
{
	char path[DRILL_PATH_MAX + 32];
	int fd, err;

	if (options->work_dir[0]) {
		snprintf(arena->work_dir, sizeof(arena->work_dir), "%s", options->work_dir);
		if (mkdir(arena->work_dir, 0755) && errno != EEXIST)
			goto failed;
	} else {
		snprintf(arena->work_dir, sizeof(arena->work_dir), "/tmp/sluice-drill-XXXXXX");
		if (!mkdtemp(arena->work_dir))
			goto failed;
		arena->temporary = true;
	}
	snprintf(arena->config, sizeof(arena->config), "%s/sluice.conf", arena->work_dir);
	snprintf(arena->ledger, sizeof(arena->ledger), "%s/ledger.db", arena->work_dir);
	snprintf(arena->state_dir, sizeof(arena->state_dir), "%s/state", arena->work_dir);
	if ((size_t)snprintf(arena->control_socket, sizeof(arena->control_socket), "%s/control.sock",
		    arena->work_dir) >= sizeof(arena->control_socket)) {
		cli_say("the path of the work directory is too long for a Unix socket: %s", arena->work_dir);
		return -ENAMETOOLONG;
	}
	err = clear_work_dir(arena);
	if (err)
		return err;
	snprintf(path, sizeof(path), "%s/" MARKER, arena->work_dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		goto failed;
	close(fd);
	if (mkdir(arena->state_dir, 0700) && errno != EEXIST)
		goto failed;
	return 0;
failed:
	err = -errno;
	cli_say("cannot use %s as work directory: %s", arena->work_dir, strerror(-err));
	return err;
}

int drill_workdir_write_config(const struct drill_arena *arena, const struct drill_options *options)
{
	uint32_t per_shared = options->buyers * SHARED_SHARE / 100 / DRILL_SHARED_ADDRESSES + 1;
	uint32_t source_burst = per_shared * 4 > 100 ? per_shared * 4 : 100;
	uint32_t issue_burst = per_shared * 2 > 20 ? per_shared * 2 : 20;
	uint32_t admissions = options->stock > 65536 ? options->stock * 2 : 131072;
	uint32_t tokens = options->buyers > 100000 ? options->buyers * 2 + 4096 : 262144;
	FILE *file = fopen(arena->config, "we");

	if (!file) {
		cli_say("cannot write %s: %s", arena->config, strerror(errno));
		return -errno;
	}
	fprintf(file,
		"# Written by sluice drill. What is not here has its default.\n"
		"gate = {\n\tpin_dir = \"%s\";\n\tmax_prefixes = 65536;\n\tmax_admissions = %" PRIu32
		";\n\tmax_tokens = %" PRIu32 ";\n};\n"
		"limits = {\n\tsource = { rate = 50.0; burst = %" PRIu32 "; };\n};\n"
		"daemon = {\n\tpublic_listen = \"[::]:%d\";\n\tcontrol_listen = \"\";\n\tcontrol_socket = \"%s\";\n\tstate_dir = \"%s\";\n"
		"\tissue_source = { rate = 5.0; burst = %" PRIu32 "; };\n};\n"
		"writer = {\n\tsocket = \"%s/writer.sock\";\n\tledger = \"%s\";\n};\n",
		arena->pin_dir, admissions, tokens, source_burst, DRILL_PORT, arena->control_socket, arena->state_dir,
		issue_burst, arena->work_dir, arena->ledger);
	if (fclose(file)) {
		cli_say("cannot write %s: %s", arena->config, strerror(errno));
		return -errno;
	}
	return 0;
}
