/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice verify`: ledger and gate, read side by side, and what differs between them.
 *
 * The parts: verify_ledger.c and verify_books.c read the ledger (file, or through the daemon), verify_gate.c the maps; verify_compare.c compares two
 * views and knows neither files nor maps; verify_repair.c mends; verify.c is the command.
 */
#ifndef SLUICE_CLI_VERIFY_H
#define SLUICE_CLI_VERIFY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/books.h"
#include "sluice/abi.h"

#define VERIFY_SLUG_MAX 63

/* --- views -------------------------------------------------------------------------------------------------------------------- */
/* What was in force before a change. */
struct verify_window {
	uint64_t opens_ns, ends_ns, until_ns;
	uint32_t per_buyer;
};

struct verify_sale {
	uint32_t id;
	char slug[VERIFY_SLUG_MAX + 1];
	uint64_t opens_ns, ends_ns;
	uint32_t per_buyer;
	bool paused, ended;
	int64_t put_in, held, confirmed; /* units, as the ledger has summed them */
	bool has_sums;                   /* the next three are known too */
	int64_t orders;                  /* rows, as the ledger has counted them */
	int64_t moved;                   /* sum of the movements of the stock */
	int64_t refunded;                /* units that refunds took out of it */
	struct verify_window *former;    /* oldest first; malloc'ed or NULL */
	size_t former_count, former_capacity;
	json_t *lease; /* its book of units leased from a fleet (docs/fleet.md); NULL: none, or not read */
};

struct verify_ledger {
	struct verify_sale *sales;
	size_t sale_count, sale_capacity;
	struct books_order *orders;
	size_t order_count, order_capacity;
};

struct verify_admission {
	uint64_t serial, buyer, admitted_ns;
	uint32_t sale, quantity;
	uint32_t state; /* enum sluice_admission_state */
};

struct verify_buyer {
	uint64_t buyer;
	uint32_t sale, units;
};

/* A sale's words in the gate. */
struct verify_slot {
	uint32_t id; /* 0 = free */
	uint32_t flags, per_buyer;
	uint64_t opens_ns, ends_ns;
	uint64_t free, taken;
	bool moving; /* the units changed while the rest was read */
};

struct verify_gate {
	bool attached;        /* else nothing below is known */
	bool alive;           /* a daemon lives */
	bool orders_open;     /* and the writer is there */
	uint64_t in_flight;   /* admissions on their way, as the gate counts them */
	bool in_flight_moves; /* that changed while the rest was read */
	struct verify_slot slots[SLUICE_MAX_SALES];
	struct verify_admission *admissions;
	size_t admission_count, admission_capacity;
	struct verify_buyer *buyers;
	size_t buyer_count, buyer_capacity;
};

/* What the daemon says of a sale, out of its memory. */
struct verify_account {
	uint32_t sale;
	int64_t put_in, free, held, confirmed, in_flight;
};

struct verify_accounts {
	struct verify_account *all;
	size_t count, capacity;
};

/* Room for one more at the end: returns it zeroed, or NULL. `array` is a pointer to the first element (malloc'ed or NULL). */
void *verify_append(void *array, size_t *count, size_t *capacity, size_t size);
void verify_ledger_free(struct verify_ledger *ledger);
void verify_gate_free(struct verify_gate *gate);

/* --- comparing ----------------------------------------------------------------------------------------------------------------- */
enum verify_kind {
	/* the ledger alone */
	VERIFY_OVERSOLD,
	VERIFY_PUT_IN_SUM,
	VERIFY_HELD_SUM,
	VERIFY_CONFIRMED_SUM,
	VERIFY_ORDER_COUNT,
	VERIFY_SEQ_GAP,
	VERIFY_SEQ_TWICE,
	VERIFY_SERIAL_TWICE,
	VERIFY_BUYER_ABOVE_LIMIT,
	VERIFY_OUTSIDE_WINDOW,
	VERIFY_ORDER_OF_NO_SALE,
	/* ledger and gate */
	VERIFY_ADMISSION_WITHOUT_ORDER,
	VERIFY_ORDER_WITHOUT_ADMISSION,
	VERIFY_ADMISSION_DIFFERS,
	VERIFY_ADMISSION_REVOKED,
	VERIFY_CLAIM_LEFT,
	VERIFY_STOCK_TOO_HIGH,
	VERIFY_STOCK_TOO_LOW,
	VERIFY_BUYER_TOO_HIGH,
	VERIFY_BUYER_TOO_LOW,
	VERIFY_WINDOW_DIFFERS,
	VERIFY_LIMIT_DIFFERS,
	VERIFY_FLAGS_DIFFER,
	VERIFY_SALE_NOT_IN_GATE,
	VERIFY_SALE_NOT_IN_LEDGER,
	VERIFY_IN_FLIGHT,
	/* ledger and daemon */
	VERIFY_DAEMON_PUT_IN,
	VERIFY_DAEMON_HELD,
	VERIFY_DAEMON_CONFIRMED,
	VERIFY_KINDS
};

enum verify_subject { VERIFY_OF_SALE, VERIFY_OF_ORDER, VERIFY_OF_BUYER };
enum verify_figures { VERIFY_NUMBERS, VERIFY_TIMES, VERIFY_NO_FIGURES };

struct verify_kind_info {
	const char *name;      /* "stock_too_low" */
	const char *invariant; /* "I2" */
	enum verify_subject subject;
	enum verify_figures figures;
	bool mendable; /* a word of the gate that follows from the ledger, once nothing is on its way */
	const char *text;
};
extern const struct verify_kind_info verify_kinds[VERIFY_KINDS];
#define VERIFY_INVARIANTS 6
extern const char *const verify_invariants[VERIFY_INVARIANTS]; /* I1.. in words */

struct verify_difference {
	enum verify_kind kind;
	uint32_t sale;    /* 0 = of the whole gate */
	uint64_t subject; /* order's id, or buyer; 0 = of the sale */
	int64_t found, expected;
	bool certain; /* mendable, and nothing of the sale is on its way: what is right is known */
};

/* A sale's line of the equation put in = free + held + confirmed + on its way. */
struct verify_line {
	uint32_t sale;
	const char *slug;
	bool in_gate,
		moving; /* moving: units changed hands while they were counted, so the words of this sale were not compared */
	int64_t put_in, free, held, confirmed, on_its_way;
};

struct verify_result {
	struct verify_difference *differences;
	size_t count, capacity;
	struct verify_line *lines; /* of each sale of the ledger, whose slugs they use */
	size_t line_count, moving; /* sales; those of them that moved */
	uint64_t on_their_way; /* admissions that are in the gate and not in the ledger, where that is no difference */
};

/* Compares the views; sorts what is in them. `accounts` may be NULL. `now_ns` (wall): what of an older sale the gate may have forgotten. Returns 0
 * or -ENOMEM. What one look finds can be something on its way; what two looks find (verify_persisting) is not.
 */
int verify_compare(struct verify_ledger *ledger, struct verify_gate *gate, const struct verify_accounts *accounts,
	uint64_t now_ns, struct verify_result *result);
/* Leaves those differences in `result` that `before` has too, with the same figures. */
void verify_persisting(struct verify_result *result, const struct verify_result *before);
void verify_result_free(struct verify_result *result);

/* --- reading: return an exit code (enum cli_exit) after saying why ---------------------------------------------------------------- */
struct cli_api;
struct gate_maps;

/* Of this machine, where a writer may be at work on it or begin meanwhile; or of another, whose writer does not run: nothing is written
 * beside it if it was closed, so it may be on a disk that is only to be read.
 */
enum verify_whose { VERIFY_OUR_OWN, VERIFY_OF_ANOTHER };

/* One snapshot of the SQLite file, which is only read. CLI_NOT_FOUND if there is no such file. */
int verify_read_file(const char *path, enum verify_whose whose, struct verify_ledger *ledger);
/* Through the daemon and the writer: whatever the store is. Sums of rows and movements are not known this way. */
int verify_read_daemon(struct cli_api *api, struct verify_ledger *ledger);
/* What the daemon says of the sales that are in the gate. */
int verify_read_accounts(struct cli_api *api, const struct verify_ledger *ledger, const struct verify_gate *gate,
	struct verify_accounts *out);
/* The words twice, the tables in between: verify_gate_read, then whatever else belongs to the look, then verify_gate_read_again, which
 * tells what has moved.
 */
/* Whether a daemon gives signs of life: waits for one, half a second at most if the last is not older than two. */
bool verify_daemon_lives(const struct gate_maps *maps);
/* Whether the last sign is so young that the gate may still admit orders. */
bool verify_gate_is_fresh(const struct gate_maps *maps);
int verify_gate_read(const struct gate_maps *maps, struct verify_gate *gate);
void verify_gate_read_again(const struct gate_maps *maps, struct verify_gate *gate);

/* --- repairing ------------------------------------------------------------------------------------------------------------------------ */
/* Without a daemon: sets the words of the certain differences straight in the maps, each only if it is still as it was found. *done: how many. */
int verify_repair_maps(const struct gate_maps *maps, const struct verify_result *result, size_t *done);
/* With one: has it close orders, deliver what is on its way, and set the gate from the ledger, as after a break of its connection. */
int verify_repair_daemon(struct cli_api *api);

int cmd_verify(int argc, char **argv);

#endif
