/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One connection to one Redis server; see redis_connection.h. */
#include "fleet/redis_connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MS 1000000ULL
#define REST_MIN_NS (50 * MS)
#define REST_MAX_NS (2000 * MS)
/* Who answers that it cannot serve now costs little to be asked again, and can often soon. */
#define REST_UNFIT_MAX_NS (200 * MS)
/* A peer that has gone without a word is noticed by a connection that only listens within 10 + 3 * 5 seconds. */
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES 3

void redis_connection_init(struct redis_connection *connection, const char *host, unsigned port)
{
	memset(connection, 0, sizeof(*connection));
	snprintf(connection->host, sizeof(connection->host), "%s", host);
	connection->port = port;
	if (getrandom(&connection->random, sizeof(connection->random), 0) != (ssize_t)sizeof(connection->random))
		connection->random = (uintptr_t)connection;
	connection->random |= 1;
}

const char *redis_connection_name(const struct redis_connection *connection, char name[REDIS_HOST_MAX + 16])
{
	bool is_ipv6 = strchr(connection->host, ':');

	snprintf(name, REDIS_HOST_MAX + 16, "%s%s%s:%u", is_ipv6 ? "[" : "", connection->host, is_ipv6 ? "]" : "",
		connection->port);
	return name;
}

/* --- ends ------------------------------------------------------------------------------------------------------------------------- */
static size_t unsent(const struct redis_connection *connection)
{
	return connection->context && connection->context->obuf ? sdslen(connection->context->obuf) : 0;
}

void redis_connection_close(struct redis_connection *connection)
{
	if (connection->context) {
		connection->handed = connection->appended - unsent(connection);
		redisFree(connection->context); /* and what it has read */
	}
	connection->context = NULL;
	redis_lookup_drop(connection->lookup);
	connection->lookup = NULL;
	if (connection->addresses)
		freeaddrinfo(connection->addresses);
	connection->addresses = connection->address = NULL;
	connection->state = REDIS_CLOSED;
}

/* xorshift64 */
static uint64_t next_random(struct redis_connection *connection)
{
	connection->random ^= connection->random << 13;
	connection->random ^= connection->random >> 7;
	connection->random ^= connection->random << 17;
	return connection->random;
}

