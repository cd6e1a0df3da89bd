/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of any store: documents and list entries, which the ledger only keeps. */
#include "common/log.h"
#include "ledger_fixture.h"

static char *get(struct ledger_fixture *fixture, const char *name)
{
	char *value = (char *)1;

	if (fixture->store->ops->document_get(fixture->store, name, &value))
		fail_msg("%s", fixture->store->error);
	return value;
}

static void put(struct ledger_fixture *fixture, const char *name, const char *value, uint64_t now_ns)
{
	if (fixture->store->ops->document_put(fixture->store, name, value, now_ns))
		fail_msg("%s", fixture->store->error);
}

static void expect_document(struct ledger_fixture *fixture, const char *name, const char *expected)
{
	char *value = get(fixture, name);

	assert_non_null(value);
	assert_string_equal(value, expected);
	free(value);
}

static void a_document_is_what_was_put_last(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_null(get(fixture, "limits"));
	put(fixture, "limits", "{\"a\":1}", NOW_NS);
	put(fixture, "answers", "", NOW_NS);
	put(fixture, "answers.cors", "\xc3\xa4 'quoted' \"twice\" \\ \n\t%s", NOW_NS);
	for (unsigned again = 0; again < 2; again++) {
		expect_document(fixture, "limits", "{\"a\":1}");
		expect_document(fixture, "answers", ""); /* empty, and there */
		expect_document(fixture, "answers.cors", "\xc3\xa4 'quoted' \"twice\" \\ \n\t%s");
		assert_null(get(fixture, "answers.")); /* a name is compared whole */
		assert_null(get(fixture, "LIMITS"));
		fixture_reopen(fixture);
	}
	put(fixture, "limits", "{\"a\":2}", NOW_NS + 1);
	expect_document(fixture, "limits", "{\"a\":2}");
}

static void a_document_of_the_greatest_size_is_kept_whole(void **state)
{
	struct ledger_fixture *fixture = *state;
	char *large = malloc(STORE_DOCUMENT_MAX + 1), *got;

	assert_non_null(large);
	for (unsigned i = 0; i < STORE_DOCUMENT_MAX; i++)
		large[i] = (char)('a' + i % 23);
	large[STORE_DOCUMENT_MAX] = '\0';
	put(fixture, "large", large, NOW_NS);
	fixture_reopen(fixture);
	got = get(fixture, "large");
	assert_non_null(got);
	assert_string_equal(got, large);
	free(got);
	free(large);
}

struct documents {
	unsigned count;
	struct store_document of[8];
};

static int take_document(const struct store_document *document, void *arg)
{
	struct documents *documents = arg;

	documents->of[documents->count++] = *document;
	return 0;
}

