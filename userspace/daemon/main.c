/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluiced: options, the order of start and stop, signals.
 *
 * Start: config, lock, pins, keys, sockets, then down with privileges, then threads: heartbeat (orders are closed by then), pipeline,
 * maintenance, listeners. Stop: orders close in the gate, what was admitted gets its answer, listeners stop, then the rest.
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_host.h"
#include "common/log.h"
#include "common/realtime.h"
#include "common/timefmt.h"
#include "daemon/answers_state.h"
#include "daemon/control.h"
#include "daemon/daemon.h"
#include "daemon/fleet.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_settings.h"
#include "daemon/fleet_homes.h"
#include "daemon/fleet_keys.h"
#include "daemon/fleet_stream.h"
#include "daemon/heartbeat.h"
#include "daemon/http_public.h"
#include "daemon/interfaces.h"
#include "daemon/issue.h"
#include "daemon/kept.h"
#include "daemon/maintenance.h"
#include "daemon/metrics.h"
#include "daemon/orders.h"
#include "daemon/pipeline.h"
#include "daemon/revocation.h"
#include "daemon/sale_news.h"
#include "daemon/sales.h"
#include "daemon/shadow.h"
#include "daemon/state.h"
#include "daemon/watch.h"
#include "daemon/webhooks.h"

#define EXIT_FAILED 1
#define EXIT_USAGE 2

#define PUBLIC_BACKLOG 16384
#define PUBLIC_BODY_MAX 4096
#define CONTROL_BACKLOG 4096
#define CONTROL_BODY_MAX 65536
#define CONTROL_IDLE_S 60
/* A whole request must come within so many times the idle time. */
#define PATIENCE_FACTOR 2
#define CONTROL_CONNECTIONS 256
#define SOCKET_MODE 0660
/* For maps and files, and twice CONTROL_CONNECTIONS for each of two listeners. */
#define SPARE_FILES 1536
#define DRAIN_MS 3000

enum { LISTEN_PUBLIC, LISTEN_CONTROL_UNIX, LISTEN_CONTROL_TCP, LISTEN_COUNT };

struct servers {
	int fds[LISTEN_COUNT];
	struct http_listener listeners[LISTEN_COUNT];
	struct http_server *servers[LISTEN_COUNT];
};

static void print_usage(FILE *out)
{
	fputs("usage: sluiced [--config FILE] [--check[=syntax]] [--verbose]\n"
	      "\n"
	      "The daemon of Sluice: sale page, tokens and orders on the public port, the control API, and the way of admitted orders\n"
	      "to sluice-writer. Needs a gate: sluice attach IFACE.\n"
	      "\n"
	      "  --config FILE   instead of " CONFIG_DEFAULT_PATH "\n"
	      "  --check         read the config, look for the users, groups and directories that it names, say what is wrong, and exit\n"
	      "  --check=syntax  read the config only, which may be that of another machine\n"
	      "  --verbose       log more\n"
	      "  --version, --help\n",
		out);
}

struct options {
	const char *config;
	bool check, syntax_only, verbose;
};

/* Returns 0 to go on, or -1 with an exit code. */
static int read_options(int argc, char **argv, struct options *options, int *exit_code)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", optional_argument, NULL, 'C'},
		{"verbose", no_argument, NULL, 'v'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option;

	*exit_code = 0;
	while ((option = getopt_long(argc, argv, "c:vVh", longs, NULL)) >= 0) {
		switch (option) {
		case 'c':
			options->config = optarg;
			break;
		case 'C':
			options->check = true;
			options->syntax_only = optarg;
			if (!optarg || !strcmp(optarg, "syntax"))
				break;
			fprintf(stderr, "sluiced: --check=%s: only \"syntax\" can be asked for alone\n", optarg);
			*exit_code = EXIT_USAGE;
			return -1;
		case 'v':
			options->verbose = true;
			break;
		case 'V':
			puts("sluiced " SLUICE_VERSION);
			return -1;
		case 'h':
			print_usage(stdout);
			return -1;
		default:
			print_usage(stderr);
			*exit_code = EXIT_USAGE;
			return -1;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "sluiced: there is no operand \"%s\"\n", argv[optind]);
		*exit_code = EXIT_USAGE;
		return -1;
	}
	return 0;
}

