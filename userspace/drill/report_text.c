/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The report as a page for somebody who has never seen one: what was for sale, who came, what they were told, how long it took, what
 * the gate turned away, and whether the books are right.
 */
#include <inttypes.h>
#include <string.h>

#include "common/maps.h"
#include "cli/cli.h"
#include "drill/report.h"

#define NUMBER_MAX 32
#define REASONS_SHOWN 16

/* 1234567 as "1,234,567". `out` holds NUMBER_MAX. */
static const char *grouped(uint64_t n, char *out)
{
	char digits[NUMBER_MAX];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, n), at = 0;

	for (int i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			out[at++] = ',';
		out[at++] = digits[i];
	}
	out[at] = '\0';
	return out;
}

static void print_head(FILE *out, const struct drill_report *report)
{
	const struct drill_options *options = report->options;
	char a[NUMBER_MAX], b[NUMBER_MAX];

	fprintf(out,
		"\nSale \"%s\": %s buyers and %s attempts by bots in %.1f s, %.1f s in all (seed %" PRIu64 ", %" PRIu32
		" %% IPv6)\n",
		report->slug, grouped(options->buyers, a), grouped(report->record->bot_attempts, b),
		report->record->seconds, report->seconds, options->seed, options->ipv6_share);
	if (options->target[0])
		fprintf(out, "Against %s\n", options->target);
	else
		fprintf(out, "Gate: XDP %s on a veth pair, Linux %s, %ld CPUs for servers and crowd together\n",
			report->mode, report->kernel, report->cpus);
}

static void print_units(FILE *out, const struct drill_report *report)
{
	const struct drill_sums *sums = report->sums;
	char a[NUMBER_MAX];

	fprintf(out, "\nUNITS\n");
	if (!report->ledger->known) {
		fprintf(out, "  orders seen by clients  %s (the stock is not known without --control-socket)\n",
			grouped(sums->orders, a));
		return;
	}
	fprintf(out, "  put in      %10s\n", grouped((uint64_t)report->ledger->put_in, a));
	fprintf(out, "  ordered     %10s  in ", grouped(sums->units, a));
	fprintf(out, "%s order%s\n", grouped(sums->orders, a), cli_plural(sums->orders));
	fprintf(out, "  free        %10s\n", grouped((uint64_t)report->ledger->free, a));
	fprintf(out, "  oversold    %10s\n", grouped(sums->oversold, a));
	fprintf(out, "  unsold      %10s\n", grouped(sums->unsold, a));
	fprintf(out, "  duplicates  %10s\n", grouped(sums->duplicates, a));
}

static void print_buyers(FILE *out, const struct drill_report *report)
{
	const struct drill_record *record = report->record;
	char a[NUMBER_MAX];

	fprintf(out, "\nBUYERS\n");
	fprintf(out, "  came                %10s\n", grouped(report->options->buyers, a));
	fprintf(out, "  had a token         %10s\n", grouped(record->buyers_with_token, a));
	fprintf(out, "  got a final answer  %10s\n", grouped(record->buyers_answered, a));
	fprintf(out, "  got a unit          %10s\n", grouped(record->buyers_ordered, a));
	fprintf(out, "  among them          %10s  hung up before the answer and asked again\n",
		grouped(record->lost_answers, a));
	fprintf(out, "                      %10s  clicked twice at once\n", grouped(record->double_clicks, a));
	fprintf(out, "                      %10s  tried for a second unit\n", grouped(record->second_tries, a));
}

static uint64_t bots_told(const struct drill_record *record, const char *name)
{
	uint64_t count = 0;

	for (int kind = 0; kind < DRILL_BOT_KIND_COUNT; kind++)
		count += drill_tally_get(&record->bots[kind].answers, name);
	return count;
}

static void print_answers(FILE *out, const struct drill_record *record)
{
	struct drill_tally names = record->buyer_answers;
	uint64_t unanswered = 0;
	char a[NUMBER_MAX], b[NUMBER_MAX];

	for (int kind = 0; kind < DRILL_BOT_KIND_COUNT; kind++) {
		for (uint32_t row = 0; row < record->bots[kind].answers.rows; row++)
			drill_tally_add(&names, record->bots[kind].answers.row[row].name, 0);
		unanswered += kind == DRILL_BOT_SILENT ? 0 : record->bots[kind].unanswered;
	}
	if (unanswered)
		drill_tally_add(&names, "no_answer", 0);
	for (uint32_t row = 0; row < names.rows; row++)
		names.row[row].count += bots_told(record, names.row[row].name);
	drill_tally_sort(&names);
	fprintf(out, "\nANSWERS to order requests           to buyers     to bots\n");
	for (uint32_t row = 0; row < names.rows; row++) {
		const char *name = names.row[row].name;
		uint64_t bots = bots_told(record, name) + (strcmp(name, "no_answer") ? 0 : unanswered);

		fprintf(out, "  %-30s  %11s %11s\n", name, grouped(drill_tally_get(&record->buyer_answers, name), a),
			grouped(bots, b));
	}
}

