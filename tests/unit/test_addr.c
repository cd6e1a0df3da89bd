/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Addresses and prefixes: what people write is read exactly, and what is shown reads back to the same value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"

static void ipv4_is_held_in_the_mapped_form(void **state)
{
	struct sluice_addr addr;

	(void)state;
	assert_int_equal(addr_parse("192.0.2.1", &addr), 0);
	assert_true(addr.hi == 0 && addr.lo == 0xffffc0000201ULL);
	assert_true(addr_is_ipv4(&addr));
	assert_int_equal(addr_parse("::ffff:192.0.2.1", &addr), 0);
	assert_true(addr.hi == 0 && addr.lo == 0xffffc0000201ULL);
	assert_int_equal(addr_parse("2001:db8::1", &addr), 0);
	assert_true(addr.hi == 0x20010db800000000ULL && addr.lo == 1);
	assert_false(addr_is_ipv4(&addr));
}

static void addresses_are_shown_as_rfc_5952_says(void **state)
{
	static const char *const pairs[][2] = {
		{"192.0.2.1", "192.0.2.1"},
		{"2001:0DB8:0:0:0:0:0:1", "2001:db8::1"},
		{"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
		{"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
		{"::", "::"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
	};
	char text[ADDR_TEXT_MAX];
	struct sluice_addr addr;

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		assert_int_equal(addr_parse(pairs[i][0], &addr), 0);
		assert_string_equal(addr_format(&addr, text), pairs[i][1]);
	}
}

static void what_is_no_address_is_refused(void **state)
{
	static const char *const bad[] = {"", " 192.0.2.1", "192.0.2.1 ", "192.0.2", "192.0.2.256", "192.0.2.01x",
		"1.2.3.4.5", "2001:db8::1::2", "2001:db8", "fe80::1%eth0", "any", "::g", "\xff\xfe"};
	struct sluice_addr addr;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(addr_parse(bad[i], &addr), -EINVAL);
}

static void sockaddrs_of_both_families_agree_with_text(void **state)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	struct sockaddr other = {.sa_family = AF_UNIX};
	struct sluice_addr from_text, from_socket;

	(void)state;
	inet_pton(AF_INET, "198.51.100.7", &v4.sin_addr);
	inet_pton(AF_INET6, "::ffff:198.51.100.7", &v6.sin6_addr);
	assert_int_equal(addr_parse("198.51.100.7", &from_text), 0);
	assert_int_equal(addr_from_sockaddr((struct sockaddr *)&v4, &from_socket), 0);
	assert_memory_equal(&from_socket, &from_text, sizeof(from_text));
	assert_int_equal(addr_from_sockaddr((struct sockaddr *)&v6, &from_socket), 0);
	assert_memory_equal(&from_socket, &from_text, sizeof(from_text));
	assert_int_equal(addr_from_sockaddr(&other, &from_socket), -EAFNOSUPPORT);
}

static void prefixes_read_and_show_the_same(void **state)
{
	static const struct {
		const char *text, *shown;
		unsigned len;
	} good[] = {
		{"192.0.2.0/24", "192.0.2.0/24", 120},
		{"192.0.2.7", "192.0.2.7/32", 128},
		{"0.0.0.0/0", "0.0.0.0/0", 96},
		{"128.0.0.0/1", "128.0.0.0/1", 97},
		{"2001:db8::/32", "2001:db8::/32", 32},
		{"2001:db8::1", "2001:db8::1/128", 128},
		{"::/1", "::/1", 1},
		{"8000::/1", "8000::/1", 1},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8", 104},
	};
	char text[ADDR_TEXT_MAX];
	struct sluice_addr addr;
	unsigned len;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(prefix_parse(good[i].text, &addr, &len), 0);
		assert_int_equal(len, good[i].len);
		assert_string_equal(prefix_format(&addr, len, text), good[i].shown);
	}
}

