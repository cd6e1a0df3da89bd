/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Numbers, rates and times as an operator types them, and the sentences about those that are wrong. Called by the verbs. The
 * parsers are strict: "1e3", " 5", "-1" and "0x10" are not counts, because a stock that was misread is sold.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/random.h>

#include "cli/cli.h"
#include "common/timefmt.h"

#define RATE_MIN 0.001
#define RATE_MAX 1e9
#define NS_PER_S 1000000000ULL

/* Where sentences go instead of stderr; see cli_say_into. */
static char *said;
static size_t said_size;

void cli_say_into(char *text, size_t size)
{
	said = text;
	said_size = size;
	if (text)
		*text = '\0';
}

static void say(const char *format, va_list args)
{
	char line[1024];

	vsnprintf(line, sizeof(line), format, args);
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	if (said)
		snprintf(said + strlen(said), said_size - strlen(said), "%s%s", *said ? "\n" : "", line);
	else
		fprintf(stderr, "sluice: %s\n", line);
}

void cli_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
}

int cli_usage(const struct cli_call *call, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
	fprintf(stderr, "Try \"sluice%s%s%s%s --help\".\n", call->noun ? " " : "", call->noun ? call->noun->name : "",
		call->verb && *call->verb->name ? " " : "", call->verb ? call->verb->name : "");
	return CLI_USAGE;
}

int cli_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *count)
{
	uint64_t value = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return -ERANGE;
	}
	if (value < min || value > max)
		return -ERANGE;
	*count = value;
	return 0;
}

int cli_parse_rate(const char *text, double *rate)
{
	char *end;
	double value;

	if (!strcmp(text, "off")) {
		*rate = 0;
		return 0;
	}
	if (!*text || text[strspn(text, "0123456789.")])
		return -EINVAL;
	value = strtod(text, &end);
	if (*end || end == text)
		return -EINVAL;
	if (value != 0 && (value < RATE_MIN || value > RATE_MAX))
		return -ERANGE;
	*rate = value;
	return 0;
}

int cli_parse_when(const char *text, uint64_t now_ns, uint64_t *wall_ns)
{
	uint64_t seconds, ns;

	if (!strcmp(text, "now")) {
		*wall_ns = now_ns;
		return 0;
	}
	if (*text != '+')
		return time_parse_rfc3339(text, wall_ns);
	if (time_parse_duration_s(text + 1, &seconds) || __builtin_mul_overflow(seconds, NS_PER_S, &ns) ||
		__builtin_add_overflow(now_ns, ns, &ns))
		return -EINVAL;
	*wall_ns = ns;
	return 0;
}

static int say_count(
	const struct cli_call *call, const char *dashes, const char *name, const char *text, uint64_t min, uint64_t max)
{
	return cli_usage(call, "%s%s: \"%s\" is not a whole number from %llu to %llu", dashes, name, text,
		(unsigned long long)min, (unsigned long long)max);
}

int cli_option_count(const struct cli_call *call, unsigned option, uint64_t min, uint64_t max, uint64_t *count)
{
	const char *text = call->value[option];

	if (!text || !cli_parse_count(text, min, max, count))
		return CLI_OK;
	return say_count(call, "--", call->verb->options[option].name, text, min, max);
}

int cli_operand_count(const struct cli_call *call, unsigned operand, uint64_t min, uint64_t max, uint64_t *count)
{
	if (!cli_parse_count(call->operand[operand], min, max, count))
		return CLI_OK;
	return say_count(call, "", "N", call->operand[operand], min, max);
}

int cli_option_duration_s(const struct cli_call *call, unsigned option, uint64_t *seconds)
{
	const char *text = call->value[option];

	if (!text || (!time_parse_duration_s(text, seconds) && *seconds <= CLI_COUNT_MAX))
		return CLI_OK;
	return cli_usage(call, "--%s: \"%s\" is not a duration like 90, 90s, 15m, 2h or 7d",
		call->verb->options[option].name, text);
}

int cli_read_line(const struct cli_call *call, const char *what, char *text, size_t size)
{
	size_t length = fread(text, 1, size, call->in); /* size - 1 and one more, to notice what is too long */

	if (ferror(call->in)) {
		cli_say("cannot read %s from standard input: %s", what, strerror(errno));
		return CLI_FAILED;
	}
	if (length && text[length - 1] == '\n')
		length--;
	if (length && text[length - 1] == '\r')
		length--;
	if (!length)
		return cli_usage(call, "standard input holds no %s", what);
	if (length == size)
		return cli_usage(call, "%s from standard input is longer than %zu bytes", what, size - 1);
	text[length] = '\0';
	if (strlen(text) != length || strchr(text, '\n'))
		return cli_usage(call, "%s from standard input is more than one line", what);
	return CLI_OK;
}

const char *cli_plural(unsigned long long count)
{
	return count == 1 ? "" : "s";
}

int cli_confirm(FILE *in, const char *format, ...)
{
	char answer[16] = "";
	va_list args;

	if (!isatty(fileno(in)) || !isatty(fileno(stderr)))
		return CLI_OK;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs(" Go on? [y/N] ", stderr);
	fflush(stderr);
	if (fgets(answer, sizeof(answer), in) && (answer[0] == 'y' || answer[0] == 'Y'))
		return CLI_OK;
	cli_say("nothing was changed");
	return CLI_FAILED;
}

int cli_option_key(const struct cli_call *call, unsigned option, char *key)
{
	const char *given = call->value[option];
	uint64_t fresh[2];

	if (!given) {
		if (getrandom(fresh, sizeof(fresh), 0) != (ssize_t)sizeof(fresh)) {
			cli_say("the kernel gives no random numbers");
			return CLI_FAILED;
		}
		snprintf(key, CLI_KEY_MAX + 1, "%016" PRIx64 "%016" PRIx64, fresh[0], fresh[1]);
		return CLI_OK;
	}
	for (const char *c = given; *c; c++)
		if (*c <= ' ' || *c > '~')
			return cli_usage(call, "--key: only printable characters without spaces can be in a key");
	if (!*given || strlen(given) > CLI_KEY_MAX)
		return cli_usage(call, "--key: a key has 1 to %d characters", CLI_KEY_MAX);
	strcpy(key, given);
	return CLI_OK;
}
