/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The operator's answers on a real BPF map (needs root) and a state directory of their own: what is kept, what is refused, and that a reader
 * never sees half of one answer and half of another while they change as fast as they can.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/maps.h"
#include "daemon/answers_state.h"
#include "daemon/pipeline_impl.h"

#define CHANGES 120
#define READERS 2

struct place {
	struct daemon daemon;
	struct sluice_control control;
	struct pipeline writer; /* is away: nothing can be asked */
	char dir[64], file[96];
};

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	*state = place;
	if (!place)
		return -1;
	log_init("test", LOG_ERROR_LEVEL);
	snprintf(place->dir, sizeof(place->dir), "/tmp/sluice-answers-%ld-XXXXXX", (long)getpid());
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->file, sizeof(place->file), "%s/answers.json", place->dir);
	snprintf(
		place->daemon.config.daemon.state_dir, sizeof(place->daemon.config.daemon.state_dir), "%s", place->dir);
	place->daemon.maps.control = &place->control;
	pthread_mutex_init(&place->writer.lock, NULL);
	place->daemon.pipeline = &place->writer;
	place->daemon.maps.answers = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_answers", sizeof(uint32_t),
		sizeof(struct sluice_answer_bytes), 2 * SLUICE_ANSWER_COUNT, NULL);
	if (place->daemon.maps.answers < 0)
		return 0; /* no privilege: need_place skips the test */
	place->daemon.maps.homes = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_homes", sizeof(uint32_t),
		sizeof(struct sluice_answer_bytes), 2 * SLUICE_HOMES, NULL);
	if (place->daemon.maps.homes < 0)
		return -1;
	if (answers_write_defaults(place->daemon.maps.answers, ""))
		return -1;
	answers_start(&place->daemon);
	return 0;
}

static int remove_place(void **state)
{
	static const char *const names[] = {"", ".new", ".rejected"};
	struct place *place = *state;
	char path[128];

	answers_stop();
	if (place->daemon.maps.answers >= 0) {
		close(place->daemon.maps.answers);
		close(place->daemon.maps.homes);
	}
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s%s", place->file, names[i]);
		unlink(path);
	}
	rmdir(place->dir);
	free(place);
	return 0;
}

static struct place *need_place(void **state)
{
	struct place *place = *state;

	if (place->daemon.maps.answers < 0) {
		print_message("needs root to create BPF maps\n");
		skip();
	}
	return place;
}

static int set(struct place *place, enum sluice_answer code, const char *body, struct answers_fault *fault)
{
	int err;

	answers_lock();
	err = answers_set(&place->daemon, code,
		body ? json_pack("{s:s, s:s}", "body", body, "content_type", "text/plain") : NULL, fault);
	answers_unlock();
	return err;
}

static void read_now(struct place *place, enum sluice_answer code, char text[SLUICE_ANSWER_MAX + 1])
{
	struct sluice_answer_bytes bytes;

	assert_int_equal(answers_read(&place->daemon.maps, code, &bytes), 0);
	memcpy(text, bytes.bytes, bytes.len);
	text[bytes.len] = '\0';
}

static void a_change_is_in_use_and_kept(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_ANSWER_MAX + 1], before[SLUICE_ANSWER_MAX + 1];
	struct answers_fault fault;
	struct stat info;

	read_now(place, SLUICE_ANSWER_SOLD_OUT, before);
	assert_int_equal(access(place->file, F_OK), -1); /* nothing of the operator's, nothing to keep */
	assert_int_equal(set(place, SLUICE_ANSWER_SOLD_OUT, "all gone", &fault), 0);
	read_now(place, SLUICE_ANSWER_SOLD_OUT, text);
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\nall gone");
	assert_int_equal(place->control.answer_banks, 1u << SLUICE_ANSWER_SOLD_OUT);
	assert_int_equal(stat(place->file, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);

	/* The daemon comes back, the gate has been attached anew. */
	answers_stop();
	place->control.answer_banks = 0;
	assert_int_equal(answers_write_defaults(place->daemon.maps.answers, ""), 0);
	answers_start(&place->daemon);
	read_now(place, SLUICE_ANSWER_SOLD_OUT, text);
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\nall gone");
	assert_int_equal(set(place, SLUICE_ANSWER_SOLD_OUT, NULL, &fault), 0);
	read_now(place, SLUICE_ANSWER_SOLD_OUT, text);
	assert_string_equal(text, before);
}