/* Text may come from a server that is none. */
static void note_failure(struct redis_connection *connection, const char *why)
{
	char name[REDIS_HOST_MAX + 16];

	snprintf(connection->failure, sizeof(connection->failure), "%.60s: %.180s",
		redis_connection_name(connection, name), why);
	for (char *c = connection->failure; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

static void rest(struct redis_connection *connection, uint64_t now, uint64_t most)
{
	uint64_t pause = REST_MIN_NS;

	for (unsigned i = 0; i < connection->failures && pause < most; i++)
		pause *= 2;
	if (pause > most)
		pause = most;
	connection->failures++;
	/* Between the half of it and all. */
	connection->resting_until_ns = now + pause / 2 + next_random(connection) % (pause / 2);
}

void redis_connection_fail(struct redis_connection *connection, uint64_t now, const char *format, ...)
{
	char why[192];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	note_failure(connection, why);
	redis_connection_close(connection);
	rest(connection, now, REST_MAX_NS);
}

void redis_connection_rest(struct redis_connection *connection, uint64_t now, const char *why)
{
	note_failure(connection, why);
	rest(connection, now, REST_UNFIT_MAX_NS);
}

/* --- replies, within bounds --------------------------------------------------------------------------------------------------------- */
/* hiredis makes an array as large as the server says, before it has seen one element; and a small reply costs far more memory than bytes. */
static redisReplyObjectFunctions bounded, unbounded;

static bool takes_object(const redisReadTask *task, size_t count)
{
	struct redis_connection *connection = task->privdata;

	if (count > REDIS_REPLY_OBJECTS_MAX - connection->objects)
		return false;
	connection->objects += count;
	return true;
}

static void *create_string(const redisReadTask *task, char *text, size_t length)
{
	return takes_object(task, 1) ? unbounded.createString(task, text, length) : NULL;
}

static void *create_array(const redisReadTask *task, int elements)
{
	return elements >= 0 && takes_object(task, 1 + (size_t)elements) ? unbounded.createArray(task, elements) : NULL;
}

static void *create_integer(const redisReadTask *task, long long value)
{
	return takes_object(task, 1) ? unbounded.createInteger(task, value) : NULL;
}

static void *create_nil(const redisReadTask *task)
{
	return takes_object(task, 1) ? unbounded.createNil(task) : NULL;
}

/* hiredis does not name its own functions, but every reader has them at first. */
static void find_functions(void)
{
	redisReader *reader = redisReaderCreate();

	if (!reader)
		return;
	unbounded = *reader->fn;
	redisReaderFree(reader);
	bounded = (redisReplyObjectFunctions){
		create_string, create_array, create_integer, create_nil, unbounded.freeObject};
}

static int bound_replies(struct redis_connection *connection)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	redisReader *reader = connection->context->reader;

	pthread_once(&once, find_functions);
	if (!bounded.freeObject)
		return -ENOMEM;
	reader->fn = &bounded;
	reader->privdata = connection;
	return 0;
}

void redis_connection_begin_round(struct redis_connection *connection)
{
	connection->bytes = connection->objects = 0;
}

int redis_connection_reply(struct redis_connection *connection, redisReply **reply)
{
	void *object = NULL;

	*reply = NULL;
	if (!connection->context)
		return -ENOTCONN;
	if (redisGetReplyFromReader(connection->context, &object) != REDIS_OK)
		return -EPROTO;
	*reply = object;
	return 0;
}

/* --- commands ------------------------------------------------------------------------------------------------------------------------ */
int redis_connection_append(
	struct redis_connection *connection, int argc, const char *const *argv, const size_t *lengths, uint64_t *start)
{
	size_t before = unsent(connection);

	/* hiredis does not say const, but changes nothing. */
	if (redisAppendCommandArgv(connection->context, argc, (const char **)(uintptr_t)argv, lengths) != REDIS_OK)
		return -ENOMEM;
	*start = connection->appended;
	connection->appended += unsent(connection) - before;
	return 0;
}

int redis_password_read(const char *path, char password[REDIS_PASSWORD_MAX], const char **why)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), err = 0;
	struct stat status;
	ssize_t length = 0;

	if (fd < 0) {
		err = -errno;
		*why = strerror(-err);
		return err;
	}
	if (fstat(fd, &status) || (length = read(fd, password, REDIS_PASSWORD_MAX - 1)) < 0) {
		err = -errno;
		*why = strerror(-err);
	} else if (!S_ISREG(status.st_mode) || status.st_mode & 077) {
		err = -EPERM;
		*why = "it must be a file that nobody else may read: chmod 600, and change the password";
	} else {
		password[length] = '\0';
		password[strcspn(password, "\r\n")] = '\0';
		if (!*password || length == REDIS_PASSWORD_MAX - 1) {
			err = -EINVAL;
			*why = "its first line must be the password";
		}
	}
	close(fd);
	return err;
}

static int add_authentication(struct redis_connection *connection, const struct redis_options *options, uint64_t now)
{
	char password[REDIS_PASSWORD_MAX] = "";
	const char *argv[3] = {"AUTH"}, *why;
	uint64_t start;
	int argc = 1, err = 0;

	if (!*options->user && !*options->password_file)
		return 0;
	if (*options->password_file) {
		err = redis_password_read(options->password_file, password, &why);
		if (err) {
			explicit_bzero(password, sizeof(password));
			redis_connection_fail(
				connection, now, "fleet.redis_password_file %s: %s", options->password_file, why);
			return err;
		}
	}
	if (*options->user)
		argv[argc++] = options->user;
	argv[argc++] = password;
	err = redis_connection_append(connection, argc, argv, NULL, &start);
	explicit_bzero(password, sizeof(password));
	connection->authenticates = !err;
	connection->greetings += !err;
	return err;
}

