/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The spoofed SYNs of the drill: what a flood looks like that no handshake will ever prove real. See spoof.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drill/spoof.h"

#define MSS_OPTION_BYTES 4
#define TCP_BYTES (sizeof(struct tcphdr) + MSS_OPTION_BYTES)
#define SPOOF_TTL 64
#define SPOOF_WINDOW 64240

/* RFC 1071. */
static uint32_t sum_words(const void *bytes, size_t count, uint32_t sum)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i + 1 < count; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void put_tcp(uint8_t *at, in_port_t from, in_port_t to, uint32_t sequence, uint16_t mss, uint32_t pseudo_sum)
{
	const uint8_t option[MSS_OPTION_BYTES] = {TCPOPT_MAXSEG, TCPOLEN_MAXSEG, (uint8_t)(mss >> 8), (uint8_t)mss};
	struct tcphdr tcp = {
		.source = from,
		.dest = to,
		.seq = htonl(sequence),
		.doff = TCP_BYTES / 4,
		.syn = 1,
		.window = htons(SPOOF_WINDOW),
	};

	memcpy(at, &tcp, sizeof(tcp));
	memcpy(at + sizeof(tcp), option, sizeof(option));
	tcp.check = fold(sum_words(at, TCP_BYTES, pseudo_sum + IPPROTO_TCP + (uint32_t)TCP_BYTES));
	memcpy(at, &tcp, sizeof(tcp));
}

size_t drill_spoof_frame(uint8_t *frame, const uint8_t to_mac[6], const uint8_t from_mac[6],
	const union drill_address *from, const union drill_address *to, uint32_t sequence)
{
	struct ethhdr eth = {0};
	uint8_t *at = frame + sizeof(eth);
	uint32_t sum;

	memcpy(eth.h_dest, to_mac, ETH_ALEN);
	memcpy(eth.h_source, from_mac, ETH_ALEN);
	if (from->any.sa_family == AF_INET) {
		struct iphdr ip = {
			.version = 4,
			.ihl = 5,
			.tot_len = htons((uint16_t)(sizeof(ip) + TCP_BYTES)),
			.id = htons((uint16_t)sequence),
			.ttl = SPOOF_TTL,
			.protocol = IPPROTO_TCP,
			.saddr = from->v4.sin_addr.s_addr,
			.daddr = to->v4.sin_addr.s_addr,
		};

		eth.h_proto = htons(ETH_P_IP);
		ip.check = fold(sum_words(&ip, sizeof(ip), 0));
		sum = sum_words(&ip.saddr, 4, sum_words(&ip.daddr, 4, 0));
		memcpy(at, &ip, sizeof(ip));
		at += sizeof(ip);
		put_tcp(at, from->v4.sin_port, to->v4.sin_port, sequence, 1460, sum);
	} else {
		struct ip6_hdr ip = {0};

		eth.h_proto = htons(ETH_P_IPV6);
		ip.ip6_flow = htonl(6u << 28);
		ip.ip6_plen = htons(TCP_BYTES);
		ip.ip6_nxt = IPPROTO_TCP;
		ip.ip6_hlim = SPOOF_TTL;
		ip.ip6_src = from->v6.sin6_addr;
		ip.ip6_dst = to->v6.sin6_addr;
		sum = sum_words(&ip.ip6_src, 16, sum_words(&ip.ip6_dst, 16, 0));
		memcpy(at, &ip, sizeof(ip));
		at += sizeof(ip);
		put_tcp(at, from->v6.sin6_port, to->v6.sin6_port, sequence, 1440, sum);
	}
	memcpy(frame, &eth, sizeof(eth));
	return (size_t)(at - frame) + TCP_BYTES;
}

int drill_spoof_open(const char *interface)
{
	struct sockaddr_ll where = {.sll_family = AF_PACKET};
	int fd, err;

	where.sll_ifindex = (int)if_nametoindex(interface);
	if (!where.sll_ifindex)
		return -errno;
	/* protocol 0: send only, nothing is queued for reading */
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&where, sizeof(where))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int drill_spoof_send(int fd, const uint8_t *frame, size_t length)
{
	if (send(fd, frame, length, MSG_DONTWAIT) == (ssize_t)length)
		return 0;
	return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
}
