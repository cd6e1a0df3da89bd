/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Buyers of a sale on several nodes, on kernel sockets: each gets a token at its node (POST …/tokens) and orders with it, a connection for each
 * request. The bench of the fleet starts it in the clients' namespace. Prints one JSON object at its end.
 *
 *   crowd --node ADDR:PORT[*WEIGHT] [--node …] --sale SLUG --from ADDR --sources N --buyers N --tokens before|during
 *         (--rate R | --open N) [--burst N] --seconds S [--wait]
 *
 * --rate: an open loop; a buyer comes every 1/R s, whatever became of the ones before, and the first --burst of them come at once. --open: a closed
 * loop; so many buyers at a time. --tokens before: all have their tokens when the sale begins; it then prints "ready" and, with --wait, waits for a
 * line on its standard input. Who is told to come again (503) comes after what Retry-After says; who is sent to another node (421) goes there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tool.h"

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define NODES_MAX 16
#define OPEN_MAX 2048  /* connections of an open loop */
#define TOKENS_OPEN 48 /* while tokens are fetched ahead */
#define BUYERS_MAX 1000000
#define TOKEN_MAX 80
#define ANSWER_MAX 4096
#define EVENTS 256
#define STUCK_NS (5 * NS_PER_S)
#define AFTER_NS (4 * NS_PER_S) /* so long those are waited for who came in time */
#define BIN_NS (100 * NS_PER_MS)
#define BINS_MAX 6000
#define STATUS_AT 9 /* "HTTP/1.1 201" */
#define STATUSES 600

struct buyer {
	uint64_t due_ns;  /* when it wanted to order */
	uint64_t next_ns; /* when it comes again */
	uint8_t node;
	bool refused_once;
	char token[TOKEN_MAX];
};

struct conversation {
	int fd; /* -1 = free */
	uint32_t buyer;
	bool orders, sent;
	unsigned got;
	uint64_t began_ns;
	char answer[ANSWER_MAX + 1];
};

static struct {
	struct {
		struct sockaddr_in at;
		char host[32];
		unsigned weight;
	} nodes[NODES_MAX];
	unsigned node_count, weight_sum;
	uint32_t first_source, sources;
	const char *sale;
	unsigned buyers, burst, open;
	double rate, seconds;
	bool before, wait;
} load;

static struct buyer *buyers;
static struct conversation *talks;
static unsigned talk_count, talks_open, free_from;
static uint32_t *again, *line; /* `again`: a heap of those who come again; `line`: who had a token first orders first */
static unsigned again_count;
static unsigned fresh; /* number of the next buyer */
static unsigned with_token, done_count, gone;
static uint32_t next_source;
static int epoll_fd;
static uint64_t began_ns, wall_began_ns;

static struct {
	uint64_t orders_of[NODES_MAX], answers[STATUSES], token_answers[STATUSES], again_of[NODES_MAX];
	uint64_t no_answer, late_ns, refused_buyers, last_order_ns;
	int last_error; /* errno of a connection that had no answer; 0: it was closed */
	uint32_t *us, *first_us;
	unsigned samples, first_samples;
	uint32_t bins[BINS_MAX], again_bins[BINS_MAX];
} seen;

/* --- who comes again ---------------------------------------------------------------------------------------------------------------- */
static bool is_sooner(unsigned a, unsigned b)
{
	return buyers[again[a]].next_ns < buyers[again[b]].next_ns;
}

static void swap(unsigned a, unsigned b)
{
	uint32_t kept = again[a];

	again[a] = again[b];
	again[b] = kept;
}

static void come_again(uint32_t buyer, uint64_t at_ns)
{
	unsigned i = again_count++;

	buyers[buyer].next_ns = at_ns;
	again[i] = buyer;
	for (; i && is_sooner(i, (i - 1) / 2); i = (i - 1) / 2)
		swap(i, (i - 1) / 2);
}

static uint32_t next_again(void)
{
	uint32_t first = again[0];

	again[0] = again[--again_count];
	for (unsigned i = 0;;) {
		unsigned least = i;

		for (unsigned child = 2 * i + 1; child <= 2 * i + 2 && child < again_count; child++)
			if (is_sooner(child, least))
				least = child;
		if (least == i)
			return first;
		swap(i, least);
		i = least;
	}
}

