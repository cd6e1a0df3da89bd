/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One message; see webhooks_post.h. Headers as Standard Webhooks has them.
 *
 * A receiver may be slow, hostile, or not the one that was meant: no redirect is followed, certificates are checked, an answer is read up to
 * ANSWER_MAX and thrown away, and after TOTAL_TIMEOUT_MS it is over, whatever has come by then.
 */
#include "daemon/webhooks_post.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 5000L
#define TOTAL_TIMEOUT_MS 15000L
#define ANSWER_MAX (64u << 10)
#define KEEPALIVE_S 30L

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
	struct webhook_post *post = arg;

	(void)bytes;
	post->received += size * count;
	return post->received <= ANSWER_MAX ? size * count : 0;
}

/* A line of a head at a time; 100 (Continue) has one too, before that of the answer. */
static size_t on_head(char *line, size_t size, size_t count, void *arg)
{
	struct webhook_post *post = arg;
	size_t length = size * count;

	if (length >= 5 && !memcmp(line, "HTTP/", 5))
		post->has_head = false;
	else if (length && (line[0] == '\r' || line[0] == '\n'))
		post->has_head = true;
	return on_body(line, size, count, arg);
}

int webhook_post_open(struct webhook_post *post, const struct config *config)
{
	CURL *easy = curl_easy_init();

	memset(post, 0, sizeof(*post));
	if (!easy)
		return -ENOMEM;
	post->easy = easy;
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, post->error);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, TOTAL_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_S);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, post);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, post);
	if (*config->daemon.webhook_ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, config->daemon.webhook_ca_file);
	if (!curl_easy_setopt(easy, CURLOPT_URL, config->daemon.webhook_url)) /* copied: the one that may fail */
		return 0;
	webhook_post_close(post);
	return -ENOMEM;
}

static void forget_message(struct webhook_post *post)
{
	curl_slist_free_all(post->headers);
	post->headers = NULL;
	free(post->body);
	post->body = NULL;
}

void webhook_post_close(struct webhook_post *post)
{
	curl_easy_cleanup(post->easy);
	post->easy = NULL;
	forget_message(post);
}

static int add_header(struct webhook_post *post, const char *name, const char *value)
{
	char line[WEBHOOK_SIGNATURE_MAX + 64];
	struct curl_slist *headers;

	snprintf(line, sizeof(line), "%s: %s", name, value);
	headers = curl_slist_append(post->headers, line);
	if (!headers)
		return -ENOMEM;
	post->headers = headers;
	return 0;
}

int webhook_post_prepare(
	struct webhook_post *post, const struct webhook_keys *keys, const char *id, uint64_t timestamp_s, char *body)
{
	char timestamp[24], signature[WEBHOOK_SIGNATURE_MAX];
	size_t length = body ? strlen(body) : 0;

	forget_message(post);
	post->body = body;
	post->received = 0;
	post->has_head = false;
	post->error[0] = '\0';
	if (!body)
		return -ENOMEM;
	snprintf(timestamp, sizeof(timestamp), "%llu", (unsigned long long)timestamp_s);
	webhook_sign(keys, id, timestamp_s, body, length, signature);
	if (add_header(post, "Content-Type", "application/json") || add_header(post, "webhook-id", id) ||
		add_header(post, "webhook-timestamp", timestamp) || add_header(post, "webhook-signature", signature))
		return -ENOMEM;
	curl_easy_setopt(post->easy, CURLOPT_HTTPHEADER, post->headers);
	curl_easy_setopt(post->easy, CURLOPT_POST, 1L);
	curl_easy_setopt(post->easy, CURLOPT_POSTFIELDS, post->body);
	curl_easy_setopt(post->easy, CURLOPT_POSTFIELDSIZE, (long)length);
	return 0;
}

static enum webhook_failure failure_of_code(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return WEBHOOK_RESOLVE;
	case CURLE_COULDNT_CONNECT:
		return WEBHOOK_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		return WEBHOOK_TIMEOUT;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CERTPROBLEM:
		return WEBHOOK_TLS;
	default:
		return WEBHOOK_BROKEN;
	}
}

void webhook_post_read(struct webhook_post *post, CURLcode code, struct webhook_outcome *outcome)
{
	curl_off_t retry_after = 0;
	long status = 0;

	if (post->has_head) {
		curl_easy_getinfo(post->easy, CURLINFO_RESPONSE_CODE, &status);
		curl_easy_getinfo(post->easy, CURLINFO_RETRY_AFTER, &retry_after);
	}
	*outcome = (struct webhook_outcome){
		.status = (int)status, .retry_after_s = retry_after > 0 ? (uint64_t)retry_after : 0};
	if (!post->has_head)
		outcome->failure = code ? failure_of_code(code) : WEBHOOK_BROKEN;
	else if (status >= 200 && status < 300)
		outcome->failure = WEBHOOK_DELIVERED;
	else if (status >= 300 && status < 400)
		outcome->failure = WEBHOOK_REDIRECT;
	else if (status == 410)
		outcome->failure = WEBHOOK_GONE;
	else if (status >= 400 && status < 500)
		outcome->failure = WEBHOOK_REFUSED;
	else if (status >= 500 && status < 600)
		outcome->failure = WEBHOOK_SERVER;
	else
		outcome->failure = WEBHOOK_BROKEN;
	forget_message(post);
}

static int get_part(CURLU *parts, CURLUPart part, char **text)
{
	CURLUcode code = curl_url_get(parts, part, text, 0);

	/* Most URLs have no port and some no path: that is no error. */
	return code == CURLUE_OK || code == CURLUE_NO_PORT ? 0 : -EINVAL;
}

int webhook_post_show_url(const char *url, char *shown, size_t size)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL;
	CURLU *parts = curl_url();
	int err = parts && !curl_url_set(parts, CURLUPART_URL, url, 0) ? 0 : -EINVAL;

	if (!err)
		err = get_part(parts, CURLUPART_SCHEME, &scheme);
	if (!err)
		err = get_part(parts, CURLUPART_HOST, &host);
	if (!err)
		err = get_part(parts, CURLUPART_PORT, &port);
	if (!err)
		err = get_part(parts, CURLUPART_PATH, &path);
	if (!err)
		snprintf(shown, size, "%s://%s%s%s%s", scheme, host, port ? ":" : "", port ? port : "", path);
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(path);
	curl_url_cleanup(parts);
	return err;
}