static void a_start_with_nothing_new_writes_nothing(void **state)
{
	struct place *place = need_place(state);
	struct answers_fault fault;
	uint32_t banks;

	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "later", &fault), 0);
	banks = place->control.answer_banks;
	answers_stop();
	answers_start(&place->daemon);
	assert_int_equal(place->control.answer_banks, banks);
	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "later", &fault), 0);
	assert_int_equal(place->control.answer_banks, banks);
}

static void what_is_refused_leaves_everything_as_it_was(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_ANSWER_MAX + 1], too_long[SLUICE_ANSWER_MAX + 1], path[128];
	struct answers_fault fault = {0};

	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "later", &fault), 0);
	memset(too_long, 'x', SLUICE_ANSWER_MAX);
	too_long[SLUICE_ANSWER_MAX] = '\0';
	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, too_long, &fault), -EMSGSIZE);
	assert_true(fault.code == SLUICE_ANSWER_PAUSED && fault.size > SLUICE_ANSWER_MAX);
	/* The new file cannot be written: its name is a directory. */
	snprintf(path, sizeof(path), "%s.new", place->file);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_true(set(place, SLUICE_ANSWER_PAUSED, "never", &fault) < 0);
	assert_int_equal(rmdir(path), 0);
	read_now(place, SLUICE_ANSWER_PAUSED, text);
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\nlater");
	answers_stop();
	answers_start(&place->daemon);
	read_now(place, SLUICE_ANSWER_PAUSED, text);
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\nlater");
}

static void a_gate_that_cannot_be_written_takes_the_file_back(void **state)
{
	struct place *place = need_place(state);
	struct answers_fault fault;
	int good = place->daemon.maps.answers;
	char text[SLUICE_ANSWER_MAX + 1];

	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "later", &fault), 0);
	place->daemon.maps.answers = open("/dev/null", 0);
	assert_true(set(place, SLUICE_ANSWER_PAUSED, "never", &fault) < 0);
	close(place->daemon.maps.answers);
	place->daemon.maps.answers = good;
	answers_stop();
	answers_start(&place->daemon);
	read_now(place, SLUICE_ANSWER_PAUSED, text);
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\nlater");
}

static void the_origin_changes_all_answers_in_one_step(void **state)
{
	struct place *place = need_place(state);
	char text[SLUICE_ANSWER_MAX + 1], origin[ANSWER_ORIGIN_SIZE], room[880];
	struct answers_fault fault = {0};
	uint32_t banks = place->control.answer_banks, all = (1u << SLUICE_ANSWER_COUNT) - 2;

	answers_lock();
	assert_int_equal(answers_set_origin(&place->daemon, "https://shop.example", &fault), 0);
	answers_unlock();
	assert_int_equal(place->control.answer_banks ^ banks, all);
	answers_origin(origin);
	assert_string_equal(origin, "https://shop.example");
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		read_now(place, (enum sluice_answer)code, text);
		assert_non_null(strstr(text, "Access-Control-Allow-Origin: https://shop.example\r\n"));
	}
	/* One answer without room for another header keeps all of them as they are. */
	answers_lock();
	assert_int_equal(answers_set_origin(&place->daemon, "", &fault), 0);
	memset(room, 'x', sizeof(room) - 1);
	room[sizeof(room) - 1] = '\0';
	assert_int_equal(answers_set(&place->daemon, SLUICE_ANSWER_SOLD_OUT,
				 json_pack("{s:s, s:s}", "body", room, "content_type", "text/plain"), &fault),
		0);
	banks = place->control.answer_banks;
	assert_int_equal(answers_set_origin(&place->daemon, "https://shop.example", &fault), -EMSGSIZE);
	answers_unlock();
	assert_int_equal(fault.code, SLUICE_ANSWER_SOLD_OUT);
	assert_int_equal(place->control.answer_banks, banks);
	answers_origin(origin);
	assert_string_equal(origin, "");
}

