/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The Lua scripts that are built in: their text, as it is sent, and its digest, by which Redis knows it. */
#ifndef SLUICE_FLEET_REDIS_SCRIPT_H
#define SLUICE_FLEET_REDIS_SCRIPT_H

#include <stddef.h>

#define REDIS_DIGEST_HEX 40

struct redis_script {
	const char *name; /* "settle" */
	char *text;       /* prelude.lua and the script's own file */
	size_t length;
	char digest[REDIS_DIGEST_HEX + 1];
};

/* A script whose text is not built in (tests). 0 or -ENOMEM; freed by redis_script_unmake. */
int redis_script_make(struct redis_script *script, const char *name, const char *text);
void redis_script_unmake(struct redis_script *script);

#endif
