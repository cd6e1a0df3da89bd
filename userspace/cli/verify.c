/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice verify`: the invariants and the equation, checked from outside: what the ledger says, what the gate's maps say, and what the daemon believes.
 *
 * While a sale runs, something is always on its way. So what a look finds counts only if another look a second later finds the same of the same
 * order, buyer or word, and the words of a sale are compared at a moment at which they stood still. What never stood still is said to be unchecked.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/loader_args.h"
#include "cli/table.h"
#include "cli/verify.h"
#include "cli/verify_fleet.h"
#include "common/maps.h"
#include "common/timefmt.h"

#define LOOKS_MAX 6
#define PAUSE_S 1

static const struct loader_command command = {
	.usage =
		"usage: sluice verify [-o table|json] [--from file|daemon] [--repair [--dry-run]] [--config FILE] [--pin-dir DIR]\n"
		"       sluice verify --fleet [-o table|json] [--config FILE] [--socket PATH]\n\n"
		"Reads ledger and gate side by side, checks the invariants I1 to I6 and that put in = free + held +\n"
		"confirmed + on its way, and names every difference. A running sale is looked at more than once.\n\n"
		"  -o, --output FORM   table (default) or json\n"
		"      --from SOURCE   file: the ledger's SQLite file; daemon: by the control API (default: the file, where\n"
		"                      the ledger is one)\n"
		"      --repair        set the gate's words right where the ledger says what is right and nothing is on its\n"
		"                      way: free units, units of a buyer, admissions in flight. Never the ledger\n"
		"      --dry-run       with --repair: only say what would be done\n"
		"      --fleet         the equation over all nodes instead: total = free + leased to the nodes, and leased to a\n"
		"                      node = put in by its ledger. Each node is asked for what its ledger says\n"
		"      --socket PATH   control socket of the daemon, instead of the config's\n"
		"  -c, --config FILE   instead of " CONFIG_DEFAULT_PATH "\n"
		"  -p, --pin-dir DIR   instead of the config's\n\n"
		"Exit codes: 0 nothing differs, 1 failed, 2 usage, 3 no ledger, 4 another ABI version, 5 not allowed,\n"
		"6 daemon unreachable, 7 an invariant is broken\n",
	.takes_output = true,
	.takes_repair = true,
	.takes_fleet = true,
};

struct verify {
	const struct loader_args *args;
	struct config config;
	struct gate_maps maps;
	bool attached, from_daemon;
	char ledger_path[CONFIG_PATH_MAX];
	struct cli_api *api;
	/* of the last look */
	struct verify_ledger ledger;
	struct verify_gate *gate;
	struct verify_result result;
	unsigned looks;
	bool has_accounts;
};

/* --- looking ------------------------------------------------------------------------------------------------------------------- */
static void forget_look(struct verify *v)
{
	verify_result_free(&v->result);
	verify_ledger_free(&v->ledger);
	verify_gate_free(v->gate);
}

/* One look, as v->ledger, v->gate and v->result. */
static int look(struct verify *v)
{
	struct verify_accounts accounts = {0};
	int code = CLI_OK;

	memset(v->gate, 0, sizeof(*v->gate));
	v->has_accounts = false;
	if (v->attached)
		code = verify_gate_read(&v->maps, v->gate);
	if (!code)
		code = v->from_daemon ? verify_read_daemon(v->api, &v->ledger)
				      : verify_read_file(v->ledger_path, VERIFY_OUR_OWN, &v->ledger);
	/* What the daemon believes is told apart from what is read through it. */
	if (!code && v->gate->alive && !v->from_daemon) {
		code = verify_read_accounts(v->api, &v->ledger, v->gate, &accounts);
		v->has_accounts = !code;
	}
	if (!code && v->attached)
		verify_gate_read_again(&v->maps, v->gate);
	if (!code &&
		verify_compare(&v->ledger, v->gate, v->has_accounts ? &accounts : NULL, time_wall_ns(), &v->result)) {
		cli_say("no memory to compare ledger and gate");
		code = CLI_FAILED;
	}
	free(accounts.all);
	v->looks++;
	return code;
}

/* Looks until nothing differs, or two looks agree on everything that does. */
static int look_until_sure(struct verify *v)
{
	int code;

	forget_look(v);
	v->looks = 0;
	code = look(v);
	while (!code && v->gate->alive && (v->result.count || v->result.moving) && v->looks < LOOKS_MAX) {
		struct verify_result before = v->result;
		size_t found;

		v->result = (struct verify_result){0};
		free(before.lines); /* whose slugs go now */
		before.lines = NULL;
		forget_look(v);
		sleep(PAUSE_S);
		code = look(v);
		found = v->result.count;
		if (!code)
			verify_persisting(&v->result, &before);
		verify_result_free(&before);
		if (v->result.count == found && !v->result.moving)
			break;
	}
	return code;
}

/* --- telling ------------------------------------------------------------------------------------------------------------------- */
static const char *slug_of(const struct verify *v, uint32_t sale, char *text, size_t size)
{
	for (size_t i = 0; i < v->ledger.sale_count; i++)
		if (v->ledger.sales[i].id == sale)
			return v->ledger.sales[i].slug;
	if (!sale)
		return "";
	snprintf(text, size, "#%" PRIu32, sale);
	return text;
}

static json_t *figure(const struct verify_kind_info *kind, int64_t value)
{
	char text[TIME_TEXT_MAX];

	if (kind->figures == VERIFY_NO_FIGURES)
		return json_null();
	if (kind->figures == VERIFY_TIMES)
		return json_string(time_format_rfc3339((uint64_t)value, text));
	return json_integer(value);
}

static json_t *difference_json(const struct verify *v, const struct verify_difference *difference)
{
	const struct verify_kind_info *kind = &verify_kinds[difference->kind];
	char subject[17], slug[16];

	snprintf(subject, sizeof(subject), "%016" PRIx64, difference->subject);
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:s}", "invariant", kind->invariant, "difference",
		kind->name, "sale", slug_of(v, difference->sale, slug, sizeof(slug)), "order",
		kind->subject == VERIFY_OF_ORDER ? json_string(subject) : json_null(), "buyer",
		kind->subject == VERIFY_OF_BUYER ? json_string(subject) : json_null(), "found",
		figure(kind, difference->found), "expected", figure(kind, difference->expected), "certain",
		difference->certain, "detail", kind->text);
}

static bool is_broken(const struct verify *v, const char *invariant)
{
	for (size_t i = 0; i < v->result.count; i++)
		if (!strcmp(verify_kinds[v->result.differences[i].kind].invariant, invariant))
			return true;
	return false;
}

static json_t *invariants_json(const struct verify *v)
{
	json_t *invariants = json_array();

	for (unsigned i = 0; i < VERIFY_INVARIANTS; i++) {
		char id[4];
		const char *result = "holds";

		snprintf(id, sizeof(id), "I%u", i + 1);
		if (is_broken(v, id))
			result = "broken";
		else if (!v->attached)
			/* The ledger alone tells nothing of what the gate promised, and half of the rest. */
			result = i == 4 ? "unchecked" : "holds in the ledger";
		json_array_append_new(invariants,
			json_pack("{s:s, s:s, s:s}", "invariant", id, "result", result, "claim", verify_invariants[i]));
	}
	return invariants;
}

static json_t *lines_json(const struct verify *v)
{
	json_t *lines = json_array();

	for (size_t i = 0; i < v->result.line_count; i++) {
		const struct verify_line *line = &v->result.lines[i];
		int64_t sum = line->free + line->held + line->confirmed + line->on_its_way;
		const char *result = sum == line->put_in ? "holds" : line->moving ? "moving" : "broken";

		if (!line->in_gate)
			result = line->free < 0 ? "broken" : "not in the gate";
		json_array_append_new(lines,
			json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s}", "sale", line->slug, "put_in",
				(json_int_t)line->put_in, "free", (json_int_t)line->free, "held",
				(json_int_t)line->held, "confirmed", (json_int_t)line->confirmed, "on_its_way",
				(json_int_t)line->on_its_way, "equation", result));
	}
	return lines;
}

static json_t *differences_json(const struct verify *v, bool only_certain)
{
	json_t *differences = json_array();

	for (size_t i = 0; i < v->result.count; i++)
		if (!only_certain || v->result.differences[i].certain)
			json_array_append_new(differences, difference_json(v, &v->result.differences[i]));
	return differences;
}

static json_t *report_json(const struct verify *v)
{
	return json_pack("{s:b, s:s, s:i, s:{s:i, s:i, s:i, s:i}, s:i, s:i, s:o, s:o, s:o}", "clean", !v->result.count,
		"ledger", v->from_daemon ? "daemon" : v->ledger_path, "looks", (int)v->looks, "compared", "sales",
		(int)v->ledger.sale_count, "orders", (int)v->ledger.order_count, "admissions",
		(int)v->gate->admission_count, "buyers", (int)v->gate->buyer_count, "waiting",
		(int)v->result.on_their_way, "moving", (int)v->result.moving, "invariants", invariants_json(v), "sales",
		lines_json(v), "differences", differences_json(v, false));
}

static void print_rows(const char *title, const json_t *rows, const struct cli_column *columns)
{
	struct cli_table *table = cli_table_new(stdout, columns);
	const json_t *row;
	size_t i;

	if (title)
		printf("\n%s\n", title);
	json_array_foreach(rows, i, row)
		cli_table_add_json(table, row);
	cli_table_end(table);
}

static const struct cli_column difference_columns[] = {{"INVARIANT", "invariant", false},
	{"DIFFERENCE", "difference", false}, {"SALE", "sale", false}, {"ORDER", "order", false},
	{"BUYER", "buyer", false}, {"FOUND", "found", true}, {"EXPECTED", "expected", true},
	{"CERTAIN", "certain", false}, {"WHAT", "detail", false}, {NULL, NULL, false}};

static void print_report(const json_t *report)
{
	static const struct cli_column invariant_columns[] = {{"INVARIANT", "invariant", false},
		{"RESULT", "result", false}, {"CLAIM", "claim", false}, {NULL, NULL, false}};
	static const struct cli_column sale_columns[] = {{"SALE", "sale", false}, {"PUT IN", "put_in", true},
		{"FREE", "free", true}, {"HELD", "held", true}, {"CONFIRMED", "confirmed", true},
		{"ON ITS WAY", "on_its_way", true}, {"EQUATION", "equation", false}, {NULL, NULL, false}};

	print_rows(NULL, json_object_get(report, "invariants"), invariant_columns);
	print_rows("sales", json_object_get(report, "sales"), sale_columns);
	if (json_array_size(json_object_get(report, "differences")))
		print_rows("differences", json_object_get(report, "differences"), difference_columns);
	if (json_array_size(json_object_get(report, "repaired")))
		print_rows("repaired", json_object_get(report, "repaired"), difference_columns);
}

static void say_what_was_not_compared(const struct verify *v)
{
	if (!v->attached)
		cli_say("no gate is attached: only the ledger was looked at");
	if (v->result.on_their_way)
		cli_say("%" PRIu64 " admission%s in the gate wait%s for %s, and %s delivered when it is back",
			v->result.on_their_way, cli_plural(v->result.on_their_way),
			v->result.on_their_way == 1 ? "s" : "", v->gate->alive ? "the order writer" : "a daemon",
			v->result.on_their_way == 1 ? "is" : "are");
	for (size_t i = 0; i < v->result.line_count; i++)
		if (v->result.lines[i].moving)
			cli_say("sale %s: %u looks did not catch it at rest; its words were not compared: look again when the rush is over",
				v->result.lines[i].slug, v->looks);
}

/* --- repairing ------------------------------------------------------------------------------------------------------------------ */
/* Mends, looks again, and leaves in *repaired what is gone. */
static int repair(struct verify *v, json_t *repaired)
{
	json_t *before = differences_json(v, true), *difference;
	struct verify_result was = v->result;
	size_t done = 0, i;
	int code = CLI_OK;

	if (!json_array_size(before)) {
		json_decref(before);
		return CLI_OK;
	}
	if (v->gate->alive)
		code = verify_repair_daemon(v->api);
	else
		code = verify_repair_maps(&v->maps, &was, &done);
	if (!code)
		code = look_until_sure(v);
	json_array_foreach(before, i, difference) {
		json_t *now = differences_json(v, true), *left;
		bool gone = !code;
		size_t j;

		json_array_foreach(now, j, left)
			if (json_equal(left, difference))
				gone = false;
		if (gone)
			json_array_append(repaired, difference);
		json_decref(now);
	}
	json_decref(before);
	return code;
}

/* --- the command ------------------------------------------------------------------------------------------------------------------ */
static int open_gate(struct verify *v)
{
	char error[512];
	int err = gate_maps_open(&v->maps, v->config.gate.pin_dir, error, sizeof(error));

	v->attached = !err;
	if (!err || err == -ENOENT)
		return CLI_OK;
	cli_say("%s", error);
	return err == -EPERM ? CLI_NOT_ALLOWED : err == -EPROTO ? CLI_CONFLICT : CLI_FAILED;
}

static const char *socket_of(const struct verify *v)
{
	return v->args->socket ? v->args->socket : v->config.daemon.control_socket;
}

static int run_fleet(struct verify *v)
{
	const struct cli_globals globals = {.socket = socket_of(v)};
	int code = cli_api_open(&v->api, &globals);

	if (!code)
		code = verify_fleet(v->api, v->args->json);
	cli_api_close(v->api);
	return code;
}

/* The file, unless config or daemon say that the ledger is none. */
static int choose_source(struct verify *v)
{
	const struct cli_globals globals = {.socket = socket_of(v)};
	const char *store;
	json_t *status;
	int code = cli_api_open(&v->api, &globals);

	snprintf(v->ledger_path, sizeof(v->ledger_path), "%s", v->config.writer.ledger);
	/* A ledger in PostgreSQL is read by its writer alone. */
	v->from_daemon = v->args->from ? !strcmp(v->args->from, "daemon") : v->config.writer.in_postgres;
	if (code || v->args->from || v->from_daemon || !v->attached || !verify_daemon_lives(&v->maps))
		return code;
	code = cli_api_ask(v->api, "reading the status", "GET", cli_api_path("/v1/status"), NULL, &status);
	if (code)
		return code;
	store = json_string_value(json_object_get(json_object_get(status, "writer"), "store"));
	v->from_daemon = store && *store && strcmp(store, "sqlite") != 0;
	json_decref(status);
	return CLI_OK;
}

static int run(struct verify *v)
{
	json_t *report, *repaired = json_array();
	int code = look_until_sure(v);

	if (!code && v->args->repair && !v->args->dry_run)
		code = repair(v, repaired);
	if (code) {
		json_decref(repaired);
		return code;
	}
	report = report_json(v);
	if (v->args->dry_run)
		json_object_set_new(report, "would_repair", differences_json(v, true));
	if (v->args->repair)
		json_object_set(report, "repaired", repaired);
	if (v->args->json)
		cli_json_print(stdout, report);
	else
		print_report(report);
	say_what_was_not_compared(v);
	if (v->args->dry_run)
		cli_say("%zu of %zu difference%s would be repaired",
			json_array_size(json_object_get(report, "would_repair")), v->result.count,
			cli_plural(v->result.count));
	json_decref(report);
	json_decref(repaired);
	return v->result.count ? CLI_INVARIANT : CLI_OK;
}

int cmd_verify(int argc, char **argv)
{
	struct loader_args args;
	struct verify v = {.args = &args};
	int code = loader_args_parse(&args, &command, argc, argv);

	if (code != CLI_OK || args.help)
		return code;
	code = loader_args_config(&args, &v.config);
	if (args.fleet)
		return code ? code : run_fleet(&v);
	v.gate = calloc(1, sizeof(*v.gate));
	if (!v.gate) {
		cli_say("out of memory");
		return CLI_FAILED;
	}
	if (!code)
		code = open_gate(&v);
	if (!code)
		code = choose_source(&v);
	if (!code)
		code = run(&v);
	forget_look(&v);
	free(v.gate);
	cli_api_close(v.api);
	gate_maps_close(&v.maps);
	return code;
}
