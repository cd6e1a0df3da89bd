/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens over their lives, by the routes that issue them and take them back: on real BPF maps (needs root) and a state directory of their own. The wall clock
 * goes by what a test adds to it; the listener is made up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/fleet_homes.h"
#include "daemon/fleet_keys.h"
#include "daemon/fleet_leases.h"
#include "daemon/http_public.h"
#include "daemon/issue.h"
#include "daemon/revocation.h"
#include "daemon/validate.h"

#define ENTRIES 64
#define NS_PER_S 1000000000ULL
#define HOUR_S 3600
#define TTL_S (2 * HOUR_S)
#define SALE 7
#define SLUG "drop"
#define BUYER "anna"
#define IN_2110_S 4418064000LL /* more than 32 bits can hold */

struct place {
	struct daemon daemon;
	char dir[64], file[96];
};

static struct {
	int64_t wall_ahead_s;
	struct sluice_sale slots[SLUICE_MAX_SALES];
	struct sluice_stock stocks[SLUICE_MAX_SALES];
	struct sluice_key keys[2];
	/* the answer that went out */
	unsigned status;
	char code[32];
	json_t *json;
} world;

/* --- what stands in for the machine and the rest of the daemon --- */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	int err = (int)syscall(SYS_clock_gettime, clock, now);

	if (clock == CLOCK_REALTIME)
		now->tv_sec += world.wall_ahead_s;
	return err;
}

static enum MHD_Result tell(unsigned status, const char *code, json_t *json)
{
	json_decref(world.json);
	world.status = status;
	snprintf(world.code, sizeof(world.code), "%s", code);
	world.json = json;
	return MHD_YES;
}

enum MHD_Result http_send_json(struct http_request *request, unsigned status, json_t *json)
{
	(void)request;
	return tell(status, "", json);
}

enum MHD_Result http_problem(struct http_request *request, unsigned status, const char *code, const char *format, ...)
{
	(void)request;
	(void)format;
	return tell(status, code, NULL);
}

enum MHD_Result http_problem_field(
	struct http_request *request, unsigned status, const char *code, const char *field, const char *format, ...)
{
	(void)request;
	(void)field;
	(void)format;
	return tell(status, code, NULL);
}

enum MHD_Result http_problem_retry(struct http_request *request, unsigned status, const char *code,
	unsigned retry_after_s, const char *format, ...)
{
	(void)request;
	(void)retry_after_s;
	(void)format;
	return tell(status, code, NULL);
}

enum MHD_Result http_send_invalid(struct http_request *request, const struct validate_error *error)
{
	(void)request;
	return tell(error->status, error->code, NULL);
}

json_t *http_read_json(struct http_request *request, enum MHD_Result *result)
{
	(void)result;
	return json_loads(request->body, 0, NULL);
}

bool http_find_sale(struct http_request *request, struct sale *sale, enum MHD_Result *result)
{
	(void)result;
	return !sales_find(request->d->sales, request->captures[0], sale);
}

/* This node is alone. */
void fleet_leases_widen(struct daemon *d, uint32_t sale, uint64_t *total, uint64_t *free_units)
{
	(void)d;
	(void)sale;
	(void)total;
	(void)free_units;
}

enum fleet_keys_standing fleet_keys_standing(const struct daemon *d)
{
	(void)d;
	return FLEET_KEYS_AGREED;
}

struct home_question *fleet_homes_ask(
	struct daemon *d, const struct sale *sale, uint64_t buyer, void (*wake)(void *arg), void *arg)
{
	(void)d;
	(void)sale;
	(void)buyer;
	(void)wake;
	(void)arg;
	return NULL;
}

void fleet_homes_wait(struct daemon *d, struct home_question *question)
{
	(void)d;
	(void)question;
}

enum home_answer fleet_homes_answer(const struct home_question *question, unsigned *node)
{
	(void)question;
	(void)node;
	return HOME_UNKNOWN;
}

void fleet_homes_release(struct daemon *d, struct home_question *question)
{
	(void)d;
	(void)question;
}

/* --- the place --- */
static int make_map(size_t key, size_t value)
{
	return bpf_map_create(BPF_MAP_TYPE_HASH, "test_tokens", (uint32_t)key, (uint32_t)value, ENTRIES, NULL);
}

static uint64_t now_s(void)
{
	return time_wall_ns() / NS_PER_S;
}

/* Open since a minute, until the given second. */
static struct sale set_sale(struct place *place, uint64_t opens_s, uint64_t ends_s)
{
	json_t *json = json_pack("{s:i, s:s, s:I, s:I, s:i, s:i, s:i, s:s, s:i, s:b, s:b, s:i, s:i, s:i, s:i}", "id",
		SALE, "slug", SLUG, "opens_ns", (json_int_t)(opens_s * NS_PER_S), "ends_ns",
		(json_int_t)(ends_s * NS_PER_S), "per_buyer", 4, "hold_seconds", 900, "pace_per_second", 0,
		"order_mode", "confirm", "token_multiplier", 0, "paused", false, "ended", false, "put_in", 10, "held",
		0, "confirmed", 0, "orders", 0);
	struct sale sale;

