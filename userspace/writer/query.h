/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The JSON questions of docs/writer-protocol.md, answered from a store. Knows neither sockets nor databases. */
#ifndef SLUICE_WRITER_QUERY_H
#define SLUICE_WRITER_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"
#include "writer/store.h"

/* Answers the body of a WIRE_QUERY. *answer: JSON text to be freed by the caller, NULL only when memory is out.
 * Returns the type of the answering frame: WIRE_QUERY or WIRE_ERROR.
 */
enum wire_type writer_query_answer(
	struct store *store, const void *body, size_t length, uint64_t now_ns, char **answer);
/* Answers the body of a WIRE_HELLO in the same way. */
enum wire_type writer_query_hello(
	const struct store *store, const char *ledger, const void *body, size_t length, char **answer);
/* The body of a WIRE_ERROR. `error` is negative errno as in store.h. */
char *writer_query_error(int error, const char *detail);

#endif