static void print_latency_row(FILE *out, const char *name, const struct drill_latency *latency)
{
	char a[NUMBER_MAX];

	if (latency->count)
		fprintf(out, "  %-20s %10s %9.2f %9.2f %9.2f %9.2f\n", name, grouped(latency->count, a), latency->p50,
			latency->p99, latency->p999, latency->max);
	else
		fprintf(out, "  %-20s %10s\n", name, "none");
}

static void print_latency(FILE *out, const struct drill_report *report)
{
	char a[NUMBER_MAX], b[NUMBER_MAX];

	fprintf(out, "\nLATENCY of buyers' orders, ms   count       p50       p99     p99.9       max\n");
	print_latency_row(out, "yes (durable order)", &report->admitted);
	print_latency_row(out, "no", &report->refused);
	print_latency_row(out, "both", &report->all);
	fprintf(out,
		"  from connect() to the whole answer; %s answers in the busiest second, %s connections open at once\n",
		grouped((uint64_t)(report->record->peak_per_s + 0.5), a), grouped(report->record->net.open_peak, b));
}

static void print_bots(FILE *out, const struct drill_record *record)
{
	char a[NUMBER_MAX], b[NUMBER_MAX], c[NUMBER_MAX];

	fprintf(out, "\nBOTS                  attempts   answered  no answer\n");
	for (int kind = 0; kind < DRILL_BOT_KIND_COUNT; kind++) {
		const struct drill_bots_seen *seen = &record->bots[kind];

		if (!seen->planned)
			continue;
		fprintf(out, "  %-18s  %8s   %8s   %8s  %s\n", drill_bot_label((enum drill_bot_kind)kind),
			grouped(seen->attempts, a), grouped(drill_tally_sum(&seen->answers), b),
			grouped(seen->unanswered, c), drill_bot_text((enum drill_bot_kind)kind));
	}
	if (record->spoofed_sent)
		fprintf(out, "  %-18s  %8s   %8s   %8s  %s\n", "spoofed_syn", grouped(record->spoofed_sent, a), "-",
			"-", "SYNs with a made-up source");
}

static const char *text_of(const char *label)
{
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		if (!strcmp(reason_label(reason), label))
			return reason_text(reason);
	}
	return "";
}

static void print_gate(FILE *out, const struct drill_gate_counts *gate)
{
	uint64_t rest = 0;
	char a[NUMBER_MAX];

	fprintf(out, "\nTHE GATE REFUSED         packets  because\n");
	for (uint32_t row = 0; row < gate->refused.rows; row++) {
		if (row < REASONS_SHOWN)
			fprintf(out, "  %-18s  %10s  %s\n", gate->refused.row[row].name,
				grouped(gate->refused.row[row].count, a), text_of(gate->refused.row[row].name));
		else
			rest += gate->refused.row[row].count;
	}
	if (rest)
		fprintf(out, "  %-18s  %10s  see \"refused\" in the JSON report\n", "(others)", grouped(rest, a));
}

static void print_checks(FILE *out, const struct drill_report *report)
{
	static const char *const words[] = {
		[DRILL_HOLDS] = "holds", [DRILL_BROKEN] = "BROKEN", [DRILL_UNCHECKED] = "unchecked"};

	fprintf(out, "\nCHECKS, what the clients saw against what the ledger says\n");
	for (int i = 0; i < DRILL_CHECKS; i++)
		fprintf(out, "  %-9s  %-2s  %-29s  %s\n", words[report->finding[i].verdict], report->finding[i].id,
			report->finding[i].name, report->finding[i].detail);
	if (report->broken)
		fprintf(out, "\n%d of %d checks failed.\n", report->broken, DRILL_CHECKS);
}

static void print_warnings(FILE *out, const struct drill_report *report)
{
	const struct drill_record *record = report->record;
	uint32_t waiting = report->options->buyers - record->buyers_answered;

	if (waiting)
		fprintf(out, "\nNote: %" PRIu32 " buyer%s had no final answer%s.\n", waiting, cli_plural(waiting),
			record->timed_out ? " when the time was up (more time: --seconds)" : "");
	if (record->net.outcomes[DRILL_LOCAL])
		fprintf(out,
			"\nNote: %" PRIu64 " connection%s failed on the crowd's own side (sockets, ports or routes).\n",
			record->net.outcomes[DRILL_LOCAL], cli_plural(record->net.outcomes[DRILL_LOCAL]));
}

void drill_report_print(FILE *out, const struct drill_report *report)
{
	print_head(out, report);
	print_units(out, report);
	print_buyers(out, report);
	print_answers(out, report->record);
	print_latency(out, report);
	print_bots(out, report->record);
	if (report->gate)
		print_gate(out, report->gate);
	print_checks(out, report);
	print_warnings(out, report);
}
