/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger's text of the limits: only what was set by hand is in it, it comes back as it was, what was set on the gate meanwhile counts, and a
 * text that is not understood changes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/limits_kept.h"
#include "daemon/shadow.h"

static void set_limit(struct limits_state *state, unsigned id, double rate, uint32_t burst)
{
	struct config_limit limit = {.rate = rate, .burst = burst};

	config_limit_to_gate(&limit, &state->limits.limit[id]);
}

static struct limits_state of_config(void)
{
	struct limits_state state = {0};

	for (unsigned id = 0; id < SLUICE_LIMIT_COUNT; id++)
		set_limit(&state, id, 50, 100);
	return state;
}

static void expect_same(const struct limits_state *left, const struct limits_state *right)
{
	assert_memory_equal(&left->limits, &right->limits, sizeof(left->limits));
	assert_int_equal(left->shadow, right->shadow);
	assert_int_equal(left->kept, right->kept);
}

static void only_what_was_set_is_in_the_text(void **unused)
{
	struct limits_state state = of_config();
	char *text = limits_kept_text(&state);

	(void)unused;
	assert_string_equal(text, "{\"version\":1}");
	free(text);
	set_limit(&state, SLUICE_LIMIT_TOKEN, 3, 4);
	state.shadow = shadow_flag(SHADOW_DENY) | shadow_flag(SHADOW_ALL);
	state.kept = SLUICE_KEPT_LIMITS | SLUICE_KEPT_RATE(SLUICE_LIMIT_TOKEN) | SLUICE_KEPT_SHADOW(SHADOW_DENY) |
		SLUICE_KEPT_SHADOW(SHADOW_PACE);
	text = limits_kept_text(&state);
	assert_string_equal(text,
		"{\"version\":1,\"token\":{\"rate\":3.0,\"burst\":4},\"pace\":{\"shadow\":false},\"deny\":{\"shadow\":true}}");
	free(text);
}

static void every_limit_comes_back_as_it_was(void **unused)
{
	static const double rates[] = {0, 0.001, 0.3, 3, 33.3, 12345.678, 1e9};
	char error[256];

	(void)unused;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct limits_state state = of_config(), back = of_config();
		char *text;

		for (unsigned id = 0; id < SLUICE_LIMIT_COUNT; id++) {
			set_limit(&state, id, rates[i], 1 + 1000 * id);
			state.kept |= SLUICE_KEPT_RATE(id);
		}
		for (unsigned which = 0; which < SHADOW_SWITCHES; which++) {
			state.shadow |= which % 2 ? shadow_flag(which) : 0;
			state.kept |= SLUICE_KEPT_SHADOW(which);
		}
		back.shadow = ~state.shadow & shadow_flag(SHADOW_ALL);
		text = limits_kept_text(&state);
		assert_int_equal(limits_kept_read(text, &back, error, sizeof(error)), 0);
		expect_same(&back, &state);
		free(text);
	}
}

static void what_was_set_on_this_gate_counts(void **unused)
{
	struct limits_state state = of_config();
	struct sluice_limit mine, theirs;
	char error[256];

	(void)unused;
	set_limit(&state, SLUICE_LIMIT_SOURCE, 1, 2);
	mine = state.limits.limit[SLUICE_LIMIT_SOURCE];
	state.kept = SLUICE_KEPT_RATE(SLUICE_LIMIT_SOURCE) | SLUICE_KEPT_SHADOW(SHADOW_PACE);
	assert_int_equal(limits_kept_read("{\"version\":1,\"source\":{\"rate\":9,\"burst\":9,\"shadow\":true},"
					  "\"prefix\":{\"rate\":9,\"burst\":9},\"pace\":{\"shadow\":true}}",
				 &state, error, sizeof(error)),
		0);
	config_limit_to_gate(&(struct config_limit){.rate = 9, .burst = 9}, &theirs);
	assert_memory_equal(&state.limits.limit[SLUICE_LIMIT_SOURCE], &mine, sizeof(mine));
	assert_memory_equal(&state.limits.limit[SLUICE_LIMIT_PREFIX], &theirs, sizeof(theirs));
	assert_int_equal(state.shadow, shadow_flag(SLUICE_LIMIT_SOURCE));
}

static void what_is_not_understood_changes_nothing(void **unused)
{
	static const char *const wrong[] = {"", "{", "[]", "null", "{}", "{\"version\":2}", "{\"version\":\"1\"}",
		"{\"version\":1,\"nonsense\":{}}", "{\"version\":1,\"source\":1}",
		"{\"version\":1,\"prefix\":{\"shadow\":true},\"source\":{\"rate\":1}}",
		"{\"version\":1,\"prefix\":{\"shadow\":true},\"source\":{\"burst\":1}}",
		"{\"version\":1,\"source\":{\"rate\":1,\"burst\":0}}",
		"{\"version\":1,\"source\":{\"rate\":-1,\"burst\":1}}",
		"{\"version\":1,\"source\":{\"rate\":1e300,\"burst\":1}}",
		"{\"version\":1,\"pace\":{\"rate\":1,\"burst\":1}}", "{\"version\":1,\"all\":{\"shadow\":1}}",
		"{\"version\":1,\"deny\":{\"shadow\":true},\"deny\":{\"shadow\":true}}"};
	const struct limits_state before = of_config();

	(void)unused;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct limits_state state = before;
		char error[256] = "";

		assert_int_equal(limits_kept_read(wrong[i], &state, error, sizeof(error)), -EINVAL);
		assert_true(*error);
		expect_same(&state, &before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_what_was_set_is_in_the_text),
		cmocka_unit_test(every_limit_comes_back_as_it_was),
		cmocka_unit_test(what_was_set_on_this_gate_counts),
		cmocka_unit_test(what_is_not_understood_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
