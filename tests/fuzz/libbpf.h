/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* libbpf's map calls over the shim's maps: what the daemon and userspace/common think is the kernel. Linked in place of libbpf. */
#ifndef SLUICE_FUZZ_LIBBPF_H
#define SLUICE_FUZZ_LIBBPF_H

/* A file descriptor that stands for the map of that name. */
int libbpf_fd(const char *name);
/* What bpf_prog_test_run_opts runs; it gets the context to change in place. */
extern void (*libbpf_door)(void *context);

#endif
