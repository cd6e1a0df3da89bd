/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GET /v1/explain?ip=: why a source was refused, or would be. Reads what the gate keeps of it (list entries, rates, its last verdicts), changes
 * nothing, and says what is not kept: an explanation that guesses is worse than none.
 */
#include <bpf/bpf.h>
#include <stdio.h>
#include <string.h>

#include "common/addr.h"
#include "common/lists.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/issue.h"
#include "daemon/rate_state.h"
#include "daemon/shadow.h"
#include "daemon/watch.h"

#define NS_PER_MS 1000000ULL
#define MAPPED_BITS 96
#define EVENTS_SHOWN 20
#define VERDICTS_KEPT 4

/* A limit's word in the gate, or none. */
struct bucket {
	struct sluice_limit limit;
	bool is_kept;
	uint64_t tat;
};

/* What the gate would say to a connection that this source opens now, and to its first request. */
struct decision {
	enum sluice_reason reason; /* NONE: nothing that is kept of the source speaks against it */
	json_t *shadowed;          /* what would have refused it, and is in shadow */
};

struct explained {
	struct daemon *d;
	struct sluice_addr addr;
	bool is_ip4;
	uint64_t now, now_wall;
	uint32_t shadow;
	struct sluice_limits limits;
	struct sluice_rate rate; /* of the source */
	bool is_kept;
	struct bucket buckets[SLUICE_LIMIT_COUNT]; /* not of TOKEN */
	struct sluice_list_key decides;            /* list 0: none */
	struct sluice_list_entry deciding;
};

/* --- lists ------------------------------------------------------------------------------------------------------------------ */
static bool find_entry(const struct explained *e, enum sluice_list list, unsigned len, struct sluice_list_key *key,
	struct sluice_list_entry *entry)
{
	struct sluice_addr mask = watch_mask(len);

	memset(key, 0, sizeof(*key));
	key->addr = (struct sluice_addr){.hi = e->addr.hi & mask.hi, .lo = e->addr.lo & mask.lo};
	key->list = (__u8)list;
	key->prefix_len = (__u8)len;
	return !bpf_map_lookup_elem(e->d->maps.lists, key, entry);
}

static bool is_live(const struct explained *e, const struct sluice_list_entry *entry)
{
	return !entry->expires_wall || entry->expires_wall > e->now_wall;
}

/* An IPv4 source is never asked for prefixes that are wider than all of IPv4, as in the gate. */
static unsigned shortest_prefix(const struct explained *e)
{
	return e->is_ip4 ? MAPPED_BITS : 1;
}

/* The longest live entry of the allow list, else of the deny list. */
static void find_deciding(struct explained *e)
{
	static const enum sluice_list order[] = {SLUICE_LIST_ALLOW, SLUICE_LIST_DENY};

	for (unsigned i = 0; i < 2 && !e->decides.list; i++)
		for (unsigned len = 128; len >= shortest_prefix(e) && !e->decides.list; len--) {
			struct sluice_list_key key;

			if (find_entry(e, order[i], len, &key, &e->deciding) && is_live(e, &e->deciding))
				e->decides = key;
		}
}

static const char *list_name(unsigned list)
{
	return list == SLUICE_LIST_ALLOW ? "allow" : "deny";
}

/* A text of the map that is not UTF-8 becomes "". */
static json_t *text_json(const char *text)
{
	json_t *json = json_string(text);

	return json ? json : json_string("");
}