/* --- a conversation ----------------------------------------------------------------------------------------------------------------- */
static void end(struct conversation *c)
{
	close(c->fd); /* leaves the epoll set with it */
	c->fd = -1;
	talks_open--;
	free_from = (unsigned)(c - talks) < free_from ? (unsigned)(c - talks) : free_from;
}

static void start(uint32_t buyer)
{
	struct sockaddr_in from = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(load.first_source + next_source++ % load.sources)};
	struct epoll_event event = {.events = EPOLLOUT | EPOLLIN | EPOLLRDHUP | EPOLLET};
	const struct sockaddr_in *to = &load.nodes[buyers[buyer].node].at;
	struct conversation *c;
	int one = 1;

	while (talks[free_from].fd >= 0)
		free_from++;
	c = &talks[free_from];
	*c = (struct conversation){.buyer = buyer, .orders = *buyers[buyer].token, .began_ns = time_mono_ns()};
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("cannot make a socket: %s", strerror(errno));
	talks_open++;
	event.data.ptr = c;
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)))
		die("cannot bind to %s: %s", inet_ntoa(from.sin_addr), strerror(errno));
	if (connect(c->fd, (const struct sockaddr *)to, sizeof(*to)) && errno != EINPROGRESS)
		die("cannot connect from %s: %s", inet_ntoa(from.sin_addr), strerror(errno));
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event))
		die("epoll_ctl: %s", strerror(errno));
}

