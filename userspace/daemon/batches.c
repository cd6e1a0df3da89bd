/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Admissions as batches to the writer, and its acknowledgements as settled orders. Pipeline's thread only.
 *
 * A lone order is sent at once. While two batches are on their way, what comes in waits and makes the next one larger, so batches grow
 * with the load by themselves. Promises: an order is in exactly one place (pending, in a batch, settled); a batch that was not
 * acknowledged goes back to the head of the queue in its old order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/metrics.h"
#include "daemon/pipeline_impl.h"
#include "sluice/plant.h"

void batches_enqueue(struct pipeline *p, uint64_t serial, const struct sluice_admission *admission, bool answered)
{
	int err;
	struct order *order = orders_queue(
		p->d->orders, serial, admission, sales_counts(p->d->sales, admission->sale), answered, &err);

	if (err) /* maintenance will find it in the gate's map and submit it again */
		log_error("no memory for an order; it stays in the gate and is taken up again later");
	if (!order || (planted(lost_ring_entry) && serial % 2))
		return;
	order->queued_ns = time_mono_ns();
	STAILQ_INSERT_TAIL(&p->pending, order, pending);
	p->pending_count++;
	atomic_fetch_add(&p->unsettled, 1);
}

static void fill_record(struct pipeline *p, struct order *order, struct wire_admit *record)
{
	struct sale sale;

	memset(record, 0, sizeof(*record));
	record->serial = order->serial;
	record->buyer = order->admission.buyer;
	record->source = order->admission.source;
	record->admitted_wall_ns = order->admission.admitted_wall;
	record->sale = order->admission.sale;
	record->network = order->admission.network;
	record->quantity = order->admission.quantity;
	if (!sales_find_id(p->d->sales, order->admission.sale, &sale))
		record->hold_seconds = sale.hold_seconds;
	order->hold_seconds = record->hold_seconds;
}

/* Moves what is pending into the batch and its records. */
static void fill_batch(struct pipeline *p, struct batch *batch)
{
	struct order *order;

	batch->count = 0;
	while (batch->count < WIRE_BATCH_MAX && (order = STAILQ_FIRST(&p->pending))) {
		STAILQ_REMOVE_HEAD(&p->pending, pending);
		p->pending_count--;
		fill_record(p, order, &p->records[batch->count]);
		batch->orders[batch->count++] = order;
	}
	batch->sent_ns = time_mono_ns();
	metrics_observe_batch(p->d->metrics, batch->count);
}

void batches_take_back(struct pipeline *p, struct batch *batch)
{
	while (batch->count) {
		struct order *order = batch->orders[--batch->count];

		STAILQ_INSERT_HEAD(&p->pending, order, pending);
		p->pending_count++;
	}
}

static struct batch *free_batch(struct pipeline *p)
{
	for (unsigned i = 0; i < BATCHES_IN_FLIGHT; i++)
		if (!p->batches[i].count)
			return &p->batches[i];
	return NULL;
}

int batches_send(struct pipeline *p)
{
	struct batch *batch;

	while (p->pending_count && (batch = free_batch(p))) {
		struct sent *sent = calloc(1, sizeof(*sent));
		int err;

		if (!sent)
			return -ENOMEM;
		fill_batch(p, batch);
		sent->batch = batch;
		sent->sent_ns = batch->sent_ns;
		TAILQ_INSERT_TAIL(&p->sent, sent, next);
		err = writer_link_send(
			&p->link, WIRE_ADMIT, p->records, batch->count * (uint32_t)sizeof(*p->records), &sent->id);
		if (err)
			return err;
	}
	return 0;
}

/* What a settled batch adds to the figures. One line for all that was refused: the log must not hold up a night that goes wrong. */
static void account(struct pipeline *p, unsigned count)
{
	const struct order *first_refused = NULL;
	uint64_t now = time_wall_ns();
	unsigned refused = 0;

	for (unsigned i = 0; i < count; i++) {
		const struct order *order = p->acks[i].order;

		if (p->acks[i].state == ORDER_REFUSED && !refused++)
			first_refused = order;
		if (p->acks[i].state != ORDER_REFUSED && !p->acks[i].known && now > order->admission.admitted_wall)
			metrics_observe_commit(p->d->metrics, now - order->admission.admitted_wall);
	}
	atomic_fetch_add(&p->durable, count - refused);
	atomic_fetch_add(&p->refused, refused);
	if (refused)
		log_error(
			"ALARM: the ledger refused %u orders that the gate had admitted; the first is order %016llx of sale %u. Their units are kept back: "
			"compare `sluice stock show` with the ledger",
			refused, (unsigned long long)first_refused->serial, first_refused->admission.sale);
}

int batches_acknowledge(struct pipeline *p, struct batch *batch, const struct wire_header *header, const void *body)
{
	unsigned count = batch->count, known = 0;

	if (header->type == WIRE_ERROR) {
		struct pipeline_answer answer = {0};

		questions_read_error(header, body, &answer);
		log_error("the order writer could not store %u order%s (%s: %s): orders are closed until it can", count,
			count == 1 ? "" : "s", answer.code, answer.detail);
		pipeline_note_failure(p, answer.detail);
		return -EREMOTEIO;
	}
	if (header->type != WIRE_ADMIT || header->length != count * sizeof(struct wire_ack))
		return -EPROTO;
	for (unsigned i = 0; i < count; i++) {
		struct order *order = batch->orders[i];
		struct wire_ack ack;

		memcpy(&ack, (const char *)body + i * sizeof(ack), sizeof(ack));
		if (ack.serial != order->serial || ack.status < WIRE_ACK_STORED || ack.status > WIRE_ACK_REFUSED)
			return -EPROTO;
		p->acks[i] = (struct order_ack){
			.order = order,
			.seq = ack.seq,
			.committed_ns = ack.committed_wall_ns,
			.state = ack.status == WIRE_ACK_REFUSED ? ORDER_REFUSED : order_state_of_wire(ack.order_state),
			.known = ack.status == WIRE_ACK_KNOWN,
			.counts = order->counts ? order->counts : sales_counts(p->d->sales, order->admission.sale),
		};
		if (p->acks[i].state == ORDER_STATE_COUNT)
			return -EPROTO;
		known += p->acks[i].known;
		/* Over before this daemon heard of it: whether its units are back in the gate, only a comparison tells. */
		if (p->acks[i].known && !order_is_live(p->acks[i].state))
			pipeline_compare_anew(p);
	}
	batch->count = 0;
	pipeline_note_failure(p, NULL);
	account(p, count);
	/* To find what is there already takes another time. */
	if (!known) {
		pthread_mutex_lock(&p->lock);
		drain_acknowledged(&p->drain, count, batch->sent_ns, time_mono_ns(), WIRE_BATCH_MAX);
		pthread_mutex_unlock(&p->lock);
	}
	__atomic_sub_fetch(&p->d->maps.control->in_flight, count, __ATOMIC_SEQ_CST);
	atomic_fetch_sub(&p->unsettled, count);
	orders_settle(p->d->orders, p->acks, count);
	return 0;
}

int batches_exchange_all(struct pipeline *p)
{
	struct batch *batch = &p->batches[0];

	while (p->pending_count) {
		struct wire_header header;
		const void *body;
		int err;

		fill_batch(p, batch);
		err = pipeline_exchange(
			p, WIRE_ADMIT, p->records, batch->count * (uint32_t)sizeof(*p->records), &header, &body);
		if (!err)
			err = batches_acknowledge(p, batch, &header, body);
		if (err) {
			batches_take_back(p, batch);
			return err;
		}
	}
	return 0;
}
