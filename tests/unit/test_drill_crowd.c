/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The crowd against a small shop on loopback, in a thread of this test: a shop that sells its stock honestly gets through every check,
 * and one that sells each token twice is caught. Also: where the crowd lives, and what a spoofed SYN looks like.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/timefmt.h"
#include "common/token.h"
#include "drill/checks.h"
#include "drill/crowd.h"
#include "drill/places.h"
#include "drill/spoof.h"

#define SHOP_STOCK 20
#define SHOP_BUYERS 60
#define SHOP_BOTS 120
#define SERIAL_BASE 1000

enum fault { SOUND, SELLS_TWICE, LOSES_UNITS };

struct shop {
	int listener;
	uint16_t port;
	pthread_t thread;
	atomic_bool stop;
	enum fault fault;
	uint64_t opens_ns;
	/* the ledger */
	struct books_order orders[4 * SHOP_BUYERS];
	size_t count;
	uint32_t free, tokens;
};

static void say(int fd, int status, const char *headers, const char *body)
{
	char answer[512];
	int length = snprintf(answer, sizeof(answer), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n%s", status,
		strlen(body), headers, body);
	int half = length / 2;

	/* in two pieces now and then, as a network does */
	if (status == 201 && send(fd, answer, (size_t)half, MSG_NOSIGNAL) == half) {
		usleep(500);
		send(fd, answer + half, (size_t)(length - half), MSG_NOSIGNAL);
		return;
	}
	send(fd, answer, (size_t)length, MSG_NOSIGNAL);
}

static const struct sluice_key shop_key = {.k0 = 11, .k1 = 22, .id = 1, .valid = 1};

static void issue(struct shop *shop, int fd)
{
	struct sluice_token token = {.version = 1, .quantity = 1, .sale = 1, .serial = SERIAL_BASE + shop->tokens++};
	char text[SLUICE_TOKEN_TEXT + 1], body[160];

	token_seal(&shop_key, &token, text);
	snprintf(body, sizeof(body), "{\"token\":\"%s\"}", text);
	say(fd, 201, "", body);
}

static void order(struct shop *shop, int fd, const char *text)
{
	struct token_keys keys = {.slot = {shop_key}};
	struct sluice_token token;
	char body[64];
	size_t at = 0;
	bool known;

	/* the key's id picks the slot */
	keys.slot[shop_key.id & 1] = shop_key;
	if (token_open(&keys, text, strcspn(text, " "), &token)) {
		say(fd, 401, "", "{\"code\":\"token_invalid\"}");
		return;
	}
	if (time_wall_ns() < shop->opens_ns) {
		say(fd, 409, "Retry-After: 0001\r\n", "{\"code\":\"sale_not_open\"}");
		return;
	}
	while (at < shop->count && shop->orders[at].id != token.serial)
		at++;
	known = at < shop->count;
	if (!known && !shop->free) {
		say(fd, 409, "", "{\"code\":\"sold_out\"}");
		return;
	}
	if (!known) {
		shop->free -= shop->fault == LOSES_UNITS ? 2 : 1;
		shop->orders[shop->count++] = (struct books_order){.id = token.serial,
			.buyer = token.serial,
			.admitted_ns = time_wall_ns(),
			.quantity = 1,
			.live = true};
	}
	/* the fault: somebody who asks again gets another order */
	snprintf(body, sizeof(body), "{\"id\":\"%016llx\"}",
		(unsigned long long)token.serial + (known && shop->fault == SELLS_TWICE ? 5000 : 0));
	say(fd, known ? 200 : 201, "", body);
}

