/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The self-test of head room and tail; see probe.h. Frames are provoked by means that any network knows: an ICMPv6 echo to all nodes of
 * the link, and ARP requests to the gateway, to known neighbours and to the first addresses of the subnet.
 */
#include "cli/probe.h"

#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/image.h"
#include "common/timefmt.h"
#include "probe.skel.h"

#define WAIT_NS 500000000ULL
#define PROVOKE_EACH_NS 150000000ULL
#define POLL_US 5000
#define SETTLE_US 20000 /* after the first frame: a few more may come, of other sizes */
#define SWEEP_HOSTS_MAX 16

struct probe *probe_open(void)
{
	struct probe_bpf *skeleton = probe_bpf__open_and_load();

	if (!skeleton) {
		cli_say("cannot load the probe program: %s", strerror(errno));
		image_say_log();
	}
	return (struct probe *)skeleton;
}

void probe_close(struct probe *probe)
{
	probe_bpf__destroy((struct probe_bpf *)probe);
}

int probe_program_fd(const struct probe *probe)
{
	return bpf_program__fd(((const struct probe_bpf *)probe)->progs.sluice_probe);
}

/* Everything below is an attempt: what cannot be sent provokes nothing, and the result says "not seen". */
static void send_echo(const struct interface *interface)
{
	struct icmp6_hdr echo = {.icmp6_type = ICMP6_ECHO_REQUEST};
	struct sockaddr_in6 all_nodes = {.sin6_family = AF_INET6, .sin6_scope_id = interface->index};
	int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);

	if (fd < 0)
		return;
	inet_pton(AF_INET6, "ff02::1", &all_nodes.sin6_addr);
	sendto(fd, &echo, sizeof(echo), MSG_DONTWAIT, (struct sockaddr *)&all_nodes, sizeof(all_nodes));
	close(fd);
}

struct arp_sender {
	int fd;
	const struct interface *interface;
	uint8_t mac[ETH_ALEN];
	struct in_addr own;
};

static void send_arp(const struct arp_sender *sender, struct in_addr target)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ARP),
		.sll_ifindex = (int)sender->interface->index,
		.sll_halen = ETH_ALEN};
	struct ether_arp arp = {
		.ea_hdr = {.ar_hrd = htons(ARPHRD_ETHER),
			.ar_pro = htons(ETH_P_IP),
			.ar_hln = ETH_ALEN,
			.ar_pln = sizeof(target),
			.ar_op = htons(ARPOP_REQUEST)},
	};

	memset(to.sll_addr, 0xff, ETH_ALEN);
	memcpy(arp.arp_sha, sender->mac, ETH_ALEN);
	memcpy(arp.arp_spa, &sender->own, sizeof(sender->own));
	memcpy(arp.arp_tpa, &target, sizeof(target));
	sendto(sender->fd, &arp, sizeof(arp), MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to));
}

/* The gateways of the interface: /proc/net/route, "Iface Destination Gateway Flags …", addresses as hex in network order. */
static void ask_gateways(const struct arp_sender *sender)
{
	FILE *file = fopen("/proc/net/route", "re");
	char line[256], name[IF_NAMESIZE];
	unsigned destination, gateway;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%15s %x %x", name, &destination, &gateway) == 3 && gateway &&
			!strcmp(name, sender->interface->name))
			send_arp(sender, (struct in_addr){.s_addr = gateway});
	if (file)
		fclose(file);
}

/* Neighbours that the kernel knows: /proc/net/arp, "IP type flags MAC mask device". */
static void ask_neighbours(const struct arp_sender *sender)
{
	FILE *file = fopen("/proc/net/arp", "re");
	char line[256], text[INET_ADDRSTRLEN], name[IF_NAMESIZE];
	struct in_addr addr;
	int asked = 0;

	while (file && asked < SWEEP_HOSTS_MAX && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%15s %*s %*s %*s %*s %15s", text, name) != 2 || strcmp(name, sender->interface->name))
			continue;
		if (inet_pton(AF_INET, text, &addr) == 1) {
			send_arp(sender, addr);
			asked++;
		}
	}
	if (file)
		fclose(file);
}

static void ask_subnet(const struct arp_sender *sender, uint32_t mask)
{
	uint32_t own = ntohl(sender->own.s_addr), network = own & mask;

	for (uint32_t host = 1; host <= SWEEP_HOSTS_MAX && host < ~mask; host++)
		if ((network | host) != own)
			send_arp(sender, (struct in_addr){.s_addr = htonl(network | host)});
}

static void send_arps(const struct interface *interface)
{
	struct arp_sender sender = {.interface = interface};
	struct ifaddrs *addresses = NULL;
	struct ifreq request = {0};

	sender.fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ARP));
	if (sender.fd < 0)
		return;
	memcpy(request.ifr_name, interface->name, sizeof(interface->name));
	if (ioctl(sender.fd, SIOCGIFHWADDR, &request) < 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER ||
		getifaddrs(&addresses) < 0)
		goto out_close;
	memcpy(sender.mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
	for (const struct ifaddrs *a = addresses; a; a = a->ifa_next) {
		if (!a->ifa_addr || !a->ifa_netmask || a->ifa_addr->sa_family != AF_INET ||
			strcmp(a->ifa_name, interface->name))
			continue;
		sender.own = ((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr;
		ask_gateways(&sender);
		ask_neighbours(&sender);
		ask_subnet(&sender, ntohl(((const struct sockaddr_in *)(const void *)a->ifa_netmask)->sin_addr.s_addr));
	}
	freeifaddrs(addresses);
out_close:
	close(sender.fd);
}

void probe_run(struct probe *probe, const struct interface *interface, struct probe_result *result)
{
	volatile const struct probe_bpf__bss *seen = ((struct probe_bpf *)probe)->bss;
	uint64_t started = time_mono_ns(), provoke_at = started, now;
	unsigned shorts;

	for (now = started; !seen->probe_tried && now - started < WAIT_NS; now = time_mono_ns()) {
		if (now >= provoke_at) {
			send_echo(interface);
			send_arps(interface);
			provoke_at = now + PROVOKE_EACH_NS;
		}
		usleep(POLL_US);
	}
	if (seen->probe_tried)
		usleep(SETTLE_US);
	result->frames = seen->probe_tried;
	/* One success is enough: the gate falls back where a single frame cannot grow. But to the tail it goes first with a long answer, so that must be
	 * more than luck: room for any answer behind every short frame; or it is all there is. (`ample` is read last, so no frame that is under way makes it less.)
	 */
	result->head_grows = seen->probe_head_grew > 0;
	shorts = seen->probe_short;
	result->tail_grows = seen->probe_tail_grew > 0 && (!result->head_grows || seen->probe_tail_ample >= shorts);
}
