/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A closed-loop HTTP client on kernel sockets: connect, request, answer, close, each conversation on a connection of its own, a fixed
 * number of them at a time. tests/bench/peers/run.py starts it in the clients' namespace, pinned to the clients' CPU, against every
 * server alike. It sends the same bytes to each of them, checks the status of every answer, and prints one JSON object.
 *
 *   conversations --to ADDR:PORT --from ADDR --sources N --targets FILE --open N --seconds S --expect STATUS [--once]
 *
 * --targets: request targets, one a line, taken in turn (--once: each once, then it ends). --expect 0: closed without an answer.
 * Sources are N consecutive addresses, taken in turn, so that one address's ports are never the limit.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tool.h"

#define TARGET_MAX 256
#define REQUEST_MAX 1024
#define EVENTS 256
#define NS_PER_S 1000000000ULL
#define NS_PER_US 1000ULL
#define STUCK_NS (3 * NS_PER_S)
#define STATUS_AT 9 /* "HTTP/1.1 409": where the digits are */
#define SAMPLES_MAX (1u << 22)

/* What a browser sends with a fetch() of its own page, about 320 bytes. */
static const char headers[] = " HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n"
			      "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
			      "Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nOrigin: http://shop.example\r\n\r\n";

struct conversation {
	int fd;
	bool sent;
	unsigned status, got;
	uint64_t began_ns;
	char head[16];
};

static struct {
	struct sockaddr_in to;
	uint32_t first_source, sources, next_source;
	char (*targets)[TARGET_MAX];
	size_t target_count, next_target;
	unsigned open, expect;
	double seconds;
	bool once;
} load;

static struct {
	uint64_t done, unexpected, failed, stuck;
	unsigned last_status;
	int last_error;
	uint32_t *us;
	size_t samples;
} seen;

static int epoll_fd;

static void close_conversation(struct conversation *c)
{
	if (c->fd >= 0)
		close(c->fd); /* leaves the epoll set with it */
	c->fd = -1;
}

/* Returns false if there is nothing left to ask. */
static bool start(struct conversation *c)
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	struct epoll_event event = {.events = EPOLLOUT | EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = c};
	int one = 1;

	if (load.once && load.next_target == load.target_count)
		return false;
	memset(c, 0, sizeof(*c));
	c->began_ns = time_mono_ns();
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("cannot make a socket: %s", strerror(errno));
	/* The port is chosen at connect(), by the whole 4-tuple. */
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	from.sin_addr.s_addr = htonl(load.first_source + load.next_source++ % load.sources);
	if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)))
		die("cannot bind to %s: %s", inet_ntoa(from.sin_addr), strerror(errno));
	if (connect(c->fd, (struct sockaddr *)&load.to, sizeof(load.to)) && errno != EINPROGRESS)
		die("cannot connect from %s: %s", inet_ntoa(from.sin_addr), strerror(errno));
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event))
		die("epoll_ctl: %s", strerror(errno));
	return true;
}

static void note(struct conversation *c)
{
	if (c->status != load.expect) {
		seen.unexpected++;
		seen.last_status = c->status;
		return;
	}
	seen.done++;
	if (seen.samples < SAMPLES_MAX)
		seen.us[seen.samples++] = (uint32_t)((time_mono_ns() - c->began_ns) / NS_PER_US);
}

