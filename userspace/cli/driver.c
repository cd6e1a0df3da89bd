/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Driver and counters of an interface, by the ethtool ioctl; see driver.h. */
#include "cli/driver.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNTERS_MAX 65536 /* a card with hundreds of queues has some thousands */

bool driver_counts_drops(const char *counter)
{
	static const char *const endings[] = {"err", "drop", "full"};
	const char *tx = strstr(counter, "xdp_tx");

	for (size_t i = 0; tx && i < sizeof(endings) / sizeof(endings[0]); i++)
		if (strstr(tx, endings[i]))
			return true;
	return false;
}

bool driver_is_veth(const struct driver *driver)
{
	return !strcmp(driver->name, "veth");
}

static bool ask(int fd, const char *interface, void *question)
{
	struct ifreq request = {0};

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
	request.ifr_data = question;
	return !ioctl(fd, SIOCETHTOOL, &request);
}

static void read_counters(int fd, const char *interface, unsigned count, struct driver *driver)
{
	struct ethtool_gstrings *names = calloc(1, sizeof(*names) + (size_t)count * ETH_GSTRING_LEN);
	struct ethtool_stats *values = calloc(1, sizeof(*values) + count * sizeof(values->data[0]));

	if (!names || !values)
		goto out;
	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = ETH_SS_STATS;
	names->len = count;
	values->cmd = ETHTOOL_GSTATS;
	values->n_stats = count;
	if (!ask(fd, interface, names) || !ask(fd, interface, values))
		goto out;
	for (unsigned i = 0; i < count; i++) {
		char name[DRIVER_NAME_MAX];

		snprintf(name, sizeof(name), "%.*s", ETH_GSTRING_LEN - 1,
			(const char *)names->data + (size_t)i * ETH_GSTRING_LEN);
		if (!driver_counts_drops(name) || values->data[i] <= driver->dropped)
			continue;
		driver->dropped = values->data[i];
		memcpy(driver->counter, name, sizeof(name));
	}
out:
	free(names);
	free(values);
}

void driver_ask(const char *interface, struct driver *driver)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memset(driver, 0, sizeof(*driver));
	if (fd < 0)
		return;
	if (ask(fd, interface, &info)) {
		snprintf(driver->name, sizeof(driver->name), "%.*s", (int)sizeof(info.driver) - 1, info.driver);
		if (info.n_stats && info.n_stats <= COUNTERS_MAX)
			read_counters(fd, interface, info.n_stats, driver);
	}
	close(fd);
}
