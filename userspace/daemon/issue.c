/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Issue of tokens. Called by the token routes of both listeners; swept by maintenance.c.
 *
 * A buyer has one live token per sale. Its fields are in the map "issued", and its serial is a keyed hash of sale, buyer and round, so
 * asking the same again gives the same bytes, also after a restart. A round ends when its serial is admitted. Whatever else happens (expiry,
 * reboot, another quantity, another network), all tokens of one round share one serial, and the gate admits a serial once: a second copy
 * wins nothing.
 */
#include "daemon/issue.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_leases.h"
#include "daemon/rate_table.h"
#include "daemon/revocation.h"

#define NS_PER_S 1000000000ULL
#define LOCKS 64
#define RATE_BUCKETS 65536
#define ROUNDS_MAX 255 /* what struct sluice_issued can count */

struct issuer {
	pthread_mutex_t locks[LOCKS]; /* by buyer: look, decide and store are one step */
	struct rate_table *sources, *buyers;
	struct sluice_limit source_limit, buyer_limit;
	atomic_ullong made;
	struct sluice_buyer_key cursor; /* of the sweep */
	bool has_cursor;
};

struct issuer *issuer_new(const struct config *config)
{
	struct issuer *issuer = calloc(1, sizeof(*issuer));

	if (!issuer)
		return NULL;
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_init(&issuer->locks[i], NULL);
	config_limit_to_gate(&config->daemon.issue_source, &issuer->source_limit);
	config_limit_to_gate(&config->daemon.issue_buyer, &issuer->buyer_limit);
	issuer->sources = rate_table_new(RATE_BUCKETS);
	issuer->buyers = rate_table_new(RATE_BUCKETS);
	if (issuer->sources && issuer->buyers)
		return issuer;
	issuer_free(issuer);
	return NULL;
}

void issuer_free(struct issuer *issuer)
{
	if (!issuer)
		return;
	rate_table_free(issuer->sources);
	rate_table_free(issuer->buyers);
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&issuer->locks[i]);
	free(issuer);
}

static uint64_t source_key(const struct daemon *d, const struct sluice_addr *source)
{
	/* An IPv6 host owns its /64. */
	__u64 words[2] = {source->hi, source->hi ? 0 : source->lo};

	return sluice_siphash_words(words, 2, d->keys.buyer[0], d->keys.buyer[1]) ?: 1;
}

unsigned issue_charge_source(struct daemon *d, const struct sluice_addr *source)
{
	return rate_table_take(d->issuer->sources, &d->issuer->source_limit, source_key(d, source), time_mono_ns());
}

uint64_t issue_peek_source(struct daemon *d, const struct sluice_addr *source, struct sluice_limit *limit)
{
	*limit = d->issuer->source_limit;
	return rate_table_peek(d->issuer->sources, source_key(d, source));
}

int issue_key(struct daemon *d, int key_id, struct sluice_key *key)
{
	int err = -ENOKEY;

	pthread_rwlock_rdlock(&d->keys_lock);
	if (key_id < 0)
		key_id = (int)d->keys.slot[d->keys.current].id;
	*key = d->keys.slot[key_id & 1];
	if (key->valid && key->id == (uint32_t)key_id)
		err = 0;
	pthread_rwlock_unlock(&d->keys_lock);
	return err;
}

void issue_publish_keys(struct daemon *d)
{
	pthread_rwlock_rdlock(&d->keys_lock);
	for (unsigned i = 0; i < 2; i++) {
		const struct sluice_key *key = &d->keys.slot[i];
		struct sluice_key *words = &d->maps.keys[i];

		/* An unchanged key stays valid all the time. */
		if (words->valid == key->valid && words->id == key->id && words->k0 == key->k0 && words->k1 == key->k1)
			continue;
		__atomic_store_n(&words->valid, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&words->k0, key->k0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&words->k1, key->k1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&words->id, key->id, __ATOMIC_SEQ_CST);
		__atomic_store_n(&words->valid, key->valid, __ATOMIC_SEQ_CST);
	}
	pthread_rwlock_unlock(&d->keys_lock);
}

