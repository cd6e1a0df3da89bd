/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A crowd of HTTP clients without sockets: what a client would send next is made out of the very frame that it got, so nothing has to
 * be remembered, and a client's turn costs a fraction of a microsecond. `syn` opens connections (crowd.c feeds it, in live frame mode)
 * until as many are under way as shall be, then waits until half of them are over, so that both sides work on many frames at once. `reply` sits on the clients' interface and goes on from the server's SYN-ACK (its request, with the handshake's
 * ACK) and from its FIN (ACK and FIN). A client with a kernel sends two bare ACKs more; docs/peers.md says what that means.
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
#define FIRST_PORT 1024
#define PORTS 60000
#define LOOK_EVERY 256 /* turns without work between two looks at the clock */
#define STATUS_AT 9    /* "HTTP/1.1 409": where the digits are */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct crowd_config config;
struct crowd_seen seen;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* crowd.c: as many as there are requests */
	__type(key, __u32);
	__type(value, struct crowd_request);
} requests SEC(".maps");

struct headers {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

/* Who talks to whom, from the client's side; addresses and ports in network byte order, numbers in host order. */
struct flow {
	__u32 source;
	__u16 port;
	__u32 seq, ack;
};

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
	struct headers *h, const struct flow *flow, __u8 flags, bool mss, __u16 length, __u32 payload_sum)
{
	__u16 tcp_length = sizeof(struct tcphdr) + (mss ? 4 : 0) + length;
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
	h->ip.saddr = flow->source;
	h->ip.daddr = config.server;
	for (int i = 0; i < 10; i++)
		sum += words[i];
	h->ip.check = fold(sum);
	h->tcp.source = flow->port;
	h->tcp.dest = config.port;
	h->tcp.seq = bpf_htonl(flow->seq);
	h->tcp.ack_seq = bpf_htonl(flow->ack);
	h->tcp.doff = mss ? 6 : 5;
	((__u8 *)&h->tcp)[13] = flags;
	h->tcp.window = 0xffff;
	sum = payload_sum + (__u64)bpf_htons(tcp_length) + bpf_htons(IPPROTO_TCP);
	words = (const word *)&h->ip.saddr; /* both addresses and the TCP header, the pseudo header's rest */
	for (int i = 0; i < 14; i++)
		sum += words[i];
	h->tcp.check = fold(sum);
}

#define FIN 1
#define SYN 2
#define RST 4
#define PSH 8
#define ACK 16

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
	} else if (out && now - seen.moved_ns > CROWD_STUCK_NS) {
		seen.stuck += out;
	}
	return false;
}

SEC("xdp")
int syn(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct headers *h = data;
	__u32 *mss = (__u32 *)(h + 1);
	__u64 n = config.first + seen.started;
	struct flow flow = {
		.source = bpf_htonl(config.first_source + n % config.sources),
		.port = bpf_htons(FIRST_PORT + n / config.sources % PORTS),
		.seq = n * 0x9e3779b1u,
	};

	if ((void *)(mss + 1) > end)
		return XDP_ABORTED;
	if (!may_open())
		return XDP_DROP;
	*mss = bpf_htonl(0x020405b4); /* 1460 */
	write_headers(h, &flow, SYN, true, 0, fold((*mss & 0xffff) + (*mss >> 16)) ^ 0xffff);
	seen.started++;
	return bpf_redirect(config.out_ifindex, 0);
}

/* Makes the frame `want` bytes long, its headers at the front. Frames of the sender's own pages have room behind them, those that a
 * kernel sent have it before them.
 */
static __always_inline int resize(struct xdp_md *ctx, int want)
{
	int more = want - (int)(ctx->data_end - ctx->data);

	if (!more || !bpf_xdp_adjust_tail(ctx, more))
		return 0;
	return more > 0 ? bpf_xdp_adjust_head(ctx, -more) : -1;
}

static __always_inline int ask(struct xdp_md *ctx, const struct flow *flow)
{
	__u32 index = config.requests ? seen.asked % config.requests : 0, length;
	struct crowd_request *request = bpf_map_lookup_elem(&requests, &index);
	struct headers *h;

	if (!request)
		return XDP_ABORTED;
	length = request->len;
	if (length == 0 || length > CROWD_REQUEST_MAX)
		return XDP_ABORTED;
	if (resize(ctx, HEADERS + length)) {
		seen.cannot_grow++;
		return XDP_DROP;
	}
	h = (void *)(long)ctx->data;
	if ((void *)(h + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	write_headers(h, flow, PSH | ACK, false, length, request->sum);
	if (bpf_xdp_store_bytes(ctx, HEADERS, request->bytes, length))
		return XDP_ABORTED;
	seen.asked++;
	if (config.fire)
		seen.done++;
	return bpf_redirect(config.out_ifindex, 0);
}

static __always_inline int hang_up(struct xdp_md *ctx, const struct flow *flow)
{
	struct headers *h;

	if (resize(ctx, HEADERS))
		return XDP_ABORTED;
	h = (void *)(long)ctx->data;
	if ((void *)(h + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	write_headers(h, flow, FIN | ACK, false, 0, 0);
	return bpf_redirect(config.out_ifindex, 0);
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
	__u32 length, header;
	struct flow flow;
	__u8 flags;

	if ((void *)(h + 1) > end || h->eth.h_proto != bpf_htons(ETH_P_IP) || h->ip.protocol != IPPROTO_TCP ||
		h->ip.ihl != 5 || h->tcp.source != config.port)
		return XDP_PASS;
	flags = ((__u8 *)&h->tcp)[13];
	header = h->tcp.doff * 4;
	length = bpf_ntohs(h->ip.tot_len) - sizeof(h->ip) - header;
	flow = (struct flow){.source = h->ip.daddr,
		.port = h->tcp.dest,
		.seq = bpf_ntohl(h->tcp.ack_seq),
		.ack = bpf_ntohl(h->tcp.seq) + (length & 0xffff) + (flags & (SYN | FIN) ? 1 : 0)};
	if (flags & RST) {
		seen.resets++;
		if (!config.expect)
			seen.done++;
		return XDP_DROP;
	}
	if (flags & SYN)
		return ask(ctx, &flow);
	if (length & 0xffff)
		note(status_of((void *)&h->tcp + (header & 0x3c), end));
	if (!(flags & FIN))
		return XDP_DROP;
	seen.done++;
	return hang_up(ctx, &flow);
}
