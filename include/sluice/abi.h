/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the gate and userspace share: map names, keys and values, and the context of the call door.
 *
 * Everything here is laid out without gaps and its size is asserted: a pinned map outlives the program that made it, and
 * `sluice reload` must be able to trust it. Any change of a size, an offset or a meaning needs a new SLUICE_ABI_VERSION;
 * `reload` and the daemon refuse pins of another version.
 *
 * Clocks: `mono` is CLOCK_MONOTONIC in ns (bpf_ktime_get_ns), `wall` is CLOCK_REALTIME in ns since 1970.
 * The gate knows only mono; control.wall_offset_ns turns it into wall.
 */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#include <linux/types.h>

#include "reasons.h"

#define SLUICE_ABI_VERSION 6
#define SLUICE_ABI_MAGIC 0x534c5543 /* "SLUC" */

#define SLUICE_MAX_SERVICES 16
#define SLUICE_MAX_SALES 1024
#define SLUICE_CACHE_LINE 64
/* A daemon whose heartbeat is older than this is taken for dead, and the judge closes orders. */
#define SLUICE_HEARTBEAT_MAX_NS 2000000000ULL
/* The most units one token may ask for, and the most that `per_buyer` may be. */
#define SLUICE_MAX_QUANTITY 100
/* One answer segment; with headers it fits the smallest IPv6 MTU. */
#define SLUICE_ANSWER_MAX 1000
#define SLUICE_ANSWER_SHORT_MAX 296 /* a status line, and the longest Location */
#define SLUICE_RETRY_MAX_S 9999
/* The highest number that a node of a fleet can have. */
#define SLUICE_NODES_MAX 255

/* An address as a number in host byte order; an IPv4 address is mapped (::ffff:a.b.c.d), so one key serves both. */
struct sluice_addr {
	__u64 hi;
	__u64 lo;
};

/* --- map "services": array[SLUICE_MAX_SERVICES]; written by the loader, read by the gate ------------------------------- */
enum sluice_service_kind { SLUICE_SERVICE_UNUSED, SLUICE_SERVICE_SALE, SLUICE_SERVICE_TCP };

struct sluice_service {
	struct sluice_addr addr; /* all zero = any address of either family */
	__u16 port;              /* host byte order */
	__u8 kind;               /* enum sluice_service_kind */
	__u8 pad[5];
	char name[24]; /* NUL-terminated; the metric label `service` */
};

/* --- map "ports": array[65536] of __u64; bit n set = service n listens on this port ------------------------------------ */

/* --- map "limits": array[1]; written by loader and daemon, read by the gate --------------------------------------------
 * A GCRA limit: `interval_ns` is the time one request costs (1e9 / rate), 0 = no limit; `tolerance_ns` is how far ahead of
 * time a caller may run, (burst - 1) * interval_ns. The two words may be seen mixed for one packet while they change.
 */
struct sluice_limit {
	__u64 interval_ns;
	__u64 tolerance_ns;
};

enum sluice_limit_id {
	SLUICE_LIMIT_SOURCE,     /* requests per IPv4 address or IPv6 /64, after the handshake */
	SLUICE_LIMIT_PREFIX,     /* requests per IPv4 /24 or IPv6 /48, after the handshake */
	SLUICE_LIMIT_TOKEN,      /* order attempts per token */
	SLUICE_LIMIT_ANSWER,     /* 429 answers per source; beyond it: drop */
	SLUICE_LIMIT_SYN_PREFIX, /* SYNs per IPv4 /24 or IPv6 /48 (hashed into a table of fixed size) */
	SLUICE_LIMIT_SYN_GLOBAL, /* SYNs in all; beyond it only sources that have a bucket are answered */
	SLUICE_LIMIT_COUNT
};

struct sluice_limits {
	struct sluice_limit limit[8]; /* by enum sluice_limit_id */
};
_Static_assert(SLUICE_LIMIT_COUNT <= 8, "sluice_limits is full");

/* --- map "control": mmapable array[1]; the words that daemon and gate share -------------------------------------------- */
#define SLUICE_CONTROL_ORDERS_OPEN 1u /* flags: the writer is there; without it the judge says writer_away */
#define SLUICE_CONTROL_DENY_ALL 2u    /* flags: the deny list also covers traffic that is not protected */
#define SLUICE_CONTROL_WATCH 4u       /* flags: somebody watches verdicts, see map "watch" */
/* flags: shadow mode. What would be refused is counted in map "shadow" and goes on. ALL: the gate drops and answers nothing, every
 * frame goes up as it came, and orders are judged at the call door alone; token, window, stock and buyer's limit hold there as ever.
 */
