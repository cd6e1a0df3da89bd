/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The config file: libconfig reads the syntax, the table below says what may stand in it. Called by all three programs at start and
 * by `sluice attach`; nothing here touches the system beyond the file.
 *
 * A file is taken whole or not at all: on an error the caller's struct is as it was. Each error names file, line, key and
 * what is allowed, because the reader of it stands at a console shortly before an opening.
 */
#include "common/config.h"

#include <errno.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"

#define CONFIG_FILE_MAX (1u << 20) /* bytes; a file that is longer is not a config file */
#define NS_PER_S 1e9
#define RATE_MIN 0.001
#define RATE_MAX 1e9
#define BURST_MAX 1000000u
#define SERVICES_TEXT "a list of at most 16 groups: services = ( { name = \"shop\"; port = 8080; } );"
#define NODES_TEXT "a list of at most 255 groups: nodes = ( { id = 1; url = \"https://shop1.example\"; } );"
#define LIMIT_TEXT "a group such as { rate = 50.0; burst = 100; }"
_Static_assert(SLUICE_MAX_SERVICES == 16, "SERVICES_TEXT names the number");
_Static_assert(CONFIG_NODES_MAX == 255, "NODES_TEXT names the number");

enum kind {
	KIND_BOOL,
	KIND_U32,
	KIND_POWER_OF_TWO,
	KIND_U64,
	KIND_PATH,
	KIND_NAME,
	KIND_LISTEN,
	KIND_ORIGIN,
	KIND_CONNINFO,
	KIND_URL,
	KIND_SERVERS,
	KIND_WORD,
	KIND_SCOPE,
	KIND_STORE,
	KIND_LIMIT
};

struct key {
	const char *section;
	const char *name;
	enum kind kind;
	size_t offset;
	size_t size;       /* strings: of the field */
	uint64_t min, max; /* numbers; for KIND_LISTEN and KIND_PATH: max 1 = may be empty */
};

/* clang-format off */
#define FIELD(section, field) offsetof(struct config, section.field), sizeof(((struct config *)0)->section.field)
#define NUMBER(kind, section, name, field, min, max) {#section, name, kind, FIELD(section, field), min, max}
#define TEXT(kind, section, name) {#section, #name, kind, FIELD(section, name), 0, 0}
#define LIMIT(section, name) {#section, #name, KIND_LIMIT, FIELD(section, name), 0, 0}
#define GATE_LIMIT(name, id)               {"limits", name, KIND_LIMIT, offsetof(struct config, limits) + (id) * sizeof(struct config_limit), 0, 0, 0}

