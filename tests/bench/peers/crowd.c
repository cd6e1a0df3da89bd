/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Drives the crowd without sockets (crowd.bpf.c): holds a fixed number of HTTP conversations at a time with a server, from one CPU, at a
 * rate that no client on sockets reaches. run.py starts it in the clients' namespace. Its program takes the place of the one on
 * DEVICE, and goes with it. Prints one JSON object.
 *
 *   crowd --object FILE --device NAME --mac SERVER_MAC --to ADDR:PORT --from ADDR --sources N --targets FILE --open N --seconds S
 *         --expect STATUS [--once] [--fire] [--stuck-ms N]
 *
 * --once: each target once, then it ends. --fire: expect no answer; a conversation is over when the request is sent.
 * Conversations of which none went on for --stuck-ms (250) are given up, all at once, and counted: until then their places are taken, and
 * nothing new begins. So as many as are open must find room in the receiver's ring, or what it loses stops the crowd.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "../tool.h"
#include "crowd.h"

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define LONGEST_FRAME (14 + 20 + 20 + CROWD_REQUEST_MAX) /* each is cut to what is sent */
#define BATCH 64u
#define LOOK_EVERY_US 100000
#define LINE_MAX_BYTES 160
#define STUCK_MS 250
#define STORE_AT_ONCE 1024u

static const char headers[] = " HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

static struct {
	struct crowd_config config;
	const char *object, *device;
	struct crowd_request *requests;
	double seconds;
} load;

static void make_request(struct crowd_request *request, const char *target)
{
	uint16_t word;
	int length;

	memset(request, 0, sizeof(*request));
	length = snprintf((char *)request->bytes, sizeof(request->bytes), "POST %s%s", target, headers);
	if (length < 0 || (size_t)length >= sizeof(request->bytes))
		die("the target %s is too long", target);
	request->len = (uint16_t)length;
	for (size_t i = 0; i < sizeof(request->bytes); i += sizeof(word)) {
		memcpy(&word, request->bytes + i, sizeof(word));
		request->sum += word;
	}
	request->sum = (request->sum & 0xffff) + (request->sum >> 16);
}

static void read_targets(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[LINE_MAX_BYTES];
	size_t room = 0;

	if (!file)
		die("cannot read %s: %s", path, strerror(errno));
	while (load.config.requests < CROWD_REQUESTS_MAX && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (load.config.requests == room) {
			room = room ? room * 2 : STORE_AT_ONCE;
			load.requests = realloc(load.requests, room * sizeof(*load.requests));
			if (!load.requests)
				die("no memory for %zu requests", room);
		}
		make_request(&load.requests[load.config.requests++], line);
	}
	fclose(file);
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"object", 1, NULL, 'b'}, {"device", 1, NULL, 'd'},
		{"mac", 1, NULL, 'm'}, {"to", 1, NULL, 't'}, {"from", 1, NULL, 'f'}, {"sources", 1, NULL, 'n'},
		{"targets", 1, NULL, 'r'}, {"open", 1, NULL, 'o'}, {"seconds", 1, NULL, 's'}, {"expect", 1, NULL, 'e'},
		{"once", 0, NULL, '1'}, {"fire", 0, NULL, 'F'}, {"stuck-ms", 1, NULL, 'S'}, {NULL, 0, NULL, 0}};
	struct crowd_config *config = &load.config;
	struct ether_addr mac;
	struct in_addr from;
	char *colon;
	int option;

	config->stuck_ns = STUCK_MS * NS_PER_MS;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'b':
			load.object = optarg;
			break;
		case 'd':
			load.device = optarg;
			break;
		case 'm':
			if (!ether_aton_r(optarg, &mac))
				die("--mac: %s is no MAC address", optarg);
			memcpy(config->server_mac, &mac, sizeof(config->server_mac));
			break;
		case 't':
			colon = strchr(optarg, ':');
			if (!colon)
				die("--to needs ADDR:PORT");
			*colon = '\0';
			if (inet_pton(AF_INET, optarg, &config->server) != 1)
				die("--to: %s is no IPv4 address", optarg);
			config->port = htons((uint16_t)atoi(colon + 1));
			break;
		case 'f':
			if (inet_pton(AF_INET, optarg, &from) != 1)
				die("--from: %s is no IPv4 address", optarg);
			config->first_source = ntohl(from.s_addr);
			break;
		case 'n':
			config->sources = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'r':
			read_targets(optarg);
			break;
		case 'o':
			config->open = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 's':
			load.seconds = strtod(optarg, NULL);
			break;
		case 'e':
			config->expect = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		case '1':
			config->once = 1;
			break;
		case 'F':
			config->fire = 1;
			break;
		case 'S':
			config->stuck_ns = strtoull(optarg, NULL, 10) * NS_PER_MS;
			break;
		default:
			exit(2);
		}
	}
	if (!load.object || !load.device || !config->port || !config->first_source || !config->sources ||
		!config->requests || !config->open || !config->stuck_ns || load.seconds <= 0)
		die("every option but --once, --fire and --stuck-ms is needed, and --expect");
}