#define SLUICE_CONTROL_SHADOW_ALL 8u
#define SLUICE_CONTROL_SHADOW_DENY 16u                 /* the deny list */
#define SLUICE_CONTROL_SHADOW_PACE 32u                 /* the pace of every sale */
#define SLUICE_CONTROL_SHADOW_LIMIT(id) (256u << (id)) /* enum sluice_limit_id */
#define SLUICE_GROW_HEAD 1u                            /* grow: bpf_xdp_adjust_head works on this interface */
#define SLUICE_GROW_TAIL 2u                            /* grow: bpf_xdp_adjust_tail can grow on this interface */

/* kept: what of the ledger is in this gate since it was attached, and which limits and shadow switches were set on it by hand. Of these the
 * gate's values count, not the ledger's.
 */
#define SLUICE_KEPT_LIMITS 1ull
#define SLUICE_KEPT_LISTS 2ull
#define SLUICE_KEPT_RATE(id) (256ull << (id))           /* enum sluice_limit_id */
#define SLUICE_KEPT_SHADOW(which) (65536ull << (which)) /* the daemon's enum shadow_switch */

struct sluice_control {
	__u32 magic;
	__u32 abi_version;
	__u64 generation;     /* counts program replacements; the daemon reopens the door when it changes */
	__u64 heartbeat_mono; /* daemon: time of its last sign of life */
	__u64 wall_offset_ns; /* daemon: wall - mono, two's complement; also seeded by the loader */
	__u32 flags;          /* SLUICE_CONTROL_* */
	__u32 grow;           /* SLUICE_GROW_*; loader's self-test */
	__u32 answer_banks;   /* bit n = bank of answer n in use */
	__u16 mss4;           /* for SYN-ACKs */
	__u16 mss6;
	__u64 backlog_max; /* unacknowledged admissions at which orders close; 0 = no limit */
	__u32 rate_mask;   /* sets in map "rates" less one */
	__u32 rate_seed;   /* random, so that nobody can choose sources that share a set */
	/* second cache line: written by the judge for each admission and by the daemon for each durable order */
	__u64 in_flight;      /* admissions not yet durable */
	__u64 syn_global_tat; /* GCRA of the global SYN budget (mono) */
	__u64 kept;           /* SLUICE_KEPT_*; the daemon's alone, no program reads it */
	/* daemon: the number of this node. A token that names another one is answered wrong_node, with the address of its home (map "homes").
	 * 0 = this gate belongs to no fleet: tokens of every node are judged.
	 */
	__u32 node;
	__u32 pad0;
	__u64 pad[4];
};

/* --- map "sales": mmapable array[SLUICE_MAX_SALES]; slot = id % SLUICE_MAX_SALES; written by the daemon ------------------
 * The daemon stores each word with one atomic store, and sets SLUICE_SALE_CLOSED around a change of more than one word.
 */
#define SLUICE_SALE_PAUSED 1u
#define SLUICE_SALE_ENDED 2u  /* ended by hand, before `ends_wall` */
#define SLUICE_SALE_CLOSED 4u /* being changed at this moment: judged as paused */
/* Of a fleet's leases. Where no unit is free, more may still come to this node: units_elsewhere, not sold_out. */
#define SLUICE_SALE_MORE 8u
/* This node may not sell now, whatever is free: units_elsewhere. Who was admitted before is still told so. */
#define SLUICE_SALE_WITHHELD 16u

struct sluice_sale {
	__u32 id;    /* 0 = slot is free */
	__u32 flags; /* SLUICE_SALE_* */
	__u64 opens_wall;
	__u64 ends_wall;
	struct sluice_limit pace; /* per unit */
	__u32 per_buyer;
	__u32 not_before_s; /* tokens issued before this second are revoked; 0 = none */
	__u32 pad[4];
};

/* --- map "stock": mmapable array[SLUICE_MAX_SALES]; same slot as the sale ------------------------------------------------ */
struct sluice_stock {
	/* first line: nothing but the units that may still be sold. Judge: compare-and-swap down. Daemon: atomic add. */
	__u64 free;
	__u64 pad0[7];
	/* second line */
	__u64 pace_tat; /* GCRA of the sale's pace (mono) */
	__u64 taken;    /* units admitted by the judge since the slot was filled; only grows */
	__u64 wanted;   /* units that were refused with units_elsewhere since the slot was filled; only grows */
	__u64 pad1[5];
};