static const struct key keys[] = {
	TEXT(KIND_PATH, gate, pin_dir),
	{"gate", "deny_scope", KIND_SCOPE, FIELD(gate, deny_all), 0, 0},
	NUMBER(KIND_U32, gate, "max_prefixes", max_prefixes, 1, 1u << 24),
	NUMBER(KIND_U32, gate, "max_admissions", max_admissions, 1, 1u << 24),
	NUMBER(KIND_U32, gate, "max_tokens", max_tokens, 1, 1u << 24),
	NUMBER(KIND_U32, gate, "max_sources", max_sources, 1024, 1u << 24),
	NUMBER(KIND_POWER_OF_TWO, gate, "ring_bytes", ring_bytes, 65536, 1u << 30),
	NUMBER(KIND_U64, gate, "backlog_max", backlog_max, 0, 1000000000),
	GATE_LIMIT("source", SLUICE_LIMIT_SOURCE),
	GATE_LIMIT("prefix", SLUICE_LIMIT_PREFIX),
	GATE_LIMIT("token", SLUICE_LIMIT_TOKEN),
	GATE_LIMIT("answer", SLUICE_LIMIT_ANSWER),
	GATE_LIMIT("syn_prefix", SLUICE_LIMIT_SYN_PREFIX),
	GATE_LIMIT("syn_global", SLUICE_LIMIT_SYN_GLOBAL),
	TEXT(KIND_LISTEN, daemon, public_listen),
	{"daemon", "control_listen", KIND_LISTEN, FIELD(daemon, control_listen), 0, 1},
	TEXT(KIND_PATH, daemon, control_socket),
	TEXT(KIND_NAME, daemon, control_group),
	TEXT(KIND_PATH, daemon, state_dir),
	TEXT(KIND_NAME, daemon, user),
	TEXT(KIND_ORIGIN, daemon, cors_origin),
	NUMBER(KIND_U32, daemon, "threads", threads, 1, 64),
	NUMBER(KIND_U32, daemon, "max_connections", max_connections, 1, 1000000),
	NUMBER(KIND_U32, daemon, "max_connections_per_source", max_connections_per_source, 0, 1000000),
	NUMBER(KIND_U32, daemon, "idle_seconds", idle_s, 1, 3600),
	NUMBER(KIND_BOOL, daemon, "public_tokens", public_tokens, 0, 1),
	NUMBER(KIND_U32, daemon, "token_ttl_seconds", token_ttl_s, 1, 31536000),
	NUMBER(KIND_BOOL, daemon, "token_bind_network", token_bind_network, 0, 1),
	NUMBER(KIND_U32, daemon, "token_multiplier", token_multiplier, 0, 1000000),
	LIMIT(daemon, issue_source),
	LIMIT(daemon, issue_buyer),
	TEXT(KIND_URL, daemon, webhook_url),
	{"daemon", "webhook_secret_file", KIND_PATH, FIELD(daemon, webhook_secret_file), 0, 1},
	{"daemon", "webhook_ca_file", KIND_PATH, FIELD(daemon, webhook_ca_file), 0, 1},
	TEXT(KIND_PATH, writer, socket),
	{"writer", "store", KIND_STORE, FIELD(writer, in_postgres), 0, 0},
	TEXT(KIND_PATH, writer, ledger),
	TEXT(KIND_CONNINFO, writer, postgres),
	TEXT(KIND_NAME, writer, group),
	TEXT(KIND_NAME, writer, user),
	TEXT(KIND_SERVERS, fleet, redis),
	{"fleet", "redis_user", KIND_WORD, FIELD(fleet, redis_user), 0, 1},
	{"fleet", "redis_password_file", KIND_PATH, FIELD(fleet, redis_password_file), 0, 1},
	TEXT(KIND_WORD, fleet, prefix),
	{"fleet", "secret_file", KIND_PATH, FIELD(fleet, secret_file), 0, 1},
	NUMBER(KIND_U32, fleet, "timeout_ms", timeout_ms, 10, 60000),
	NUMBER(KIND_U32, fleet, "node", node, 1, CONFIG_NODES_MAX),
	NUMBER(KIND_U32, fleet, "lease_ms", lease_ms, 10, 3600000),
	NUMBER(KIND_U32, fleet, "fence_after_seconds", fence_after_s, 0, 31536000),
	NUMBER(KIND_BOOL, fleet, "stream", stream, 0, 1),
	NUMBER(KIND_U32, fleet, "stream_keep", stream_keep, 0, 1000000000),
};
/* clang-format on */
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

static const char *const limit_names[SLUICE_LIMIT_COUNT] = {
	[SLUICE_LIMIT_SOURCE] = "source",
	[SLUICE_LIMIT_PREFIX] = "prefix",
	[SLUICE_LIMIT_TOKEN] = "token",
	[SLUICE_LIMIT_ANSWER] = "answer",
	[SLUICE_LIMIT_SYN_PREFIX] = "syn_prefix",
	[SLUICE_LIMIT_SYN_GLOBAL] = "syn_global",
};