static void know_device(void)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	load.config.out_ifindex = if_nametoindex(load.device);
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", load.device);
	if (!load.config.out_ifindex || fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request))
		die("no device %s: %s", load.device, strerror(errno));
	memcpy(load.config.client_mac, request.ifr_hwaddr.sa_data, sizeof(load.config.client_mac));
	close(fd);
}

static struct bpf_object *load_programs(void)
{
	struct bpf_object *object = bpf_object__open_file(load.object, NULL);
	struct bpf_map *map, *rodata = NULL;

	if (!object)
		die("cannot open %s: %s", load.object, strerror(errno));
	bpf_object__for_each_map(map, object) if (strstr(bpf_map__name(map), ".rodata")) rodata = map;
	if (!rodata || bpf_map__set_initial_value(rodata, &load.config, sizeof(load.config)))
		die("%s is not the object that this program was built with", load.object);
	map = bpf_object__find_map_by_name(object, "requests");
	if (!map || bpf_map__set_max_entries(map, load.config.requests) || bpf_object__load(object))
		die("cannot load %s: %s", load.object, strerror(errno));
	for (uint32_t i = 0; i < load.config.requests; i++)
		if (bpf_map_update_elem(bpf_map__fd(map), &i, &load.requests[i], BPF_ANY))
			die("cannot store request %u: %s", i, strerror(errno));
	return object;
}

static int program_of(struct bpf_object *object, const char *name)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object, name);

	if (!program)
		die("%s has no program %s", load.object, name);
	return bpf_program__fd(program);
}

static volatile struct crowd_seen *seen_of(struct bpf_object *object)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, object) if (strstr(bpf_map__name(map), ".bss"))
	{
		void *words =
			mmap(NULL, (size_t)getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

		if (words != MAP_FAILED)
			return words;
	}
	die("cannot map what the programs have seen: %s", strerror(errno));
}

static void on_alarm(int signal)
{
	(void)signal; /* interrupts feed() */
}

/* The program decides which of the frames that it is fed become connections; a signal ends the feeding. To set feeding up takes the
 * kernel milliseconds, so it is done once.
 */
static void feed(int fd)
{
	static unsigned char frame[LONGEST_FRAME];
	struct xdp_md context = {.data_end = sizeof(frame)};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = sizeof(frame), .ctx_in = &context,
		.ctx_size_in = sizeof(context), .repeat = INT_MAX, .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
		.batch_size = BATCH);

	if (bpf_prog_test_run_opts(fd, &options) && errno != EINTR)
		die("the kernel does not send live frames: %s", strerror(errno));
}

static void run(int fd, volatile struct crowd_seen *seen)
{
	const struct itimerval every = {.it_interval.tv_usec = LOOK_EVERY_US, .it_value.tv_usec = LOOK_EVERY_US};
	uint64_t began = time_mono_ns(), end = began + (uint64_t)(load.seconds * NS_PER_S), now = began;

	signal(SIGALRM, on_alarm);
	if (setitimer(ITIMER_REAL, &every, NULL))
		die("no timer: %s", strerror(errno));
	while (now < end) {
		if (load.config.once && seen->done + seen->stuck >= load.config.requests)
			break;
		feed(fd);
		now = time_mono_ns();
	}
	printf("{\"seconds\":%.6f,\"started\":%llu,\"asked\":%llu,\"done\":%llu,\"unexpected\":%llu,\"resets\":%llu,"
	       "\"stuck\":%llu,\"last_status\":%llu}\n",
		(double)(now - began) / NS_PER_S, (unsigned long long)seen->started, (unsigned long long)seen->asked,
		(unsigned long long)(seen->done < seen->asked ? seen->done : seen->asked),
		(unsigned long long)seen->unexpected, (unsigned long long)seen->resets, (unsigned long long)seen->stuck,
		(unsigned long long)seen->last_status);
}

int main(int argc, char **argv)
{
	struct bpf_object *object;
	uint32_t before = 0;
	int err, before_fd;

	parse(argc, argv);
	if (getrandom(&load.config.first, sizeof(load.config.first), 0) < 0)
		die("no random number: %s", strerror(errno));
	know_device();
	object = load_programs();
	if (bpf_xdp_query_id((int)load.config.out_ifindex, XDP_FLAGS_DRV_MODE, &before))
		before = 0;
	before_fd = before ? bpf_prog_get_fd_by_id(before) : -1; /* held, or it would be gone once replaced */
	err = bpf_xdp_attach((int)load.config.out_ifindex, program_of(object, "reply"), XDP_FLAGS_DRV_MODE, NULL);
	if (err)
		die("cannot attach to %s: %s", load.device, strerror(-err));
	run(program_of(object, "feed"), seen_of(object));
	bpf_xdp_attach((int)load.config.out_ifindex, before_fd, XDP_FLAGS_DRV_MODE, NULL);
	bpf_object__close(object);
	free(load.requests);
	return 0;
}
