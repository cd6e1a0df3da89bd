/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The judge from two CPUs at once. Two threads, each on a CPU of its own, run the programs in step with each other; a run of the
 * syscall program or of the XDP program is the same code, on the same maps, that two receive queues would run.
 *
 * A test here says what must hold after every round, and prints how often the two really met.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "common/timefmt.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define ROUNDS 10000
#define TOKENS 20000
#define UNITS 1000
#define ROOM 65536
#define RING_BYTES (16 << 20)
#define REQUEST_MAX 512
#define SPINS 1000

/* --- two threads in step -------------------------------------------------------------------------------------------------- */
struct side {
	struct gate *gate;
	void (*round)(struct side *side, unsigned i);
	unsigned index, rounds;
	int cpu;
	pthread_t thread;
	uint64_t reasons[SLUICE_REASON_ROWS]; /* what the call door said to this side */
	uint64_t passed, dropped, sent;       /* what the wire did */
	int *results;                         /* one per round */
};

static atomic_uint arrived[2];

/* Waits for the other side, so that both start a round within a few ns. */
static void meet(struct side *side, unsigned i)
{
	atomic_store(&arrived[side->index], i + 1);
	for (unsigned spins = 0; atomic_load(&arrived[!side->index]) < i + 1; spins++)
		if (spins > SPINS)
			sched_yield();
}

static void *run_side(void *arg)
{
	struct side *side = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(side->cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
	for (unsigned i = 0; i < side->rounds; i++) {
		meet(side, i);
		side->round(side, i);
	}
	return NULL;
}

static void run_both(struct gate *gate, struct side *sides, void (*first)(struct side *, unsigned),
	void (*second)(struct side *, unsigned), unsigned rounds)
{
	cpu_set_t allowed;
	int cpu = -1;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	for (unsigned i = 0; i < 2; i++) {
		sides[i] = (struct side){.gate = gate, .round = i ? second : first, .index = i, .rounds = rounds};
		sides[i].results = calloc(rounds, sizeof(int));
		assert_non_null(sides[i].results);
		do
			cpu = (cpu + 1) % CPU_SETSIZE; /* on a machine of one CPU both share it */
		while (!CPU_ISSET(cpu, &allowed));
		sides[i].cpu = cpu;
		atomic_store(&arrived[i], 0);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&sides[i].thread, NULL, run_side, &sides[i]), 0);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(sides[i].thread, NULL);
}

static void free_both(struct side *sides)
{
	free(sides[0].results);
	free(sides[1].results);
}

/* --- questions, written before the race ----------------------------------------------------------------------------------- */
struct question {
	char text[SLUICE_TOKEN_TEXT + 1];
	uint8_t frame[REQUEST_MAX];
	unsigned length;
};

static struct question *questions;

/* One handshake serves all frames: they are first segments of one client, who asks for many things. */
static void write_questions(struct gate *gate, unsigned count, struct sluice_token (*token_of)(unsigned i))
{
	struct frame frame = frame_syn(false);
	uint8_t bytes[FRAME_MAX];
	char request[REQUEST_MAX];

	questions = realloc(questions, count * sizeof(*questions));
	assert_non_null(questions);
	assert_int_equal(gate_handshake(gate, &frame, "", 0), 0);
	for (unsigned i = 0; i < count; i++) {
		struct sluice_token token = token_of(i);

		gate_token_text(gate, &token, questions[i].text);
		frame.payload = request;
		frame.payload_len = gate_order_request(questions[i].text, request, sizeof(request));
		questions[i].length = frame_write(&frame, bytes);
		assert_true(questions[i].length <= REQUEST_MAX);
		memcpy(questions[i].frame, bytes, questions[i].length);
	}
}

static int ask_door(struct side *side, unsigned question)
{
	struct sluice_call call = {.op = SLUICE_CALL_ORDER, .source = {.lo = 0xffff00000000ULL | 0xc000020a}};

	memcpy(call.token, questions[question].text, SLUICE_TOKEN_TEXT);
	gate_call(side->gate, &call);
	side->reasons[call.reason]++;
	return call.reason;
}