/* --- defaults and units -------------------------------------------------------------------------------------------------- */
void config_defaults(struct config *config)
{
	/* clang-format off */
	static const struct config defaults = {
		.gate = {
			.pin_dir = "/sys/fs/bpf/sluice",
			.max_prefixes = 1048576,
			.max_admissions = 131072,
			.max_tokens = 262144,
			.max_sources = 262144,
			.ring_bytes = 4194304,
			.backlog_max = 100000,
		},
		.services = {{.port = 8080, .kind = SLUICE_SERVICE_SALE, .name = "shop"}},
		.service_count = 1,
		.limits = {
			[SLUICE_LIMIT_SOURCE] = {50, 100},
			[SLUICE_LIMIT_PREFIX] = {2000, 4000},
			[SLUICE_LIMIT_TOKEN] = {5, 10},
			[SLUICE_LIMIT_ANSWER] = {20, 40},
			[SLUICE_LIMIT_SYN_PREFIX] = {20000, 40000},
			[SLUICE_LIMIT_SYN_GLOBAL] = {0, 1},
		},
		.daemon = {
			.public_listen = "[::]:8080",
			.control_listen = "127.0.0.1:9180",
			.control_socket = "/run/sluice/control.sock",
			.state_dir = "/var/lib/sluice",
			.threads = 2,
			.max_connections = 20000,
			.max_connections_per_source = 1000,
			.idle_s = 15,
			.public_tokens = true,
			.token_ttl_s = 7200,
			.issue_source = {5, 20},
			.issue_buyer = {1, 10},
		},
		.writer = {
			.socket = "/run/sluice/writer.sock",
			.ledger = "/var/lib/sluice/ledger.db",
			.postgres = "dbname=sluice",
		},
		.fleet = {
			.prefix = "sluice",
			.timeout_ms = 1000,
			.node = 1,
			.lease_ms = 2000,
			.stream = true,
			.stream_keep = 100000,
		},
	};
	/* clang-format on */

	*config = defaults;
}

void config_limit_to_gate(const struct config_limit *from, struct sluice_limit *to)
{
	if (from->rate <= 0) {
		*to = (struct sluice_limit){0};
		return;
	}
	to->interval_ns = (__u64)(NS_PER_S / from->rate + 0.5);
	if (to->interval_ns == 0)
		to->interval_ns = 1;
	to->tolerance_ns = (from->burst ? from->burst - 1 : 0) * to->interval_ns;
}

uint32_t config_rate_sets(uint32_t max_sources)
{
	uint32_t sets = 1;

	while ((uint64_t)sets * SLUICE_RATE_WAYS < 2 * (uint64_t)max_sources)
		sets *= 2;
	return sets;
}

void config_limit_from_gate(const struct sluice_limit *from, struct config_limit *to)
{
	if (from->interval_ns == 0) {
		*to = (struct config_limit){.rate = 0, .burst = 1};
		return;
	}
	to->rate = NS_PER_S / (double)from->interval_ns;
	/* 1e9 / 333333 ns is 3.000003/s: show the rate that was written, where one of at most six digits after the point gives this interval. */
	for (double scale = 1; scale <= 1e6; scale *= 10) {
		struct config_limit rounded = {.rate = (double)(uint64_t)(to->rate * scale + 0.5) / scale, .burst = 1};
		struct sluice_limit back;

		config_limit_to_gate(&rounded, &back);
		if (back.interval_ns == from->interval_ns) {
			to->rate = rounded.rate;
			break;
		}
	}
	to->burst = (uint32_t)(from->tolerance_ns / from->interval_ns) + 1;
}

const struct config_node *config_node(const struct config *config, uint32_t id)
{
	for (unsigned i = 0; i < config->node_count; i++)
		if (config->nodes[i].id == id)
			return &config->nodes[i];
	return NULL;
}

const char *config_limit_name(enum sluice_limit_id id)
{
	return (unsigned)id < SLUICE_LIMIT_COUNT ? limit_names[id] : NULL;
}

