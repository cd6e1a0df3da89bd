/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The table of scripts; see redis_script.h. Filled at the first look, from build/gen/fleet_scripts.h. */
#include "fleet/redis_script.h"

#include <errno.h>
#include <nettle/sha1.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/redis.h"
#include "fleet_scripts.h"

#define SUFFIX ".lua"
#define PRELUDE "prelude"
#define SCRIPTS_MAX (sizeof(web_assets) / sizeof(web_assets[0]))

static struct {
	pthread_once_t once;
	struct redis_script scripts[SCRIPTS_MAX];
	char names[SCRIPTS_MAX][48];
	unsigned count;
} table = {.once = PTHREAD_ONCE_INIT};

static void digest(struct redis_script *script)
{
	uint8_t bytes[SHA1_DIGEST_SIZE];
	struct sha1_ctx sha1;

	sha1_init(&sha1);
	sha1_update(&sha1, script->length, (const uint8_t *)script->text);
	sha1_digest(&sha1, sizeof(bytes), bytes);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		sprintf(script->digest + 2 * i, "%02x", bytes[i]);
}

int redis_script_make(struct redis_script *script, const char *name, const char *text)
{
	script->name = name;
	script->text = strdup(text);
	if (!script->text)
		return -ENOMEM;
	script->length = strlen(text);
	digest(script);
	return 0;
}

void redis_script_unmake(struct redis_script *script)
{
	free(script->text);
	memset(script, 0, sizeof(*script));
}

static const struct web_asset *find_asset(const char *name)
{
	size_t length = strlen(name);

	for (const struct web_asset *asset = web_assets; asset->name; asset++)
		if (!strncmp(asset->name, name, length) && !strcmp(asset->name + length, SUFFIX))
			return asset;
	return NULL;
}

static void add(const struct web_asset *prelude, const struct web_asset *asset)
{
	size_t name_length = strlen(asset->name) - strlen(SUFFIX);
	struct redis_script *script = &table.scripts[table.count];
	char *text;

	if (name_length >= sizeof(table.names[0]))
		return;
	text = malloc(prelude->size + asset->size + 2);
	if (!text)
		return;
	memcpy(table.names[table.count], asset->name, name_length);
	memcpy(text, prelude->bytes, prelude->size);
	text[prelude->size] = '\n';
	memcpy(text + prelude->size + 1, asset->bytes, asset->size);
	script->name = table.names[table.count++];
	script->text = text;
	script->length = prelude->size + 1 + asset->size;
	text[script->length] = '\0';
	digest(script);
}

static void fill(void)
{
	static const struct web_asset none = {"", (const unsigned char *)"", 0};
	const struct web_asset *prelude = find_asset(PRELUDE);

	for (const struct web_asset *asset = web_assets; asset->name; asset++)
		if (asset != prelude)
			add(prelude ? prelude : &none, asset);
}

const struct redis_script *redis_script_find(const char *name)
{
	pthread_once(&table.once, fill);
	for (unsigned i = 0; i < table.count; i++)
		if (!strcmp(table.scripts[i].name, name))
			return &table.scripts[i];
	return NULL;
}
