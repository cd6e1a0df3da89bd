/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Checks before attaching; see preflight.h. */
#include "cli/preflight.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/if_arp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/cli.h"

#define SYNCOOKIES_PATH "/proc/sys/net/ipv4/tcp_syncookies"
#define SYNCOOKIES_ALWAYS 2
/* What the kernel keeps free in the page of an XDP frame: XDP_PACKET_HEADROOM before it, and behind it struct skb_shared_info,
 * rounded to cache lines (320 bytes on 64-bit machines).
 */
#define XDP_HEADROOM_BYTES 256
#define XDP_TRAILER_BYTES 320
#define ETHERNET_BYTES 14

int preflight_privilege(void)
{
	static const struct {
		unsigned number;
		const char *name;
		bool in_sys_admin;
	} needed[] = {{CAP_NET_ADMIN, "CAP_NET_ADMIN", false}, {CAP_BPF, "CAP_BPF", true},
		{CAP_PERFMON, "CAP_PERFMON", true}};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
	uint64_t effective;

	if (syscall(SYS_capget, &header, data) < 0) {
		cli_say("cannot read this process's capabilities: %s", strerror(errno));
		return CLI_FAILED;
	}
	effective = data[0].effective | (uint64_t)data[1].effective << 32;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (effective >> needed[i].number & 1 || (needed[i].in_sys_admin && effective >> CAP_SYS_ADMIN & 1))
			continue;
		cli_say("not allowed: this needs root (%s is missing)", needed[i].name);
		return CLI_NOT_ALLOWED;
	}
	return CLI_OK;
}

int preflight_kernel(void)
{
	static const struct {
		enum bpf_func_id id;
		const char *name, *since;
	} helpers[] = {
		{BPF_FUNC_skc_lookup_tcp, "bpf_skc_lookup_tcp", "5.2"},
		{BPF_FUNC_sk_release, "bpf_sk_release", "4.20"},
		{BPF_FUNC_tcp_gen_syncookie, "bpf_tcp_gen_syncookie", "5.3"},
		{BPF_FUNC_tcp_raw_check_syncookie_ipv4, "bpf_tcp_raw_check_syncookie_ipv4", "6.0"},
		{BPF_FUNC_tcp_raw_check_syncookie_ipv6, "bpf_tcp_raw_check_syncookie_ipv6", "6.0"},
		{BPF_FUNC_xdp_load_bytes, "bpf_xdp_load_bytes", "5.18"},
		{BPF_FUNC_xdp_store_bytes, "bpf_xdp_store_bytes", "5.18"},
		{BPF_FUNC_xdp_adjust_head, "bpf_xdp_adjust_head", "4.10"},
		{BPF_FUNC_xdp_adjust_tail, "bpf_xdp_adjust_tail", "5.8"},
		{BPF_FUNC_loop, "bpf_loop", "5.17"},
		{BPF_FUNC_ringbuf_reserve, "bpf_ringbuf_reserve", "5.8"},
		{BPF_FUNC_ktime_get_ns, "bpf_ktime_get_ns", "4.1"},
		{BPF_FUNC_ktime_get_coarse_ns, "bpf_ktime_get_coarse_ns", "5.11"},
		{BPF_FUNC_jiffies64, "bpf_jiffies64", "5.6"},
	};
	struct utsname kernel = {0};
	int result = CLI_OK;

	uname(&kernel);
	/* A negative answer means that the question failed; then loading the gate will tell. */
	if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_XDP, NULL) == 0 ||
		libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SYSCALL, NULL) == 0) {
		cli_say("this kernel (%s) lacks BPF programs of type XDP or syscall: Linux 6.1 or newer is needed",
			kernel.release);
		result = CLI_FAILED;
	}
	if (libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, NULL) == 0) {
		cli_say("this kernel (%s) lacks BPF ring buffers: Linux 6.1 or newer is needed", kernel.release);
		result = CLI_FAILED;
	}
	for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
		if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_XDP, helpers[i].id, NULL) != 0)
			continue;
		cli_say("this kernel (%s) lacks %s, which the gate needs: Linux has it since %s", kernel.release,
			helpers[i].name, helpers[i].since);
		result = CLI_FAILED;
	}
	return result;
}

