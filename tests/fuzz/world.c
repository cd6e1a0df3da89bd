/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's programs, compiled from bpf/gate.bpf.c as it is, over the shim; and what must hold after each of their runs. See world.h. */
#include "../../bpf/gate.bpf.c"

#include "../packet/frames.h"
#include "check.h"
#include "common/answers.h"
#include "common/token.h"
#include "libbpf.h"
#include "world.h"

#define SEALED_MAX 512
#define ADMITTED_MAX 512
#define CLAIMS_MAX 16
#define SALES 2
#define HOUR_NS 3600000000000ULL

/* Maps that userspace opens by name. One that only the gate uses needs no line. */
/* clang-format off */
#define WORLD_MAPS(M) \
	M(services) M(ports) M(limits) M(control) M(sales) M(stock) M(keys) M(admissions) M(buyers) M(issued) M(rates) M(recent) \
	M(syn_budget) M(lists) M(list_index) M(denials) M(answers) M(homes) M(counters) M(calls) M(shadow) M(watch)
#define WORLD_RINGS(M) M(ring) M(events)
/* clang-format on */

static const uint32_t sale_ids[SALES] = {WORLD_SALE, WORLD_OTHER_SALE};

static struct {
	struct sluice_token sealed[SEALED_MAX];
	unsigned sealed_count;
	struct sluice_admission admitted[ADMITTED_MAX];
	unsigned admitted_count, settled;
	uint64_t claims[CLAIMS_MAX];
	unsigned claim_count;
	uint64_t put_in[SALES];
} books;

/* --- making ---------------------------------------------------------------------------------------------------------------------- */
static void add_service(__u32 index, const char *name, __u16 port, __u8 kind, __u64 address)
{
	struct sluice_service service = {.addr.lo = address, .port = port, .kind = kind};
	__u32 key = port;
	__u64 bits;

	snprintf(service.name, sizeof(service.name), "%s", name);
	bits = *(__u64 *)bpf_map_lookup_elem(&ports, &key) | 1ULL << index;
	bpf_map_update_elem(&services, &index, &service, BPF_ANY);
	bpf_map_update_elem(&ports, &key, &bits, BPF_ANY);
}

static void run_door(void *context)
{
	sluice_door(context);
}

void world_open(void)
{
#define M(name) SHIM_MAP(&name);
	WORLD_MAPS(M)
#undef M
#define M(name) SHIM_RING(&name);
	WORLD_RINGS(M)
#undef M
	libbpf_door = run_door;
	add_service(0, "shop", WORLD_PORT, SLUICE_SERVICE_SALE, 0);
	add_service(1, "ssh", WORLD_TCP_PORT, SLUICE_SERVICE_TCP, 0);
	add_service(2, "one", WORLD_ONE_PORT, SLUICE_SERVICE_SALE, 0xffffc0000202ULL);
	shim_map_keep(shim_map_find("services"));
	shim_map_keep(shim_map_find("ports"));
	CHECK(!answers_write_defaults(libbpf_fd("answers"), ""), "answers");
	shim_map_keep(shim_map_find("answers"));
	world_reset();
}

struct sluice_control *world_control(void)
{
	return control_get();
}

static struct sluice_stock *stock_of(uint32_t id)
{
	__u32 slot = id % SLUICE_MAX_SALES;

	return bpf_map_lookup_elem(&stock, &slot);
}

struct sluice_sale *world_sale(uint32_t id)
{
	__u32 slot = id % SLUICE_MAX_SALES;

	return bpf_map_lookup_elem(&sales, &slot);
}

struct sluice_limits *world_limits(void)
{
	return limits_get();
}

struct sluice_key *world_key(unsigned slot)
{
	__u32 key = slot & 1;

	return bpf_map_lookup_elem(&keys, &key);
}

uint64_t world_wall_ns(void)
{
	return shim.now_ns + control_get()->wall_offset_ns;
}

