/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who changed what over the control API, in the log: on the night, and after it, the first question. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/addr.h"
#include "common/log.h"
#include "daemon/control.h"

#define WHAT_MAX 200
#define WHO_MAX (ADDR_TEXT_MAX + 16)

/* As much as fits, in one line. */
static void copy_printable(const char *from, char *to, size_t size)
{
	size_t length = 0;

	for (; *from && length + 1 < size; from++)
		to[length++] = isprint((unsigned char)*from) ? *from : ' ';
	to[length] = '\0';
}

static const char *peer(const struct http_request *request, char who[WHO_MAX])
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred credentials;
	socklen_t size = sizeof(credentials);
	char source[ADDR_TEXT_MAX];

	if (request->listener->needs_secret)
		snprintf(who, WHO_MAX, "%s", addr_format(&request->source, source));
	else if (info && !getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size))
		snprintf(who, WHO_MAX, "uid %u", (unsigned)credentials.uid);
	else
		snprintf(who, WHO_MAX, "somebody");
	return who;
}

void control_log_change(const struct http_request *request)
{
	char path[WHAT_MAX], body[WHAT_MAX], who[WHO_MAX];

	if (request->status >= 300 && request->status < 500)
		return;
	copy_printable(request->path, path, sizeof(path));
	/* A token is a secret. */
	copy_printable(!request->body || strstr(request->path, "/tokens") ? "" : request->body, body, sizeof(body));
	log_info("control: %s %s %s%sis answered %u, to %s", request->method, path, body, *body ? " " : "",
		request->status, peer(request, who));
}
