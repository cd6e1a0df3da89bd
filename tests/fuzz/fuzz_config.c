/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: the config file (userspace/common/config.c, over libconfig).
 *
 * The input is the file. Claims: a file is taken whole or not at all; a refusal has a sentence; whatever is taken is within the ranges that
 * docs/sluice.conf.example gives; limits survive the way into the gate's form and back. Inputs with an @include are left out: they would
 * read files of this machine.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "common/addr.h"
#include "common/config.h"

#define ERROR_MAX 512

static int fd = -1;
static char path[64];

/* libconfig 1.5 loses what it was reading when the syntax is wrong. */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so\n";
}

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static void check_limit(const struct config_limit *limit)
{
	struct sluice_limit gate;
	struct config_limit back;

	CHECK(limit->rate == 0 || (limit->rate >= 0.001 && limit->rate <= 1e9), "rate %g", limit->rate);
	CHECK(limit->burst >= 1 && limit->burst <= 1000000, "burst %u", limit->burst);
	config_limit_to_gate(limit, &gate);
	config_limit_from_gate(&gate, &back);
	CHECK((limit->rate == 0) == (back.rate == 0), "rate %g became %g", limit->rate, back.rate);
	CHECK(limit->rate == 0 || back.burst == limit->burst, "burst %u became %u", limit->burst, back.burst);
}

static void check_services(const struct config *config)
{
	CHECK(config->service_count <= SLUICE_MAX_SERVICES, "%u services", config->service_count);
	for (unsigned i = 0; i < config->service_count; i++) {
		const struct sluice_service *service = &config->services[i];

		CHECK(service->port, "port 0");
		CHECK(service->kind == SLUICE_SERVICE_SALE || service->kind == SLUICE_SERVICE_TCP, "kind %u",
			service->kind);
		CHECK(*service->name && ends(service->name, sizeof(service->name)), "name");
		for (unsigned k = 0; k < i; k++)
			CHECK(strcmp(service->name, config->services[k].name) != 0, "two of one name");
	}
}

static void check_config(const struct config *config)
{
	uint32_t sets = config_rate_sets(config->gate.max_sources);

	CHECK(ends(config->gate.pin_dir, sizeof(config->gate.pin_dir)) && config->gate.pin_dir[0] == '/', "pin_dir");
	CHECK(config->gate.max_prefixes && config->gate.max_admissions && config->gate.max_tokens, "sizes");
	CHECK(config->gate.max_sources >= 1024 && !(sets & (sets - 1)) && sets, "max_sources");
	CHECK(config->gate.ring_bytes >= 65536 && !(config->gate.ring_bytes & (config->gate.ring_bytes - 1)), "ring");
	CHECK(config->daemon.threads >= 1 && config->daemon.threads <= 64, "threads");
	CHECK(ends(config->daemon.public_listen, sizeof(config->daemon.public_listen)), "public_listen");
	CHECK(ends(config->daemon.control_listen, sizeof(config->daemon.control_listen)), "control_listen");
	CHECK(ends(config->daemon.control_socket, sizeof(config->daemon.control_socket)), "control_socket");
	CHECK(ends(config->daemon.cors_origin, sizeof(config->daemon.cors_origin)), "cors_origin");
	CHECK(!strpbrk(config->daemon.cors_origin, "\r\n"), "cors_origin ends a header");
	CHECK(ends(config->writer.socket, sizeof(config->writer.socket)), "writer.socket");
	CHECK(ends(config->writer.ledger, sizeof(config->writer.ledger)), "writer.ledger");
	check_services(config);
	for (unsigned id = 0; id < SLUICE_LIMIT_COUNT; id++)
		check_limit(&config->limits[id]);
	check_limit(&config->daemon.issue_source);
	check_limit(&config->daemon.issue_buyer);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fd = memfd_create("sluice.conf", MFD_CLOEXEC);
	CHECK(fd >= 0, "memfd");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static struct config config, defaults;
	char error[ERROR_MAX] = "";
	int err;

	if (memmem(bytes, size, "@include", 8))
		return -1;
	CHECK(!ftruncate(fd, 0) && pwrite(fd, bytes, size, 0) == (ssize_t)size, "memfd");
	config_defaults(&config);
	config_defaults(&defaults);
	err = config_load(&config, path, error, sizeof(error));
	CHECK(!err || err == -EINVAL, "error %d", err);
	if (!err) {
		check_config(&config);
		return 0;
	}
	CHECK(!memcmp(&config, &defaults, sizeof(config)), "half a file was taken");
	CHECK(!strncmp(error, path, strlen(path)) && ends(error, sizeof(error)), "the sentence \"%s\"", error);
	return 0;
}