/* An absent file is an empty one only at the default path: a file that was named must be there. */
static int load_config(const struct options *options, struct config *config)
{
	const char *path = options->config ? options->config : CONFIG_DEFAULT_PATH;
	char error[512] = "";
	int err;

	config_defaults(config);
	err = config_load(config, path, error, sizeof(error));
	if (err == -ENOENT && !options->config)
		return 0;
	if (err)
		log_error("%s", *error ? error : strerror(-err));
	return err;
}

static int read_state(struct daemon *d, char *error, size_t size)
{
	const char *dir = d->config.daemon.state_dir;
	int err = state_lock(dir, error, size);

	if (err < 0)
		return err;
	snprintf(d->keys_path, sizeof(d->keys_path), "%s/keys", dir);
	err = config_is_fleet(&d->config) ? fleet_keys_open(d, error, size)
					  : token_keys_load(&d->keys, d->keys_path, error, size);
	return err ? err : state_load_secret(dir, d->secret, error, size);
}

/* Works on files as the user that the daemon will be: what he cannot read or write now he could not later, and what is made now is his. */
static int as_user(struct daemon *d, int (*work)(struct daemon *d, char *error, size_t size), char *error, size_t size)
{
	int err = privileges_borrow_user(&d->config, true), back;

	if (err) {
		snprintf(error, size, "cannot work as the user \"%s\" (daemon.user): %s", d->config.daemon.user,
			err == -ENOENT ? "there is no such user" : strerror(-err));
		return err;
	}
	err = work(d, error, size);
	back = privileges_borrow_user(&d->config, false);
	if (back && !err)
		snprintf(error, size, "cannot become root again: %s", strerror(-back));
	return err ? err : back;
}

static int open_state(struct daemon *d, char *error, size_t size)
{
	int err = state_make(d->config.daemon.state_dir, error, size);

	if (!err)
		err = privileges_own_state(&d->config, error, size);
	return err ? err : as_user(d, read_state, error, size);
}

static int open_revocations(struct daemon *d, char *error, size_t size)
{
	d->revocations = revocation_open(d, error, size);
	return d->revocations ? 0 : -EIO;
}

/* A gate of the same layout may still run an older program, whose door would do nothing, and say REQUEST, where an order's units are given back. */
static int check_door(struct daemon *d, char *error, size_t size)
{
	struct sluice_call call = {.op = SLUICE_CALL_RELEASE}; /* of no sale: nothing happens */
	int err = gate_maps_call(&d->maps, &call);

	if (!err && call.reason == SLUICE_REASON_NONE)
		return 0;
	snprintf(error, size, "the gate under %s %s", d->config.gate.pin_dir,
		err ? "cannot be asked by its call door" : "runs an older program than this daemon: sluice reload");
	return err ? err : -EPROTO;
}

static int open_gate(struct daemon *d, char *error, size_t size)
{
	int err = gate_maps_open(&d->maps, d->config.gate.pin_dir, error, size);

	if (!err)
		err = check_door(d, error, size);
	if (err)
		return err;
	pipeline_close_orders(d);
	interfaces_open(d);
	d->lists = lists_open(d->maps.lists, d->maps.list_index, d->maps.denials);
	if (!d->lists) {
		err = errno ? -errno : -ENOMEM;
		snprintf(error, size, "cannot read the gate's lists: %s", strerror(-err));
	}
	return err;
}

