/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Daemon and writer: there, and well; sales that are armed above the safe pace; see doctor.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/doctor.h"
#include "common/wire.h"

#define SAID_MAX 1024
#define PATIENCE_MS 3000 /* what is asked here needs no disk and no network */

/* One that says nothing disturbs nobody: the writer goes on with the daemon's connection. */
static void look_at_writer(struct doctor *doctor)
{
	const char *path = doctor->config->writer.socket;
	int fd = wire_connect(path);

	if (fd >= 0)
		doctor_note(doctor, DOCTOR_OK, "writer", NULL, "listens on %s", path);
	else
		doctor_note(doctor, doctor->attached ? DOCTOR_FAIL : DOCTOR_WARN, "writer", "start sluice-writer",
			"no order writer on %s: %s", path, strerror(-fd));
	if (fd >= 0)
		close(fd);
}

static void look_at_sale(struct doctor *doctor, const json_t *sale)
{
	const char *slug = json_string_value(json_object_get(sale, "slug"));
	const char *state = json_string_value(json_object_get(sale, "state"));
	json_int_t pace = json_integer_value(json_object_get(sale, "pace_per_second"));

	if (!slug || !state || !strcmp(state, "ended") || pace <= (json_int_t)doctor->pace.safe_per_second)
		return;
	doctor_note(doctor, DOCTOR_WARN, "pace", "sluice sale set SLUG --pace N",
		"sale %s is armed with a pace of %" JSON_INTEGER_FORMAT " orders a second; this machine bears %" PRIu64
		" safely",
		slug, pace, doctor->pace.safe_per_second);
}

static void look_at_status(struct doctor *doctor, const json_t *status)
{
	const char *store = json_string_value(json_object_get(json_object_get(status, "writer"), "store"));

	doctor->other_store |= store && *store && strcmp(store, "sqlite") != 0;
	if (json_is_true(json_object_get(status, "orders_open")))
		doctor_note(doctor, DOCTOR_OK, "daemon", NULL, "answers on %s, orders are open",
			doctor->config->daemon.control_socket);
	else
		doctor_note(doctor, DOCTOR_FAIL, "daemon", "see the log of sluiced: it says why",
			"answers on %s, and orders are closed", doctor->config->daemon.control_socket);
}

/* Asks without a word on stderr: what went wrong is in `said`. Takes `path` over. NULL if something did. */
static json_t *ask_quietly(struct doctor *doctor, char *path, char *said, size_t size)
{
	const struct cli_globals globals = {.socket = doctor->config->daemon.control_socket};
	struct cli_api *api = NULL;
	json_t *answer = NULL;

	cli_say_into(said, size);
	if (!cli_api_open(&api, &globals)) {
		cli_api_set_patience(api, PATIENCE_MS);
		cli_api_ask(api, "daemon", "GET", path, NULL, &answer);
	} else {
		free(path);
	}
	cli_say_into(NULL, 0);
	cli_api_close(api);
	return answer;
}

void doctor_look_at_programs(struct doctor *doctor)
{
	char said[SAID_MAX];
	json_t *status = ask_quietly(doctor, cli_api_path("/v1/status"), said, sizeof(said));

	look_at_writer(doctor);
	if (status)
		look_at_status(doctor, status);
	else
		doctor_note_said(doctor, doctor->attached ? DOCTOR_FAIL : DOCTOR_WARN, "daemon", said, "");
	json_decref(status);
}

void doctor_look_at_sales(struct doctor *doctor)
{
	char said[SAID_MAX];
	json_t *answer = ask_quietly(doctor, cli_api_path("/v1/sales"), said, sizeof(said)), *sale;
	size_t i;

	json_array_foreach(json_object_get(answer, "sales"), i, sale)
		look_at_sale(doctor, sale);
	json_decref(answer);
}
