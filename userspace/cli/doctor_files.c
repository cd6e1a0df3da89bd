/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who may read and write what, and the disk under ledger and state; see doctor.h. */
#include <errno.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/doctor.h"

#define MIB (1024ULL * 1024)
#define SPACE_WARN (1024 * MIB)
#define SPACE_FAIL (64 * MIB)
#define CIFS_MAGIC 0xff534d42UL
#define SMB2_MAGIC 0xfe534d42UL

/* A file, and the bits of its mode that must not be set. */
static void look_at_file(struct doctor *doctor, const char *path, mode_t forbidden, const char *why)
{
	char todo[CONFIG_PATH_MAX + 64];
	struct stat state;

	if (!*path)
		return;
	if (stat(path, &state)) {
		if (errno != ENOENT) /* what is not there yet will be made with the right mode */
			doctor_note(doctor, DOCTOR_WARN, "files", "run this as root", "%s cannot be looked at: %s",
				path, strerror(errno));
		return;
	}
	if (!(state.st_mode & forbidden)) {
		doctor_note(doctor, DOCTOR_OK, "files", NULL, "%s has mode %04o", path, state.st_mode & 07777);
		return;
	}
	snprintf(todo, sizeof(todo), "chmod %04o %s", state.st_mode & 07777 & ~forbidden, path);
	doctor_note(doctor, DOCTOR_FAIL, "files", todo, "%s has mode %04o: %s", path, state.st_mode & 07777, why);
}

/* One that the config names, or NAME in the daemon's directory. */
static void look_at_secret(struct doctor *doctor, const char *named, const char *name, const char *why)
{
	char path[CONFIG_PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", doctor->config->daemon.state_dir, name);
	look_at_file(doctor, *named ? named : path, 0077, why);
}

void doctor_look_at_files(struct doctor *doctor)
{
	const struct config *config = doctor->config;

	look_at_file(doctor, doctor->config_path, 0022, "others than its owner can change the config");
	look_at_file(doctor, config->daemon.state_dir, 0022, "others could put files there that the daemon believes");
	look_at_secret(doctor, "", "keys", "whoever can read it can sign tokens");
	look_at_secret(doctor, "", "control.secret", "whoever can read it commands the sales over TCP");
	if (*config->daemon.webhook_url)
		look_at_secret(doctor, config->daemon.webhook_secret_file, "webhook.secret",
			"whoever can read it can tell the shop of orders that were never made");
	if (config_is_fleet(config)) {
		look_at_secret(doctor, config->fleet.secret_file, "fleet.secret",
			"whoever can read it can sign tokens of the whole fleet");
		look_at_file(doctor, config->fleet.redis_password_file, 0077,
			"whoever can read it can change the stock of the fleet");
	}
	if (!config->writer.in_postgres)
		look_at_file(doctor, config->writer.ledger, 0027,
			"orders can be changed, or buyers' addresses read, by others");
	look_at_file(doctor, config->gate.pin_dir, 0027, "others can reach the gate's maps, and the keys in them");
}

static void look_at_file_system(struct doctor *doctor, const char *directory, const char *what)
{
	struct statvfs space;
	struct statfs kind;
	unsigned long type;
	unsigned long long free_bytes;

	if (statvfs(directory, &space) || statfs(directory, &kind)) {
		doctor_note(doctor, errno == ENOENT ? DOCTOR_WARN : DOCTOR_FAIL, "disk",
			"make it, or name another in the config", "%s, of %s: %s", directory, what, strerror(errno));
		return;
	}
	type = (unsigned long)kind.f_type;
	free_bytes = (unsigned long long)space.f_bavail * space.f_frsize;
	if (type == TMPFS_MAGIC || type == RAMFS_MAGIC)
		doctor_note(doctor, DOCTOR_FAIL, "disk", "put it on a disk",
			"%s, of %s, is in memory: nothing there outlives the machine's power", directory, what);
	else if (type == NFS_SUPER_MAGIC || type == CIFS_MAGIC || type == SMB2_MAGIC)
		doctor_note(doctor, DOCTOR_FAIL, "disk", "put it on a local disk",
			"%s, of %s, is on a network file system, whose locks and syncs cannot be relied on", directory,
			what);
	if (space.f_flag & ST_RDONLY)
		doctor_note(doctor, DOCTOR_FAIL, "disk", "mount it writable", "%s, of %s, is mounted read-only",
			directory, what);
	else if (free_bytes < SPACE_FAIL || !space.f_favail)
		doctor_note(doctor, DOCTOR_FAIL, "disk", "make room", "%s, of %s, has %llu MiB and %llu files left",
			directory, what, free_bytes / MIB, (unsigned long long)space.f_favail);
	else if (free_bytes < SPACE_WARN)
		doctor_note(doctor, DOCTOR_WARN, "disk", "make room: a million orders take some 200 MiB",
			"%s, of %s, has %llu MiB left", directory, what, free_bytes / MIB);
	else
		doctor_note(doctor, DOCTOR_OK, "disk", NULL, "%s, of %s, has %llu MiB left", directory, what,
			free_bytes / MIB);
}

void doctor_look_at_disk(struct doctor *doctor)
{
	char ledger[CONFIG_PATH_MAX];
	const char *directory;

	snprintf(ledger, sizeof(ledger), "%s", doctor->config->writer.ledger);
	directory = dirname(ledger);
	if (!doctor->config->writer.in_postgres)
		look_at_file_system(doctor, directory, "the ledger");
	if (doctor->config->writer.in_postgres || strcmp(directory, doctor->config->daemon.state_dir) != 0)
		look_at_file_system(doctor, doctor->config->daemon.state_dir, "the daemon's state");
}