static json_t *entry_json(
	const struct explained *e, const struct sluice_list_key *key, const struct sluice_list_entry *entry)
{
	char prefix[ADDR_TEXT_MAX], expires[TIME_TEXT_MAX], label[LISTS_TEXT_SIZE], reason[LISTS_TEXT_SIZE];
	json_t *json;

	lists_read_text(entry, label, reason);
	json = json_pack("{s:s, s:s, s:o, s:o}", "list", list_name(key->list), "prefix",
		prefix_format(&key->addr, key->prefix_len, prefix), "label", text_json(label), "reason",
		text_json(reason));
	json_object_set_new(json, "expires_at",
		entry->expires_wall ? json_string(time_format_rfc3339(entry->expires_wall, expires)) : json_null());
	json_object_set_new(json, "live", json_boolean(is_live(e, entry)));
	json_object_set_new(json, "hits", json_integer((json_int_t)entry->hits));
	json_object_set_new(json, "decides", json_boolean(!memcmp(key, &e->decides, sizeof(*key))));
	return json;
}

static json_t *lists_json(const struct explained *e)
{
	json_t *entries = json_array();

	for (unsigned list = SLUICE_LIST_DENY; list <= SLUICE_LIST_ALLOW; list++)
		for (unsigned len = 128; len >= shortest_prefix(e); len--) {
			struct sluice_list_entry entry;
			struct sluice_list_key key;

			if (find_entry(e, (enum sluice_list)list, len, &key, &entry))
				json_array_append_new(entries, entry_json(e, &key, &entry));
		}
	return entries;
}

/* --- rates ------------------------------------------------------------------------------------------------------------------ */
static bool find_rate(const struct explained *e, __u64 net, enum sluice_rate_kind kind, struct sluice_rate *rate)
{
	const struct sluice_control *control = e->d->maps.control;
	struct sluice_rate_key key = {.net = net, .kind = kind};
	__u64 name = sluice_rate_name(&key, control->rate_seed);
	__u32 slot = (__u32)name & control->rate_mask;
	struct sluice_rate_set set;

	if (bpf_map_lookup_elem(e->d->maps.rates, &slot, &set))
		return false;
	for (unsigned i = 0; i < SLUICE_RATE_WAYS; i++) {
		if (set.way[i].name != name)
			continue;
		*rate = set.way[i];
		return true;
	}
	return false;
}

static void read_buckets(struct explained *e)
{
	struct sluice_addr *addr = &e->addr;
	__u64 prefix = addr->hi ? addr->hi >> 16 : addr->lo >> 8, tat;
	__u32 slot = (__u32)((prefix * 0x9e3779b97f4a7c15ULL) >> 48); /* as bpf/rate.h has it */
	struct sluice_rate rate;

	e->is_kept = find_rate(
		e, addr->hi ? addr->hi : addr->lo, addr->hi ? SLUICE_RATE_SOURCE6 : SLUICE_RATE_SOURCE4, &e->rate);
	if (e->is_kept) {
		e->buckets[SLUICE_LIMIT_SOURCE].tat = e->rate.tat;
		e->buckets[SLUICE_LIMIT_SOURCE].is_kept = true;
		e->buckets[SLUICE_LIMIT_ANSWER].tat = e->rate.answer_tat;
		e->buckets[SLUICE_LIMIT_ANSWER].is_kept = true;
	}
	if (find_rate(e, prefix, addr->hi ? SLUICE_RATE_PREFIX6 : SLUICE_RATE_PREFIX4, &rate)) {
		e->buckets[SLUICE_LIMIT_PREFIX].tat = rate.tat;
		e->buckets[SLUICE_LIMIT_PREFIX].is_kept = true;
	}
	if (!bpf_map_lookup_elem(e->d->maps.syn_budget, &slot, &tat) && tat) {
		e->buckets[SLUICE_LIMIT_SYN_PREFIX].tat = tat;
		e->buckets[SLUICE_LIMIT_SYN_PREFIX].is_kept = true;
	}
	tat = __atomic_load_n(&e->d->maps.control->syn_global_tat, __ATOMIC_RELAXED);
	e->buckets[SLUICE_LIMIT_SYN_GLOBAL].tat = tat;
	e->buckets[SLUICE_LIMIT_SYN_GLOBAL].is_kept = tat != 0;
	for (unsigned i = 0; i < SLUICE_LIMIT_COUNT; i++)
		e->buckets[i].limit = e->limits.limit[i];
}

