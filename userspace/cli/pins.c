/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The pin directory on the bpf file system; see pins.h. */
#include "cli/pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/pin_name.h"
#include "common/timefmt.h"

#define BPFFS_DEFAULT "/sys/fs/bpf"
#define LOCK_WAIT_NS 5000000000ULL /* another attach takes about one second */
#define LOCK_RETRY_US 20000

const char *const pins_map_names[] = {"services", "ports", "limits", "control", "sales", "stock", "keys", "admissions",
	"ring", "buyers", "issued", "rates", "recent", "syn_budget", "lists", "list_index", "denials", "answers",
	"homes", "counters", "calls", "shadow", "watch", "events", NULL};

int pins_init(struct pins *pins, const char *dir)
{
	size_t length = strlen(dir);

	memset(pins, 0, sizeof(*pins));
	pins->lock_fd = -1;
	while (length > 1 && dir[length - 1] == '/')
		length--;
	if (dir[0] != '/' || length < 2 || length >= sizeof(pins->dir)) {
		cli_say("the pin directory must be an absolute path of at most %zu characters, not \"%s\"",
			sizeof(pins->dir) - 1, dir);
		return CLI_USAGE;
	}
	memcpy(pins->dir, dir, length);
	return CLI_OK;
}

static bool is_bpffs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (unsigned long)fs.f_type == BPF_FS_MAGIC;
}

/* Not that of the machine's first process, or of the one that called this ("ip netns exec" becomes the program that it runs): what is mounted here is
 * seen by nobody else, and lives as long as this namespace's processes. What may not be looked at is taken to be the same.
 */
static bool is_other_mount_namespace(void)
{
	const pid_t others[] = {1, getppid()};
	struct stat own, other;
	char path[64];

	if (stat("/proc/self/ns/mnt", &own))
		return false;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)others[i]);
		if (!stat(path, &other) && own.st_ino != other.st_ino)
			return true;
	}
	return false;
}

int pins_lock(struct pins *pins, bool may_mount)
{
	uint64_t give_up = time_mono_ns() + LOCK_WAIT_NS;
	char copy[sizeof(pins->dir)];
	const char *parent;
	sigset_t held;

	snprintf(copy, sizeof(copy), "%s", pins->dir);
	parent = dirname(copy);
	if (may_mount && !is_bpffs(parent) && !strcmp(parent, BPFFS_DEFAULT)) {
		if (mount("bpf", BPFFS_DEFAULT, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME, "mode=0700") <
			0) {
			cli_say("cannot mount a bpf file system on " BPFFS_DEFAULT ": %s", strerror(errno));
			return errno == EPERM ? CLI_NOT_ALLOWED : CLI_FAILED;
		}
		cli_say("mounted a bpf file system on " BPFFS_DEFAULT);
		if (is_other_mount_namespace())
			cli_say("warning: it is in a mount namespace of its own (ip netns exec makes one), and the pins go with that: use "
				"nsenter --net=/run/netns/NAME sluice attach …");
	}
	pins->lock_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (pins->lock_fd < 0 && errno == EACCES) {
		cli_say("may not open %s: needs root", parent);
		return CLI_NOT_ALLOWED;
	}
	if (pins->lock_fd < 0 || !is_bpffs(parent)) {
		if (!may_mount) { /* nothing can be pinned there, so nothing is attached */
			cli_say("no gate is attached (%s is not on a bpf file system)", pins->dir);
			return CLI_NOT_FOUND;
		}
		cli_say("%s cannot hold pins: %s is not on a bpf file system (mount -t bpf bpf %s)", pins->dir, parent,
			parent);
		return CLI_FAILED;
	}
	while (flock(pins->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK || time_mono_ns() > give_up) {
			cli_say("another sluice attach, detach or reload is at work on %s: try again", parent);
			return CLI_CONFLICT;
		}
		usleep(LOCK_RETRY_US);
	}
	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigaddset(&held, SIGTERM);
	sigaddset(&held, SIGHUP);
	sigprocmask(SIG_BLOCK, &held, &pins->signals);
	pins->locked = true;
	return CLI_OK;
}

