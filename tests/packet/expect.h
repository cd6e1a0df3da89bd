/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the packet tests expect of a run, said once. Used by every test program; not by the benches, so cmocka stays out of the harness.
 *
 * expect_reason holds every run to the same promises: one counter, the action that the list of reasons names, a frame that passes is
 * untouched, and a frame that is sent back has every length and checksum right.
 */
#ifndef SLUICE_TEST_EXPECT_H
#define SLUICE_TEST_EXPECT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <linux/bpf.h>

#include "common/maps.h"
#include "gate.h"

static inline __attribute__((format(printf, 3, 4))) void fail_at(const char *file, int line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprint_error(format, args);
	va_end(args);
	print_error("\n");
	_fail(file, line);
}

#define expect(condition, ...) \
	do { \
		if (!(condition)) \
			fail_at(__FILE__, __LINE__, __VA_ARGS__); \
	} while (0)

static inline int action_of(int reason)
{
	switch (reason_action(reason)) {
	case SLUICE_ACTION_PASS:
		return XDP_PASS;
	case SLUICE_ACTION_DROP:
		return XDP_DROP;
	default:
		return XDP_TX;
	}
}

/* The promises of every run whatever its reason; `what` names the frame. */
static inline void expect_sound_at(const char *file, int line, const struct run *run, const char *what)
{
	if (run->reason <= SLUICE_REASON_NONE)
		fail_at(file, line, "%s: not exactly one reason (%d)", what, run->reason);
	if (run->action != action_of(run->reason))
		fail_at(file, line, "%s: action %d does not go with %s", what, run->action, reason_label(run->reason));
	if (run->action == XDP_PASS && !run->untouched)
		fail_at(file, line, "%s: passed as %s, but changed", what, reason_label(run->reason));
	if (run->action == XDP_TX && run->parsed.wrong)
		fail_at(file, line, "%s: sent back as %s with a wrong %s", what, reason_label(run->reason),
			run->parsed.wrong);
}

static inline __attribute__((format(printf, 5, 6))) void expect_reason_at(
	const char *file, int line, const struct run *run, int reason, const char *format, ...)
{
	char what[256];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	expect_sound_at(file, line, run, what);
	if (run->reason != reason)
		fail_at(file, line, "%s: %s, not %s", what, reason_label(run->reason), reason_label(reason));
}

#define expect_sound(run, what) expect_sound_at(__FILE__, __LINE__, run, what)
#define expect_reason(run, reason, ...) expect_reason_at(__FILE__, __LINE__, run, reason, __VA_ARGS__)

/* A segment that goes back the way `frame` came: MACs, addresses and ports change places, tags stay. */
static inline void expect_way_back(const struct run *run, const struct frame *frame)
{
	uint8_t sent[FRAME_MAX];
	char source[64], destination[64];
	uint8_t address[16];
	int family = frame->ip6 ? AF_INET6 : AF_INET;

	frame_write(frame, sent);
	assert_int_equal(run->action, XDP_TX);
	expect(!run->parsed.wrong, "wrong %s", run->parsed.wrong);
	assert_memory_equal(run->bytes, sent + 6, 6);
	assert_memory_equal(run->bytes + 6, sent, 6);
	assert_memory_equal(run->bytes + 12, sent + 12, 2 + 4 * frame->vlans);
	assert_int_equal(run->parsed.ip6, frame->ip6);
	inet_pton(family, frame->source, address);
	inet_ntop(family, address, source, sizeof(source));
	inet_pton(family, frame->destination, address);
	inet_ntop(family, address, destination, sizeof(destination));
	assert_string_equal(run->parsed.source, destination);
	assert_string_equal(run->parsed.destination, source);
	assert_int_equal(run->parsed.sport, frame->dport);
	assert_int_equal(run->parsed.dport, frame->sport);
	assert_true(run->parsed.ttl > 0);
}