/* --- map "keys": mmapable array[2]; slot = key id & 1; written by the daemon ----------------------------------------------- */
struct sluice_key {
	__u64 k0;
	__u64 k1;
	__u32 id;
	__u32 valid; /* 0 = nothing is accepted from this slot */
	__u64 pad;
};

/* --- map "admissions": preallocated hash, key __u64 serial ------------------------------------------------------------------ */
enum sluice_admission_state {
	SLUICE_ADMISSION_CLAIMED = 1, /* a judge is at work: not an admission yet */
	SLUICE_ADMISSION_DONE = 2,
	/* No admission: the daemon has revoked this token before it was used. The entry keeps it from ever being claimed, at no cost
	 * to anybody else.
	 */
	SLUICE_ADMISSION_REVOKED = 3,
};
/* So long after the end of its sale an admission stays in the gate, and its buyer's count: who lost an answer gets it at both doors. */
#define SLUICE_KEEP_NS 600000000000ULL
enum sluice_door { SLUICE_DOOR_WIRE = 1, SLUICE_DOOR_CALL = 2 };

struct sluice_admission {
	__u64 serial; /* as the key; first, so that it is the first word to change when an entry is used anew */
	__u64 buyer;
	struct sluice_addr source;
	__u64 admitted_wall;
	__u32 sale;
	__u32 state;        /* enum sluice_admission_state */
	__u32 expires_at_s; /* of the token */
	__u32 network;      /* of the token */
	__u8 quantity;
	__u8 door; /* enum sluice_door */
	__u8 service;
	__u8 pad[5];
};

/* --- map "ring": BPF ring buffer of struct sluice_admitted --------------------------------------------------------------------- */
struct sluice_admitted {
	__u64 serial;
	struct sluice_admission admission;
};

/* --- map "buyers": preallocated hash; units that a buyer has in a sale. Also the key of map "issued" ------------------------------ */
struct sluice_buyer_key {
	__u64 buyer;
	__u32 sale;
	__u32 pad;
};

struct sluice_buyer {
	__u32 units;
	__u32 pad;
};

/* --- map "issued": preallocated hash, key struct sluice_buyer_key; the live token of a buyer. Only the daemon uses it; it is a map so
 * that a restarted daemon gives the same token to a buyer who asks again.
 */
struct sluice_issued {
	__u32 issued_at_s;
	__u32 expires_at_s;
	__u32 network;
	__u8 quantity;
	__u8 key_id;
	__u8 round; /* how many tokens of this buyer were used up before this one */
	__u8 pad;
};

/* --- map "rates": mmapable array of sets, a power of two of them; set = sluice_rate_name() & control.rate_mask --------------------------
 * Each set remembers four keys; a fifth takes the place of the one that was idle longest, which only resets that one's rate.
 */
enum sluice_rate_kind {
	SLUICE_RATE_SOURCE4 = 1,
	SLUICE_RATE_SOURCE6,
	SLUICE_RATE_PREFIX4,
	SLUICE_RATE_PREFIX6,
	SLUICE_RATE_TOKEN,
};

struct sluice_rate_key {
	__u64 net; /* address, prefix or token serial */
	__u32 kind;
	__u32 pad;
};

struct sluice_rate {
	__u64 name;        /* sluice_rate_name() of its key; 0 = free */
	__u64 tat;         /* GCRA theoretical arrival time (mono) */
	__u64 answer_tat;  /* GCRA of 429 answers (mono) */
	__u32 muted_until; /* lower half of jiffies: over the rate and out of answers until this tick; 0 = not */
	__u32 verdicts; /* kind SOURCE: the last four reasons given to a first segment, or to a SYN that was charged in its place, a byte each, the latest lowest */
};

#define SLUICE_RATE_WAYS 4

struct sluice_rate_set {
	struct sluice_rate way[SLUICE_RATE_WAYS];
};

/* The 64-bit name of a key, never 0. Mixer: MurmurHash3's 64-bit finalizer (Appleby, public domain), a bijection: two keys of
 * one kind never share a name, those of two kinds by an accident of 2^-64.
 */
