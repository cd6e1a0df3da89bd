/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Building and removing the drill's namespaces and servers; see arena.h. */
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "common/timefmt.h"
#include "common/wire.h"
#include "drill/arena.h"
#include "drill/places.h"
#include "drill/proc.h"
#include "drill/workdir.h"
#include "pass.skel.h"

#define SERVER_MAC "02:00:0a:33:00:01"
#define CLIENT_MAC "02:00:0a:33:00:02"
#define PIN_DIR_PREFIX "/sys/fs/bpf/sluice-drill-"
#define NETNS_RUN_DIR "/run/netns"
#define IP_WORDS_MAX 24
#define START_TIMEOUT_MS 15000
#define STOP_TIMEOUT_MS 10000
#define POLL_MS 50

const unsigned char drill_server_mac[6] = {0x02, 0x00, 0x0a, 0x33, 0x00, 0x01};
const unsigned char drill_client_mac[6] = {0x02, 0x00, 0x0a, 0x33, 0x00, 0x02};

static void nap(void)
{
	const struct timespec time = {0, POLL_MS * 1000000L};

	nanosleep(&time, NULL);
}

static const char *log_path(const struct drill_arena *arena, const char *name, char *out, size_t size)
{
	snprintf(out, size, "%s/%s.log", arena->work_dir, name);
	return out;
}

/* --- the network ------------------------------------------------------------------------------------------------------------ */

/* Runs one line of words with ip(8). */
static int ip(const struct drill_arena *arena, int netns, const char *line)
{
	char copy[256], log[DRILL_PATH_MAX + 32], *rest = copy, *argv[IP_WORDS_MAX] = {(char *)"ip"};
	int words = 1, code;

	snprintf(copy, sizeof(copy), "%s", line);
	while (words < IP_WORDS_MAX - 1 && (argv[words] = strsep(&rest, " ")))
		words++;
	log_path(arena, "ip", log, sizeof(log));
	code = drill_proc_run(netns, log, argv);
	if (!code)
		return 0;
	cli_say("\"ip %s\" failed", line);
	drill_proc_tail(log);
	return code < 0 ? code : -EIO;
}

/* Two new namespaces, held open; this thread ends where it began. */
static int make_namespaces(struct drill_arena *arena)
{
	static const char self[] = "/proc/thread-self/ns/net";
	int *const fds[] = {&arena->server_ns, &arena->client_ns};
	int err = 0;

	arena->host_ns = open(self, O_RDONLY | O_CLOEXEC);
	if (arena->host_ns < 0)
		err = -errno;
	for (size_t i = 0; !err && i < 2; i++) {
		if (unshare(CLONE_NEWNET) || (*fds[i] = open(self, O_RDONLY | O_CLOEXEC)) < 0)
			err = -errno;
	}
	if (arena->host_ns >= 0 && setns(arena->host_ns, CLONE_NEWNET) && !err)
		err = -errno;
	if (err)
		cli_say("cannot make a network namespace: %s", strerror(-err));
	return err;
}

