/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The keys that sign tokens, over the control API: which are in use, and a fresh one. A node alone changes its key at once; in a fleet all nodes
 * change together, in two phases (fleet_keys.h).
 *
 * Two keys are in use at a time, so a fresh one takes the place of the one before the current. No rotation begins while a token of that one may
 * be valid, unless it is forced.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/fleet_keys.h"
#include "daemon/issue.h"
#include "daemon/revocation.h"

#define NS_PER_S 1000000000ULL
#define ISSUE_SLACK_S 2 /* for a token that is sealed with the old key while it is being replaced */
/* A rotation is over in two rounds if all nodes are there. */
#define FLEET_WAIT_MS 3000
#define RETRY_FLEET_S 2
#define NODES_TEXT_MAX (4 * CONFIG_NODES_MAX + 1)

struct rotate_body {
	bool force;
	char without[NODES_TEXT_MAX]; /* nodes, with commas */
};

static json_t *nodes_json(const char *nodes)
{
	json_t *list = json_array();
	char *end;

	while (list && *nodes) {
		json_array_append_new(list, json_integer(strtol(nodes, &end, 10)));
		nodes = *end ? end + 1 : end;
	}
	return list;
}

/* --- what a rotation is asked with ------------------------------------------------------------------------------------------------- */
static bool read_without(
	struct http_request *request, const json_t *list, char out[NODES_TEXT_MAX], enum MHD_Result *result)
{
	const struct config *config = &request->d->config;
	bool is_named[CONFIG_NODES_MAX + 1] = {false};
	size_t used = 0, i;
	json_t *item;

	if (!json_is_array(list)) {
		*result = http_problem_field(
			request, 400, "wrong_type", "without", "without must be an array of numbers of nodes.");
		return false;
	}
	json_array_foreach(list, i, item) {
		json_int_t node = json_integer_value(item);

		if (!json_is_integer(item) || node < 1 || node > CONFIG_NODES_MAX || node == config->fleet.node ||
			!config_node(config, (uint32_t)node) || is_named[node]) {
			*result = http_problem_field(request, 422, "out_of_range", "without",
				"without must name other nodes of this fleet, each once.");
			return false;
		}
		is_named[node] = true;
		used += (size_t)snprintf(out + used, NODES_TEXT_MAX - used, "%s%d", used ? "," : "", (int)node);
	}
	return true;
}

/* {"force": true, "without": [3]}, either or neither. Returns false after having answered. */
static bool read_body(struct http_request *request, struct rotate_body *body, enum MHD_Result *result)
{
	bool in_fleet = request->d->fleet_keys != NULL, ok = true;
	json_t *json = http_read_json(request, result), *value;
	const char *name;

	if (!json)
		return false;
	json_object_foreach(json, name, value) {
		if (!strcmp(name, "force")) {
			body->force = json_is_true(value);
			ok = json_is_boolean(value);
			if (!ok)
				*result = http_problem_field(
					request, 400, "wrong_type", "force", "force must be true or false.");
		} else if (!strcmp(name, "without") && in_fleet) {
			ok = read_without(request, value, body->without, result);
		} else {
			*result = http_problem_field(
				request, 400, "unknown_field", name, "There is no field %s here.", name);
			ok = false;
		}
		if (!ok)
			break;
	}
	json_decref(json);
	return ok;
}

/* --- a node alone -------------------------------------------------------------------------------------------------------------------- */
/* Until when may the key be asked for that a rotation would drop? */
static uint64_t dropped_key_until(struct daemon *d)
{
	struct sluice_key other;
	uint64_t until;

	pthread_rwlock_rdlock(&d->keys_lock);
	other = d->keys.slot[!d->keys.current];
	pthread_rwlock_unlock(&d->keys_lock);
	if (!other.valid)
		return 0;
	until = revocation_key_until(d, other.id);
	return until ? until : issue_latest_expiry(d);
}

static unsigned current_id(struct daemon *d)
{
	unsigned id;

	pthread_rwlock_rdlock(&d->keys_lock);
	id = d->keys.slot[d->keys.current].id;
	pthread_rwlock_unlock(&d->keys_lock);
	return id;
}

static enum MHD_Result rotate_alone(struct http_request *request, bool force)
{
	struct daemon *d = request->d;
	struct token_keys keys;
	char error[512], text[TIME_TEXT_MAX];
	uint64_t until, latest, later;
	unsigned before;
	int err;

