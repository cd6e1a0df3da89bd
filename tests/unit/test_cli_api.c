/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice` against a made-up control server that plays a script: which requests a command sends, what it makes of the answers, and
 * with which exit code it ends. Run by check-unit; needs no daemon and no root.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/verify_fleet.h"
#include "common/timefmt.h"

#define ARGS_MAX 24
#define SCRIPT_MAX 5
#define REQUEST_MAX 4096

/* One exchange. `request` is the request line without the version; `body` is compared as text if not NULL. */
struct exchange {
	const char *request;
	const char *body;
	const char *header; /* must be in the request's head, if not NULL */
	int status;
	const char *answer;
};

static struct {
	const struct exchange *script;
	unsigned played;
	char wrong[REQUEST_MAX + 512]; /* the first request that was not as the script has it */
	char seen_body[REQUEST_MAX];
} server;

static char dir[] = "/tmp/sluice-cli-test-XXXXXX";
static char socket_path[64], secret_path[64], ledger_path[64];
/* What `sluice verify --fleet` does when it has read its config. */
static int run_verify_fleet(int argc, char **argv)
{
	const struct cli_globals globals = {.socket = socket_path};
	struct cli_api *api;
	FILE *terminal = stdout;
	int code = cli_api_open(&api, &globals);

	(void)argc;
	(void)argv;
	stdout = fopen("/dev/null", "w");
	if (!code)
		code = verify_fleet(api, false);
	fclose(stdout);
	stdout = terminal;
	cli_api_close(api);
	return code;
}

static const struct cli_program programs[] = {{"verify-fleet", "", run_verify_fleet}, {NULL, NULL, NULL}};
static char *said, *printed;

/* Reads one request; returns its length, 0 at the end of the connection. */
static size_t read_request(int fd, char *request)
{
	size_t length = 0, head, body = 0;
	char *end;

	for (;;) {
		ssize_t got = read(fd, request + length, REQUEST_MAX - 1 - length);

		if (got <= 0)
			return 0;
		length += (size_t)got;
		request[length] = '\0';
		end = strstr(request, "\r\n\r\n");
		if (!end)
			continue;
		head = (size_t)(end + 4 - request);
		end = strstr(request, "Content-Length: ");
		if (end && end < request + head)
			body = strtoul(end + 16, NULL, 10);
		if (length >= head + body)
			return length;
	}
}

static void play(int fd)
{
	char request[REQUEST_MAX], answer[8192];

	while (read_request(fd, request)) {
		const struct exchange *exchange = &server.script[server.played];
		char *body = strstr(request, "\r\n\r\n") + 4;
		const char *text;
		size_t line = exchange->request ? strlen(exchange->request) : 0;
		int length;

		if (!line || strncmp(request, exchange->request, line) ||
			strncmp(request + line, " HTTP/1.1\r\n", 11) ||
			(exchange->body && strcmp(exchange->body, body)) ||
			(exchange->header && !strstr(request, exchange->header))) {
			snprintf(server.wrong, sizeof(server.wrong), "request %u: %s", server.played, request);
			return;
		}
		snprintf(server.seen_body, sizeof(server.seen_body), "%s", body);
		server.played++;
		if (!exchange->status)
			return; /* hangs up instead of answering */
		text = exchange->answer ? exchange->answer : "";
		length = snprintf(answer, sizeof(answer), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n%s",
			exchange->status, strlen(text), text);
		if (write(fd, answer, (size_t)length) != length)
			return;
	}
}

static void *serve(void *arg)
{
	int listener = *(int *)arg, fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		play(fd);
		close(fd);
	}
	return NULL;
}

static int run_words(const char *words, const char *input)
{
	static char line[1024];
	char *argv[ARGS_MAX + 1] = {(char *)"sluice"};
	size_t size, said_size;
	FILE *in = input ? fmemopen((char *)input, strlen(input), "r") : fopen("/dev/null", "r"), *out,
	     *terminal = stderr;
	int argc = 1, code;

	free(said);
	free(printed);
	snprintf(line, sizeof(line), "%s", words);
	for (char *word = strtok(line, " "); word && argc < ARGS_MAX; word = strtok(NULL, " "))
		argv[argc++] = word;
	out = open_memstream(&printed, &size);
	stderr = open_memstream(&said, &said_size);
	code = cli_run(argc, argv, programs, in, out);
	fclose(stderr);
	stderr = terminal;
	fclose(out);
	fclose(in);
	return code;
}

/* Runs "sluice --socket … `words`" against the script and checks that every exchange of it took place. */
static int run_input(const struct exchange *script, const char *words, const char *input)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char with_socket[1024];
	pthread_t thread;
	unsigned expected = 0;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), code;

	while (expected < SCRIPT_MAX && script[expected].request)
		expected++;
	memset(&server, 0, sizeof(server));
	server.script = script;
	strcpy(address.sun_path, socket_path);
	unlink(socket_path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, &listener), 0);
	snprintf(with_socket, sizeof(with_socket), "--socket %s %s", socket_path, words);
	code = run_words(with_socket, input);
	shutdown(listener, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(listener);
	if (*server.wrong)
		fail_msg("\"%s\" sent %s", words, server.wrong);
	assert_int_equal(server.played, expected);
	return code;
}

static int run(const struct exchange *script, const char *words)
{
	return run_input(script, words, NULL);
}

static void assert_said(const char *sentence)
{
	if (!strstr(said, sentence))
		fail_msg("it says \"%s\", not \"%s\"", said, sentence);
}

static void sales_become_a_table(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {{"GET /v1/sales", "", "Host: sluice", 200,
		"{\"sales\":[{\"slug\":\"drop-11\",\"state\":\"open\",\"stock\":1000,\"free\":7,\"held\":993,"
		"\"confirmed\":0,\"per_buyer\":1,"
		"\"pace_per_second\":0,\"opens_at\":\"2026-11-22T12:00:00Z\",\"ends_at\":\"2026-11-22T13:00:00Z\"}]}"}};

	(void)state;
	assert_int_equal(run(script, "sale list"), CLI_OK);
	assert_non_null(strstr(printed, "SALE     STATE  STOCK  FREE  HELD  CONFIRMED"));
	assert_non_null(strstr(printed, "drop-11  open    1000     7   993          0"));
	assert_string_equal(said, "");
}

static void json_output_is_what_the_api_answered(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/sales/a", NULL, NULL, 200, "{\"slug\":\"a\",\"new_member\":[1,2.5]}"}};

	(void)state;
	assert_int_equal(run(script, "sale show a -o json"), CLI_OK);
	assert_string_equal(printed, "{\n  \"slug\": \"a\",\n  \"new_member\": [\n    1,\n    2.5\n  ]\n}\n");
}

static void a_sale_is_created_with_what_was_given_and_no_more(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/sales", NULL, NULL, 200, "{\"sales\":[{\"slug\":\"b\"}]}"},
		{"PUT /v1/sales/a",
			"{\"stock\":1000,\"opens_at\":\"2026-11-22T12:00:00Z\",\"ends_at\":\"2026-11-22T13:00:00Z\","
			"\"per_buyer\":2,\"hold_seconds\":600}",
			"Content-Type: application/json", 201, "{\"slug\":\"a\",\"state\":\"scheduled\"}"},
	};

	(void)state;
	assert_int_equal(
		run(script,
			"sale create a --stock 1000 --opens 2026-11-22T12:00:00Z --ends 2026-11-22T15:00:00+02:00 --per-buyer 2 --hold 10m"),
		CLI_OK);
	assert_string_equal(printed, "slug   a\nstate  scheduled\n");
}

static void a_sale_that_exists_is_not_created_again(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/sales", NULL, NULL, 200, "{\"sales\":[{\"slug\":\"a\"}]}"}};

	(void)state;
	assert_int_equal(run(script, "sale create a --stock 1000 --opens now --ends +1h"), CLI_CONFLICT);
	assert_said("there is such a sale already");
	assert_string_equal(printed, "");
}

static void a_change_sends_what_was_given_and_creates_nothing(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/sales/a", NULL, NULL, 200, "{\"slug\":\"a\"}"},
		{"PUT /v1/sales/a", "{\"ends_at\":\"2026-11-22T14:00:00Z\"}", NULL, 200, "{\"slug\":\"a\"}"},
	};
	static const struct exchange missing[SCRIPT_MAX + 1] = {
		{"GET /v1/sales/a", NULL, NULL, 404,
			"{\"code\":\"unknown_sale\",\"detail\":\"There is no sale \\\"a\\\".\",\"status\":404}"},
	};

	(void)state;
	assert_int_equal(run(script, "sale set a --ends 2026-11-22T14:00:00Z"), CLI_OK);
	assert_int_equal(run(missing, "sale set a --ends +2h"), CLI_NOT_FOUND);
}

static void a_refusal_names_the_thing_the_cause_and_the_remedy(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {{"POST /v1/sales/a/pause", "", NULL, 404,
		"{\"code\":\"unknown_sale\",\"detail\":\"There is no such sale.\",\"status\":404}"}};
	static const struct exchange taken[SCRIPT_MAX + 1] = {{"POST /v1/sales/a/stock", "{\"delta\":-500}", NULL, 409,
		"{\"code\":\"not_enough_free\",\"detail\":\"Fewer units are free.\",\"free\":7}"}};
	static const struct exchange last[SCRIPT_MAX + 1] = {{"POST /v1/sales/a/stock", "{\"delta\":-2}", NULL, 409,
		"{\"code\":\"not_enough_free\",\"detail\":\"Fewer units are free.\",\"free\":1}"}};
	static const struct exchange unlisted[SCRIPT_MAX + 1] = {{"DELETE /v1/lists/deny?label=NOSUCH", NULL, NULL, 404,
		"{\"code\":\"no_entry\",\"detail\":\"No entry has that label.\",\"status\":404}"}};
	static const struct exchange public_port[SCRIPT_MAX + 1] = {{"GET /v1/sales", NULL, NULL, 404,
		"{\"code\":\"not_found\",\"detail\":\"There is nothing at this path.\",\"status\":404}"}};
	static const struct exchange stranger[SCRIPT_MAX + 1] = {{"GET /v1/sales", NULL, NULL, 500, "<html>"}};
	static const struct exchange not_json[SCRIPT_MAX + 1] = {{"GET /v1/sales", NULL, NULL, 200, "hello"}};

	(void)state;
	assert_int_equal(run(script, "sale pause a"), CLI_NOT_FOUND);
	assert_string_equal(said,
		"sluice: sale \"a\": There is no such sale (unknown_sale)\n  \"sluice sale list\" "
		"shows the sales of this node\n");
	assert_string_equal(printed, "");
	assert_int_equal(run(taken, "stock remove a 500"), CLI_CONFLICT);
	assert_said("7 units are free");
	assert_int_equal(run(last, "stock remove a 2"), CLI_CONFLICT);
	assert_said("  1 unit is free");
	assert_int_equal(run(unlisted, "deny undo NOSUCH"), CLI_NOT_FOUND);
	assert_said("\"labels\" the labels");
	assert_int_equal(run(public_port, "sale list"), CLI_NOT_FOUND);
	assert_said("The public port takes no commands");
	assert_int_equal(run(stranger, "sale list"), CLI_FAILED);
	assert_said("answered 500 without saying why");
	assert_int_equal(run(not_json, "sale list"), CLI_FAILED);
	assert_said("is not JSON");
}

#define REFUSED(code, field, detail) "{\"code\":\"" code "\",\"field\":\"" field "\",\"detail\":\"" detail "\"}"

static void a_refusal_of_a_value_names_the_option_that_was_typed(void **state)
{
	static const struct exchange per_buyer[SCRIPT_MAX + 1] = {{"GET /v1/sales/a", NULL, NULL, 200, "{}"},
		{"PUT /v1/sales/a", NULL, NULL, 422,
			REFUSED("out_of_range", "per_buyer", "per_buyer must be from 1 to 64.")}};
	static const struct exchange ends[SCRIPT_MAX + 1] = {{"GET /v1/sales/a", NULL, NULL, 200, "{}"},
		{"PUT /v1/sales/a", NULL, NULL, 422,
			REFUSED("out_of_range", "ends_at", "ends_at must be later than opens_at.")}};
	static const struct exchange hold[SCRIPT_MAX + 1] = {{"GET /v1/sales/a", NULL, NULL, 200, "{}"},
		{"PUT /v1/sales/a", NULL, NULL, 422,
			REFUSED("out_of_range", "hold_seconds", "hold_seconds must be from 0 to 9.")}};
	static const struct exchange stock[SCRIPT_MAX + 1] = {{"GET /v1/sales", NULL, NULL, 200, "{\"sales\":[]}"},
		{"PUT /v1/sales/a", NULL, NULL, 422, REFUSED("out_of_range", "stock", "stock must be from 0 to 9.")}};
	static const struct exchange delta[SCRIPT_MAX + 1] = {{"POST /v1/sales/a/stock", NULL, NULL, 422,
		REFUSED("out_of_range", "delta", "delta must be from -9 to 9.")}};
	static const struct exchange sale[SCRIPT_MAX + 1] = {{"GET /v1/orders?limit=1000&sale=b", NULL, NULL, 404,
		REFUSED("unknown_sale", "sale", "There is no such sale.")}};
	static const struct exchange other[SCRIPT_MAX + 1] = {{"GET /v1/sales/a", NULL, NULL, 200, "{}"},
		{"PUT /v1/sales/a", NULL, NULL, 422, REFUSED("out_of_range", "order_mode", "order_mode must be x.")}};

	(void)state;
	run(per_buyer, "sale set a --per-buyer 65");
	assert_said("sale \"a\": --per-buyer must be from 1 to 64 (out_of_range)");
	run(ends, "sale set a --ends 2026-11-22T14:00:00Z");
	assert_said("--ends must be later than --opens (");
	run(hold, "sale set a --hold 10m");
	assert_said("--hold, in seconds, must be from 0 to 9 (");
	run(stock, "sale create a --stock 10 --opens now --ends +1h");
	assert_said("--stock must be from 0 to 9 (");
	run(delta, "stock add a 10");
	assert_said("N must be from -9 to 9 (");
	run(sale, "order list --sale b");
	assert_said("There is no such sale (");
	run(other, "sale set a --per-buyer 2");
	assert_said("order_mode must be x (");
}

static void all_sales_are_paused_one_line_each_and_a_failure_stops_none(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/sales", NULL, NULL, 200,
			"{\"sales\":[{\"slug\":\"a\",\"state\":\"open\"},{\"slug\":\"b\",\"state\":\"ended\"},"
			"{\"slug\":\"c\",\"state\":\"paused\"},{\"slug\":\"d\",\"state\":\"scheduled\"}]}"},
		{"POST /v1/sales/a/pause", "", NULL, 200, "{\"slug\":\"a\",\"state\":\"paused\"}"},
		{"POST /v1/sales/c/pause", "", NULL, 503, "{\"code\":\"writer_away\",\"detail\":\"It is not there.\"}"},
		{"POST /v1/sales/d/pause", "", NULL, 200, "{\"slug\":\"d\",\"state\":\"paused\"}"},
	};
	static const struct exchange none[SCRIPT_MAX + 1] = {
		{"GET /v1/sales", NULL, NULL, 200, "{\"sales\":[{\"slug\":\"b\",\"state\":\"ended\"}]}"}};
	static const struct exchange resumed[SCRIPT_MAX + 1] = {
		{"GET /v1/sales", NULL, NULL, 200,
			"{\"sales\":[{\"slug\":\"a\",\"state\":\"paused\"},{\"slug\":\"b\",\"state\":\"open\"}]}"},
		{"POST /v1/sales/a/resume", "", NULL, 200,
			"{\"slug\":\"a\",\"state\":\"open\",\"warning\":\"The pace is high.\",\"not_replicated\":true}"},
	};

	(void)state;
	assert_int_equal(run(script, "sale pause --all"), CLI_FAILED);
	assert_string_equal(printed, "a: paused\nc: failed\nd: paused\n");
	assert_said("sale \"c\": It is not there (writer_away)");
	assert_said("1 of 3 sales could not be changed: the same command tries again");
	assert_int_equal(run(script, "sale pause --all -o json"), CLI_FAILED);
	assert_string_equal(printed,
		"{\n  \"sales\": [\n    {\n      \"slug\": \"a\",\n      \"state\": \"paused\"\n    },\n    {\n      \"slug\": \"c\",\n      "
		"\"state\": null\n    },\n    {\n      \"slug\": \"d\",\n      \"state\": \"paused\"\n    }\n  ]\n}\n");
	assert_int_equal(run(none, "sale pause --all"), CLI_OK);
	assert_string_equal(printed, "");
	assert_said("there is no sale to pause");
	assert_int_equal(run(resumed, "sale resume --all"), CLI_OK);
	assert_string_equal(printed, "a: open\n");
	assert_said("warning: The pace is high.");
	assert_said("Redis is away");
	assert_int_equal(run_words("sale pause", NULL), CLI_USAGE);
	assert_said("which sale? SLUG, or --all");
	assert_int_equal(run_words("sale pause a --all", NULL), CLI_USAGE);
	assert_said("either a SLUG or --all");
}

static void one_of_a_thing_is_not_called_many(void **state)
{
	static const struct exchange labels[SCRIPT_MAX + 1] = {
		{"GET /v1/lists/deny/labels", NULL, NULL, 200, "{\"labels\":[],\"others\":1}"}};
	static const struct exchange lost[SCRIPT_MAX + 1] = {
		{"GET /v1/events", NULL, NULL, 200, "event: lost\ndata: {\"lost\":1}\n\n"}};
	static const struct exchange revoked[SCRIPT_MAX + 1] = {{"POST /v1/sales/a/tokens/revoke", NULL, NULL, 200,
		"{\"sale\":\"a\",\"issued_before\":\"2026-11-22T12:00:00Z\",\"live_tokens\":1}"}};

	(void)state;
	run(labels, "deny labels");
	assert_said("1 entry has another label");
	run(lost, "monitor");
	assert_said("1 verdict was lost");
	assert_int_equal(run(revoked, "token revoke-all a --issued-before now"), CLI_OK);
	assert_said("1 token was out at this node, and now refused");
}

static void a_change_without_an_answer_is_not_called_undone(void **state)
{
	static const struct exchange lost[SCRIPT_MAX + 1] = {
		{"POST /v1/sales/a/stock", "{\"delta\":100,\"reason\":\"found\"}", "Idempotency-Key: ", 0, NULL}};
	static const struct exchange again[SCRIPT_MAX + 1] = {{"POST /v1/sales/a/stock", "{\"delta\":100}",
		"Idempotency-Key: delivery-17\r\n", 200, "{\"put_in\":100,\"balanced\":true}"}};

	(void)state;
	assert_int_equal(run(lost, "stock add a 100 --reason found"), CLI_UNREACHABLE);
	assert_said("may have been made all the same");
	assert_said("repeat the command with --key ");
	assert_int_equal(run(again, "stock add a 100 --key delivery-17"), CLI_OK);
	assert_said("100 units put in");
}

/* One that is stopped: the kernel takes the connection, and nobody the request. */
static void a_daemon_that_hangs_is_not_waited_for_long_and_the_way_on_is_named(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct cli_globals globals = {.socket = socket_path};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), code;
	FILE *terminal = stderr;
	struct cli_api *api;
	size_t size;

	(void)state;
	strcpy(address.sun_path, socket_path);
	unlink(socket_path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(cli_api_open(&api, &globals), CLI_OK);
	cli_api_set_patience(api, 50);
	free(said);
	stderr = open_memstream(&said, &size);
	code = cli_api_ask(api, "sales", "GET", cli_api_path("/v1/sales"), NULL, NULL);
	fclose(stderr);
	stderr = terminal;
	cli_api_close(api);
	close(listener);
	assert_int_equal(code, CLI_UNREACHABLE);
	assert_said("no answer from");
	assert_said("\"sluice status\" reads the gate without it");
	assert_said("systemctl restart sluiced");
}

/* A look that is off by one unit, and one that is not. */
#define OFF_BY_ONE "{\"put_in\":10,\"free\":4,\"held\":5,\"confirmed\":0,\"in_flight\":0,\"balanced\":false}"
#define WHOLE "{\"put_in\":10,\"free\":4,\"held\":6,\"confirmed\":0,\"in_flight\":0,\"balanced\":true}"
#define OVERSOLD "{\"put_in\":10,\"free\":0,\"held\":5,\"confirmed\":6,\"in_flight\":0,\"balanced\":false}"

static void stock_that_does_not_add_up_is_exit_code_seven(void **state)
{
	static const struct exchange whole[SCRIPT_MAX + 1] = {{"GET /v1/sales/a/stock", NULL, NULL, 200, WHOLE}};
	static const struct exchange moving[SCRIPT_MAX + 1] = {{"GET /v1/sales/a/stock", NULL, NULL, 200, OFF_BY_ONE},
		{"GET /v1/sales/a/stock", NULL, NULL, 200, WHOLE}};
	static const struct exchange broken[SCRIPT_MAX + 1] = {{"GET /v1/sales/a/stock", NULL, NULL, 200, OFF_BY_ONE},
		{"GET /v1/sales/a/stock", NULL, NULL, 200, OFF_BY_ONE}};
	static const struct exchange oversold[SCRIPT_MAX + 1] = {{"GET /v1/sales/a/stock", NULL, NULL, 200, OVERSOLD}};

	(void)state;
	assert_int_equal(run(whole, "stock show a"), CLI_OK);
	assert_string_equal(said, "");
	assert_int_equal(run(moving, "stock show a"), CLI_OK);
	assert_string_equal(said, "");
	assert_non_null(strstr(printed, "balanced   yes"));
	assert_int_equal(run(broken, "stock show a"), CLI_INVARIANT);
	assert_said("put in 10, but free 4 + held 5 + confirmed 0 + in flight 0 = 9");
	assert_non_null(strstr(printed, "balanced   no"));
	assert_int_equal(run(oversold, "stock show a"), CLI_INVARIANT);
	assert_said("held 5 + confirmed 6");
}

static void the_pages_of_a_list_are_followed_to_the_end(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/lists/deny?limit=1000", NULL, NULL, 200,
			"{\"entries\":[{\"prefix\":\"192.0.2.0/"
			"24\",\"expires_at\":null,\"label\":\"feed\",\"reason\":\"bots\",\"hits\":5}],\"next\":\"192.0.2.0/24\"}"},
		{"GET /v1/lists/deny?limit=1000&after=192.0.2.0%2F24", NULL, NULL, 200,
			"{\"entries\":[{\"prefix\":\"2001:db8::/"
			"32\",\"expires_at\":null,\"label\":\"\",\"reason\":\"\",\"hits\":0}],\"next\":7}"},
		{"GET /v1/lists/deny?limit=1000&after=7", NULL, NULL, 200, "{\"entries\":[],\"next\":null}"},
	};

	(void)state;
	assert_int_equal(run(script, "deny list"), CLI_OK);
	assert_string_equal(printed,
		"PREFIX        HITS  EXPIRES  LABEL  REASON\n"
		"192.0.2.0/24     5  -        feed   bots\n"
		"2001:db8::/32     0  -        -      -\n");
	assert_int_equal(run(script, "deny list -o json"), CLI_OK);
	assert_string_equal(printed,
		"{\n  \"entries\": [\n"
		"    {\"prefix\": \"192.0.2.0/24\", \"expires_at\": null, \"label\": \"feed\", \"reason\": \"bots\", \"hits\": 5},\n"
		"    {\"prefix\": \"2001:db8::/32\", \"expires_at\": null, \"label\": \"\", \"reason\": \"\", \"hits\": 0}\n"
		"  ],\n  \"next\": null\n}\n");
}

static void a_cursor_that_does_not_move_ends_the_walk(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/lists/allow?limit=1000", NULL, NULL, 200, "{\"entries\":[],\"next\":\"x\"}"},
		{"GET /v1/lists/allow?limit=1000&after=x", NULL, NULL, 200, "{\"entries\":[],\"next\":\"x\"}"},
	};

	(void)state;
	assert_int_equal(run(script, "allow list"), CLI_FAILED);
	assert_said("leads nowhere");
}

static void half_a_list_is_not_whole_json(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/lists/deny?limit=1000", NULL, NULL, 200,
			"{\"entries\":[{\"prefix\":\"192.0.2.0/24\"}],\"next\":\"x\"}"},
		{"GET /v1/lists/deny?limit=1000&after=x", NULL, NULL, 503,
			"{\"code\":\"unavailable\",\"detail\":\"No.\"}"},
	};

	(void)state;
	assert_int_equal(run(script, "deny list -o json"), CLI_FAILED);
	assert_null(strstr(printed, "]"));
}

static void orders_stop_after_a_page_unless_all_are_wanted(void **state)
{
	static const struct exchange first[SCRIPT_MAX + 1] = {{"GET /v1/orders?limit=1000&sale=a&state=held", NULL,
		NULL, 200, "{\"orders\":[{\"id\":\"00\",\"seq\":1}],\"next\":12}"}};
	static const struct exchange all[SCRIPT_MAX + 1] = {
		{"GET /v1/orders?limit=1000", NULL, NULL, 200, "{\"orders\":[{\"id\":\"00\",\"seq\":1}],\"next\":12}"},
		{"GET /v1/orders?limit=1000&after=12", NULL, NULL, 200,
			"{\"orders\":[{\"id\":\"01\",\"seq\":2}],\"next\":null}"}};

	(void)state;
	assert_int_equal(run(first, "order list --sale a --state held"), CLI_OK);
	assert_said("--all lists every one");
	assert_int_equal(run(first, "order list --sale a --state held -o json"), CLI_OK);
	assert_non_null(strstr(printed, "\"next\": 12"));
	assert_int_equal(run(all, "order list --all"), CLI_OK);
	assert_string_equal(said, "");
	assert_non_null(strstr(printed, "\n01  "));
}

static void a_limit_keeps_its_burst_unless_told(void **state)
{
	static const char after[] = "{\"source\":{\"rate\":60.0,\"burst\":100},\"prefix\":{\"rate\":0,\"burst\":1}}";
	static const struct exchange keep[SCRIPT_MAX + 1] = {
		{"GET /v1/limits", NULL, NULL, 200, "{\"source\":{\"rate\":50.0,\"burst\":100}}"},
		{"PATCH /v1/limits", "{\"source\":{\"rate\":60.0,\"burst\":100}}", NULL, 200, after}};
	static const struct exchange was_off[SCRIPT_MAX + 1] = {
		{"GET /v1/limits", NULL, NULL, 200, "{\"source\":{\"rate\":0,\"burst\":1}}"},
		{"PATCH /v1/limits", "{\"source\":{\"rate\":2.5,\"burst\":3}}", NULL, 200, after}};
	static const struct exchange off[SCRIPT_MAX + 1] = {
		{"PATCH /v1/limits", "{\"source\":{\"rate\":0.0,\"burst\":1}}", NULL, 200, after}};

	(void)state;
	assert_int_equal(run(keep, "limit set source 60"), CLI_OK);
	assert_non_null(strstr(printed, "source      60    100  off     requests per IPv4 address"));
	assert_non_null(strstr(printed, "prefix     off      -  "));
	assert_int_equal(run(was_off, "limit set source 2.5"), CLI_OK);
	assert_int_equal(run(off, "limit set source off"), CLI_OK);
}

static void shadow_mode_is_shown_and_that_of_the_whole_gate_is_shouted(void **state)
{
	static const struct exchange one[SCRIPT_MAX + 1] = {{"PATCH /v1/limits", "{\"pace\":{\"shadow\":true}}", NULL,
		200,
		"{\"source\":{\"rate\":60.0,\"burst\":100,\"shadow\":false},\"pace\":{\"shadow\":true},\"shadow\":false}"}};
	static const struct exchange all[SCRIPT_MAX + 1] = {{"PATCH /v1/limits", "{\"shadow\":true}", NULL, 200,
		"{\"source\":{\"rate\":60.0,\"burst\":100,\"shadow\":false},\"pace\":{\"shadow\":false},\"shadow\":true}"}};
	static const struct exchange none[SCRIPT_MAX + 1] = {{0}};

	(void)state;
	assert_int_equal(run(one, "limit shadow pace on"), CLI_OK);
	assert_non_null(strstr(printed, "pace         -      -  on "));
	assert_non_null(strstr(printed, "source      60    100  off "));
	assert_string_equal(said, "");
	assert_int_equal(run(all, "limit shadow all on"), CLI_OK);
	assert_non_null(strstr(printed, "source      60    100  ALL "));
	assert_said("the whole gate is in shadow mode");
	assert_int_equal(run(none, "limit shadow nonsense on"), CLI_USAGE);
	assert_int_equal(run(none, "limit shadow source maybe"), CLI_USAGE);
}

static void a_monitor_prints_a_line_a_verdict_and_tells_what_was_lost(void **state)
{
	static const char stream[] =
		": watching\n\ndata: {\"time\":\"t1\",\"reason\":\"sold_out\",\"source\":\"192.0.2.7\"}\n\n"
		"event: lost\ndata: {\"lost\":12}\n\ndata: {\"time\":\"t2\",\"reason\":\"denied\",\"source\":\"192.0.2.8\"}\n\n";
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"GET /v1/events?reason=sold_out%2Cdenied&sample=0.5&limit=2", NULL, NULL, 200, stream}};
	static const struct exchange ended[SCRIPT_MAX + 1] = {{"GET /v1/events", NULL, NULL, 200, stream}};
	static const struct exchange refused[SCRIPT_MAX + 1] = {{"GET /v1/events?sale=none", NULL, NULL, 404,
		"{\"status\":404,\"code\":\"unknown_sale\",\"detail\":\"There is no such sale.\"}"}};
	static const struct exchange garbage[SCRIPT_MAX + 1] = {
		{"GET /v1/events", NULL, NULL, 200, "data: nonsense\n\n"}};

	(void)state;
	assert_int_equal(run(script, "monitor --reason sold_out,denied --sample 0.5 --count 2"), CLI_OK);
	assert_ptr_equal(strstr(printed, "t1  "), printed);
	assert_non_null(strstr(printed, "\nt2  "));
	assert_said("12 verdicts were lost: more");
	assert_int_equal(run(script, "monitor -o json --reason sold_out,denied --sample 0.5 --count 2"), CLI_OK);
	assert_string_equal(printed,
		"{\"time\":\"t1\",\"reason\":\"sold_out\",\"source\":\"192.0.2.7\"}\n"
		"{\"time\":\"t2\",\"reason\":\"denied\",\"source\":\"192.0.2.8\"}\n");
	/* Nobody asked it to end. */
	assert_int_equal(run(ended, "monitor"), CLI_UNREACHABLE);
	assert_int_equal(run(refused, "monitor --sale none"), CLI_NOT_FOUND);
	assert_said("There is no such sale");
	assert_int_equal(run(garbage, "monitor"), CLI_FAILED);
}

static void list_entries_are_put_and_removed_by_encoded_prefix(void **state)
{
	static const struct exchange put[SCRIPT_MAX + 1] = {
		{"PUT /v1/lists/deny/192.0.2.0%2F24", "{\"ttl_seconds\":600,\"reason\":\"bots\"}", NULL, 200,
			"{\"prefix\":\"192.0.2.0/24\",\"expires_at\":null,\"reason\":\"bots\",\"hits\":0}"}};
	static const struct exchange removed[SCRIPT_MAX + 1] = {
		{"DELETE /v1/lists/allow/192.0.2.0%2F24", "", NULL, 204, NULL}};
	static const struct exchange full[SCRIPT_MAX + 1] = {{"PUT /v1/lists/deny/192.0.2.1", "{}", NULL, 507,
		"{\"code\":\"list_full\",\"detail\":\"The list is full.\"}"}};
	static const struct exchange wide[SCRIPT_MAX + 1] = {
		{"PUT /v1/lists/deny/0.0.0.0%2F0", "{\"reason\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}", NULL, 200,
			"{\"prefix\":\"0.0.0.0/0\",\"expires_at\":null,\"reason\":\"\",\"hits\":0}"}};

	(void)state;
	assert_int_equal(
		run(wide, "deny add 0.0.0.0/0 --force --reason aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xc3\xa4\xc3\xb6"),
		CLI_OK);
	assert_said("the reason is cut after 30 bytes");
	assert_int_equal(run(put, "deny add 192.0.2.0/24 --ttl 10m --reason bots"), CLI_OK);
	assert_int_equal(run(removed, "allow rm 192.0.2.0/24"), CLI_OK);
	assert_string_equal(printed, "");
	assert_int_equal(run(full, "deny add 192.0.2.1"), CLI_FAILED);
	assert_said("gate.max_prefixes");
}

static void secrets_come_from_standard_input(void **state)
{
	static const struct exchange issue[SCRIPT_MAX + 1] = {{"POST /v1/sales/a/tokens",
		"{\"buyer\":\"session-1\",\"quantity\":2,\"network\":\"192.0.2.7\"}", NULL, 201, "{\"token\":\"t\"}"}};
	static const struct exchange inspect[SCRIPT_MAX + 1] = {
		{"POST /v1/tokens/inspect", "{\"token\":\"abc\"}", NULL, 200, "{\"mac_valid\":false}"}};
	static const struct exchange none[SCRIPT_MAX + 1] = {{NULL, NULL, NULL, 0, NULL}};

	(void)state;
	assert_int_equal(
		run_input(issue, "token issue a --buyer - --quantity 2 --network 192.0.2.7", "session-1\n"), CLI_OK);
	assert_string_equal(printed, "token  t\n");
	assert_int_equal(run_input(inspect, "token inspect", "abc\r\n"), CLI_OK);
	assert_int_equal(run_input(inspect, "token inspect -", "abc"), CLI_OK);
	assert_int_equal(run_input(inspect, "token inspect abc", NULL), CLI_OK);
	assert_int_equal(run_input(none, "token inspect", "\n"), CLI_USAGE);
	assert_int_equal(run_input(none, "token issue a --buyer -", "one\ntwo\n"), CLI_USAGE);
	assert_said("more than one line");
	assert_int_equal(run_input(none, "token issue a --buyer -",
				 "12345678901234567890123456789012345678901234567890123456789012345678901234567890"
				 "1234567890123456789012345678901234567890123456789"),
		CLI_USAGE);
	assert_said("longer than 128 bytes");
}

static void stats_leave_out_what_did_not_happen(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {{"GET /v1/stats", NULL, NULL, 200,
		"{\"packets\":{\"shop\":{\"syn_cookie\":{\"packets\":12,\"bytes\":720},\"denied\":{\"packets\":0,"
		"\"bytes\":0}}},"
		"\"calls\":{\"admitted\":3,\"sold_out\":0},\"orders\":{\"admitted\":5},\"tokens\":{\"live\":9}}"}};

	(void)state;
	assert_int_equal(run(script, "stats"), CLI_OK);
	assert_non_null(strstr(printed, "shop     syn_cookie       12    720  SYN answered with a SYN cookie\n"));
	assert_non_null(strstr(printed, "admitted          3  admitted: token spent"));
	assert_null(strstr(printed, "denied"));
	assert_null(strstr(printed, "sold_out"));
	assert_non_null(strstr(printed, "orders admitted      5\n"));
}

static void the_secret_travels_in_a_header_over_tcp(void **state)
{
	static const struct exchange script[SCRIPT_MAX + 1] = {
		{"POST /v1/keys/rotate", "", "Authorization: Bearer 0123abcd\r\n", 200, "{\"key_id\":4}"}};
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), code;
	FILE *secret = fopen(secret_path, "w");
	char words[256];
	pthread_t thread;

	(void)state;
	assert_int_equal(fputs("0123abcd\n", secret) < 0, 0);
	fclose(secret);
	memset(&server, 0, sizeof(server));
	server.script = script;
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, &listener), 0);
	snprintf(words, sizeof(words), "--url http://127.0.0.1:%u/ --secret-file %s key rotate",
		ntohs(address.sin_port), secret_path);
	setenv("http_proxy", "http://127.0.0.1:1", 1); /* would get the secret if it were used */
	code = run_words(words, NULL);
	unsetenv("http_proxy");
	shutdown(listener, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(listener);
	assert_string_equal(server.wrong, "");
	assert_int_equal(code, CLI_OK);
	assert_string_equal(printed, "key_id  4\n");
	assert_null(strstr(said, "0123abcd"));
}

static void a_secret_file_that_holds_none_is_refused(void **state)
{
	static const char *const bad[] = {"", "\n", "two words\n", "line\r\nX-Injected: 1\n"};
	char words[256];

	(void)state;
	snprintf(words, sizeof(words), "--url http://127.0.0.1:1 --secret-file %s sale list", secret_path);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		FILE *secret = fopen(secret_path, "w");

		fputs(bad[i], secret);
		fclose(secret);
		assert_int_equal(run_words(words, NULL), CLI_FAILED);
		assert_said("does not hold a control secret");
	}
	unlink(secret_path);
	assert_int_equal(run_words(words, NULL), CLI_FAILED);
	assert_said("No such file");
}

#define FLEET_BOOKS(FREE) \
	"{\"nodes\":{\"1\":{\"node\":1,\"sales\":[]}},\"redis\":{\"drop\":{\"state\":\"open\",\"total\":9,\"version\":1," \
	"\"free\":" FREE ",\"deficit\":0,\"missing\":[],\"nodes\":{}}}}"

static void a_look_at_the_fleet_that_fails_ends_the_looks(void **state)
{
	static const struct exchange script[] = {{"GET /v1/cluster/audit", NULL, NULL, 200, FLEET_BOOKS("8")},
		{"GET /v1/cluster/audit", NULL, NULL, 503,
			"{\"code\":\"fleet_away\",\"detail\":\"Redis cannot be asked now.\"}"},
		{NULL, NULL, NULL, 0, NULL}};

	(void)state;
	assert_int_equal(run(script, "verify-fleet"), CLI_FAILED);
	assert_said("Redis cannot be asked now");
}

static void units_that_go_to_and_fro_between_looks_are_no_difference(void **state)
{
	static const struct exchange script[] = {{"GET /v1/cluster/audit", NULL, NULL, 200, FLEET_BOOKS("8")},
		{"GET /v1/cluster/audit", NULL, NULL, 200, FLEET_BOOKS("8")},
		{"GET /v1/cluster/audit", NULL, NULL, 200, FLEET_BOOKS("9")}, {NULL, NULL, NULL, 0, NULL}};
	static const struct exchange three[] = {{"GET /v1/cluster/audit", NULL, NULL, 200, FLEET_BOOKS("8")},
		{"GET /v1/cluster/audit", NULL, NULL, 200, FLEET_BOOKS("8")},
		{"GET /v1/cluster/audit", NULL, NULL, 200, FLEET_BOOKS("8")}, {NULL, NULL, NULL, 0, NULL}};

	(void)state;
	assert_int_equal(run(script, "verify-fleet"), CLI_OK);
	assert_int_equal(run(three, "verify-fleet"), CLI_INVARIANT);
}

#define REBUILT_SALES(OVER) \
	"{\"sales\":[{\"sale\":\"drop\",\"state\":\"open\",\"over\":false,\"missing\":[]},{\"sale\":\"old\",\"state\":\"settling\",\"over\":" OVER \
	",\"missing\":[3]}]}"

static void a_rebuild_waits_for_no_node_in_a_sale_that_is_over(void **state)
{
	static const char begun[] =
		"{\"sales\":[{\"sale\":\"drop\",\"free_before\":8},{\"sale\":\"old\",\"free_before\":0}]}";
	static const struct exchange over[] = {{"POST /v1/cluster/rebuild", NULL, NULL, 200, begun},
		{"GET /v1/cluster/sales", NULL, NULL, 200, REBUILT_SALES("true")}, {NULL, NULL, NULL, 0, NULL}};
	static const struct exchange not_over[] = {{"POST /v1/cluster/rebuild", NULL, NULL, 200, begun},
		{"GET /v1/cluster/sales", NULL, NULL, 200, REBUILT_SALES("false")}, {NULL, NULL, NULL, 0, NULL}};

	(void)state;
	assert_int_equal(run(over, "cluster rebuild --wait 0"), CLI_OK);
	assert_non_null(strstr(printed, "settling"));
	assert_int_equal(run(not_over, "cluster rebuild --wait 0"), CLI_FAILED);
	assert_said("fence");
}

/* A node's ledger: sale 4, "drop", with 3 units held of 10 that were leased in operation 5 of epoch 2. */
static void make_ledger(const char *lease)
{
	char sql[2048];
	sqlite3 *db;

	unlink(ledger_path);
	snprintf(sql, sizeof(sql),
		"PRAGMA application_id = 1397511491; PRAGMA user_version = 2;"
		"CREATE TABLE sales(id, slug, opens_ns, ends_ns, per_buyer, paused, ended, put_in, held, confirmed, orders);"
		"CREATE TABLE stock_moves(sale, delta, key);"
		"CREATE TABLE orders(serial, sale, seq, state, quantity, buyer, admitted_ns);"
		"CREATE TABLE documents(name, value);"
		"INSERT INTO sales VALUES (4, 'drop', 1, 2, 1, 0, 0, 10, 3, 0, 0);"
		"INSERT INTO documents SELECT 'lease.4', '%s' WHERE '%s' <> '';",
		lease, lease);
	assert_int_equal(sqlite3_open(ledger_path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

#define BOOK(EPOCH, SEQ, UNITS, BALANCE) \
	"{\"epoch\":" EPOCH ",\"seq\":" SEQ ",\"op\":\"return\",\"units\":" UNITS ",\"balance\":" BALANCE "}"
#define ROW(SEQ, GRANTED, BALANCE, FENCED) \
	"{\"sales\":[{\"sale\":\"drop\",\"state\":\"open\",\"nodes\":{\"2\":{\"balance\":" BALANCE \
	",\"sold\":1,\"epoch\":2,\"seq\":" SEQ ",\"granted\":" GRANTED \
	",\"written\":5,\"heard\":77,\"fenced\":" FENCED ",\"settled\":true}}}]}"
#define FENCED_ROW \
	"{\"node\":2,\"sales\":[{\"sale\":\"drop\",\"result\":\"fenced\",\"balance\":10,\"sold\":3,\"given_back\":7,\"epoch\":3}]}"

static int fence_by(const char *lease, const char *fleet, bool is_taken)
{
	const struct exchange script[] = {{"GET /v1/cluster/sales", NULL, NULL, 200, fleet},
		{is_taken ? "POST /v1/nodes/2/fence" : NULL,
			"{\"sale\":\"drop\",\"sold\":3,\"exact\":true,\"heard\":77}", NULL, 200, FENCED_ROW},
		{NULL, NULL, NULL, 0, NULL}};
	char words[160];

	make_ledger(lease);
	snprintf(words, sizeof(words), "node fence 2 --ledger %s", ledger_path);
	return run(script, words);
}

static void a_node_is_fenced_by_the_ledger_that_it_wrote_last(void **state)
{
	(void)state;
	assert_int_equal(fence_by(BOOK("2", "5", "0", "10"), ROW("5", "4", "10", "false"), true), CLI_OK);
	/* A grant that Redis made, and whose answer was lost; operations that gave nothing; a return of which Redis has not heard. */
	assert_int_equal(fence_by(BOOK("2", "5", "0", "10"), ROW("6", "4", "14", "false"), true), CLI_OK);
	assert_int_equal(fence_by(BOOK("2", "5", "0", "10"), ROW("9", "0", "10", "false"), true), CLI_OK);
	assert_int_equal(fence_by(BOOK("2", "6", "4", "6"), ROW("5", "0", "10", "false"), true), CLI_OK);
	/* It was fenced with nothing known, and its ledger was found later. */
	assert_int_equal(fence_by(BOOK("1", "5", "0", "10"), ROW("5", "0", "10", "true"), true), CLI_OK);
}

static void nothing_is_fenced_by_a_ledger_that_is_another_or_an_older_one(void **state)
{
	static const char *const leases[] = {"", BOOK("1", "5", "0", "10"), BOOK("2", "5", "0", "11"),
		BOOK("2", "3", "0", "8"), BOOK("2", "7", "1", "9"), BOOK("2", "6", "3", "6")};

	(void)state;
	for (size_t i = 0; i < sizeof(leases) / sizeof(leases[0]); i++) {
		assert_int_equal(fence_by(leases[i], ROW("5", "1", "10", "false"), false), CLI_CONFLICT);
		assert_said("is not the ledger that node 2 wrote last");
	}
	/* As much was leased to it then as in the end; and what was fenced since is no reason to believe it. */
	assert_int_equal(fence_by(BOOK("2", "4", "0", "10"), ROW("8", "0", "10", "false"), false), CLI_CONFLICT);
	assert_int_equal(fence_by(BOOK("1", "4", "0", "10"), ROW("8", "0", "10", "true"), false), CLI_CONFLICT);
	assert_int_equal(fence_by(BOOK("2", "5", "0", "10"), "{\"sales\":[]}", false), CLI_NOT_FOUND);
	assert_said("has no sale in which Redis knows node 2");
}

static void a_fence_that_met_no_sale_is_no_success(void **state)
{
	static const struct exchange script[] = {
		{"POST /v1/nodes/2/fence", "{\"nothing\":true}", NULL, 200,
			"{\"node\":2,\"sales\":[{\"sale\":\"drop\",\"result\":\"unknown\"}]}"},
		{NULL, NULL, NULL, 0, NULL}};

	(void)state;
	assert_int_equal(run(script, "node fence 2 --nothing"), CLI_NOT_FOUND);
	assert_said("Redis knows node 2 in no sale");
}

static int make_dir(void **state)
{
	(void)state;
	umask(077);
	if (!mkdtemp(dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/sock", dir);
	snprintf(secret_path, sizeof(secret_path), "%s/secret", dir);
	snprintf(ledger_path, sizeof(ledger_path), "%s/ledger.db", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(socket_path);
	unlink(secret_path);
	unlink(ledger_path);
	free(said);
	free(printed);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sales_become_a_table),
		cmocka_unit_test(json_output_is_what_the_api_answered),
		cmocka_unit_test(a_sale_is_created_with_what_was_given_and_no_more),
		cmocka_unit_test(a_sale_that_exists_is_not_created_again),
		cmocka_unit_test(a_change_sends_what_was_given_and_creates_nothing),
		cmocka_unit_test(a_refusal_names_the_thing_the_cause_and_the_remedy),
		cmocka_unit_test(a_refusal_of_a_value_names_the_option_that_was_typed),
		cmocka_unit_test(all_sales_are_paused_one_line_each_and_a_failure_stops_none),
		cmocka_unit_test(one_of_a_thing_is_not_called_many),
		cmocka_unit_test(a_change_without_an_answer_is_not_called_undone),
		cmocka_unit_test(a_daemon_that_hangs_is_not_waited_for_long_and_the_way_on_is_named),
		cmocka_unit_test(stock_that_does_not_add_up_is_exit_code_seven),
		cmocka_unit_test(the_pages_of_a_list_are_followed_to_the_end),
		cmocka_unit_test(a_cursor_that_does_not_move_ends_the_walk),
		cmocka_unit_test(half_a_list_is_not_whole_json),
		cmocka_unit_test(orders_stop_after_a_page_unless_all_are_wanted),
		cmocka_unit_test(a_limit_keeps_its_burst_unless_told),
		cmocka_unit_test(shadow_mode_is_shown_and_that_of_the_whole_gate_is_shouted),
		cmocka_unit_test(a_monitor_prints_a_line_a_verdict_and_tells_what_was_lost),
		cmocka_unit_test(list_entries_are_put_and_removed_by_encoded_prefix),
		cmocka_unit_test(secrets_come_from_standard_input),
		cmocka_unit_test(stats_leave_out_what_did_not_happen),
		cmocka_unit_test(the_secret_travels_in_a_header_over_tcp),
		cmocka_unit_test(a_secret_file_that_holds_none_is_refused),
		cmocka_unit_test(a_look_at_the_fleet_that_fails_ends_the_looks),
		cmocka_unit_test(units_that_go_to_and_fro_between_looks_are_no_difference),
		cmocka_unit_test(a_rebuild_waits_for_no_node_in_a_sale_that_is_over),
		cmocka_unit_test(a_node_is_fenced_by_the_ledger_that_it_wrote_last),
		cmocka_unit_test(nothing_is_fenced_by_a_ledger_that_is_another_or_an_older_one),
		cmocka_unit_test(a_fence_that_met_no_sale_is_no_success),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
