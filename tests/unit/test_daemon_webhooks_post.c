/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is shown of the URL that webhooks are posted to. (How messages are posted and what is made of the answers, a real receiver sees:
 * tests/e2e/test_webhooks.py.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "daemon/webhooks_post.h"

static void a_url_is_shown_without_what_may_be_secret(void **state)
{
	static const struct {
		const char *url, *shown;
	} urls[] = {
		{"https://shop.example/hooks", "https://shop.example/hooks"},
		{"https://shop.example", "https://shop.example/"},
		{"http://127.0.0.1:8081/a/b", "http://127.0.0.1:8081/a/b"},
		{"https://[2001:db8::1]:443/h", "https://[2001:db8::1]:443/h"},
		{"https://user:hunter2@shop.example/hooks?key=hunter2", "https://shop.example/hooks"},
		{"https://hunter2@shop.example:8443/?hunter2", "https://shop.example:8443/"},
	};
	char shown[CONFIG_URL_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		assert_int_equal(webhook_post_show_url(urls[i].url, shown, sizeof(shown)), 0);
		assert_string_equal(shown, urls[i].shown);
		assert_null(strstr(shown, "hunter2"));
	}
}

static void what_cannot_be_posted_to_is_no_url(void **state)
{
	static const char *const urls[] = {
		"", "http://", "https://shop.example:99999/", "https://shop.example:x/", "https://[::1/"};
	char shown[CONFIG_URL_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
		assert_int_equal(webhook_post_show_url(urls[i], shown, sizeof(shown)), -EINVAL);
}

static void each_way_to_fail_has_a_name_of_its_own(void **state)
{
	(void)state;
	assert_string_equal(webhook_failure_name(WEBHOOK_DELIVERED), "");
	for (unsigned i = 1; i < WEBHOOK_FAILURES; i++)
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(webhook_failure_name(i), webhook_failure_name(j));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_url_is_shown_without_what_may_be_secret),
		cmocka_unit_test(what_cannot_be_posted_to_is_no_url),
		cmocka_unit_test(each_way_to_fail_has_a_name_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
