/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Capabilities, no_new_privs and a seccomp filter; see sandbox.h.
 *
 * The filter names what is refused, not what is allowed: libc, SQLite and libmicrohttpd choose their calls by their own version, and a list
 * of the allowed ones that misses one would stop a sale. What is refused are the families that an intruder needs to go on from here. They fail
 * with EPERM instead of ending the process: an order in work is worth more than a dead intruder, who has got nothing either way.
 */
#include "common/sandbox.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPTIMIZE_BINARY_TREE 2
#define LAST_ALLOWED_BPF BPF_MAP_DELETE_BATCH

static const int refused[] = {
	/* other programs, other processes */
	SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(fork), SCMP_SYS(vfork), SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(process_madvise), SCMP_SYS(pidfd_getfd),
	SCMP_SYS(kcmp),
	/* mounts and namespaces */
	SCMP_SYS(mount), SCMP_SYS(umount), SCMP_SYS(umount2), SCMP_SYS(move_mount), SCMP_SYS(open_tree),
	SCMP_SYS(fsopen), SCMP_SYS(fsconfig), SCMP_SYS(fsmount), SCMP_SYS(fspick), SCMP_SYS(mount_setattr),
	SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(open_by_handle_at),
	SCMP_SYS(mknod), SCMP_SYS(mknodat), SCMP_SYS(fanotify_init), SCMP_SYS(quotactl), SCMP_SYS(quotactl_fd),
	/* the machine */
	SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(kexec_load),
	SCMP_SYS(kexec_file_load), SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(sethostname),
	SCMP_SYS(setdomainname), SCMP_SYS(settimeofday), SCMP_SYS(clock_settime), SCMP_SYS(clock_adjtime),
	SCMP_SYS(adjtimex), SCMP_SYS(acct), SCMP_SYS(syslog), SCMP_SYS(vhangup), SCMP_SYS(iopl), SCMP_SYS(ioperm),
	/* large or rarely used parts of the kernel */
	SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd), SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter),
	SCMP_SYS(io_uring_register), SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(keyctl), SCMP_SYS(personality),
	SCMP_SYS(modify_ldt), SCMP_SYS(uselib), SCMP_SYS(lookup_dcookie)};

void sandbox_bound_capabilities(uint64_t keep)
{
	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(keep & SANDBOX_CAPABILITY(cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

int sandbox_drop_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};

	if (syscall(SYS_capget, &header, data))
		return -errno;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		data[i].permitted &= (uint32_t)(keep >> 32 * i);
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static int refuse_argument(
	scmp_filter_ctx filter, int call, unsigned argument, enum scmp_compare how, uint64_t a, uint64_t b)
{
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 1, SCMP_CMP64(argument, how, a, b));
}

static int refuse_families(scmp_filter_ctx filter)
{
	int err = 0;

	for (unsigned i = 0; !err && i < sizeof(refused) / sizeof(refused[0]); i++)
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
	return err;
}

/* Threads, but no processes and no namespaces. The flags of clone3 lie in memory, where a filter cannot look: with ENOSYS libc makes
 * its threads by clone.
 */
static int refuse_processes(scmp_filter_ctx filter)
{
	static const uint64_t namespaces[] = {
		CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET};
	int err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	if (!err)
		err = refuse_argument(filter, SCMP_SYS(clone), 0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
	for (unsigned i = 0; !err && i < sizeof(namespaces) / sizeof(namespaces[0]); i++)
		err = refuse_argument(filter, SCMP_SYS(clone), 0, SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i]);
	return err;
}

static int refuse_sockets(scmp_filter_ctx filter, bool network)
{
	int err = 0;

	if (!network)
		return refuse_argument(filter, SCMP_SYS(socket), 0, SCMP_CMP_NE, AF_UNIX, 0);
	for (uint64_t family = 0; !err && family < AF_NETLINK; family++)
		if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
			err = refuse_argument(filter, SCMP_SYS(socket), 0, SCMP_CMP_EQ, family, 0);
	return err ? err : refuse_argument(filter, SCMP_SYS(socket), 0, SCMP_CMP_GT, AF_NETLINK, 0);
}

static bool is_map_work(uint64_t command)
{
	switch (command) {
	case BPF_MAP_LOOKUP_ELEM:
	case BPF_MAP_UPDATE_ELEM:
	case BPF_MAP_DELETE_ELEM:
	case BPF_MAP_GET_NEXT_KEY:
	case BPF_MAP_LOOKUP_AND_DELETE_ELEM:
	case BPF_MAP_LOOKUP_BATCH:
	case BPF_MAP_LOOKUP_AND_DELETE_BATCH:
	case BPF_MAP_UPDATE_BATCH:
	case BPF_MAP_DELETE_BATCH:
	case BPF_OBJ_GET:
	case BPF_OBJ_GET_INFO_BY_FD:
	case BPF_PROG_TEST_RUN:
		return true;
	default:
		return false;
	}
}

static int refuse_bpf(scmp_filter_ctx filter, bool maps)
{
	int err = 0;

	if (!maps)
		return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(bpf), 0);
	for (uint64_t command = 0; !err && command <= LAST_ALLOWED_BPF; command++)
		if (!is_map_work(command))
			err = refuse_argument(filter, SCMP_SYS(bpf), 0, SCMP_CMP_EQ, command, 0);
	return err ? err : refuse_argument(filter, SCMP_SYS(bpf), 0, SCMP_CMP_GT, LAST_ALLOWED_BPF, 0);
}

int sandbox_enter(const struct sandbox *sandbox)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int err;

	if (!filter)
		return -ENOMEM;
	/* libseccomp sets no_new_privs as well. A call by the rules of another architecture (32 bits, x32) ends the process: that is libseccomp's default. */
	err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_BINARY_TREE);
	if (!err)
		err = refuse_families(filter);
	if (!err)
		err = refuse_processes(filter);
	if (!err)
		err = refuse_sockets(filter, sandbox->network);
	if (!err)
		err = refuse_bpf(filter, sandbox->maps);
	if (!err)
		err = seccomp_load(filter);
	seccomp_release(filter);
	return err;
}
