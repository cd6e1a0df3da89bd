/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Proves: which buyers a node knows of a thousand sales costs one walk of each map, and each sale gets its own, all of them, and no other's. The kernel's maps
 * are arrays here, given out in pieces.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/fleet_homes_known.h"
#include "sluice/abi.h"

#define ISSUED_FD 3
#define ADMISSIONS_FD 4
#define SALES 1024
#define EACH 10 /* entries of a sale in each map */
#define ENTRIES (SALES * EACH)
#define SALE_STEP 7 /* numbers of sales have gaps */
#define FAILING_SALES 2

static unsigned walks, entries_read;
static int failure; /* of the second piece of the second map */

static uint32_t sale_at(unsigned entry)
{
	return 1 + (entry % SALES) * SALE_STEP;
}

/* In place of libbpf's. */
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, __u32 *count,
	const struct bpf_map_batch_opts *opts)
{
	unsigned from = in_batch ? *(__u32 *)in_batch : 0, given = 0;

	(void)opts;
	walks += !in_batch;
	if (failure && fd == ADMISSIONS_FD && in_batch) {
		*count = 0;
		return failure;
	}
	for (; given < *count && from + given < ENTRIES; given++) {
		unsigned entry = from + given;

		if (fd == ISSUED_FD)
			((struct sluice_buyer_key *)keys)[given] =
				(struct sluice_buyer_key){.sale = sale_at(entry), .buyer = entry};
		else
			((struct sluice_admission *)values)[given] =
				(struct sluice_admission){.sale = sale_at(entry), .buyer = ENTRIES + entry};
	}
	entries_read += given;
	*count = given;
	*(__u32 *)out_batch = from + given;
	return from + given == ENTRIES ? -ENOENT : 0;
}

static void free_all(struct homes_known *all, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(all[i].buyers);
}

static void a_thousand_sales_cost_one_walk_of_each_map(void **state)
{
	static struct homes_known all[SALES];

	(void)state;
	failure = 0;
	walks = entries_read = 0;
	for (unsigned i = 0; i < SALES; i++)
		all[i] = (struct homes_known){.sale = sale_at(SALES - 1 - i)};
	homes_known_sort(all, SALES);
	assert_int_equal(homes_known_read(ISSUED_FD, ADMISSIONS_FD, all, SALES), 0);
	assert_int_equal(walks, 2);
	assert_int_equal(entries_read, 2 * ENTRIES);
	for (unsigned i = 0; i < SALES; i++) {
		assert_int_equal(all[i].sale, sale_at(i));
		assert_int_equal(all[i].count, 2 * EACH);
		for (unsigned n = 0; n < EACH; n++) {
			assert_int_equal(all[i].buyers[n], i + n * SALES);
			assert_int_equal(all[i].buyers[EACH + n], ENTRIES + i + n * SALES);
		}
	}
	free_all(all, SALES);
}

static void buyers_of_sales_that_are_not_asked_for_are_left_out(void **state)
{
	struct homes_known one = {.sale = sale_at(5)}, none = {.sale = sale_at(5) + 1};

	(void)state;
	failure = 0;
	assert_int_equal(homes_known_add(&one, 99), 0);
	assert_int_equal(homes_known_read(ISSUED_FD, ADMISSIONS_FD, &one, 1), 0);
	assert_int_equal(one.count, 1 + 2 * EACH);
	assert_int_equal(one.buyers[0], 99);
	assert_int_equal(homes_known_read(ISSUED_FD, ADMISSIONS_FD, &none, 1), 0);
	assert_int_equal(none.count, 0);
	free(one.buyers);
}

static void a_walk_that_breaks_off_is_an_error(void **state)
{
	struct homes_known all[FAILING_SALES] = {{.sale = sale_at(0)}, {.sale = sale_at(1)}};

	(void)state;
	failure = -EFAULT;
	assert_int_equal(homes_known_read(ISSUED_FD, ADMISSIONS_FD, all, FAILING_SALES), -EFAULT);
	free_all(all, FAILING_SALES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thousand_sales_cost_one_walk_of_each_map),
		cmocka_unit_test(buyers_of_sales_that_are_not_asked_for_are_left_out),
		cmocka_unit_test(a_walk_that_breaks_off_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
