/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The control API by libcurl; see api.h. One handle per command, so the pages of a list share a connection. No proxy, no redirect,
 * no .netrc: the secret goes to the address that the operator named and nowhere else.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/field_words.h"
#include "cli/sse.h"
#include "common/config.h"

#define CONNECT_TIMEOUT_MS 5000L
#define ANSWER_TIMEOUT_MS 30000L
#define READ_TIMEOUT_MS 10000L /* the daemon itself waits 5 s for the writer */
#define SILENCE_TIMEOUT_S 10L  /* of a stream, in which the daemon says something every second */
#define ANSWER_MAX (16u << 20) /* a page of 1,000 elements is some 300 kB; more is not our daemon */
#define SECRET_MAX 256
#define SECRET_FILE "control.secret" /* in daemon.state_dir */
#define PATH_SIZE 512

struct cli_api {
	CURL *curl;
	struct curl_slist *headers;
	char base[PATH_SIZE];  /* "http://sluice" over the socket, else the URL */
	char where[PATH_SIZE]; /* what a sentence calls it */
	bool over_socket;
	long patience_ms;                 /* of what only reads */
	const struct cli_option *options; /* of the command; NULL: not known */
	char *body;
	size_t length;
	bool too_long;
	bool unclear;
	bool said_not_durable; /* once is enough for a command of many requests */
	bool said_not_replicated;
};

/* What to do about it; by the `code` of problem+json, then by status. */
static const struct {
	const char *code;
	long status;
	const char *hint;
} hints[] = {
	{"unknown_sale", 0, "\"sluice sale list\" shows the sales of this node"},
	{"sale_ended", 0, "an end is final: create a sale under another slug"},
	{"writer_away", 0,
		"\"sluice doctor --no-measure\" tells whether sluice-writer listens; journalctl -u sluice-writer says why not"},
	{"no_order", 0, "an order id is 16 hex digits: see \"sluice order list --all\""},
	{"hold_expired", 0,
		"give the payment back, or put a unit in (\"sluice stock add\") and confirm under a new key"},
	{"key_reused", 0, "give each change a key of its own"},
	{"no_entry", 0, "\"list\" shows the prefixes as they must be given, \"labels\" the labels"},
	{"not_found", 0,
		"is that the control address (daemon.control_listen, daemon.control_socket)? The public port takes no commands"},
	{"too_wide", 0, "--force imports it all the same"},
	{"no_answer", 0, "\"sluice answer list\" shows the codes"},
	{"list_full", 0, "gate.max_prefixes in the config file sets the room for entries"},
	{"too_many_sales", 0, "a node holds 1,024 sales"},
	{NULL, 401, "the secret is in control.secret in the daemon's state directory: give it with --secret-file"},
	{NULL, 403, "the secret is in control.secret in the daemon's state directory: give it with --secret-file"},
};

int cli_api_exit_code(long status)
{
	if (status >= 200 && status < 300)
		return CLI_OK;
	switch (status) {
	case 400:
	case 413:
	case 422:
		return CLI_USAGE;
	case 401:
	case 403:
		return CLI_NOT_ALLOWED;
	case 404:
		return CLI_NOT_FOUND;
	case 409:
	case 410: /* a sale that is over: the state refuses, not the request */
		return CLI_CONFLICT;
	default:
		return CLI_FAILED;
	}
}

static void out_of_memory(void)
{
	cli_say("out of memory");
	exit(CLI_FAILED);
}

char *cli_api_path(const char *format, ...)
{
	static const char hex[] = "0123456789ABCDEF";
	static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	size_t size = 0;
	char *path = NULL;
	FILE *out = open_memstream(&path, &size);
	va_list args;

	if (!out)
		out_of_memory();
	va_start(args, format);
	for (; *format; format++) {
		const char *text;

		if (format[0] != '%' || format[1] != 's') {
			fputc(*format, out);
			continue;
		}
		format++;
		for (text = va_arg(args, const char *); *text; text++) {
			unsigned char c = (unsigned char)*text;

			if (strchr(unreserved, c))
				fputc(c, out);
			else
				fprintf(out, "%%%c%c", hex[c >> 4], hex[c & 15]);
		}
	}
	va_end(args);
	if (fclose(out) || !path)
		out_of_memory();
	return path;
}

