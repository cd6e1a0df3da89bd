/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The paths through the gate that are timed: what their frames look like, and what must be true before each round. */
#ifndef SLUICE_BENCH_PATHS_H
#define SLUICE_BENCH_PATHS_H

#include "deny.h"
#include "runner.h"

/* So many sources that what the gate keeps of them does not fit into the second-level cache. */
#define PATH_FRAMES 16384
/* So many that it does. */
#define PATH_FRAMES_WARM 256
/* Muting ends with the tick, so the number of sources decides how often one is judged anew: these send some 6,000 a second each. */
#define PATH_FRAMES_OVER_RATE 1024

struct ring_buffer;

/* What the paths' callbacks share. */
struct path_state {
	struct bench *bench;
	struct deny deny;
	struct ring_buffer *ring;
	uint64_t serial; /* of the first token in the frames */
	uint64_t junk;   /* next key that fills the table of rates */
	int peers[2];    /* both ends of the one established connection */
};
extern struct path_state path_state;

enum path_form { FORM_CURL, FORM_BROWSER };

struct path {
	const char *id;            /* in the report */
	const char *text;          /* in the table */
	double target_ns;          /* 0 = none was set */
	enum sluice_reason reason; /* with which every packet of it must leave */
	bool is_unprotected;       /* counted in the row of what is not protected */
	bool ip6;
	bool is_once;      /* a frame takes this path once; then `reset` must undo it */
	bool is_many_only; /* fewer frames would show nothing */
	unsigned frames;   /* a power of two; 1 = only hot */
	unsigned warm;     /* passes over all frames before the first round */
	unsigned rounds;   /* 0 = all */
	enum path_form form;
	unsigned deny; /* entries of the deny list; it only grows, so paths stand in this order */
	void (*fill)(const struct path *path, unsigned index);
	void (*prepare)(const struct path *path); /* after fill; may be NULL */
	void (*reset)(struct bench *bench, unsigned round, unsigned first, unsigned used);
};
extern const struct path bench_paths[];
extern const unsigned bench_path_count;

void paths_open(struct bench *bench);
void paths_close(void);
/* Makes the path's frames, limits and lists. */
void path_prepare(const struct path *path);
/* Exits if there is none of that name. */
const struct path *path_find(const char *id);
/* The buyer of the token with this serial. */
uint64_t path_buyer_of(uint64_t serial);
/* Fills the table of rates to the last entry with keys that nobody uses. */
void path_flood_rates(struct bench *bench);

#endif
