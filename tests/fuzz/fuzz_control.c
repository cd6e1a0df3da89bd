/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: the daemon's HTTP side, all routes of all listeners: libmicrohttpd, http_server.c, the handlers, the call door of the gate, the
 * parser of the writer's questions.
 *
 * The input is text, so that seeds can be read: requests with a line "--" between them. A request begins with a letter for its listener, then
 * METHOD PATH, then lines of headers, an empty line, and the body; "$T", "$O" and "$E" stand for the token, the order and the ETag that
 * came last. The daemon is that of main.c, its servers run by us instead of by threads, its clock stands still. Claims: every request
 * gets one whole answer; what says that it is JSON is; an error names its code and status; nobody without the secret hears anything; the
 * secret is never told; no request makes an internal error; put in = free + ordered, always.
 */
#define main sluiced_main
#include "daemon/main.c"
#include "daemon/order_changes.h"
#undef main

#include <jansson.h>
#include <microhttpd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "check.h"
#include "common/answers.h"
#include "common/wire.h"
#include "libbpf.h"
#include "memory_store.h"
#include "pipeline.h"
#include "scratch.h"
#include "world.h"

#define REQUESTS_MAX 24
#define REQUEST_BYTES 16384
#define ANSWER_BYTES (1u << 20)
#define IDLE_ROUNDS 8
#define SEPARATOR "\n--\n"
#define WALL_NS 1800000000000000000ULL /* 2027-01-15T08:00:00Z */
#define MONO_NS 1000000000000ULL
#define SECRET "5ec2e7b9f0a4418d9c3763d20fe1a85b5ec2e7b9f0a4418d9c3763d20fe1a85b"
_Static_assert(sizeof(SECRET) == DAEMON_SECRET_HEX + 1, "a secret as the daemon makes it");

uint64_t __wrap_time_wall_ns(void);
uint64_t __wrap_time_mono_ns(void);

static struct {
	struct daemon daemon;
	struct servers servers;
	struct MHD_Daemon *mhd[LISTEN_COUNT];
	char sockets[LISTEN_COUNT][SCRATCH_MAX + 16];
	struct token_keys keys;
	char revoked[SCRATCH_MAX + 16], answers[SCRATCH_MAX + 16];
	uint64_t now_ns; /* since MONO_NS */
	/* seen */
	char answer[ANSWER_BYTES + 1];
	size_t length;
	bool is_ended;
	char token[SLUICE_TOKEN_TEXT + 1], order[17], etag[64];
} side;

uint64_t __wrap_time_wall_ns(void)
{
	return WALL_NS + side.now_ns;
}

uint64_t __wrap_time_mono_ns(void)
{
	return MONO_NS + side.now_ns;
}

/* libmicrohttpd without a thread: what http_server_start asks for, but run by MHD_run. */
struct MHD_Daemon *MHD_start_daemon(unsigned int flags, uint16_t port, MHD_AcceptPolicyCallback accept_policy,
	void *accept_arg, MHD_AccessHandlerCallback handler, void *handler_arg, ...)
{
	const struct http_listener *listener = handler_arg;
	struct MHD_Daemon *mhd;
	va_list options;

	flags &= ~(unsigned)(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
		MHD_USE_EPOLL | MHD_USE_ITC);
	va_start(options, handler_arg);
	mhd = MHD_start_daemon_va(
		flags | MHD_ALLOW_SUSPEND_RESUME, port, accept_policy, accept_arg, handler, handler_arg, options);
	va_end(options);
	CHECK(mhd, "no HTTP server");
	side.mhd[listener - side.servers.listeners] = mhd;
	return mhd;
}

/* --- answers ------------------------------------------------------------------------------------------------------------------------ */
static const char *find_header(const char *name, char *value, size_t size)
{
	const char *end = strstr(side.answer, "\r\n\r\n"), *at = side.answer;
	size_t length = strlen(name);

	*value = '\0';
	while ((at = strstr(at, "\r\n")) && at < end) {
		at += 2;
		if (!strncasecmp(at, name, length) && at[length] == ':') {
			snprintf(value, size, "%.*s", (int)strcspn(at + length + 1, "\r"), at + length + 1);
			return value + strspn(value, " ");
		}
	}
	return NULL;
}