/* --- other nodes ------------------------------------------------------------------------------------------------------------ */
static void name_nodes(struct place *place, unsigned count, const char *url)
{
	struct config *config = &place->daemon.config;

	config->node_count = count;
	for (unsigned i = 0; i < count; i++) {
		config->nodes[i].id = i + 1;
		snprintf(config->nodes[i].url, sizeof(config->nodes[i].url), "%s%u.example", url, i + 1);
	}
}

static void restart(struct place *place);

static bool home_says(struct place *place, unsigned node, const char *part)
{
	static const char token[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
	struct sluice_answer_bytes bytes;
	char text[SLUICE_ANSWER_MAX + 1];

	assert_int_equal(answers_read_home(&place->daemon.maps, node, &bytes), 0);
	text[answer_fill_home(&bytes, token, text)] = '\0';
	return strstr(text, part) != NULL;
}

static void homes_are_those_of_the_config(void **state)
{
	struct place *place = need_place(state);
	char location[160];

	assert_false(home_says(place, 1, "Location"));
	name_nodes(place, 3, "https://shop");
	restart(place);
	for (unsigned node = 1; node <= 3; node++) {
		snprintf(location, sizeof(location), " https://shop%u.example/v1/orders/0123", node);
		assert_true(home_says(place, node, location));
		assert_true(home_says(place, node, "\"code\":\"wrong_node\""));
	}
	assert_false(home_says(place, 0, "Location"));
	assert_false(home_says(place, 4, "Location"));
	assert_false(home_says(place, SLUICE_HOMES + 1, "Location"));
	assert_false(home_says(place, UINT32_MAX, "Location"));
	assert_true(home_says(place, 4, "\"code\":\"wrong_node\""));
	/* Nodes that are gone from the config are gone, in whichever bank they were; and others have moved. */
	name_nodes(place, 2, "http://node");
	restart(place);
	assert_false(home_says(place, 3, "Location"));
	assert_true(home_says(place, 2, "http://node2.example/v1/orders/"));
	name_nodes(place, 0, "");
	restart(place);
	for (unsigned node = 1; node <= 3; node++)
		assert_false(home_says(place, node, "Location"));
}

static void a_restart_with_the_same_nodes_writes_nothing(void **state)
{
	struct place *place = need_place(state);
	uint32_t banks;

	name_nodes(place, 3, "https://shop");
	restart(place);
	banks = place->control.answer_banks;
	restart(place);
	assert_int_equal(place->control.answer_banks, banks);
}

static void an_operators_answer_and_the_origin_hold_for_every_home(void **state)
{
	struct place *place = need_place(state);
	struct answers_fault fault = {0};
	char room[760], text[SLUICE_ANSWER_MAX + 1];
	uint32_t banks;

	name_nodes(place, 3, "https://shop");
	restart(place);
	banks = place->control.answer_banks;
	assert_int_equal(set(place, SLUICE_ANSWER_WRONG_NODE, "go there", &fault), 0);
	assert_int_equal(place->control.answer_banks ^ banks, 1u << SLUICE_ANSWER_WRONG_NODE);
	answers_lock();
	assert_int_equal(answers_set_origin(&place->daemon, "https://page.example", &fault), 0);
	answers_unlock();
	for (unsigned node = 1; node <= 3; node++) {
		assert_true(home_says(place, node, "\r\n\r\ngo there"));
		assert_true(home_says(place, node, "Access-Control-Allow-Origin: https://page.example\r\n"));
		assert_true(home_says(place, node, "Access-Control-Expose-Headers: Location\r\n"));
	}
	read_now(place, SLUICE_ANSWER_WRONG_NODE, text);
	assert_null(strstr(text, "Location"));
	/* It must fit with the address, not only without: else everything stays. */
	banks = place->control.answer_banks;
	memset(room, 'x', sizeof(room) - 1);
	room[sizeof(room) - 1] = '\0';
	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, room, &fault), 0);
	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, NULL, &fault), 0);
	banks = place->control.answer_banks;
	assert_int_equal(set(place, SLUICE_ANSWER_WRONG_NODE, room, &fault), -EMSGSIZE);
	assert_int_equal(fault.code, SLUICE_ANSWER_WRONG_NODE);
	assert_true(fault.size > SLUICE_ANSWER_MAX);
	assert_int_equal(place->control.answer_banks, banks);
	assert_true(home_says(place, 2, "\r\n\r\ngo there"));
	assert_int_equal(set(place, SLUICE_ANSWER_WRONG_NODE, NULL, &fault), 0);
	assert_true(home_says(place, 2, "\"code\":\"wrong_node\""));
}