static int ask_wire(struct side *side, unsigned question)
{
	struct run run;

	gate_run_raw(side->gate, questions[question].frame, questions[question].length, &run);
	side->passed += run.action == XDP_PASS;
	side->dropped += run.action == XDP_DROP;
	side->sent += run.action == XDP_TX && !run.parsed.wrong;
	return run.action;
}

static struct sluice_token token_of_its_own_buyer(unsigned i)
{
	return gate_token(i + 1, i + 1);
}

static unsigned buyers_with(struct gate *gate, unsigned units)
{
	int fd = bpf_map__fd(gate->skel->maps.buyers);
	struct sluice_buyer_key key;
	struct sluice_buyer buyer;
	unsigned count = 0;

	for (int err = bpf_map_get_next_key(fd, NULL, &key); !err; err = bpf_map_get_next_key(fd, &key, &key))
		if (!bpf_map_lookup_elem(fd, &key, &buyer) && buyer.units == units)
			count++;
	return count;
}

/* What must hold after any race: the equation, one record on the ring and one in flight for each admission. */
static void expect_whole(struct gate *gate, unsigned put_in, unsigned admitted)
{
	assert_true(gate_is_conserved(gate, put_in));
	assert_int_equal(gate_map_count(bpf_map__fd(gate->skel->maps.admissions), sizeof(__u64)), admitted);
	assert_int_equal(gate->control->in_flight, admitted);
	assert_int_equal(gate_ring_drain(gate, NULL, 0), admitted);
}

/* --- one token ------------------------------------------------------------------------------------------------------------ */
static void same_at_the_door(struct side *side, unsigned i)
{
	side->results[i] = ask_door(side, i);
}

static void same_on_the_wire(struct side *side, unsigned i)
{
	side->results[i] = ask_wire(side, i);
}

static void one_token_on_two_cpus_takes_one_unit_at_the_call_door(void **state)
{
	struct gate *gate = *state;
	struct side sides[2];
	unsigned busy = 0;

	gate->stock[GATE_SALE].free = 2 * ROUNDS;
	write_questions(gate, ROUNDS, token_of_its_own_buyer);
	run_both(gate, sides, same_at_the_door, same_at_the_door, ROUNDS);
	for (unsigned i = 0; i < ROUNDS; i++) {
		int a = sides[0].results[i], b = sides[1].results[i];
		int loser = a == SLUICE_REASON_ADMITTED ? b : a;

		expect((a == SLUICE_REASON_ADMITTED) != (b == SLUICE_REASON_ADMITTED), "round %u: %s and %s", i,
			reason_label(a), reason_label(b));
		expect(loser == SLUICE_REASON_ADMITTED_AGAIN || loser == SLUICE_REASON_IN_PROGRESS, "round %u: %s", i,
			reason_label(loser));
		busy += loser == SLUICE_REASON_IN_PROGRESS;
	}
	print_message("           %d rounds, %u met in the claim\n", ROUNDS, busy);
	expect_whole(gate, 2 * ROUNDS, ROUNDS);
	free_both(sides);
}

static void one_token_on_two_cpus_takes_one_unit_on_the_wire(void **state)
{
	struct gate *gate = *state;
	uint64_t admitted = gate_counted(gate, SLUICE_REASON_ADMITTED),
		 again = gate_counted(gate, SLUICE_REASON_ADMITTED_AGAIN),
		 busy = gate_counted(gate, SLUICE_REASON_IN_PROGRESS);
	struct side sides[2];

	gate->stock[GATE_SALE].free = 2 * ROUNDS;
	write_questions(gate, ROUNDS, token_of_its_own_buyer);
	run_both(gate, sides, same_on_the_wire, same_on_the_wire, ROUNDS);
	admitted = gate_counted(gate, SLUICE_REASON_ADMITTED) - admitted;
	again = gate_counted(gate, SLUICE_REASON_ADMITTED_AGAIN) - again;
	busy = gate_counted(gate, SLUICE_REASON_IN_PROGRESS) - busy;
	print_message("           %d rounds, %llu met in the claim\n", ROUNDS, (unsigned long long)busy);
	assert_int_equal(admitted, ROUNDS);
	assert_int_equal(again + busy, ROUNDS);
	for (unsigned i = 0; i < ROUNDS; i++)
		assert_true(sides[0].results[i] == XDP_PASS || sides[1].results[i] == XDP_PASS);
	expect_whole(gate, 2 * ROUNDS, ROUNDS);
	free_both(sides);
}