/* Is the answer whole? *body and *body_length tell what follows its headers. */
static bool is_whole(bool is_head, const char **body, size_t *body_length)
{
	const char *end = strstr(side.answer, "\r\n\r\n"), *text;
	char value[64];

	if (!end)
		return false;
	*body = end + 4;
	*body_length = side.length - (size_t)(*body - side.answer);
	text = find_header("Content-Length", value, sizeof(value));
	if (is_head ||
		(!text && !find_header("Transfer-Encoding", value, sizeof(value)) && strncmp(side.answer + 9, "1", 1)))
		return true;
	return text && *body_length >= strtoull(text, NULL, 10);
}

static void remember(json_t *json)
{
	const char *token = json_string_value(json_object_get(json, "token"));
	const char *order = json_string_value(json_object_get(json, "id"));

	if (token && strlen(token) == SLUICE_TOKEN_TEXT)
		memcpy(side.token, token, sizeof(side.token));
	if (order && strlen(order) == 16)
		memcpy(side.order, order, sizeof(side.order));
}

static void check_answer(bool has_secret, bool is_head, const char *path)
{
	unsigned status = (unsigned)strtoul(side.answer + 9, NULL, 10);
	char value[128];
	const char *type, *body;
	size_t length;
	json_t *json;

	CHECK(!strncmp(side.answer, "HTTP/1.1 ", 9) && status >= 100 && status <= 599, "an answer that is none: %.60s",
		side.answer);
	CHECK(is_whole(is_head, &body, &length), "half an answer: %s", side.answer);
	CHECK(!strstr(side.answer, side.daemon.secret), "the secret was told");
	CHECK(status != 500 || strstr(side.answer, "Nobody can watch"), "an internal error: %s", side.answer);
	/* Whether the daemon lives, everybody may ask. */
	CHECK(has_secret || status >= 400 || strstr(path, "/livez") || strstr(path, "/readyz"),
		"told without the secret: %s", side.answer);
	type = find_header("Content-Type", value, sizeof(value));
	if (is_head || !type ||
		(strcmp(type, "application/json") != 0 && strcmp(type, "application/problem+json") != 0))
		return;
	json = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL);
	CHECK(json_is_object(json), "no JSON object: %.*s", (int)length, body);
	if (!strcmp(type, "application/problem+json")) {
		CHECK(json_integer_value(json_object_get(json, "status")) == status, "another status: %s", side.answer);
		CHECK(json_string_length(json_object_get(json, "code")), "no code: %s", side.answer);
		CHECK(status >= 400, "a problem with status %u", status);
	} else {
		CHECK(status < 400, "an error that is no problem document: %s", side.answer);
		remember(json);
	}
	json_decref(json);
	type = find_header("ETag", value, sizeof(value));
	if (type)
		snprintf(side.etag, sizeof(side.etag), "%s", type);
}

/* --- requests ------------------------------------------------------------------------------------------------------------------------ */
/* Copies text, with what came last for "$T", "$O" and "$E". */
static size_t expand(const char *from, size_t length, char *to, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < length && used + 80 < size; i++) {
		const char *value = NULL;

		if (from[i] == '$' && i + 1 < length)
			value = from[i + 1] == 'T'   ? side.token
				: from[i + 1] == 'O' ? side.order
				: from[i + 1] == 'E' ? side.etag
						     : NULL;
		if (!value) {
			to[used++] = from[i];
			continue;
		}
		memcpy(to + used, value, strlen(value));
		used += strlen(value);
		i++;
	}
	return used;
}

static int connect_to(unsigned listener)
{
	int fd = wire_connect(side.sockets[listener]);

	CHECK(fd >= 0, "cannot connect: %s", strerror(-fd));
	return fd;
}

/* Takes what there is. Returns false if there was nothing. */
static bool take(int fd)
{
	ssize_t got = recv(fd, side.answer + side.length, ANSWER_BYTES - side.length, MSG_DONTWAIT);

	side.is_ended |= got == 0 || (got < 0 && errno != EAGAIN);
	if (got <= 0)
		return false;
	side.length += (size_t)got;
	side.answer[side.length] = '\0';
	return true;
}