void world_reset(void)
{
	struct sluice_control *ctl;

	shim_reset();
	books.sealed_count = books.admitted_count = books.settled = books.claim_count = 0;
	ctl = control_get();
	*ctl = (struct sluice_control){.magic = SLUICE_ABI_MAGIC,
		.abi_version = SLUICE_ABI_VERSION,
		.heartbeat_mono = shim.now_ns,
		.wall_offset_ns = WORLD_WALL_NS - shim.now_ns,
		.flags = SLUICE_CONTROL_ORDERS_OPEN,
		.grow = SLUICE_GROW_HEAD | SLUICE_GROW_TAIL,
		.mss4 = 1460,
		.mss6 = 1440,
		.rate_mask = 1023,
		.rate_seed = 0x5eed};
	for (unsigned i = 0; i < SALES; i++) {
		*world_sale(sale_ids[i]) = (struct sluice_sale){.id = sale_ids[i],
			.opens_wall = WORLD_WALL_NS - HOUR_NS,
			.ends_wall = WORLD_WALL_NS + HOUR_NS,
			.per_buyer = 3};
		stock_of(sale_ids[i])->free = WORLD_STOCK;
		books.put_in[i] = WORLD_STOCK;
	}
	*world_key(1) =
		(struct sluice_key){.k0 = 0x0706050403020100ULL, .k1 = 0x0f0e0d0c0b0a0908ULL, .id = 1, .valid = 1};
}

static int sale_index(uint32_t id)
{
	for (int i = 0; i < SALES; i++)
		if (sale_ids[i] == id)
			return i;
	return -1;
}

void world_move_stock(uint32_t id, int units)
{
	struct sluice_stock *words = stock_of(id);
	int i = sale_index(id);

	CHECK(i >= 0, "stock of sale %u", id);
	if (units < 0 && (uint64_t) - (int64_t)units > words->free)
		units = -(int)words->free;
	words->free += (__u64)(int64_t)units;
	books.put_in[i] += (uint64_t)(int64_t)units;
}

void world_settle(unsigned count)
{
	struct sluice_admitted record;

	for (; count && books.settled < books.admitted_count; count--, books.settled++) {
		CHECK(shim_ring_take(SHIM_RING(&ring), &record, sizeof(record)) == sizeof(record),
			"a record is missing");
		CHECK(record.serial == books.admitted[books.settled].serial, "records out of order");
		control_get()->in_flight--;
	}
}

void world_claim(const struct sluice_token *token, uint32_t state)
{
	struct sluice_admission claim = {.serial = token->serial,
		.buyer = token->buyer,
		.sale = token->sale,
		.state = state,
		.quantity = token->quantity};
	__u64 serial = token->serial;

	if (!state) {
		for (unsigned i = 0; i < books.claim_count; i++) {
			if (books.claims[i] != serial)
				continue;
			bpf_map_delete_elem(&admissions, &serial);
			books.claims[i] = books.claims[--books.claim_count];
			return;
		}
	} else if (books.claim_count < CLAIMS_MAX && !bpf_map_update_elem(&admissions, &serial, &claim, BPF_NOEXIST)) {
		books.claims[books.claim_count++] = serial;
	}
}

void world_list(enum sluice_list list, struct sluice_addr addr, unsigned prefix_len, uint64_t expires_wall)
{
	struct sluice_list_key key = {.addr = addr, .list = list, .prefix_len = prefix_len};
	struct sluice_list_entry entry = {.expires_wall = expires_wall};
	bool mapped = !addr.hi && addr.lo >> 32 == 0xffff && prefix_len >= 112;
	__u32 slot = mapped        ? (__u32)addr.lo >> 16
		: prefix_len >= 32 ? SLUICE_INDEX_V6 + sluice_index_hash(addr.hi >> 32)
				   : SLUICE_INDEX_SHORT6;
	struct sluice_list_index *index = bpf_map_lookup_elem(&list_index, &slot);
	__u64 *words = list == SLUICE_LIST_DENY ? index->deny : index->allow;

	key.addr.hi &= prefix_len >= 64 ? ~0ULL : ~0ULL << (64 - prefix_len);
	key.addr.lo &= prefix_len >= 128 ? ~0ULL : prefix_len <= 64 ? 0 : ~0ULL << (128 - prefix_len);
	words[(prefix_len - 1) / 64] |= 1ULL << (prefix_len - 1) % 64;
	bpf_map_update_elem(&lists, &key, &entry, BPF_ANY);
}

