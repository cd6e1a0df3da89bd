/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The lease protocol under random faults: lease.c and the scripts as they are, and then with one bug at a time, each of which must be found.
 *   SEED=n     that run alone, told event by event
 *   SEEDS=n    so many (10000), from FIRST=n on (1)
 *   PLANT=name with that bug
 *   CASE=text  only the tests whose name it fits (* and ?)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/lease_plant.h"
#include "world.h"

#define SEEDS 10000

enum lease_plant lease_plant;

static const struct lease_plant_name {
	const char *name, *what;
} lease_plants[] = {
#define X(name, what) {#name, what},
	LEASE_PLANTS(X)
#undef X
};
#define LEASE_PLANT_COUNT (sizeof(lease_plants) / sizeof(lease_plants[0]))

static struct world the_world;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 10) : otherwise;
}

static void nothing_is_sold_twice_or_lost_under_any_faults(void **state)
{
	uint64_t first = number_of("FIRST", 1), count = number_of("SEEDS", SEEDS);
	uint64_t calls = 0, orders = 0, generations = 0, failed = 0, sold_ns = 0, sold_max = 0, again_ns = 0,
		 again_max = 0;

	(void)state;
	coordinator_open(NULL);
	for (uint64_t seed = first; seed < first + count; seed++) {
		const char *failure = world_run(&the_world, seed, false);

		calls += the_world.calls;
		orders += the_world.orders;
		generations += the_world.generations;
		sold_ns += the_world.sold_ns;
		again_ns += the_world.again_ns;
		sold_max = the_world.sold_ns > sold_max ? the_world.sold_ns : sold_max;
		again_max = the_world.again_ns > again_max ? the_world.again_ns : again_max;
		if (failure) {
			printf("seed %llu: %s\n", (unsigned long long)seed, failure);
			if (++failed == 20)
				break;
		}
	}
	coordinator_close();
	printf("%llu seeds: %llu calls of scripts, %llu orders, %llu generations; everything sold %.2f s after the last fault on average, %.2f s at the "
	       "most; cancelled orders sold again after %.2f s, %.2f s at the most\n",
		(unsigned long long)count, (unsigned long long)calls, (unsigned long long)orders,
		(unsigned long long)generations, (double)sold_ns / 1e9 / (double)count, (double)sold_max / 1e9,
		(double)again_ns / 1e9 / (double)count, (double)again_max / 1e9);
	assert_int_equal(failed, 0);
}

static uint64_t seeds_until_found(const struct script_plant *plant)
{
	uint64_t count = number_of("SEEDS", SEEDS), seed;

	coordinator_open(plant);
	for (seed = 1; seed <= count; seed++) {
		const char *failure = world_run(&the_world, seed, false);

		if (failure) {
			printf("seed %llu: %s\n", (unsigned long long)seed, failure);
			break;
		}
	}
	coordinator_close();
	return seed <= count ? seed : 0;
}

/* These leave out a second line: what they let through meets a balance, a number or a generation that does not fit, and Redis has all tell
 * anew. So many seeds do not tell them from the real thing, and nothing is claimed of them: PLANT=name SEED=n shows one.
 */
static bool is_second_line(enum lease_plant plant)
{
	return plant == LEASE_PLANT_number_used_twice || plant == LEASE_PLANT_forgotten_grant ||
		plant == LEASE_PLANT_strange_keeps_units ||
		plant == LEASE_PLANT_return_not_repeated;
}

static void five_bugs_of_the_node_are_found(void **state)
{
	(void)state;
	for (unsigned i = 0; i < LEASE_PLANT_COUNT; i++) {
		uint64_t seed;

		if (is_second_line((enum lease_plant)(i + 1)))
			continue;
		printf("%s (%s): ", lease_plants[i].name, lease_plants[i].what);
		lease_plant = (enum lease_plant)(i + 1);
		seed = seeds_until_found(NULL);
		lease_plant = LEASE_PLANT_none;
		if (!seed)
			fail_msg("not found: %s", lease_plants[i].name);
	}
}

static void ten_bugs_of_the_scripts_are_found(void **state)
{
	(void)state;
	for (unsigned i = 0; i < script_plant_count; i++) {
		/* Not told from the real thing either, as those above. */
		if (strcmp(script_plants[i].name, "fence_outlives_a_loss") == 0 ||
			strcmp(script_plants[i].name, "stale_word_counts") == 0)
			continue;
		printf("%s (%s): ", script_plants[i].name, script_plants[i].what);
		if (!seeds_until_found(&script_plants[i]))
			fail_msg("not found: %s", script_plants[i].name);
	}
}

static int tell(uint64_t seed)
{
	const char *plant_name = getenv("PLANT");
	const struct script_plant *plant = NULL;
	const char *failure;

	for (unsigned i = 0; plant_name && i < LEASE_PLANT_COUNT; i++)
		if (strcmp(lease_plants[i].name, plant_name) == 0)
			lease_plant = (enum lease_plant)(i + 1);
	for (unsigned i = 0; plant_name && i < script_plant_count; i++)
		if (strcmp(script_plants[i].name, plant_name) == 0)
			plant = &script_plants[i];
	coordinator_open(plant);
	failure = world_run(&the_world, seed, true);
	coordinator_close();
	printf("seed %llu: %s\n", (unsigned long long)seed, failure ? failure : "all well");
	return failure != NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_sold_twice_or_lost_under_any_faults),
		cmocka_unit_test(five_bugs_of_the_node_are_found),
		cmocka_unit_test(ten_bugs_of_the_scripts_are_found),
	};

	if (getenv("SEED"))
		return tell(number_of("SEED", 1));
	if (getenv("CASE"))
		cmocka_set_test_filter(getenv("CASE"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
