/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The config file: what is allowed is taken exactly, what is not is refused with its line, and no bytes can do harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"

#define EXAMPLE "docs/sluice.conf.example"

static char path[64];

/* libconfig 1.5 does not free the text of a string that the file's end cuts off; LeakSanitizer asks this function what to overlook. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so";
}

static int load_bytes(struct config *config, const char *bytes, size_t length, char *error, size_t error_size)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
	error[0] = '\0';
	return config_load(config, path, error, error_size);
}

static int load(struct config *config, const char *text, char *error, size_t error_size)
{
	config_defaults(config);
	return load_bytes(config, text, strlen(text), error, error_size);
}

static void an_empty_file_is_the_defaults(void **state)
{
	struct config defaults, config;
	char error[512];

	(void)state;
	config_defaults(&defaults);
	assert_int_equal(load(&config, "", error, sizeof(error)), 0);
	assert_memory_equal(&config, &defaults, sizeof(config));
	assert_string_equal(config.gate.pin_dir, "/sys/fs/bpf/sluice");
	assert_int_equal(config.service_count, 1);
	assert_string_equal(config.services[0].name, "shop");
	assert_true(config.daemon.public_tokens);
	assert_true(config.limits[SLUICE_LIMIT_SOURCE].rate == 50 && config.limits[SLUICE_LIMIT_SOURCE].burst == 100);
	assert_true(config.limits[SLUICE_LIMIT_SYN_GLOBAL].rate == 0);
}

static void the_nodes_of_a_fleet_are_listed_by_id(void **state)
{
	struct config config;
	char error[512];

	(void)state;
	assert_int_equal(
		load(&config,
			"fleet: { redis = \"[::1]:6379,b.example:7000\"; node = 7; timeout_ms = 50; };\n"
			"nodes = ( { id = 7; url = \"http://shop7.example:8080\"; }, { id = 2; url = \"https://shop2.example\"; } );",
			error, sizeof(error)),
		0);
	assert_true(config_is_fleet(&config));
	assert_int_equal(config.node_count, 2);
	assert_int_equal(config.nodes[0].id, 2);
	assert_string_equal(config_node(&config, 7)->url, "http://shop7.example:8080");
	assert_null(config_node(&config, 1));
	assert_string_equal(config.fleet.redis, "[::1]:6379,b.example:7000");
}

static void the_example_file_is_the_defaults(void **state)
{
	struct config defaults, config;
	char error[512];

	(void)state;
	if (access(EXAMPLE, R_OK) < 0) {
		print_message("not run from the top of the source tree: no " EXAMPLE "\n");
		skip();
	}
	config_defaults(&defaults);
	config_defaults(&config);
	memset(config.services, 0xff, sizeof(config.services)); /* so that a key the example forgets is seen */
	config.service_count = 0;
	if (config_load(&config, EXAMPLE, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	assert_memory_equal(&config, &defaults, sizeof(config));
}

static void every_key_is_taken(void **state)
{
	static const char text[] =
		"services = ( { name = \"shop-1\"; port = 80; }, { name = \"ssh\"; address = \"192.0.2.1\"; port = 22; kind = \"tcp\"; },\n"
		"  { name = \"six\"; address = \"2001:db8::1\"; port = 80; kind = \"sale\"; } );\n"
		"gate: { pin_dir = \"/sys/fs/bpf/x\"; deny_scope = \"all\"; max_prefixes = 1; max_admissions = 2; max_tokens = 3;\n"
		"  max_sources = 2048; ring_bytes = 65536; backlog_max = 0; };\n"
		"limits: { source: { rate = 7; burst = 8; }; prefix: { rate = 0; }; token: { burst = 3; }; answer: { rate = 0.5; burst = 1; };\n"
		"  syn_prefix: { rate = 1000000000; burst = 1000000; }; syn_global: { rate = 0.001; burst = 2; }; };\n"
		"daemon: { public_listen = \"0.0.0.0:80\"; control_listen = \"\"; control_socket = \"/a/b\"; control_group = \"shop\";\n"
		"  state_dir = \"/s\"; user = \"nobody\"; cors_origin = \"https://shop.example\"; threads = 4; max_connections = 5;\n"
		"  max_connections_per_source = 8; idle_seconds = 9;\n"
		"  public_tokens = false; token_ttl_seconds = 6; token_bind_network = true; token_multiplier = 7;\n"
		"  issue_source: { rate = 1.5; burst = 2; }; issue_buyer: { rate = 2.5; burst = 3; };\n"
		"  webhook_url = \"https://u:p@shop.example:8443/hooks?k=v\"; webhook_secret_file = \"/h\"; webhook_ca_file = \"/ca\"; };\n"
		"writer: { socket = \"/w\"; store = \"postgres\"; ledger = \"/l\"; postgres = \"host=/run/postgresql dbname=shop\"; group = \"g\";\n"
		"  user = \"u\"; };\n";
	struct config c;
	char error[512];

	(void)state;
	if (load(&c, text, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	assert_int_equal(c.service_count, 3);
	assert_true(c.services[0].kind == SLUICE_SERVICE_SALE && !c.services[0].addr.hi && !c.services[0].addr.lo);
	assert_true(c.services[1].kind == SLUICE_SERVICE_TCP && c.services[1].addr.lo == 0xffffc0000201ULL &&
		c.services[1].port == 22);
	assert_true(c.services[2].addr.hi == 0x20010db800000000ULL && c.services[2].addr.lo == 1);
	assert_string_equal(c.gate.pin_dir, "/sys/fs/bpf/x");
	assert_true(
		c.gate.deny_all && c.gate.max_prefixes == 1 && c.gate.max_admissions == 2 && c.gate.max_tokens == 3);
	assert_true(c.gate.max_sources == 2048 && c.gate.ring_bytes == 65536 && c.gate.backlog_max == 0);
	assert_true(c.limits[SLUICE_LIMIT_SOURCE].rate == 7 && c.limits[SLUICE_LIMIT_SOURCE].burst == 8);
	assert_true(c.limits[SLUICE_LIMIT_PREFIX].rate == 0 && c.limits[SLUICE_LIMIT_PREFIX].burst == 4000);
	assert_true(c.limits[SLUICE_LIMIT_TOKEN].rate == 5 && c.limits[SLUICE_LIMIT_TOKEN].burst == 3);
	assert_true(c.limits[SLUICE_LIMIT_ANSWER].rate == 0.5 && c.limits[SLUICE_LIMIT_ANSWER].burst == 1);
	assert_true(
		c.limits[SLUICE_LIMIT_SYN_PREFIX].rate == 1e9 && c.limits[SLUICE_LIMIT_SYN_PREFIX].burst == 1000000);
	assert_true(c.limits[SLUICE_LIMIT_SYN_GLOBAL].rate == 0.001 && c.limits[SLUICE_LIMIT_SYN_GLOBAL].burst == 2);
	assert_string_equal(c.daemon.public_listen, "0.0.0.0:80");
	assert_string_equal(c.daemon.control_listen, "");
	assert_string_equal(c.daemon.control_socket, "/a/b");
	assert_string_equal(c.daemon.control_group, "shop");
	assert_string_equal(c.daemon.state_dir, "/s");
	assert_string_equal(c.daemon.user, "nobody");
	assert_string_equal(c.daemon.cors_origin, "https://shop.example");
	assert_true(c.daemon.threads == 4 && c.daemon.max_connections == 5 && !c.daemon.public_tokens &&
		c.daemon.token_ttl_s == 6);
	assert_true(c.daemon.max_connections_per_source == 8 && c.daemon.idle_s == 9);
	assert_true(c.daemon.token_bind_network && c.daemon.token_multiplier == 7);
	assert_true(c.daemon.issue_source.rate == 1.5 && c.daemon.issue_source.burst == 2);
	assert_true(c.daemon.issue_buyer.rate == 2.5 && c.daemon.issue_buyer.burst == 3);
	assert_string_equal(c.daemon.webhook_url, "https://u:p@shop.example:8443/hooks?k=v");
	assert_string_equal(c.daemon.webhook_secret_file, "/h");
	assert_string_equal(c.daemon.webhook_ca_file, "/ca");
	assert_string_equal(c.writer.socket, "/w");
	assert_true(c.writer.in_postgres);
	assert_string_equal(c.writer.ledger, "/l");
	assert_string_equal(c.writer.postgres, "host=/run/postgresql dbname=shop");
	assert_string_equal(c.writer.group, "g");
	assert_string_equal(c.writer.user, "u");
}

/* Each stands on line 3 and must be refused with that line and with words that name the key or what is allowed. */
static void what_is_not_allowed_is_refused_with_its_line(void **state)
{
	static const struct {
		const char *line, *words;
	} bad[] = {
		{"gates: { };", "unknown section gates"},
		{"gate: { max_prefix = 1; };",
			"unknown key gate.max_prefix; known are pin_dir, deny_scope, max_prefixes"},
		{"gate = 1;", "gate must be a group"},
		{"pin_dir = \"/x\";", "unknown section pin_dir"},
		{"gate: { pin_dir = \"relative\"; };", "gate.pin_dir must be a string: an absolute path"},
		{"gate: { pin_dir = \"/x/\"; };", "without a slash at its end"},
		{"gate: { pin_dir = \"/\"; };", "gate.pin_dir must be"},
		{"gate: { pin_dir = 7; };", "gate.pin_dir must be a string"},
		{"gate: { deny_scope = \"some\"; };", "\"protected\" or \"all\""},
		{"gate: { deny_scope = true; };", "\"protected\" or \"all\""},
		{"gate: { max_prefixes = 0; };", "gate.max_prefixes must be an integer, 1..16777216"},
		{"gate: { max_prefixes = 16777217; };", "1..16777216"},
		{"gate: { max_prefixes = -1; };", "1..16777216"},
		{"gate: { max_prefixes = 4294967297L; };", "1..16777216"},
		{"gate: { max_prefixes = 1.5; };", "an integer"},
		{"gate: { max_prefixes = \"1\"; };", "an integer"},
		{"gate: { max_prefixes = true; };", "an integer"},
		{"gate: { ring_bytes = 100000; };", "a power of two"},
		{"gate: { ring_bytes = 32768; };", "65536..1073741824"},
		{"gate: { backlog_max = -5; };", "gate.backlog_max"},
		{"limits: { sauce: { rate = 1; }; };", "unknown key limits.sauce; known are source, prefix, token"},
		{"limits: { source = 5; };", "limits.source must be a group"},
		{"limits: { source: { rat = 5; }; };", "unknown key limits.source.rat; known are rate, burst"},
		{"limits: { source: { rate = 0.0001; }; };", "limits.source.rate must be 0 (off) or 0.001..1000000000"},
		{"limits: { source: { rate = -1; }; };", "limits.source.rate"},
		{"limits: { source: { rate = 1e10; }; };", "limits.source.rate"},
		{"limits: { source: { rate = \"5\"; }; };", "limits.source.rate"},
		{"limits: { source: { burst = 0; }; };", "limits.source.burst must be an integer, 1..1000000"},
		{"limits: { source: { burst = 1000001; }; };", "1..1000000"},
		{"limits: { source: { burst = 1.0; }; };", "an integer"},
		{"daemon: { public_listen = \"\"; };", "ADDRESS:PORT"},
		{"daemon: { public_listen = \":8080\"; };", "ADDRESS:PORT"},
		{"daemon: { public_listen = \"::1:8080\"; };", "ADDRESS:PORT"},
		{"daemon: { public_listen = \"[127.0.0.1]:8080\"; };", "ADDRESS:PORT"},
		{"daemon: { public_listen = \"127.0.0.1:0\"; };", "ADDRESS:PORT"},
		{"daemon: { public_listen = \"127.0.0.1:65536\"; };", "ADDRESS:PORT"},
		{"daemon: { control_listen = \"localhost:1\"; };", "ADDRESS:PORT"},
		{"daemon: { control_group = \"a b\"; };", "user or group name"},
		{"daemon: { user = \"0123456789012345678901234567890123\"; };", "at most 31 characters"},
		{"fleet: { redis = \"redis\"; };", "HOST:PORT"},
		{"fleet: { redis = \"a:1,b\"; };", "HOST:PORT"},
		{"fleet: { redis = \"a:0\"; };", "HOST:PORT"},
		{"fleet: { prefix = \"\"; };", "letters, digits"},
		{"fleet: { prefix = \"a{b}\"; };", "letters, digits"},
		{"fleet: { node = 256; };", "1..255"},
		{"fleet: { redis = \"r:6379\"; };", "nodes does not list it"},
		{"nodes = ( { id = 1; url = \"http://a\"; }, { id = 1; url = \"http://b\"; } );",
			"two nodes have the id 1"},
		{"nodes = ( { id = 1; } );", "a node must have an url"},
		{"nodes = ( { url = \"http://a\"; } );", "a node must have an id"},
		{"nodes = ( { id = 0; url = \"http://a\"; } );", "1..255"},
		{"nodes = ( { id = 1; url = \"http://a/b\"; } );", "without a path"},
		{"nodes = ( { id = 1; url = \"\"; } );", "without a path"},
		{"nodes = ( { id = 1; url = \"http://a b\"; } );", "without a path"},
		{"nodes = ( { id = 1; url = \"http://a;b\"; } );", "without a path"},
		{"nodes = ( { id = 1; url = \"http://a,b\"; } );", "without a path"},
		{"nodes = ( { id = 1; url = \"http://a?b\"; } );", "without a path"},
		{"nodes = 1;", "a list of at most 255 groups"},
		{"daemon: { cors_origin = \"shop.example\"; };", "an origin"},
		{"daemon: { cors_origin = \"https://shop.example/\"; };", "an origin"},
		{"daemon: { cors_origin = \"https://a\\r\\nX: y\"; };", "an origin"},
		{"daemon: { threads = 65; };", "1..64"},
		{"daemon: { public_tokens = 1; };", "true or false"},
		{"daemon: { token_ttl_seconds = 0; };", "1..31536000"},
		{"daemon: { webhook_url = \"shop.example/hooks\"; };", "daemon.webhook_url must be a string: a URL"},
		{"daemon: { webhook_url = \"ftp://shop.example/\"; };", "a URL"},
		{"daemon: { webhook_url = \"https://\"; };", "a URL"},
		{"daemon: { webhook_url = \"http:///hooks\"; };", "a URL"},
		{"daemon: { webhook_url = \"https://shop.example/a b\"; };", "a URL"},
		{"daemon: { webhook_url = \"https://shop.example/#part\"; };", "a URL"},
		{"daemon: { webhook_secret_file = \"hooks.secret\"; };", "an absolute path"},
		{"daemon: { webhook_ca_file = 1; };", "or \"\""},
		{"writer: { ledger = \"\"; };", "writer.ledger"},
		{"writer: { store = \"postgresql\"; };", "writer.store must be \"sqlite\" or \"postgres\""},
		{"writer: { store = true; };", "\"sqlite\" or \"postgres\""},
		{"writer: { postgres = \"dbname=a\\nhost=b\"; };",
			"writer.postgres must be a string: a connection string"},
		{"writer: { postgres = 5432; };", "writer.postgres must be a string"},
		{"services = { };", "services must be a list"},
		{"services = ( 5 );", "services must be a list"},
		{"services = ( { name = \"a\"; } );", "must have a port"},
		{"services = ( { port = 1; } );", "must have a name"},
		{"services = ( { name = \"A\"; port = 1; } );", "services.name"},
		{"services = ( { name = \"\"; port = 1; } );", "services.name"},
		{"services = ( { name = \"abcdefghijklmnopqrstuvwx\"; port = 1; } );", "1..23 characters"},
		{"services = ( { name = \"a\"; port = 0; } );", "services.port must be an integer, 1..65535"},
		{"services = ( { name = \"a\"; port = 65536; } );", "1..65535"},
		{"services = ( { name = \"a\"; port = 1; kind = \"udp\"; } );", "\"sale\" or \"tcp\""},
		{"services = ( { name = \"a\"; port = 1; address = \"::\"; } );", "services.address"},
		{"services = ( { name = \"a\"; port = 1; address = \"host\"; } );", "services.address"},
		{"services = ( { name = \"a\"; port = 1; proto = \"x\"; } );", "unknown key services.proto"},
		{"services = ( { name = \"a\"; port = 1; }, { name = \"a\"; port = 2; } );",
			"two services have the name \"a\""},
		{"services = ( { name = \"a\"; port = 1; }, { name = \"b\"; port = 1; } );",
			"\"a\" and \"b\" have the same address and port"},
		{"gate: { max_tokens = 1; max_tokens = 2; };", "duplicate"},
		{"gate: { max_tokens = ; };", "syntax error"},
	};
	struct config config, defaults;
	char text[512], error[512], where[96];

	(void)state;
	config_defaults(&defaults);
	snprintf(where, sizeof(where), "%s:3: ", path);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "# one\nwriter: { user = \"changed\"; };\n%s\n", bad[i].line);
		if (!strncmp(bad[i].line, "writer", 6))
			snprintf(text, sizeof(text), "# one\n\n%s\n", bad[i].line);
		assert_int_equal(load(&config, text, error, sizeof(error)), -EINVAL);
		if (strncmp(error, where, strlen(where)) || !strstr(error, bad[i].words))
			fail_msg("%s\n gave: %s\n not: %s… %s", bad[i].line, error, where, bad[i].words);
		assert_memory_equal(&config, &defaults, sizeof(config)); /* taken whole or not at all */
	}
}

static void a_refused_url_is_not_repeated_with_its_password(void **state)
{
	struct config config;
	char error[512];

	(void)state;
	assert_int_equal(load(&config, "daemon: { webhook_url = \"https://shop:hunter2@shop.example/ x\"; };", error,
				 sizeof(error)),
		-EINVAL);
	assert_null(strstr(error, "hunter2"));
}

static void seventeen_services_are_one_too_many(void **state)
{
	char text[2048] = "services = (", error[512];
	struct config config;

	(void)state;
	for (int i = 0; i < 17; i++) {
		size_t used = strlen(text);

		snprintf(text + used, sizeof(text) - used, "%s { name = \"s%d\"; port = %d; }", i ? "," : "", i,
			100 + i);
		if (i == 15) {
			char whole[sizeof(text) + 4];

			snprintf(whole, sizeof(whole), "%s );", text);
			assert_int_equal(load(&config, whole, error, sizeof(error)), 0);
			assert_int_equal(config.service_count, 16);
		}
	}
	strcat(text, " );");
	assert_int_equal(load(&config, text, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "at most 16"));
	assert_int_equal(load(&config, "services = ();", error, sizeof(error)), 0);
	assert_int_equal(config.service_count, 0);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
	struct config config;
	char error[512];

	(void)state;
	config_defaults(&config);
	assert_int_equal(config_load(&config, "/nonexistent/sluice.conf", error, sizeof(error)), -ENOENT);
	assert_non_null(strstr(error, "/nonexistent/sluice.conf"));
	assert_int_equal(config_load(&config, "/tmp", error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "/tmp"));
}

static void hostile_bytes_do_no_harm(void **state)
{
	static const char whole[] =
		"services = ( { name = \"shop\"; address = \"any\"; port = 8080; kind = \"sale\"; } );\n"
		"gate: { pin_dir = \"/sys/fs/bpf/sluice\"; max_tokens = 262144; };\nlimits: { source: { rate = 50.0; burst = 100; }; };\n";
	const char *seed_text = getenv("SLUICE_SEED");
	unsigned seed = seed_text ? (unsigned)strtoul(seed_text, NULL, 0) : 20261122u;
	struct config config;
	char text[sizeof(whole)], error[512];

	(void)state;
	print_message("seed %u\n", seed);
	srandom(seed);
	for (size_t length = 0; length < sizeof(whole); length++) { /* cut at every byte */
		config_defaults(&config);
		load_bytes(&config, whole, length, error, sizeof(error));
	}
	for (int i = 0; i < 5000; i++) {
		int changes = 1 + (int)(random() % 8), err;

		memcpy(text, whole, sizeof(text));
		while (changes--)
			text[(size_t)random() % (sizeof(text) - 1)] = (char)random();
		config_defaults(&config);
		err = load_bytes(&config, text, sizeof(text) - 1, error, sizeof(error));
		assert_true(err == 0 || (err == -EINVAL && strlen(error) > 10 && strlen(error) < sizeof(error)));
		assert_in_range(config.service_count, 0, SLUICE_MAX_SERVICES);
		assert_non_null(memchr(config.gate.pin_dir, '\0', sizeof(config.gate.pin_dir)));
	}
	config_defaults(&config);
	assert_int_equal(load_bytes(&config, "gate: {};\n\0junk", 15, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, ":2: a NUL byte"));
}

/* The error buffer may be small; it must hold a terminated text all the same. */
static void a_short_error_buffer_is_respected(void **state)
{
	struct config config;
	char error[64];

	(void)state;
	for (size_t size = 1; size < sizeof(error); size++) {
		memset(error, 'x', sizeof(error));
		assert_int_equal(load(&config, "gate: { nonsense_key = 1; };", error, size), -EINVAL);
		assert_true(strlen(error) < size);
		assert_int_equal(error[size], 'x');
	}
}

static void limits_survive_the_way_to_the_gate_and_back(void **state)
{
	static const struct config_limit limits[] = {{0, 1}, {50, 100}, {2000, 4000}, {20000, 40000}, {3, 7}, {7.5, 1},
		{0.001, 1000000}, {1e9, 1}, {333333, 10}, {0.333, 2}};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct sluice_limit gate;
		struct config_limit back;

		config_limit_to_gate(&limits[i], &gate);
		config_limit_from_gate(&gate, &back);
		if (limits[i].rate > 0)
			assert_true(
				gate.interval_ns >= 1 && gate.tolerance_ns == (limits[i].burst - 1) * gate.interval_ns);
		else
			assert_true(gate.interval_ns == 0 && gate.tolerance_ns == 0);
		if (limits[i].rate < 1e5) /* whole ns are too coarse to tell 333333/s from 333333.3/s */
			assert_true(back.rate == limits[i].rate);
		assert_true(back.rate >= limits[i].rate * 0.9999 && back.rate <= limits[i].rate * 1.0001);
		assert_int_equal(back.burst, limits[i].burst);
	}
}

