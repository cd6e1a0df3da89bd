/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Both gates side by side: what is done to the one is done to the other, and after each frame and each call they must agree.
 *
 * Used by test_model.c alone. Functions that compare return false when the two disagree; `wrong` then says in what.
 */
#ifndef SLUICE_TEST_MODEL_RUN_H
#define SLUICE_TEST_MODEL_RUN_H

#include "gate.h"
#include "model.h"
#include "sequence.h"

#define ARENA_NAMED_PORT 8090 /* service 3, kind sale, one address only; a listener */
#define ARENA_NAMED_ADDRESS "127.0.0.3"
#define ARENA_START_S 1800000000U /* the wall clock when a sequence begins */
#define ARENA_SOURCES 32
#define ARENA_ROWS ((SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS)
#define ARENA_WRONG 512

struct arena_flow { /* what the client of a flow knows; zeros before the SYN-ACK */
	uint32_t isn, cookie;
	unsigned first_len, answer_len /* with its FIN; 0 = none has come */;
};

struct arena_slot { /* of the SYN budget: found out at the start, because where a prefix goes is the gate's business */
	struct model_addr prefix;
	uint32_t slot;
};

struct arena {
	struct gate gate;
	struct model model;
	struct lists *lists;
	struct ring_buffer *events, *ring;
	struct sluice_admitted expected[MODEL_ADMISSIONS]; /* records that must be on the ring */
	struct sluice_admitted drained_records[MODEL_ADMISSIONS];
	unsigned expected_count, drained;
	struct arena_flow flows[SEQUENCE_FLOWS];
	struct arena_slot slots[ARENA_SOURCES];
	unsigned slot_count;
	uint64_t put_in[MODEL_SALES]; /* units, by sale as the model has them */
	bool watched;                 /* the gate tells when it read its clock */
	uint64_t event_mono;          /* what it told of the last frame or call; 0 = nothing */
	struct sluice_event event;
	uint64_t judged_at;           /* when the gate read its clock for the last one, as far as that is known */
	struct model_verdict verdict; /* of the last frame */
	int last_reason;              /* of the step at hand; -1 = it asked nobody */
	bool dirty_answers[SLUICE_ANSWER_COUNT];
	int named_listener, queued; /* a full accept queue: who waits in it; -1 = nobody */
	uint64_t waits_until;       /* the connections in TIME_WAIT are made anew then */
	bool talk;                  /* print each step */
	/* what was counted so far, as it must be */
	uint64_t packets[ARENA_ROWS], bytes[ARENA_ROWS], calls[SLUICE_REASON_ROWS];
	/* how it goes */
	uint64_t frames, asked, either, on_the_edge;
	uint64_t mutes[2]; /* young ones that were over, and that held */
	uint64_t reasons[SLUICE_REASON_COUNT];
	uint64_t looked[SLUICE_REASON_COUNT]; /* what a gate that only looks would have said */
	/* the last frame, for who has to explain a disagreement */
	uint8_t in[FRAME_MAX];
	unsigned in_length;
	struct run run;
	uint8_t wanted[FRAME_MAX];
	unsigned wanted_length;
	char wrong[ARENA_WRONG];
	const char *wrong_kind; /* the format of `wrong`: disagreements of one kind share it */
};

/* --- model_run.c */
void arena_open(struct arena *arena);
void arena_close(struct arena *arena);
bool arena_frame(struct arena *arena, const uint8_t *bytes, unsigned length);
/* `call` has what the gate gave out afterwards. */
bool arena_call(struct arena *arena, struct sluice_call *call);
__attribute__((format(printf, 2, 3))) bool arena_wrong(struct arena *arena, const char *format, ...);

/* What CLOCK_MONOTONIC_COARSE says. */
uint64_t arena_coarse_ns(void);

/* --- model_state.c */
/* Where the gate keeps a word of the model; `*found` is false if it has none. */
uint64_t arena_word(struct arena *arena, const uint64_t *word, bool *found);
const char *arena_word_name(const struct arena *arena, const uint64_t *word);
struct sluice_rate *arena_bucket(struct arena *arena, uint64_t name);
/* Takes the ring's records: one for each admission since the last time, and as the model would write them. */
bool arena_drain(struct arena *arena);
/* After a sequence: every word that both have is the same, and there is nothing else. */
bool arena_compare_state(struct arena *arena);
bool arena_compare_counters(struct arena *arena);
/* Takes the counters as they are for what they must be. */
void arena_count_all(struct arena *arena);
/* Packets that the gate has counted in a row. */
uint64_t arena_counted(struct arena *arena, unsigned row);
/* One admission more must be on the ring. */
void arena_expect_record(struct arena *arena, const struct model_admission *from);
struct sluice_admission arena_admission(const struct model_admission *from);

/* --- model_reset.c */
/* Both as at the beginning of a sequence. */
void arena_reset(struct arena *arena, uint64_t seed);
/* Connections of the kernel's own: two that are open, two that have just closed. */
void arena_connect(struct arena *arena);
/* The kernel stops making cookies, or the accept queue is full, or all is well again. */
void arena_cookies(struct arena *arena, struct dice *dice);
/* Which slot of the SYN budget a prefix has. */
void arena_find_slots(struct arena *arena);

/* --- model_time.c */
void arena_time(struct arena *arena, struct dice *dice);

/* --- model_scene.c */
/* A step of the world. Returns false if the two disagree (the ring's records). */
bool arena_world(struct arena *arena, const struct step *step);
uint64_t arena_wall_of(const struct arena *arena);
void arena_put_control(struct arena *arena);
void arena_put_limit(struct arena *arena, enum sluice_limit_id id, uint64_t interval_ns, unsigned burst);
void arena_put_sale(struct arena *arena, const struct model_sale *sale);
/* One of the two sales, open to everybody, and its tokens' key. */
void arena_open_sale(struct arena *arena, unsigned index);
void arena_put_key(struct arena *arena, unsigned slot, struct sluice_key key);
void arena_list_put(struct arena *arena, const struct model_listed *wanted);
void arena_list_remove(struct arena *arena, unsigned index);

/* --- model_frames.c */
/* The bytes of a step's segment. Returns the length. */
unsigned arena_write(struct arena *arena, const struct step *step, uint8_t *bytes);
/* A call of a step. */
struct sluice_call arena_ask(struct arena *arena, const struct step *step);
const char *arena_source(unsigned flow);
void arena_token_text(struct arena *arena, unsigned token, struct dice *dice, char *text);
struct frame arena_frame_of(const struct arena *arena, unsigned flow);

/* --- model_edge.c */
bool arena_edge(struct arena *arena, const struct step *step);

/* --- model_play.c */
/* One segment of a flow; a SYN's cookie is remembered. */
bool arena_segment(struct arena *arena, const struct step *step);
/* Plays a sequence from a fresh start. Returns the number of the step at which the two disagree, or `count`; `count` too if it is the whole
 * state afterwards (`*after`).
 */
unsigned arena_play(struct arena *arena, uint64_t seed, const struct step *steps, unsigned count, bool *after);
/* Leaves out what is not needed for a disagreement, and prints the rest. */
void arena_explain(struct arena *arena, uint64_t seed, struct step *steps, unsigned count);

#endif