static bool send_request(struct conversation *c)
{
	char request[REQUEST_MAX];
	int length = snprintf(
		request, sizeof(request), "POST %s%s", load.targets[load.next_target % load.target_count], headers);

	/* An empty socket buffer takes a request whole. */
	if (send(c->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
		return false;
	load.next_target++;
	c->sent = true;
	return true;
}

/* Reads until the other side has closed. Returns 1 then, 0 to wait, -1 on an error. */
static int receive(struct conversation *c)
{
	char buffer[4096];

	for (;;) {
		ssize_t n = recv(c->fd, buffer, sizeof(buffer), 0);

		if (n == 0)
			return 1;
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		if (c->got < sizeof(c->head)) {
			size_t part = sizeof(c->head) - c->got;

			memcpy(c->head + c->got, buffer, (size_t)n < part ? (size_t)n : part);
			if (c->got + (size_t)n >= STATUS_AT + 3)
				c->status = (unsigned)strtoul(c->head + STATUS_AT, NULL, 10);
		}
		c->got += (unsigned)n;
	}
}

/* Returns true if the conversation is over. */
static bool step(struct conversation *c, uint32_t events)
{
	int error = 0, end;
	socklen_t size = sizeof(error);

	if (!c->sent && events & EPOLLOUT) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (!error && !send_request(c))
			error = errno;
	}
	if (!error && !(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		return false;
	end = error ? -1 : receive(c);
	if (!end)
		return false;
	if (end > 0 || !load.expect) {
		note(c); /* a reset is a way to refuse without an answer */
	} else {
		seen.failed++;
		seen.last_error = error ? error : errno;
	}
	return true;
}

static void drop_stuck(struct conversation *all, uint64_t now)
{
	for (unsigned i = 0; i < load.open; i++)
		if (all[i].fd >= 0 && now - all[i].began_ns > STUCK_NS) {
			seen.stuck++;
			close_conversation(&all[i]);
			start(&all[i]);
		}
}

static void run(void)
{
	struct conversation *all = calloc(load.open, sizeof(*all));
	struct epoll_event events[EVENTS];
	uint64_t began = time_mono_ns(), end = began + (uint64_t)(load.seconds * NS_PER_S), checked = began,
		 now = began;
	unsigned running = 0;

	if (!all)
		die("no memory");
	for (unsigned i = 0; i < load.open; i++) {
		all[i].fd = -1;
		running += start(&all[i]);
	}
	while (running && now < end) {
		int n = epoll_wait(epoll_fd, events, EVENTS, 100);

		for (int i = 0; i < n; i++) {
			struct conversation *c = events[i].data.ptr;

			if (c->fd < 0 || !step(c, events[i].events))
				continue;
			close_conversation(c);
			if (!start(c))
				running--;
		}
		now = time_mono_ns();
		if (now - checked > NS_PER_S / 2) {
			drop_stuck(all, now);
			checked = now;
		}
	}
	sort_us(seen.us, seen.samples);
	printf("{\"seconds\":%.6f,\"done\":%llu,\"unexpected\":%llu,\"failed\":%llu,\"stuck\":%llu,\"last_status\":%u,"
	       "\"last_error\":\"%s\",\"p50_us\":%u,\"p99_us\":%u}\n",
		(double)(now - began) / NS_PER_S, (unsigned long long)seen.done, (unsigned long long)seen.unexpected,
		(unsigned long long)seen.failed, (unsigned long long)seen.stuck, seen.last_status,
		seen.last_error ? strerror(seen.last_error) : "", percentile_us(seen.us, seen.samples, 50),
		percentile_us(seen.us, seen.samples, 99));
	for (unsigned i = 0; i < load.open; i++)
		close_conversation(&all[i]);
	free(all);
}

static void read_targets(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[TARGET_MAX];
	size_t room = 0;

	if (!file)
		die("cannot read %s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (load.target_count == room) {
			room = room ? room * 2 : 1024;
			load.targets = realloc(load.targets, room * sizeof(*load.targets));
			if (!load.targets)
				die("no memory for %zu targets", room);
		}
		memcpy(load.targets[load.target_count++], line, sizeof(line));
	}
	fclose(file);
	if (!load.target_count)
		die("%s holds no target", path);
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"to", 1, NULL, 't'}, {"from", 1, NULL, 'f'}, {"sources", 1, NULL, 'n'},
		{"targets", 1, NULL, 'r'}, {"open", 1, NULL, 'o'}, {"seconds", 1, NULL, 's'}, {"expect", 1, NULL, 'e'},
		{"once", 0, NULL, '1'}, {NULL, 0, NULL, 0}};
	struct in_addr from;
	char *colon;
	int option;

	load.to.sin_family = AF_INET;
	load.sources = 1;
	load.open = 64;
	load.seconds = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 't':
			colon = strchr(optarg, ':');
			if (!colon)
				die("--to needs ADDR:PORT");
			*colon = '\0';
			if (inet_pton(AF_INET, optarg, &load.to.sin_addr) != 1)
				die("--to: %s is no IPv4 address", optarg);
			load.to.sin_port = htons((uint16_t)atoi(colon + 1));
			break;
		case 'f':
			if (inet_pton(AF_INET, optarg, &from) != 1)
				die("--from: %s is no IPv4 address", optarg);
			load.first_source = ntohl(from.s_addr);
			break;
		case 'n':
			load.sources = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'r':
			read_targets(optarg);
			break;
		case 'o':
			load.open = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			load.seconds = strtod(optarg, NULL);
			break;
		case 'e':
			load.expect = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case '1':
			load.once = true;
			break;
		default:
			exit(2);
		}
	}
	if (!load.to.sin_port || !load.first_source || !load.target_count || !load.open || !load.sources)
		die("needs --to, --from, --targets, --open and --sources above 0");
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	seen.us = malloc(SAMPLES_MAX * sizeof(*seen.us));
	if (epoll_fd < 0 || !seen.us)
		die("cannot start: %s", strerror(errno));
	run();
	free(seen.us);
	free(load.targets);
	return 0;
}