int config_limit_id(const char *name)
{
	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		if (!strcmp(limit_names[id], name))
			return id;
	return -1;
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */
struct reader {
	struct config *config;
	const char *path;
	char *error;
	size_t error_size;
};

static __attribute__((format(printf, 3, 4))) int fail_at(
	const struct reader *reader, const config_setting_t *at, const char *format, ...)
{
	const char *file = config_setting_source_file(at); /* set if an @include brought it */
	va_list args;
	int n;

	n = snprintf(reader->error, reader->error_size, "%s:%u: ", file ? file : reader->path,
		config_setting_source_line(at));
	if (n < 0 || (size_t)n >= reader->error_size)
		return -EINVAL;
	va_start(args, format);
	vsnprintf(reader->error + n, reader->error_size - (size_t)n, format, args);
	va_end(args);
	return -EINVAL;
}

static bool get_integer(const config_setting_t *setting, long long *value)
{
	int type = config_setting_type(setting);

	if (type == CONFIG_TYPE_INT)
		*value = config_setting_get_int(setting);
	else if (type == CONFIG_TYPE_INT64)
		*value = config_setting_get_int64(setting);
	else
		return false;
	return true;
}

static bool is_plain(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text <= ' ' || (unsigned char)*text > '~')
			return false;
	return true;
}

static bool is_path(const char *text)
{
	size_t length = strlen(text);

	return text[0] == '/' && length > 1 && text[length - 1] != '/' && is_plain(text);
}

static bool is_name(const char *text)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

	return text[0] != '-' && strspn(text, allowed) == strlen(text);
}

/* "127.0.0.1:9180" or "[::]:8080" */
static bool is_listen(const char *text)
{
	const char *colon = strrchr(text, ':');
	char addr_text[ADDR_TEXT_MAX];
	struct sluice_addr addr;
	size_t length, digits;
	bool bracketed;

	if (!colon || (length = (size_t)(colon - text)) >= sizeof(addr_text))
		return false;
	bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
	if (bracketed) {
		text++;
		length -= 2;
	}
	memcpy(addr_text, text, length);
	addr_text[length] = '\0';
	if (addr_parse(addr_text, &addr) < 0 || bracketed != (strchr(addr_text, ':') != NULL))
		return false;
	digits = strspn(colon + 1, "0123456789");
	return digits >= 1 && digits <= 5 && colon[1 + digits] == '\0' && atoi(colon + 1) >= 1 &&
		atoi(colon + 1) <= 65535;
}

static bool is_origin(const char *text)
{
	const char *scheme_end = strstr(text, "://");

	return !*text || !strcmp(text, "*") ||
		(is_plain(text) && scheme_end && scheme_end > text && scheme_end[3] && !strchr(scheme_end + 3, '/'));
}