static uint64_t up_to_ms(uint64_t ns)
{
	return (ns + NS_PER_MS - 1) / NS_PER_MS;
}

static json_t *bucket_json(const struct explained *e, const struct bucket *bucket)
{
	struct config_limit limit;
	struct rate_state state;
	json_t *json;

	config_limit_from_gate(&bucket->limit, &limit);
	rate_state_read(&bucket->limit, bucket->tat, e->now, &state);
	json = json_pack(
		"{s:f, s:I, s:b}", "rate", limit.rate, "burst", (json_int_t)limit.burst, "kept", bucket->is_kept);
	if (!state.is_limited) {
		json_object_set_new(json, "left", json_null());
		json_object_set_new(json, "next_allowed_ms", json_integer(0));
		json_object_set_new(json, "idle_at_least_ms", json_null());
		return json;
	}
	json_object_set_new(json, "left", json_integer((json_int_t)state.left));
	json_object_set_new(json, "next_allowed_ms", json_integer((json_int_t)up_to_ms(state.next_allowed_ns)));
	json_object_set_new(json, "idle_at_least_ms",
		bucket->is_kept && state.idle_ns ? json_integer((json_int_t)(state.idle_ns / NS_PER_MS)) : json_null());
	return json;
}

static json_t *rates_json(const struct explained *e)
{
	json_t *json = json_object();

	for (unsigned id = 0; id < SLUICE_LIMIT_COUNT; id++) {
		json_t *bucket;

		if (id == SLUICE_LIMIT_TOKEN) /* known by the token, not by the source */
			continue;
		bucket = bucket_json(e, &e->buckets[id]);
		json_object_set_new(bucket, "shadow", json_boolean(e->shadow & shadow_flag(id)));
		json_object_set_new(json, shadow_name(id), bucket);
	}
	return json;
}

static bool is_over(const struct explained *e, enum sluice_limit_id id)
{
	struct rate_state state;

	rate_state_read(&e->buckets[id].limit, e->buckets[id].tat, e->now, &state);
	return state.next_allowed_ns > 0;
}

/* --- the decision ----------------------------------------------------------------------------------------------------------- */
/* In the order of the gate. True if it ends here. */
static bool refuse_by(struct decision *decision, const struct explained *e, enum sluice_reason reason, unsigned which)
{
	if (e->shadow & (shadow_flag(which) | shadow_flag(SHADOW_ALL))) {
		json_array_append_new(decision->shadowed, json_string(reason_label(reason)));
		return false;
	}
	decision->reason = reason;
	return true;
}

static void decide(const struct explained *e, struct decision *decision)
{
	static const struct {
		enum sluice_limit_id id;
		enum sluice_reason reason;
	} order[] = {
		{SLUICE_LIMIT_SYN_PREFIX, SLUICE_REASON_SYN_PREFIX},
		{SLUICE_LIMIT_SYN_GLOBAL, SLUICE_REASON_SYN_GLOBAL},
		{SLUICE_LIMIT_SOURCE, SLUICE_REASON_RATE_SOURCE},
		{SLUICE_LIMIT_PREFIX, SLUICE_REASON_RATE_PREFIX},
	};

	*decision = (struct decision){.reason = SLUICE_REASON_NONE, .shadowed = json_array()};
	if (e->decides.list == SLUICE_LIST_ALLOW)
		return;
	if (e->decides.list == SLUICE_LIST_DENY && refuse_by(decision, e, SLUICE_REASON_DENIED, SHADOW_DENY))
		return;
	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (is_over(e, order[i].id) && !(order[i].id == SLUICE_LIMIT_SYN_GLOBAL && e->is_kept) &&
			refuse_by(decision, e, order[i].reason, order[i].id))
			return;
}

