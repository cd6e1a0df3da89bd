/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A crowd of HTTP clients without sockets, which sends what a client with a kernel sends, packet by packet: SYN; ACK and request;
 * ACK of the answer, FIN. `reply` sits on the clients' interface, makes the ACK out of the very frame that it got, and notes whose turn it is
 * to ask or to hang up. `feed`, which crowd.c runs in live frame mode, sends requests and FINs, and opens connections until as many are under
 * way as shall be; then it waits until half of them are over, so that both sides work on many frames at once. Nothing
 * is remembered of a conversation but its next turn, so one CPU holds some hundred thousand a second.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "crowd.h"

/* Frames leave by bpf_redirect() to the interface that they came from: with XDP_TX, veth wakes only a peer with an XDP program. */

#define HEADERS (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct tcphdr))
#define MSS_OPTION 4
#define FIRST_PORT 1024
#define PORTS 60000
#define LOOK_EVERY 256 /* turns without work between two looks at the clock */
#define STATUS_AT 9    /* "HTTP/1.1 409": where the digits are */

#define FIN 1
#define SYN 2
#define RST 4
#define PSH 8
#define ACK 16

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct crowd_config config;
struct crowd_seen seen;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* crowd.c: as many as there are requests */
	__type(key, __u32);
	__type(value, struct crowd_request);
} requests SEC(".maps");

/* Who asks or hangs up next. Full: the turn is lost, and the conversation stuck. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, CROWD_TURNS);
	__type(value, struct crowd_turn);
} turns SEC(".maps");

struct headers {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

typedef __u16 __attribute__((may_alias)) word;

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

/* Writes all headers anew. `length`: TCP payload, whose sum is `payload_sum`. `mss`: four bytes of options follow, summed up in it too. */
static __always_inline void write_headers(
	struct headers *h, const struct crowd_turn *turn, __u8 flags, bool mss, __u16 length, __u32 payload_sum)
{
	__u16 tcp_length = sizeof(struct tcphdr) + (mss ? MSS_OPTION : 0) + length;
	const word *words = (const word *)&h->ip;
	__u64 sum = 0;

	for (int i = 0; i < ETH_ALEN; i++) { /* volatile: no memcpy, which would take the zeros that the object holds */
		h->eth.h_dest[i] = config.server_mac[i];
		h->eth.h_source[i] = config.client_mac[i];
	}
	h->eth.h_proto = bpf_htons(ETH_P_IP);
	__builtin_memset(&h->ip, 0, sizeof(h->ip) + sizeof(h->tcp));
	h->ip.version = 4;
	h->ip.ihl = 5;
	h->ip.tot_len = bpf_htons(sizeof(h->ip) + tcp_length);
	h->ip.frag_off = bpf_htons(0x4000);
	h->ip.ttl = 64;
	h->ip.protocol = IPPROTO_TCP;
	h->ip.saddr = turn->source;
	h->ip.daddr = config.server;
	for (int i = 0; i < 10; i++)
		sum += words[i];
	h->ip.check = fold(sum);
	h->tcp.source = turn->port;
	h->tcp.dest = config.port;
	h->tcp.seq = bpf_htonl(turn->seq);
	h->tcp.ack_seq = bpf_htonl(turn->ack);
	h->tcp.doff = mss ? 6 : 5;
	((__u8 *)&h->tcp)[13] = flags;
	h->tcp.window = 0xffff;
	sum = payload_sum + (__u64)bpf_htons(tcp_length) + bpf_htons(IPPROTO_TCP);
	words = (const word *)&h->ip.saddr; /* both addresses and the TCP header, the pseudo header's rest */
	for (int i = 0; i < 14; i++)
		sum += words[i];
	h->tcp.check = fold(sum);
}

/* Whether another connection may be opened now. */
static __always_inline bool may_open(void)
{
	/* A server that sends its FIN again ends one conversation twice. */
	__u64 over = seen.done + seen.stuck, out = seen.started > over ? seen.started - over : 0, now;

	if (config.once && seen.started >= config.requests)
		seen.filling = 0;
	else if (!seen.filling && out <= config.open / 2)
		seen.filling = 1;
	else if (out >= config.open)
		seen.filling = 0;
	if (seen.filling)
		return true;
	if (seen.idle++ % LOOK_EVERY)
		return false;
	now = bpf_ktime_get_ns();
	if (seen.last_over != over || !seen.moved_ns) {
		seen.last_over = over;
		seen.moved_ns = now;
	} else if (out && now - seen.moved_ns > config.stuck_ns) {
		seen.stuck += out;
	}
	return false;
}

/* Cuts the frame to headers and `length` bytes more. Every frame here is long enough. Returns the headers, or NULL. */
static __always_inline struct headers *cut(struct xdp_md *ctx, __u32 length)
{
	long have = (long)ctx->data_end - (long)ctx->data;
	struct headers *h;

	/* Left alone, the compiler would subtract in 32 bits, which the verifier does not allow with packet pointers. */
	asm volatile("" : "+r"(have));
	if (bpf_xdp_adjust_tail(ctx, (int)((long)(HEADERS + length) - have)))
		return NULL;
	h = (void *)(long)ctx->data;
	return (void *)(h + 1) > (void *)(long)ctx->data_end ? NULL : h;
}

