/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger as a file: who owns it, who can write it, and the lock that keeps a second writer out. */
#ifndef SLUICE_WRITER_LEDGER_FILE_H
#define SLUICE_WRITER_LEDGER_FILE_H

#include <stdbool.h>
#include <sys/types.h>

struct ledger_file {
	int lock_fd; /* holds the lock until closed; -1 = none */
	int name_fd; /* O_PATH: the file that was claimed, whatever became of its name; -1 = none */
	dev_t device;
	ino_t inode;
};

/* Looks at `path` without opening it. Returns 0, -ENOENT, or -EPERM / negative errno with a sentence in `error`
 * (STORE_ERROR_MAX) if it is not a regular file, has a second name, or others can write it or replace it.
 */
int ledger_file_inspect(const char *path, struct ledger_file *file, char *error);
/* Makes an empty file (0600, fsynced with its directory) if there is none. Returns 0 or negative errno with a sentence. */
int ledger_file_create(const char *path, char *error);
/* Takes the lock, makes an empty ledger if there is none, and inspects it. Returns 0, -EBUSY, -EPROTO if the ledger is
 * missing or empty and orders lie in a WAL beside it, or as above.
 */
int ledger_file_claim(const char *path, struct ledger_file *file, char *error);
/* True while `path` still names the file that was claimed. */
bool ledger_file_same(const char *path, const struct ledger_file *file);
/* True while the file that was claimed has a name anywhere. */
bool ledger_file_has_name(const struct ledger_file *file);
void ledger_file_release(struct ledger_file *file);

#endif