static inline __u64 sluice_rate_name(const struct sluice_rate_key *key, __u32 seed)
{
	__u64 name = key->net ^ (((__u64)key->kind << 32 | seed) * 0x9e3779b97f4a7c15ULL);

	name ^= name >> 33;
	name *= 0xff51afd7ed558ccdULL;
	name ^= name >> 33;
	name *= 0xc4ceb9fe1a85ec53ULL;
	name ^= name >> 33;
	return name ? name : 1;
}

/* Of all that names a connection. The upper half of an IPv6 source is mixed with the seed before the lower comes in: who has a network to himself
 * chooses the latter, and must not be able to choose one that makes his connection another's.
 */
static inline __u64 sluice_flow_hash(
	const struct sluice_addr *source, const struct sluice_addr *destination, __u16 sport, __u16 dport, __u32 seed)
{
	struct sluice_rate_key flow = {.net = source->lo, .kind = (__u32)sport << 16 | dport};
	struct sluice_rate_key upper = {
		.net = source->hi ^ (destination->hi * 0x9e3779b97f4a7c15ULL) ^ destination->lo};

	flow.net ^= source->hi ? sluice_rate_name(&upper, seed) : destination->lo << 32;
	return sluice_rate_name(&flow, seed);
}

/* --- map "syn_budget": array[SLUICE_SYN_SLOTS] of __u64 tat (mono); slot = hash of the prefix ---------------------------------------------- */
#define SLUICE_SYN_SLOTS 65536

/* --- map "recent": mmapable array[SLUICE_RECENT_SLOTS] of __u64; slot = lower bits of sluice_flow_hash() ----------------------------------
 * What became of the first segment of a connection: 23 bits of the flow's hash, one bit (1 = answered, 0 = went up), 16 bits of the
 * segment's acknowledgement number, 24 bits of time (mono, units of 2^20 ns). Who comes later takes the slot. It decides what a segment
 * without a socket is:
 * - after one that went up, it came in the same batch, before the kernel made the socket: it goes up too;
 * - after one that was answered, if it acknowledges the answer, it is the client's rest or FIN: acknowledged;
 * - else the first segment, or its answer, may have been lost, and an acknowledgement would cover the request: dropped, the client sends
 *   again from there.
 */
#define SLUICE_RECENT_SLOTS 1048576
#define SLUICE_RECENT_SHIFT 20
#define SLUICE_RECENT_PASSED 512     /* 0.5 s: so long a socket may take to be made */
#define SLUICE_RECENT_ANSWERED 20480 /* 21 s: so long a client may take to close */
#define SLUICE_RECENT_FLOW_SHIFT 41
#define SLUICE_RECENT_ANSWERED_BIT (1ULL << 40)
#define SLUICE_RECENT_ACK_SHIFT 24
#define SLUICE_RECENT_TIME_MASK 0xffffffu

static inline __u64 sluice_recent_word(__u64 flow_hash, int answered, __u32 ack, __u64 now)
{
	return flow_hash >> SLUICE_RECENT_FLOW_SHIFT << SLUICE_RECENT_FLOW_SHIFT |
		(answered ? SLUICE_RECENT_ANSWERED_BIT : 0) | (__u64)(__u16)ack << SLUICE_RECENT_ACK_SHIFT |
		(now >> SLUICE_RECENT_SHIFT & SLUICE_RECENT_TIME_MASK);
}

/* --- map "lists": preallocated hash; deny and allow entries ------------------------------------------------------------------------------------ */
enum sluice_list { SLUICE_LIST_DENY = 1, SLUICE_LIST_ALLOW = 2 };

struct sluice_list_key {
	struct sluice_addr addr; /* bits beyond the prefix are zero */
	__u8 list;               /* enum sluice_list */
	__u8 prefix_len;         /* 1..128 in the mapped form: an IPv4 /24 is 120 */
	__u8 pad[6];
};

struct sluice_list_entry {
	__u64 expires_wall; /* 0 = never */
	__u64 hits;         /* exact up to SLUICE_LIST_EXACT_HITS, then an estimate: see map "denials" */
	char text[32];      /* reason, NUL-terminated */
};

/* --- map "list_index": mmapable array[SLUICE_INDEX_SLOTS]; which prefix lengths exist near an address -----------------------------------------------------
 * Slot of an IPv4 address: its upper 16 bits. Slot of an IPv6 address: 65536 + sluice_index_hash(upper 32 bits). The last slot: IPv6
 * prefixes shorter than /32. Bit (prefix_len - 1) of the 128 is set if an entry of that length may match; a bit too many costs
 * one lookup, a bit too few would be a hole, so the writer sets the bit before the entry and clears it after.
 */