static void describe(const struct explained *e, const struct decision *decision, char *text, size_t size)
{
	char prefix[ADDR_TEXT_MAX] = "";
	struct rate_state state;
	const struct bucket *over = NULL;

	if (e->decides.list)
		prefix_format(&e->decides.addr, e->decides.prefix_len, prefix);
	switch (decision->reason) {
	case SLUICE_REASON_DENIED:
		snprintf(text, size, "denied by the entry %s: every packet is dropped without an answer", prefix);
		return;
	case SLUICE_REASON_SYN_PREFIX:
		over = &e->buckets[SLUICE_LIMIT_SYN_PREFIX];
		break;
	case SLUICE_REASON_SYN_GLOBAL:
		over = &e->buckets[SLUICE_LIMIT_SYN_GLOBAL];
		break;
	case SLUICE_REASON_RATE_SOURCE:
		over = &e->buckets[SLUICE_LIMIT_SOURCE];
		break;
	case SLUICE_REASON_RATE_PREFIX:
		over = &e->buckets[SLUICE_LIMIT_PREFIX];
		break;
	default:
		break;
	}
	if (over) {
		rate_state_read(&over->limit, over->tat, e->now, &state);
		snprintf(text, size, "%s, for another %llu ms", reason_text(decision->reason),
			(unsigned long long)up_to_ms(state.next_allowed_ns));
	} else if (e->decides.list == SLUICE_LIST_ALLOW) {
		snprintf(text, size, "allowed by the entry %s: neither the deny list nor a rate applies to it", prefix);
	} else if (json_array_size(decision->shadowed)) {
		snprintf(text, size, "what would refuse it is in shadow mode");
	} else {
		snprintf(text, size, "no list and no rate refuses it");
	}
}

static json_t *decision_json(const struct explained *e)
{
	struct decision decision;
	bool passes;
	char text[256];

	decide(e, &decision);
	describe(e, &decision, text, sizeof(text));
	passes = decision.reason == SLUICE_REASON_NONE;
	return json_pack("{s:b, s:o, s:s, s:o}", "passes", passes, "reason",
		passes ? json_null() : json_string(reason_label(decision.reason)), "text", text, "shadowed",
		decision.shadowed);
}

/* --- the past --------------------------------------------------------------------------------------------------------------- */
static json_t *reason_json(unsigned reason)
{
	return json_pack("{s:s, s:s, s:s}", "reason", reason_label(reason), "action",
		watch_action_name(watch_action_of(reason)), "text", reason_text(reason));
}

/* Latest first; *refusal is the latest that was one, else null. */
static json_t *verdicts_json(const struct explained *e, json_t **refusal)
{
	json_t *verdicts = json_array();

	*refusal = NULL;
	for (unsigned i = 0; e->is_kept && i < VERDICTS_KEPT; i++) {
		unsigned reason = e->rate.verdicts >> 8 * i & 0xff;

		if (reason == SLUICE_REASON_NONE || reason >= SLUICE_REASON_COUNT)
			continue;
		json_array_append_new(verdicts, reason_json(reason));
		if (!*refusal && watch_action_of(reason) == WATCH_REFUSED)
			*refusal = reason_json(reason);
	}
	if (!*refusal)
		*refusal = json_null();
	return verdicts;
}

static json_t *events_json(const struct explained *e)
{
	struct sluice_addr mask = watch_mask(e->addr.hi ? 64 : 128);
	struct sluice_addr addr = {.hi = e->addr.hi & mask.hi, .lo = e->addr.lo & mask.lo};
	struct watched recent[EVENTS_SHOWN];
	unsigned count = watch_recent(e->d, &mask, &addr, recent, EVENTS_SHOWN);
	json_t *events = json_array();

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(events, control_verdict_json(e->d, &recent[i]));
	return events;
}

