/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What daemon and writer give up for good once they have what they need: capabilities, and system calls that neither ever makes. Called
 * by their start while one thread runs. It holds however they were started; a unit of systemd may take away more.
 */
#ifndef SLUICE_COMMON_SANDBOX_H
#define SLUICE_COMMON_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#define SANDBOX_CAPABILITY(number) (UINT64_C(1) << (number))

/* Of the bounding and the ambient set, keeps at most `keep` (a set of SANDBOX_CAPABILITY). Before the change of user, because it needs
 * CAP_SETPCAP; where that is missing, no_new_privs does the same.
 */
void sandbox_bound_capabilities(uint64_t keep);
/* Keeps at most `keep` of the capabilities that can be used. Returns 0 or negative errno. */
int sandbox_drop_capabilities(uint64_t keep);

struct sandbox {
	bool network; /* may open IPv4, IPv6 and netlink sockets; Unix sockets always */
	bool maps;    /* may work on BPF maps and run programs by descriptor or pin; never load, attach or pin */
};

/* Makes the system calls below fail with EPERM in this process and all its threads, whoever asks: new programs and processes (exec, fork),
 * other processes' memory (ptrace, process_vm_*), mounts and namespaces, modules, clocks, keys, raw I/O, io_uring, perf, and
 * bpf() and socket() beyond what `sandbox` allows. Implies no_new_privs. Returns 0 or negative errno.
 */
int sandbox_enter(const struct sandbox *sandbox);

#endif