void pins_unlock(struct pins *pins)
{
	if (pins->locked)
		sigprocmask(SIG_SETMASK, &pins->signals, NULL);
	if (pins->lock_fd >= 0)
		close(pins->lock_fd);
	pins->locked = false;
	pins->lock_fd = -1;
}

char *pins_path(const struct pins *pins, const char *name, char *path)
{
	snprintf(path, PATH_MAX, "%s/%s", pins->dir, name);
	return path;
}

char *pins_interface_name(const char *interface, bool coexist, char *name)
{
	return pin_name_of_interface(interface, coexist, name, PINS_NAME_MAX);
}

bool pins_has(const struct pins *pins, const char *name)
{
	char path[PATH_MAX];

	return access(pins_path(pins, name, path), F_OK) == 0;
}

int pins_open(const struct pins *pins, const char *name)
{
	char path[PATH_MAX];

	return bpf_obj_get(pins_path(pins, name, path));
}

/* What sluiced has let its group open (the call door) it may open after a replacement too. */
static int keep_permissions(const char *former, const char *path)
{
	struct stat info;

	if (stat(former, &info))
		return errno == ENOENT ? 0 : -errno;
	return chown(path, info.st_uid, info.st_gid) || chmod(path, info.st_mode & 07777) ? -errno : 0;
}

int pins_put(const struct pins *pins, const char *name, int fd)
{
	char temporary[PATH_MAX], path[PATH_MAX], temporary_name[PINS_NAME_MAX + 4];
	int err;

	snprintf(temporary_name, sizeof(temporary_name), "new-%s", name);
	pins_path(pins, temporary_name, temporary);
	unlink(temporary); /* left by a loader that was killed; the lock says that no other one is at work */
	err = bpf_obj_pin(fd, temporary);
	if (err)
		return err;
	err = keep_permissions(pins_path(pins, name, path), temporary);
	if (!err && rename(temporary, path) < 0)
		err = -errno;
	if (err)
		unlink(temporary);
	return err;
}

int pins_make_directory(struct pins *pins)
{
	if (mkdir(pins->dir, 0700) < 0 && errno != EEXIST) {
		cli_say("cannot create %s: %s", pins->dir, strerror(errno));
		return errno == EACCES || errno == EPERM ? CLI_NOT_ALLOWED : CLI_FAILED;
	}
	if (chmod(pins->dir, 0700) <
		0) { /* mkdir's mode is subject to the umask, and the directory may be an old one */
		cli_say("cannot set the mode of %s to 0700: %s", pins->dir, strerror(errno));
		return CLI_FAILED;
	}
	return CLI_OK;
}

int pins_interfaces(const struct pins *pins, struct pinned_interface *interfaces)
{
	DIR *dir = opendir(pins->dir);
	struct dirent *entry;
	int count = 0;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(dir)) && count < PINS_INTERFACES_MAX) {
		struct pinned_interface *interface = &interfaces[count];

		if (!pin_name_to_interface(entry->d_name, interface->name, &interface->coexist))
			continue;
		interface->fd = pins_open(pins, entry->d_name);
		if (interface->fd < 0) {
			int err = interface->fd;

			pins_close_interfaces(interfaces, count);
			closedir(dir);
			return err;
		}
		count++;
	}
	closedir(dir);
	return count;
}

void pins_close_interfaces(struct pinned_interface *interfaces, int count)
{
	for (int i = 0; i < count; i++)
		close(interfaces[i].fd);
}

int pins_link_ifindex(int link_fd)
{
	struct bpf_link_info info = {0};
	__u32 length = sizeof(info);
	int err = bpf_obj_get_info_by_fd(link_fd, &info, &length);

	return err ? err : (int)info.xdp.ifindex;
}

