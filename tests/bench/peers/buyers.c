/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Buyers at a steady rate, on kernel sockets: one order every 1/RATE s, whatever became of the ones before (an open loop, so that a server that
 * stalls cannot slow the question down). goodput.py starts it in the clients' namespace. Each target is used once, each order has a connection and a
 * source address of its own. Prints one JSON object: how many were asked, how many got 200 or 201 within the patience, how long those took, and how
 * much of it was the handshake. A SYN that was lost costs its buyer a second, whoever stands behind; so those are counted, and what the others took
 * is also told without them.
 *
 *   buyers --to ADDR:PORT --from ADDR --sources N --targets FILE --rate R --seconds S --patience-ms N
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../tool.h"

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define TARGET_MAX 256
#define ORDERS_MAX 65536
#define EVENTS 256
#define STATUS_AT 9 /* "HTTP/1.1 201" */
#define HEAD_BYTES 12
#define SYN_AGAIN_US 990000 /* RFC 6298 section 2: the first wait for a SYN's answer is a second */

struct order {
	int fd;
	bool sent;
	unsigned got;
	uint64_t began_ns, connected_ns;
	char head[HEAD_BYTES + 1];
};

static struct {
	struct sockaddr_in to;
	uint32_t first_source, sources;
	double rate, seconds;
	uint64_t patience_ns;
	FILE *targets;
} load;

static struct order orders[ORDERS_MAX];
static unsigned asked, oldest;
static struct {
	unsigned good, refused, failed, late;
	unsigned last_status;
	unsigned again, once; /* of the good ones: whose SYN had to be sent again, and the others */
	uint32_t us[ORDERS_MAX], connect_us[ORDERS_MAX]; /* of the good ones */
	uint32_t once_us[ORDERS_MAX];                    /* of those others */
} seen;
static int epoll_fd;

static void finish(struct order *order, bool answered)
{
	unsigned status = answered ? (unsigned)atoi(order->head + STATUS_AT) : 0;

	close(order->fd);
	order->fd = -1;
	if (status == 200 || status == 201) {
		uint32_t us = (uint32_t)((time_mono_ns() - order->began_ns) / 1000);
		uint32_t connect_us = (uint32_t)((order->connected_ns - order->began_ns) / 1000);

		if (connect_us >= SYN_AGAIN_US)
			seen.again++;
		else
			seen.once_us[seen.once++] = us;
		seen.connect_us[seen.good] = connect_us;
		seen.us[seen.good++] = us;
	} else if (answered) {
		seen.refused++;
		seen.last_status = status;
	} else {
		seen.failed++;
	}
}

static void begin(void)
{
	struct sockaddr_in from = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(load.first_source + asked % load.sources)};
	struct order *order = &orders[asked];
	struct epoll_event event = {.events = EPOLLOUT, .data.u32 = asked};
	int one = 1;

	if (asked + 1 >= ORDERS_MAX)
		die("more than %d orders", ORDERS_MAX);
	asked++;
	order->began_ns = time_mono_ns();
	order->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (order->fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(order->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(order->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(order->fd, (struct sockaddr *)&from, sizeof(from)))
		die("bind: %s", strerror(errno));
	if (connect(order->fd, (struct sockaddr *)&load.to, sizeof(load.to)) && errno != EINPROGRESS)
		return finish(order, false);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, order->fd, &event))
		die("epoll_ctl: %s", strerror(errno));
}

static void ask(struct order *order)
{
	char target[TARGET_MAX], request[TARGET_MAX + 256];
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(order - orders)};
	int length;

	if (!fgets(target, sizeof(target), load.targets))
		die("the file of targets is at its end");
	target[strcspn(target, "\n")] = '\0';
	length = snprintf(request, sizeof(request),
		"POST %s HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", target);
	order->sent = true;
	order->connected_ns = time_mono_ns();
	if (send(order->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
		finish(order, false);
	else
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, order->fd, &event);
}

static void hear(struct order *order)
{
	char rest[2048];
	bool is_head = order->got < HEAD_BYTES;
	ssize_t n = recv(order->fd, is_head ? order->head + order->got : rest,
		is_head ? HEAD_BYTES - order->got : sizeof(rest), 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0 && is_head)
		order->got += (unsigned)n;
	if (n <= 0)
		finish(order, n == 0 && order->got == HEAD_BYTES);
}

static void give_up_late_ones(uint64_t now)
{
	for (; oldest < asked && (orders[oldest].fd < 0 || now > orders[oldest].began_ns + load.patience_ns); oldest++)
		if (orders[oldest].fd >= 0) {
			close(orders[oldest].fd);
			orders[oldest].fd = -1;
			seen.late++;
		}
}