static void limits_have_their_names(void **state)
{
	(void)state;
	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		assert_int_equal(config_limit_id(config_limit_name((enum sluice_limit_id)id)), id);
	assert_int_equal(config_limit_id("nonsense"), -1);
	assert_null(config_limit_name(SLUICE_LIMIT_COUNT));
}

static int make_path(void **state)
{
	int fd;

	(void)state;
	strcpy(path, "/tmp/sluice-test-config-XXXXXX");
	fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_file_is_the_defaults),
		cmocka_unit_test(the_nodes_of_a_fleet_are_listed_by_id),
		cmocka_unit_test(the_example_file_is_the_defaults),
		cmocka_unit_test(every_key_is_taken),
		cmocka_unit_test(what_is_not_allowed_is_refused_with_its_line),
		cmocka_unit_test(a_refused_url_is_not_repeated_with_its_password),
		cmocka_unit_test(seventeen_services_are_one_too_many),
		cmocka_unit_test(a_file_that_cannot_be_read_is_named),
		cmocka_unit_test(hostile_bytes_do_no_harm),
		cmocka_unit_test(a_short_error_buffer_is_respected),
		cmocka_unit_test(limits_survive_the_way_to_the_gate_and_back),
		cmocka_unit_test(limits_have_their_names),
	};

	return cmocka_run_group_tests(tests, make_path, remove_path);
}