static int make_network(struct drill_arena *arena)
{
	/* two queues each, so that the gate runs on two CPUs at once as it does on a real card */
	static const char *const server[] = {
		"link set lo up",
		"addr add " DRILL_SERVER4 "/24 dev " DRILL_SERVER_INTERFACE,
		"addr add " DRILL_SERVER6 "/64 dev " DRILL_SERVER_INTERFACE " nodad",
		"link set " DRILL_SERVER_INTERFACE " up",
		"neigh replace " DRILL_CLIENT4 " lladdr " CLIENT_MAC " dev " DRILL_SERVER_INTERFACE " nud permanent",
		"neigh replace " DRILL_CLIENT6 " lladdr " CLIENT_MAC " dev " DRILL_SERVER_INTERFACE " nud permanent",
		"route add " DRILL_CROWD4 " via " DRILL_CLIENT4,
		"route add " DRILL_OTHERS4 " via " DRILL_CLIENT4,
		"route add " DRILL_CROWD6 " via " DRILL_CLIENT6,
	};
	static const char *const client[] = {
		"link set lo up",
		"addr add " DRILL_CLIENT4 "/24 dev " DRILL_CLIENT_INTERFACE,
		"addr add " DRILL_CLIENT6 "/64 dev " DRILL_CLIENT_INTERFACE " nodad",
		"link set " DRILL_CLIENT_INTERFACE " up",
		"neigh replace " DRILL_SERVER4 " lladdr " SERVER_MAC " dev " DRILL_CLIENT_INTERFACE " nud permanent",
		"neigh replace " DRILL_SERVER6 " lladdr " SERVER_MAC " dev " DRILL_CLIENT_INTERFACE " nud permanent",
		/* AnyIP: every address of these is ours, without being listed one by one */
		"route add local " DRILL_CROWD4 " dev lo",
		"route add local " DRILL_OTHERS4 " dev lo",
		"route add local " DRILL_CROWD6 " dev lo",
	};
	char line[256];
	int err;

	snprintf(line, sizeof(line),
		"link add " DRILL_SERVER_INTERFACE " address " SERVER_MAC
		" numtxqueues 2 numrxqueues 2 type veth peer name " DRILL_CLIENT_INTERFACE " address " CLIENT_MAC
		" numtxqueues 2 numrxqueues 2 netns /proc/%d/fd/%d",
		getpid(), arena->client_ns);
	err = ip(arena, arena->server_ns, line);
	for (size_t i = 0; !err && i < sizeof(client) / sizeof(client[0]); i++)
		err = ip(arena, arena->client_ns, client[i]);
	for (size_t i = 0; !err && i < sizeof(server) / sizeof(server[0]); i++)
		err = ip(arena, arena->server_ns, server[i]);
	return err;
}

/* XDP_TX on a veth is delivered only to a peer that has an XDP program itself. */
static int attach_pass(struct drill_arena *arena)
{
	unsigned index;
	int err;

	arena->pass = pass_bpf__open_and_load();
	if (!arena->pass) {
		cli_say("cannot load the client side's XDP program: %s", strerror(errno));
		return -errno;
	}
	err = drill_arena_enter_client(arena);
	if (err)
		return err;
	index = if_nametoindex(DRILL_CLIENT_INTERFACE);
	err = index
		? bpf_xdp_attach((int)index, bpf_program__fd(arena->pass->progs.sluice_pass), XDP_FLAGS_DRV_MODE, NULL)
		: -errno;
	drill_arena_leave_client(arena);
	if (err)
		cli_say("cannot attach an XDP program to the client side's veth: %s", strerror(-err));
	return err;
}

static void read_mode(struct drill_arena *arena)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	unsigned index;

	if (setns(arena->server_ns, CLONE_NEWNET))
		return;
	index = if_nametoindex(DRILL_SERVER_INTERFACE);
	if (index && !bpf_xdp_query((int)index, 0, &query))
		snprintf(arena->mode, sizeof(arena->mode), "%s",
			query.attach_mode == XDP_ATTACHED_DRV           ? "native"
				: query.attach_mode == XDP_ATTACHED_SKB ? "generic"
									: "other");
	setns(arena->host_ns, CLONE_NEWNET);
}

/* --- gate, writer, daemon ------------------------------------------------------------------------------------------------------ */

static int attach_gate(struct drill_arena *arena, const struct drill_options *options)
{
	char program[DRILL_PATH_MAX + 32], log[DRILL_PATH_MAX + 32];
	char *argv[] = {program, (char *)"attach", (char *)DRILL_SERVER_INTERFACE, (char *)"--mode",
		(char *)options->mode, (char *)"--sysctl", (char *)"--config", arena->config, NULL};
	int code;

	snprintf(program, sizeof(program), "%s/sluice", arena->bin_dir);
	log_path(arena, "attach", log, sizeof(log));
	code = drill_proc_run(arena->server_ns, log, argv);
	if (code) {
		cli_say("\"sluice attach\" failed in the server's namespace");
		drill_proc_tail(log);
		return code < 0 ? code : -EIO;
	}
	arena->attached = true;
	read_mode(arena);
	return 0;
}

static int start_program(struct drill_arena *arena, const char *name, pid_t *pid)
{
	char program[DRILL_PATH_MAX + 32], log[DRILL_PATH_MAX + 32];
	char *argv[] = {program, (char *)"--config", arena->config, NULL};

	snprintf(program, sizeof(program), "%s/%s", arena->bin_dir, name);
	*pid = drill_proc_start(arena->server_ns, log_path(arena, name, log, sizeof(log)), !arena->keep, argv);
	if (*pid > 0)
		return 0;
	cli_say("cannot start %s: %s", program, strerror(-*pid));
	return *pid;
}