static void run(void)
{
	struct epoll_event events[EVENTS];
	uint64_t began = time_mono_ns(), end = began + (uint64_t)(load.seconds * (double)NS_PER_S), now;

	while ((now = time_mono_ns()) < end + load.patience_ns && (now < end || oldest < asked)) {
		uint64_t next = began + (uint64_t)((double)asked * (double)NS_PER_S / load.rate);
		struct timespec rest = {.tv_sec = 0};
		int count;

		/* It sleeps until the next order is due: were it to look at the clock till then, it would keep the flood off their common CPU, and
		 * each order would find a quiet server.
		 */
		if (now < end && now >= next)
			begin();
		else
			rest.tv_nsec = (long)(now < end && next - now < NS_PER_MS ? next - now : NS_PER_MS);
		count = epoll_pwait2(epoll_fd, events, EVENTS, &rest, NULL);
		for (int i = 0; i < count; i++) {
			struct order *order = &orders[events[i].data.u32];

			if (order->fd < 0)
				continue;
			if (!order->sent && (events[i].events & EPOLLOUT) &&
				!(events[i].events & (EPOLLERR | EPOLLHUP)))
				ask(order);
			else if (!order->sent)
				finish(order, false);
			else
				hear(order);
		}
		give_up_late_ones(now);
	}
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"to", 1, NULL, 't'}, {"from", 1, NULL, 'f'}, {"sources", 1, NULL, 'n'},
		{"targets", 1, NULL, 'g'}, {"rate", 1, NULL, 'r'}, {"seconds", 1, NULL, 's'},
		{"patience-ms", 1, NULL, 'p'}, {0}};
	char *colon;
	int option;

	load.to.sin_family = AF_INET;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 't':
			colon = strchr(optarg, ':');
			if (!colon)
				die("--to: ADDR:PORT");
			load.to.sin_port = htons((uint16_t)atoi(colon + 1));
			*colon = '\0';
			if (inet_pton(AF_INET, optarg, &load.to.sin_addr) != 1)
				die("--to: no IPv4 address");
			break;
		case 'f':
			load.first_source = ntohl(inet_addr(optarg));
			break;
		case 'n':
			load.sources = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'g':
			load.targets = fopen(optarg, "re");
			break;
		case 'r':
			load.rate = strtod(optarg, NULL);
			break;
		case 's':
			load.seconds = strtod(optarg, NULL);
			break;
		case 'p':
			load.patience_ns = strtoull(optarg, NULL, 10) * NS_PER_MS;
			break;
		default:
			die("unknown option");
		}
	if (!load.to.sin_port || !load.sources || !load.targets || load.rate <= 0 || load.seconds <= 0 ||
		!load.patience_ns)
		die("--to, --from, --sources, --targets, --rate, --seconds and --patience-ms are needed");
}

int main(int argc, char **argv)
{
	struct sched_param real_time = {.sched_priority = 3};
	struct rlimit files = {.rlim_cur = ORDERS_MAX, .rlim_max = ORDERS_MAX};

	parse(argc, argv);
	/* The flood comes from the same CPU: what is measured is the server's patience, not this CPU's scheduler. */
	if (sched_setscheduler(0, SCHED_FIFO, &real_time))
		die("no real-time priority: %s", strerror(errno));
	if (setrlimit(RLIMIT_NOFILE, &files) && getrlimit(RLIMIT_NOFILE, &files))
		die("no files: %s", strerror(errno));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < ORDERS_MAX; i++)
		orders[i].fd = -1;
	run();
	give_up_late_ones(~0ULL >> 1);
	sort_us(seen.us, seen.good);
	sort_us(seen.once_us, seen.once);
	sort_us(seen.connect_us, seen.good);
	printf("{\"asked\": %u, \"good\": %u, \"refused\": %u, \"failed\": %u, \"late\": %u, \"last_status\": %u, \"p50_us\": %u, "
	       "\"p90_us\": %u, \"p99_us\": %u, \"max_us\": %u, \"syn_again\": %u, \"once_p99_us\": %u, \"connect_p50_us\": %u, "
	       "\"connect_p99_us\": %u}\n",
		asked, seen.good, seen.refused, seen.failed, seen.late, seen.last_status,
		percentile_us(seen.us, seen.good, 50), percentile_us(seen.us, seen.good, 90),
		percentile_us(seen.us, seen.good, 99), percentile_us(seen.us, seen.good, 100), seen.again,
		percentile_us(seen.once_us, seen.once, 99), percentile_us(seen.connect_us, seen.good, 50),
		percentile_us(seen.connect_us, seen.good, 99));
	return 0;
}
