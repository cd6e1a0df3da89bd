/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Idempotency-Key on every changing route of the control API (draft-ietf-httpapi-idempotency-key-header): the same request under the same key is
 * made once, and its first answer comes again, byte for byte, for at least seven days and after a restart of either program. Called by the
 * control listeners around the route's handler.
 *
 * Changes of orders are kept by the ledger in their own transaction (order_changes.h). For every other route the answer is put into the
 * ledger before it is sent; one that could not be kept is not given, and one that nobody got may have been lost with the daemon: then the
 * request is made anew, which moves no stock twice (control_stock.c). Kept are answers that say what became of the change: 2xx, 409 and
 * 410. What could not be read, or could not be done now, may be sent again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/token.h"
#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/order_changes.h"

/* Requests with one key come one after the other; those of two keys that share a lock, too. */
#define LOCKS 32
#define RETRY_S 2
/* Halves of the fingerprint: any two keys will do, as long as they never change. */
#define LEFT_KEY 0x736c756963652d31ULL
#define RIGHT_KEY 0x736c756963652d32ULL

static pthread_mutex_t locks[LOCKS] = {[0 ... LOCKS - 1] = PTHREAD_MUTEX_INITIALIZER};

/* ASCII without control characters: the key goes to the ledger as JSON, and into its log. */
static bool is_key(const char *text)
{
	size_t length = strlen(text);

	while (*text >= ' ' && *text <= '~')
		text++;
	return length && length <= HTTP_ONCE_KEY_MAX && !*text;
}

static enum MHD_Result print_argument(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void)kind;
	fprintf(arg, "%s=%s\n", name, value ? value : "");
	return MHD_YES;
}

/* What makes a request the same: method, path, arguments and body. */
static int make_fingerprint(struct http_request *request)
{
	size_t length = 0;
	char *text = NULL;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return -ENOMEM;
	fprintf(out, "%s\n%s\n", request->method, request->path);
	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, print_argument, out);
	fwrite(request->body ? request->body : "", 1, request->body_length, out);
	if (fclose(out)) {
		free(text);
		return -ENOMEM;
	}
	snprintf(request->once_fingerprint, sizeof(request->once_fingerprint), "%016" PRIx64 "%016" PRIx64,
		(uint64_t)siphash24(text, length, LEFT_KEY, RIGHT_KEY),
		(uint64_t)siphash24(text, length, RIGHT_KEY, LEFT_KEY));
	free(text);
	return 0;
}

/* Reads key and request. False after having answered. */
static bool name_change(struct http_request *request, enum MHD_Result *result)
{
	const char *key = http_header(request, HTTP_ONCE_KEY);

	if (!key)
		return true;
	if (!is_key(key)) {
		*result = http_problem_field(request, 400, "malformed_header", HTTP_ONCE_KEY,
			HTTP_ONCE_KEY " must have 1 to %d printable ASCII characters.", HTTP_ONCE_KEY_MAX);
		return false;
	}
	if (make_fingerprint(request)) {
		*result = http_problem(request, 500, "internal_error", "No memory.");
		return false;
	}
	snprintf(request->once_key, sizeof(request->once_key), "%s", key);
	return true;
}

const struct order_once *control_once(struct http_request *request, struct order_once *once)
{
	if (!*request->once_key)
		return NULL;
	*once = (struct order_once){.key = request->once_key, .fingerprint = request->once_fingerprint};
	return once;
}

static enum MHD_Result send_kept(struct http_request *request, const json_t *kept)
{
	const char *type = NULL, *body, *etag = NULL;
	int status;

	if (json_unpack((json_t *)(uintptr_t)kept, "{s:i, s?:s, s:s, s?:s}", "status", &status, "type", &type, "body",
		    &body, "etag", &etag) < 0)
		return http_problem(request, 500, "internal_error", "The answer that was kept cannot be read.");
	if (etag)
		snprintf(request->etag, sizeof(request->etag), "%s", etag);
	return http_send_again(request,
		&(struct http_text){.status = (unsigned)status, .type = type, .text = body, .length = strlen(body)});
}