static void a_slip_in_a_prefix_is_named(void **state)
{
	static const struct {
		const char *text;
		int error;
	} bad[] = {
		{"192.0.2.1/24", -EDOM},
		{"10.0.0.1/8", -EDOM},
		{"2001:db8::1/32", -EDOM},
		{"2001:db8:0:0:8000::/64", -EDOM},
		{"128.0.0.0/0", -EDOM},
		{"192.0.2.0/33", -ERANGE},
		{"::/0", -ERANGE},
		{"2001:db8::/129", -ERANGE},
		{"192.0.2.0/", -EINVAL},
		{"192.0.2.0/024", -EINVAL},
		{"192.0.2.0/-1", -EINVAL},
		{"192.0.2.0/24 ", -EINVAL},
		{"192.0.2.0/2x", -EINVAL},
		{"/24", -EINVAL},
		{"", -EINVAL},
		{"192.0.2.0/24/24", -EINVAL},
		{"192.0.2.0/99999999999999999999", -EINVAL},
	};
	struct sluice_addr addr;
	unsigned len;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int err = prefix_parse(bad[i].text, &addr, &len);

		if (err != bad[i].error)
			fail_msg("\"%s\": %d, not %d", bad[i].text, err, bad[i].error);
		assert_true(strlen(prefix_strerror(err)) > 10);
	}
}

/* Independent of the code's masks: a prefix is good if and only if no bit at or beyond its length is set. */
static void host_bits_are_found_at_every_length(void **state)
{
	(void)state;
	for (unsigned len = 1; len <= 128; len++) {
		for (unsigned bit = 0; bit < 128; bit++) {
			struct in6_addr raw = {0};
			struct sluice_addr addr;
			char text[ADDR_TEXT_MAX], with_len[ADDR_TEXT_MAX + 8];
			unsigned got;

			raw.s6_addr[bit / 8] = (uint8_t)(0x80 >> bit % 8);
			inet_ntop(AF_INET6, &raw, text, sizeof(text));
			snprintf(with_len, sizeof(with_len), "%s/%u", text, len);
			assert_int_equal(prefix_parse(with_len, &addr, &got), bit < len ? 0 : -EDOM);
		}
	}
}

static void random_addresses_survive_the_way_through_text(void **state)
{
	const char *seed_text = getenv("SLUICE_SEED");
	unsigned seed = seed_text ? (unsigned)strtoul(seed_text, NULL, 0) : 20261122u;

	(void)state;
	print_message("seed %u\n", seed);
	srandom(seed);
	for (int i = 0; i < 20000; i++) {
		struct sluice_addr addr, back;
		char text[ADDR_TEXT_MAX];

		addr.hi = (uint64_t)random() << 33 ^ (uint64_t)random();
		addr.lo = (uint64_t)random() << 33 ^ (uint64_t)random();
		switch (i % 4) { /* runs of zeroes, mapped and compatible addresses */
		case 1:
			addr.hi &= 0xffff0000ffff0000ULL;
			addr.lo &= 0x00000000ffff0000ULL;
			break;
		case 2:
			addr.hi = 0;
			addr.lo = 0xffff00000000ULL | (addr.lo & 0xffffffff);
			break;
		case 3:
			addr.hi = 0;
			addr.lo &= 0xffffffff;
			break;
		}
		assert_int_equal(addr_parse(addr_format(&addr, text), &back), 0);
		assert_memory_equal(&addr, &back, sizeof(addr));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv4_is_held_in_the_mapped_form),
		cmocka_unit_test(addresses_are_shown_as_rfc_5952_says),
		cmocka_unit_test(what_is_no_address_is_refused),
		cmocka_unit_test(sockaddrs_of_both_families_agree_with_text),
		cmocka_unit_test(prefixes_read_and_show_the_same),
		cmocka_unit_test(a_slip_in_a_prefix_is_named),
		cmocka_unit_test(host_bits_are_found_at_every_length),
		cmocka_unit_test(random_addresses_survive_the_way_through_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
