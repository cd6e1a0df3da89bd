/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The report of a drill: figures out of the crowd's record and the checks, as JSON and as a page for people. */
#ifndef SLUICE_DRILL_REPORT_H
#define SLUICE_DRILL_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "drill/books.h"
#include "drill/checks.h"
#include "drill/crowd.h"
#include "drill/drill.h"

struct drill_latency {
	uint32_t count;
	double p50, p99, p999, max; /* ms; 0 if count is 0 */
};
/* Sorts `ms`. Percentiles by nearest rank: a value that was really measured, never one between two. */
void drill_latency_of(float *ms, uint32_t count, struct drill_latency *latency);

struct drill_report {
	const struct drill_options *options;
	const struct drill_record *record;
	const struct drill_ledger *ledger;
	const struct drill_gate_counts *gate; /* NULL: not known */
	const struct drill_finding *finding;
	const struct drill_sums *sums;
	struct drill_latency all, admitted, refused;
	const char *slug, *mode, *ledger_path; /* path "" = none is left */
	char kernel[80];
	long cpus;
	int broken;
	double seconds; /* the whole drill, set-up and checks included */
};

/* Computes what is derived. Returns 0 or -ENOMEM. */
int drill_report_fill(struct drill_report *report);
/* The caller releases; NULL if there is no memory. */
json_t *drill_report_json(const struct drill_report *report);
void drill_report_print(FILE *out, const struct drill_report *report);
/* Writes JSON to a file, by way of another name, so that no reader sees half of it. Returns 0 or negative errno. */
int drill_report_save(const char *path, const json_t *json);

#endif
