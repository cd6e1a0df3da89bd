/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The sale page, embedded at build time from userspace/web. Static: the page reads its sale from its own address.
 *
 * The content security policy allows nothing but these files and requests to this origin, and, in a fleet, to its nodes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http_public.h"
#include "web_assets.h"

#define PAGE_POLICY \
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; " \
	"frame-ancestors 'none'; connect-src 'self'" /* and the nodes */
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

static void add_policy(struct MHD_Response *response, const struct config *config)
{
	size_t size = sizeof(PAGE_POLICY) + config->node_count * (CONFIG_NODE_URL_MAX + 1), used;
	char *policy = malloc(size);

	if (!policy) { /* what is not allowed by name is not allowed */
		MHD_add_response_header(response, "Content-Security-Policy", PAGE_POLICY);
		return;
	}
	used = (size_t)snprintf(policy, size, "%s", PAGE_POLICY);
	for (unsigned i = 0; i < config->node_count; i++)
		used += (size_t)snprintf(policy + used, size - used, " %s", config->nodes[i].url);
	MHD_add_response_header(response, "Content-Security-Policy", policy);
	free(policy);
}

static enum MHD_Result send_asset(struct http_request *request, const char *name)
{
	const struct web_asset *asset = web_assets;
	struct MHD_Response *response;

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
		add_policy(response, &request->d->config);
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