	assert_int_equal(sales_learn(place->daemon.sales, json, &sale), 0);
	json_decref(json);
	sales_fill_slot(place->daemon.sales, &sale, 10);
	return sale;
}

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof(*place));
	struct daemon *d = &place->daemon;
	char error[256];

	*state = place;
	memset(&world, 0, sizeof(world));
	log_init("test", LOG_ERROR_LEVEL);
	snprintf(place->dir, sizeof(place->dir), "/tmp/sluice-tokens-%ld-XXXXXX", (long)getpid());
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->file, sizeof(place->file), "%s/revoked", place->dir);
	snprintf(d->config.daemon.state_dir, sizeof(d->config.daemon.state_dir), "%s", place->dir);
	snprintf(d->keys_path, sizeof(d->keys_path), "%s/keys", place->dir);
	d->config.daemon.token_ttl_s = TTL_S;
	d->config.daemon.public_tokens = true;
	d->maps = (struct gate_maps){.sales = world.slots, .stock = world.stocks, .keys = world.keys};
	d->maps.admissions = make_map(sizeof(__u64), sizeof(struct sluice_admission));
	d->maps.issued = make_map(sizeof(struct sluice_buyer_key), sizeof(struct sluice_issued));
	d->maps.buyers = make_map(sizeof(struct sluice_buyer_key), sizeof(struct sluice_buyer));
	pthread_rwlock_init(&d->keys_lock, NULL);
	pthread_mutex_init(&d->change_lock, NULL);
	atomic_store(&d->sales_known, true);
	d->sales = sales_new(&d->maps);
	d->orders = orders_new();
	d->issuer = issuer_new(&d->config);
	d->revocations = revocation_open(d, error, sizeof(error));
	if (token_keys_load(&d->keys, d->keys_path, error, sizeof(error)) || !d->revocations)
		return -1;
	issue_publish_keys(d);
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;
	struct daemon *d = &place->daemon;
	const int maps[] = {d->maps.admissions, d->maps.issued, d->maps.buyers};

	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
		if (maps[i] >= 0)
			close(maps[i]);
	revocation_close(d->revocations);
	issuer_free(d->issuer);
	orders_free(d->orders);
	sales_free(d->sales);
	json_decref(world.json);
	unlink(place->file);
	unlink(d->keys_path);
	rmdir(place->dir);
	free(place);
	return 0;
}

/* Without privilege there is no map, and the test is skipped. */
static struct place *need_place(void **state)
{
	struct place *place = *state;

	if (place->daemon.maps.admissions < 0) {
		print_message("needs root to create BPF maps\n");
		skip();
	}
	return place;
}

/* Nothing of the gate's admissions is left, and the daemon starts. */
static void forget_gate(struct place *place)
{
	struct daemon *d = &place->daemon;
	char error[256] = "";

	close(d->maps.admissions);
	d->maps.admissions = make_map(sizeof(__u64), sizeof(struct sluice_admission));
	revocation_close(d->revocations);
	d->revocations = revocation_open(d, error, sizeof(error));
	assert_string_equal(error, "");
}

/* --- asking --- */
static void ask(struct place *place, enum MHD_Result (*handle)(struct http_request *), json_t *body)
{
	char *text = json_dumps(body, JSON_COMPACT);
	struct http_request request = {
		.d = &place->daemon, .captures = {SLUG}, .body = text, .body_length = strlen(text)};

	json_decref(body);
	assert_int_equal(handle(&request), MHD_YES);
	free(text);
}

static void ask_token(struct place *place, enum MHD_Result (*handle)(struct http_request *), unsigned quantity)
{
	ask(place, handle, json_pack("{s:s, s:i}", "buyer", BUYER, "quantity", (int)quantity));
}

/* The shop's own issue. */
static struct sluice_token issue(struct place *place, unsigned quantity, char text[SLUICE_TOKEN_TEXT + 1])
{
	struct sluice_token token;

	ask_token(place, http_token_post_control, quantity);
	assert_in_range(world.status, 200, 201);
	snprintf(text, SLUICE_TOKEN_TEXT + 1, "%s", json_string_value(json_object_get(world.json, "token")));
	assert_int_equal(token_open(&place->daemon.keys, text, strlen(text), &token), 0);
	return token;
}

/* What maintenance does with the entry of a revoked token when it comes by. */
static bool is_swept(struct place *place, uint64_t serial)
{
	struct sluice_admission entry;
	__u64 key = serial;

	assert_int_equal(bpf_map_lookup_elem(place->daemon.maps.admissions, &key, &entry), 0);
	if (!revocation_is_over(&place->daemon, &entry, time_wall_ns()))
		return false;
	bpf_map_delete_elem(place->daemon.maps.admissions, &key);
	return true;
}

/* --- tests --- */
static void a_buyers_token_of_a_sale_of_the_next_century_is_revoked_for_more_than_a_moment(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token token;

	set_sale(place, now_s() - 60, IN_2110_S);
	token = issue(place, 1, text);
	ask(place, control_revoke_token, json_pack("{s:s, s:s}", "sale", SLUG, "buyer", BUYER));
	assert_int_equal(world.status, 200);
	assert_false(is_swept(place, token.serial));
}

