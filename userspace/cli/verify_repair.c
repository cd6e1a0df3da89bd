/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Mending what is certain: words of the gate that follow from the ledger, with nothing of their sale on its way. The ledger is never changed.
 *
 * Where a daemon lives, it alone may change the gate's words, and it has one way to set them from the ledger: that of a new connection. So it is asked to go that
 * way. Without a daemon the gate admits nobody (its heartbeat is old), so nothing moves, and the words are set here; the next start would set
 * the stock likewise.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/verify.h"
#include "common/maps.h"

/* Each returns whether the word was still as it was found, and is right now. */
static bool mend_stock(const struct gate_maps *maps, const struct verify_difference *difference)
{
	unsigned slot = difference->sale % SLUICE_MAX_SALES;
	__u64 found = (__u64)difference->found;

	return __atomic_load_n(&maps->sales[slot].id, __ATOMIC_ACQUIRE) == difference->sale &&
		__atomic_compare_exchange_n(&maps->stock[slot].free, &found, (__u64)difference->expected, false,
			__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool mend_buyer(const struct gate_maps *maps, const struct verify_difference *difference)
{
	const struct sluice_buyer_key key = {.buyer = difference->subject, .sale = difference->sale};
	struct sluice_buyer now = {0};

	if (bpf_map_lookup_elem(maps->buyers, &key, &now) && errno != ENOENT)
		return false;
	if ((int64_t)now.units != difference->found)
		return false;
	now.units = (__u32)difference->expected;
	return !bpf_map_update_elem(maps->buyers, &key, &now, BPF_ANY);
}

int verify_repair_maps(const struct gate_maps *maps, const struct verify_result *result, size_t *done)
{
	*done = 0;
	for (size_t i = 0; i < result->count; i++) {
		const struct verify_difference *difference = &result->differences[i];
		bool mended;

		if (!difference->certain)
			continue;
		if (verify_gate_is_fresh(maps)) {
			cli_say("a daemon lives, or did a moment ago: nothing is changed beside it. Run this again");
			return CLI_CONFLICT;
		}
		mended = difference->kind == VERIFY_STOCK_TOO_HIGH || difference->kind == VERIFY_STOCK_TOO_LOW
			? mend_stock(maps, difference)
			: mend_buyer(maps, difference);
		if (!mended) {
			cli_say("%s: it is not as it was found any more; nothing is changed there",
				verify_kinds[difference->kind].name);
			return CLI_CONFLICT;
		}
		(*done)++;
	}
	return CLI_OK;
}

int verify_repair_daemon(struct cli_api *api)
{
	return cli_api_ask(api, "setting the gate from the ledger", "POST", cli_api_path("/v1/reconcile"), NULL, NULL);
}
