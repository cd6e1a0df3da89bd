/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One thread, one epoll set, thousands of short HTTP exchanges and a heap of timers. Knows nothing of sales: it opens a
 * connection from a given source, sends one request, reads one answer, and tells how that went.
 */
#ifndef SLUICE_DRILL_ENGINE_H
#define SLUICE_DRILL_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drill/http.h"
#include "drill/places.h"

#define DRILL_REQUEST_MAX 640

enum drill_outcome {
	DRILL_ANSWERED,
	DRILL_TIMED_OUT,
	DRILL_RESET,   /* by the peer */
	DRILL_REFUSED, /* nobody listens, or unreachable */
	DRILL_CUT_OFF, /* closed before the answer was whole */
	DRILL_NOT_HTTP,
	DRILL_LEFT,  /* we hung up, as was asked for */
	DRILL_LOCAL, /* this machine has no socket, port or route left */
	DRILL_OUTCOMES
};

struct drill_result {
	enum drill_outcome outcome;
	bool connected;                /* the handshake was done */
	int error;                     /* errno, where there is one */
	uint64_t started_ns, ended_ns; /* CLOCK_MONOTONIC; started is just before connect() */
	struct drill_http http;        /* if answered */
	const char *body;              /* http.body_length bytes, until the callback returns */
};

/* `context` is the engine's. The callback may start exchanges and timers. */
typedef void (*drill_done_fn)(void *context, void *actor, uint32_t tag, const struct drill_result *result);
typedef void (*drill_timer_fn)(void *context, void *actor, uint32_t tag);

struct drill_exchange {
	const union drill_address *source; /* NULL: the kernel chooses */
	const union drill_address *target;
	const char *request; /* copied */
	size_t length;       /* 0: connect and say nothing */
	uint32_t timeout_ms;
	bool leave;              /* do not wait for the answer: hang up with a RST */
	uint32_t leave_after_ms; /* after the request is out */
	drill_done_fn done;
	void *actor;
	uint32_t tag;
};

struct drill_engine;

struct drill_engine_stats {
	uint64_t connections; /* begun */
	uint64_t outcomes[DRILL_OUTCOMES];
	uint32_t open, open_peak;
};

/* `connections_max` is lowered to what RLIMIT_NOFILE allows (which is raised first where that is possible). Returns NULL and errno. */
struct drill_engine *drill_engine_new(void *context, uint32_t connections_max);
void drill_engine_free(struct drill_engine *engine); /* closes what is open, without callbacks; NULL is fine */

/* Begins an exchange. `done` is called exactly once, never from within this call, unless this returns an error: -EAGAIN (no
 * connection slot is free at the moment), -EMSGSIZE (request too long).
 */
int drill_engine_start(struct drill_engine *engine, const struct drill_exchange *exchange);
/* Calls `fn` once at or after `due_ns` (CLOCK_MONOTONIC). Returns 0 or -ENOMEM. */
int drill_engine_at(struct drill_engine *engine, uint64_t due_ns, drill_timer_fn fn, void *actor, uint32_t tag);
/* Runs until `until_ns`, or `*stop` is not 0, or nothing is left to wait for. Returns 0 or negative errno. */
int drill_engine_run(struct drill_engine *engine, uint64_t until_ns, const volatile int *stop);
const struct drill_engine_stats *drill_engine_stats(const struct drill_engine *engine);

#endif