static bool one_alive(struct drill_arena *arena, const char *name, pid_t *pid)
{
	char log[DRILL_PATH_MAX + 32];
	int status;

	if (*pid <= 0 || drill_proc_alive(*pid, &status))
		return *pid > 0;
	*pid = 0;
	cli_say("%s ended by itself (exit code %d)", name, status);
	drill_proc_tail(log_path(arena, name, log, sizeof(log)));
	return false;
}

bool drill_arena_alive(struct drill_arena *arena)
{
	bool writer = one_alive(arena, "sluice-writer", &arena->writer);

	return one_alive(arena, "sluiced", &arena->daemon) && writer;
}

static int wait_for_socket(struct drill_arena *arena, const char *name, const char *path, pid_t *pid)
{
	char log[DRILL_PATH_MAX + 32];

	for (int waited = 0; waited < START_TIMEOUT_MS; waited += POLL_MS) {
		int fd = wire_connect(path);

		if (fd >= 0) {
			close(fd);
			return 0;
		}
		if (!one_alive(arena, name, pid))
			return -ESRCH;
		if (drill_interrupted)
			return -EINTR;
		nap();
	}
	cli_say("%s does not listen on %s after %d s", name, path, START_TIMEOUT_MS / 1000);
	drill_proc_tail(log_path(arena, name, log, sizeof(log)));
	return -ETIMEDOUT;
}

/* The daemon answers, is at the writer and has the gate: only then would an order go through. */
static int wait_for_orders(struct drill_arena *arena)
{
	const struct cli_globals globals = {.socket = arena->control_socket};
	struct cli_api *api;
	json_t *status;
	char log[DRILL_PATH_MAX + 32];
	bool open = false;

	if (cli_api_open(&api, &globals))
		return -EIO;
	for (int waited = 0; !open && waited < START_TIMEOUT_MS && !drill_interrupted; waited += POLL_MS) {
		if (cli_api_ask(api, "status", "GET", cli_api_path("/v1/status"), NULL, &status))
			break;
		open = json_is_true(json_object_get(status, "orders_open"));
		json_decref(status);
		if (!open)
			nap();
	}
	cli_api_close(api);
	if (open)
		return 0;
	if (drill_interrupted)
		return -EINTR;
	cli_say("sluiced does not open orders");
	drill_proc_tail(log_path(arena, "sluiced", log, sizeof(log)));
	return -ETIMEDOUT;
}

static int start_servers(struct drill_arena *arena)
{
	char socket[DRILL_PATH_MAX + 32];
	int err;

	snprintf(socket, sizeof(socket), "%s/writer.sock", arena->work_dir);
	err = start_program(arena, "sluice-writer", &arena->writer);
	if (!err)
		err = wait_for_socket(arena, "sluice-writer", socket, &arena->writer);
	if (!err)
		err = start_program(arena, "sluiced", &arena->daemon);
	if (!err)
		err = wait_for_socket(arena, "sluiced", arena->control_socket, &arena->daemon);
	return err ? err : wait_for_orders(arena);
}

/* --- up and down ------------------------------------------------------------------------------------------------------------------ */

static int find_programs(struct drill_arena *arena)
{
	char *slash;
	ssize_t length = readlink("/proc/self/exe", arena->bin_dir, sizeof(arena->bin_dir) - 1);

	if (length < 0 || length >= (ssize_t)sizeof(arena->bin_dir) - 1) {
		cli_say("cannot find the directory of this program");
		return -ENAMETOOLONG;
	}
	arena->bin_dir[length] = '\0';
	slash = strrchr(arena->bin_dir, '/');
	if (slash)
		*slash = '\0';
	return 0;
}