	pthread_mutex_lock(&d->change_lock);
	until = dropped_key_until(d);
	if (!force && until > time_wall_ns() / NS_PER_S) {
		pthread_mutex_unlock(&d->change_lock);
		return http_problem(request, 409, "key_in_use",
			"Tokens of the key before the current one may be valid until %s; a rotation now would refuse them. "
			"Wait, or send {\"force\":true}.",
			time_format_rfc3339(until * NS_PER_S, text));
	}
	before = current_id(d);
	latest = issue_latest_expiry(d);
	if (revocation_note_key(d, before, latest + ISSUE_SLACK_S)) {
		pthread_mutex_unlock(&d->change_lock);
		return http_problem(request, 500, "internal_error",
			"The expiry of the key could not be written down (see the log); the key in use stays.");
	}
	/* Only who holds change_lock puts other keys there; so tokens are made and read while the disk works. */
	pthread_rwlock_rdlock(&d->keys_lock);
	keys = d->keys;
	pthread_rwlock_unlock(&d->keys_lock);
	err = token_keys_rotate(&keys, d->keys_path, error, sizeof(error));
	if (!err) {
		pthread_rwlock_wrlock(&d->keys_lock);
		memcpy(d->keys.slot, keys.slot, sizeof(keys.slot)); /* the rest is read without the lock */
		pthread_rwlock_unlock(&d->keys_lock);
		/* The gate accepts the new key before anybody signs with it. */
		issue_publish_keys(d);
		pthread_rwlock_wrlock(&d->keys_lock);
		d->keys.current = keys.current;
		pthread_rwlock_unlock(&d->keys_lock);
		/* While the disk worked the former key still signed. A failure is in the log. */
		later = issue_latest_expiry(d);
		if (later > latest)
			revocation_note_key(d, before, later + ISSUE_SLACK_S);
	}
	pthread_mutex_unlock(&d->change_lock);
	explicit_bzero(&keys, sizeof(keys));
	if (err) {
		log_error("%s", error);
		return http_problem(
			request, 500, "internal_error", "The key file could not be written; the key in use stays.");
	}
	log_info("tokens are signed with key %u from now on", current_id(d));
	return http_send_json(request, 200, json_pack("{s:i}", "key_id", (int)current_id(d)));
}

/* --- a fleet ------------------------------------------------------------------------------------------------------------------------- */
static json_t *view_json(struct daemon *d, const struct fleet_keys_view *view)
{
	json_t *nodes = json_array();

	for (unsigned i = 0; i < view->node_count; i++) {
		const struct fleet_keys_node *node = &view->nodes[i];

		json_array_append_new(nodes,
			json_pack("{s:i, s:I, s:I, s:o}", "node", (int)node->node, "accepts",
				(json_int_t)node->accepted, "signs_with", (json_int_t)node->signs, "seen_ms_ago",
				node->seen_ms < 0 ? json_null() : json_integer((json_int_t)node->seen_ms)));
	}
	return json_pack("{s:i, s:s, s:I, s:o, s:o, s:o}", "key_id", (int)current_id(d), "phase",
		view->next ? "accepting" : "signing", "key_number", (json_int_t)view->current, "next_key_number",
		view->next ? json_integer((json_int_t)view->next) : json_null(), "waiting_for",
		nodes_json(view->waiting), "nodes", nodes);
}

static enum MHD_Result send_redis_away(struct http_request *request, const char *what)
{
	return http_problem_retry(request, 503, "unavailable", RETRY_FLEET_S,
		"The other nodes of the fleet cannot be asked at the moment. %s", what);
}

static enum MHD_Result send_other_secret(struct http_request *request)
{
	return http_problem(request, 409, "other_secret", "This node's secret is not that of its fleet.");
}

static enum MHD_Result rotate_fleet(struct http_request *request, const struct rotate_body *body)
{
	struct fleet_keys_refusal refusal;
	struct fleet_keys_view view;
	char text[TIME_TEXT_MAX];

	switch (fleet_keys_rotate(request->d, body->force, body->without, FLEET_WAIT_MS, &view, &refusal)) {
	case 0:
		return http_send_json(request, view.next ? 202 : 200, view_json(request->d, &view));
	case -EBUSY:
		return http_problem(request, 409, "key_in_use",
			"Tokens of node %u of the key before the current one may be valid until %s; a rotation now would refuse "
			"them. Wait, or send {\"force\":true}.",
			refusal.node, time_format_rfc3339(refusal.until_s * NS_PER_S, text));
	case -ENODATA:
		return http_problem(request, 409, "key_in_use",
			"Node %u has not told yet until when tokens of the key before the current one are valid there. Ask again in a moment; "
			"if that node is down, start it, or leave it out: {\"without\":[%u]}.",
			refusal.node, refusal.node);
	case -EACCES:
		return send_other_secret(request);
	case -ETIMEDOUT:
		return send_redis_away(request, "The rotation may have begun: look before you ask again.");
	default:
		return send_redis_away(request, "No rotation was begun.");
	}
}

enum MHD_Result control_rotate_keys(struct http_request *request)
{
	struct rotate_body body = {0};
	enum MHD_Result result;

	if (!read_body(request, &body, &result))
		return result;
	if (!atomic_load(&request->d->sales_known))
		return control_send_writer_error(request, &(struct pipeline_answer){.error = -ENOTCONN});
	return request->d->fleet_keys ? rotate_fleet(request, &body) : rotate_alone(request, body.force);
}

enum MHD_Result control_get_keys(struct http_request *request)
{
	struct daemon *d = request->d;
	struct fleet_keys_view view;

	if (!d->fleet_keys)
		return http_send_json(
			request, 200, json_pack("{s:i, s:s}", "key_id", (int)current_id(d), "phase", "signing"));
	if (fleet_keys_standing(d) == FLEET_KEYS_OTHER_SECRET)
		return send_other_secret(request);
	if (fleet_keys_view(d, &view))
		return send_redis_away(request, "Since its start this daemon has not heard which keys they use.");
	return http_send_json(request, 200, view_json(d, &view));
}
