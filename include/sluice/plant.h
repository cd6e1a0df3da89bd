/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bugs that can be planted, to prove that the tests would see them. Nothing of this is in a normal build: planted() is then 0.
 *
 * Built with -DSLUICE_PLANT=name (tests/fault/rules.mk), one bug is there; tests/fault/test_planted.py demands that the history checker names
 * it. Each stands in one place of the code, under the name it has in this table.
 */
#ifndef SLUICE_PLANT_H
#define SLUICE_PLANT_H

#define SLUICE_PLANTS(X) \
	X(take_before_duplicate, "a unit is taken before a token is found to be spent, and not given back") \
	X(off_by_one, "one unit more is sold than there is") \
	X(ring_full_after_take, "the ring is found full when the unit is gone") \
	X(window_before_duplicate, "who has an order is told that the sale is over") \
	X(end_not_asked, "a sale that was ended goes on") \
	X(lost_ring_entry, "an admission is marked as queued and never sent") \
	X(stale_stock_after_restart, "what was ordered is for sale again after a restart") \
	X(buyers_not_rebuilt, "after a reboot nobody has ordered anything yet") \
	X(late_payment_takes_no_unit, "who pays after the hold gets a unit that the gate goes on selling") \
	X(double_release, "a cancellation that is repeated gives its unit back again") \
	X(acknowledge_before_commit, "an order is acknowledged, and committed with the next") \
	X(no_sync, "a commit does not wait for the disk")

enum sluice_plant {
	SLUICE_PLANT_none,
#define X(name, what) SLUICE_PLANT_##name,
	SLUICE_PLANTS(X)
#undef X
};

#ifdef SLUICE_PLANT
#define SLUICE_PLANT_JOIN(a, b) a##b
#define SLUICE_PLANT_ID(name) SLUICE_PLANT_JOIN(SLUICE_PLANT_, name)
#define planted(name) (SLUICE_PLANT_ID(SLUICE_PLANT) == SLUICE_PLANT_##name)
#else
#define planted(name) 0
#endif

#endif
