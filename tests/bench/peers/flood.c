/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A flood of TCP SYNs from the addresses of a file, as dense as one CPU can send: BPF_PROG_RUN in live frame mode, which is what
 * xdp-trafficgen of xdp-tools does (that one knows one source and IPv6 only, and needs the kernel's tracepoints). run.py starts it in
 * the attackers' namespace, pinned to the attackers' CPU. Prints one JSON object.
 *
 *   flood OBJECT DEVICE DST_MAC DST_ADDR PORT SECONDS [RATE] < ADDRESSES
 *
 * With RATE (frames a second) each goes out when it is due; without, as fast as the CPU can. Frames that the device has no room for
 * are lost, and counted by nobody here: the receiver says what came.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "../tool.h"
#include "flood.h"

#define BATCH 64
#define ROUND 65536
#define NS_PER_S 1000000000ULL

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
	uint8_t mss[4];
} __attribute__((packed));
_Static_assert(sizeof(struct frame) == FLOOD_FRAME, "frame");

static void build_frame(struct frame *frame, const char *mac, const char *addr, const char *port)
{
	struct ether_addr to;

	memset(frame, 0, sizeof(*frame));
	if (!ether_aton_r(mac, &to))
		die("%s is no MAC address", mac);
	memcpy(frame->eth.h_dest, &to, ETH_ALEN);
	frame->eth.h_source[0] = 2; /* locally administered */
	frame->eth.h_proto = htons(ETH_P_IP);
	frame->ip.version = 4;
	frame->ip.ihl = 5;
	frame->ip.tot_len = htons(sizeof(*frame) - sizeof(frame->eth));
	frame->ip.frag_off = htons(0x4000);
	frame->ip.ttl = 64;
	frame->ip.protocol = IPPROTO_TCP;
	if (inet_pton(AF_INET, addr, &frame->ip.daddr) != 1)
		die("%s is no IPv4 address", addr);
	frame->tcp.source = htons(40000);
	frame->tcp.dest = htons((uint16_t)atoi(port));
	frame->tcp.doff = (sizeof(frame->tcp) + sizeof(frame->mss)) / 4;
	frame->tcp.syn = 1;
	frame->tcp.window = htons(65535);
	memcpy(frame->mss, "\x02\x04\x05\xb4", sizeof(frame->mss));
}

static uint32_t add_words(uint32_t sum, const void *bytes, size_t size)
{
	uint16_t word;

	for (size_t i = 0; i + sizeof(word) <= size; i += sizeof(word)) {
		memcpy(&word, (const char *)bytes + i, sizeof(word));
		sum += word;
	}
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* A kernel without a gate looks at the checksums of what comes from a wire, and drops what is wrong at no cost. */
static struct flood_source source_of(const struct frame *frame, uint32_t addr)
{
	const struct {
		uint32_t source, destination;
		uint16_t protocol, length;
	} pseudo = {addr, frame->ip.daddr, htons(IPPROTO_TCP), htons(sizeof(frame->tcp) + sizeof(frame->mss))};
	struct flood_source source = {.addr = addr};
	struct iphdr ip = frame->ip;
	uint32_t sum;

	ip.saddr = addr;
	source.ip_check = fold(add_words(0, &ip, sizeof(ip)));
	sum = add_words(0, &pseudo, sizeof(pseudo));
	source.tcp_check = fold(add_words(
		sum, (const char *)frame + offsetof(struct frame, tcp), sizeof(frame->tcp) + sizeof(frame->mss)));
	return source;
}

/* Returns how many sources there are. */
static uint32_t read_sources(const struct frame *frame, struct flood_source *sources)
{
	char line[64];
	uint32_t count = 0;

	while (count < FLOOD_SOURCES_MAX && fgets(line, sizeof(line), stdin)) {
		struct in_addr addr;

		line[strcspn(line, "\n")] = '\0';
		if (inet_pton(AF_INET, line, &addr) != 1)
			die("%s is no IPv4 address", line);
		sources[count++] = source_of(frame, addr.s_addr);
	}
	if (!count)
		die("no source addresses on standard input");
	return count;
}

static struct bpf_object *load(const char *path, unsigned ifindex, uint64_t interval_ns, const struct frame *frame,
	const struct flood_source *sources, uint32_t count)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_map *map, *rodata = NULL;
	struct flood_state state = {.due_ns = 0};
	const uint32_t zero = 0;
	const struct flood_config config = {.out_ifindex = ifindex, .sources = count, .interval_ns = interval_ns};

	if (!object)
		die("cannot open %s: %s", path, strerror(errno));
	bpf_object__for_each_map(map, object) if (strstr(bpf_map__name(map), ".rodata")) rodata = map;
	if (!rodata || bpf_map__set_initial_value(rodata, &config, sizeof(config)))
		die("%s is not the object that this program was built with", path);
	if (bpf_object__load(object))
		die("cannot load %s: %s", path, strerror(errno));
	memcpy(state.frame, frame, sizeof(state.frame));
	if (bpf_map_update_elem(bpf_map__fd(bpf_object__find_map_by_name(object, "state")), &zero, &state, BPF_ANY))
		die("cannot store the frame: %s", strerror(errno));
	map = bpf_object__find_map_by_name(object, "sources");
	for (uint32_t i = 0; i < count; i++)
		if (bpf_map_update_elem(bpf_map__fd(map), &i, &sources[i], BPF_ANY))
			die("cannot store source %u: %s", i, strerror(errno));
	return object;
}

/* Frames that were handed to the device. */
static uint64_t sent_by(struct bpf_object *object)
{
	struct flood_state state;
	const uint32_t zero = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(bpf_object__find_map_by_name(object, "state")), &zero, &state))
		die("cannot read how many frames were sent: %s", strerror(errno));
	return state.sent;
}

int main(int argc, char **argv)
{
	static struct flood_source sources[FLOOD_SOURCES_MAX];
	struct frame frame;
	struct xdp_md context = {.data_end = sizeof(frame)};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = &frame, .data_size_in = sizeof(frame), .ctx_in = &context,
		.ctx_size_in = sizeof(context), .repeat = ROUND, .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
		.batch_size = BATCH);
	struct bpf_object *object;
	unsigned ifindex;
	uint64_t began, end, now, sent = 0, interval_ns = 0;
	int fd;

	if (argc != 7 && argc != 8) {
		fputs("usage: flood OBJECT DEVICE DST_MAC DST_ADDR PORT SECONDS [RATE] < ADDRESSES\n", stderr);
		return 2;
	}
	if (argc == 8) {
		double rate = strtod(argv[7], NULL);

		if (rate < 1)
			die("%s is no rate of frames a second", argv[7]);
		interval_ns = (uint64_t)(NS_PER_S / rate);
	}
	ifindex = if_nametoindex(argv[2]);
	if (!ifindex)
		die("no device %s: %s", argv[2], strerror(errno));
	build_frame(&frame, argv[3], argv[4], argv[5]);
	object = load(argv[1], ifindex, interval_ns, &frame, sources, read_sources(&frame, sources));
	fd = bpf_program__fd(bpf_object__find_program_by_name(object, "flood"));
	began = now = time_mono_ns();
	end = began + (uint64_t)(strtod(argv[6], NULL) * NS_PER_S);
	while (now < end) {
		if (bpf_prog_test_run_opts(fd, &options))
			die("the kernel does not send live frames: %s", strerror(errno));
		now = time_mono_ns();
	}
	sent = sent_by(object);
	printf("{\"seconds\":%.6f,\"sent\":%llu}\n", (double)(now - began) / NS_PER_S, (unsigned long long)sent);
	bpf_object__close(object);
	return 0;
}