int drill_arena_open(struct drill_arena *arena, const struct drill_options *options)
{
	int err;

	memset(arena, 0, sizeof(*arena));
	arena->host_ns = arena->server_ns = arena->client_ns = -1;
	arena->keep = options->keep;
	if (geteuid()) {
		cli_say("a drill makes network namespaces and loads BPF programs: run it as root, or against a server with --target");
		return -EPERM;
	}
	fprintf(stderr, "Building two network namespaces, a gate, a daemon and an order writer ...\n");
	snprintf(arena->pin_dir, sizeof(arena->pin_dir), PIN_DIR_PREFIX "%d", getpid());
	err = find_programs(arena);
	if (!err)
		err = drill_workdir_make(arena, options);
	if (!err)
		err = drill_workdir_write_config(arena, options);
	if (!err)
		err = make_namespaces(arena);
	if (!err)
		err = make_network(arena);
	if (!err)
		err = attach_pass(arena);
	if (!err)
		err = attach_gate(arena, options);
	if (!err)
		err = start_servers(arena);
	return err;
}

int drill_arena_enter_client(const struct drill_arena *arena)
{
	return setns(arena->client_ns, CLONE_NEWNET) ? -errno : 0;
}

int drill_arena_leave_client(const struct drill_arena *arena)
{
	return setns(arena->host_ns, CLONE_NEWNET) ? -errno : 0;
}

static void detach_gate(struct drill_arena *arena)
{
	char program[DRILL_PATH_MAX + 32], log[DRILL_PATH_MAX + 32];
	char *argv[] = {program, (char *)"detach", (char *)"--config", arena->config, NULL};

	snprintf(program, sizeof(program), "%s/sluice", arena->bin_dir);
	log_path(arena, "detach", log, sizeof(log));
	if (!drill_proc_run(arena->server_ns, log, argv) && access(arena->pin_dir, F_OK))
		return;
	cli_say("\"sluice detach\" left %s: removing it", arena->pin_dir);
	drill_proc_tail(log);
	drill_remove_tree(arena->pin_dir);
}

/* A name in /run/netns keeps a namespace alive and lets ip(8) and nsenter(1) find it. */
static void name_namespace(int fd, const char *side)
{
	char path[64], from[32];
	int file;

	mkdir(NETNS_RUN_DIR, 0755);
	snprintf(path, sizeof(path), NETNS_RUN_DIR "/sluice-drill-%s", side);
	snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (file >= 0)
		close(file);
	if (file < 0 || mount(from, path, "none", MS_BIND, NULL))
		cli_say("cannot name the %s namespace %s: %s", side, path, strerror(errno));
}

static void leave_running(struct drill_arena *arena)
{
	char side[32];

	snprintf(side, sizeof(side), "server-%d", getpid());
	name_namespace(arena->server_ns, side);
	snprintf(side, sizeof(side), "client-%d", getpid());
	name_namespace(arena->client_ns, side);
	fprintf(stderr,
		"Left running, as --keep asks:\n"
		"  server  nsenter --net=" NETNS_RUN_DIR "/sluice-drill-server-%d\n"
		"  client  nsenter --net=" NETNS_RUN_DIR "/sluice-drill-client-%d curl http://" DRILL_SERVER4
		":%d/v1/sales/drill\n"
		"  control sluice --socket %s sale list\n"
		"To remove it:\n"
		"  kill %d %d\n"
		"  nsenter --net=" NETNS_RUN_DIR "/sluice-drill-server-%d %s/sluice detach --config %s\n"
		"  ip netns delete sluice-drill-server-%d && ip netns delete sluice-drill-client-%d\n",
		getpid(), getpid(), DRILL_PORT, arena->control_socket, arena->daemon, arena->writer, getpid(),
		arena->bin_dir, arena->config, getpid(), getpid());
}

void drill_arena_close(struct drill_arena *arena)
{
	if (arena->keep && arena->attached && arena->daemon > 0) {
		leave_running(arena);
		goto out;
	}
	/* the daemon first: it hands over what it still holds */
	drill_proc_stop(arena->daemon, STOP_TIMEOUT_MS);
	drill_proc_stop(arena->writer, STOP_TIMEOUT_MS);
	if (arena->attached)
		detach_gate(arena);
	if (arena->temporary)
		drill_remove_tree(arena->work_dir);
out:
	pass_bpf__destroy(arena->pass);
	if (arena->server_ns >= 0)
		close(arena->server_ns);
	if (arena->client_ns >= 0)
		close(arena->client_ns);
	if (arena->host_ns >= 0)
		close(arena->host_ns);
}