/* What was asked for has been decided by now, so the writer's absence says nothing of the change. */
static enum MHD_Result send_not_kept(
	struct http_request *request, unsigned status, const struct pipeline_answer *stored)
{
	struct pipeline_status now;
	const char *why, *open, *close;

	pipeline_status(request->d->pipeline, &now);
	why = stored->error == -EREMOTEIO ? stored->detail : now.failure;
	open = *why ? " (" : "";
	close = *why ? ")" : "";

	if (status >= 300)
		return http_problem_retry(request, 503, "writer_away", RETRY_S,
			"Nothing was changed; the order writer could not keep that answer, %u%s%s%s. Send the same request with the same " HTTP_ONCE_KEY
			" again.",
			status, open, why, close);
	return http_problem_retry(request, 503, "writer_away", RETRY_S,
		"The change was made, but the order writer could not keep the answer%s%s%s. Look at what was changed, or send the same request with the same " HTTP_ONCE_KEY
		" again: that moves no stock twice, under another key it would.",
		open, why, close);
}

/* Before the answer goes out. */
static bool keep_answer(struct http_request *request, const struct http_text *answer, enum MHD_Result *result)
{
	bool says = (answer->status >= 200 && answer->status < 300) || answer->status == 409 || answer->status == 410;
	struct pipeline_answer stored;
	json_t *kept;

	if (!says)
		return true;
	kept = json_pack("{s:i, s:s%}", "status", (int)answer->status, "body", answer->text, answer->length);
	if (kept && answer->type)
		json_object_set_new(kept, "type", json_string(answer->type));
	if (kept && *request->etag)
		json_object_set_new(kept, "etag", json_string(request->etag));
	if (pipeline_ask(request->d->pipeline,
		    json_pack("{s:s, s:o, s:{s:s, s:s}}", "op", "once_put", "answer", kept, "once", "key",
			    request->once_key, "fingerprint", request->once_fingerprint),
		    NULL, NULL, &stored)) {
		*result = send_not_kept(request, answer->status, &stored);
		return false;
	}
	json_decref(stored.json);
	return true;
}

static enum MHD_Result handle_once(struct http_request *request)
{
	struct pipeline_answer known;
	enum MHD_Result result;
	json_t *kept;

	if (pipeline_ask(request->d->pipeline,
		    json_pack("{s:s, s:s, s:s}", "op", "once_get", "key", request->once_key, "fingerprint",
			    request->once_fingerprint),
		    NULL, NULL, &known))
		return control_send_first_error(request, &known);
	kept = json_object_get(known.json, "answer");
	if (json_is_object(kept)) {
		result = send_kept(request, kept);
	} else {
		request->keep = keep_answer;
		result = request->route->handle(request);
	}
	json_decref(known.json);
	return result;
}

/* The same question gives the same token anyhow, and tokens are not for the ledger. */
static bool is_the_same_anyhow(const struct http_request *request)
{
	return request->route->handle == http_token_post_control || request->route->handle == control_inspect_token;
}

static bool ledger_keeps_answer(const struct http_request *request)
{
	return request->route->handle == control_confirm_order || request->route->handle == control_cancel_order ||
		request->route->handle == control_refund_order;
}

enum MHD_Result control_handle(struct http_request *request)
{
	enum MHD_Result result;
	pthread_mutex_t *lock;

	if (!strcmp(request->method, "GET") || !strcmp(request->method, "HEAD") || is_the_same_anyhow(request))
		return request->route->handle(request);
	if (!name_change(request, &result))
		return result;
	if (ledger_keeps_answer(request))
		return request->route->handle(request);
	if (!*request->once_key) {
		result = request->route->handle(request);
		control_log_change(request);
		return result;
	}
	lock = &locks[siphash24(request->once_key, strlen(request->once_key), LEFT_KEY, RIGHT_KEY) % LOCKS];
	pthread_mutex_lock(lock);
	result = handle_once(request);
	pthread_mutex_unlock(lock);
	control_log_change(request);
	return result;
}
