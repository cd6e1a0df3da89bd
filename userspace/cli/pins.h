/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The pin directory: what stands in it, who may change it, and how it goes away. Used by the loader's commands only.
 *
 * Under the directory (mode 0700 on a bpf file system; a daemon with a user of its own lets its group search it, 0710, and open
 * `door`): each map by its name, `door` and `gate` (programs), and for each interface `link-NAME` (the XDP link) or `coexist-NAME` (the program, where libxdp's dispatcher holds it). `gate` is pinned last, so a
 * directory without it is a gate that was not finished, and what is there may be cleared away. bpffs allows no dot in a name; interface names allow no colon; so
 * eth0.100 is `link-eth0:100`.
 *
 * Every function says on stderr what is wrong and returns an exit code (enum cli_exit), unless it says otherwise.
 */
#ifndef SLUICE_CLI_PINS_H
#define SLUICE_CLI_PINS_H

#include <linux/limits.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>

#include "sluice/abi.h"

struct pins {
	char dir[256];
	int lock_fd; /* of the directory above; -1 = not open */
	bool locked;
	sigset_t signals; /* that were blocked before */
};

/* One interface of a gate. */
struct pinned_interface {
	char name[IF_NAMESIZE];
	bool coexist;
	int fd; /* of the link, or of the program if `coexist` */
};
#define PINS_INTERFACES_MAX 64

/* Takes the directory's name; touches nothing. */
int pins_init(struct pins *pins, const char *dir);
/* Makes sure that the directory's parent is on a bpf file system (mounts one on /sys/fs/bpf if there is none and `may_mount`), and keeps
 * other loaders and the signals of an impatient operator out until pins_unlock: what is done under the lock takes a second, and half of
 * it would leave work for the next one.
 */
int pins_lock(struct pins *pins, bool may_mount);
void pins_unlock(struct pins *pins);

/* The path of a pin; `path` holds PATH_MAX. Returns `path`. */
char *pins_path(const struct pins *pins, const char *name, char *path);
/* "link-eth0:100" or "coexist-eth0:100"; `name` holds PINS_NAME_MAX. Returns `name`. */
#define PINS_NAME_MAX 64
char *pins_interface_name(const char *interface, bool coexist, char *name);
bool pins_has(const struct pins *pins, const char *name);
/* fd or negative errno; says nothing. */
int pins_open(const struct pins *pins, const char *name);
/* Pins under another name and renames, so that an older pin of that name is replaced in one step and hands on owner, group and mode.
 * 0 or negative errno; says nothing.
 */
int pins_put(const struct pins *pins, const char *name, int fd);
int pins_make_directory(struct pins *pins);
/* All interfaces. Returns how many (0 if the directory is not there), or a negative errno. The caller closes with pins_close_interfaces. */
int pins_interfaces(const struct pins *pins, struct pinned_interface *interfaces);
void pins_close_interfaces(struct pinned_interface *interfaces, int count);
/* Detaches and removes what the loader may have put there, and the directory; nothing else. 0 or negative errno of what could not be removed. */
int pins_remove_all(const struct pins *pins);

/* The interface that an XDP link is on: its index in its own network namespace, 0 if it is gone. Negative errno. */
int pins_link_ifindex(int link_fd);
/* Of a pinned program: its id (0 if it cannot be told), and if it was loaded for a dispatcher (BPF_PROG_TYPE_EXT). */
unsigned pins_program_id(int program_fd);
bool pins_program_is_extension(int program_fd);
/* Maps the control word of the gate and checks that it speaks our ABI version: CLI_NOT_FOUND if there is none, CLI_CONFLICT if it does not. */
int pins_map_control(const struct pins *pins, struct sluice_control **control);
void pins_unmap_control(struct sluice_control *control); /* NULL-safe */
/* Removes one pin of an interface. 0 or negative errno; says nothing. */
int pins_remove_interface(const struct pins *pins, const struct pinned_interface *interface);

/* Names of the pinned maps; ends with NULL. */
extern const char *const pins_map_names[];

#endif