#define SLUICE_INDEX_V6 65536
#define SLUICE_INDEX_SHORT6 131072
#define SLUICE_INDEX_SLOTS 131073

struct sluice_list_index {
	__u64 deny[2]; /* [0]: lengths 1..64, [1]: lengths 65..128 */
	__u64 allow[2];
};

static inline __u32 sluice_index_hash(__u32 upper)
{
	upper *= 0x9e3779b1u; /* Knuth's multiplicative hash */
	return upper >> 16;
}

/* --- map "denials": mmapable array[SLUICE_DENIALS_SLOTS + 1]; sources that an entry of the deny list was found for ----------------------------
 * A flood of denied sources is recognised here, without looking through the lists. A source has two places, in one cache line:
 * sluice_denial_slot(), which is even, and the next. One that is free it takes at once; out of one that is not it drives the other source once in
 * SLUICE_LIST_SAMPLE packets. Only entries with more than SLUICE_LIST_EXACT_HITS hits get their sources in here, and only where no entry of the
 * allow list is near; of what is recognised here, one packet in SLUICE_LIST_SAMPLE, drawn at random, is looked up all the same, and counts as so
 * many hits.
 *
 * A slot counts only while the upper half of its stamp is that of the last slot, which is nobody's: the writer of the lists counts it up after
 * each change that may end a denial (any but a new deny entry), and so forgets all of them at once. The lower half guards a slot against
 * being read while another CPU fills it: bit 1 = filled, bit 0 = being filled, and it changes with each filling. Bit 1 of the last slot is
 * set with the first filling of a generation: without it no slot need be read.
 */
#define SLUICE_DENIALS_SLOTS 262144
#define SLUICE_LIST_EXACT_HITS 64
#define SLUICE_LIST_SAMPLE 32 /* a power of two */
#define SLUICE_DENIAL_FILLING 1u
#define SLUICE_DENIAL_FILLED 2u

struct sluice_denial {
	struct sluice_addr source;
	__u64 expires_wall; /* of the entry that was found; 0 = never */
	__u64 stamp;
};

static inline __u32 sluice_denial_slot(const struct sluice_addr *source)
{
	__u64 hash = (source->hi * 0xff51afd7ed558ccdULL ^ source->lo) * 0x9e3779b97f4a7c15ULL;

	return hash >> 47 << 1;
}

/* --- map "answers": array[2 * SLUICE_ANSWER_COUNT]; entry = bank * SLUICE_ANSWER_COUNT + code ----------------------------------------------------- */
struct sluice_answer_bytes {
	__u16 len;      /* 1..SLUICE_ANSWER_MAX, even */
	__u16 retry_at; /* offset of the four digits of Retry-After, even; 0 = none */
	__u32 sum; /* ones' complement sum of `bytes` as big-endian 16-bit words, folded, not inverted; digits counted as "0000" */
	__u16 short_len; /* the form for frames that cannot grow: status line, Location if it has one, and empty body */
	__u16 token_at; /* map "homes": offset of the token in Location, even, in both forms; 0 = none. It counts as zeros in the sums */
	__u32 short_sum;
	__u8 bytes[SLUICE_ANSWER_MAX];
	__u8 short_bytes[SLUICE_ANSWER_SHORT_MAX];
};

/* --- map "homes": array[2 * SLUICE_HOMES] of struct sluice_answer_bytes; entry = bank * SLUICE_HOMES + node, bank as of answer wrong_node ---------------
 * The answer to a token of that node: as in map "answers", with a Location into which the gate copies the token. `len` 0 = no such node is known:
 * the answer is that of map "answers", which has no Location; so it is where not even the short form has room. Written by the daemon.
 */
#define SLUICE_HOMES (SLUICE_NODES_MAX + 1)

/* --- map "counters": per-CPU array[(SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS]; row = service * SLUICE_REASON_ROWS + reason ------------------------
 * Service SLUICE_MAX_SERVICES is what is not protected. Map "calls": per-CPU array[SLUICE_REASON_ROWS] of __u64, verdicts of the call door.
 */
struct sluice_counter {
	__u64 packets;
	__u64 bytes;
};

/* --- map "shadow": per-CPU array[SLUICE_REASON_ROWS] of __u64; what would have been refused, by reason, wire and call door together ---------------- */