static void one_token_at_both_doors_at_once_takes_one_unit(void **state)
{
	struct gate *gate = *state;
	struct side sides[2];
	unsigned at_door = 0;

	gate->stock[GATE_SALE].free = 2 * ROUNDS;
	write_questions(gate, ROUNDS, token_of_its_own_buyer);
	run_both(gate, sides, same_at_the_door, same_on_the_wire, ROUNDS);
	at_door = sides[0].reasons[SLUICE_REASON_ADMITTED];
	print_message("           %d rounds, %u won at the door\n", ROUNDS, at_door);
	for (unsigned i = 0; i < ROUNDS; i++)
		assert_true(sides[0].results[i] == SLUICE_REASON_ADMITTED ||
			sides[0].results[i] == SLUICE_REASON_ADMITTED_AGAIN ||
			(sides[0].results[i] == SLUICE_REASON_IN_PROGRESS && sides[1].results[i] == XDP_PASS));
	expect_whole(gate, 2 * ROUNDS, ROUNDS);
	free_both(sides);
}

/* --- the last unit -------------------------------------------------------------------------------------------------------- */
/* Each round puts one unit in and two buyers at it. */
static void try_the_last(struct side *side, unsigned i)
{
	if (i % 2 == 0) { /* even rounds put in, odd ones sell */
		if (side->index == 0)
			__atomic_fetch_add(&side->gate->stock[GATE_SALE].free, 1, __ATOMIC_SEQ_CST);
		return;
	}
	side->results[i] = ask_door(side, i - 1 + side->index);
}

static void the_last_unit_on_two_cpus_goes_to_one_buyer(void **state)
{
	struct gate *gate = *state;
	struct side sides[2];
	unsigned undone;

	gate->stock[GATE_SALE].free = 0;
	write_questions(gate, 2 * ROUNDS, token_of_its_own_buyer);
	run_both(gate, sides, try_the_last, try_the_last, 2 * ROUNDS);
	for (unsigned i = 1; i < 2 * ROUNDS; i += 2) {
		int a = sides[0].results[i], b = sides[1].results[i];

		expect((a == SLUICE_REASON_ADMITTED && b == SLUICE_REASON_SOLD_OUT) ||
				(a == SLUICE_REASON_SOLD_OUT && b == SLUICE_REASON_ADMITTED),
			"round %u: %s and %s", i, reason_label(a), reason_label(b));
	}
	/* A loser who had counted himself already leaves an entry of no units: without any, no claim was ever undone. */
	undone = buyers_with(gate, 0);
	print_message("           %d rounds, %u undone\n", ROUNDS, undone);
	assert_true(undone > 0 || sides[0].cpu == sides[1].cpu);
	assert_int_equal(gate->stock[GATE_SALE].free, 0);
	expect_whole(gate, ROUNDS, ROUNDS);
	free_both(sides);
}

/* --- a crowd -------------------------------------------------------------------------------------------------------------- */
static void all_tokens_at_the_door(struct side *side, unsigned i)
{
	ask_door(side, i);
}

static void all_tokens_on_the_wire_backwards(struct side *side, unsigned i)
{
	ask_wire(side, TOKENS - 1 - i);
}

static void many_tokens_at_both_doors_sell_the_stock_and_no_more(void **state)
{
	struct gate *gate = *state;
	uint64_t counted = gate_counted(gate, SLUICE_REASON_ADMITTED);
	struct side sides[2];

	gate->stock[GATE_SALE].free = UNITS;
	write_questions(gate, TOKENS, token_of_its_own_buyer);
	run_both(gate, sides, all_tokens_at_the_door, all_tokens_on_the_wire_backwards, TOKENS);
	counted = gate_counted(gate, SLUICE_REASON_ADMITTED) - counted;
	print_message("           %d tokens twice, %d units: %llu sold at the door, %llu on the wire\n", TOKENS, UNITS,
		(unsigned long long)sides[0].reasons[SLUICE_REASON_ADMITTED], (unsigned long long)counted);
	assert_int_equal(sides[0].reasons[SLUICE_REASON_ADMITTED] + counted, UNITS);
	assert_int_equal(gate->stock[GATE_SALE].free, 0);
	assert_int_equal(sides[1].passed + sides[1].dropped + sides[1].sent, TOKENS);
	expect_whole(gate, UNITS, UNITS);
	free_both(sides);
}