/* What libpq makes of it only the writer knows, which is linked with it. */
static bool is_one_line(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

/* Whether the host can be reached, only a delivery shows. */
static bool is_url(const char *text)
{
	size_t scheme = !strncmp(text, "https://", 8) ? 8 : !strncmp(text, "http://", 7) ? 7 : 0;

	return !*text ||
		(scheme && is_plain(text) && text[scheme] && !strchr("/?:@", text[scheme]) && !strchr(text, '#'));
}

/* HOST:PORT,HOST:PORT,… */
static bool is_servers(const char *text)
{
	char copy[CONFIG_SERVERS_MAX], *rest = copy, *server;

	if (strlen(text) >= sizeof(copy) || !is_plain(text))
		return false;
	if (!*text)
		return true;
	snprintf(copy, sizeof(copy), "%s", text);
	while ((server = strsep(&rest, ","))) {
		const char *colon = strrchr(server, ':');

		if (!colon || colon == server || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
			strlen(colon + 1) > 5 || atoi(colon + 1) < 1 || atoi(colon + 1) > 65535)
			return false;
	}
	return true;
}

/* What can stand in a key of Redis, outside of the braces that choose its slot. */
static bool is_word(const char *text)
{
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == strlen(text);
}

static int read_text(const struct reader *reader, const struct key *key, const config_setting_t *setting, char *field)
{
	const char *text =
		config_setting_type(setting) == CONFIG_TYPE_STRING ? config_setting_get_string(setting) : NULL;
	bool fits = text && strlen(text) < key->size;
	const char *allowed;
	bool ok;

	switch (key->kind) {
	case KIND_PATH:
		ok = fits && ((key->max && !*text) || is_path(text));
		allowed = key->max ? "an absolute path without blanks and without a slash at its end, or \"\""
				   : "an absolute path without blanks and without a slash at its end";
		break;
	case KIND_NAME:
		ok = fits && is_name(text);
		allowed = "a user or group name, or \"\"";
		break;
	case KIND_LISTEN:
		ok = fits && ((key->max && !*text) || is_listen(text));
		allowed = key->max ? "ADDRESS:PORT such as \"127.0.0.1:9180\" or \"[::1]:9180\", or \"\" for none"
				   : "ADDRESS:PORT such as \"0.0.0.0:8080\" or \"[::]:8080\"";
		break;
	case KIND_CONNINFO:
		ok = fits && is_one_line(text);
		allowed = "a connection string such as \"host=/run/postgresql dbname=sluice\"";
		break;
	case KIND_SERVERS:
		ok = fits && is_servers(text);
		allowed = "HOST:PORT, or several of one Redis Cluster with commas between them, or \"\" for none";
		break;
	case KIND_WORD:
		ok = fits && (*text || key->max) && is_word(text);
		allowed = key->max ? "letters, digits, _ . and -, or \"\"" : "letters, digits, _ . and -";
		break;
	case KIND_URL:
		ok = fits && is_url(text);
		allowed = "a URL such as \"https://shop.example/hooks\", or \"\" for none";
		break;
	default:
		ok = fits && is_origin(text);
		allowed = "an origin such as \"https://shop.example\", \"*\" or \"\"";
		break;
	}
	if (!ok)
		return fail_at(reader, setting, "%s.%s must be a string: %s (at most %zu characters)", key->section,
			key->name, allowed, key->size - 1);
	snprintf(field, key->size, "%s", text);
	return 0;
}

static int read_limit(
	const struct reader *reader, const struct key *key, const config_setting_t *group, struct config_limit *limit)
{
	if (!config_setting_is_group(group))
		return fail_at(reader, group, "%s.%s must be " LIMIT_TEXT, key->section, key->name);
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const char *name = config_setting_name(setting);
		long long integer;

		if (!strcmp(name, "rate")) {
			double rate = -1;

			if (config_setting_type(setting) == CONFIG_TYPE_FLOAT)
				rate = config_setting_get_float(setting);
			else if (get_integer(setting, &integer))
				rate = (double)integer;
			if (!(rate == 0 || (rate >= RATE_MIN && rate <= RATE_MAX)))
				return fail_at(reader, setting,
					"%s.%s.rate must be 0 (off) or 0.001..1000000000 per second", key->section,
					key->name);
			limit->rate = rate;
		} else if (!strcmp(name, "burst")) {
			if (!get_integer(setting, &integer) || integer < 1 || integer > BURST_MAX)
				return fail_at(reader, setting, "%s.%s.burst must be an integer, 1..%u", key->section,
					key->name, BURST_MAX);
			limit->burst = (uint32_t)integer;
		} else {
			return fail_at(reader, setting, "unknown key %s.%s.%s; known are rate, burst", key->section,
				key->name, name);
		}
	}
	return 0;
}

/* One of two words: false is the first, true the second. */
static int read_word(const struct reader *reader, const struct key *key, const config_setting_t *setting,
	const char *no, const char *yes, bool *field)
{
	const char *text = config_setting_type(setting) == CONFIG_TYPE_STRING ? config_setting_get_string(setting) : "";

	if (strcmp(text, no) && strcmp(text, yes))
		return fail_at(reader, setting, "%s.%s must be \"%s\" or \"%s\"", key->section, key->name, no, yes);
	*field = !strcmp(text, yes);
	return 0;
}

