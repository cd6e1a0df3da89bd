/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of common/sandbox.c. Each enters the sandbox in a child process and tries from within; the child's exit code is the line of the
 * first thing that went otherwise than claimed.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sandbox.h"

/* Exit codes have eight bits; lines beyond 255 would hide. */
#define CLAIM(what) \
	do { \
		if (!(what)) \
			_exit(__LINE__ & 255 ? __LINE__ & 255 : 1); \
	} while (0)
#define REFUSED(call) CLAIM((errno = 0, (call) == -1 && errno == EPERM))

static void expect_child(void (*run)(void))
{
	int status = -1;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		run();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0); /* else: the line of the claim, modulo 256 */
}

static long call_bpf(int command)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	return syscall(SYS_bpf, command, &attr, sizeof(attr));
}

static void *say_hello(void *arg)
{
	*(int *)arg = 1;
	return NULL;
}

static void claim_threads_work(void)
{
	pthread_t thread;
	int said = 0;

	CLAIM(pthread_create(&thread, NULL, say_hello, &said) == 0);
	CLAIM(pthread_join(thread, NULL) == 0 && said == 1);
}

static void claim_families_refused(void)
{
	char *argv[] = {(char[]){"true"}, NULL};

	REFUSED(execve("/bin/true", argv, environ));
	REFUSED(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL));
	REFUSED(unshare(CLONE_NEWUSER));
	REFUSED(mount("none", "/", "tmpfs", 0, NULL));
	REFUSED(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	REFUSED(syscall(SYS_init_module, NULL, 0, ""));
	REFUSED(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
	REFUSED(syscall(SYS_keyctl, 0, 0, 0, 0, 0));
	REFUSED(socket(AF_PACKET, SOCK_RAW, 0));
	REFUSED(socket(AF_VSOCK, SOCK_STREAM, 0));
	REFUSED(call_bpf(BPF_PROG_LOAD));
	REFUSED(call_bpf(BPF_MAP_CREATE));
	REFUSED(call_bpf(BPF_OBJ_PIN));
	REFUSED(call_bpf(BPF_LINK_CREATE));
	CLAIM(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
}

static void in_daemon(void)
{
	static const struct sandbox sandbox = {.network = true, .maps = true};

	CLAIM(sandbox_enter(&sandbox) == 0);
	claim_families_refused();
	claim_threads_work();
	CLAIM(socket(AF_INET, SOCK_STREAM, 0) >= 0);
	CLAIM(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
	/* The kernel's answers, not the filter's: descriptor 0 is no map and no program. */
	CLAIM(call_bpf(BPF_MAP_LOOKUP_ELEM) == -1 && errno != EPERM);
	CLAIM(call_bpf(BPF_PROG_TEST_RUN) == -1 && errno != EPERM);
	CLAIM(call_bpf(BPF_OBJ_GET) == -1 && errno != EPERM);
}

static void in_writer(void)
{
	static const struct sandbox sandbox = {.network = false, .maps = false};

	CLAIM(sandbox_enter(&sandbox) == 0);
	claim_families_refused();
	claim_threads_work();
	CLAIM(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
	REFUSED(socket(AF_INET, SOCK_STREAM, 0));
	REFUSED(call_bpf(BPF_MAP_LOOKUP_ELEM));
}

static void entering_twice(void)
{
	static const struct sandbox sandbox = {.network = true, .maps = true};

	CLAIM(sandbox_enter(&sandbox) == 0);
	CLAIM(sandbox_enter(&sandbox) == 0); /* a second filter may only refuse more */
	claim_threads_work();
}

static uint64_t effective(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	CLAIM(syscall(SYS_capget, &header, data) == 0);
	return data[0].effective | (uint64_t)data[1].effective << 32;
}

static void without_capabilities(void)
{
	const uint64_t keep = SANDBOX_CAPABILITY(CAP_DAC_OVERRIDE) & effective();

	sandbox_bound_capabilities(keep);
	CLAIM(sandbox_drop_capabilities(keep) == 0);
	CLAIM(effective() == keep);
	CLAIM(sandbox_drop_capabilities(~UINT64_C(0)) == 0); /* what is gone does not come back */
	CLAIM(effective() == keep);
	CLAIM(sandbox_drop_capabilities(0) == 0);
	CLAIM(effective() == 0);
	if (keep)
		for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
			CLAIM(prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == (cap == CAP_DAC_OVERRIDE));
}

static void the_daemon_keeps_threads_network_and_maps_and_nothing_else(void **state)
{
	(void)state;
	expect_child(in_daemon);
}

static void the_writer_keeps_threads_and_unix_sockets_and_nothing_else(void **state)
{
	(void)state;
	expect_child(in_writer);
}

static void a_second_filter_does_no_harm(void **state)
{
	(void)state;
	expect_child(entering_twice);
}

static void a_capability_that_is_not_kept_is_gone_for_good(void **state)
{
	(void)state;
	expect_child(without_capabilities);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_daemon_keeps_threads_network_and_maps_and_nothing_else),
		cmocka_unit_test(the_writer_keeps_threads_and_unix_sockets_and_nothing_else),
		cmocka_unit_test(a_second_filter_does_no_harm),
		cmocka_unit_test(a_capability_that_is_not_kept_is_gone_for_good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