/* --- one buyer ------------------------------------------------------------------------------------------------------------ */
#define TOKENS_PER_BUYER 8

static struct sluice_token token_of_a_greedy_buyer(unsigned i)
{
	return gate_token(i + 1, i / TOKENS_PER_BUYER + 1);
}

/* Each side has half of the tokens. */
static void half_of_the_tokens(struct side *side, unsigned i)
{
	ask_door(side, 2 * i + side->index);
}

static void a_buyer_with_many_tokens_on_two_cpus_has_his_limit_and_no_more(void **state)
{
	struct gate *gate = *state;
	struct side sides[2];
	unsigned buyers = 2 * ROUNDS / TOKENS_PER_BUYER;

	gate->stock[GATE_SALE].free = 2 * ROUNDS;
	gate->sales[GATE_SALE].per_buyer = 3;
	write_questions(gate, 2 * ROUNDS, token_of_a_greedy_buyer);
	run_both(gate, sides, half_of_the_tokens, half_of_the_tokens, ROUNDS);
	assert_int_equal(
		sides[0].reasons[SLUICE_REASON_ADMITTED] + sides[1].reasons[SLUICE_REASON_ADMITTED], 3 * buyers);
	assert_int_equal(sides[0].reasons[SLUICE_REASON_BUYER_LIMIT] + sides[1].reasons[SLUICE_REASON_BUYER_LIMIT],
		(TOKENS_PER_BUYER - 3) * buyers);
	assert_int_equal(buyers_with(gate, 3), buyers);
	expect_whole(gate, 2 * ROUNDS, 3 * buyers);
	free_both(sides);
}

/* --- the operator in the middle ------------------------------------------------------------------------------------------- */
static atomic_long put_in;

/* What the daemon does for `stock add` and `stock remove`: an atomic add, and a compare-and-swap that never goes below zero. */
static void change_the_stock(struct side *side, unsigned i)
{
	__u64 *units = &side->gate->stock[GATE_SALE].free, old;

	if (i % 3) {
		__atomic_fetch_add(units, 1, __ATOMIC_SEQ_CST);
		atomic_fetch_add(&put_in, 1);
		return;
	}
	old = __atomic_load_n(units, __ATOMIC_SEQ_CST);
	while (old && !__atomic_compare_exchange_n(units, &old, old - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	if (old)
		atomic_fetch_sub(&put_in, 1);
}

static void stock_that_changes_while_it_is_sold_is_conserved(void **state)
{
	struct gate *gate = *state;
	struct side sides[2];

	gate->stock[GATE_SALE].free = 0;
	atomic_store(&put_in, 0);
	write_questions(gate, TOKENS, token_of_its_own_buyer);
	run_both(gate, sides, all_tokens_at_the_door, change_the_stock, TOKENS);
	print_message("           %ld units put in, %llu left\n", atomic_load(&put_in),
		(unsigned long long)gate->stock[GATE_SALE].free);
	expect_whole(gate, atomic_load(&put_in), sides[0].reasons[SLUICE_REASON_ADMITTED]);
	free_both(sides);
}

/* --- the ledger in the middle ---------------------------------------------------------------------------------------------- */
#define MANY 1000000

static struct sluice_token token_of_one_buyer(unsigned i)
{
	return gate_token(i + 1, 1);
}

/* Orders of the same buyer that are taken up again, and of these most are over a moment later. */
static void reclaim_and_release(struct side *side, unsigned i)
{
	struct sluice_call call = {.op = i % 4 < 2 ? SLUICE_CALL_RECLAIM : SLUICE_CALL_RELEASE,
		.admission = {.sale = GATE_SALE, .buyer = 1, .quantity = 1}};

	gate_call(side->gate, &call);
	assert_int_equal(call.reason, SLUICE_REASON_NONE);
}

static void a_count_of_a_buyer_loses_nothing_when_orders_end_while_the_judge_counts(void **state)
{
	struct sluice_buyer_key key = {.buyer = 1, .sale = GATE_SALE};
	struct gate *gate = *state;
	struct sluice_buyer buyer;
	struct side sides[2];

	gate->sales[GATE_SALE].per_buyer = MANY;
	gate->stock[GATE_SALE].free = MANY;
	write_questions(gate, TOKENS, token_of_one_buyer);
	run_both(gate, sides, all_tokens_at_the_door, reclaim_and_release, TOKENS);
	assert_int_equal(sides[0].reasons[SLUICE_REASON_ADMITTED], TOKENS);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.buyers), &key, &buyer), 0);
	assert_int_equal(buyer.units, TOKENS);
	expect_whole(gate, MANY, TOKENS);
	free_both(sides);
}

