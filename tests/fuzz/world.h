/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The whole gate in userspace, and a ledger of what it may and may not do, kept beside it.
 *
 * world_frame() and world_call() run the programs sluice_gate and sluice_door and check after each run everything that must always hold
 * (docs/fuzzing.md lists it). What does not hold ends the process. The targets gate, token and control stand on this.
 */
#ifndef SLUICE_FUZZ_WORLD_H
#define SLUICE_FUZZ_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "shim.h"
#include "sluice/abi.h"
#include "sluice/token.h"

#define WORLD_PORT 8080     /* service 0, kind sale, any address */
#define WORLD_TCP_PORT 8081 /* service 1, kind tcp, any address */
#define WORLD_ONE_PORT 8082 /* service 2, kind sale, one IPv4 address */
#define WORLD_SERVICES 3
#define WORLD_SALE 7 /* two of the sales share a slot: only the first is in the gate */
#define WORLD_OTHER_SALE 8
#define WORLD_SHADED_SALE (WORLD_SALE + SLUICE_MAX_SALES)
#define WORLD_WALL_NS 1800000000000000000ULL /* at the start */
#define WORLD_STOCK 10

struct world_run {
	int action; /* XDP_* */
	int reason;
	int service;
	const uint8_t *bytes; /* of the frame as it is now */
	uint32_t length;
};

/* Once: answers, services, the door. */
void world_open(void);
/* The same gate each time: two sales that are open with WORLD_STOCK units, per_buyer 3, limits off, daemon alive, one key, no lists. */
void world_reset(void);

struct sluice_control *world_control(void);
struct sluice_sale *world_sale(uint32_t id);
struct sluice_limits *world_limits(void);
struct sluice_key *world_key(unsigned slot);
uint64_t world_wall_ns(void);
/* Daemon's part: puts units in, or takes free ones out (as many as there are at the most). */
void world_move_stock(uint32_t id, int units);
/* Makes `count` admissions durable and takes their records off the ring. */
void world_settle(unsigned count);
/* Another CPU has claimed this token and not decided yet, or it was revoked; `state` 0 takes that back. */
void world_claim(const struct sluice_token *token, uint32_t state);
/* A deny or allow entry of `prefix_len` (mapped form) around `addr`. */
void world_list(enum sluice_list list, struct sluice_addr addr, unsigned prefix_len, uint64_t expires_wall);
/* Somebody watches verdicts; reasons 0: nobody. */
void world_watch(const struct sluice_watch *watch);
/* Another template for the answer `code`, in the bank not in use, then switches: as the daemon does for an operator. */
void world_answer(unsigned code, uint8_t fill, unsigned length, unsigned retry_at);

/* Where tokens of `node` belong, in the bank in use of the answer wrong_node; length 0: nobody knows. */
void world_home(unsigned node, uint8_t fill, unsigned length, unsigned token_at);

/* Signs and encodes (SLUICE_TOKEN_TEXT + 1); the gate may admit what was sealed here, and nothing else. */
void world_seal(struct sluice_token *token, char *text);
/* The same for one that was made elsewhere with a key of this world. */
void world_know(const struct sluice_token *token);

void world_frame(const uint8_t *bytes, uint32_t length, bool at_end, struct world_run *run);
void world_call(struct sluice_call *call);

#endif