/* Admitted, or revoked: nothing more can be had with this serial. */
static bool is_spent(struct daemon *d, __u64 serial, bool *revoked)
{
	struct sluice_admission admission;

	if (bpf_map_lookup_elem(d->maps.admissions, &serial, &admission) || admission.serial != serial)
		return false;
	*revoked |= admission.state == SLUICE_ADMISSION_REVOKED;
	return admission.state == SLUICE_ADMISSION_DONE || admission.state == SLUICE_ADMISSION_REVOKED;
}

static uint32_t buyer_units(struct daemon *d, const struct sluice_buyer_key *key)
{
	struct sluice_buyer buyer;

	return bpf_map_lookup_elem(d->maps.buyers, key, &buyer) ? 0 : buyer.units;
}

/* Valid through the opening, for token_ttl after it at the most, and never beyond the end. */
static uint32_t expiry_of(struct daemon *d, const struct sale *sale, uint64_t now_s)
{
	uint64_t opens_s = sale->opens_ns / NS_PER_S, ends_s = (sale->ends_ns + NS_PER_S - 1) / NS_PER_S;
	uint64_t expires = (now_s > opens_s ? now_s : opens_s) + d->config.daemon.token_ttl_s;

	if (expires > ends_s)
		expires = ends_s;
	return expires > UINT32_MAX ? UINT32_MAX : (uint32_t)expires;
}

static void seal(const struct daemon *d, const struct sluice_key *key, const struct sluice_buyer_key *who,
	const struct sluice_issued *entry, __u64 serial, struct issued_token *out)
{
	struct sluice_token token = {
		.quantity = entry->quantity,
		.sale = who->sale,
		.issued_at_s = entry->issued_at_s,
		.expires_at_s = entry->expires_at_s,
		.buyer = who->buyer,
		.serial = serial,
		.network = entry->network,
		.node = config_home(&d->config),
	};

	token_seal(key, &token, out->text);
	out->issued_at_s = entry->issued_at_s;
	out->expires_at_s = entry->expires_at_s;
	out->quantity = entry->quantity;
}

static uint64_t live_limit(struct daemon *d, const struct sale *sale)
{
	uint64_t multiplier = sale->token_multiplier ? sale->token_multiplier : d->config.daemon.token_multiplier;

	uint64_t units = atomic_load(&sale->counts->put_in), free_units = 0;

	fleet_leases_widen(d, sale->id, &units, &free_units);
	return multiplier * units;
}

/* Counts one more live token, or not. */
static bool reserve_live(struct sale_counts *counts, uint64_t limit)
{
	unsigned long long live = atomic_load(&counts->live_tokens);

	do {
		if (limit && live >= limit)
			return false;
	} while (!atomic_compare_exchange_weak(&counts->live_tokens, &live, live + 1));
	return true;
}

/* Makes a token of `entry`'s round and stores it. `is_first`: the buyer has no entry yet. */
static enum issue_result make_token(struct daemon *d, const struct sale *sale, const struct issue_request *request,
	const struct sluice_buyer_key *who, struct sluice_issued *entry, bool is_first, struct issued_token *token)
{
	uint64_t now_s = time_wall_ns() / NS_PER_S;
	struct sluice_key key;
	int err;

	if (now_s < sale->not_before_s) /* all were revoked within this second */
		return ISSUE_NOT_READY;
	if (issue_key(d, -1, &key))
		return ISSUE_ERROR;
	if (is_first && !reserve_live(sale->counts, live_limit(d, sale)))
		return ISSUE_EXHAUSTED;
	entry->issued_at_s = (uint32_t)now_s;
	entry->expires_at_s = expiry_of(d, sale, now_s);
	entry->network = request->network;
	entry->quantity = (__u8)request->quantity;
	entry->key_id = (__u8)key.id;
	err = bpf_map_update_elem(d->maps.issued, who, entry, BPF_ANY);
	if (err && is_first)
		atomic_fetch_sub(&sale->counts->live_tokens, 1);
	if (err == -E2BIG)
		return ISSUE_FULL;
	if (err) {
		log_error("cannot store a token in the gate's map: %s", strerror(-err));
		return ISSUE_ERROR;
	}
	seal(d, &key, who, entry, token_serial(&d->keys, who->sale, who->buyer, entry->round), token);
	atomic_fetch_add(&d->issuer->made, 1);
	return ISSUE_NEW;
}