unsigned pins_program_id(int program_fd)
{
	struct bpf_prog_info info = {0};
	__u32 length = sizeof(info);

	return bpf_obj_get_info_by_fd(program_fd, &info, &length) ? 0 : info.id;
}

bool pins_program_is_extension(int program_fd)
{
	struct bpf_prog_info info = {0};
	__u32 length = sizeof(info);

	return !bpf_obj_get_info_by_fd(program_fd, &info, &length) && info.type == BPF_PROG_TYPE_EXT;
}

int pins_map_control(const struct pins *pins, struct sluice_control **control)
{
	struct sluice_control *mapped;
	int fd = pins_open(pins, "control");

	*control = NULL;
	if (fd == -ENOENT || fd == -ENOTDIR) {
		cli_say("no gate is attached (nothing is pinned under %s)", pins->dir);
		return CLI_NOT_FOUND;
	}
	if (fd < 0) {
		cli_say("cannot open %s/control: %s", pins->dir, strerror(-fd));
		return fd == -EACCES || fd == -EPERM ? CLI_NOT_ALLOWED : CLI_FAILED;
	}
	mapped = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped == MAP_FAILED) {
		cli_say("cannot map %s/control: %s", pins->dir, strerror(errno));
		return CLI_FAILED;
	}
	if (mapped->magic == SLUICE_ABI_MAGIC && mapped->abi_version == SLUICE_ABI_VERSION) {
		*control = mapped;
		return CLI_OK;
	}
	if (mapped->magic == SLUICE_ABI_MAGIC)
		cli_say("the gate under %s has ABI version %u and this program %d: detach and attach again", pins->dir,
			mapped->abi_version, SLUICE_ABI_VERSION);
	else
		cli_say("%s/control is not the control word of a gate", pins->dir);
	pins_unmap_control(mapped);
	return CLI_CONFLICT;
}

void pins_unmap_control(struct sluice_control *control)
{
	if (control)
		munmap(control, (size_t)sysconf(_SC_PAGESIZE));
}

static int remove_pin(const struct pins *pins, const char *name)
{
	char path[PATH_MAX];

	return unlink(pins_path(pins, name, path)) < 0 && errno != ENOENT ? -errno : 0;
}

/* The kernel lets go of an unpinned link some time later; whoever looks at the hook next must find it free. */
static void detach_link(const struct pins *pins, const char *name)
{
	int fd = pins_open(pins, name);

	if (fd < 0)
		return;
	bpf_link_detach(fd);
	close(fd);
}

int pins_remove_interface(const struct pins *pins, const struct pinned_interface *interface)
{
	char name[PINS_NAME_MAX];

	return remove_pin(pins, pins_interface_name(interface->name, interface->coexist, name));
}

int pins_remove_all(const struct pins *pins)
{
	static const char *const programs[] = {"gate", "door", "new-gate", "new-door"};
	struct dirent *entry;
	char interface[IF_NAMESIZE];
	bool coexist;
	int err = 0, result;
	DIR *dir;

	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
		err = (result = remove_pin(pins, programs[i])) ? result : err;
	for (size_t i = 0; pins_map_names[i]; i++)
		err = (result = remove_pin(pins, pins_map_names[i])) ? result : err;
	dir = opendir(pins->dir);
	while (dir && (entry = readdir(dir))) {
		if (!pin_name_to_interface(entry->d_name, interface, &coexist) &&
			strncmp(entry->d_name, "new-" PIN_LINK_PREFIX, strlen("new-" PIN_LINK_PREFIX)))
			continue;
		detach_link(pins, entry->d_name);
		result = remove_pin(pins, entry->d_name);
		if (result)
			err = result;
		else
			rewinddir(dir); /* the directory has changed under the reader */
	}
	if (dir)
		closedir(dir);
	if (rmdir(pins->dir) < 0 && errno != ENOENT)
		err = -errno;
	return err;
}
