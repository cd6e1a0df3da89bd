/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The model's deny and allow lists: every entry is looked at, bit by bit. An allow entry beats any deny entry; of several that match, the
 * longest counts the hit, as long as the gate promises hits to be exact.
 */
#include "model_inside.h"

static struct model_listed *find(struct model *model, const struct model_addr *addr, bool allow)
{
	struct model_listed *best = NULL;
	uint64_t wall = model->clock.lists + model->wall_offset;

	for (unsigned i = 0; i < model->listed_count; i++) {
		struct model_listed *entry = &model->listed[i];

		/* An IPv6 prefix that covers all of ::/64 does not mean the IPv4 addresses. */
		if (model_addr_is_ip4(addr) && entry->bits <= 96)
			continue;
		if (entry->allow != allow || !model_addr_covers(&entry->addr, entry->bits, addr))
			continue;
		/* Whether it still matched may show in its hits alone, or in what shadow mode has counted. */
		if (entry->expires && !entry->estimated)
			model_set_checked(model, &entry->hits, entry->hits);
		else if (entry->expires)
			model_shadow_checked(model, false, model->shadow_deny, SLUICE_REASON_DENIED);
		if ((!entry->expires || entry->expires > wall) && (!best || entry->bits > best->bits))
			best = entry;
	}
	return best;
}

void model_list_estimate(struct model *model, struct model_listed *busy)
{
	busy->estimated = true;
	for (unsigned i = 0; i < model->listed_count; i++) {
		struct model_listed *other = &model->listed[i];
		unsigned bits = other->bits < busy->bits ? other->bits : busy->bits;

		if (!other->allow && model_addr_covers(&other->addr, bits, &busy->addr))
			other->estimated = true;
	}
}

static void count(struct model *model, struct model_listed *entry)
{
	if (entry->estimated)
		return;
	if (!entry->allow && entry->hits == SLUICE_LIST_EXACT_HITS)
		model_list_estimate(model, entry);
	else if (entry->expires)
		model_set_checked(model, &entry->hits, entry->hits + 1);
	else
		model_set(model, &entry->hits, entry->hits + 1);
}

enum model_list model_list_find(struct model *model, const struct model_addr *addr)
{
	struct model_listed *entry = find(model, addr, true);

	if (!entry)
		entry = find(model, addr, false);
	if (!entry)
		return LIST_NONE;
	count(model, entry);
	if (!entry->allow && model_shadow_checked(model, true, model->shadow_deny, SLUICE_REASON_DENIED))
		return LIST_NONE;
	return entry->allow ? LIST_ALLOWED : LIST_DENIED;
}
