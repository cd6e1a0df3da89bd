/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One message to the receiver, by libcurl: made ready here, sent by whoever owns the handle (webhooks.c: many at a time, or one in a test). */
#ifndef SLUICE_DAEMON_WEBHOOKS_POST_H
#define SLUICE_DAEMON_WEBHOOKS_POST_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "daemon/webhooks_sign.h"
#include "daemon/webhooks_table.h"

#define WEBHOOK_ID_MAX 64

struct webhook_post {
	CURL *easy;
	struct curl_slist *headers;
	char *body;
	size_t received;             /* bytes of the answer, head and body; they are not kept */
	bool has_head;               /* the whole of it */
	char error[CURL_ERROR_SIZE]; /* what went wrong, in curl's words */
};

struct webhook_outcome {
	enum webhook_failure failure; /* WEBHOOK_DELIVERED: a whole head with any 2xx, whatever became of the body */
	int status;                   /* 0 without an answer */
	uint64_t retry_after_s;       /* 0 if it did not say */
};

/* Returns 0 or -ENOMEM. */
int webhook_post_open(struct webhook_post *post, const struct config *config);
void webhook_post_close(struct webhook_post *post);

/* Signs `body` and sets the request; takes `body` (malloc) over, also if it fails. Returns 0 or -ENOMEM. */
int webhook_post_prepare(
	struct webhook_post *post, const struct webhook_keys *keys, const char *id, uint64_t timestamp_s, char *body);
/* What became of it. */
void webhook_post_read(struct webhook_post *post, CURLcode code, struct webhook_outcome *outcome);

/* The URL as it may be shown: without user, password, query. Returns 0, or -EINVAL if it is no URL. */
int webhook_post_show_url(const char *url, char *shown, size_t size);

#endif