static int make_parts(struct daemon *d, char *error, size_t size)
{
	pthread_rwlock_init(&d->keys_lock, NULL);
	pthread_mutex_init(&d->lists_lock, NULL);
	pthread_mutex_init(&d->change_lock, NULL);
	d->started_mono_ns = time_mono_ns();
	d->sales = sales_new(&d->maps);
	d->orders = orders_new();
	d->issuer = issuer_new(&d->config);
	d->metrics = metrics_new();
	if (!d->sales || !d->orders || !d->issuer || !d->metrics) {
		snprintf(error, size, "no memory");
		return -ENOMEM;
	}
	if (config_is_fleet(&d->config))
		sales_start_withheld(d->sales);
	if (fleet_leases_open(d)) {
		snprintf(error, size, "no memory for the leases");
		return -ENOMEM;
	}
	return 0;
}

/* The gate learns which node it is of, after the addresses of the others, so that nobody is sent away without one. Orders are not open yet. */
static void name_node(struct daemon *d)
{
	uint32_t node = config_own_node(&d->config);

	__atomic_store_n(&d->maps.control->node, node, __ATOMIC_SEQ_CST);
	if (node)
		log_info("node %u of a fleet of %u", node, d->config.node_count);
}

/* The socket's directory is made if only it is missing (/run is empty after a boot). Who may use the socket, its own mode says. */
static void make_socket_directory(const char *path)
{
	char copy[PATH_MAX], *dir;

	snprintf(copy, sizeof(copy), "%s", path);
	dir = dirname(copy);
	if (!mkdir(dir, 0755) && chmod(dir, 0755))
		log_warn("cannot set the mode of %s: %s", dir, strerror(errno));
}

static int open_sockets(struct daemon *d, struct servers *s, char *error, size_t size)
{
	const struct config *config = &d->config;

	for (unsigned i = 0; i < LISTEN_COUNT; i++)
		s->fds[i] = -1;
	s->fds[LISTEN_PUBLIC] = listen_public(config->daemon.public_listen, PUBLIC_BACKLOG, error, size);
	if (s->fds[LISTEN_PUBLIC] < 0)
		return s->fds[LISTEN_PUBLIC];
	make_socket_directory(config->daemon.control_socket);
	s->fds[LISTEN_CONTROL_UNIX] = listen_unix(
		config->daemon.control_socket, CONTROL_BACKLOG, SOCKET_MODE, config->daemon.control_group, error, size);
	if (s->fds[LISTEN_CONTROL_UNIX] < 0)
		return s->fds[LISTEN_CONTROL_UNIX];
	if (*config->daemon.control_listen) {
		s->fds[LISTEN_CONTROL_TCP] = listen_tcp(config->daemon.control_listen, CONTROL_BACKLOG, error, size);
		if (s->fds[LISTEN_CONTROL_TCP] < 0)
			return s->fds[LISTEN_CONTROL_TCP];
	}
	return 0;
}

static int start_server(
	struct servers *s, unsigned which, const struct http_server_options *more, char *error, size_t size)
{
	struct http_server_options options = *more;

	options.listen_fd = s->fds[which];
	s->fds[which] = -1;
	s->servers[which] = http_server_start(&s->listeners[which], &options);
	if (s->servers[which])
		return 0;
	snprintf(error, size, "cannot start an HTTP server: %s", strerror(errno));
	return -EIO;
}