static enum issue_result issue_locked(struct daemon *d, const struct sale *sale, const struct issue_request *request,
	const struct sluice_buyer_key *who, struct issued_token *token)
{
	struct sluice_issued entry = {0};
	bool is_first = bpf_map_lookup_elem(d->maps.issued, who, &entry) != 0;
	uint32_t units = buyer_units(d, who);
	unsigned round = is_first ? 0 : entry.round;
	struct sluice_key key;
	bool revoked = false;

	if (is_first)
		memset(&entry, 0, sizeof(entry));
	/* Each round that is over was admitted, whatever became of the order, or revoked. */
	while (round <= ROUNDS_MAX && is_spent(d, token_serial(&d->keys, sale->id, who->buyer, round), &revoked))
		round++;
	if (revoked && !request->after_revoked)
		return ISSUE_REVOKED;
	if (round > ROUNDS_MAX)
		return ISSUE_ROUNDS;
	if (units && units + request->quantity > sale->per_buyer)
		return ISSUE_ALREADY_ORDERED;
	if (sales_free_units(d->sales, sale) < request->quantity && !sales_may_get_units(sale))
		return ISSUE_SOLD_OUT;

	/* Not one that would expire before an opening that was postponed since; another of its round does no harm. */
	if (!is_first && round == entry.round && entry.expires_at_s * NS_PER_S > sale->opens_ns &&
		entry.issued_at_s >= sale->not_before_s && entry.expires_at_s > time_wall_ns() / NS_PER_S &&
		entry.network == request->network && entry.quantity == request->quantity &&
		!issue_key(d, entry.key_id, &key)) {
		seal(d, &key, who, &entry, token_serial(&d->keys, sale->id, who->buyer, round), token);
		return ISSUE_SAME;
	}
	if (request->only_same || (request->is_here && is_first))
		return ISSUE_NOT_READY;
	entry.round = (__u8)round;
	return make_token(d, sale, request, who, &entry, is_first, token);
}

enum issue_result issue_check(struct daemon *d, const struct sale *sale, const struct issue_request *request,
	uint64_t buyer, struct issued_token *token)
{
	if (sales_state(sale, 1, time_wall_ns()) == SALE_ENDED)
		return ISSUE_ENDED;
	if (request->quantity < 1 || request->quantity > sale->per_buyer)
		return ISSUE_QUANTITY;
	if (!sales_in_gate(d->sales, sale))
		return ISSUE_NOT_READY;
	token->retry_after_s = rate_table_take(d->issuer->buyers, &d->issuer->buyer_limit, buyer ?: 1, time_mono_ns());
	return token->retry_after_s ? ISSUE_RATE_LIMITED : ISSUE_NEW;
}

enum issue_result issue_token(
	struct daemon *d, const struct sale *sale, const struct issue_request *request, struct issued_token *token)
{
	struct sluice_buyer_key who = {
		.buyer = token_buyer_hash(&d->keys, request->buyer, request->buyer_length),
		.sale = sale->id,
	};
	enum issue_result result;
	pthread_mutex_t *lock;

	memset(token, 0, sizeof(*token));
	if (!request->is_checked) {
		result = issue_check(d, sale, request, who.buyer, token);
		if (result != ISSUE_NEW)
			return result;
	}
	lock = &d->issuer->locks[who.buyer % LOCKS];
	pthread_mutex_lock(lock);
	result = issue_locked(d, sale, request, &who, token);
	pthread_mutex_unlock(lock);
	return result;
}

uint64_t issue_latest_expiry(struct daemon *d)
{
	uint64_t now_s = time_wall_ns() / NS_PER_S, latest = now_s;
	struct sale sale;

	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++)
		if (expiry_of(d, &sale, now_s) > latest)
			latest = expiry_of(d, &sale, now_s);
	return latest;
}