static void documents_are_listed_by_name(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char *const names[] = {"a-b", "a.b", "a_b", "b"}; /* in the order of bytes */
	struct documents documents = {.count = 0};

	put(fixture, names[3], "123", NOW_NS);
	put(fixture, names[2], "\xc3\xa4", NOW_NS + 1);
	put(fixture, names[1], "", NOW_NS + 2);
	put(fixture, names[0], "x", NOW_NS);
	put(fixture, names[0], "xyz9", NOW_NS + 3);
	assert_int_equal(fixture->store->ops->documents_list(fixture->store, take_document, &documents), 0);
	assert_int_equal(documents.count, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_string_equal(documents.of[i].name, names[i]);
	assert_int_equal(documents.of[0].size, 4);
	assert_int_equal(documents.of[1].size, 0);
	assert_int_equal(documents.of[2].size, 2); /* bytes, not characters */
	assert_true(documents.of[0].changed_ns == NOW_NS + 3);
	assert_true(documents.of[3].changed_ns == NOW_NS);
}

/* --- lists */

static struct store_entry entry(enum store_list list, const char *prefix, uint64_t expires_ns, const char *label)
{
	struct store_entry made = {.list = list, .expires_ns = expires_ns, .reason = "why"};

	snprintf(made.prefix, sizeof(made.prefix), "%s", prefix);
	snprintf(made.label, sizeof(made.label), "%s", label);
	return made;
}

struct entries {
	unsigned count;
	struct store_entry of[64];
};

static int take_entry(const struct store_entry *found, void *arg)
{
	struct entries *entries = arg;

	entries->of[entries->count++] = *found;
	return 0;
}

static struct entries list_all(struct ledger_fixture *fixture, unsigned limit)
{
	struct entries all = {.count = 0};
	int64_t after = 0;

	do {
		struct entries page = {.count = 0};

		if (fixture->store->ops->list_page(fixture->store, after, limit, take_entry, &page, &after))
			fail_msg("%s", fixture->store->error);
		assert_true(page.count == limit || !after);
		memcpy(&all.of[all.count], page.of, page.count * sizeof(page.of[0]));
		all.count += page.count;
	} while (after);
	return all;
}

/* The entry, or NULL; fails if it is there twice. */
static const struct store_entry *find(const struct entries *entries, enum store_list list, const char *prefix)
{
	const struct store_entry *found = NULL;

	for (unsigned i = 0; i < entries->count; i++) {
		if (entries->of[i].list != list || strcmp(entries->of[i].prefix, prefix))
			continue;
		assert_null(found);
		found = &entries->of[i];
	}
	return found;
}

static int put_entries(struct ledger_fixture *fixture, const struct store_entry *entries, unsigned count)
{
	return fixture->store->ops->list_put(fixture->store, entries, count);
}

static void an_entry_is_one_by_list_and_prefix(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_entry first[] = {entry(STORE_LIST_DENY, "192.0.2.0/24", 0, "import"),
		entry(STORE_LIST_ALLOW, "192.0.2.0/24", 5, "office"),
		entry(STORE_LIST_DENY, "2001:db8::/32", NOW_NS, "import"),
		entry(STORE_LIST_DENY, "192.0.2.0/24", 7, "by hand")}; /* of two for one the later stays */
	struct entries all;

	assert_int_equal(put_entries(fixture, first, 4), 0);
	for (unsigned again = 0; again < 2; again++) {
		all = list_all(fixture, 10);
		assert_int_equal(all.count, 3);
		assert_string_equal(find(&all, STORE_LIST_DENY, "192.0.2.0/24")->label, "by hand");
		assert_int_equal(find(&all, STORE_LIST_DENY, "192.0.2.0/24")->expires_ns, 7);
		assert_string_equal(find(&all, STORE_LIST_ALLOW, "192.0.2.0/24")->label, "office");
		assert_string_equal(find(&all, STORE_LIST_ALLOW, "192.0.2.0/24")->reason, "why");
		assert_true(find(&all, STORE_LIST_DENY, "2001:db8::/32")->expires_ns == NOW_NS);
		fixture_reopen(fixture);
	}
	assert_int_equal(put_entries(fixture, &first[0], 1), 0);
	all = list_all(fixture, 10);
	assert_int_equal(all.count, 3);
	assert_string_equal(find(&all, STORE_LIST_DENY, "192.0.2.0/24")->label, "import");
	assert_int_equal(find(&all, STORE_LIST_DENY, "192.0.2.0/24")->expires_ns, 0);
}

static void removing_tells_what_was_there(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_entry first[] = {entry(STORE_LIST_DENY, "192.0.2.1/32", 0, ""),
		entry(STORE_LIST_DENY, "192.0.2.2/32", 0, ""), entry(STORE_LIST_ALLOW, "192.0.2.1/32", 0, "")};
	const struct store_entry gone[] = {entry(STORE_LIST_DENY, "192.0.2.1/32", 99, "another label"),
		entry(STORE_LIST_DENY, "192.0.2.9/32", 0, ""), entry(STORE_LIST_DENY, "192.0.2.1/32", 0, "")};
	unsigned removed = 9;
	struct entries all;

	assert_int_equal(put_entries(fixture, first, 3), 0);
	assert_int_equal(fixture->store->ops->list_remove(fixture->store, gone, 3, &removed), 0);
	assert_int_equal(removed, 1);
	all = list_all(fixture, 10);
	assert_int_equal(all.count, 2);
	assert_null(find(&all, STORE_LIST_DENY, "192.0.2.1/32"));
	assert_non_null(find(&all, STORE_LIST_ALLOW, "192.0.2.1/32"));
	assert_int_equal(fixture->store->ops->list_remove(fixture->store, gone, 3, &removed), 0);
	assert_int_equal(removed, 0);
}

static void pages_of_entries_hold_each_once(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_entry made[40];
	char prefix[32];

	for (unsigned i = 0; i < 40; i++) {
		snprintf(prefix, sizeof(prefix), "10.0.0.%u/32", i * 7 % 40);
		made[i] = entry(STORE_LIST_DENY, prefix, 0, "x");
	}
	assert_int_equal(put_entries(fixture, made, 40), 0);
	for (unsigned limit = 1; limit <= 41; limit += 8) {
		struct entries all = list_all(fixture, limit);

		assert_int_equal(all.count, 40);
		for (unsigned i = 0; i < 40; i++)
			assert_non_null(find(&all, STORE_LIST_DENY, made[i].prefix));
	}
}

static unsigned clear(struct ledger_fixture *fixture, enum store_list list, const char *label)
{
	unsigned removed = 9;
	bool more = true;

	if (fixture->store->ops->list_clear(fixture->store, list, label, &removed, &more))
		fail_msg("%s", fixture->store->error);
	assert_false(more);
	return removed;
}

static void a_list_is_cleared_by_label_or_whole(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_entry made[] = {entry(STORE_LIST_DENY, "10.0.0.1/32", 0, "bots"),
		entry(STORE_LIST_DENY, "10.0.0.2/32", 0, "bots"), entry(STORE_LIST_DENY, "10.0.0.3/32", 0, "bot"),
		entry(STORE_LIST_DENY, "10.0.0.4/32", 0, ""), entry(STORE_LIST_ALLOW, "10.0.0.1/32", 0, "bots")};

	assert_int_equal(put_entries(fixture, made, 5), 0);
	assert_int_equal(clear(fixture, STORE_LIST_DENY, "nobody"), 0);
	assert_int_equal(clear(fixture, STORE_LIST_DENY, "bots"), 2);
	assert_int_equal(list_all(fixture, 10).count, 3);
	assert_int_equal(clear(fixture, STORE_LIST_DENY, ""), 1); /* those without a label */
	assert_int_equal(clear(fixture, STORE_LIST_DENY, NULL), 1);
	assert_int_equal(list_all(fixture, 10).count, 1);
	assert_int_equal(clear(fixture, STORE_LIST_ALLOW, NULL), 1);
	assert_int_equal(list_all(fixture, 10).count, 0);
}

static void a_large_list_is_cleared_in_bounded_steps(void **state)
{
	struct ledger_fixture *fixture = *state;
	static struct store_entry made[STORE_ENTRIES_MAX];
	unsigned total = STORE_CLEAR_MAX + STORE_ENTRIES_MAX, removed = 0;
	bool more = false;

	for (unsigned i = 0; i < total; i += STORE_ENTRIES_MAX) {
		for (unsigned j = 0; j < STORE_ENTRIES_MAX; j++) {
			made[j] = entry(STORE_LIST_DENY, "", 0, "import");
			snprintf(made[j].prefix, sizeof(made[j].prefix), "10.%u.%u.0/24", (i + j) >> 8, (i + j) & 255);
		}
		assert_int_equal(put_entries(fixture, made, STORE_ENTRIES_MAX), 0);
	}
	assert_int_equal(
		fixture->store->ops->list_clear(fixture->store, STORE_LIST_DENY, "import", &removed, &more), 0);
	assert_int_equal(removed, STORE_CLEAR_MAX);
	assert_true(more);
	assert_int_equal(clear(fixture, STORE_LIST_DENY, "import"), STORE_ENTRIES_MAX);
	assert_int_equal(list_all(fixture, 10).count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_document_is_what_was_put_last),
		TEST(a_document_of_the_greatest_size_is_kept_whole),
		TEST(documents_are_listed_by_name),
		TEST(an_entry_is_one_by_list_and_prefix),
		TEST(removing_tells_what_was_there),
		TEST(pages_of_entries_hold_each_once),
		TEST(a_list_is_cleared_by_label_or_whole),
		TEST(a_large_list_is_cleared_in_bounded_steps),
	};

	log_init("test_writer_keep", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