static int read_key(const struct reader *reader, const struct key *key, const config_setting_t *setting)
{
	void *field = (char *)reader->config + key->offset;
	long long integer;

	switch (key->kind) {
	case KIND_BOOL:
		if (config_setting_type(setting) != CONFIG_TYPE_BOOL)
			return fail_at(reader, setting, "%s.%s must be true or false", key->section, key->name);
		*(bool *)field = config_setting_get_bool(setting);
		return 0;
	case KIND_U32:
	case KIND_POWER_OF_TWO:
	case KIND_U64:
		if (!get_integer(setting, &integer) || integer < 0 || (uint64_t)integer < key->min ||
			(uint64_t)integer > key->max || (key->kind == KIND_POWER_OF_TWO && (integer & (integer - 1))))
			return fail_at(reader, setting, "%s.%s must be %s, %llu..%llu", key->section, key->name,
				key->kind == KIND_POWER_OF_TWO ? "a power of two" : "an integer",
				(unsigned long long)key->min, (unsigned long long)key->max);
		if (key->kind == KIND_U64)
			*(uint64_t *)field = (uint64_t)integer;
		else
			*(uint32_t *)field = (uint32_t)integer;
		return 0;
	case KIND_SCOPE:
		return read_word(reader, key, setting, "protected", "all", field);
	case KIND_STORE:
		return read_word(reader, key, setting, "sqlite", "postgres", field);
	case KIND_LIMIT:
		return read_limit(reader, key, setting, field);
	default:
		return read_text(reader, key, setting, field);
	}
}

static int read_service(const struct reader *reader, const config_setting_t *group, struct sluice_service *service)
{
	long long integer;
	bool named = false;

	if (!config_setting_is_group(group))
		return fail_at(reader, group, "services must be " SERVICES_TEXT);
	service->kind = SLUICE_SERVICE_SALE;
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const char *text =
			config_setting_type(setting) == CONFIG_TYPE_STRING ? config_setting_get_string(setting) : "";
		const char *key = config_setting_name(setting);

		if (!strcmp(key, "name")) {
			size_t length = strlen(text);

			if (length < 1 || length >= sizeof(service->name) ||
				strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") != length)
				return fail_at(reader, setting,
					"services.name must be a string of 1..%zu characters a-z, 0-9, _ and -",
					sizeof(service->name) - 1);
			memcpy(service->name, text, length);
			named = true;
		} else if (!strcmp(key, "address")) {
			if (!strcmp(text, "any"))
				service->addr = (struct sluice_addr){0};
			else if (addr_parse(text, &service->addr) < 0 || (!service->addr.hi && !service->addr.lo))
				return fail_at(reader, setting,
					"services.address must be \"any\" or an address such as \"192.0.2.1\" or "
					"\"2001:db8::1\"");
		} else if (!strcmp(key, "port")) {
			if (!get_integer(setting, &integer) || integer < 1 || integer > 65535)
				return fail_at(reader, setting, "services.port must be an integer, 1..65535");
			service->port = (__u16)integer;
		} else if (!strcmp(key, "kind")) {
			if (strcmp(text, "sale") && strcmp(text, "tcp"))
				return fail_at(reader, setting, "services.kind must be \"sale\" or \"tcp\"");
			service->kind = !strcmp(text, "tcp") ? SLUICE_SERVICE_TCP : SLUICE_SERVICE_SALE;
		} else {
			return fail_at(
				reader, setting, "unknown key services.%s; known are name, address, port, kind", key);
		}
	}
	if (!named || !service->port)
		return fail_at(reader, group, "a service must have a %s", named ? "port" : "name");
	return 0;
}

static int read_services(const struct reader *reader, const config_setting_t *list)
{
	struct config *config = reader->config;
	int length = config_setting_length(list);

	if (config_setting_type(list) != CONFIG_TYPE_LIST || length > SLUICE_MAX_SERVICES)
		return fail_at(reader, list, "services must be " SERVICES_TEXT);
	memset(config->services, 0, sizeof(config->services));
	config->service_count = 0;
	for (int i = 0; i < length; i++) {
		const config_setting_t *group = config_setting_get_elem(list, (unsigned)i);
		struct sluice_service *service = &config->services[i];
		int err = read_service(reader, group, service);

		if (err)
			return err;
		for (int j = 0; j < i; j++) {
			const struct sluice_service *other = &config->services[j];

			if (!strcmp(other->name, service->name))
				return fail_at(reader, group, "two services have the name \"%s\"", service->name);
			if (other->port == service->port && other->addr.hi == service->addr.hi &&
				other->addr.lo == service->addr.lo)
				return fail_at(reader, group,
					"services \"%s\" and \"%s\" have the same address and port", other->name,
					service->name);
		}
		config->service_count++;
	}
	return 0;
}

