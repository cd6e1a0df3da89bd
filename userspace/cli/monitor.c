/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice monitor`: verdicts as they fall, one a line, until Ctrl-C or --count. The filter is the daemon's, so nothing that is not wanted is
 * sent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/verdict_line.h"

#define COUNT_MAX 1000000000ULL

enum monitor_option { M_REASON, M_ACTION, M_SOURCE, M_SALE, M_DOOR, M_SAMPLE, M_COUNT };

static const struct cli_option options[] = {
	[M_REASON] = {"reason", "REASON",
		"this reason only, or several with commas between them (all but socket, follows and unprotected)",
		false},
	[M_ACTION] = {"action", "ACTION", "refused, passed or handshake", false},
	[M_SOURCE] = {"source", "PREFIX", "sources in this prefix only", false},
	[M_SALE] = {"sale", "SLUG", "order attempts with a good token of this sale only", false},
	[M_DOOR] = {"door", "DOOR", "wire or call", false},
	[M_SAMPLE] = {"sample", "SHARE", "about this share of them, as 0.01", false},
	[M_COUNT] = {"count", "N", "end after so many", false},
	{NULL, NULL, NULL, false},
};

struct monitor {
	const struct cli_call *call;
	uint64_t seen, count; /* count 0: no end */
	bool failed;
};

static int on_event(const char *name, const json_t *data, void *arg)
{
	struct monitor *monitor = arg;
	FILE *out = monitor->call->out;

	if (!strcmp(name, "lost")) {
		long long lost = json_integer_value(json_object_get(data, "lost"));

		cli_say("%lld verdict%s lost: more came than could be printed (--sample shows a part)", lost,
			lost == 1 ? " was" : "s were");
		return 0;
	}
	if (strcmp(name, "message") != 0) /* of a newer daemon */
		return 0;
	if (monitor->call->globals->json) {
		json_dumpf(data, out, JSON_COMPACT | JSON_REAL_PRECISION(9));
		fputc('\n', out);
	} else {
		cli_verdict_line(out, data);
	}
	if (fflush(out)) {
		cli_say("cannot write the output: %s", strerror(errno));
		monitor->failed = true;
		return 1;
	}
	return ++monitor->seen == monitor->count;
}

static char *events_path(const struct cli_call *call, uint64_t count)
{
	char *path = NULL;
	size_t size;
	FILE *out = open_memstream(&path, &size);
	char separator = '?';

	if (!out)
		return NULL;
	fputs("/v1/events", out);
	for (unsigned i = M_REASON; i <= M_SAMPLE; i++) {
		char *value = call->value[i] ? cli_api_path("%s", call->value[i]) : NULL;

		if (!value)
			continue;
		fprintf(out, "%c%s=%s", separator, options[i].name, value);
		separator = '&';
		free(value);
	}
	if (count)
		fprintf(out, "%climit=%llu", separator, (unsigned long long)count);
	return fclose(out) ? NULL : path;
}

static int run_monitor(const struct cli_call *call)
{
	struct monitor monitor = {.call = call};
	struct cli_api_stream stream = {.about = "monitor", .on_event = on_event, .arg = &monitor};
	int code = cli_option_count(call, M_COUNT, 1, COUNT_MAX, &monitor.count);
	char *path;

	if (code)
		return code;
	path = events_path(call, monitor.count);
	if (!path) {
		cli_say("out of memory");
		return CLI_FAILED;
	}
	if (!call->globals->json && isatty(fileno(call->out)))
		cli_verdict_header(call->out);
	fflush(call->out);
	code = cli_api_stream(call->api, path, &stream);
	if (code)
		return code;
	if (monitor.failed)
		return CLI_FAILED;
	if (monitor.count && monitor.seen == monitor.count)
		return CLI_OK;
	cli_say("monitor: the daemon has ended the stream (it stops, or the connection took no more)");
	return CLI_UNREACHABLE;
}

static const struct cli_verb verbs[] = {
	{"", "", "time, reason, source, service, sale and door of each verdict; with -o json, one object a line", 0, 0,
		options, run_monitor},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_monitor = {"monitor", "Verdicts as they fall", verbs};