static bool send_request(struct conversation *c)
{
	static const char headers[] =
		"Host: shop.example\r\nConnection: close\r\nAccept: application/json\r\n"
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
		"Accept-Language: en-US,en;q=0.5\r\nOrigin: http://shop.example\r\n";
	char request[1024], body[64];
	int length;

	if (c->orders) {
		length = snprintf(request, sizeof(request),
			"POST /v1/orders/%s HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n", buyers[c->buyer].token, headers);
	} else {
		int body_length = snprintf(body, sizeof(body), "{\"buyer\":\"buyer-%u\"}", c->buyer);

		length = snprintf(request, sizeof(request),
			"POST /v1/sales/%s/tokens HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			load.sale, headers, body_length, body);
	}
	c->sent = true;
	/* An empty socket buffer takes a request whole. */
	return send(c->fd, request, (size_t)length, MSG_NOSIGNAL) == length;
}

/* The value of a header, or NULL. */
static const char *header(const struct conversation *c, const char *name)
{
	for (const char *at = strstr(c->answer, "\r\n"); at && strncmp(at, "\r\n\r\n", 4); at = strstr(at + 2, "\r\n"))
		if (!strncasecmp(at + 2, name, strlen(name)) && at[2 + strlen(name)] == ':')
			return at + 3 + strlen(name) + strspn(at + 3 + strlen(name), " ");
	return NULL;
}

static bool take_token(struct conversation *c)
{
	static const char name[] = "\"token\":";
	const char *at = strstr(c->answer, name);
	size_t length;

	if (!at)
		return false;
	at += sizeof(name) - 1;
	at += strspn(at, " \"");
	length = strcspn(at, "\"");
	if (length >= TOKEN_MAX)
		return false;
	memcpy(buyers[c->buyer].token, at, length);
	return true;
}

static bool go_there(struct buyer *buyer, const char *location)
{
	for (unsigned i = 0; location && i < load.node_count; i++)
		if (!strncmp(location, "http://", 7) &&
			!strncmp(location + 7, load.nodes[i].host, strlen(load.nodes[i].host))) {
			buyer->node = (uint8_t)i;
			return true;
		}
	return false;
}

static void note_order(const struct buyer *buyer, uint64_t now)
{
	uint32_t us = (uint32_t)((now - buyer->due_ns) / 1000);
	uint64_t bin = (now - began_ns) / BIN_NS;

	seen.orders_of[buyer->node]++;
	seen.last_order_ns = now;
	seen.us[seen.samples++] = us;
	if (!buyer->refused_once)
		seen.first_us[seen.first_samples++] = us;
	if (bin < BINS_MAX)
		seen.bins[bin]++;
	done_count++;
}

static void note_again(struct buyer *buyer, uint64_t now)
{
	uint64_t bin = (now - began_ns) / BIN_NS;

	seen.again_of[buyer->node]++;
	seen.refused_buyers += !buyer->refused_once;
	buyer->refused_once = true;
	if (bin < BINS_MAX)
		seen.again_bins[bin]++;
}

/* What becomes of a buyer after an answer; status 0: there was none. */
static void go_on(struct conversation *c, unsigned status)
{
	struct buyer *buyer = &buyers[c->buyer];
	const char *after = header(c, "Retry-After");
	uint64_t now = time_mono_ns();

	if (c->orders)
		seen.answers[status < STATUSES ? status : 0]++;
	else
		seen.token_answers[status < STATUSES ? status : 0]++;
	if (!c->orders && (status == 200 || status == 201) && take_token(c)) {
		line[with_token++] = c->buyer;
		if (!load.before)
			come_again(c->buyer, now);
	} else if (c->orders && (status == 200 || status == 201)) {
		note_order(buyer, now);
	} else if (status == 421 && go_there(buyer, header(c, "Location"))) {
		come_again(c->buyer, now);
	} else if (status == 503 || status == 202 || status == 429 || !status) {
		if (c->orders && status == 503)
			note_again(buyer, now);
		seen.no_answer += !status;
		come_again(c->buyer, now + (after ? strtoull(after, NULL, 10) * NS_PER_S : NS_PER_S / 5));
	} else {
		gone++; /* sold out, or whatever is told in `answers` */
	}
}

/* Returns true if the conversation is over. */
static bool step(struct conversation *c, uint32_t events)
{
	ssize_t n;

	if (!c->sent && events & EPOLLOUT && !(events & (EPOLLERR | EPOLLHUP)) && !send_request(c)) {
		seen.last_error = errno;
		return true;
	}
	if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		return false;
	do {
		n = recv(c->fd, c->answer + c->got, ANSWER_MAX - c->got, 0);
		if (n > 0)
			c->got += (unsigned)n;
	} while (n > 0 && c->got < ANSWER_MAX);
	if (n < 0 && errno != EAGAIN && !c->got)
		seen.last_error = errno;
	return n >= 0 || errno != EAGAIN;
}

static void hear(int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(epoll_fd, events, EVENTS, timeout_ms);

	for (int i = 0; i < count; i++) {
		struct conversation *c = events[i].data.ptr;

		if (c->fd < 0 || !step(c, events[i].events))
			continue;
		c->answer[c->got] = '\0';
		end(c);
		go_on(c, c->got > STATUS_AT ? (unsigned)strtoul(c->answer + STATUS_AT, NULL, 10) : 0);
	}
}

static void give_up_stuck(void)
{
	uint64_t now = time_mono_ns();

	for (unsigned i = 0; i < talk_count; i++)
		if (talks[i].fd >= 0 && now - talks[i].began_ns > STUCK_NS) {
			talks[i].answer[0] = '\0';
			end(&talks[i]);
			go_on(&talks[i], 0);
		}
}

/* --- the crowd ------------------------------------------------------------------------------------------------------------------------ */
static int ms_until(uint64_t at_ns, uint64_t now)
{
	return at_ns <= now ? 0 : (int)((at_ns - now + NS_PER_MS - 1) / NS_PER_MS);
}

static void start_again(unsigned limit, uint64_t now)
{
	while (again_count && buyers[again[0]].next_ns <= now && talks_open < limit)
		start(next_again());
}

static void fetch_tokens(void)
{
	uint64_t checked = time_mono_ns();

	while (with_token + gone < load.buyers) {
		uint64_t now = time_mono_ns();

		start_again(TOKENS_OPEN, now);
		while (fresh < load.buyers && talks_open < TOKENS_OPEN)
			start(fresh++);
		hear(talks_open ? 100 : 1);
		if (now - checked > NS_PER_S) {
			give_up_stuck();
			checked = now;
		}
	}
	fresh = 0;
}

/* When the buyer comes whose turn it is. */
static uint64_t due_ns(unsigned number)
{
	return load.rate <= 0 || number < load.burst
		? began_ns
		: began_ns + (uint64_t)((double)(number - load.burst) * (double)NS_PER_S / load.rate);
}

static void sell(void)
{
	unsigned limit = load.rate > 0 ? OPEN_MAX : load.open, people = load.before ? with_token : load.buyers;
	uint64_t checked, until, now;

	wall_began_ns = time_wall_ns();
	began_ns = checked = time_mono_ns();
	until = began_ns + (uint64_t)(load.seconds * (double)NS_PER_S);
	while ((now = time_mono_ns()) < until + AFTER_NS) {
		bool more = now < until && fresh < people;

		start_again(limit, now);
		for (; more && talks_open < limit && due_ns(fresh) <= now; more = fresh < people) {
			uint32_t number = load.before ? line[fresh] : fresh;
			uint64_t due = load.rate > 0 ? due_ns(fresh) : now;

			fresh++;
			buyers[number].due_ns = due;
			seen.late_ns = now - due > seen.late_ns ? now - due : seen.late_ns;
			start(number);
		}
		if (!more && !talks_open && !again_count && (now >= until || fresh == people))
			break;
		hear(more && load.rate > 0 && talks_open < limit && ms_until(due_ns(fresh), now) < 2
				? ms_until(due_ns(fresh), now)
				: 2);
		if (now - checked > NS_PER_S) {
			give_up_stuck();
			checked = now;
		}
	}
}

/* --- what was seen --------------------------------------------------------------------------------------------------------------------- */
static void print_statuses(const char *name, const uint64_t *counts)
{
	const char *comma = "";

	printf(",\"%s\":{", name);
	for (unsigned status = 0; status < STATUSES; status++)
		if (counts[status]) {
			printf("%s\"%u\":%llu", comma, status, (unsigned long long)counts[status]);
			comma = ",";
		}
	printf("}");
}

static void print_nodes(const char *name, const uint64_t *counts)
{
	printf(",\"%s\":[", name);
	for (unsigned i = 0; i < load.node_count; i++)
		printf("%s%llu", i ? "," : "", (unsigned long long)counts[i]);
	printf("]");
}

static void print_bins(const char *name, const uint32_t *bins, uint64_t until_ns)
{
	printf(",\"%s\":[", name);
	for (unsigned i = 0; i <= until_ns / BIN_NS && i < BINS_MAX; i++)
		printf("%s%u", i ? "," : "", bins[i]);
	printf("]");
}

static void print(void)
{
	uint64_t last = seen.last_order_ns > began_ns ? seen.last_order_ns - began_ns : 0;

	sort_us(seen.us, seen.samples);
	sort_us(seen.first_us, seen.first_samples);
	printf("{\"began_at\":%.6f,\"seconds\":%.6f,\"came\":%u,\"orders\":%u,\"gone\":%u,\"left\":%u,\"no_answer\":%llu,\"told_to_come_again\":%llu,"
	       "\"last_error\":\"%s\",\"behind_ms\":%.1f,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"served_at_once_p99_us\":%u",
		(double)wall_began_ns / 1e9, (double)last / 1e9, fresh, done_count, gone, talks_open + again_count,
		(unsigned long long)seen.no_answer, (unsigned long long)seen.refused_buyers,
		seen.last_error ? strerror(seen.last_error) : "", (double)seen.late_ns / 1e6,
		percentile_us(seen.us, seen.samples, 50), percentile_us(seen.us, seen.samples, 99),
		percentile_us(seen.us, seen.samples, 100), percentile_us(seen.first_us, seen.first_samples, 99));
	print_nodes("orders_of", seen.orders_of);
	print_nodes("again_of", seen.again_of);
	print_statuses("answers", seen.answers);
	print_statuses("token_answers", seen.token_answers);
	print_bins("orders_per_100_ms", seen.bins, last);
	print_bins("again_per_100_ms", seen.again_bins, last);
	printf("}\n");
}

/* --- start ------------------------------------------------------------------------------------------------------------------------------ */
static void add_node(char *text)
{
	char *weight = strchr(text, '*'), *colon = strchr(text, ':');
	unsigned number = load.node_count;

	if (number == NODES_MAX)
		die("more than %d nodes", NODES_MAX);
	load.nodes[number].weight = weight ? (unsigned)strtoul(weight + 1, NULL, 10) : 1;
	if (weight)
		*weight = '\0';
	if (!colon || strlen(text) >= sizeof(load.nodes[0].host))
		die("--node needs ADDR:PORT");
	strcpy(load.nodes[number].host, text);
	*colon = '\0';
	load.nodes[number].at.sin_family = AF_INET;
	load.nodes[number].at.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, text, &load.nodes[number].at.sin_addr) != 1)
		die("--node: %s is no IPv4 address", text);
	load.weight_sum += load.nodes[number].weight;
	load.node_count++;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"node", 1, NULL, 'n'}, {"sale", 1, NULL, 'a'}, {"from", 1, NULL, 'f'},
		{"sources", 1, NULL, 'c'}, {"buyers", 1, NULL, 'b'}, {"tokens", 1, NULL, 't'}, {"rate", 1, NULL, 'r'},
		{"open", 1, NULL, 'o'}, {"burst", 1, NULL, 'u'}, {"seconds", 1, NULL, 's'}, {"wait", 0, NULL, 'w'},
		{0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 'n':
			add_node(optarg);
			break;
		case 'a':
			load.sale = optarg;
			break;
		case 'f':
			load.first_source = ntohl(inet_addr(optarg));
			break;
		case 'c':
			load.sources = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'b':
			load.buyers = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 't':
			load.before = !strcmp(optarg, "before");
			break;
		case 'r':
			load.rate = strtod(optarg, NULL);
			break;
		case 'o':
			load.open = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'u':
			load.burst = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			load.seconds = strtod(optarg, NULL);
			break;
		case 'w':
			load.wait = true;
			break;
		default:
			exit(2);
		}
	if (!load.weight_sum || !load.sale || !load.sources || load.seconds <= 0 || (load.rate <= 0 && !load.open))
		die("--node, --sale, --from, --sources, --seconds, and --rate or --open are needed");
	if (!load.buyers || load.buyers > BUYERS_MAX || load.open > OPEN_MAX)
		die("--buyers: 1..%d, --open: at most %d", BUYERS_MAX, OPEN_MAX);
}