static void *serve(void *arg)
{
	struct shop *shop = arg;
	static const char orders[] = "POST /v1/orders/", tokens[] = "POST /v1/sales/";

	while (!shop->stop) {
		struct pollfd wait = {.fd = shop->listener, .events = POLLIN};
		char request[1024];
		ssize_t length;
		int fd;

		if (poll(&wait, 1, 50) <= 0)
			continue;
		fd = accept4(shop->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		/* a silent one is not waited for */
		wait = (struct pollfd){.fd = fd, .events = POLLIN};
		length = poll(&wait, 1, 20) > 0 ? recv(fd, request, sizeof(request) - 1, 0) : -1;
		request[length > 0 ? length : 0] = '\0';
		if (!strncmp(request, tokens, sizeof(tokens) - 1))
			issue(shop, fd);
		else if (!strncmp(request, orders, sizeof(orders) - 1))
			order(shop, fd, request + sizeof(orders) - 1);
		else if (length > 0)
			say(fd, 404, "", "{\"code\":\"not_found\"}");
		close(fd);
	}
	return NULL;
}

static void open_shop(struct shop *shop, enum fault fault)
{
	struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof(where);

	memset(shop, 0, sizeof(*shop));
	shop->fault = fault;
	shop->free = SHOP_STOCK;
	shop->opens_ns = time_wall_ns() + 1200000000ULL;
	shop->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(shop->listener >= 0);
	assert_int_equal(bind(shop->listener, (struct sockaddr *)&where, sizeof(where)), 0);
	assert_int_equal(listen(shop->listener, 512), 0);
	assert_int_equal(getsockname(shop->listener, (struct sockaddr *)&where, &length), 0);
	shop->port = ntohs(where.sin_port);
	assert_int_equal(pthread_create(&shop->thread, NULL, serve, shop), 0);
}

static void close_shop(struct shop *shop)
{
	shop->stop = true;
	pthread_join(shop->thread, NULL);
	close(shop->listener);
}

struct outcome {
	struct drill_record record;
	struct drill_finding finding[DRILL_CHECKS];
	struct drill_sums sums;
	int broken;
};

static void visit_shop(struct shop *shop, struct outcome *outcome)
{
	struct drill_plan plan = {
		.buyers = SHOP_BUYERS,
		.bots = SHOP_BOTS,
		.seconds = 20,
		.rush_ms = 1000,
		.seed = 42,
		.slug = "test",
		.host = "localhost",
		.opens_wall_ns = shop->opens_ns,
	};
	struct drill_ledger ledger;

	plan.target4.v4 = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(shop->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	assert_int_equal(drill_crowd_run(&plan, &outcome->record), 0);
	close_shop(shop);
	ledger = (struct drill_ledger){.known = true,
		.orders = shop->orders,
		.count = shop->count,
		.put_in = SHOP_STOCK,
		.free = shop->free,
		.held = (int64_t)shop->count,
		.balanced = true,
		.opens_ns = shop->opens_ns,
		.ends_ns = shop->opens_ns + 60000000000ULL,
		.per_buyer = 1};
	outcome->broken = drill_checks_run(outcome->record.seen, outcome->record.seen_count, &ledger,
		&outcome->record.intruders, outcome->finding, &outcome->sums);
}

static void the_crowd_buys_out_an_honest_shop_and_everybody_is_answered(void **state)
{
	struct shop *shop = malloc(sizeof(*shop));
	struct outcome outcome;

	(void)state;
	open_shop(shop, SOUND);
	visit_shop(shop, &outcome);
	for (int i = 0; i < DRILL_CHECKS; i++) {
		if (outcome.finding[i].verdict != DRILL_HOLDS)
			fail_msg("%s %s", outcome.finding[i].name, outcome.finding[i].detail);
	}
	assert_int_equal(outcome.broken, 0);
	assert_false(outcome.record.timed_out);
	assert_int_equal(outcome.record.buyers_answered, SHOP_BUYERS);
	assert_int_equal(outcome.record.bot_attempts, SHOP_BOTS);
	assert_int_equal(outcome.sums.orders, SHOP_STOCK);
	assert_true(outcome.record.admitted.count >= outcome.record.buyers_ordered - outcome.record.lost_answers);
	assert_true(drill_tally_get(&outcome.record.bots[DRILL_BOT_FORGED].answers, "token_invalid") > 0);
	drill_record_free(&outcome.record);
	free(shop);
}

static void a_shop_that_gives_a_token_two_orders_is_caught(void **state)
{
	struct shop *shop = malloc(sizeof(*shop));
	struct outcome outcome;

	(void)state;
	open_shop(shop, SELLS_TWICE);
	visit_shop(shop, &outcome);
	/* the repeating bots alone make sure that somebody asked again */
	assert_int_equal(outcome.finding[DRILL_CHECK_ONCE].verdict, DRILL_BROKEN);
	drill_record_free(&outcome.record);
	free(shop);
}

static void a_shop_that_loses_units_is_caught(void **state)
{
	struct shop *shop = malloc(sizeof(*shop));
	struct outcome outcome;

	(void)state;
	open_shop(shop, LOSES_UNITS);
	visit_shop(shop, &outcome);
	assert_int_equal(outcome.finding[DRILL_CHECK_UNDERSELL].verdict, DRILL_BROKEN);
	assert_int_equal(outcome.sums.unsold, SHOP_STOCK / 2);
	drill_record_free(&outcome.record);
	free(shop);
}

/* --- addresses and frames --------------------------------------------------------------------------------------------------- */

static int compare_addresses(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(union drill_address));
}

static void every_buyer_has_a_home_of_his_own(void **state)
{
	uint32_t count = DRILL_BUYERS_MAX;
	union drill_address *homes = calloc(count, sizeof(*homes));

	(void)state;
	for (int ipv6 = 0; ipv6 < 2; ipv6++) {
		for (uint32_t i = 0; i < count; i++)
			drill_place_address(DRILL_AT_HOME, i, ipv6, &homes[i]);
		qsort(homes, count, sizeof(*homes), compare_addresses);
		for (uint32_t i = 1; i < count; i++)
			assert_true(compare_addresses(&homes[i - 1], &homes[i]) != 0);
		if (!ipv6) {
			assert_true(ntohl(homes[0].v4.sin_addr.s_addr) >= 0x0a800000);
			assert_true(ntohl(homes[count - 1].v4.sin_addr.s_addr) <= 0x0affffff);
		}
	}
	free(homes);
}

static void places_lie_in_the_networks_that_are_routed_and_denied(void **state)
{
	union drill_address at;

	(void)state;
	for (uint32_t i = 0; i < 100000; i += 13) {
		drill_place_address(DRILL_AT_DENIED, i, false, &at);
		assert_int_equal(ntohl(at.v4.sin_addr.s_addr) >> 16, 0x0a3c);
		drill_place_address(DRILL_AT_DENIED, i, true, &at);
		assert_int_equal(ntohl(at.v6.sin6_addr.s6_addr32[0]), 0xfd600000);
		for (enum drill_place place = DRILL_AT_SHARED; place <= DRILL_AT_HAMMER; place++) {
			drill_place_address(place, i, false, &at);
			assert_int_equal(ntohl(at.v4.sin_addr.s_addr) >> 18, 0x0a3c >> 2);
			assert_true(ntohl(at.v4.sin_addr.s_addr) >> 16 != 0x0a3c);
			drill_place_address(place, i, true, &at);
			assert_int_equal(ntohs(at.v6.sin6_addr.s6_addr16[0]) & 0xfff0, 0xfd60);
			assert_true(at.v6.sin6_addr.s6_addr16[0] != htons(0xfd60));
		}
	}
}

static void the_share_of_ipv6_is_exact(void **state)
{
	(void)state;
	for (uint32_t percent = 0; percent <= 100; percent++) {
		uint32_t count = 0;

		for (uint32_t i = 1234; i < 1334; i++)
			count += drill_place_is_ipv6(i, percent);
		assert_int_equal(count, percent);
	}
}

/* RFC 1071, written again and otherwise than in spoof.c: byte by byte. A right checksum makes the sum all ones. */
static uint32_t ones_sum(const uint8_t *bytes, size_t count, uint32_t sum)
{
	for (size_t i = 0; i < count; i++) {
		sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
		if (sum > 0xffff)
			sum -= 0xffff;
	}
	return sum;
}

static void spoofed_syns_have_right_checksums(void **state)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
	uint8_t frame[DRILL_FRAME_MAX];

	(void)state;
	for (uint32_t i = 0; i < 2000; i++) {
		bool ipv6 = i & 1;
		union drill_address from, to;
		size_t length, ip = ipv6 ? 40 : 20;
		uint32_t sum;

		drill_place_address(DRILL_AT_NOWHERE, i * 2654435761u, ipv6, &from);
		drill_place_address(DRILL_AT_HOME, i, ipv6, &to);
		from.v4.sin_port = htons((uint16_t)(1024 + i)); /* the port is at the same place in both */
		to.v4.sin_port = htons(8080);
		length = drill_spoof_frame(frame, mac, mac, &from, &to, i * 40503u);
		assert_int_equal(length, 14 + ip + 24);
		assert_int_equal(frame[14 + ip + 13], 0x02); /* SYN and nothing else */
		assert_int_equal(frame[14 + ip + 12] >> 4, 6);
		if (ipv6) {
			sum = ones_sum(frame + 14 + 8, 32, 0);
		} else {
			assert_int_equal(ones_sum(frame + 14, 20, 0), 0xffff);
			sum = ones_sum(frame + 14 + 12, 8, 0);
		}
		sum = ones_sum((const uint8_t[]){0, IPPROTO_TCP, 0, 24}, 4, sum);
		assert_int_equal(ones_sum(frame + 14 + ip, 24, sum), 0xffff);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_crowd_buys_out_an_honest_shop_and_everybody_is_answered),
		cmocka_unit_test(a_shop_that_gives_a_token_two_orders_is_caught),
		cmocka_unit_test(a_shop_that_loses_units_is_caught),
		cmocka_unit_test(every_buyer_has_a_home_of_his_own),
		cmocka_unit_test(places_lie_in_the_networks_that_are_routed_and_denied),
		cmocka_unit_test(the_share_of_ipv6_is_exact),
		cmocka_unit_test(spoofed_syns_have_right_checksums),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