static json_t *not_kept_json(const struct explained *e)
{
	json_t *notes = json_array();

	json_array_append_new(notes,
		json_string(
			"Packets of a source that no SYN cookie has proved real leave counters behind, and nothing per source."));
	if (!e->limits.limit[SLUICE_LIMIT_SOURCE].interval_ns)
		json_array_append_new(notes,
			json_string(
				"The limit \"source\" is off, and with it the history of verdicts: what is shown of it is old."));
	else if (e->decides.list == SLUICE_LIST_ALLOW)
		json_array_append_new(notes,
			json_string(
				"Of sources on the allow list neither rates nor verdicts are kept: what is shown of them is older."));
	else
		json_array_append_new(notes,
			json_string(
				"Verdicts are the last four on first segments of connections and on requests at the call door, without their time, "
				"until a busier source needs the place. A source that is muted for being over its rate gets no new ones."));
	json_array_append_new(
		notes, json_string("The SYN budget is kept by hash of the prefix: another prefix may share it."));
	json_array_append_new(
		notes, json_string("Events are only of what somebody watched, the last 4,096 of all sources."));
	return notes;
}

/* --- the route -------------------------------------------------------------------------------------------------------------- */
static json_t *explain_json(struct explained *e)
{
	bool is_ip6_net = e->addr.hi != 0;
	struct sluice_addr source_mask = watch_mask(is_ip6_net ? 64 : 128),
			   prefix_mask = watch_mask(is_ip6_net ? 48 : 120);
	struct sluice_addr source = {.hi = e->addr.hi & source_mask.hi, .lo = e->addr.lo & source_mask.lo};
	struct sluice_addr prefix = {.hi = e->addr.hi & prefix_mask.hi, .lo = e->addr.lo & prefix_mask.lo};
	char ip[ADDR_TEXT_MAX], source_text[ADDR_TEXT_MAX], prefix_text[ADDR_TEXT_MAX], time_text[TIME_TEXT_MAX];
	struct bucket issue = {.is_kept = false};
	json_t *verdicts, *refusal, *json;

	issue.tat = issue_peek_source(e->d, &e->addr, &issue.limit);
	issue.is_kept = issue.tat != 0;
	verdicts = verdicts_json(e, &refusal);
	json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "ip", addr_format(&e->addr, ip), "source",
		is_ip6_net ? prefix_format(&source, 64, source_text) : addr_format(&source, source_text), "prefix",
		prefix_format(&prefix, is_ip6_net ? 48 : 120, prefix_text), "time",
		time_format_rfc3339(e->now_wall, time_text), "shadow", shadow_mode(e->shadow), "now", decision_json(e));
	json_object_set_new(json, "entries", lists_json(e));
	json_object_set_new(json, "rates", rates_json(e));
	json_object_set_new(json, "issue", bucket_json(e, &issue));
	json_object_set_new(json, "verdicts", verdicts);
	json_object_set_new(json, "last_refusal", refusal);
	json_object_set_new(json, "events", events_json(e));
	json_object_set_new(json, "not_kept", not_kept_json(e));
	return json;
}

enum MHD_Result control_get_explain(struct http_request *request)
{
	struct explained e = {.d = request->d};
	char text[ADDR_TEXT_MAX];
	int given = http_argument(request, "ip", text, sizeof(text));
	__u32 zero = 0;

	if (!given)
		return http_problem_field(
			request, 400, "missing_field", "ip", "Which address? Ask for /v1/explain?ip=192.0.2.1.");
	if (given < 0 || addr_parse(text, &e.addr))
		return http_problem_field(
			request, 422, "out_of_range", "ip", "ip must be an address such as 192.0.2.1 or 2001:db8::1.");
	if (bpf_map_lookup_elem(e.d->maps.limits, &zero, &e.limits))
		return http_problem(request, 500, "internal_error", "The gate's limits cannot be read.");
	e.is_ip4 = addr_is_ipv4(&e.addr);
	e.now = time_mono_ns();
	e.now_wall = time_wall_ns();
	e.shadow = shadow_flags(e.d);
	find_deciding(&e);
	read_buckets(&e);
	return http_send_json(request, 200, explain_json(&e));
}
