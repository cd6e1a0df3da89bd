/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What one Redis can do for a fleet: calls the scripts of userspace/fleet/scripts/ as daemons do (EVALSHA, the same texts, with prelude.lua before
 * them), as fast as they are answered, and prints one JSON object. capacity.py starts it beside a redis-server of its own: everything in that
 * server is thrown away.
 *
 *   redis_load --port N --script grant|settle|append|home|report --nodes N --size N --connections N --depth N --seconds S
 *   redis_load --digests NAME…             prints "DIGEST NAME" of these scripts, and nothing else
 *
 * --nodes: rows in the hash of the sale, all of which take part. --size: units of a grant, events of an append, buyers of a question for homes, bytes
 * of a report. --depth: calls under way on each connection. A connection stands for the nodes NUMBER, NUMBER + connections, …, in turn.
 * Every answer is looked at: one that is not what a daemon would go on with ends the run.
 */
#include <getopt.h>
#include <hiredis/hiredis.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../tool.h"
#include "fleet/lease.h"
#include "fleet/redis.h"
#include "fleet/redis_script.h"

#define NS_PER_S 1000000000ULL
#define WARM_UP_NS (NS_PER_S / 5)
#define STOCK_KEY "bench:{sale}:stock"
#define HOMES_KEY "bench:{sale}:homes"
#define STREAM_KEY "bench:{sale}:orders"
#define CURSORS_KEY "bench:{sale}:cursors"
#define NODES_KEY "bench:{fleet}:nodes"
#define SETTINGS_KEY "bench:{fleet}:settings"
#define KEYS_KEY "bench:{fleet}:keys"
#define AUDIT_KEY "bench:{fleet}:audit"
#define CHANNEL "bench:news"
#define TOTAL 100000000000LL
#define CONNECTIONS_MAX 256
#define NODES_MAX LEASE_NODE_MAX
#define ARGUMENTS_MAX 4096
#define TEXT_MAX (1u << 21)
/* Places in a lease's answer: struct lease_reply. */
#define REPLY_GENERATION 1
#define REPLY_UNITS 14
#define REPLY_RUN 19
#define REPLY_TIME 20

/* A call under construction: EVALSHA, digest, number of keys, keys, arguments. */
static struct {
	const char *argv[ARGUMENTS_MAX];
	int argc;
	char text[TEXT_MAX];
	size_t used;
} call;

static struct node {
	int64_t seq, balance, position;
} nodes[NODES_MAX + 1];

static struct connection {
	redisContext *redis;
	unsigned node;    /* whose turn it is */
	unsigned waiting; /* answers */
} connections[CONNECTIONS_MAX];

static struct {
	int port;
	const char *script;
	unsigned nodes, size, connections, depth;
	double seconds;
} load = {.nodes = 3, .size = 1, .connections = 1, .depth = 1, .seconds = 1};

static struct {
	uint64_t calls, units;
} seen;

static char members[LEASE_MEMBERS_TEXT_MAX], generation[LEASE_GENERATION_MAX] = "", homes_gen[256] = "", expires[24];
static uint64_t buyers;

/* --- calls as texts ---------------------------------------------------------------------------------------------------------------- */
static void add(const char *text)
{
	size_t size = strlen(text) + 1;

	if (call.argc == ARGUMENTS_MAX || call.used + size > sizeof(call.text))
		die("--size: too much for one call");
	call.argv[call.argc++] = memcpy(call.text + call.used, text, size);
	call.used += size;
}

static void add_number(int64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)number);
	add(text);
}

static const struct redis_script *find(const char *name)
{
	const struct redis_script *found = redis_script_find(name);

	if (!found)
		die("there is no script %s", name);
	return found;
}

/* `keys`: ends with NULL. */
static void begin(const char *script, const char *const *keys)
{
	unsigned count = 0;

	while (keys[count])
		count++;
	call.argc = 0;
	call.used = 0;
	add("EVALSHA");
	add(find(script)->digest);
	add_number(count);
	for (unsigned i = 0; i < count; i++)
		add(keys[i]);
}

