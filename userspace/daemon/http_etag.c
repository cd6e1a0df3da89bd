/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* ETag, If-Match and If-None-Match (RFC 9110 section 13): so that of two operators who change the same thing, the second is told.
 *
 * A tag is a hash of what can be set, not of what moves by itself: a sale's tag does not change with each order.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/token.h"
#include "daemon/http.h"

uint64_t http_etag_of(const void *bytes, size_t length)
{
	return siphash24(bytes, length, 0, 0);
}

uint64_t http_etag_of_json(const json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	uint64_t tag = text ? http_etag_of(text, strlen(text)) : 0;

	free(text);
	return tag;
}

void http_set_etag(struct http_request *request, uint64_t tag)
{
	snprintf(request->etag, sizeof(request->etag), "\"%016" PRIx64 "\"", tag);
}

/* Is `tag` in the list of a header? A weak tag never matches: there is none here. */
static bool list_has(const char *list, const char *tag)
{
	const char *at = list + strspn(list, " \t");

	if (*at == '*' && !at[1 + strspn(at + 1, " \t")])
		return true;
	for (at = strstr(list, tag); at; at = strstr(at + 1, tag))
		if (at == list || strchr(" \t,", at[-1]))
			return true;
	return false;
}

bool http_check_etag(struct http_request *request, bool exists, uint64_t tag, enum MHD_Result *result)
{
	const char *match = http_header(request, MHD_HTTP_HEADER_IF_MATCH);
	const char *none = http_header(request, MHD_HTTP_HEADER_IF_NONE_MATCH);
	char text[HTTP_ETAG_MAX];

	snprintf(text, sizeof(text), "\"%016" PRIx64 "\"", tag);
	if ((!match || (exists && list_has(match, text))) && (!none || !exists || !list_has(none, text)))
		return true;
	if (exists) {
		http_set_etag(request, tag);
		*result = http_problem(request, 412, "precondition_failed",
			"It was changed meanwhile, or is not what If-Match and If-None-Match expect: read it again. Its ETag is %s.",
			text);
	} else {
		*result = http_problem(
			request, 412, "precondition_failed", "It does not exist, and If-Match expects it to.");
	}
	return false;
}