int preflight_interface(const char *name, struct interface *interface)
{
	struct ifreq request = {0};
	int fd, flags, hardware;

	memset(interface, 0, sizeof(*interface));
	if (strlen(name) >= sizeof(interface->name) || !(interface->index = if_nametoindex(name))) {
		cli_say("there is no interface \"%s\" in this network namespace", name);
		return CLI_NOT_FOUND;
	}
	snprintf(interface->name, sizeof(interface->name), "%s", name);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		cli_say("cannot ask for the state of %s: %s", name, strerror(errno));
		return CLI_FAILED;
	}
	memcpy(request.ifr_name, interface->name, sizeof(interface->name));
	flags = ioctl(fd, SIOCGIFFLAGS, &request) < 0 ? 0 : request.ifr_flags;
	interface->mtu = ioctl(fd, SIOCGIFMTU, &request) < 0 ? 0 : (unsigned)request.ifr_mtu;
	hardware = ioctl(fd, SIOCGIFHWADDR, &request) < 0 ? ARPHRD_VOID : request.ifr_hwaddr.sa_family;
	close(fd);
	/* Of a tunnel (wg0, tun0, ppp0) frames begin with the IP header, and the gate would take that for Ethernet. */
	if (hardware != ARPHRD_ETHER && hardware != ARPHRD_LOOPBACK) {
		cli_say("interface %s carries no Ethernet frames (hardware type %d), so the gate could read none of them: name the one where "
			"buyers' frames arrive with Ethernet headers",
			name, hardware);
		return CLI_FAILED;
	}
	if (!(flags & IFF_UP)) {
		cli_say("interface %s is down: ip link set dev %s up", name, name);
		return CLI_FAILED;
	}
	return CLI_OK;
}

unsigned preflight_mtu_max(void)
{
	return (unsigned)sysconf(_SC_PAGESIZE) - XDP_HEADROOM_BYTES - XDP_TRAILER_BYTES - ETHERNET_BYTES;
}

int preflight_mtu(const struct interface *interface)
{
	unsigned max = preflight_mtu_max();

	if (interface->mtu <= max)
		return CLI_OK;
	cli_say("the MTU of %s is %u, too large for XDP in native mode (one buffer a frame); the largest that works is %u: "
		"ip link set dev %s mtu %u, or attach with --mode generic, which copies such frames",
		interface->name, interface->mtu, max, interface->name, max);
	return CLI_FAILED;
}

static int read_syncookies(int *value)
{
	FILE *file = fopen(SYNCOOKIES_PATH, "re");
	int err = 0;

	if (!file)
		return -errno;
	if (fscanf(file, "%d", value) != 1)
		err = -EIO;
	fclose(file);
	return err;
}

static int write_syncookies(int value)
{
	FILE *file = fopen(SYNCOOKIES_PATH, "we");
	int err = 0;

	if (!file)
		return -errno;
	if (fprintf(file, "%d\n", value) < 0)
		err = -EIO;
	if (fclose(file) != 0)
		err = -errno;
	return err;
}

int preflight_syncookies(bool may_set, bool *changed, int *before)
{
	int err = read_syncookies(before);

	*changed = false;
	if (err) {
		cli_say("cannot read " SYNCOOKIES_PATH ": %s (a kernel without CONFIG_SYN_COOKIES cannot run the gate)",
			strerror(-err));
		return CLI_FAILED;
	}
	if (*before == SYNCOOKIES_ALWAYS)
		return CLI_OK;
	if (!may_set) {
		cli_say("net.ipv4.tcp_syncookies is %d in this network namespace and must be 2, or the kernel refuses the connections that the gate "
			"opens: sysctl -w net.ipv4.tcp_syncookies=2, or attach with --sysctl",
			*before);
		return CLI_FAILED;
	}
	err = write_syncookies(SYNCOOKIES_ALWAYS);
	if (err) {
		cli_say("cannot set net.ipv4.tcp_syncookies to 2: %s", strerror(-err));
		return err == -EACCES || err == -EPERM || err == -EROFS ? CLI_NOT_ALLOWED : CLI_FAILED;
	}
	*changed = true;
	cli_say("set net.ipv4.tcp_syncookies to 2 (it was %d)", *before);
	return CLI_OK;
}

void preflight_restore_syncookies(int before)
{
	int err = write_syncookies(before);

	if (err)
		cli_say("cannot set net.ipv4.tcp_syncookies back to %d: %s", before, strerror(-err));
}