/* The 13 arguments that every script of the lease protocol begins with (prelude.lua, lease_open). The node has sold all that it was ever given. */
static void begin_lease(const char *script, unsigned node, int64_t seq, int64_t written)
{
	begin(script, (const char *const[]){STOCK_KEY, NULL});
	add(generation);
	add_number(node);
	add_number(0); /* epoch */
	add_number(seq);
	add_number(nodes[node].balance);
	add_number(0); /* unsold */
	add_number(*generation ? TOTAL : 0);
	add_number(*generation ? 1 : 0); /* version */
	add(*generation ? "made" : "");
	add_number(1000); /* rate: a unit a second */
	add(members);
	add_number(0); /* fence_after */
	add(CHANNEL);
	add("here");         /* origin */
	add_number(written); /* of the ledger's last operation */
}

static void build_grant(unsigned node)
{
	int64_t written = nodes[node].seq++;

	begin_lease("grant", node, nodes[node].seq, written);
	add_number(load.size);
	add_number(0);
	nodes[node].balance += load.size; /* there is more than enough */
}

static void build_settle(unsigned node)
{
	begin_lease("settle", node, nodes[node].seq, nodes[node].seq);
}

/* An order as fleet_stream_entry.c makes it. */
static void build_append(unsigned node)
{
	char entry[1024];

	begin("stream_append", (const char *const[]){STREAM_KEY, CURSORS_KEY, NULL});
	add_number(node);
	add_number(nodes[node].position);
	for (unsigned i = 0; i < load.size; i++) {
		long long position = (long long)++nodes[node].position;

		add_number(position);
		snprintf(entry, sizeof(entry),
			"[\"type\",\"order.held\",\"sale\",\"drop-11\",\"node\",\"%u\",\"position\",\"%lld\",\"at\",\"2026-11-22T12:00:00.%06lldZ\","
			"\"id\",\"ord_%u-%016llx\",\"seq\",\"%lld\",\"state\",\"held\",\"quantity\",\"1\",\"buyer\",\"%016llx\",\"source\",\"203.0.113.77\","
			"\"network\",\"203.0.113.0/24\",\"admitted_at\",\"2026-11-22T12:00:00.%06lldZ\",\"committed_at\",\"2026-11-22T12:00:00.%06lldZ\","
			"\"expires_at\",\"2026-11-22T12:15:00.000000Z\",\"resolved_at\",\"\",\"resolved_by\",\"\",\"restocked\",\"\"]",
			node, position, position % 1000000, node, (unsigned long long)position, position,
			(unsigned long long)position * 0x9e3779b97f4a7c15ULL, position % 1000000, position % 1000000);
		add(entry);
	}
}

static void begin_homes(const char *op, unsigned node)
{
	begin("home", (const char *const[]){HOMES_KEY, STOCK_KEY, NULL});
	add(op);
	add_number(node);
	add(members);
	add(CHANNEL);
	add(expires);
	add(homes_gen);
}

static void build_home(unsigned node)
{
	char buyer[17];

	begin_homes("ask", node);
	for (unsigned i = 0; i < load.size; i++) {
		snprintf(buyer, sizeof(buyer), "%016llx", (unsigned long long)++buyers * 0x9e3779b97f4a7c15ULL);
		add(buyer);
	}
}

static void build_report(unsigned node)
{
	static char report[65536];

	if (load.size >= sizeof(report))
		die("--size: a report of %u bytes", load.size);
	if (!*report)
		memset(report, 'x', load.size);
	begin("node_report", (const char *const[]){NODES_KEY, SETTINGS_KEY, KEYS_KEY, AUDIT_KEY, NULL});
	add_number(node);
	add(report);
	add("604800000");
}

/* --- answers ------------------------------------------------------------------------------------------------------------------------- */
static const char *text_at(const redisReply *reply, size_t index)
{
	if (reply->type != REDIS_REPLY_ARRAY || index >= reply->elements || !reply->element[index]->str)
		die("the answer has no text at place %zu: %s", index, reply->str ? reply->str : "");
	return reply->element[index]->str;
}

static void expect(const redisReply *reply, size_t index, const char *wanted)
{
	if (strcmp(text_at(reply, index), wanted))
		die("the answer is %s (place %zu) and not %s", text_at(reply, index), index, wanted);
}

static uint64_t check_grant(const redisReply *reply)
{
	char units[16];

	snprintf(units, sizeof(units), "%u", load.size);
	expect(reply, 0, "ok");
	expect(reply, REPLY_UNITS, units);
	return load.size;
}

static uint64_t check_settle(const redisReply *reply)
{
	expect(reply, 0, "ok");
	return 1;
}