/* A config whose nodes have longer names than the operator's answer leaves room for: the default with the address is worth more. */
static void an_operators_answer_without_room_for_an_address_is_left_out(void **state)
{
	struct place *place = need_place(state);
	struct answers_fault fault = {0};
	char room[800];

	memset(room, 'x', sizeof(room) - 1);
	room[sizeof(room) - 1] = '\0';
	assert_int_equal(set(place, SLUICE_ANSWER_WRONG_NODE, room, &fault), 0);
	name_nodes(place, 2, "https://shop");
	restart(place);
	assert_null(answers_custom(SLUICE_ANSWER_WRONG_NODE));
	assert_true(home_says(place, 2, "https://shop2.example/v1/orders/"));
}

static void a_spoilt_file_is_put_aside(void **state)
{
	static const char *const spoilt[] = {"", "{", "[]", "{\"version\":1}", "{\"version\":2,\"answers\":{}}",
		"{\"version\":1,\"answers\":{\"gone\":{\"body\":\"\"}}}",
		"{\"version\":1,\"answers\":{\"paused\":\"later\"}}",
		"{\"version\":1,\"answers\":{},\"cors_origin\":\"https://a\\r\\nb\"}"};
	struct place *place = need_place(state);
	char aside[128];

	snprintf(aside, sizeof(aside), "%s.rejected", place->file);
	for (size_t i = 0; i < sizeof(spoilt) / sizeof(spoilt[0]); i++) {
		char text[SLUICE_ANSWER_MAX + 1];
		FILE *file = fopen(place->file, "w");

		assert_non_null(file);
		fputs(spoilt[i], file);
		fclose(file);
		unlink(aside);
		answers_stop();
		answers_start(&place->daemon);
		assert_int_equal(access(aside, F_OK), 0);
		assert_int_equal(access(place->file, F_OK), -1);
		read_now(place, SLUICE_ANSWER_PAUSED, text);
		assert_non_null(strstr(text, "\"code\":\"paused\""));
		assert_null(answers_custom(SLUICE_ANSWER_PAUSED));
	}
}

static void restart(struct place *place)
{
	answers_stop();
	answers_start(&place->daemon);
}

static void expect_body(struct place *place, enum sluice_answer code, const char *body)
{
	char text[SLUICE_ANSWER_MAX + 1];

	read_now(place, code, text);
	assert_string_equal(strstr(text, "\r\n\r\n") + 4, body);
}

/* A directory can be opened, and reading it fails: nothing was learnt about what it holds. */
static void a_file_that_cannot_be_read_stays(void **state)
{
	struct place *place = need_place(state);
	struct answers_fault fault;
	char aside[128], text[SLUICE_ANSWER_MAX + 1];

	snprintf(aside, sizeof(aside), "%s.rejected", place->file);
	assert_int_equal(mkdir(place->file, 0700), 0);
	restart(place);
	assert_int_equal(access(aside, F_OK), -1);
	assert_int_equal(access(place->file, F_OK), 0);
	read_now(place, SLUICE_ANSWER_PAUSED, text);
	assert_non_null(strstr(text, "\"code\":\"paused\""));
	/* A change writes a file of its own: what stood there is not lost by it. */
	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "later", &fault), 0);
	assert_int_equal(rmdir(aside), 0);
	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "sooner", &fault), 0);
	assert_int_equal(access(aside, F_OK), -1);
	restart(place);
	expect_body(place, SLUICE_ANSWER_PAUSED, "sooner");
}