void world_watch(const struct sluice_watch *wanted)
{
	struct sluice_control *ctl = control_get();
	__u32 zero = 0;

	bpf_map_update_elem(&watch, &zero, wanted, BPF_ANY);
	ctl->flags = wanted->reasons ? ctl->flags | SLUICE_CONTROL_WATCH : ctl->flags & ~SLUICE_CONTROL_WATCH;
}

static __u32 sum_words(const __u8 *bytes, unsigned length)
{
	__u32 sum = 0;

	for (unsigned i = 0; i < length; i += 2) {
		sum += (__u32)bytes[i] << 8 | bytes[i + 1];
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

void world_answer(unsigned code, uint8_t fill, unsigned length, unsigned retry_at)
{
	__u32 index = SLUICE_ANSWER_COUNT + code;
	struct sluice_control *ctl = control_get();
	struct sluice_answer_bytes *answer = bpf_map_lookup_elem(&answers, &index);

	ctl->answer_banks ^= 1u << code;
	*answer = (struct sluice_answer_bytes){.len = length, .retry_at = retry_at, .short_len = 32};
	memset(answer->bytes, fill, length);
	memset(answer->short_bytes, fill, answer->short_len);
	if (retry_at)
		memset(answer->bytes + retry_at, '0', 4);
	answer->sum = sum_words(answer->bytes, length);
	answer->short_sum = sum_words(answer->short_bytes, answer->short_len);
}

static struct sluice_answer_bytes *home_of(__u32 node)
{
	__u32 index = (control_get()->answer_banks >> SLUICE_ANSWER_WRONG_NODE & 1) * SLUICE_HOMES + node;

	return bpf_map_lookup_elem(&homes, &index);
}

void world_home(unsigned node, uint8_t fill, unsigned length, unsigned token_at)
{
	struct sluice_answer_bytes *answer = home_of(node);

	*answer = (struct sluice_answer_bytes){
		.len = length, .token_at = token_at, .short_len = token_at ? token_at + SLUICE_TOKEN_TEXT + 2 : 34};
	memset(answer->bytes, fill, length);
	memset(answer->short_bytes, fill, answer->short_len);
	if (token_at) {
		memset(answer->bytes + token_at, 0, SLUICE_TOKEN_TEXT);
		memset(answer->short_bytes + token_at, 0, SLUICE_TOKEN_TEXT);
	}
	answer->sum = sum_words(answer->bytes, length);
	answer->short_sum = sum_words(answer->short_bytes, answer->short_len);
}

void world_know(const struct sluice_token *token)
{
	if (books.sealed_count < SEALED_MAX)
		books.sealed[books.sealed_count++] = *token;
}

void world_seal(struct sluice_token *token, char *text)
{
	const struct sluice_key *key = world_key(token->key_id);

	if (key->id == token->key_id) {
		token_seal(key, token, text);
		world_know(token);
		return;
	}
	token->version = SLUICE_TOKEN_VERSION; /* a key that is not there: the MAC stays what it is */
	base64url_encode((const __u8 *)token, sizeof(*token), text);
}

/* --- what must hold of the money --------------------------------------------------------------------------------------------------- */
static uint64_t admitted_units(uint32_t sale, const uint64_t *buyer)
{
	uint64_t units = 0;

	for (unsigned i = 0; i < books.admitted_count; i++)
		if (books.admitted[i].sale == sale && (!buyer || books.admitted[i].buyer == *buyer))
			units += books.admitted[i].quantity;
	return units;
}

static void check_buyer(const void *key_at, void *value, void *arg)
{
	const struct sluice_buyer_key *key = key_at;
	const struct sluice_buyer *buyer = value;
	uint64_t id = key->buyer, units = admitted_units(key->sale, &id);

	(void)arg;
	CHECK(buyer->units == units, "buyer %llx has %u units counted, and %llu admitted", (unsigned long long)id,
		buyer->units, (unsigned long long)units);
}

static bool is_claim(uint64_t serial)
{
	for (unsigned i = 0; i < books.claim_count; i++)
		if (books.claims[i] == serial)
			return true;
	return false;
}

static const struct sluice_admission *find_admitted(uint64_t serial)
{
	for (unsigned i = 0; i < books.admitted_count; i++)
		if (books.admitted[i].serial == serial)
			return &books.admitted[i];
	return NULL;
}

static void check_admission(const void *key, void *value, void *arg)
{
	const struct sluice_admission *admission = value, *known;
	uint64_t serial;

	(void)arg;
	memcpy(&serial, key, sizeof(serial));
	if (is_claim(serial))
		return;
	known = find_admitted(serial);
	CHECK(known, "an entry that no admission has left, state %u", admission->state);
	CHECK(admission->state == SLUICE_ADMISSION_DONE && !memcmp(admission, known, sizeof(*known)),
		"an admission has changed");
}

static void check_books(void)
{
	for (unsigned i = 0; i < SALES; i++) {
		const struct sluice_stock *words = stock_of(sale_ids[i]);
		uint64_t gone = admitted_units(sale_ids[i], NULL);

		CHECK(words->free + gone == books.put_in[i] && gone <= books.put_in[i],
			"sale %u: %llu free, %llu admitted, %llu put in", sale_ids[i], (unsigned long long)words->free,
			(unsigned long long)gone, (unsigned long long)books.put_in[i]);
		CHECK(words->taken == gone, "%llu units counted as taken", (unsigned long long)words->taken);
	}
	shim_map_each(SHIM_MAP(&buyers), check_buyer, NULL);
	shim_map_each(SHIM_MAP(&admissions), check_admission, NULL);
	CHECK(shim_map_count(SHIM_MAP(&admissions)) == books.admitted_count + books.claim_count,
		"%u entries for %u admissions", shim_map_count(SHIM_MAP(&admissions)), books.admitted_count);
	CHECK(control_get()->in_flight == books.admitted_count - books.settled, "%llu in flight",
		(unsigned long long)control_get()->in_flight);
}

/* Everything that a yes stands for, asked again of the state in which it was given. */
static void check_yes(const struct sluice_admission *admission, uint64_t units_before)
{
	const struct sluice_control *ctl = control_get();
	const struct sluice_sale *sale = world_sale(admission->sale);
	uint64_t wall = world_wall_ns(), buyer = admission->buyer;
	const struct sluice_token *token = NULL;

	for (unsigned i = 0; i < books.sealed_count; i++)
		if (books.sealed[i].serial == admission->serial && books.sealed[i].sale == admission->sale &&
			books.sealed[i].buyer == buyer && books.sealed[i].quantity == admission->quantity &&
			books.sealed[i].expires_at_s == admission->expires_at_s)
			token = &books.sealed[i];
	CHECK(token, "a token that nobody sealed was admitted");
	CHECK(sale->id == admission->sale && !(sale->flags & ~SLUICE_SALE_MORE), "sale %u, flags %x", admission->sale,
		sale->flags);
	CHECK(!ctl->node || token->node == ctl->node, "a token of node %u", token->node);
	CHECK(wall >= sale->opens_wall && wall < sale->ends_wall, "outside of the window");
	CHECK(token->expires_at_s > wall / 1000000000ULL, "expired");
	CHECK(!token->network || token->network == sluice_network_of(&admission->source), "from another network");
	CHECK(token->quantity && token->quantity <= sale->per_buyer, "%u units", token->quantity);
	CHECK(admitted_units(admission->sale, &buyer) <= sale->per_buyer, "more than a buyer may have");
	CHECK(units_before >= token->quantity, "oversold");
	CHECK(ctl->flags & SLUICE_CONTROL_ORDERS_OPEN, "orders are closed");
	CHECK((int64_t)(shim.now_ns - ctl->heartbeat_mono) <= (int64_t)SLUICE_HEARTBEAT_MAX_NS, "the daemon is away");
	CHECK(!ctl->backlog_max || ctl->in_flight <= ctl->backlog_max, "backlog");
	CHECK(admission->admitted_wall == wall && admission->state == SLUICE_ADMISSION_DONE, "its words");
	CHECK(token->issued_at_s >= sale->not_before_s, "revoked");
}

/* --- runs ---------------------------------------------------------------------------------------------------------------------------- */
struct before {
	uint64_t free_units[SALES], pace_tat[SALES], wanted, rates, recent;
	unsigned records;
};

static uint64_t wanted_units(void)
{
	uint64_t wanted = 0;

	for (unsigned i = 0; i < SALES; i++)
		wanted += stock_of(sale_ids[i])->wanted;
	return wanted;
}

static void look_before(struct before *before)
{
	for (unsigned i = 0; i < SALES; i++)
		before->free_units[i] = stock_of(sale_ids[i])->free;
	for (unsigned i = 0; i < SALES; i++)
		before->pace_tat[i] = stock_of(sale_ids[i])->pace_tat;
	before->wanted = wanted_units();
	before->rates = shim_map_digest(SHIM_MAP(&rates));
	before->recent = shim_map_digest(SHIM_MAP(&recent));
	shim.cookie_was_good = false;
	shim.updates_failed = 0;
}

/* Only an order that was taken costs its sale's pace, and no more than its units. */
static void check_pace(const struct before *before, const struct sluice_admission *admission)
{
	for (unsigned i = 0; i < SALES; i++) {
		uint64_t tat = stock_of(sale_ids[i])->pace_tat, most = before->pace_tat[i];

		if (most < shim.now_ns)
			most = shim.now_ns;
		if (admission && admission->sale == sale_ids[i])
			most += admission->quantity * world_sale(sale_ids[i])->pace.interval_ns;
		CHECK(tat <= most, "the pace of sale %u is %llu ns ahead of what was taken", sale_ids[i],
			(unsigned long long)(tat - most));
	}
}

/* What was refused for want of units that may be elsewhere is counted, once, and nothing else is. An answer that had no room was given for some
 * reason, and only that one is counted then.
 */
static void check_wanted(const struct before *before, int reason)
{
	uint64_t more = wanted_units() - before->wanted;

	CHECK(more <= SLUICE_MAX_QUANTITY, "%llu units more are wanted", (unsigned long long)more);
	CHECK(reason == SLUICE_REASON_ANSWER_FAILED || !!more == (reason == SLUICE_REASON_UNITS_ELSEWHERE),
		"%llu units more are wanted, reason %d", (unsigned long long)more, reason);
}

/* What a watcher was shown of this run: once, if at all, what was asked for, and no byte that nobody wrote. The reason may have become
 * another one behind that: for want of room for the answer, or in shadow mode.
 */
static void check_shown(int reason, unsigned door)
{
	const struct sluice_watch *asked = shim_map_lookup(SHIM_MAP(&watch), &(__u32){0});
	struct sluice_event event;
	unsigned count = 0;

	while (shim_ring_take(SHIM_RING(&events), &event, sizeof(event))) {
		CHECK(!count++, "shown twice");
		CHECK(control_get()->flags & SLUICE_CONTROL_WATCH, "nobody watches");
		CHECK(asked->reasons >> event.reason & 1 && event.mono <= asked->until_mono,
			"reason %u was not asked for", event.reason);
		CHECK((event.source.hi & asked->mask.hi) == asked->addr.hi &&
				(event.source.lo & asked->mask.lo) == asked->addr.lo,
			"another source");
		CHECK(event.reason == reason || reason == SLUICE_REASON_SHADOWED ||
				reason == SLUICE_REASON_ANSWER_FAILED,
			"shown as %u", event.reason);
		CHECK(event.mono == shim.now_ns && event.door == door && event.service <= SLUICE_MAX_SERVICES &&
				event.shadow <= 1 && !event.pad,
			"an event of other words");
	}
}

/* `admission` is what was admitted by this run, or NULL. */
static void look_after(const struct before *before, int reason, const struct sluice_admission *admission)
{
	/* There is one CPU: nothing can be contended unless a map was made to say so. */
	CHECK(reason != SLUICE_REASON_CONTENDED || shim.updates_failed, "contended");
	CHECK(!shim.sockets_held, "a socket is held");
	CHECK(!shim.records_held, "a slot of the ring is held");
	if (admission) {
		int i = sale_index(admission->sale);

		CHECK(!find_admitted(admission->serial), "admitted twice");
		CHECK(i >= 0 && books.admitted_count < ADMITTED_MAX, "sale %u", admission->sale);
		books.admitted[books.admitted_count++] = *admission;
		check_yes(admission, before->free_units[i]);
	}
	check_pace(before, admission);
	check_wanted(before, reason);
	check_books();
}

struct counted {
	uint64_t packets[(SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS], bytes, all;
};

static void count_one(const void *key, void *value, void *arg)
{
	const struct sluice_counter *counter = value;
	struct counted *counted = arg;
	uint32_t row;

	memcpy(&row, key, sizeof(row));
	counted->packets[row] = counter->packets;
	counted->bytes += counter->bytes;
	counted->all += counter->packets;
}

static int find_counted(const struct counted *before, const struct counted *after)
{
	for (unsigned row = 0; row < sizeof(after->packets) / sizeof(after->packets[0]); row++)
		if (after->packets[row] == before->packets[row] + 1)
			return (int)row;
	return -1;
}

static const uint8_t wanted_action[SLUICE_REASON_ROWS] = {
#define X(name, label, action, answer, text) SLUICE_ACTION_##action,
	SLUICE_REASONS(X)
#undef X
};

static const uint8_t wanted_answer[SLUICE_REASON_ROWS] = {
#define X(name, label, action, answer, text) SLUICE_ANSWER_##answer,
	SLUICE_REASONS(X)
#undef X
};

/* The text of the good token of an order that was judged. What looks like an order elsewhere in the frame has none. */
static const uint8_t *token_in(const uint8_t *came, uint32_t length, struct sluice_token *token)
{
	static const char path[] = "POST /v1/orders/";
	const uint8_t *end = came + length, *at = came;

	while ((at = memmem(at, (size_t)(end - at), path, sizeof(path) - 1))) {
		at += sizeof(path) - 1;
		if (end - at >= SLUICE_TOKEN_TEXT && !sluice_token_decode((const char *)at, token) &&
			sluice_token_mac(token, world_key(token->key_id)->k0, world_key(token->key_id)->k1) ==
				token->mac)
			return at;
	}
	CHECK(false, "an order without a good token");
	return NULL;
}

/* The answer to a token of another node, in either form, with that token in its place. False: that node has none, or it is not this one. */
static bool is_sent_home(const uint8_t *came, uint32_t came_length, const struct parsed *parsed)
{
	uint8_t bytes[SLUICE_ANSWER_MAX];
	struct sluice_token token;
	const uint8_t *text = token_in(came, came_length, &token);
	const struct sluice_answer_bytes *answer;

	CHECK(control_get()->node && token.node != control_get()->node, "a token of node %u", token.node);
	answer = token.node < SLUICE_HOMES ? home_of(token.node) : NULL;
	if (!answer || !answer->len || (parsed->payload_len != answer->len && parsed->payload_len != answer->short_len))
		return false;
	memcpy(bytes, parsed->payload_len == answer->len ? answer->bytes : answer->short_bytes, parsed->payload_len);
	if (answer->token_at)
		memcpy(bytes + answer->token_at, text, SLUICE_TOKEN_TEXT);
	return !memcmp(bytes, parsed->payload, parsed->payload_len);
}

/* The body is the template in use, with four digits where it has some, or its short form. */
static void check_answer(
	const uint8_t *came, uint32_t came_length, const struct world_run *run, const struct parsed *parsed)
{
	__u32 code = wanted_answer[run->reason], bank = control_get()->answer_banks >> code & 1;
	__u32 index = code + bank * SLUICE_ANSWER_COUNT;
	const struct sluice_answer_bytes *answer = bpf_map_lookup_elem(&answers, &index);
	uint8_t bytes[SLUICE_ANSWER_MAX];

	CHECK(parsed->flags == (F_PSH | F_FIN | F_ACK), "flags %x", parsed->flags);
	if (run->reason == SLUICE_REASON_WRONG_NODE && is_sent_home(came, came_length, parsed))
		return;
	if (parsed->payload_len == answer->short_len) {
		CHECK(!memcmp(parsed->payload, answer->short_bytes, answer->short_len), "another short answer");
		return;
	}
	CHECK(parsed->payload_len == answer->len, "%u bytes of answer, not %u", parsed->payload_len, answer->len);
	memcpy(bytes, answer->bytes, answer->len);
	for (unsigned i = 0; answer->retry_at && i < 4; i++) {
		bytes[answer->retry_at + i] = parsed->payload[answer->retry_at + i];
		CHECK(bytes[answer->retry_at + i] >= '0' && bytes[answer->retry_at + i] <= '9', "Retry-After");
	}
	CHECK(!memcmp(bytes, parsed->payload, answer->len), "another answer");
}

/* The frame came from where this one goes. Both parse, so all offsets are known. */
static void check_goes_back(const uint8_t *came, const struct world_run *run, const struct parsed *parsed)
{
	unsigned ip = 14 + 4 * (unsigned)parsed->vlans, size = parsed->ip6 ? 16 : 4, at = ip + (parsed->ip6 ? 8 : 12);

	CHECK(!memcmp(run->bytes, came + 6, 6) && !memcmp(run->bytes + 6, came, 6), "MAC addresses");
	CHECK(!memcmp(run->bytes + 12, came + 12, ip - 12), "type and tags");
	CHECK(!memcmp(run->bytes + at, came + at + size, size) && !memcmp(run->bytes + at + size, came + at, size),
		"addresses");
}

static void check_sent(const uint8_t *came, uint32_t came_length, const struct world_run *run)
{
	struct parsed parsed = frame_parse(run->bytes, run->length);

	CHECK(!parsed.wrong, "sent back: wrong %s", parsed.wrong);
	check_goes_back(came, run, &parsed);
	if (wanted_action[run->reason] == SLUICE_ACTION_ANSWER) {
		check_answer(came, came_length, run, &parsed);
		CHECK(shim.cookie_was_good, "an answer to a source that no cookie has proved");
		CHECK(run->length <= 22 + 40 + 20 + SLUICE_ANSWER_MAX, "%u bytes", run->length);
	} else if (run->reason == SLUICE_REASON_SYN_COOKIE) {
		CHECK(parsed.flags == (F_SYN | F_ACK) && !parsed.payload_len, "flags %x", parsed.flags);
		CHECK(run->length <= came_length, "a SYN-ACK of %u bytes for a SYN of %u", run->length, came_length);
	} else {
		CHECK(parsed.flags == F_ACK && !parsed.payload_len && !parsed.option_bytes, "flags %x", parsed.flags);
		CHECK(run->length <= came_length, "%u bytes for %u", run->length, came_length);
	}
}

static void check_verdict(const uint8_t *came, uint32_t came_length, const struct world_run *run)
{
	unsigned action = wanted_action[run->reason];

	CHECK(run->reason > SLUICE_REASON_NONE && run->reason < SLUICE_REASON_COUNT, "reason %d", run->reason);
	CHECK(run->service < WORLD_SERVICES || run->service == SLUICE_MAX_SERVICES, "service %d", run->service);
	CHECK((run->reason == SLUICE_REASON_UNPROTECTED) <= (run->service == SLUICE_MAX_SERVICES), "unprotected");
	if (action == SLUICE_ACTION_PASS) {
		CHECK(run->action == XDP_PASS, "action %d for reason %d", run->action, run->reason);
		CHECK(run->length == came_length && !memcmp(run->bytes, came, came_length), "passed, but changed");
	} else if (action == SLUICE_ACTION_DROP) {
		CHECK(run->action == XDP_DROP, "action %d for reason %d", run->action, run->reason);
	} else {
		CHECK(run->action == XDP_TX, "action %d for reason %d", run->action, run->reason);
		check_sent(came, came_length, run);
	}
}

static void find_new(const void *key, void *value, void *arg)
{
	const struct sluice_admission **found = arg;
	uint64_t serial;

	memcpy(&serial, key, sizeof(serial));
	if (!is_claim(serial) && !find_admitted(serial))
		*found = value;
}

/* What this run has left in the map: the entry that was not there before. */
static const struct sluice_admission *admitted_now(void)
{
	const struct sluice_admission *found = NULL;

	shim_map_each(SHIM_MAP(&admissions), find_new, &found);
	CHECK(found, "admitted, and no entry in the map");
	return found;
}

void world_frame(const uint8_t *bytes, uint32_t length, bool at_end, struct world_run *run)
{
	static struct counted counted_before, counted;
	struct sluice_admission admission;
	struct before before;
	bool admitted;
	int row;

	memset(&counted_before, 0, sizeof(counted_before));
	memset(&counted, 0, sizeof(counted));
	shim_map_each(SHIM_MAP(&counters), count_one, &counted_before);
	look_before(&before);
	run->action = sluice_gate(shim_frame_put(bytes, length, at_end));
	run->bytes = shim_frame_bytes();
	run->length = shim_frame_length();
	shim_map_each(SHIM_MAP(&counters), count_one, &counted);
	row = find_counted(&counted_before, &counted);
	CHECK(row >= 0 && counted.all == counted_before.all + 1, "%llu packets counted for one",
		(unsigned long long)(counted.all - counted_before.all));
	CHECK(counted.bytes == counted_before.bytes + length, "%llu bytes counted for %u",
		(unsigned long long)(counted.bytes - counted_before.bytes), length);
	run->reason = row % SLUICE_REASON_ROWS;
	run->service = row / SLUICE_REASON_ROWS;
	admitted = run->reason == SLUICE_REASON_ADMITTED;
	if (admitted)
		admission = *admitted_now();
	look_after(&before, run->reason, admitted ? &admission : NULL);
	check_verdict(bytes, length, run);
	check_shown(run->reason, SLUICE_DOOR_WIRE);
	if (!shim.cookie_was_good) {
		/* But whose connection was here a minute ago is proved by that. */
		CHECK(before.rates == shim_map_digest(SHIM_MAP(&rates)) ||
				(shim.socket_state == BPF_TCP_TIME_WAIT &&
					(run->reason == SLUICE_REASON_SOCKET ||
						run->reason == SLUICE_REASON_RATE_DROP)),
			"a rate for a source that no cookie has proved");
		CHECK(before.recent == shim_map_digest(SHIM_MAP(&recent)),
			"a note of a source that no cookie has proved");
		CHECK(!admitted, "admitted without a cookie");
	}
}

void world_call(struct sluice_call *call)
{
	const struct sluice_admission *known;
	struct sluice_token token;
	struct before before;
	bool admitted;

	look_before(&before);
	CHECK(!sluice_door(call), "the door");
	CHECK(call->reason > SLUICE_REASON_NONE && call->reason < SLUICE_REASON_COUNT, "reason %u", call->reason);
	CHECK(call->retry_after_s <= SLUICE_RETRY_MAX_S, "Retry-After %u", call->retry_after_s);
	admitted = call->reason == SLUICE_REASON_ADMITTED;
	look_after(&before, (int)call->reason, admitted ? &call->admission : NULL);
	check_shown((int)call->reason, SLUICE_DOOR_CALL);
	if (call->reason == SLUICE_REASON_ADMITTED_AGAIN) {
		known = find_admitted(call->serial);
		CHECK(known && !memcmp(known, &call->admission, sizeof(*known)), "another admission than before");
		CHECK(!sluice_token_decode(call->token, &token) && token.buyer == known->buyer &&
				token.sale == known->sale,
			"somebody else's admission");
	}
}