bool issue_find(struct daemon *d, const struct sale *sale, const char *buyer, size_t buyer_length,
	struct sluice_issued *entry, uint64_t *buyer_hash, uint64_t *serial)
{
	struct sluice_buyer_key who = {
		.buyer = token_buyer_hash(&d->keys, buyer, buyer_length),
		.sale = sale->id,
	};

	if (bpf_map_lookup_elem(d->maps.issued, &who, entry))
		return false;
	*buyer_hash = who.buyer;
	*serial = token_serial(&d->keys, sale->id, who.buyer, entry->round);
	return true;
}

bool issue_is_here(struct daemon *d, uint32_t sale, uint64_t buyer)
{
	struct sluice_buyer_key who = {.buyer = buyer, .sale = sale};
	struct sluice_issued entry;

	return !bpf_map_lookup_elem(d->maps.issued, &who, &entry);
}

uint64_t issue_total(struct daemon *d)
{
	return atomic_load(&d->issuer->made);
}

void issue_count_live(struct daemon *d)
{
	struct sluice_buyer_key key, next, *cursor = NULL;

	while (!bpf_map_get_next_key(d->maps.issued, cursor, &next)) {
		struct sale_counts *counts;

		key = next;
		cursor = &key;
		counts = sales_counts(d->sales, key.sale);
		if (counts)
			atomic_fetch_add(&counts->live_tokens, 1);
	}
}

/* Under the buyer's lock. */
static void forget(struct daemon *d, const struct sluice_buyer_key *key)
{
	struct sale_counts *counts = sales_counts(d->sales, key->sale);

	if (!bpf_map_delete_elem(d->maps.issued, key) && counts)
		atomic_fetch_sub(&counts->live_tokens, 1);
}

void issue_take_back(struct daemon *d, uint32_t sale, uint64_t buyer)
{
	struct sluice_buyer_key who = {.buyer = buyer, .sale = sale};
	pthread_mutex_t *lock = &d->issuer->locks[buyer % LOCKS];
	struct sluice_issued entry;
	struct sale of;
	int err = 0;

	if (sales_find_id(d->sales, sale, &of))
		return;
	pthread_mutex_lock(lock);
	if (!bpf_map_lookup_elem(d->maps.issued, &who, &entry)) {
		/* Tokens of one round share the serial; none of them can outlive the sale. */
		err = revocation_token(
			d, token_serial(&d->keys, sale, buyer, entry.round), buyer, sale, revocation_until(&of));
		if (!err || err == -EIO)
			forget(d, &who);
	}
	pthread_mutex_unlock(lock);
	log_error("buyer %016llx of sale %u is at home at another node too: %s", (unsigned long long)buyer, sale,
		err == -EEXIST ? "he has ordered here"
			: err  ? "his token here could not be revoked"
			       : "his token here is revoked");
}

static void sweep_one(struct daemon *d, const struct sluice_buyer_key *key, uint64_t now_s)
{
	pthread_mutex_t *lock = &d->issuer->locks[key->buyer % LOCKS];
	struct sluice_issued entry;

	pthread_mutex_lock(lock);
	if (!bpf_map_lookup_elem(d->maps.issued, key, &entry) && entry.expires_at_s <= now_s)
		forget(d, key);
	pthread_mutex_unlock(lock);
}

bool issue_sweep(struct daemon *d, uint64_t wall_ns, unsigned budget)
{
	struct issuer *issuer = d->issuer;
	struct sluice_buyer_key next;

	while (budget--) {
		bool at_end =
			bpf_map_get_next_key(d->maps.issued, issuer->has_cursor ? &issuer->cursor : NULL, &next) != 0;

		/* The entry under the cursor may go now: the walk has its successor already. */
		if (issuer->has_cursor)
			sweep_one(d, &issuer->cursor, wall_ns / NS_PER_S);
		issuer->has_cursor = !at_end;
		if (at_end)
			return true;
		issuer->cursor = next;
	}
	return false;
}
