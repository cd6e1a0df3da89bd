/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See pin_name.h. Used by the loader, which makes the pins, and by the daemon, which reads their names. */
#include "common/pin_name.h"

#include <stdio.h>
#include <string.h>

#define COEXIST_PREFIX "coexist-"

static void replace(char *text, char from, char to)
{
	for (; *text; text++)
		if (*text == from)
			*text = to;
}

char *pin_name_of_interface(const char *interface, bool coexist, char *name, size_t size)
{
	snprintf(name, size, "%s%s", coexist ? COEXIST_PREFIX : PIN_LINK_PREFIX, interface);
	replace(name, '.', ':');
	return name;
}

static bool has_prefix(const char *pin, const char *prefix, char *interface)
{
	size_t length = strlen(prefix);

	if (strncmp(pin, prefix, length) || !pin[length] || strlen(pin + length) >= IF_NAMESIZE)
		return false;
	snprintf(interface, IF_NAMESIZE, "%s", pin + length);
	replace(interface, ':', '.');
	return true;
}

bool pin_name_to_interface(const char *pin, char *interface, bool *coexist)
{
	*coexist = has_prefix(pin, COEXIST_PREFIX, interface);
	return *coexist || has_prefix(pin, PIN_LINK_PREFIX, interface);
}