static int greet(struct redis_connection *connection, const struct redis_options *options, uint64_t now)
{
	const char *argv[] = {"CLIENT", "SETNAME", options->name && *options->name ? options->name : "sluice"};
	uint64_t start;
	int err;

	connection->state = REDIS_GREETING;
	connection->greetings = 0;
	connection->authenticates = false;
	err = add_authentication(connection, options, now);
	if (err && connection->state == REDIS_CLOSED)
		return err;
	if (!err)
		err = redis_connection_append(connection, 3, argv, NULL, &start);
	if (err)
		redis_connection_fail(connection, now, "%s", strerror(-err));
	connection->greetings++;
	return err;
}

/* The name is a courtesy, and a user may lack the right to it; but a server may also use this chance to say that it takes nobody. */
static bool is_welcome(const redisReply *reply)
{
	return reply->type != REDIS_REPLY_ERROR || !strncmp(reply->str, "NOPERM", strlen("NOPERM")) ||
		!strncmp(reply->str, "ERR unknown", strlen("ERR unknown"));
}

static int read_greetings(struct redis_connection *connection, uint64_t now)
{
	redisReply *reply;
	int err = 0;

	while (!err && connection->greetings) {
		bool is_auth = connection->authenticates;

		err = redis_connection_reply(connection, &reply);
		if (err)
			redis_connection_fail(connection, now, "what it says is not the protocol of Redis");
		if (err || !reply)
			return err;
		connection->greetings--;
		connection->authenticates = false;
		if (is_auth ? reply->type == REDIS_REPLY_ERROR : !is_welcome(reply)) {
			err = -EACCES;
			redis_connection_fail(
				connection, now, "%s%.150s", is_auth ? "the log-in is refused: " : "", reply->str);
		}
		freeReplyObject(reply);
	}
	if (!err && !connection->greetings)
		connection->state = REDIS_READY;
	return err;
}

/* --- connecting ---------------------------------------------------------------------------------------------------------------------- */
static void set_options(int fd)
{
	int on = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;

	/* Without them it works as well, only slower to notice. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static int connect_one(struct redis_connection *connection)
{
	const struct addrinfo *info = connection->address;
	int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd < 0)
		return -errno;
	set_options(fd);
	if (connect(fd, info->ai_addr, info->ai_addrlen) && errno != EINPROGRESS) {
		err = -errno;
		close(fd);
		return err;
	}
	connection->context = redisConnectFd(fd);
	if (!connection->context || connection->context->err || bound_replies(connection)) {
		if (connection->context)
			redisFree(connection->context); /* and the socket */
		else
			close(fd);
		connection->context = NULL;
		return -ENOMEM;
	}
	connection->context->flags &= ~REDIS_BLOCK;
	connection->appended = connection->handed = 0;
	redis_connection_begin_round(connection);
	connection->state = REDIS_CONNECTING;
	return 0;
}

/* Tries the host's addresses from `address` on; err is why the one before would not do. */
static int connect_next(struct redis_connection *connection, int err, uint64_t now)
{
	while (connection->address) {
		err = connect_one(connection);
		if (!err)
			return 0;
		connection->address = connection->address->ai_next;
	}
	redis_connection_fail(connection, now, "%s", strerror(-err));
	return err;
}

static int use_addresses(struct redis_connection *connection, struct addrinfo *addresses, uint64_t now)
{
	connection->addresses = connection->address = addresses;
	return connect_next(connection, -EADDRNOTAVAIL, now);
}

int redis_connection_open(struct redis_connection *connection, const struct redis_options *options, uint64_t now)
{
	struct addrinfo *known;

	connection->deadline_ns = now + options->timeout_ms * MS;
	connection->lookup = redis_lookup_start(connection->host, connection->port, &known);
	if (known)
		return use_addresses(connection, known, now);
	if (!connection->lookup) {
		int err = -errno;

		redis_connection_fail(connection, now, "the name cannot be looked up: %s", strerror(-err));
		return err;
	}
	connection->state = REDIS_LOOKING_UP;
	return 0;
}

static int finish_lookup(struct redis_connection *connection, uint64_t now)
{
	struct addrinfo *addresses = NULL;
	int err = redis_lookup_take(connection->lookup, &addresses);

	if (err == -EINPROGRESS)
		return 0;
	redis_lookup_drop(connection->lookup);
	connection->lookup = NULL;
	if (err || !addresses) {
		redis_connection_fail(connection, now, "there is no address of that name (%s)", gai_strerror(err));
		return -EHOSTUNREACH;
	}
	return use_addresses(connection, addresses, now);
}

