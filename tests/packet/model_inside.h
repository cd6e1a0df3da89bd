/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the files of the model say to one another. Nobody else includes this. */
#ifndef SLUICE_TEST_MODEL_INSIDE_H
#define SLUICE_TEST_MODEL_INSIDE_H

#include "model.h"
#include "sluice/reasons.h"

#define SECOND_NS 1000000000ULL
#define GO_ON (-1) /* in place of a reason: not decided yet */

/* --- model.c */
void model_set(struct model *model, uint64_t *word, uint64_t value);
/* A word that holds the time of this packet, or what was reckoned from it. */
void model_set_time(struct model *model, uint64_t *word, uint64_t value);
/* The same by the coarse clock; in the steps of "recent"; and a word that only must be right, as it tells which way the gate went. */
void model_set_coarse_time(struct model *model, uint64_t *word, uint64_t value);
void model_set_steps(struct model *model, uint64_t *word, uint64_t value);
void model_set_checked(struct model *model, uint64_t *word, uint64_t value);

/* Over a limit that is in shadow: counts it and says true. */
bool model_shadow(struct model *model, bool in_shadow, int reason);
/* The same for a limit that writes nothing when it is not over, so that nothing but the count tells which it was. */
bool model_shadow_checked(struct model *model, bool over, bool in_shadow, int reason);

/* --- model_parse.c */
/* Ethernet, tags, IP, and the ports. Returns a reason or GO_ON; `packet->protocol` is 6 only if there are ports. */
int model_parse_network(struct model_packet *packet);
/* The TCP header and what it carries. Returns a reason or GO_ON. */
int model_parse_tcp(struct model_packet *packet);
unsigned model_get16(const uint8_t *at);
uint32_t model_get32(const uint8_t *at);

/* --- model_flows.c */
bool model_cookie_is_good(const struct model *model, const struct model_packet *packet);
/* NULL: none. */
const struct model_socket *model_socket_of(const struct model *model, const struct model_packet *packet);
bool model_socket_exists(const struct model *model, const struct model_packet *packet);
enum model_past { PAST_UNKNOWN, PAST_ANSWERED, PAST_WENT_UP };
enum model_past model_recent_find(struct model *model, const struct model_packet *packet);
void model_recent_note(struct model *model, const struct model_packet *packet, bool answered, uint64_t now);

/* --- model_lists.c */
enum model_list { LIST_NONE, LIST_DENIED, LIST_ALLOWED };
/* Counts the hit. A deny list in shadow denies nobody. */
enum model_list model_list_find(struct model *model, const struct model_addr *addr);

/* --- model_rates.c */
bool model_limit_allows(const struct sluice_limit *limit, uint64_t tat, uint64_t now);
uint64_t model_limit_after(const struct sluice_limit *limit, uint64_t tat, uint64_t now, uint64_t cost);
unsigned model_limit_wait_s(const struct sluice_limit *limit, uint64_t tat, uint64_t now);
int model_rate_syn(struct model *model, const struct model_addr *source);
struct model_bucket *model_rate_bucket(
	struct model *model, const struct model_addr *source); /* NULL if there is none */
bool model_rate_muted(struct model *model, const struct model_addr *source, uint64_t now);
/* The verdict on a first segment goes to the last four of its source. */
void model_rate_remember(struct model *model, const struct model_addr *source, int reason);
/* Charges source and prefix. Returns a reason or GO_ON. */
int model_rate_source(
	struct model *model, const struct model_addr *source, bool may_answer, uint64_t now, unsigned *retry_s);
/* The rate of a token: is it over (1 = yes)? And one refused attempt more. */
bool model_rate_token_over(struct model *model, uint64_t serial, uint64_t now, unsigned *retry_s);
void model_rate_token_charge(struct model *model, uint64_t serial, uint64_t now);

/* --- model_token.c */
struct model_token {
	uint64_t version, key_id, quantity, flags, sale, issued_at_s, expires_at_s, buyer, serial, network, node, mac;
	uint64_t reckoned_mac; /* once the key is known */
	uint8_t bytes[SLUICE_TOKEN_TEXT / 4 * 3];
};
/* Returns false if a character is not of the alphabet. */
bool model_token_read(const char *text, struct model_token *token);
uint64_t model_siphash(const uint8_t *bytes, unsigned length, uint64_t k0, uint64_t k1);
uint32_t model_network(const struct model_addr *addr);

/* --- model_judge.c */
struct model_order {
	const char *text; /* SLUICE_TOKEN_TEXT characters */
	struct model_addr source;
	unsigned door, service;
	bool dry; /* only say what it would be */
	/* out */
	int reason;
	unsigned retry_after_s;
	uint64_t serial, home;
	const struct model_admission *admission;
};
void model_judge(struct model *model, struct model_order *order, uint64_t now);
/* An order is over, or is taken up again: the call door's ops RELEASE and RECLAIM. Returns the reason. */
int model_release(struct model *model, const struct sluice_admission *admission, bool keep_units);
int model_reclaim(struct model *model, const struct sluice_admission *admission);
/* What the first segment's bytes ask for: REQUEST, REQUEST_UNREAD, TOKEN_FORM, or GO_ON with the token's text. */
int model_request_read(const uint8_t *data, unsigned length, const char **token);

/* --- model_reply.c */
/* Is there room for the answer to verdict->said? Returns false if not even for the short form; else says which form it has. */
bool model_reply_fits(const struct model *model, const struct model_packet *packet, struct model_verdict *verdict);

#endif