static int start_servers(struct daemon *d, struct servers *s, char *error, size_t size)
{
	struct http_server_options public = {
		.threads = d->config.daemon.threads,
		.max_connections = d->config.daemon.max_connections,
		.per_source = d->config.daemon.max_connections_per_source,
		.idle_s = d->config.daemon.idle_s,
		.patience_s = d->config.daemon.idle_s * PATIENCE_FACTOR,
	};
	struct http_server_options control = {
		.thread_per_connection = true,
		.max_connections = CONTROL_CONNECTIONS,
		.idle_s = CONTROL_IDLE_S,
		.patience_s = CONTROL_IDLE_S * PATIENCE_FACTOR,
	};
	int err;

	s->listeners[LISTEN_PUBLIC] = (struct http_listener){
		.d = d,
		.kind = METRICS_PUBLIC,
		.routes = http_public_routes,
		.body_max = PUBLIC_BODY_MAX,
		.admit = http_public_admit,
		.handle = http_public_handle,
		.ignores_body = http_order_ignores_body,
		.is_watched = true,
	};
	s->listeners[LISTEN_CONTROL_UNIX] = (struct http_listener){
		.d = d,
		.kind = METRICS_CONTROL,
		.routes = control_routes,
		.body_max = CONTROL_BODY_MAX,
		.body_max_of = control_body_max,
		.admit = control_admit,
		.handle = control_handle,
	};
	s->listeners[LISTEN_CONTROL_TCP] = s->listeners[LISTEN_CONTROL_UNIX];
	s->listeners[LISTEN_CONTROL_TCP].needs_secret = true;
	err = start_server(s, LISTEN_CONTROL_UNIX, &control, error, size);
	if (!err && s->fds[LISTEN_CONTROL_TCP] >= 0)
		err = start_server(s, LISTEN_CONTROL_TCP, &control, error, size);
	if (!err)
		err = start_server(s, LISTEN_PUBLIC, &public, error, size);
	return err;
}

/* Raises the limit of open files as far as it goes, and keeps to as many connections as fit below it: those that wait must give way before the
 * files run out, because then nobody could come in at all.
 */
static void fit_connections(struct config *config)
{
	rlim_t wanted = (rlim_t)config->daemon.max_connections + SPARE_FILES, fit;
	struct rlimit limit, higher = {.rlim_cur = wanted, .rlim_max = wanted};

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= wanted)
		return;
	if (limit.rlim_max >= wanted)
		higher.rlim_max = limit.rlim_max;
	if (!setrlimit(RLIMIT_NOFILE, &higher))
		return;
	higher = (struct rlimit){.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
	if (!setrlimit(RLIMIT_NOFILE, &higher))
		limit.rlim_cur = limit.rlim_max;
	fit = limit.rlim_cur > 2 * SPARE_FILES ? limit.rlim_cur - SPARE_FILES : limit.rlim_cur / 2;
	if (fit >= config->daemon.max_connections)
		return;
	log_warn("open files are limited to %llu: %llu connections fit, not daemon.max_connections (%u)",
		(unsigned long long)limit.rlim_cur, (unsigned long long)fit, config->daemon.max_connections);
	config->daemon.max_connections = fit ? (uint32_t)fit : 1;
}

static int start(struct daemon *d, struct servers *s, char *error, size_t size)
{
	int err = open_state(d, error, size);

	if (!err)
		err = open_gate(d, error, size);
	if (!err)
		err = make_parts(d, error, size);
	if (!err)
		err = as_user(d, open_revocations, error, size);
	/* Before anybody can connect: a gate without keys, as it is after a reboot, calls every token invalid. */
	if (!err)
		issue_publish_keys(d);
	if (!err)
		err = as_user(d, webhooks_open, error, size);
	if (!err)
		err = as_user(d, fleet_settings_open, error, size);
	if (!err)
		err = as_user(d, fleet_open, error, size);
	if (!err && d->fleet)
		err = fleet_homes_open(d, error, size);
	if (!err)
		err = open_sockets(d, s, error, size);
	if (err)
		return err;
	fit_connections(&d->config);
	err = privileges_drop(&d->config, error, size);
	if (err)
		return err;
	answers_start(d);
	name_node(d);
	realtime_start();
	err = heartbeat_start(d);
	if (err) {
		snprintf(error, size, "cannot start the heartbeat: %s", strerror(-err));
		return err;
	}
	err = pipeline_start(d, error, size);
	if (err)
		return err;
	err = maintenance_start(d);
	if (err) {
		snprintf(error, size, "cannot start the maintenance: %s", strerror(-err));
		return err;
	}
	err = kept_start(d);
	if (err) {
		snprintf(error, size, "cannot start to keep what is set: %s", strerror(-err));
		return err;
	}
	err = watch_start(d);
	if (err) {
		snprintf(error, size, "cannot start watching verdicts: %s", strerror(-err));
		return err;
	}
	err = sale_news_start(d);
	if (!err)
		err = webhooks_start(d);
	if (err) {
		snprintf(error, size, "cannot start the delivery of events: %s", strerror(-err));
		return err;
	}
	err = fleet_settings_start(d);
	if (!err)
		err = fleet_start(d);
	if (err) {
		snprintf(error, size, "cannot start the way to Redis: %s", strerror(-err));
		return err;
	}
	shadow_log(d);
	return start_servers(d, s, error, size);
}