static uint64_t check_append(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[1]->integer != load.size)
		die("not all events were appended: %s", reply->str ? reply->str : "");
	return load.size;
}

static uint64_t check_home(const redisReply *reply)
{
	expect(reply, 1, "open");
	if (reply->elements != 3 + load.size)
		die("%zu answers for %u buyers", reply->elements - 3, load.size);
	for (unsigned i = 0; i < load.size; i++)
		if (!strcmp(text_at(reply, 3 + i), "0"))
			die("a buyer was given no home");
	return load.size;
}

static uint64_t check_report(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
		die("no list of nodes: %s", reply->str ? reply->str : "");
	return 1;
}

static const struct kind {
	const char *name;
	void (*build)(unsigned node);
	uint64_t (*check)(const redisReply *reply); /* returns units, events, homes */
} kinds[] = {
	{"grant", build_grant, check_grant},
	{"settle", build_settle, check_settle},
	{"append", build_append, check_append},
	{"home", build_home, check_home},
	{"report", build_report, check_report},
};

/* --- one call after another ------------------------------------------------------------------------------------------------------------ */
static redisReply *answer_of(redisContext *redis)
{
	redisReply *reply;

	if (redisGetReply(redis, (void **)&reply))
		die("redis: %s", redis->errstr);
	if (reply->type == REDIS_REPLY_ERROR)
		die("redis answers: %s", reply->str);
	return reply;
}

static redisReply *ask(redisContext *redis)
{
	redisAppendCommandArgv(redis, call.argc, call.argv, NULL);
	return answer_of(redis);
}

static void command(redisContext *redis, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	redisvAppendCommand(redis, format, args);
	va_end(args);
	freeReplyObject(answer_of(redis));
}

static void make_sale(redisContext *redis)
{
	char run[LEASE_RUN_MAX], at[32];
	redisReply *reply;

	begin_lease("settle", 1, 0, 0);
	reply = ask(redis);
	expect(reply, 0, "absent");
	snprintf(run, sizeof(run), "%s", text_at(reply, REPLY_RUN));
	snprintf(at, sizeof(at), "%s", text_at(reply, REPLY_TIME));
	freeReplyObject(reply);
	begin_lease("total", 1, 0, 0);
	add("made");
	add_number(TOTAL);
	add(run);
	add(at);
	reply = ask(redis);
	expect(reply, 0, "ok");
	snprintf(generation, sizeof(generation), "%s", text_at(reply, REPLY_GENERATION));
	freeReplyObject(reply);
	for (unsigned node = 1; node <= load.nodes; node++) {
		build_settle(node);
		reply = ask(redis);
		expect(reply, 0, "ok");
		freeReplyObject(reply);
	}
}

/* Every node says that it knows nobody. */
static void open_homes(redisContext *redis)
{
	redisReply *reply;

	begin_homes("ask", 1);
	reply = ask(redis);
	snprintf(homes_gen, sizeof(homes_gen), "%s", text_at(reply, 0));
	freeReplyObject(reply);
	for (unsigned node = 1; node <= load.nodes; node++) {
		begin_homes("tell", node);
		add("1");
		reply = ask(redis);
		expect(reply, 0, "told");
		freeReplyObject(reply);
	}
}

static void prepare(redisContext *redis)
{
	static const char *const used[] = {"grant", "settle", "total", "stream_append", "home", "node_report"};

	command(redis, "FLUSHALL");
	for (unsigned i = 0; i < sizeof(used) / sizeof(used[0]); i++)
		command(redis, "SCRIPT LOAD %b", find(used[i])->text, find(used[i])->length);
	for (unsigned node = 1; node <= load.nodes; node++)
		snprintf(members + strlen(members), sizeof(members) - strlen(members), "%s%u", node > 1 ? "," : "",
			node);
	snprintf(expires, sizeof(expires), "%lld", (long long)time(NULL) + 3600);
	make_sale(redis);
	open_homes(redis);
}

/* --- the load -------------------------------------------------------------------------------------------------------------------------- */
static void send_some(const struct kind *kind, unsigned number)
{
	struct connection *c = &connections[number];
	int done = 0;

	for (; c->waiting < load.depth; c->waiting++) {
		kind->build(c->node);
		redisAppendCommandArgv(c->redis, call.argc, call.argv, NULL);
		c->node += load.connections;
		if (c->node > load.nodes)
			c->node = number + 1;
	}
	while (!done)
		if (redisBufferWrite(c->redis, &done))
			die("redis: %s", c->redis->errstr);
}