/* --- opening -------------------------------------------------------------------------------------------------------------- */

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
	struct cli_api *api = arg;
	char *grown;

	size *= count;
	if (api->length + size > ANSWER_MAX) {
		api->too_long = true;
		return 0;
	}
	grown = realloc(api->body, api->length + size + 1);
	if (!grown)
		return 0;
	api->body = grown;
	memcpy(api->body + api->length, bytes, size);
	api->length += size;
	return size;
}

/* The config file is for the daemon and may be unreadable here; then its defaults are as good a guess as any. */
static void read_config(struct config *config)
{
	char error[512];
	int err;

	config_defaults(config);
	err = config_load(config, CONFIG_DEFAULT_PATH, error, sizeof(error));
	if (!err)
		return;
	if (err == -EINVAL)
		cli_say("%s (trying the default socket)", error);
	config_defaults(config);
}

static int read_secret(const char *path, char *secret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), code = CLI_FAILED;
	struct stat st;
	ssize_t length;

	if (fd < 0) {
		cli_say("cannot read the control secret from %s: %s", path, strerror(errno));
		return errno == EACCES ? CLI_NOT_ALLOWED : CLI_FAILED;
	}
	if (!fstat(fd, &st) && st.st_mode & (S_IRWXG | S_IRWXO))
		cli_say("warning: others may read the control secret in %s (chmod 600 it)", path);
	length = read(fd, secret, size - 1);
	if (length < 0) {
		cli_say("cannot read the control secret from %s: %s", path, strerror(errno));
		goto out;
	}
	while (length && strchr(" \t\r\n", secret[length - 1]))
		length--;
	secret[length] = '\0';
	for (ssize_t i = 0; i < length; i++)
		if (secret[i] <= ' ' || secret[i] > '~')
			length = 0; /* would end the header, or is no secret of ours */
	if (!length || (size_t)length == size - 1) {
		cli_say("%s does not hold a control secret: one line of printable characters", path);
		goto out;
	}
	code = CLI_OK;
out:
	close(fd);
	return code;
}

static bool add_header(struct cli_api *api, const char *header)
{
	struct curl_slist *grown = curl_slist_append(api->headers, header);

	if (grown)
		api->headers = grown;
	return grown != NULL;
}

static bool is_this_machine(const char *host)
{
	return !strncmp(host, "127.", 4) || !strcmp(host, "localhost") || !strcmp(host, "[::1]");
}

static int check_url(const char *url)
{
	CURLU *parsed = curl_url();
	char *scheme = NULL, *host = NULL;
	int code = CLI_USAGE;

	if (!parsed || curl_url_set(parsed, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) ||
		curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) || curl_url_get(parsed, CURLUPART_HOST, &host, 0) ||
		(strcmp(scheme, "http") && strcmp(scheme, "https"))) {
		cli_say("--url: \"%s\" is not a URL like http://127.0.0.1:9180", url);
		goto out;
	}
	if (!strcmp(scheme, "http") && !is_this_machine(host))
		cli_say("warning: plain HTTP carries the control secret readably to %s (use an SSH tunnel or TLS)",
			host);
	code = CLI_OK;
out:
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(parsed);
	return code;
}

static int use_url(struct cli_api *api, const struct cli_globals *globals)
{
	char header[SECRET_MAX + 32], secret[SECRET_MAX], path[CONFIG_PATH_MAX + 32];
	size_t length = strlen(globals->url);
	int code;

	code = check_url(globals->url);
	if (code)
		return code;
	if (globals->secret_file) {
		snprintf(path, sizeof(path), "%s", globals->secret_file);
	} else {
		struct config config;

		read_config(&config);
		snprintf(path, sizeof(path), "%s/" SECRET_FILE, config.daemon.state_dir);
	}
	code = read_secret(path, secret, sizeof(secret));
	if (code)
		return code;
	while (length && globals->url[length - 1] == '/')
		length--;
	snprintf(api->base, sizeof(api->base), "%.*s", (int)length, globals->url);
	snprintf(api->where, sizeof(api->where), "%s", api->base);
	snprintf(header, sizeof(header), "Authorization: Bearer %s", secret);
	if (!add_header(api, header))
		out_of_memory();
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(header, sizeof(header));
	return CLI_OK;
}