/* A URL that names a host, perhaps a port, and nothing else: what stands behind it is the buyer's own target, and it goes into headers where a
 * comma or a semicolon would end it.
 */
static bool is_node_url(const char *text)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._:[]";
	const char *host = strstr(text, "://");

	return is_url(text) && host && !host[3 + strspn(host + 3, allowed)];
}

static int read_node(const struct reader *reader, const config_setting_t *group, struct config_node *node)
{
	long long id = 0;

	if (!config_setting_is_group(group))
		return fail_at(reader, group, "nodes must be " NODES_TEXT);
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const char *text =
			config_setting_type(setting) == CONFIG_TYPE_STRING ? config_setting_get_string(setting) : "";
		const char *key = config_setting_name(setting);

		if (!strcmp(key, "id")) {
			if (!get_integer(setting, &id) || id < 1 || id > CONFIG_NODES_MAX)
				return fail_at(reader, setting, "nodes.id must be an integer, 1..%d", CONFIG_NODES_MAX);
		} else if (!strcmp(key, "url")) {
			if (strlen(text) >= sizeof(node->url) || !is_node_url(text))
				return fail_at(reader, setting,
					"nodes.url must be a URL without a path such as \"https://shop1.example\" "
					"(at most %zu characters)",
					sizeof(node->url) - 1);
			snprintf(node->url, sizeof(node->url), "%s", text);
		} else {
			return fail_at(reader, setting, "unknown key nodes.%s; known are id, url", key);
		}
	}
	node->id = (uint32_t)id;
	if (!id || !*node->url)
		return fail_at(reader, group, "a node must have an %s", id ? "url" : "id");
	return 0;
}

static int compare_nodes(const void *a, const void *b)
{
	const struct config_node *one = a, *other = b;

	return one->id < other->id ? -1 : one->id > other->id;
}

static int read_nodes(const struct reader *reader, const config_setting_t *list)
{
	struct config *config = reader->config;
	int length = config_setting_length(list);

	if (config_setting_type(list) != CONFIG_TYPE_LIST || length > CONFIG_NODES_MAX)
		return fail_at(reader, list, "nodes must be " NODES_TEXT);
	memset(config->nodes, 0, sizeof(config->nodes));
	config->node_count = 0;
	for (int i = 0; i < length; i++) {
		const config_setting_t *group = config_setting_get_elem(list, (unsigned)i);
		int err = read_node(reader, group, &config->nodes[i]);

		if (err)
			return err;
		for (int j = 0; j < i; j++)
			if (config->nodes[j].id == config->nodes[i].id)
				return fail_at(reader, group, "two nodes have the id %u", config->nodes[i].id);
		config->node_count++;
	}
	qsort(config->nodes, config->node_count, sizeof(config->nodes[0]), compare_nodes);
	return 0;
}

/* What only the whole file can tell. */
static int check_fleet(const struct reader *reader, const config_setting_t *fleet)
{
	const struct config *config = reader->config;

	if (!fleet || !config_is_fleet(config) || config_node(config, config->fleet.node))
		return 0;
	return fail_at(reader, fleet, "fleet.node is %u, and nodes does not list it: nodes must be " NODES_TEXT,
		config->fleet.node);
}

static const struct key *find_key(const char *section, const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (!strcmp(keys[i].section, section) && !strcmp(keys[i].name, name))
			return &keys[i];
	return NULL;
}