static void take_all(const struct kind *kind, struct connection *c)
{
	for (; c->waiting; c->waiting--) {
		redisReply *reply = answer_of(c->redis);

		seen.units += kind->check(reply);
		seen.calls++;
		freeReplyObject(reply);
	}
}

/* While the answers of one connection are read, Redis works at the others. */
static void run_until(const struct kind *kind, uint64_t end_ns)
{
	for (unsigned number = 0; number < load.connections; number++)
		send_some(kind, number);
	while (time_mono_ns() < end_ns)
		for (unsigned number = 0; number < load.connections; number++) {
			take_all(kind, &connections[number]);
			send_some(kind, number);
		}
	for (unsigned number = 0; number < load.connections; number++)
		take_all(kind, &connections[number]);
}

struct cpu_us {
	double all, main_thread;
};

static double seconds_of(const char *info, const char *name)
{
	const char *at = strstr(info, name);

	if (!at)
		die("INFO cpu has no %s", name);
	return strtod(at + strlen(name), NULL);
}

static struct cpu_us cpu_of(redisContext *redis)
{
	struct cpu_us us;
	redisReply *reply;

	redisAppendCommand(redis, "INFO cpu");
	reply = answer_of(redis);
	us.all = 1e6 * (seconds_of(reply->str, "used_cpu_sys:") + seconds_of(reply->str, "used_cpu_user:"));
	us.main_thread = 1e6 *
		(seconds_of(reply->str, "used_cpu_sys_main_thread:") +
			seconds_of(reply->str, "used_cpu_user_main_thread:"));
	freeReplyObject(reply);
	return us;
}

static void run(const struct kind *kind)
{
	struct cpu_us before, after;
	uint64_t began;

	for (unsigned number = 0; number < load.connections; number++) {
		connections[number].node = number + 1;
		connections[number].redis = redisConnect("127.0.0.1", load.port);
		if (!connections[number].redis || connections[number].redis->err)
			die("cannot connect to port %d", load.port);
	}
	prepare(connections[0].redis);
	run_until(kind, time_mono_ns() + WARM_UP_NS);
	memset(&seen, 0, sizeof(seen));
	before = cpu_of(connections[0].redis);
	began = time_mono_ns();
	run_until(kind, began + (uint64_t)(load.seconds * (double)NS_PER_S));
	began = time_mono_ns() - began;
	after = cpu_of(connections[0].redis);
	printf("{\"calls\": %llu, \"units\": %llu, \"seconds\": %.6f, \"cpu_us\": %.0f, \"main_thread_us\": %.0f}\n",
		(unsigned long long)seen.calls, (unsigned long long)seen.units, (double)began / (double)NS_PER_S,
		after.all - before.all, after.main_thread - before.main_thread);
	command(connections[0].redis, "FLUSHALL");
	for (unsigned number = 0; number < load.connections; number++)
		redisFree(connections[number].redis);
}

static void print_digests(char **names)
{
	for (; *names; names++)
		printf("%s %s\n", find(*names)->digest, *names);
	exit(0);
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"port", 1, NULL, 'p'}, {"script", 1, NULL, 's'},
		{"nodes", 1, NULL, 'n'}, {"size", 1, NULL, 'z'}, {"connections", 1, NULL, 'c'}, {"depth", 1, NULL, 'd'},
		{"seconds", 1, NULL, 't'}, {"digests", 0, NULL, 'g'}, {0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 'p':
			load.port = atoi(optarg);
			break;
		case 's':
			load.script = optarg;
			break;
		case 'n':
			load.nodes = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'z':
			load.size = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'c':
			load.connections = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'd':
			load.depth = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 't':
			load.seconds = strtod(optarg, NULL);
			break;
		case 'g':
			print_digests(argv + optind);
			break;
		default:
			exit(2);
		}
	if (!load.port || !load.script || !load.size || !load.depth || load.seconds <= 0)
		die("--port, --script, --size, --depth and --seconds are needed");
	if (!load.nodes || load.nodes > NODES_MAX || !load.connections || load.connections > load.nodes ||
		load.connections > CONNECTIONS_MAX)
		die("--nodes: 1..%d, --connections: 1..nodes", NODES_MAX);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, load.script)) {
			run(&kinds[i]);
			return 0;
		}
	die("--script: there is no load %s", load.script);
}