/* --- map "watch": array[1]; what verdicts to show. Written by the daemon, which sets SLUICE_CONTROL_WATCH after and clears it before ------------------ */
struct sluice_watch {
	__u64 reasons;           /* bit n: verdicts of reason n */
	__u64 until_mono;        /* a watcher that does not renew this is gone */
	struct sluice_addr mask; /* sources with (source & mask) == addr; all zero = every source */
	struct sluice_addr addr;
	__u32 threshold; /* a verdict is shown if a random 32-bit number is not greater: ~0 = all */
	__u32 pad;
};

/* --- map "events": BPF ring buffer of struct sluice_event; full: the event is lost, nothing else ---------------------------------------------------- */
struct sluice_event {
	__u64 mono;
	struct sluice_addr source;
	__u32 sale; /* of a token whose MAC was good; 0 = not known */
	__u32 bytes;
	__u32 threshold; /* of the watch, to tell how many verdicts this one stands for */
	__u16 sport;     /* host order; 0 at the call door */
	__u16 dport;
	__u8 reason;
	__u8 door; /* enum sluice_door */
	__u8 service;
	__u8 shadow; /* 1 = it would have been this, and went up (SLUICE_CONTROL_SHADOW_ALL) */
	__u32 pad;
};

/* --- the call door: context of the program "sluice_door" (BPF_PROG_TEST_RUN on a SEC("syscall") program) ------------------------------------------------ */
enum sluice_call_op {
	SLUICE_CALL_ORDER = 1, /* judge `token` */
	SLUICE_CALL_RATE = 2,  /* only charge the rates of `source` */
	/* What the ledger says of an order later; in: sale, buyer and quantity of `admission`. It is no verdict and is counted nowhere. */
	SLUICE_CALL_RELEASE = 3, /* it is over: its units are for sale again, and its buyer has them no more */
	SLUICE_CALL_RECLAIM = 4, /* it was over and is paid late: buyer and units are claimed anew, all or none */
};
#define SLUICE_CALL_CHARGE 1u /* flags: charge the source's rates too (a second request on a kept-alive connection) */
#define SLUICE_CALL_KEEP 2u   /* flags, op RELEASE: only the buyer's count; the units do not come back */
#define SLUICE_TOKEN_TEXT 64

struct sluice_call {
	__u32 op;
	__u32 flags;
	struct sluice_addr source;
	char token[SLUICE_TOKEN_TEXT];
	/* out */
	/* enum sluice_reason: ADMITTED, ADMITTED_AGAIN, REQUEST (op RATE: within the rates), or a refusal. Of RELEASE and RECLAIM: NONE = it is done. A
	 * door that knows neither says REQUEST.
	 */
	__u32 reason;
	__u32 retry_after_s;               /* 0 = none */
	__u64 serial;                      /* of the token, once its MAC was found good */
	struct sluice_admission admission; /* if ADMITTED or ADMITTED_AGAIN; of RELEASE and RECLAIM: in */
};

_Static_assert(sizeof(struct sluice_service) == 48, "abi");
_Static_assert(sizeof(struct sluice_limits) == 128, "abi");
_Static_assert(sizeof(struct sluice_control) == 128, "abi");
_Static_assert(sizeof(struct sluice_sale) == 64, "abi");
_Static_assert(sizeof(struct sluice_stock) == 128, "abi");
_Static_assert(sizeof(struct sluice_key) == 32, "abi");
_Static_assert(sizeof(struct sluice_admission) == 64, "abi");
_Static_assert(sizeof(struct sluice_admitted) == 72, "abi");
_Static_assert(sizeof(struct sluice_buyer_key) == 16, "abi");
_Static_assert(sizeof(struct sluice_issued) == 16, "abi");
_Static_assert(sizeof(struct sluice_rate) == 32, "abi");
_Static_assert(sizeof(struct sluice_watch) == 56, "abi");
_Static_assert(sizeof(struct sluice_event) == 48, "abi");
_Static_assert(sizeof(struct sluice_list_key) == 24, "abi");
_Static_assert(sizeof(struct sluice_list_entry) == 48, "abi");
_Static_assert(sizeof(struct sluice_denial) == 32, "abi");
_Static_assert(SLUICE_DENIALS_SLOTS == 1 << 18, "sluice_denial_slot");
_Static_assert(sizeof(struct sluice_answer_bytes) == 1312, "abi");
_Static_assert(sizeof(struct sluice_call) == 168, "abi");

#endif