/* In the reverse order; safe at whatever point the start stopped. */
static void stop(struct daemon *d, struct servers *s)
{
	atomic_store(&d->stopping, true);
	if (d->maps.control)
		pipeline_close_orders(d);
	maintenance_stop();
	fleet_settings_stop(d);
	kept_stop();
	pipeline_drain(d, DRAIN_MS);
	if (d->orders)
		orders_wake_all_and_close(d->orders);
	sale_news_stop();
	webhooks_stop(d);
	fleet_keys_stop(d);
	fleet_homes_stop(d);
	fleet_stop(d); /* what is left of this node's units goes back by way of the writer */
	pipeline_stop(d);
	watch_stop(d); /* whose watchers are connections of the control listeners */
	for (unsigned i = 0; i < LISTEN_COUNT; i++) {
		http_server_stop(s->servers[i]);
		if (s->fds[i] >= 0)
			close(s->fds[i]);
	}
	watch_free(d);
	webhooks_free(d);
	fleet_free(d);
	fleet_leases_free(d);
	fleet_settings_free(d);
	fleet_homes_close(d);
	fleet_keys_close(d);
	fleet_stream_free();
	pipeline_free(d);
	heartbeat_stop();
	if (s->servers[LISTEN_CONTROL_UNIX])
		unlink(d->config.daemon.control_socket);
	lists_close(d->lists);
	issuer_free(d->issuer);
	revocation_close(d->revocations);
	orders_free(d->orders);
	sales_free(d->sales);
	metrics_free(d->metrics);
	answers_stop();
	interfaces_close(d);
	gate_maps_close(&d->maps);
	explicit_bzero(&d->keys, sizeof(d->keys));
	explicit_bzero(d->secret, sizeof(d->secret));
}

/* Blocked in every thread; main waits for them. */
static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
}

int main(int argc, char **argv)
{
	static struct daemon daemon;
	static struct servers servers;
	struct options options = {0};
	char error[512] = "";
	sigset_t signals;
	int exit_code, received;

	log_init("sluiced", LOG_INFO_LEVEL);
	if (read_options(argc, argv, &options, &exit_code))
		return exit_code;
	if (options.verbose)
		log_init("sluiced", LOG_DEBUG_LEVEL);
	if (load_config(&options, &daemon.config))
		return EXIT_FAILED;
	if (options.check) {
		if (!options.syntax_only &&
			config_check_daemon_host(&daemon.config) + config_check_writer_host(&daemon.config))
			return EXIT_FAILED;
		puts("the config is valid");
		return 0;
	}
	for (unsigned i = 0; i < LISTEN_COUNT; i++)
		servers.fds[i] = -1;
	umask(077);
	block_signals(&signals);
	if (start(&daemon, &servers, error, sizeof(error))) {
		log_error("%s", error);
		stop(&daemon, &servers);
		return EXIT_FAILED;
	}
	log_info("ready: shop at %s, control at %s", daemon.config.daemon.public_listen,
		daemon.config.daemon.control_socket);
	if (sigwait(&signals, &received))
		received = 0;
	log_info("stopping on signal %d", received);
	stop(&daemon, &servers);
	return atomic_load(&daemon.gate_is_gone) ? EXIT_FAILED : 0;
}
