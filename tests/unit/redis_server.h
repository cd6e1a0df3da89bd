/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Redis servers of the test program's own: data in one directory under /tmp, on free ports of the loopback address.
 *
 * The kernel ends them with the test program, however that ends; a guardian process removes the directory then.
 */
#ifndef SLUICE_TESTS_REDIS_SERVER_H
#define SLUICE_TESTS_REDIS_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define REDIS_SERVER_PATIENCE_MS 10000
#define REDIS_SERVER_STEP_MS 5
/* A node of a cluster also listens so far above its port. */
#define REDIS_SERVER_BUS 10000
#define REDIS_SERVER_OPTIONS 12

struct redis_server {
	unsigned port;
	pid_t pid; /* 0 = stopped */
	char directory[64];
	char address[32];                          /* "127.0.0.1:PORT" */
	const char *options[REDIS_SERVER_OPTIONS]; /* more of them, as in argv */
};

static char redis_server_root[32]; /* "" = there is none yet */

static inline int redis_server_remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)kind;
	(void)where;
	return remove(path);
}

static inline void redis_server_guard(void)
{
	int ends[2];
	pid_t guardian;
	char byte;

	strcpy(redis_server_root, "/tmp/sluice-redis.XXXXXX");
	assert_non_null(mkdtemp(redis_server_root));
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	guardian = fork();
	assert_true(guardian >= 0);
	if (guardian) {
		close(ends[0]); /* the other is closed with this process, and those that it forked */
		return;
	}
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	setsid();
	close(ends[1]);
	while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	usleep(100000); /* for the servers, whom the kernel ends now */
	nftw(redis_server_root, redis_server_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

static inline bool redis_server_port_is_free(unsigned port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	bool is_free;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	is_free = !bind(fd, (struct sockaddr *)&address, sizeof(address));
	close(fd);
	return is_free;
}

/* Below the ports that the kernel gives to clients. */
static inline unsigned redis_server_free_port(void)
{
	for (;;) {
		uint16_t number = 0;
		unsigned port;

		assert_int_equal(getrandom(&number, sizeof(number), 0), sizeof(number));
		port = 10240 + number % 10000;
		if (redis_server_port_is_free(port) && redis_server_port_is_free(port + REDIS_SERVER_BUS))
			return port;
	}
}

/* A connection as a person with redis-cli has it; NULL while the server does not answer. */
static inline redisContext *redis_server_connect(const struct redis_server *server)
{
	redisContext *context = redisConnectWithTimeout("127.0.0.1", (int)server->port, (struct timeval){.tv_sec = 5});

	if (context && !context->err) {
		redisSetTimeout(context, (struct timeval){.tv_sec = 5});
		return context;
	}
	redisFree(context);
	return NULL;
}

/* Runs a command; the answer is freed by freeReplyObject. An error reply is one, too. */
static inline redisReply *redis_server_ask(const struct redis_server *server, const char *format, ...)
{
	redisContext *context = redis_server_connect(server);
	redisReply *reply;
	va_list args;

	assert_non_null(context);
	va_start(args, format);
	reply = redisvCommand(context, format, args);
	va_end(args);
	redisFree(context);
	assert_non_null(reply);
	return reply;
}

/* The same where it must succeed; its text, or "". */
static inline const char *redis_server_do(const struct redis_server *server, const char *format, ...)
{
	static char text[512];
	redisContext *context = redis_server_connect(server);
	redisReply *reply;
	va_list args;

	assert_non_null(context);
	va_start(args, format);
	reply = redisvCommand(context, format, args);
	va_end(args);
	redisFree(context);
	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("%s: %s", format, reply->str);
	snprintf(text, sizeof(text), "%s", reply->str ? reply->str : "");
	if (reply->type == REDIS_REPLY_INTEGER)
		snprintf(text, sizeof(text), "%lld", reply->integer);
	freeReplyObject(reply);
	return text;
}

static inline void redis_server_spawn(struct redis_server *server)
{
	char port[8];
	const char *argv[16 + REDIS_SERVER_OPTIONS] = {"redis-server", "--port", port, "--dir", server->directory,
		"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"};
	unsigned argc = 13;
	pid_t parent = getpid();
	int log;

	snprintf(port, sizeof(port), "%u", server->port);
	for (unsigned i = 0; i < REDIS_SERVER_OPTIONS && server->options[i]; i++)
		argv[argc++] = server->options[i];
	server->pid = fork();
	assert_true(server->pid >= 0);
	if (server->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || chdir(server->directory))
		_exit(125);
	log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(126);
}

/* Until it takes connections; it may still be loading then. */
static inline void redis_server_await(struct redis_server *server)
{
	char command[96];

	for (unsigned ms = 0; ms < REDIS_SERVER_PATIENCE_MS; ms += REDIS_SERVER_STEP_MS) {
		redisContext *context = redis_server_connect(server);

		if (context) {
			redisFree(context);
			return;
		}
		if (waitpid(server->pid, NULL, WNOHANG) == server->pid)
			break;
		usleep(REDIS_SERVER_STEP_MS * 1000);
	}
	snprintf(command, sizeof(command), "tail -n 20 %s/log >&2", server->directory);
	if (system(command))
		print_error("no log\n");
	fail_msg("the Redis server does not start (scripts/install-deps.sh --for test installs it)");
}

static inline void redis_server_start(struct redis_server *server)
{
	if (!*redis_server_root)
		redis_server_guard();
	if (!server->port) {
		server->port = redis_server_free_port();
		snprintf(server->address, sizeof(server->address), "127.0.0.1:%u", server->port);
		snprintf(server->directory, sizeof(server->directory), "%s/%u", redis_server_root, server->port);
		assert_int_equal(mkdir(server->directory, 0755), 0);
	}
	redis_server_spawn(server);
	redis_server_await(server);
}

static inline void redis_server_stop(struct redis_server *server, int sig)
{
	if (!server->pid)
		return;
	kill(server->pid, SIGCONT);
	kill(server->pid, sig);
	assert_int_equal(waitpid(server->pid, NULL, 0), server->pid);
	server->pid = 0;
}

/* --- a cluster: masters, and a replica of each behind them ------------------------------------------------------------------------- */
#define REDIS_CLUSTER_MAX 6

struct redis_cluster {
	struct redis_server nodes[REDIS_CLUSTER_MAX];
	unsigned masters, count;
	char addresses[160]; /* of the masters, with commas between */
};

static inline void redis_cluster_await(const struct redis_server *node, const char *command, const char *wanted)
{
	for (unsigned ms = 0; ms < REDIS_SERVER_PATIENCE_MS; ms += REDIS_SERVER_STEP_MS) {
		redisReply *reply = redis_server_ask(node, command);
		bool is_there = reply->str && strstr(reply->str, wanted);

		freeReplyObject(reply);
		if (is_there)
			return;
		usleep(REDIS_SERVER_STEP_MS * 1000);
	}
	fail_msg("%s never says %s", command, wanted);
}

static inline void redis_cluster_id(const struct redis_server *node, char id[48])
{
	snprintf(id, 48, "%s", redis_server_do(node, "CLUSTER MYID"));
}

/* Made by hand: redis-cli --cluster create waits for seconds. */
static inline void redis_cluster_start(struct redis_cluster *cluster, unsigned masters, bool has_replicas)
{
	static const char *const options[] = {"--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
		"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
		"--cluster-allow-replica-migration", "no"};
	char id[48], known[32];

	cluster->masters = masters;
	cluster->count = has_replicas ? 2 * masters : masters;
	for (unsigned i = 0; i < cluster->count; i++) {
		memcpy(cluster->nodes[i].options, options, sizeof(options));
		redis_server_start(&cluster->nodes[i]);
		redis_server_do(&cluster->nodes[i], "CLUSTER SET-CONFIG-EPOCH %u", i + 1);
		if (i)
			redis_server_do(&cluster->nodes[0], "CLUSTER MEET 127.0.0.1 %u", cluster->nodes[i].port);
	}
	cluster->addresses[0] = '\0';
	for (unsigned i = 0; i < masters; i++) {
		redis_server_do(&cluster->nodes[i], "CLUSTER ADDSLOTSRANGE %u %u", i * 16384 / masters,
			(i + 1) * 16384 / masters - 1);
		snprintf(cluster->addresses + strlen(cluster->addresses),
			sizeof(cluster->addresses) - strlen(cluster->addresses), "%s%s", i ? "," : "",
			cluster->nodes[i].address);
	}
	snprintf(known, sizeof(known), "cluster_known_nodes:%u", cluster->count);
	for (unsigned i = 0; i < cluster->count; i++)
		redis_cluster_await(&cluster->nodes[i], "CLUSTER INFO", known);
	for (unsigned i = masters; i < cluster->count; i++) {
		redis_cluster_id(&cluster->nodes[i - masters], id);
		redis_cluster_await(&cluster->nodes[i], "CLUSTER NODES", id);
		redis_server_do(&cluster->nodes[i], "CLUSTER REPLICATE %s", id);
		redis_cluster_await(&cluster->nodes[i], "INFO replication", "master_link_status:up");
	}
	for (unsigned i = 0; i < cluster->count; i++)
		redis_cluster_await(&cluster->nodes[i], "CLUSTER INFO", "cluster_state:ok");
}

static inline void redis_cluster_stop(struct redis_cluster *cluster)
{
	for (unsigned i = 0; i < cluster->count; i++)
		redis_server_stop(&cluster->nodes[i], SIGKILL);
}

#endif