static int use_socket(struct cli_api *api, const struct cli_globals *globals)
{
	if (globals->socket) {
		snprintf(api->where, sizeof(api->where), "%s", globals->socket);
	} else {
		struct config config;

		read_config(&config);
		snprintf(api->where, sizeof(api->where), "%s", config.daemon.control_socket);
	}
	snprintf(api->base, sizeof(api->base), "http://sluice"); /* a name for the Host header; the path decides */
	api->over_socket = true;
	curl_easy_setopt(api->curl, CURLOPT_UNIX_SOCKET_PATH, api->where);
	return CLI_OK;
}

int cli_api_open(struct cli_api **out, const struct cli_globals *globals)
{
	struct cli_api *api = calloc(1, sizeof(*api));
	int code;

	if (!api || curl_global_init(CURL_GLOBAL_DEFAULT) || !(api->curl = curl_easy_init()) ||
		!add_header(api, "Expect:"))
		out_of_memory();
	code = globals->url ? use_url(api, globals) : use_socket(api, globals);
	if (code) {
		cli_api_close(api);
		return code;
	}
	curl_easy_setopt(api->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(api->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(api->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(api->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, ANSWER_TIMEOUT_MS);
	api->patience_ms = READ_TIMEOUT_MS;
	curl_easy_setopt(api->curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(api->curl, CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
	curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, api);
	*out = api;
	return CLI_OK;
}

void cli_api_close(struct cli_api *api)
{
	if (!api)
		return;
	curl_slist_free_all(api->headers);
	curl_easy_cleanup(api->curl);
	free(api->body);
	free(api);
}

void cli_api_use_options(struct cli_api *api, const struct cli_option *options)
{
	api->options = options;
}

void cli_api_set_patience(struct cli_api *api, unsigned milliseconds)
{
	api->patience_ms = (long)milliseconds;
}

void cli_api_name_change(struct cli_api *api, const char *key)
{
	char header[CLI_KEY_MAX + 32];

	snprintf(header, sizeof(header), "Idempotency-Key: %s", key);
	if (!add_header(api, header))
		out_of_memory();
}

bool cli_api_is_unclear(const struct cli_api *api)
{
	return api->unclear;
}

void cli_api_say_key(const struct cli_api *api, const char *key)
{
	if (api->unclear)
		fprintf(stderr, "  repeat the command with --key %s: then it is made once\n", key);
}

/* --- asking ----------------------------------------------------------------------------------------------------------------- */

/* No HTTP answer came. A change that may have been made must not look like one that was not. */
static int say_no_answer(struct cli_api *api, const char *about, const char *method, CURLcode result)
{
	bool change = strcmp(method, "GET") != 0;
	long os_errno = 0;

	curl_easy_getinfo(api->curl, CURLINFO_OS_ERRNO, &os_errno);
	if (result == CURLE_COULDNT_CONNECT && (os_errno == EACCES || os_errno == EPERM)) {
		cli_say("%s: not allowed to use the control socket %s (be root, or a member of its group)", about,
			api->where);
		return CLI_NOT_ALLOWED;
	}
	if (result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST) {
		cli_say("%s: no daemon at %s%s%s (is sluiced running? %s names another)", about, api->where,
			os_errno ? ": " : "", os_errno ? strerror((int)os_errno) : "",
			api->over_socket ? "--socket" : "--url");
		return CLI_UNREACHABLE;
	}
	if (api->too_long) {
		cli_say("%s: the answer of %s is longer than %u bytes: is that sluiced?", about, api->where,
			ANSWER_MAX);
		return CLI_FAILED;
	}
	api->unclear = change;
	cli_say("%s: no answer from %s: %s%s%s", about, api->where, curl_easy_strerror(result),
		change ? " (the change may have been made all the same: look before you repeat it)" : "",
		result == CURLE_OPERATION_TIMEDOUT
			? "; if sluiced hangs: \"sluice status\" reads the gate without it, \"systemctl restart sluiced\" ends that"
			: "");
	return CLI_UNREACHABLE;
}

static const char *hint_for(const char *code, long status)
{
	for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
		if (hints[i].code ? !strcmp(hints[i].code, code) : hints[i].status == status)
			return hints[i].hint;
	return NULL;
}

static int say_refusal(struct cli_api *api, const char *about, long status, const json_t *problem)
{
	const char *code = json_string_value(json_object_get(problem, "code"));
	const char *detail = json_string_value(json_object_get(problem, "detail"));
	const char *field = json_string_value(json_object_get(problem, "field"));
	const json_t *free_units = json_object_get(problem, "free");
	const char *hint = hint_for(code ? code : "", status);
	bool is_named = field && detail && strstr(detail, field);
	char *words;
	int length;

	if (!code) {
		cli_say("%s: %s answered %ld without saying why: is that sluiced?", about, api->where, status);
		return cli_api_exit_code(status);
	}
	if (!detail)
		detail = json_string_value(json_object_get(problem, "title"));
	if (!detail)
		detail = "refused";
	words = cli_field_words(api->options, field, detail);
	if (!words)
		out_of_memory();
	length = (int)strlen(words);
	if (length && words[length - 1] == '.')
		length--;
	if (field && !is_named)
		cli_say("%s: %s: %.*s (%s)", about, field, length, words, code);
	else
		cli_say("%s: %.*s (%s)", about, length, words, code);
	free(words);
	if (json_is_integer(free_units))
		fprintf(stderr,
			json_integer_value(free_units) == 1 ? "  %lld unit is free\n" : "  %lld units are free\n",
			(long long)json_integer_value(free_units));
	if (hint)
		fprintf(stderr, "  %s\n", hint);
	return cli_api_exit_code(status);
}

/* A request's body; `text` NULL for none. */
struct body {
	const char *type, *text;
	size_t length;
};

static CURLcode perform(struct cli_api *api, const char *method, const char *path, const struct body *body)
{
	char type_line[96];
	struct curl_slist type = {.data = type_line, .next = api->headers};
	size_t size = strlen(api->base) + strlen(path) + 1;
	const char *text = body->text;
	char *url = malloc(size);
	CURLcode result;

	if (!url)
		out_of_memory();
	snprintf(type_line, sizeof(type_line), "Content-Type: %s", text ? body->type : "");
	snprintf(url, size, "%s%s", api->base, path);
	api->length = 0;
	api->too_long = false;
	curl_easy_setopt(api->curl, CURLOPT_URL, url);
	curl_easy_setopt(api->curl, CURLOPT_HTTPHEADER, text ? &type : api->headers);
	if (!strcmp(method, "GET") || (!strcmp(method, "DELETE") && !text)) {
		curl_easy_setopt(api->curl, CURLOPT_HTTPGET, 1L);
	} else {
		curl_easy_setopt(api->curl, CURLOPT_POST, 1L);
		curl_easy_setopt(api->curl, CURLOPT_POSTFIELDSIZE, (long)body->length);
		curl_easy_setopt(api->curl, CURLOPT_POSTFIELDS, text ? text : "");
	}
	curl_easy_setopt(api->curl, CURLOPT_CUSTOMREQUEST, method);
	result = curl_easy_perform(api->curl);
	curl_easy_setopt(api->curl, CURLOPT_HTTPHEADER, NULL); /* `type` is on this stack */
	curl_easy_setopt(api->curl, CURLOPT_POSTFIELDS, NULL);
	free(url);
	return result;
}

static int ask(struct cli_api *api, const char *about, const char *method, const char *path, const struct body *body,
	json_t **answer)
{
	CURLcode result;
	json_error_t error;
	json_t *json;
	long status = 0;
	int code;

	*answer = NULL;
	api->unclear = false;
	curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, strcmp(method, "GET") ? ANSWER_TIMEOUT_MS : api->patience_ms);
	result = perform(api, method, path, body);
	if (result)
		return say_no_answer(api, about, method, result);
	curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, &status);
	json = api->length ? json_loadb(api->body, api->length, 0, &error) : NULL;
	code = cli_api_exit_code(status);
	if (code) {
		api->unclear = status >= 500;
		code = say_refusal(api, about, status, json);
		json_decref(json);
		return code;
	}
	if (api->length && !json_is_object(json)) {
		cli_say("%s: the answer of %s is not JSON: is that sluiced?", about, api->where);
		json_decref(json);
		return CLI_FAILED;
	}
	*answer = json;
	return CLI_OK;
}

int cli_api_ask(struct cli_api *api, const char *about, const char *method, char *path, json_t *body, json_t **answer)
{
	char *text = body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
	int code;

	if (body && !text)
		out_of_memory();
	code = cli_api_send(api, about, method, path, "application/json", text, text ? strlen(text) : 0, answer);
	json_decref(body);
	free(text);
	return code;
}

int cli_api_send(struct cli_api *api, const char *about, const char *method, char *path, const char *type,
	const char *text, size_t length, json_t **answer)
{
	struct body body = {type, text, length};
	json_t *got;
	int code = ask(api, about, method, path, &body, &got);

	if (json_is_true(json_object_get(got, "not_durable")) && !api->said_not_durable) {
		cli_say("%s: in force, but the order writer is away: it is written to the ledger when that is back",
			about);
		api->said_not_durable = true;
	}
	if (json_is_true(json_object_get(got, "not_replicated")) && !api->said_not_replicated) {
		cli_say("%s: in force on this node; Redis is away, and the other nodes get it when that is back",
			about);
		api->said_not_replicated = true;
	}
	if (answer)
		*answer = got;
	else
		json_decref(got);
	free(path);
	return code;
}

int cli_api_walk(struct cli_api *api, char *path, const struct cli_api_walk *walk)
{
	json_t *page, *element, *list, *next = NULL;
	char cursor[PATH_SIZE] = "", before[PATH_SIZE];
	int code;
	size_t i;

	for (;;) {
		char *page_path = next ? cli_api_path("&after=%s", cursor) : NULL;
		char *whole = malloc(strlen(path) + (page_path ? strlen(page_path) : 0) + 1);
		int stop = 0;

		if (!whole)
			out_of_memory();
		strcpy(whole, path);
		if (page_path)
			strcat(whole, page_path);
		free(page_path);
		code = cli_api_ask(api, walk->about, "GET", whole, NULL, &page);
		if (code)
			break;
		list = json_object_get(page, walk->list);
		if (!json_is_array(list)) {
			cli_say("%s: the answer of %s has no \"%s\": is that sluiced?", walk->about, api->where,
				walk->list);
			json_decref(page);
			code = CLI_FAILED;
			break;
		}
		json_array_foreach(list, i, element) {
			stop = walk->visit(element, walk->arg);
			if (stop)
				break;
		}
		next = json_object_get(page, "next");
		if (json_is_null(next))
			next = NULL;
		if (walk->after_page && !stop)
			stop = walk->after_page(next, walk->arg);
		strcpy(before, cursor);
		if (json_is_string(next)) {
			snprintf(cursor, sizeof(cursor), "%s", json_string_value(next));
		} else if (json_is_integer(next)) {
			snprintf(cursor, sizeof(cursor), "%lld", (long long)json_integer_value(next));
		}
		if (next && !strcmp(before, cursor)) { /* would ask for the same page for ever */
			cli_say("%s: the answer of %s has a \"next\" that leads nowhere", walk->about, api->where);
			code = CLI_FAILED;
			stop = 1;
		}
		json_decref(page);
		if (stop || !next)
			break;
	}
	free(path);
	return code;
}

/* --- streams ---------------------------------------------------------------------------------------------------------------- */
struct streaming {
	struct cli_api *api;
	const struct cli_api_stream *stream;
	struct cli_sse sse;
	int stopped; /* why the reading ended here; 0 = it did not */
};

static int on_stream_event(const char *name, const char *data, void *arg)
{
	struct streaming *streaming = arg;
	json_error_t error;
	json_t *json = json_loads(data, 0, &error);
	int result;

	if (!json_is_object(json)) {
		json_decref(json);
		return -EPROTO;
	}
	result = streaming->stream->on_event(name, json, streaming->stream->arg);
	json_decref(json);
	return result ? 1 : 0;
}

static size_t on_stream_bytes(char *bytes, size_t size, size_t count, void *arg)
{
	struct streaming *streaming = arg;
	long status = 0;

	size *= count;
	curl_easy_getinfo(streaming->api->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200)
		return on_body(bytes, 1, size, streaming->api);
	streaming->stopped = cli_sse_feed(&streaming->sse, bytes, size);
	return streaming->stopped ? 0 : size;
}

static int end_stream(struct streaming *streaming, CURLcode result, bool time_is_over)
{
	struct cli_api *api = streaming->api;
	const char *about = streaming->stream->about;
	json_error_t error;
	long status = 0;
	json_t *json;
	int code;

	if (streaming->stopped < 0) {
		cli_say("%s: the stream of %s cannot be read: is that sluiced?", about, api->where);
		return CLI_FAILED;
	}
	if (streaming->stopped > 0 || (result == CURLE_OPERATION_TIMEDOUT && time_is_over))
		return CLI_OK;
	if (result)
		return say_no_answer(api, about, "GET", result);
	curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200)
		return CLI_OK;
	json = api->length ? json_loadb(api->body, api->length, 0, &error) : NULL;
	code = say_refusal(api, about, status, json);
	json_decref(json);
	return code ? code : CLI_FAILED;
}

int cli_api_stream(struct cli_api *api, char *path, const struct cli_api_stream *stream)
{
	struct streaming *streaming = calloc(1, sizeof(*streaming));
	double took = 0;
	CURLcode result;
	int code;

	if (!streaming)
		out_of_memory();
	streaming->api = api;
	streaming->stream = stream;
	streaming->sse.on_event = on_stream_event;
	streaming->sse.arg = streaming;
	curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, on_stream_bytes);
	curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, streaming);
	curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, stream->seconds * 1000L);
	curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_TIME, SILENCE_TIMEOUT_S);
	result = perform(api, "GET", path, &(struct body){0});
	curl_easy_getinfo(api->curl, CURLINFO_TOTAL_TIME, &took);
	curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, api);
	curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, ANSWER_TIMEOUT_MS);
	curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_TIME, 0L);
	code = end_stream(streaming, result, stream->seconds && took + 0.1 >= stream->seconds);
	free(streaming);
	free(path);
	return code;
}