/* --- rates ---------------------------------------------------------------------------------------------------------------- */
#define BURST 5000

static void charge_the_source(struct side *side, unsigned i)
{
	struct sluice_call call = {.op = SLUICE_CALL_RATE, .source = {.lo = 0xffff00000000ULL | 0xc000020a}};

	(void)i;
	gate_call(side->gate, &call);
	side->reasons[call.reason]++;
}

/* The loser of two exchanges passes uncharged, so the rate may be exceeded by a little; it never refuses too early. */
static void a_rate_shared_by_two_cpus_is_exceeded_by_little(void **state)
{
	struct gate *gate = *state;
	struct side sides[2];
	uint64_t passed;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, BURST);
	run_both(gate, sides, charge_the_source, charge_the_source, ROUNDS);
	passed = sides[0].reasons[SLUICE_REASON_REQUEST] + sides[1].reasons[SLUICE_REASON_REQUEST];
	print_message("           burst of %d: %llu of %d passed\n", BURST, (unsigned long long)passed, 2 * ROUNDS);
	assert_in_range(passed, BURST, BURST + BURST / 50);
	free_both(sides);
}

/* A sale's pace is exact: it exchanges until it wins. */
static void the_pace_of_a_sale_is_exact_on_two_cpus(void **state)
{
	struct gate *gate = *state;
	struct side sides[2];
	uint64_t admitted, paced;

	gate->stock[GATE_SALE].free = 4 * ROUNDS;
	gate->sales[GATE_SALE].pace =
		(struct sluice_limit){.interval_ns = HOUR_NS, .tolerance_ns = (BURST - 1) * HOUR_NS};
	write_questions(gate, 2 * ROUNDS, token_of_its_own_buyer);
	run_both(gate, sides, half_of_the_tokens, half_of_the_tokens, ROUNDS);
	admitted = sides[0].reasons[SLUICE_REASON_ADMITTED] + sides[1].reasons[SLUICE_REASON_ADMITTED];
	paced = sides[0].reasons[SLUICE_REASON_PACE] + sides[1].reasons[SLUICE_REASON_PACE];
	assert_int_equal(admitted, BURST);
	assert_int_equal(paced, 2 * ROUNDS - BURST);
	expect_whole(gate, 4 * ROUNDS, BURST);
	free_both(sides);
}

static int setup_large_gate(void **state)
{
	static struct gate gate;

	gate_open(&gate, &(struct gate_sizes){.admissions = ROOM, .buyers = ROOM, .ring_bytes = RING_BYTES});
	*state = &gate;
	return 0;
}

static int close_large_gate(void **state)
{
	free(questions);
	return close_gate(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(one_token_on_two_cpus_takes_one_unit_at_the_call_door),
		gate_test(one_token_on_two_cpus_takes_one_unit_on_the_wire),
		gate_test(one_token_at_both_doors_at_once_takes_one_unit),
		gate_test(the_last_unit_on_two_cpus_goes_to_one_buyer),
		gate_test(many_tokens_at_both_doors_sell_the_stock_and_no_more),
		gate_test(a_buyer_with_many_tokens_on_two_cpus_has_his_limit_and_no_more),
		gate_test(stock_that_changes_while_it_is_sold_is_conserved),
		gate_test(a_count_of_a_buyer_loses_nothing_when_orders_end_while_the_judge_counts),
		gate_test(a_rate_shared_by_two_cpus_is_exceeded_by_little),
		gate_test(the_pace_of_a_sale_is_exact_on_two_cpus),
	};

	return cmocka_run_group_tests_name("concurrency", tests, setup_large_gate, close_large_gate);
}