static void an_answer_that_does_not_fit_any_more_leaves_the_others(void **state)
{
	struct place *place = need_place(state);
	struct answers_fault fault;
	char room[880], aside[128], text[SLUICE_ANSWER_MAX + 1];

	snprintf(aside, sizeof(aside), "%s.rejected", place->file);
	memset(room, 'x', sizeof(room) - 1);
	room[sizeof(room) - 1] = '\0';
	assert_int_equal(set(place, SLUICE_ANSWER_SOLD_OUT, room, &fault), 0);
	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "later", &fault), 0);
	snprintf(place->daemon.config.daemon.cors_origin, sizeof(place->daemon.config.daemon.cors_origin),
		"https://shop.example");
	restart(place);
	assert_int_equal(access(aside, F_OK), -1);
	expect_body(place, SLUICE_ANSWER_PAUSED, "later");
	read_now(place, SLUICE_ANSWER_SOLD_OUT, text);
	assert_non_null(strstr(text, "\"code\":\"sold_out\""));
	assert_non_null(strstr(text, "Access-Control-Allow-Origin: https://shop.example\r\n"));
	/* The file has not changed, so with the origin of before it is as before. */
	*place->daemon.config.daemon.cors_origin = '\0';
	restart(place);
	expect_body(place, SLUICE_ANSWER_SOLD_OUT, room);
}

/* --- the ledger's document ---------------------------------------------------------------------------------------------------- */
#define DOCUMENT "{\"version\":1,\"answers\":{\"paused\":{\"body\":\"of the ledger\",\"content_type\":\"text/plain\"}}}"

static void write_copy(struct place *place, const char *text)
{
	FILE *file = fopen(place->file, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	restart(place);
}

static void the_ledgers_answers_take_the_place_of_the_copys(void **state)
{
	struct place *place = need_place(state);

	write_copy(place, "{\"version\":1,\"answers\":{\"paused\":{\"body\":\"{}\"},\"sold_out\":{\"body\":\"{}\"}}}");
	assert_true(answers_are_durable());
	assert_int_equal(answers_restore(&place->daemon, DOCUMENT), 0);
	expect_body(place, SLUICE_ANSWER_PAUSED, "of the ledger");
	assert_null(answers_custom(SLUICE_ANSWER_SOLD_OUT));
	restart(place); /* the copy follows */
	expect_body(place, SLUICE_ANSWER_PAUSED, "of the ledger");
}

static void what_the_ledger_has_not_got_stays_in_force(void **state)
{
	struct place *place = need_place(state);
	struct answers_fault fault;

	assert_int_equal(set(place, SLUICE_ANSWER_PAUSED, "later", &fault), 0);
	assert_false(answers_are_durable());
	restart(place);
	assert_false(answers_are_durable());
	assert_int_equal(answers_restore(&place->daemon, DOCUMENT), 0);
	expect_body(place, SLUICE_ANSWER_PAUSED, "later");
	answers_write_again(&place->daemon);
	assert_false(answers_are_durable());
}

static void a_ledger_without_answers_gets_the_copys(void **state)
{
	struct place *place = need_place(state);

	assert_int_equal(answers_restore(&place->daemon, NULL), 0);
	assert_true(answers_are_durable()); /* nothing to write */
	write_copy(place, DOCUMENT);
	assert_int_equal(answers_restore(&place->daemon, NULL), 0);
	assert_false(answers_are_durable());
	expect_body(place, SLUICE_ANSWER_PAUSED, "of the ledger");
}

static void a_document_that_is_not_understood_leaves_the_copy_in_force(void **state)
{
	static const char *const spoilt[] = {"", "{", "[]", "{\"version\":2,\"answers\":{}}"};
	struct place *place = need_place(state);

	for (size_t i = 0; i < sizeof(spoilt) / sizeof(spoilt[0]); i++) {
		write_copy(place, DOCUMENT);
		assert_int_equal(answers_restore(&place->daemon, spoilt[i]), -EINVAL);
		expect_body(place, SLUICE_ANSWER_PAUSED, "of the ledger");
		assert_false(answers_are_durable()); /* to be written over it */
	}
}

/* --- readers while it changes ------------------------------------------------------------------------------------------------ */
struct race {
	struct place *place;
	atomic_bool stop;
	atomic_uint reads, torn;
};

static void *read_on(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		struct sluice_answer_bytes bytes;
		const char *body;
		uint32_t sum = 0;

		if (answers_read(&race->place->daemon.maps, SLUICE_ANSWER_SOLD_OUT, &bytes)) {
			atomic_fetch_add(&race->torn, 1);
			break;
		}
		for (unsigned i = 0; i < bytes.len; i += 2)
			sum += (uint32_t)bytes.bytes[i] << 8 | bytes.bytes[i + 1];
		while (sum >> 16)
			sum = (sum & 0xffff) + (sum >> 16);
		body = memmem(bytes.bytes, bytes.len, "\r\n\r\n", 4);
		if (sum != bytes.sum || !body) {
			atomic_fetch_add(&race->torn, 1);
			continue;
		}
		for (const char *c = body + 4; c < (const char *)bytes.bytes + bytes.len; c++)
			if (*c != body[4]) {
				atomic_fetch_add(&race->torn, 1);
				break;
			}
		atomic_fetch_add(&race->reads, 1);
	}
	return NULL;
}