/* --- files ------------------------------------------------------------------------------------------------------------------ */
struct saving {
	struct cli_api *api;
	FILE *out;
	bool full;
};

static size_t on_saved_bytes(char *bytes, size_t size, size_t count, void *arg)
{
	struct saving *saving = arg;
	long status = 0;

	size *= count;
	curl_easy_getinfo(saving->api->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200)
		return on_body(bytes, 1, size, saving->api);
	saving->full = fwrite(bytes, 1, size, saving->out) != size;
	return saving->full ? 0 : size;
}

int cli_api_save(struct cli_api *api, const char *about, char *path, FILE *out)
{
	struct saving saving = {.api = api, .out = out};
	json_error_t error;
	CURLcode result;
	long status = 0;
	json_t *json;
	int code = CLI_FAILED;

	curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, on_saved_bytes);
	curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, &saving);
	curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, 0L);
	curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_TIME, ANSWER_TIMEOUT_MS / 1000);
	result = perform(api, "GET", path, &(struct body){0});
	curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, api);
	curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, ANSWER_TIMEOUT_MS);
	curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_TIME, 0L);
	free(path);
	curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, &status);
	if (saving.full || (!result && fflush(out))) {
		cli_say("%s: cannot write: %s", about, strerror(errno));
		return CLI_FAILED;
	}
	if (result && status == 200) {
		cli_say("%s: INCOMPLETE: %s broke off: %s", about, api->where, curl_easy_strerror(result));
		return CLI_FAILED;
	}
	if (result)
		return say_no_answer(api, about, "GET", result);
	if (status == 200)
		return CLI_OK;
	json = api->length ? json_loadb(api->body, api->length, 0, &error) : NULL;
	code = say_refusal(api, about, status, json);
	json_decref(json);
	return code ? code : CLI_FAILED;
}
