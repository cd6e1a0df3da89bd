/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The sale page, embedded at build time from userspace/web. Static: the page reads its sale from its own address.
 *
 * The content security policy allows nothing but these files, and requests to this origin and to the other nodes of the fleet.
 */
#include <stdio.h>
#include <string.h>

#include "daemon/http_public.h"
#include "web_assets.h"

#define PAGE_POLICY \
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; " \
	"frame-ancestors 'none'; connect-src 'self'"
/* Of the nodes' addresses. A header that is longer might not fit the connection's memory; then requests to any origin are allowed. */
#define NODES_MAX_BYTES 4000
/* Short, so that a new version of the page is there a minute after an update and not after the sale. */
#define ASSET_CACHE "public, max-age=60"

static const char *type_of(const char *name)
{
	static const struct {
		const char *suffix, *type;
	} types[] = {
		{".html", "text/html; charset=utf-8"},
		{".js", "text/javascript; charset=utf-8"},
		{".css", "text/css; charset=utf-8"},
		{".svg", "image/svg+xml"},
	};
	const char *dot = strrchr(name, '.');

	for (unsigned i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(dot, types[i].suffix))
			return types[i].type;
	return "application/octet-stream";
}

static const char *make_policy(const struct config *config, char *policy, size_t size)
{
	size_t begin = (size_t)snprintf(policy, size, "%s", PAGE_POLICY), used = begin;

	for (unsigned i = 0; i < config->node_count; i++) {
		used += (size_t)snprintf(policy + used, size - used, " %s", config->nodes[i].url);
		if (used - begin > NODES_MAX_BYTES) {
			snprintf(policy + begin, size - begin, " *");
			break;
		}
	}
	return policy;
}

static enum MHD_Result send_asset(struct http_request *request, const char *name)
{
	const struct web_asset *asset = web_assets;
	struct MHD_Response *response;
	char policy[sizeof(PAGE_POLICY) + NODES_MAX_BYTES + CONFIG_NODE_URL_MAX + 2];

	while (asset->name && strcmp(asset->name, name) != 0)
		asset++;
	if (!asset->name)
		return http_problem(request, 404, "not_found", "There is no such file.");
	response =
		MHD_create_response_from_buffer(asset->size, (void *)(uintptr_t)asset->bytes, MHD_RESPMEM_PERSISTENT);
	if (response) {
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type_of(name));
		MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, ASSET_CACHE);
		MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
		MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
		MHD_add_response_header(response, "Content-Security-Policy",
			make_policy(&request->d->config, policy, sizeof(policy)));
	}
	return http_send(request, 200, response);
}

enum MHD_Result http_page_index(struct http_request *request)
{
	return send_asset(request, "index.html");
}

enum MHD_Result http_page_asset(struct http_request *request)
{
	return send_asset(request, request->captures[0]);
}