static int fail_unknown_key(const struct reader *reader, const config_setting_t *setting, const char *section)
{
	char known[512] = "";
	size_t used = 0;

	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (!strcmp(keys[i].section, section) && used < sizeof(known))
			used += (size_t)snprintf(
				known + used, sizeof(known) - used, "%s%s", used ? ", " : "", keys[i].name);
	}
	return fail_at(
		reader, setting, "unknown key %.64s.%.64s; known are %s", section, config_setting_name(setting), known);
}

static int read_section(const struct reader *reader, const config_setting_t *group)
{
	static const char *const sections[] = {"gate", "limits", "daemon", "writer", "fleet"};
	const char *section = config_setting_name(group);
	bool known = false;

	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
		known |= !strcmp(sections[i], section);
	if (!known)
		return fail_at(reader, group,
			"unknown section %.64s; known are gate, limits, daemon, writer, fleet, services, nodes",
			section);
	if (!config_setting_is_group(group))
		return fail_at(reader, group, "%s must be a group: %s: { … };", section, section);
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const struct key *key = find_key(section, config_setting_name(setting));
		int err = key ? read_key(reader, key, setting) : fail_unknown_key(reader, setting, section);

		if (err)
			return err;
	}
	return 0;
}

/* Reads the file as one string. libconfig would read a stream itself, but its scanner ends the process on a read error (a directory,
 * a failing disk) and stops silently at a NUL byte.
 */
static int slurp(const struct reader *reader, char **text)
{
	FILE *file = fopen(reader->path, "re");
	size_t length;
	char *nul;
	int err;

	*text = NULL;
	if (!file) {
		err = errno;
		snprintf(reader->error, reader->error_size, "%s: cannot open the config file: %s", reader->path,
			strerror(err));
		return err == ENOENT ? -ENOENT : -EINVAL;
	}
	*text = malloc(CONFIG_FILE_MAX + 1);
	length = *text ? fread(*text, 1, CONFIG_FILE_MAX + 1, file) : 0;
	err = !*text ? ENOMEM : ferror(file) ? errno : length > CONFIG_FILE_MAX ? EFBIG : 0;
	fclose(file);
	if (err) {
		snprintf(reader->error, reader->error_size, "%s: cannot read the config file: %s", reader->path,
			strerror(err));
		return -EINVAL;
	}
	(*text)[length] = '\0';
	nul = memchr(*text, '\0', length);
	if (nul) {
		unsigned line = 1;

		for (const char *c = *text; c < nul; c++)
			line += *c == '\n';
		snprintf(reader->error, reader->error_size, "%s:%u: a NUL byte: this is not a text file", reader->path,
			line);
		return -EINVAL;
	}
	return 0;
}

int config_load(struct config *config, const char *path, char *error, size_t error_size)
{
	struct config read = *config;
	struct reader reader = {.config = &read, .path = path, .error = error, .error_size = error_size};
	const config_setting_t *root;
	config_t syntax;
	char *text;
	int err;

	config_init(&syntax);
	err = slurp(&reader, &text);
	if (err)
		goto out_free;
	if (!config_read_string(&syntax, text)) {
		const char *file = config_error_file(&syntax);

		snprintf(error, error_size, "%s:%d: %s", file ? file : path, config_error_line(&syntax),
			config_error_text(&syntax));
		err = -EINVAL;
		goto out_free;
	}
	root = config_root_setting(&syntax);
	for (int i = 0; !err && i < config_setting_length(root); i++) {
		const config_setting_t *setting = config_setting_get_elem(root, (unsigned)i);

		if (!strcmp(config_setting_name(setting), "services"))
			err = read_services(&reader, setting);
		else if (!strcmp(config_setting_name(setting), "nodes"))
			err = read_nodes(&reader, setting);
		else
			err = read_section(&reader, setting);
	}
	if (!err)
		err = check_fleet(&reader, config_setting_lookup((config_setting_t *)root, "fleet"));
	if (!err)
		*config = read;
out_free:
	config_destroy(&syntax);
	free(text);
	return err;
}
