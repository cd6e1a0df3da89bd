/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice drill` from beginning to end: build the arena (or find the target), set the sale up, let the crowd at it, read the books, check
 * them, report, and clean up whatever happened.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "common/timefmt.h"
#include "drill/arena.h"
#include "drill/books.h"
#include "drill/crowd.h"
#include "drill/drill.h"
#include "drill/report.h"
#include "drill/target.h"

#define SLUG "drill"
#define ENDED_SLUG "drill-over"
#define RUSH_MS 8000u
#define SPECIAL_TOKENS 32u /* expired ones, and ones of a sale that is over; each is tried many times */
#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define LEAD_NS (4 * NS_PER_S)     /* from the sale's creation to its opening, at least */
#define TOKENS_PER_SECOND 1500     /* for the rest of the lead: how fast the crowd fetches tokens */
#define WINDOW_NS (600 * NS_PER_S) /* the sale stays open longer than any crowd stays */
#define KEY_FILE "keys"            /* in the daemon's state directory */

volatile int drill_interrupted;

static void on_signal(int number)
{
	drill_interrupted = number;
}

static void catch_signals(void)
{
	static const int caught[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal};

	for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		sigaction(caught[i], &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

struct drill {
	struct drill_options options;
	struct drill_arena arena;
	struct cli_api *api;
	struct drill_plan plan;
	struct drill_record record;
	struct drill_ledger ledger;
	struct drill_gate_counts gate;
	bool gate_known;
	char account_tokens[DRILL_ACCOUNTS][SLUICE_TOKEN_TEXT + 1];
	char ended_tokens[SPECIAL_TOKENS][SLUICE_TOKEN_TEXT + 1];
	char expired_tokens[SPECIAL_TOKENS][SLUICE_TOKEN_TEXT + 1];
};

static void set_address(union drill_address *address, bool ipv6, const char *text)
{
	memset(address, 0, sizeof(*address));
	if (ipv6) {
		address->v6.sin6_family = AF_INET6;
		address->v6.sin6_port = htons(DRILL_PORT);
		inet_pton(AF_INET6, text, &address->v6.sin6_addr);
	} else {
		address->v4.sin_family = AF_INET;
		address->v4.sin_port = htons(DRILL_PORT);
		inet_pton(AF_INET, text, &address->v4.sin_addr);
	}
}

static void plan_crowd(struct drill *drill)
{
	const struct drill_options *options = &drill->options;

	drill->plan = (struct drill_plan){
		.buyers = options->buyers,
		.bots = options->bots,
		.spoofed = options->target[0] ? 0 : options->spoofed,
		.seconds = options->seconds,
		.ipv6_share = options->ipv6_share,
		.rush_ms = RUSH_MS,
		.seed = options->seed,
		.slug = options->target[0] ? options->sale : SLUG,
		.host = options->target[0] ? options->target : DRILL_SERVER4 ":8080",
		.own_network = !options->target[0],
		.client_interface = DRILL_CLIENT_INTERFACE,
		.account_tokens = drill->account_tokens,
		.expired_tokens = drill->expired_tokens,
		.ended_tokens = drill->ended_tokens,
	};
	memcpy(drill->plan.server_mac, drill_server_mac, sizeof(drill->plan.server_mac));
	memcpy(drill->plan.client_mac, drill_client_mac, sizeof(drill->plan.client_mac));
}

/* A sale that is over, so that its tokens are good and useless. */
static int make_ended_sale(struct drill *drill)
{
	uint64_t now_ns = time_wall_ns() / NS_PER_S * NS_PER_S;
	const struct drill_sale sale = {
		.slug = ENDED_SLUG, .stock = 1, .per_buyer = 1, .opens_ns = now_ns, .ends_ns = now_ns + WINDOW_NS};
	int err = drill_books_create_sale(drill->api, &sale);

	if (!err)
		err = drill_books_issue(drill->api, ENDED_SLUG, "drill-late", SPECIAL_TOKENS, drill->ended_tokens);
	if (!err)
		err = drill_books_end_sale(drill->api, ENDED_SLUG);
	drill->plan.ended_count = SPECIAL_TOKENS;
	return err;
}

static int make_sale(struct drill *drill)
{
	const struct drill_options *options = &drill->options;
	uint64_t lead_ns = LEAD_NS + (uint64_t)options->buyers * NS_PER_S / TOKENS_PER_SECOND;
	struct drill_sale sale = {.slug = SLUG, .stock = options->stock, .per_buyer = 1};
	char key_file[DRILL_PATH_MAX + 64];
	int err;

	err = drill_books_deny(drill->api, DRILL_DENIED4);
	if (!err)
		err = drill_books_deny(drill->api, DRILL_DENIED6);
	if (!err)
		err = make_ended_sale(drill);
	if (err)
		return err;
	drill->plan.denied = true;
	sale.opens_ns = (time_wall_ns() + lead_ns) / NS_PER_MS * NS_PER_MS;
	sale.ends_ns = sale.opens_ns + options->seconds * NS_PER_S + WINDOW_NS;
	drill->plan.opens_wall_ns = sale.opens_ns;
	err = drill_books_create_sale(drill->api, &sale);
	if (!err)
		err = drill_books_issue(drill->api, SLUG, "drill-bot", DRILL_ACCOUNTS, drill->account_tokens);
	if (err)
		return err;
	drill->plan.account_count = DRILL_ACCOUNTS;
	snprintf(key_file, sizeof(key_file), "%s/" KEY_FILE, drill->arena.state_dir);
	err = drill_books_expire(key_file, (const char(*)[SLUICE_TOKEN_TEXT + 1]) drill->account_tokens, SPECIAL_TOKENS,
		drill->expired_tokens);
	drill->plan.expired_count = SPECIAL_TOKENS;
	return err;
}

static int open_own(struct drill *drill)
{
	int err;

	err = drill_arena_open(&drill->arena, &drill->options);
	if (err)
		return err;
	set_address(&drill->plan.target4, false, DRILL_SERVER4);
	set_address(&drill->plan.target6, true, DRILL_SERVER6);
	err = drill_books_open(&drill->api, drill->arena.control_socket);
	if (!err)
		err = make_sale(drill);
	if (!err)
		fprintf(stderr, "The gate is attached (XDP %s); %" PRIu32 " %s for sale; the crowd comes.\n",
			drill->arena.mode, drill->options.stock, drill->options.stock == 1 ? "unit is" : "units are");
	return err;
}

static int open_target(struct drill *drill)
{
	const struct drill_options *options = &drill->options;
	struct drill_target_sale sale;
	int err;

	err = drill_target_resolve(options->target, &drill->plan.target4, &drill->plan.target6);
	if (!err)
		err = drill_target_read_sale(&drill->plan, &sale);
	if (err)
		return err;
	if (sale.over) {
		cli_say("the sale \"%s\" is over", options->sale);
		return -ESTALE;
	}
	drill->plan.opens_wall_ns = sale.opens_ns;
	drill->ledger.opens_ns = sale.opens_ns;
	drill->ledger.ends_ns = sale.ends_ns;
	drill->ledger.per_buyer = sale.per_buyer;
	if (options->control_socket[0])
		err = drill_books_open(&drill->api, options->control_socket);
	return err;
}

static int run_crowd(struct drill *drill)
{
	int err;

	if (drill->options.target[0])
		return drill_crowd_run(&drill->plan, &drill->record);
	err = drill_arena_enter_client(&drill->arena);
	if (err) {
		cli_say("cannot enter the client's namespace: %s", strerror(-err));
		return err;
	}
	err = drill_crowd_run(&drill->plan, &drill->record);
	drill_arena_leave_client(&drill->arena);
	/* a dead server is why nobody was answered: say that, not that buyers were */
	if (!err && !drill_interrupted && !drill_arena_alive(&drill->arena))
		err = -ESRCH;
	return err;
}

static int read_books(struct drill *drill)
{
	int err;

	if (!drill->api)
		return 0;
	err = drill_books_read(drill->api, drill->plan.slug, &drill->ledger);
	if (!err)
		err = drill_books_read_stats(drill->api, &drill->gate);
	drill->gate_known = !err;
	drill->ledger.refused_by_ledger = drill->gate.refused_by_ledger;
	return err;
}

static int report(struct drill *drill, uint64_t started_ns)
{
	const struct drill_options *options = &drill->options;
	struct drill_finding finding[DRILL_CHECKS];
	struct drill_sums sums;
	struct drill_report report = {
		.options = options,
		.record = &drill->record,
		.ledger = &drill->ledger,
		.gate = drill->gate_known ? &drill->gate : NULL,
		.finding = finding,
		.sums = &sums,
		.slug = drill->plan.slug,
		.mode = options->target[0] ? "target" : drill->arena.mode,
		.ledger_path = options->target[0] || drill->arena.temporary ? "" : drill->arena.ledger,
	};
	int code = CLI_OK, err;
	json_t *json = NULL;

	report.broken = drill_checks_run(
		drill->record.seen, drill->record.seen_count, &drill->ledger, &drill->record.intruders, finding, &sums);
	report.seconds = (double)(time_mono_ns() - started_ns) / 1e9;
	if (report.broken < 0 || drill_report_fill(&report) || !(json = drill_report_json(&report))) {
		cli_say("not enough memory for the report");
		return CLI_FAILED;
	}
	if (report.broken)
		code = CLI_INVARIANT;
	if (options->json) {
		json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
		putchar('\n');
	} else {
		drill_report_print(stdout, &report);
	}
	if (options->report[0]) {
		err = drill_report_save(options->report, json);
		if (err) {
			cli_say("cannot write the report to %s: %s", options->report, strerror(-err));
			code = code ? code : CLI_FAILED;
		}
	}
	if (!code && !drill->record.buyers_answered) {
		cli_say("no buyer got a final answer: nothing was shown by this drill");
		code = CLI_FAILED;
	}
	fflush(stdout);
	json_decref(json);
	return code;
}

int cmd_drill(int argc, char **argv)
{
	static struct drill drill;
	uint64_t started_ns = time_mono_ns();
	int code, err;

	memset(&drill, 0, sizeof(drill));
	code = drill_options_parse(argc, argv, &drill.options);
	if (code)
		return code < 0 ? CLI_OK : code;
	catch_signals();
	plan_crowd(&drill);
	err = drill.options.target[0] ? open_target(&drill) : open_own(&drill);
	if (!err && !drill_interrupted)
		err = run_crowd(&drill);
	if (!err && !drill_interrupted)
		err = read_books(&drill);
	if (drill_interrupted)
		cli_say("interrupted by signal %d: nothing was checked", drill_interrupted);
	code = err || drill_interrupted ? CLI_FAILED : report(&drill, started_ns);
	cli_api_close(drill.api);
	if (!drill.options.target[0])
		drill_arena_close(&drill.arena);
	drill_record_free(&drill.record);
	free(drill.ledger.orders);
	return code;
}