static __always_inline int ask(struct xdp_md *ctx, const struct crowd_turn *turn)
{
	__u32 index = config.requests ? seen.asked % config.requests : 0, length;
	struct crowd_request *request = bpf_map_lookup_elem(&requests, &index);
	struct headers *h;

	if (!request)
		return XDP_ABORTED;
	length = request->len;
	if (length == 0 || length > CROWD_REQUEST_MAX)
		return XDP_ABORTED;
	h = cut(ctx, length);
	if (!h)
		return XDP_ABORTED;
	write_headers(h, turn, PSH | ACK, false, length, request->sum);
	if (bpf_xdp_store_bytes(ctx, HEADERS, request->bytes, length))
		return XDP_ABORTED;
	seen.asked++;
	if (config.fire)
		seen.done++;
	return bpf_redirect(config.out_ifindex, 0);
}

static __always_inline int hang_up(struct xdp_md *ctx, const struct crowd_turn *turn)
{
	struct headers *h = cut(ctx, 0);

	if (!h)
		return XDP_ABORTED;
	write_headers(h, turn, FIN | ACK, false, 0, 0);
	return bpf_redirect(config.out_ifindex, 0);
}

static __always_inline int open_connection(struct xdp_md *ctx)
{
	__u64 n = config.first + seen.started;
	struct crowd_turn turn = {
		.source = bpf_htonl(config.first_source + n % config.sources),
		.port = bpf_htons(FIRST_PORT + n / config.sources % PORTS),
		.seq = n * 0x9e3779b1u,
	};
	struct headers *h = cut(ctx, MSS_OPTION);
	__u32 *mss = (__u32 *)(h + 1);

	if (!h || (void *)(mss + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*mss = bpf_htonl(0x020405b4); /* 1460 */
	write_headers(h, &turn, SYN, true, 0, fold((*mss & 0xffff) + (*mss >> 16)) ^ 0xffff);
	seen.started++;
	return bpf_redirect(config.out_ifindex, 0);
}

SEC("xdp")
int feed(struct xdp_md *ctx)
{
	struct crowd_turn turn;

	if (!bpf_map_pop_elem(&turns, &turn))
		return turn.kind == CROWD_ASK ? ask(ctx, &turn) : hang_up(ctx, &turn);
	return may_open() ? open_connection(ctx) : XDP_DROP;
}

/* The status line's number, 0 if there is none. */
static __always_inline __u32 status_of(const __u8 *payload, void *end)
{
	if ((void *)(payload + STATUS_AT + 3) > end)
		return 0;
	return (payload[STATUS_AT] - '0') * 100 + (payload[STATUS_AT + 1] - '0') * 10 + (payload[STATUS_AT + 2] - '0');
}

static __always_inline void note(__u32 status)
{
	if (status != config.expect)
		seen.unexpected++;
	seen.last_status = status;
}

SEC("xdp")
int reply(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct headers *h = data;
	struct crowd_turn turn;
	__u32 length, header;
	__u8 flags;

	if ((void *)(h + 1) > end || h->eth.h_proto != bpf_htons(ETH_P_IP) || h->ip.protocol != IPPROTO_TCP ||
		h->ip.ihl != 5 || h->tcp.source != config.port)
		return XDP_PASS;
	if (bpf_ntohl(h->ip.daddr) - config.first_source >= config.sources)
		return XDP_PASS; /* for a client with a kernel, beside the crowd */
	flags = ((__u8 *)&h->tcp)[13];
	header = h->tcp.doff * 4;
	length = (bpf_ntohs(h->ip.tot_len) - sizeof(h->ip) - header) & 0xffff;
	turn = (struct crowd_turn){.source = h->ip.daddr,
		.port = h->tcp.dest,
		.kind = flags & SYN ? CROWD_ASK : CROWD_HANG_UP,
		.seq = bpf_ntohl(h->tcp.ack_seq),
		.ack = bpf_ntohl(h->tcp.seq) + length + (flags & (SYN | FIN) ? 1 : 0)};
	if (flags & RST) {
		seen.resets++;
		if (!config.expect && !config.fire)
			seen.done++;
		return XDP_DROP;
	}
	if (length && !config.fire)
		note(status_of((void *)&h->tcp + (header & 0x3c), end));
	if (!(flags & (SYN | FIN)))
		return XDP_DROP;
	h = cut(ctx, 0);
	if (!h || bpf_map_push_elem(&turns, &turn, 0))
		return XDP_ABORTED;
	write_headers(h, &turn, ACK, false, 0, 0);
	if (flags & FIN && !config.fire)
		seen.done++;
	return bpf_redirect(config.out_ifindex, 0);
}
