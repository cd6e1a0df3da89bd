/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice doctor`: one line for each thing that was looked at; see doctor.h. Works without gate, daemon and writer, and as far as it can without
 * privileges: what may not be looked at is a finding too.
 */
#include "cli/doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/image.h"
#include "cli/loader_args.h"
#include "cli/table.h"
#include "common/file.h"
#include "common/timefmt.h"

#define PACE_FILE "doctor.json"
#define PACE_MODE 0644

static const struct loader_command command = {
	.usage =
		"usage: sluice doctor [IFACE] [-o table|json] [--no-measure] [--config FILE] [--pin-dir DIR]\n\n"
		"Looks at everything on this machine that can spoil a sale: kernel, interfaces of the gate (or IFACE), sysctls,\n"
		"clock, files, disk, daemon and writer. Measures what the disk and the order writer bear, and puts the safe\n"
		"pace down in doctor.json in daemon.state_dir. One line each: ok, warn or fail, and what to do.\n\n"
		"  -o, --output FORM   table (default) or json\n"
		"      --no-measure    do not measure (that takes three seconds, and some 50 MB beside the ledger meanwhile)\n"
		"  -c, --config FILE   instead of " CONFIG_DEFAULT_PATH "\n"
		"  -p, --pin-dir DIR   instead of the config's\n\n"
		"Exit codes: 0 nothing fails, 1 something does, 2 usage\n",
	.takes_interface = true,
	.takes_output = true,
	.takes_measure = true,
};

static const char *const result_names[] = {[DOCTOR_OK] = "ok", [DOCTOR_WARN] = "warn", [DOCTOR_FAIL] = "fail"};

static void note(
	struct doctor *doctor, enum doctor_result result, const char *check, const char *todo, const char *what)
{
	doctor->failed += result == DOCTOR_FAIL;
	doctor->warned += result == DOCTOR_WARN;
	json_array_append_new(doctor->findings,
		json_pack("{s:s, s:s, s:s, s:s}", "result", result_names[result], "check", check, "what", what, "todo",
			todo ? todo : ""));
}

void doctor_note(
	struct doctor *doctor, enum doctor_result result, const char *check, const char *todo, const char *format, ...)
{
	char what[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	note(doctor, result, check, todo, what);
}

void doctor_note_said(
	struct doctor *doctor, enum doctor_result result, const char *check, const char *said, const char *fine)
{
	char copy[4096], *rest = copy, *line;
	size_t length = strlen(check);

	if (!*said) {
		note(doctor, DOCTOR_OK, check, NULL, fine);
		return;
	}
	snprintf(copy, sizeof(copy), "%s", said);
	while ((line = strsep(&rest, "\n"))) {
		/* A sentence of another command may begin with what it is about. */
		if (!strncmp(line, check, length) && !strncmp(line + length, ": ", 2))
			line += length + 2;
		note(doctor, result, check, NULL, line);
	}
}

/* --- the pace, put down where the daemon can read it */
static json_t *pace_json(const struct doctor_pace *pace)
{
	char now[TIME_TEXT_MAX];

	return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:s}", "measured_at",
		time_format_rfc3339(time_wall_ns(), now), "safe_pace_per_second", (json_int_t)pace->safe_per_second,
		"orders_per_second", (json_int_t)pace->orders_per_second, "commit_p50_ms", pace->commit_p50_ms,
		"commit_p99_ms", pace->commit_p99_ms, "fdatasync_p50_ms", pace->sync_p50_ms, "fdatasync_p99_ms",
		pace->sync_p99_ms, "how", DOCTOR_HOW);
}

static void put_down(struct doctor *doctor, const json_t *pace)
{
	char path[CONFIG_PATH_MAX + 32], *text = json_dumps(pace, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
	bool is_root = geteuid() == 0;
	struct stat state;
	int err = text ? 0 : -ENOMEM;

	snprintf(path, sizeof(path), "%s/" PACE_FILE, doctor->config->daemon.state_dir);
	if (!err && stat(doctor->config->daemon.state_dir, &state))
		err = -errno;
	/* The daemon may have a user of its own, and it is his directory. */
	if (!err)
		err = file_replace_for(path, text, strlen(text), PACE_MODE, is_root ? state.st_uid : (uid_t)-1,
			is_root ? state.st_gid : (gid_t)-1);
	free(text);
	if (err < 0)
		doctor_note(doctor, DOCTOR_WARN, "pace",
			"start sluiced once, which makes its directory, and run this again",
			"cannot put the safe pace down in %s: %s", path, strerror(-err));
}

static json_t *look_at_everything(struct doctor *doctor, bool measure)
{
	json_t *pace = NULL;

	doctor_look_at_kernel(doctor);
	doctor_look_at_interfaces(doctor);
	doctor_look_at_gate(doctor);
	doctor_look_at_sysctls(doctor);
	doctor_look_at_clock(doctor);
	doctor_look_at_files(doctor);
	doctor_look_at_disk(doctor);
	doctor_look_at_programs(doctor);
	if (measure)
		doctor_measure_pace(doctor);
	if (doctor->pace.safe_per_second) {
		pace = pace_json(&doctor->pace);
		put_down(doctor, pace);
		doctor_look_at_sales(doctor);
	}
	return pace ? pace : json_null();
}

static void print(const struct doctor *doctor, json_t *pace, bool as_json)
{
	static const struct cli_column columns[] = {
		{"RESULT", "result", false}, {"CHECK", "check", false}, {"WHAT", "what", false}, {NULL, NULL, false}};
	struct cli_table *table;
	json_t *all, *finding;
	size_t i;

	if (as_json) {
		all = json_pack("{s:b, s:i, s:i, s:O, s:O}", "ok", !doctor->failed, "failed", (int)doctor->failed,
			"warned", (int)doctor->warned, "pace", pace, "findings", doctor->findings);
		cli_json_print(stdout, all);
		json_decref(all);
		return;
	}
	table = cli_table_new(stdout, columns);
	json_array_foreach(doctor->findings, i, finding) {
		const char *todo = json_string_value(json_object_get(finding, "todo"));
		json_t *line = json_copy(finding);

		if (*todo)
			json_object_set_new(line, "what",
				json_sprintf("%s -> %s", json_string_value(json_object_get(finding, "what")), todo));
		cli_table_add_json(table, line);
		json_decref(line);
	}
	cli_table_end(table);
	cli_say("%u fail, %u warn", doctor->failed, doctor->warned);
}

int cmd_doctor(int argc, char **argv)
{
	struct loader_args args;
	static struct config config;
	struct doctor doctor = {.config = &config};
	char said[4096];
	json_t *pace;
	int code = loader_args_parse(&args, &command, argc, argv);

	if (code != CLI_OK || args.help)
		return code;
	image_quiet();
	doctor.findings = json_array();
	doctor.interface = args.interface;
	cli_say_into(said, sizeof(said));
	code = loader_args_config(&args, &config);
	cli_say_into(NULL, 0);
	if (code == CLI_USAGE) {
		cli_say("%s", said);
		json_decref(doctor.findings);
		return code;
	}
	if (code)
		config_defaults(&config);
	doctor.other_store = config.writer.in_postgres;
	doctor.config_path = args.config_path       ? args.config_path
		: access(CONFIG_DEFAULT_PATH, F_OK) ? ""
						    : CONFIG_DEFAULT_PATH;
	doctor_note_said(&doctor, DOCTOR_FAIL, "config", said,
		*doctor.config_path ? doctor.config_path : "there is no " CONFIG_DEFAULT_PATH ": the defaults apply");
	if (code)
		doctor_note(&doctor, DOCTOR_WARN, "config", "mend the config first",
			"everything below was looked at with the defaults");
	pace = look_at_everything(&doctor, !args.no_measure);
	print(&doctor, pace, args.json);
	json_decref(pace);
	json_decref(doctor.findings);
	return doctor.failed ? CLI_FAILED : CLI_OK;
}