static void readers_never_see_a_mixture(void **state)
{
	struct race race = {.place = need_place(state)};
	pthread_t readers[READERS];
	char body[801];
	struct answers_fault fault;

	body[800] = '\0';
	memset(body, 'A', 800);
	assert_int_equal(set(race.place, SLUICE_ANSWER_SOLD_OUT, body, &fault), 0);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_on, &race), 0);
	for (int i = 0; i < CHANGES; i++) {
		memset(body, 'A' + i % 26, 800);
		assert_int_equal(set(race.place, SLUICE_ANSWER_SOLD_OUT, body, &fault), 0);
	}
	atomic_store(&race.stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	print_message("%u reads while %d changes were made\n", atomic_load(&race.reads), CHANGES);
	assert_int_equal(atomic_load(&race.torn), 0);
	assert_true(atomic_load(&race.reads) > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_change_is_in_use_and_kept, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_start_with_nothing_new_writes_nothing, make_place, remove_place),
		cmocka_unit_test_setup_teardown(what_is_refused_leaves_everything_as_it_was, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			a_gate_that_cannot_be_written_takes_the_file_back, make_place, remove_place),
		cmocka_unit_test_setup_teardown(the_origin_changes_all_answers_in_one_step, make_place, remove_place),
		cmocka_unit_test_setup_teardown(homes_are_those_of_the_config, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_restart_with_the_same_nodes_writes_nothing, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			an_operators_answer_and_the_origin_hold_for_every_home, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			an_operators_answer_without_room_for_an_address_is_left_out, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_spoilt_file_is_put_aside, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_file_that_cannot_be_read_stays, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			an_answer_that_does_not_fit_any_more_leaves_the_others, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			the_ledgers_answers_take_the_place_of_the_copys, make_place, remove_place),
		cmocka_unit_test_setup_teardown(what_the_ledger_has_not_got_stays_in_force, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_ledger_without_answers_gets_the_copys, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			a_document_that_is_not_understood_leaves_the_copy_in_force, make_place, remove_place),
		cmocka_unit_test_setup_teardown(readers_never_see_a_mixture, make_place, remove_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
