/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The scripts, run by Lua 5.1 as Redis 7.0 does: KEYS and ARGV are globals, other globals may be neither made nor read, redis.call raises errors
 * and converts what it returns. Only the commands are there that the protocol may use, and only its one key.
 */
#include "coordinator.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet_scripts.h"

#define KEY "sluice:{drop-11}:stock"
#define SOURCE_MAX 65536

static lua_State *lua;
static struct process *running;
static uint64_t running_ns;
static struct answer *answering;
static const char *const script_names[] = {"settle", "grant", "return", "fence", "total", "rebuild", "show"};
#define SCRIPTS (sizeof(script_names) / sizeof(script_names[0]))
static int chunks[SCRIPTS];

const char *store_get(const struct store *store, const char *name)
{
	for (unsigned i = 0; i < store->count; i++)
		if (strcmp(store->fields[i].name, name) == 0)
			return store->fields[i].value;
	return NULL;
}

static void store_set(struct store *store, const char *name, const char *value)
{
	unsigned i;

	if (strlen(name) >= sizeof(store->fields[0].name) || strlen(value) >= STORE_VALUE_MAX)
		luaL_error(lua, "the simulation has no room for field %s = %s", name, value);
	for (i = 0; i < store->count && strcmp(store->fields[i].name, name) != 0; i++)
		;
	if (i == STORE_FIELDS)
		luaL_error(lua, "the simulation has no room for another field");
	if (i == store->count)
		strcpy(store->fields[store->count++].name, name);
	strcpy(store->fields[i].value, value);
}

/* An argument of redis.call: a string, or a number as Redis writes it. */
static const char *word(lua_State *L, int index)
{
	static char numbers[8][40];
	static unsigned next;

	if (lua_type(L, index) == LUA_TSTRING)
		return lua_tostring(L, index);
	if (lua_type(L, index) != LUA_TNUMBER)
		luaL_error(L, "Lua redis() command arguments must be strings or integers");
	next = (next + 1) % 8;
	snprintf(numbers[next], sizeof(numbers[next]), "%.17g", lua_tonumber(L, index));
	return numbers[next];
}

static void key_check(lua_State *L)
{
	if (lua_gettop(L) < 2 || strcmp(word(L, 2), KEY) != 0)
		luaL_error(L, "a key that was not declared");
}

/* The sections that are asked for, in the order of Redis. */
static void info_push(lua_State *L)
{
	char text[512] = "";
	size_t used = 0;
	bool server = false, replication = false;

	for (int i = 2; i <= lua_gettop(L); i++) {
		server |= strcmp(word(L, i), "server") == 0;
		replication |= strcmp(word(L, i), "replication") == 0;
	}
	if (server)
		used += (size_t)snprintf(text, sizeof(text),
			"# Server\r\nredis_version:7.0.15\r\nprocess_id:1\r\nrun_id:%s\r\ntcp_port:6379\r\n",
			running->run);
	if (replication)
		snprintf(text + used, sizeof(text) - used,
			"%s# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:%s\r\nmaster_replid2:%040d\r\n",
			server ? "\r\n" : "", running->replid, 0);
	lua_pushstring(L, text);
}

static int redis_call(lua_State *L)
{
	const char *command = word(L, 1);
	int count = lua_gettop(L);
	char text[256];

	if (strcmp(command, "TIME") == 0) {
		int64_t us = (int64_t)(running_ns / 1000) + running->clock_us;

		lua_newtable(L);
		snprintf(text, sizeof(text), "%lld", (long long)(us / 1000000));
		lua_pushstring(L, text);
		lua_rawseti(L, -2, 1);
		snprintf(text, sizeof(text), "%lld", (long long)(us % 1000000));
		lua_pushstring(L, text);
		lua_rawseti(L, -2, 2);
	} else if (strcmp(command, "INFO") == 0) {
		info_push(L);
	} else if (strcmp(command, "HGETALL") == 0) {
		key_check(L);
		lua_createtable(L, (int)running->store.count * 2, 0);
		for (unsigned i = 0; i < running->store.count; i++) {
			lua_pushstring(L, running->store.fields[i].name);
			lua_rawseti(L, -2, (int)i * 2 + 1);
			lua_pushstring(L, running->store.fields[i].value);
			lua_rawseti(L, -2, (int)i * 2 + 2);
		}
	} else if (strcmp(command, "HSET") == 0) {
		key_check(L);
		if (count < 4 || count % 2)
			luaL_error(L, "wrong number of arguments for 'hset'");
		for (int i = 3; i < count; i += 2)
			store_set(&running->store, word(L, i), word(L, i + 1));
		lua_pushnumber(L, (count - 2) / 2);
	} else if (strcmp(command, "PUBLISH") == 0) {
		if (count != 3)
			luaL_error(L, "wrong number of arguments for 'publish'");
		answering->said = true;
		lua_pushnumber(L, 1);
	} else {
		luaL_error(L, "a command that the simulation does not know: %s", command);
	}
	return 1;
}

static int global_refused(lua_State *L)
{
	return luaL_error(L, "Script attempted to access global variable '%s'", lua_tostring(L, 2));
}

static const struct web_asset *asset(const char *name)
{
	for (const struct web_asset *found = web_assets; found->name; found++)
		if (strncmp(found->name, name, strlen(name)) == 0 && strcmp(found->name + strlen(name), ".lua") == 0)
			return found;
	fprintf(stderr, "sim: there is no script %s.lua\n", name);
	exit(1);
}