/* Whom the shop finds to be at home at another node too. */
static void such_a_token_is_also_taken_back_for_more_than_a_moment(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token token;

	set_sale(place, now_s() - 60, IN_2110_S);
	token = issue(place, 1, text);
	issue_take_back(&place->daemon, SALE, token.buyer);
	assert_false(is_swept(place, token.serial));
}

static void take_back(struct place *place, const char *text)
{
	ask(place, control_revoke_token, json_pack("{s:s}", "token", text));
	assert_int_equal(world.status, 200);
}

static void ask_publicly(struct place *place)
{
	ask_token(place, http_token_post_public, 1);
}

static void a_revoked_token_is_not_issued_again_when_it_would_have_expired(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_TOKEN_TEXT + 1], second_text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token first, second;

	set_sale(place, now_s() - 60, now_s() + 24 * HOUR_S);
	first = issue(place, 1, text);
	world.wall_ahead_s += TTL_S / 2;
	second = issue(place, 2, second_text);
	assert_int_equal(first.serial, second.serial);
	assert_true(second.expires_at_s > first.expires_at_s);
	take_back(place, text);
	world.wall_ahead_s += TTL_S / 2 + HOUR_S + 1;
	/* The other one of its serial has not expired, and would be good again. */
	assert_false(is_swept(place, first.serial));
	ask_publicly(place);
	assert_int_equal(world.status, 403);
	assert_string_equal(world.code, "token_revoked");
	world.wall_ahead_s += 24 * HOUR_S;
	assert_true(is_swept(place, first.serial));
}

static void a_revocation_lasts_as_long_as_its_sale_when_that_is_prolonged(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token token;
	uint64_t ends_s = now_s() + HOUR_S;

	set_sale(place, now_s() - 60, ends_s);
	token = issue(place, 1, text);
	take_back(place, text);
	set_sale(place, now_s() - 60, ends_s + 5 * HOUR_S);
	assert_false(is_swept(place, token.serial));
	world.wall_ahead_s += 3 * HOUR_S;
	assert_false(is_swept(place, token.serial));
	ask_publicly(place);
	assert_string_equal(world.code, "token_revoked");
	/* Also after a reboot: so says the file. */
	forget_gate(place);
	assert_true(revocation_has(&place->daemon, token.serial));
	world.wall_ahead_s += 5 * HOUR_S;
	assert_true(is_swept(place, token.serial));
}

static void after_a_postponed_opening_the_token_is_one_that_lives_through_it(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_TOKEN_TEXT + 1], again[SLUICE_TOKEN_TEXT + 1];
	uint64_t opens_s = now_s() + 300;
	struct sluice_token first, second;

	set_sale(place, opens_s, opens_s + 30 * HOUR_S);
	first = issue(place, 1, text);
	assert_true(first.expires_at_s > opens_s);
	/* To a time that the token sees: the same text is good, and comes again. */
	set_sale(place, opens_s + HOUR_S, opens_s + 30 * HOUR_S);
	issue(place, 1, again);
	assert_string_equal(again, text);
	assert_int_equal(world.status, 200);
	/* To the second of its end, and to the next day. */
	for (uint64_t later = first.expires_at_s; later <= opens_s + 24 * HOUR_S; later += 22 * HOUR_S) {
		set_sale(place, later, opens_s + 30 * HOUR_S);
		second = issue(place, 1, again);
		assert_true(second.expires_at_s > later);
		assert_int_equal(second.serial, first.serial);
		assert_int_equal(world.status, 201);
		issue(place, 1, text);
		assert_string_equal(text, again);
		assert_int_equal(world.status, 200);
	}
}

/* Recovery counts all live tokens at its end, those of a former daemon and any that were made meanwhile. */
static void no_token_is_made_before_the_live_ones_have_been_counted(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sale sale;

	sale = set_sale(place, now_s() - 60, now_s() + HOUR_S);
	atomic_store(&place->daemon.sales_known, false);
	ask_token(place, http_token_post_control, 1);
	assert_int_equal(world.status, 503);
	assert_string_equal(world.code, "writer_away");
	ask_publicly(place);
	assert_int_equal(world.status, 503);
	issue_count_live(&place->daemon);
	atomic_store(&place->daemon.sales_known, true);
	issue(place, 1, text);
	assert_int_equal(atomic_load(&sale.counts->live_tokens), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_buyers_token_of_a_sale_of_the_next_century_is_revoked_for_more_than_a_moment),
		TEST(such_a_token_is_also_taken_back_for_more_than_a_moment),
		TEST(a_revoked_token_is_not_issued_again_when_it_would_have_expired),
		TEST(a_revocation_lasts_as_long_as_its_sale_when_that_is_prolonged),
		TEST(after_a_postponed_opening_the_token_is_one_that_lives_through_it),
		TEST(no_token_is_made_before_the_live_ones_have_been_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
