/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a node's ledger says of its lease in one sale: the book. A document of the ledger, `lease.<sale id>`, that is written in one transaction with
 * the move of stock that it explains, so a crash never finds the one without the other.
 *
 * In the ledger of a node, put_in of a sale = balance of the book - what was refunded without restocking.
 */
#ifndef SLUICE_FLEET_LEASE_BOOK_H
#define SLUICE_FLEET_LEASE_BOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEASE_NODE_MAX 255            /* the highest number of a node; the lowest is 1 */
#define LEASE_GENERATION_MAX 64       /* bytes with the NUL */
#define LEASE_OPERATION_MAX 64        /* bytes with the NUL, of an operation id */
#define LEASE_UNITS_MAX 1000000000000 /* of one sale */
#define LEASE_BOOK_TEXT_MAX 2048      /* bytes with the NUL */
#define LEASE_COUNT_MAX \
	((int64_t)1 \
		<< 52) /* of seq, epoch, version and generations: what a double of Lua counts exactly, and half of it */
#define LEASE_MEMBERS_TEXT_MAX (LEASE_NODE_MAX * 4 + 1)

enum lease_op {
	LEASE_OP_NONE,
	LEASE_OP_GRANT,
	LEASE_OP_RETURN,
};

/* Nodes by number. */
struct lease_members {
	uint64_t bits[(LEASE_NODE_MAX + 64) / 64];
};

struct lease_book {
	/* "NUMBER-TEXT": the generation of the coordinator's data that this node has promised itself to. It takes nothing of another generation, and
	 * never goes back to one with a lower number. "" = none yet.
	 */
	char generation[LEASE_GENERATION_MAX];
	int64_t epoch; /* grows with each time that the node was fenced */
	int64_t seq; /* of the last operation that moved units, or was known when the node went over to this generation or epoch */
	enum lease_op op;
	int64_t units;   /* of that operation */
	int64_t balance; /* units leased to this node: what came less what went back */
	/* What the node knows of the whole sale. The highest version of the total that any node knows is the true one. */
	int64_t total;
	int64_t version;                     /* of the total; 0 = not known */
	char operation[LEASE_OPERATION_MAX]; /* id of the operation that made this version; "" = none */
	struct lease_members
		members; /* all nodes that may hold units of the sale: they are waited for when Redis has lost its data */
};

bool lease_members_has(const struct lease_members *members, unsigned node);
void lease_members_add(struct lease_members *members, unsigned node);
void lease_members_join(struct lease_members *members, const struct lease_members *more);
/* Has `members` every one of `all`? */
bool lease_members_cover(const struct lease_members *members, const struct lease_members *all);
/* "1,2,7". Returns its length. `text` has LEASE_MEMBERS_TEXT_MAX bytes. */
size_t lease_members_encode(const struct lease_members *members, char *text);
/* 0 or -EINVAL. "" is nobody. */
int lease_members_decode(struct lease_members *members, const char *text);

/* Is this an operation id: at most 63 of A-Z a-z 0-9 . _ : - ("" too)? */
bool lease_operation_is_valid(const char *operation);
/* Number of a generation; 0 for "", -1 for a text that is none. */
int64_t lease_generation_number(const char *generation);
/* Writes JSON into `text` of LEASE_BOOK_TEXT_MAX bytes. */
void lease_book_encode(const struct lease_book *book, char *text);
/* Reads JSON. Returns 0 or -EINVAL (unknown members, numbers out of range, a balance below zero...). `book` is then not changed. */
int lease_book_decode(struct lease_book *book, const char *text);

#endif
