/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bugs that the simulation plants into lease.c, to prove that it would see them (those of the scripts are in tests/sim/plants.c). Each stands in one
 * place of the code. Unlike those of sluice/plant.h they are chosen when the simulation runs, so that one program has them all; in every other
 * build there is nothing of them.
 */
#ifndef SLUICE_FLEET_LEASE_PLANT_H
#define SLUICE_FLEET_LEASE_PLANT_H

#define LEASE_PLANTS(X) \
	X(number_used_twice, "a new daemon takes the next number of an operation that its predecessor may have sent") \
	X(forgotten_grant, "a grant whose answer was lost is not asked again before its number is used for a return") \
	X(grant_taken_twice, "the answer to a grant is taken each time that it is heard") \
	X(return_before_gate, "units are given back that the gate has just sold") \
	X(promise_not_kept, "the ledger does not know which generation the node has promised itself to") \
	X(strange_keeps_units, \
		"a node that may have been fenced keeps what it holds when Redis has forgotten the fence") \
	X(sells_while_strange, "a daemon that has just started sells before it has heard whether it was fenced") \
	X(bows_and_keeps, "a node that was fenced keeps what it has not sold") \
	X(return_not_repeated, "a return is in the ledger and Redis is not told of it")

enum lease_plant {
	LEASE_PLANT_none,
#define X(name, what) LEASE_PLANT_##name,
	LEASE_PLANTS(X)
#undef X
};

#ifdef LEASE_PLANT_AT_RUN
extern enum lease_plant lease_plant;
#define lease_planted(name) (lease_plant == LEASE_PLANT_##name)
#else
#define lease_planted(name) 0
#endif

#endif