/* Sequence numbers of a segment that acknowledges all of `frame`. */
static inline void expect_acknowledges(const struct run *run, const struct frame *frame)
{
	uint32_t length = frame->payload_len + !!(frame->flags & F_SYN) + !!(frame->flags & F_FIN);

	assert_int_equal(run->parsed.ack, (uint32_t)(frame->seq + length));
	assert_true(run->parsed.window > 0);
}

/* The value of a header, "" if it stands alone, NULL if it is absent. `out` holds 128. */
static inline const char *http_header(const char *text, const char *name, char *out)
{
	const char *end = strstr(text, "\r\n\r\n");

	for (const char *line = strstr(text, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n")) {
		const char *at = line + 2;
		size_t length = strlen(name);

		if (strncasecmp(at, name, length) || at[length] != ':')
			continue;
		at += length + 1;
		at += strspn(at, " ");
		snprintf(out, 128, "%.*s", (int)strcspn(at, "\r\n"), at);
		return out;
	}
	return NULL;
}

/* A complete default answer of `code`; `retry_s` is what Retry-After says, -1 = there is none. */
static inline void expect_http(const void *bytes, unsigned length, enum sluice_answer code, int retry_s)
{
	char text[SLUICE_ANSWER_MAX + 1], wanted[128], value[128];
	const char *body;

	assert_in_range(length, 1, SLUICE_ANSWER_MAX);
	memcpy(text, bytes, length);
	text[length] = '\0';
	assert_int_equal(strlen(text), length);
	snprintf(wanted, sizeof(wanted), "HTTP/1.1 %d ", answer_status(code));
	expect(!strncmp(text, wanted, strlen(wanted)), "'%.20s' is not the status line of %s", text, answer_code(code));
	body = strstr(text, "\r\n\r\n");
	assert_non_null(body);
	body += 4;
	assert_string_equal(http_header(text, "Content-Type", value), "application/problem+json");
	assert_string_equal(http_header(text, "Connection", value), "close");
	assert_string_equal(http_header(text, "Cache-Control", value), "no-store");
	assert_non_null(http_header(text, "Content-Length", value));
	assert_int_equal(strtoul(value, NULL, 10), strlen(body));
	if (retry_s < 0) {
		assert_null(http_header(text, "Retry-After", value));
	} else {
		assert_non_null(http_header(text, "Retry-After", value));
		snprintf(wanted, sizeof(wanted), "%04d", retry_s);
		assert_string_equal(value, wanted);
	}
	assert_int_equal(body[0], '{');
	snprintf(wanted, sizeof(wanted), "\"code\":\"%s\"", answer_code(code));
	expect(strstr(body, wanted), "no %s in %s", wanted, body);
	snprintf(wanted, sizeof(wanted), "\"status\":%d", answer_status(code));
	expect(strstr(body, wanted), "no %s in %s", wanted, body);
}

/* `frame` was answered for good: the answer of `code`, and the connection is closed in the same segment. */
static inline void expect_answer(const struct run *run, const struct frame *frame, enum sluice_answer code, int retry_s)
{
	expect_way_back(run, frame);
	assert_int_equal(run->parsed.flags, F_FIN | F_PSH | F_ACK);
	assert_int_equal(run->parsed.seq, frame->ack);
	assert_int_equal(run->parsed.option_bytes, 0);
	expect_acknowledges(run, frame);
	expect_http(run->parsed.payload, run->parsed.payload_len, code, retry_s);
}

/* Loads the gate once for a program, and puts it back before each test. */
static inline int setup_gate(void **state)
{
	static struct gate gate;

	gate_open(&gate, NULL);
	*state = &gate;
	return 0;
}

static inline int close_gate(void **state)
{
	gate_close(*state);
	return 0;
}

static inline int reset_gate(void **state)
{
	gate_reset(*state);
	return 0;
}

#define gate_test(function) cmocka_unit_test_setup(function, reset_gate)

#endif