/* Sends the bytes and runs the server until nothing moves any more. */
static void talk(unsigned listener, const char *bytes, size_t count)
{
	int fd = connect_to(listener), idle = 0;
	size_t sent = 0;

	side.length = 0;
	side.is_ended = false;
	side.answer[0] = '\0';
	while (idle < IDLE_ROUNDS && !side.is_ended && side.length < ANSWER_BYTES) {
		ssize_t took = sent < count ? send(fd, bytes + sent, count - sent, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
		const char *body;
		size_t length;

		sent += took > 0 ? (size_t)took : 0;
		CHECK(MHD_run(side.mhd[listener]) == MHD_YES, "MHD_run");
		pipeline_step(&side.daemon);
		idle = take(fd) || took > 0 ? 0 : idle + 1;
		if (sent == count && side.length && is_whole(false, &body, &length))
			break;
	}
	close(fd);
	for (int i = 0; i < 2; i++)
		MHD_run(side.mhd[listener]);
	pipeline_step(&side.daemon);
}

static void check_stock(void)
{
	const struct store_sale *stored;

	for (unsigned i = 0; (stored = memory_store_sale(i)); i++) {
		struct sale sale;
		uint64_t free_units;

		if (sales_find_id(side.daemon.sales, stored->id, &sale) || !sales_in_gate(side.daemon.sales, &sale))
			continue;
		free_units = sales_free_units(side.daemon.sales, &sale);
		CHECK(free_units + (uint64_t)memory_store_ordered(stored->id) == (uint64_t)stored->put_in,
			"sale %s: %llu free, %lld ordered, %lld put in", stored->slug, (unsigned long long)free_units,
			(long long)memory_store_ordered(stored->id), (long long)stored->put_in);
	}
}

/* One request, as the head of this file says. */
static void ask(char letter, const char *text, size_t length)
{
	static char bytes[REQUEST_BYTES], line[REQUEST_BYTES / 4], headers[REQUEST_BYTES / 4], body[REQUEST_BYTES / 4];
	unsigned listener = letter == 'p'        ? LISTEN_PUBLIC
		: letter == 't' || letter == 'n' ? LISTEN_CONTROL_TCP
						 : LISTEN_CONTROL_UNIX;
	const char *end = memchr(text, '\n', length), *blank = memmem(text, length, "\n\n", 2);
	size_t line_length = end ? (size_t)(end - text) : length, head_length = 0, body_length = 0, count;

	if (letter == 'r') {
		talk(LISTEN_CONTROL_UNIX, text, length);
		return;
	}
	line_length = expand(text, line_length, line, sizeof(line));
	line[line_length] = '\0';
	if (blank && end)
		head_length = blank == end ? 0 : expand(end + 1, (size_t)(blank - end), headers, sizeof(headers));
	if (blank)
		body_length = expand(blank + 2, length - (size_t)(blank + 2 - text), body, sizeof(body));
	count = (size_t)snprintf(bytes, sizeof(bytes), "%.*s HTTP/1.1\r\nHost: shop\r\n", (int)line_length, line);
	if (letter == 't')
		count += (size_t)snprintf(
			bytes + count, sizeof(bytes) - count, "Authorization: Bearer %s\r\n", side.daemon.secret);
	for (size_t i = 0; i < head_length; i++) {
		if (headers[i] == '\n')
			bytes[count++] = '\r';
		bytes[count++] = headers[i];
	}
	count += (size_t)snprintf(bytes + count, sizeof(bytes) - count, "Content-Length: %zu\r\n\r\n", body_length);
	if (body_length)
		memcpy(bytes + count, body, body_length);
	talk(listener, bytes, count + body_length);
	if (side.length)
		check_answer(letter != 'n', !strncmp(line, "HEAD", 4), line);
}

/* Letters that are no request: the writer's mood, the time. */
static void do_one(const char *text, size_t length)
{
	char letter = length ? *text : 'c';
	unsigned seconds;

	switch (letter) {
	case 'w':
		pipeline_set_mood(&side.daemon, length > 1 ? (unsigned char)text[1] % PIPELINE_MOODS : PIPELINE_WELL);
		return;
	case 'z':
		seconds = length > 1 ? (unsigned char)text[1] : 1;
		side.now_ns += seconds * seconds * 1000000000ULL;
		break;
	default:
		break;
	}
	shim.now_ns = time_mono_ns();
	side.daemon.maps.control->heartbeat_mono = shim.now_ns;
	side.daemon.maps.control->wall_offset_ns = time_wall_ns() - shim.now_ns;
	order_expiry_step(&side.daemon);
	if (length && letter != 'z')
		ask(letter, text + 1, length - 1);
	check_stock();
}

/* --- the daemon ------------------------------------------------------------------------------------------------------------------------ */
static void make_sockets(const char *directory)
{
	static const char *const names[LISTEN_COUNT] = {"public", "unix", "tcp"};

	for (unsigned i = 0; i < LISTEN_COUNT; i++) {
		snprintf(side.sockets[i], sizeof(side.sockets[i]), "%s/%s", directory, names[i]);
		side.servers.fds[i] = wire_listen(side.sockets[i], 0600, NULL);
		CHECK(side.servers.fds[i] >= 0, "cannot listen at %s", side.sockets[i]);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *directory = scratch_make();
	struct daemon *d = &side.daemon;
	char error[512] = "";

	(void)argc;
	(void)argv;
	world_open();
	config_defaults(&d->config);
	snprintf(d->config.daemon.state_dir, sizeof(d->config.daemon.state_dir), "%s", directory);
	snprintf(d->config.daemon.cors_origin, sizeof(d->config.daemon.cors_origin), "https://shop.example");
	snprintf(side.revoked, sizeof(side.revoked), "%s/revoked", directory);
	snprintf(side.answers, sizeof(side.answers), "%s/answers.json", directory);
	d->config.daemon.threads = 1;
	d->config.daemon.max_connections = 64;
	/* The daemon believes pins of its own version alone. */
	shim_map_share(shim_map_find("control"));
	world_control()->magic = SLUICE_ABI_MAGIC;
	world_control()->abi_version = SLUICE_ABI_VERSION;
	CHECK(!open_state(d, error, sizeof(error)), "%s", error);
	CHECK(!open_gate(d, error, sizeof(error)), "%s", error);
	CHECK(!make_parts(d, error, sizeof(error)), "%s", error);
	CHECK(!open_revocations(d, error, sizeof(error)), "%s", error);
	/* Watchers have a thread, and answers without an end: here who wants to watch is refused, after he was understood. */
	CHECK(!watch_start(d), "watching");
	watch_stop(d);
	/* The same in every process, so that an input means the same. */
	side.keys = (struct token_keys){
		.slot[1] = {.k0 = 1, .k1 = 2, .id = 1, .valid = 1}, .current = 1, .buyer = {3, 4}, .serial = {5, 6}};
	memcpy(d->secret, SECRET, sizeof(SECRET));
	make_sockets(directory);
	CHECK(!start_servers(d, &side.servers, error, sizeof(error)), "%s", error);
	return 0;
}

static void empty_lists(struct daemon *d)
{
	struct sluice_list_key key;

	while (!shim_map_next_key(shim_map_find("lists"), NULL, &key))
		CHECK(!lists_remove(d->lists, (enum sluice_list)key.list, &key.addr, key.prefix_len), "a list entry");
}

/* What an input before may have changed; listeners and metrics stay. */
static void begin_anew(struct daemon *d)
{
	char error[512] = "";
	__u32 mask = 1023;

	empty_lists(d);
	shim_reset();
	side.now_ns = 0;
	*d->maps.control = (struct sluice_control){.magic = SLUICE_ABI_MAGIC,
		.abi_version = SLUICE_ABI_VERSION,
		.grow = SLUICE_GROW_HEAD | SLUICE_GROW_TAIL,
		.mss4 = 1460,
		.mss6 = 1440,
		.rate_mask = mask,
		.rate_seed = 0x5eed,
		.kept = SLUICE_KEPT_LIMITS | SLUICE_KEPT_LISTS};
	kept_stop(); /* what it knows of the ledger */
	answers_write_defaults(d->maps.answers, d->config.daemon.cors_origin);
	answers_stop();
	unlink(side.answers);
	answers_start(d);
	orders_free(d->orders);
	sales_free(d->sales);
	issuer_free(d->issuer);
	revocation_close(d->revocations);
	unlink(side.revoked);
	d->keys = side.keys;
	d->sales = sales_new(&d->maps);
	d->orders = orders_new();
	d->issuer = issuer_new(&d->config);
	d->revocations = revocation_open(d, error, sizeof(error));
	CHECK(d->sales && d->orders && d->issuer && d->revocations, "%s", error);
	issue_publish_keys(d);
	pipeline_begin(d);
	atomic_store(&d->sales_known, true);
	memset(side.token, 'A', SLUICE_TOKEN_TEXT);
	memset(side.order, '0', 16);
	side.etag[0] = '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	const char *at = (const char *)bytes, *end = at + size;

	/* Who says it himself may hear it: an error quotes what was wrong. The fuzzer knows it from our own comparisons. */
	if (memmem(bytes, size, SECRET, DAEMON_SECRET_HEX / 2))
		return -1;
	begin_anew(&side.daemon);
	for (unsigned i = 0; at < end && i < REQUESTS_MAX; i++) {
		const char *stop = memmem(at, (size_t)(end - at), SEPARATOR, strlen(SEPARATOR));

		do_one(at, (size_t)((stop ? stop : end) - at));
		at = stop ? stop + strlen(SEPARATOR) : end;
	}
	return 0;
}
