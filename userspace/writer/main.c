/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluice-writer: makes admitted orders durable. Reads the config, listens, gives up root, opens the ledger, serves.
 * With --consume it is another program: the reader of a fleet's order streams (consume.h).
 *
 * Exit codes: 0 ended by SIGTERM or SIGINT with the ledger closed (or --check found nothing wrong), 1 failed, 2 usage.
 */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <libgen.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/config_host.h"
#include "common/log.h"
#include "common/realtime.h"
#include "common/sandbox.h"
#include "common/wire.h"
#include "writer/consume.h"
#include "writer/server.h"
#include "writer/store.h"

#define EXIT_USAGE 2
#define CONFIG_ERROR_MAX 512
#define LEDGER_NAME_MAX 256
#define SOCKET_MODE 0660
#define DIRECTORY_MODE 0755 /* the files in it have modes of their own */

static const char usage_text[] =
	"Usage: sluice-writer [--config FILE] [--check] [--foreground] [--consume [--group NAME] [--consumer NAME]]\n"
	"\n"
	"Takes admitted orders from sluiced over a Unix socket and makes them durable in the ledger, which is a\n"
	"file (SQLite) or a database of a server (PostgreSQL): writer.store.\n"
	"\n"
	"With --consume it reads the order streams of a fleet from Redis (fleet.redis) and keeps them in tables of\n"
	"PostgreSQL (writer.postgres) instead. It needs no gate and no daemon beside it.\n"
	"\n"
	"  -c, --config FILE  configuration (default " CONFIG_DEFAULT_PATH ")\n"
	"  -t, --check        check the configuration, its user and directory, and the ledger if there is one, and exit\n"
	"  -f, --foreground   stay in the foreground (the default, and the only way: a service manager starts it)\n"
	"  -C, --consume      read the order streams of a fleet\n"
	"  -g, --group NAME   the consumer group to read as (default " CONSUME_GROUP ")\n"
	"  -n, --consumer NAME  this consumer's name in the group, of no other that runs (default: the host's name)\n"
	"  -v, --verbose      more in the log\n"
	"  -V, --version      version\n"
	"  -h, --help         this text\n";

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check", no_argument, NULL, 't'},
	{"foreground", no_argument, NULL, 'f'},
	{"consume", no_argument, NULL, 'C'},
	{"group", required_argument, NULL, 'g'},
	{"consumer", required_argument, NULL, 'n'},
	{"verbose", no_argument, NULL, 'v'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* Makes the directory of `path` if it is missing (/run is empty after a boot) and gives it to `owner`. Deeper gaps are
 * left to the operator: they are more likely a slip in the path.
 */
static int ensure_directory(const char *path, const struct passwd *owner)
{
	char copy[CONFIG_PATH_MAX];
	const char *directory;

	snprintf(copy, sizeof(copy), "%s", path);
	directory = dirname(copy);
	if (!access(directory, F_OK))
		return 0;
	if (mkdir(directory, DIRECTORY_MODE) || chmod(directory, DIRECTORY_MODE) ||
		(owner && lchown(directory, owner->pw_uid, owner->pw_gid))) {
		int error = -errno;

		log_error("cannot make the directory %s: %s", directory, strerror(-error));
		return error;
	}
	return 0;
}

static int listen_on(const struct config *config)
{
	int fd = wire_listen(config->writer.socket, SOCKET_MODE, config->writer.group);

	if (fd == -EADDRINUSE)
		log_error("another writer listens on %s", config->writer.socket);
	else if (fd == -EEXIST)
		log_error("%s is in the way and not a socket: remove it", config->writer.socket);
	else if (fd == -EINVAL)
		log_error("cannot listen on %s: there is no group %s", config->writer.socket, config->writer.group);
	else if (fd < 0)
		log_error("cannot listen on %s: %s", config->writer.socket, strerror(-fd));
	return fd;
}

static int become(const struct passwd *user)
{
	if (geteuid() != user->pw_uid &&
		(initgroups(user->pw_name, user->pw_gid) || setgid(user->pw_gid) || setuid(user->pw_uid))) {
		int error = -errno;

		log_error("cannot run as %s: %s", user->pw_name, strerror(-error));
		return error;
	}
	return 0;
}

/* The socket that root made becomes the user's, and his group's unless the config names another: the daemon may come by that group. The directory may be his
 * already, so the name is not followed.
 */
static int hand_over_socket(const struct config *config, const struct passwd *user)
{
	gid_t group = config->writer.group[0] ? (gid_t)-1 : user->pw_gid;
	int error;

	if (geteuid() == user->pw_uid || !lchown(config->writer.socket, user->pw_uid, group))
		return 0;
	error = -errno;
	log_error("cannot give %s to %s: %s", config->writer.socket, user->pw_name, strerror(-error));
	return error;
}

/* Gives up root and whatever the ledger does not need. Without a user to become, root keeps the one capability by which it writes in a
 * directory of somebody else: the ledger may lie in the daemon's. A server may be across a network.
 */
static int drop_privileges(const struct passwd *user, bool has_file, bool has_network)
{
	const struct sandbox sandbox = {.network = has_network, .maps = false};
	uint64_t keep = user || geteuid() || !has_file ? 0 : SANDBOX_CAPABILITY(CAP_DAC_OVERRIDE);
	int error;

	sandbox_bound_capabilities(keep);
	error = user ? become(user) : 0;
	if (error)
		return error;
	error = sandbox_drop_capabilities(keep);
	if (!error)
		error = sandbox_enter(&sandbox);
	if (error)
		log_error("cannot give up privileges: %s", strerror(-error));
	return error;
}

/* SIGTERM and SIGINT become readable on the returned fd, so that they never cut a transaction short. A write beyond
 * RLIMIT_FSIZE and a closed stderr are errors to be handled, not reasons to die; nor is the end of the terminal that it was started from.
 */
static int take_signals(void)
{
	sigset_t stop;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	if (sigprocmask(SIG_BLOCK, &stop, NULL))
		return -errno;
	fd = signalfd(-1, &stop, SFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The user to run as. Returns 0 with *user NULL if there is none to change to. */
static int find_user(const struct config *config, const struct passwd **user)
{
	*user = config->writer.user[0] ? getpwnam(config->writer.user) : NULL;
	if (config->writer.user[0] && !*user) {
		log_error("there is no user %s (writer.user)", config->writer.user);
		return -EINVAL;
	}
	return 0;
}

/* What the ledger is called in the log and in the answer to HELLO. */
static int name_ledger(const struct config *config, char *name, char *error)
{
	if (config->writer.in_postgres)
		return store_postgres_describe(config->writer.postgres, name, LEDGER_NAME_MAX, error);
	snprintf(name, LEDGER_NAME_MAX, "%s", config->writer.ledger);
	return 0;
}

static int open_store(const struct config *config, struct store **store, char *error)
{
	return config->writer.in_postgres ? store_postgres_open(config->writer.postgres, store, error)
					  : store_sqlite_open(config->writer.ledger, store, error);
}

static int check(const struct config *config)
{
	const struct passwd *user;
	char error[STORE_ERROR_MAX], name[LEDGER_NAME_MAX];
	int code;

	if (config_check_writer_host(config))
		return 1;
	/* As the user that the writer will be, or the answer would be another. */
	if (find_user(config, &user) || (user && become(user)))
		return 1;
	code = name_ledger(config, name, error);
	if (!code)
		code = config->writer.in_postgres ? store_postgres_audit(config->writer.postgres, error)
						  : store_sqlite_audit(config->writer.ledger, error);
	if (code && code != -ENOENT) {
		log_error("%s", error);
		return 1;
	}
	printf("config ok; ledger %s: %s\n", name, code ? "none yet" : "ok, its books balance");
	return 0;
}

static int run(const struct config *config)
{
	const struct passwd *user;
	char error[STORE_ERROR_MAX], name[LEDGER_NAME_MAX];
	struct store *store = NULL;
	int stop_fd = -1, listen_fd = -1;
	int code = 1;

	umask(077);
	if (find_user(config, &user))
		return 1;
	stop_fd = take_signals();
	if (stop_fd < 0) {
		log_error("cannot take signals: %s", strerror(-stop_fd));
		return 1;
	}
	if (name_ledger(config, name, error)) {
		log_error("%s", error);
		goto out;
	}
	if (ensure_directory(config->writer.socket, user) ||
		(!config->writer.in_postgres && ensure_directory(config->writer.ledger, user)))
		goto out;
	listen_fd = listen_on(config);
	if (listen_fd < 0 || (user && hand_over_socket(config, user)) ||
		drop_privileges(user, !config->writer.in_postgres, config->writer.in_postgres))
		goto out;
	if (open_store(config, &store, error)) {
		log_error("%s", error);
		goto out;
	}
	log_info("version %s, ledger %s, socket %s", SLUICE_VERSION, name, config->writer.socket);
	realtime_start();
	realtime_enter();
	code = writer_server_run(store, name, listen_fd, stop_fd);
	if (code)
		log_error("stopped: %s", strerror(-code));
	code = code ? 1 : 0;
out:
	if (store)
		store->ops->close(store);
	if (listen_fd >= 0) {
		/* As another user it may not be ours to remove; the next start replaces a stale socket. */
		unlink(config->writer.socket);
		close(listen_fd);
	}
	close(stop_fd);
	if (!code)
		log_info("stopped, the ledger is closed");
	return code;
}

/* Names stand in the commands to Redis, in its log, and in ours. */
static bool is_name(const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < length; i++)
		if (name[i] <= ' ' || name[i] > '~')
			return false;
	return length > 0 && length <= CONSUME_NAME_MAX;
}

static int consume(const struct config *config, const char *group, const char *name)
{
	const struct passwd *user;
	char host[CONSUME_NAME_MAX + 1] = "";
	int stop_fd, code;

	if (!config_is_fleet(config)) {
		log_error("there is no stream to read: fleet.redis is empty");
		return 1;
	}
	if (!name) {
		gethostname(host, sizeof(host) - 1);
		name = host;
	}
	if (!is_name(group) || !is_name(name)) {
		log_error(
			"a group and a consumer have names of 1 to %d printable characters without spaces: --group, --consumer",
			CONSUME_NAME_MAX);
		return EXIT_USAGE;
	}
	umask(077);
	if (find_user(config, &user))
		return 1;
	stop_fd = take_signals();
	if (stop_fd < 0) {
		log_error("cannot take signals: %s", strerror(-stop_fd));
		return 1;
	}
	code = drop_privileges(user, false, true) || consume_run(config, group, name, stop_fd);
	close(stop_fd);
	return code;
}

int main(int argc, char **argv)
{
	const char *path = NULL, *group = NULL, *name = NULL;
	char error[CONFIG_ERROR_MAX];
	static struct config config;
	enum log_level level = LOG_INFO_LEVEL;
	bool only_check = false, consumes = false;
	int option, code;

	while ((option = getopt_long(argc, argv, "c:tfCg:n:vVh", long_options, NULL)) != -1) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case 't':
			only_check = true;
			break;
		case 'f':
			break;
		case 'C':
			consumes = true;
			break;
		case 'g':
			group = optarg;
			break;
		case 'n':
			name = optarg;
			break;
		case 'v':
			level = LOG_DEBUG_LEVEL;
			break;
		case 'V':
			puts("sluice-writer " SLUICE_VERSION);
			return 0;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		default:
			fputs(usage_text, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "sluice-writer: unexpected argument %s\n%s", argv[optind], usage_text);
		return EXIT_USAGE;
	}
	if ((group || name) && !consumes) {
		fprintf(stderr, "sluice-writer: --group and --consumer belong to --consume\n%s", usage_text);
		return EXIT_USAGE;
	}
	log_init(consumes ? "sluice-consumer" : "sluice-writer", level);
	config_defaults(&config);
	code = config_load(&config, path ? path : CONFIG_DEFAULT_PATH, error, sizeof(error));
	if (code == -ENOENT && !path) {
		log_info("there is no %s: the defaults apply", CONFIG_DEFAULT_PATH);
	} else if (code) {
		log_error("%s", error);
		return 1;
	}
	if (only_check)
		return check(&config);
	return consumes ? consume(&config, group ? group : CONSUME_GROUP, name) : run(&config);
}