static int finish_connect(struct redis_connection *connection, const struct redis_options *options, uint64_t now)
{
	socklen_t length = sizeof(int);
	int error = 0;

	if (getsockopt(connection->context->fd, SOL_SOCKET, SO_ERROR, &error, &length))
		error = errno;
	if (!error)
		return greet(connection, options, now);
	redisFree(connection->context);
	connection->context = NULL;
	connection->address = connection->address->ai_next;
	return connect_next(connection, -error, now);
}

/* --- work ------------------------------------------------------------------------------------------------------------------------------ */
int redis_connection_fd(const struct redis_connection *connection)
{
	if (connection->state == REDIS_LOOKING_UP)
		return redis_lookup_fd(connection->lookup);
	return connection->context ? connection->context->fd : -1;
}

short redis_connection_events(const struct redis_connection *connection)
{
	switch (connection->state) {
	case REDIS_CLOSED:
		return 0;
	case REDIS_LOOKING_UP:
		return POLLIN;
	case REDIS_CONNECTING:
		return POLLOUT;
	default:
		return (short)(POLLIN | (unsent(connection) ? POLLOUT : 0));
	}
}

static int flush(struct redis_connection *connection, uint64_t now)
{
	int done = 0, err = 0;

	if (unsent(connection) && redisBufferWrite(connection->context, &done) != REDIS_OK) {
		err = connection->context->err == REDIS_ERR_IO && errno ? -errno : -EPIPE;
		redis_connection_fail(connection, now, "%s", strerror(-err));
		return err;
	}
	connection->handed = connection->appended - unsent(connection);
	return 0;
}

static int receive(struct redis_connection *connection, uint64_t now)
{
	redisContext *context = connection->context;
	size_t before = context->reader->len;

	if (redisBufferRead(context) != REDIS_OK) {
		int err = context->err == REDIS_ERR_IO && errno ? -errno : -ECONNRESET;

		if (context->err == REDIS_ERR_EOF)
			redis_connection_fail(connection, now, "the server has closed the connection");
		else
			redis_connection_fail(
				connection, now, "%s", context->err == REDIS_ERR_IO ? strerror(-err) : "no memory");
		return err;
	}
	if (context->reader->len > before)
		connection->bytes += context->reader->len - before;
	if (connection->bytes > REDIS_REPLY_BYTES_MAX) {
		redis_connection_fail(
			connection, now, "it sends more than %u MiB in one round", REDIS_REPLY_BYTES_MAX >> 20);
		return -EMSGSIZE;
	}
	return 0;
}

int redis_connection_work(
	struct redis_connection *connection, const struct redis_options *options, short revents, uint64_t now)
{
	int err = 0;

	if (connection->state == REDIS_LOOKING_UP && revents)
		err = finish_lookup(connection, now);
	else if (connection->state == REDIS_CONNECTING && revents)
		err = finish_connect(connection, options, now);
	if (!err && connection->state >= REDIS_GREETING)
		err = flush(connection, now);
	if (!err && connection->state >= REDIS_GREETING && revents & (POLLIN | POLLERR | POLLHUP))
		err = receive(connection, now);
	if (!err && connection->state == REDIS_GREETING)
		err = read_greetings(connection, now);
	if (!err && connection->state != REDIS_CLOSED && connection->state != REDIS_READY &&
		now >= connection->deadline_ns) {
		static const char *const what[] = {[REDIS_LOOKING_UP] = "the name is not resolved",
			[REDIS_CONNECTING] = "it cannot be reached",
			[REDIS_GREETING] = "it does not answer"};

		redis_connection_fail(
			connection, now, "%s (waited for %u ms)", what[connection->state], options->timeout_ms);
		err = -ETIMEDOUT;
	}
	return err;
}

bool redis_connection_is_stale(const struct redis_connection *connection)
{
	struct pollfd fd = {.fd = redis_connection_fd(connection), .events = POLLIN};

	return poll(&fd, 1, 0) != 0;
}
