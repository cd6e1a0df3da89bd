/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bench only, never installed. The gate cut off after each of its stages (step_*), and single operations of the kernel that it is
 * made of (op_*): what one stage costs is the difference of two of these, measured on the frames of a real path.
 *
 * The stages are the gate's own source, and the bench gives this object the gate's maps. Whoever changes the order of stages in
 * gate.bpf.c changes it here.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "packet.h"
#include "maps.h"
#include "parse.h"
#include "lists.h"
#include "rate.h"
#include "handshake.h"
#include "request.h"
#include "judge.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* --- the chain, cut off ----------------------------------------------------------------------------------------------- */
static __always_inline int step_count(struct packet *pkt)
{
	__u32 row = pkt->service * SLUICE_REASON_ROWS;
	struct sluice_counter *counter = bpf_map_lookup_elem(&counters, &row);

	if (counter) {
		counter->packets++;
		counter->bytes += pkt->bytes;
	}
	return XDP_PASS;
}

SEC("xdp")
int step_0_parse(struct xdp_md *ctx)
{
	struct packet pkt = {};

	return parse_frame(ctx, &pkt) == SLUICE_REASON_NONE ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int step_1_lists(struct xdp_md *ctx)
{
	struct packet pkt = {};

	if (parse_frame(ctx, &pkt) != SLUICE_REASON_NONE || lists_check(&pkt, SLUICE_DOOR_WIRE))
		return XDP_DROP;
	return XDP_PASS;
}

static __always_inline int step_to_cookie(struct xdp_md *ctx, struct packet *pkt)
{
	if (parse_frame(ctx, pkt) != SLUICE_REASON_NONE || lists_check(pkt, SLUICE_DOOR_WIRE))
		return 0;
	return handshake_cookie_valid(ctx, pkt);
}

SEC("xdp")
int step_2_cookie(struct xdp_md *ctx)
{
	struct packet pkt = {};

	return step_to_cookie(ctx, &pkt) ? XDP_PASS : XDP_DROP;
}

static __always_inline int step_to_muted(struct xdp_md *ctx, struct packet *pkt, struct sluice_rate **bucket)
{
	if (!step_to_cookie(ctx, pkt))
		return 0;
	*bucket = rate_of_source(&pkt->source);
	return !rate_is_muted(*bucket);
}

SEC("xdp")
int step_3_muted(struct xdp_md *ctx)
{
	struct sluice_rate *bucket;
	struct packet pkt = {};

	return step_to_muted(ctx, &pkt, &bucket) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int step_4_socket(struct xdp_md *ctx)
{
	struct sluice_rate *bucket;
	struct packet pkt = {};

	if (!step_to_muted(ctx, &pkt, &bucket) || handshake_find_socket(ctx, &pkt) == SOCKET_CONNECTION)
		return XDP_DROP;
	return XDP_PASS;
}

static __always_inline int step_to_rates(struct xdp_md *ctx, struct packet *pkt)
{
	struct sluice_rate *bucket;

	if (!step_to_muted(ctx, pkt, &bucket) || handshake_find_socket(ctx, pkt) == SOCKET_CONNECTION)
		return 0;
	pkt->now = bpf_ktime_get_ns();
	return rate_check_request(&pkt->source, bucket, pkt->now, RATE_ANSWERS, &pkt->retry_after_s) ==
		SLUICE_REASON_NONE;
}

SEC("xdp")
int step_5_rates(struct xdp_md *ctx)
{
	struct packet pkt = {};

	return step_to_rates(ctx, &pkt) ? XDP_PASS : XDP_DROP;
}

static __always_inline int step_to_judge(struct xdp_md *ctx, struct packet *pkt, struct judge *judge)
{
	if (!step_to_rates(ctx, pkt))
		return 0;
	if (request_read(pkt, (void *)(long)ctx->data, (void *)(long)ctx->data_end, judge->text) != REQUEST_ORDER)
		return 0;
	judge->now = pkt->now;
	judge->door = SLUICE_DOOR_WIRE;
	judge->service = pkt->service;
	judge->admission.source = pkt->source;
	return 1;
}

SEC("xdp")
int step_6_token(struct xdp_md *ctx)
{
	struct packet pkt = {};
	struct judge judge = {};

	if (!step_to_judge(ctx, &pkt, &judge))
		return XDP_DROP;
	return judge_check_token(&judge) == SLUICE_REASON_NONE ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int step_7_judge(struct xdp_md *ctx)
{
	struct packet pkt = {};
	struct judge judge = {};

	if (!step_to_judge(ctx, &pkt, &judge))
		return XDP_DROP;
	return judge_decide(&judge) == SLUICE_REASON_NONE ? XDP_PASS : XDP_DROP;
}

/* --- single operations; each is subtracted from the empty program like everything else ------------------------------------ */
SEC("xdp")
int op_clock(struct xdp_md *ctx)
{
	(void)ctx;
	return bpf_ktime_get_ns() ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int op_coarse_clock(struct xdp_md *ctx)
{
	(void)ctx;
	return bpf_ktime_get_coarse_ns() ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int op_jiffies(struct xdp_md *ctx)
{
	(void)ctx;
	return bpf_jiffies64() ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int op_array(struct xdp_md *ctx)
{
	struct sluice_limits *lim = limits_get();

	(void)ctx;
	return lim && *(volatile __u64 *)&lim->limit[0].interval_ns ? XDP_PASS : XDP_DROP;
}

/* The counter row, as every packet's exit. */
SEC("xdp")
int op_counter(struct xdp_md *ctx)
{
	struct packet pkt = {};

	pkt.bytes = ctx->data_end - ctx->data;
	return step_count(&pkt);
}

/* The source of an IPv4 frame without tags. */
static __always_inline int op_source(struct xdp_md *ctx, struct sluice_addr *source)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > data_end)
		return -1;
	source->hi = 0;
	source->lo = 0xffff00000000ULL | bpf_ntohl(ip->saddr);
	return 0;
}

SEC("xdp")
int op_rate_hit(struct xdp_md *ctx)
{
	struct sluice_addr source;

	if (op_source(ctx, &source))
		return XDP_DROP;
	return rate_of_source(&source) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int op_rate_miss(struct xdp_md *ctx)
{
	struct sluice_rate_key key;
	struct sluice_addr source;

	if (op_source(ctx, &source))
		return XDP_DROP;
	rate_key_source(&key, &source);
	key.kind = SLUICE_RATE_TOKEN;
	return rate_find(&key) ? XDP_DROP : XDP_PASS;
}

__u64 op_serial = 1ULL << 62; /* of keys that nobody else makes */

SEC("xdp")
int op_rate_make(struct xdp_md *ctx)
{
	struct sluice_rate_key key = {.net = op_serial++, .kind = SLUICE_RATE_TOKEN};

	(void)ctx;
	return rate_make(&key, key.net) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int op_hash_insert_delete(struct xdp_md *ctx)
{
	struct sluice_admission admission = {};
	__u64 serial = op_serial++;

	(void)ctx;
	if (bpf_map_update_elem(&admissions, &serial, &admission, BPF_NOEXIST))
		return XDP_DROP;
	return bpf_map_delete_elem(&admissions, &serial) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int op_ring(struct xdp_md *ctx)
{
	struct sluice_admitted *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	(void)ctx;
	if (!record)
		return XDP_DROP;
	record->serial = 0;
	bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
	return XDP_PASS;
}

SEC("xdp")
int op_cookie_check(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct tcphdr *tcp = (void *)(ip + 1);

	if ((void *)(tcp + 1) > data_end)
		return XDP_DROP;
	return bpf_tcp_raw_check_syncookie_ipv4(ip, tcp) ? XDP_DROP : XDP_PASS;
}

static __always_inline struct bpf_sock *op_lookup(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct tcphdr *tcp = (void *)(ip + 1);
	struct bpf_sock_tuple tuple = {};

	if ((void *)(tcp + 1) > data_end)
		return NULL;
	tuple.ipv4.saddr = ip->saddr;
	tuple.ipv4.daddr = ip->daddr;
	tuple.ipv4.sport = tcp->source;
	tuple.ipv4.dport = tcp->dest;
	return bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

SEC("xdp")
int op_socket_lookup(struct xdp_md *ctx)
{
	struct bpf_sock *sk = op_lookup(ctx);

	if (!sk)
		return XDP_DROP;
	bpf_sk_release(sk);
	return XDP_PASS;
}

SEC("xdp")
int op_store_300(struct xdp_md *ctx)
{
	__u32 code = SLUICE_ANSWER_TOKEN_INVALID;
	struct sluice_answer_bytes *answer = bpf_map_lookup_elem(&answers, &code);

	return answer && !bpf_xdp_store_bytes(ctx, 0, answer->bytes, 300) ? XDP_PASS : XDP_DROP;
}

/* The wrapper undoes the next two, so each figure is of a pair. */
SEC("xdp")
int op_tail_16(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, -16) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int op_head_100(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -100) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int op_decode(struct xdp_md *ctx)
{
	struct sluice_token token;
	char text[SLUICE_TOKEN_TEXT] __attribute__((aligned(8)));

	/* After the headers of an IPv4 frame without options and "POST /v1/orders/". */
	if (bpf_xdp_load_bytes(ctx, 54 + REQUEST_PREFIX_LEN, text, sizeof(text)))
		return XDP_DROP;
	return sluice_token_decode(text, &token) || token.version != SLUICE_TOKEN_VERSION ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int op_siphash(struct xdp_md *ctx)
{
	__u64 words[5];

	if (bpf_xdp_load_bytes(ctx, 0, words, sizeof(words)))
		return XDP_DROP;
	return sluice_siphash_words(words, 5, 1, 2) ? XDP_PASS : XDP_DROP;
}
