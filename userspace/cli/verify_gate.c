/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's maps as `sluice verify` sees them: the words of all sales, then the tables, then the words once more. Only reads. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/verify.h"
#include "common/maps.h"
#include "common/timefmt.h"

#define BATCH_ENTRIES 4096
/* The daemon gives a sign of life every 5 ms; one that comes so late may have been kept from the CPU. */
#define SIGN_OF_LIFE_US 500000
#define SIGN_POLL_US 1000

static uint64_t heartbeat_of(const struct gate_maps *maps)
{
	return __atomic_load_n(&maps->control->heartbeat_mono, __ATOMIC_ACQUIRE);
}

bool verify_gate_is_fresh(const struct gate_maps *maps)
{
	uint64_t heartbeat = heartbeat_of(maps);

	return heartbeat && time_mono_ns() < heartbeat + SLUICE_HEARTBEAT_MAX_NS;
}

bool verify_daemon_lives(const struct gate_maps *maps)
{
	uint64_t heartbeat = heartbeat_of(maps);

	for (int waited = 0; waited < SIGN_OF_LIFE_US && verify_gate_is_fresh(maps); waited += SIGN_POLL_US) {
		if (heartbeat_of(maps) != heartbeat)
			return true;
		usleep(SIGN_POLL_US);
	}
	return false;
}

static void read_slot(const struct gate_maps *maps, unsigned i, struct verify_slot *slot)
{
	const struct sluice_sale *sale = &maps->sales[i];

	slot->id = __atomic_load_n(&sale->id, __ATOMIC_ACQUIRE);
	slot->flags = __atomic_load_n(&sale->flags, __ATOMIC_ACQUIRE);
	slot->per_buyer = __atomic_load_n(&sale->per_buyer, __ATOMIC_ACQUIRE);
	slot->opens_ns = __atomic_load_n(&sale->opens_wall, __ATOMIC_ACQUIRE);
	slot->ends_ns = __atomic_load_n(&sale->ends_wall, __ATOMIC_ACQUIRE);
	slot->free = __atomic_load_n(&maps->stock[i].free, __ATOMIC_ACQUIRE);
	slot->taken = __atomic_load_n(&maps->stock[i].taken, __ATOMIC_ACQUIRE);
}

static int take_admission(struct verify_gate *gate, const void *key, const void *value)
{
	struct verify_admission *admission =
		verify_append(&gate->admissions, &gate->admission_count, &gate->admission_capacity, sizeof(*admission));
	struct sluice_admission from;

	if (!admission)
		return -ENOMEM;
	memcpy(&from, value, sizeof(from));
	memcpy(&admission->serial, key, sizeof(admission->serial));
	admission->buyer = from.buyer;
	admission->admitted_ns = from.admitted_wall;
	admission->sale = from.sale;
	admission->quantity = from.quantity;
	admission->state = from.state;
	return 0;
}

static int take_buyer(struct verify_gate *gate, const void *key, const void *value)
{
	struct verify_buyer *buyer =
		verify_append(&gate->buyers, &gate->buyer_count, &gate->buyer_capacity, sizeof(*buyer));
	struct sluice_buyer_key from;
	struct sluice_buyer units;

	if (!buyer)
		return -ENOMEM;
	memcpy(&from, key, sizeof(from));
	memcpy(&units, value, sizeof(units));
	buyer->buyer = from.buyer;
	buyer->sale = from.sale;
	buyer->units = units.units;
	return 0;
}

/* Every entry of a hash, by the thousand: one system call for each would take longer than a sale that moves gives us. */
static int read_table(int fd, size_t key_size, size_t value_size, struct verify_gate *gate,
	int (*take)(struct verify_gate *, const void *, const void *))
{
	char *keys = malloc(BATCH_ENTRIES * key_size), *values = malloc(BATCH_ENTRIES * value_size);
	__u32 bucket = 0, next = 0, count;
	bool started = false, more = true;
	int err = keys && values ? 0 : -ENOMEM;

	while (!err && more) {
		count = BATCH_ENTRIES;
		err = bpf_map_lookup_batch(fd, started ? &bucket : NULL, &next, keys, values, &count, NULL);
		if (err == -ENOENT) {
			more = false;
			err = 0;
		}
		for (__u32 i = 0; !err && i < count; i++)
			err = take(gate, keys + i * key_size, values + i * value_size);
		bucket = next;
		started = true;
	}
	free(keys);
	free(values);
	return err;
}

int verify_gate_read(const struct gate_maps *maps, struct verify_gate *gate)
{
	const struct sluice_control *control = maps->control;
	int err;

	memset(gate, 0, sizeof(*gate));
	gate->attached = true;
	gate->alive = verify_daemon_lives(maps);
	gate->orders_open = __atomic_load_n(&control->flags, __ATOMIC_ACQUIRE) & SLUICE_CONTROL_ORDERS_OPEN;
	gate->in_flight = __atomic_load_n(&control->in_flight, __ATOMIC_ACQUIRE);
	for (unsigned i = 0; i < SLUICE_MAX_SALES; i++)
		read_slot(maps, i, &gate->slots[i]);
	err = read_table(maps->admissions, sizeof(__u64), sizeof(struct sluice_admission), gate, take_admission);
	if (!err)
		err = read_table(
			maps->buyers, sizeof(struct sluice_buyer_key), sizeof(struct sluice_buyer), gate, take_buyer);
	if (!err)
		return CLI_OK;
	verify_gate_free(gate);
	cli_say("cannot read the gate's tables under %s: %s", maps->pin_dir, strerror(-err));
	return err == -EPERM ? CLI_NOT_ALLOWED : CLI_FAILED;
}

void verify_gate_read_again(const struct gate_maps *maps, struct verify_gate *gate)
{
	uint64_t in_flight = __atomic_load_n(&maps->control->in_flight, __ATOMIC_ACQUIRE);

	gate->in_flight_moves = in_flight != gate->in_flight;
	for (unsigned i = 0; i < SLUICE_MAX_SALES; i++) {
		struct verify_slot *slot = &gate->slots[i], now;

		read_slot(maps, i, &now);
		slot->moving = now.id != slot->id || now.free != slot->free || now.taken != slot->taken ||
			(now.flags & SLUICE_SALE_CLOSED);
	}
}