static void make_room(void)
{
	struct rlimit files = {.rlim_cur = OPEN_MAX + 64, .rlim_max = OPEN_MAX + 64};

	if (setrlimit(RLIMIT_NOFILE, &files))
		die("cannot have %d files open: %s", OPEN_MAX, strerror(errno));
	talk_count = OPEN_MAX;
	buyers = calloc(load.buyers, sizeof(*buyers));
	talks = calloc(talk_count, sizeof(*talks));
	again = calloc(load.buyers, sizeof(*again));
	line = calloc(load.buyers, sizeof(*line));
	seen.us = calloc(load.buyers, sizeof(*seen.us));
	seen.first_us = calloc(load.buyers, sizeof(*seen.first_us));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!buyers || !talks || !again || !line || !seen.us || !seen.first_us || epoll_fd < 0)
		die("no memory for %u buyers", load.buyers);
	for (unsigned i = 0; i < talk_count; i++)
		talks[i].fd = -1;
	/* By turns, each node as often as its weight. */
	for (unsigned i = 0; i < load.buyers; i++) {
		unsigned place = i % load.weight_sum;

		while (place >= load.nodes[buyers[i].node].weight)
			place -= load.nodes[buyers[i].node++].weight;
	}
}

int main(int argc, char **argv)
{
	char line_in[16];

	parse(argc, argv);
	make_room();
	if (load.before)
		fetch_tokens();
	if (load.wait) {
		puts("ready");
		fflush(stdout);
		if (!fgets(line_in, sizeof(line_in), stdin))
			die("told nothing");
	}
	sell();
	print();
	return 0;
}