/* `from`, which must be there once in what begins at `in`, becomes `to`. */
static void source_edit(char *source, char *in, const char *script, const char *what, const char *from, const char *to)
{
	char *at = strstr(in, from), *tail;

	if (!at || strstr(at + 1, from)) {
		fprintf(stderr, "sim: %s has no place, or more than one, in %s.lua\n", what, script);
		exit(1);
	}
	tail = strdup(at + strlen(from));
	if (!tail || (size_t)(at - source) + strlen(to) + strlen(tail) >= SOURCE_MAX)
		abort();
	strcpy(at, to);
	strcat(at, tail);
	free(tail);
}

static void source_add(char *source, const char *name, const struct script_plant *plant)
{
	const struct web_asset *found = asset(name);
	size_t used = strlen(source);

	if (used + found->size >= SOURCE_MAX)
		abort();
	memcpy(source + used, found->bytes, found->size);
	source[used + found->size] = '\0';
	for (unsigned i = 0; plant && i < sizeof(plant->edits) / sizeof(plant->edits[0]) && plant->edits[i].script; i++)
		if (strcmp(plant->edits[i].script, name) == 0)
			source_edit(source, source + used, name, plant->name, plant->edits[i].from, plant->edits[i].to);
}

void coordinator_open(const struct script_plant *plant, const char *silent_ms)
{
	static char source[SOURCE_MAX];
	char silent[64];

	snprintf(silent, sizeof(silent), "LEASE_SILENT_MS = %s", silent_ms ? silent_ms : "");
	lua = luaL_newstate();
	if (!lua)
		abort();
	luaL_openlibs(lua);
	lua_gc(lua, LUA_GCSETPAUSE, 1000); /* memory is cheap here, and time is not */
	lua_newtable(lua);
	lua_pushcfunction(lua, redis_call);
	lua_setfield(lua, -2, "call");
	lua_setglobal(lua, "redis");
	for (unsigned i = 0; i < SCRIPTS; i++) {
		*source = '\0';
		source_add(source, "prelude", plant);
		if (silent_ms)
			source_edit(
				source, source, "prelude", "the time of silence", "LEASE_SILENT_MS = 20000", silent);
		source_add(source, script_names[i], plant);
		if (luaL_loadbuffer(lua, source, strlen(source), script_names[i]) != 0) {
			fprintf(stderr, "sim: %s\n", lua_tostring(lua, -1));
			exit(1);
		}
		chunks[i] = luaL_ref(lua, LUA_REGISTRYINDEX);
	}
	lua_newtable(lua);
	lua_pushcfunction(lua, global_refused);
	lua_setfield(lua, -2, "__index");
	lua_pushcfunction(lua, global_refused);
	lua_setfield(lua, -2, "__newindex");
	lua_setmetatable(lua, LUA_GLOBALSINDEX);
}

void coordinator_close(void)
{
	lua_close(lua);
	lua = NULL;
}

static void global_list(const char *name, const char *const *words, unsigned count)
{
	lua_pushstring(lua, name);
	lua_createtable(lua, (int)count, 0);
	for (unsigned i = 0; i < count; i++) {
		lua_pushstring(lua, words[i]);
		lua_rawseti(lua, -2, (int)i + 1);
	}
	lua_rawset(lua, LUA_GLOBALSINDEX);
}

static int run(lua_State *L)
{
	const struct lease_call *call = lua_touserdata(L, 1);
	const char *arguments[LEASE_ARGUMENTS_MAX];
	static const char *const keys[] = {KEY};
	unsigned i;

	for (i = 0; i < SCRIPTS && strcmp(script_names[i], call->script) != 0; i++)
		;
	if (i == SCRIPTS)
		return luaL_error(L, "there is no script %s", call->script);
	for (unsigned j = 0; j < call->count; j++)
		arguments[j] = lease_call_argument(call, j);
	global_list("KEYS", keys, 1);
	global_list("ARGV", arguments, call->count);
	lua_rawgeti(L, LUA_REGISTRYINDEX, chunks[i]);
	lua_call(L, 0, 1);
	if (!lua_istable(L, -1))
		return luaL_error(L, "%s answered no array", call->script);
	return 1;
}

void coordinator_run(struct process *process, uint64_t now_ns, const struct lease_call *call, struct answer *answer)
{
	running = process;
	running_ns = now_ns;
	answering = answer;
	*answer = (struct answer){0};
	lua_settop(lua, 0);
	lua_pushcfunction(lua, run);
	lua_pushlightuserdata(lua, (void *)call);
	if (lua_pcall(lua, 1, 1, 0) != 0) {
		answer->error = true;
		snprintf(answer->message, sizeof(answer->message), "%s", lua_tostring(lua, -1));
		return;
	}
	answer->count = (unsigned)lua_objlen(lua, -1);
	if (answer->count > sizeof(answer->texts) / sizeof(answer->texts[0])) {
		answer->error = true;
		return;
	}
	for (unsigned i = 0; i < answer->count; i++) {
		lua_rawgeti(lua, 1, (int)i + 1);
		/* A number would reach the node as an integer, cut. */
		if (lua_type(lua, -1) != LUA_TSTRING) {
			answer->error = true;
			snprintf(answer->message, sizeof(answer->message), "text %u of the answer is none", i + 1);
			return;
		}
		answer->texts[i] = lua_tolstring(lua, -1, &answer->lengths[i]);
	}
}
