/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The pages that the `type` of a problem document leads to: GET /problems and GET /problems/{code}, at both listeners. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http.h"
#include "daemon/problems.h"

#define PAGE_TYPE "text/html; charset=utf-8"

const struct problem_text problem_texts[] = {
#define X(code_, statuses_, meaning_, remedy_) \
	{.code = code_, .statuses = statuses_, .meaning = meaning_, .remedy = remedy_},
	PROBLEMS(X)
#undef X
		{0},
};

const struct problem_text *problem_find(const char *code)
{
	for (const struct problem_text *text = problem_texts; text->code; text++)
		if (!strcmp(text->code, code))
			return text;
	return NULL;
}

/* As text of an HTML element. */
static void put_escaped(FILE *to, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '<':
			fputs("&lt;", to);
			break;
		case '&':
			fputs("&amp;", to);
			break;
		default:
			putc(*text, to);
		}
}

static void put_problem(FILE *to, const struct problem_text *problem)
{
	fprintf(to, "<h2 id=\"%s\"><a href=\"" PROBLEM_TYPE_PREFIX "%s\">%s</a></h2>\n<p>Status %s. ", problem->code,
		problem->code, problem->code, problem->statuses);
	put_escaped(to, problem->meaning);
	fputs("</p>\n<p>", to);
	put_escaped(to, problem->remedy);
	fputs("</p>\n", to);
}

static enum MHD_Result send_page(struct http_request *request, const struct problem_text *only)
{
	enum MHD_Result result;
	char *text = NULL;
	size_t length;
	FILE *page = open_memstream(&text, &length);

	if (!page)
		return MHD_NO;
	fputs("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Sluice: problems</title>\n"
	      "<body style=\"font:1rem/1.5 system-ui;max-width:42rem;margin:2rem auto;padding:0 1rem\">\n",
		page);
	if (only)
		put_problem(page, only);
	for (const struct problem_text *problem = problem_texts; !only && problem->code; problem++)
		put_problem(page, problem);
	if (only)
		fputs("<p><a href=\"/problems\">All problems</a></p>\n", page);
	fclose(page);
	result = http_send_text(request, 200, PAGE_TYPE, text, length);
	free(text);
	return result;
}

enum MHD_Result http_problems_index(struct http_request *request)
{
	return send_page(request, NULL);
}

enum MHD_Result http_problems_page(struct http_request *request)
{
	const struct problem_text *problem = problem_find(request->captures[0]);

	if (!problem)
		return http_problem(request, 404, "not_found", "There is no such problem.");
	return send_page(request, problem);
}
