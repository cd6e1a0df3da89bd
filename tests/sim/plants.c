/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bugs for the scripts of the lease protocol. The simulation must find each. */
#include "coordinator.h"

const struct script_plant script_plants[] = {
	{"grant_done_again", "a grant that is heard twice is done twice", "a generation without need",
		{{"prelude",
			 "if me.seq < row.seq or (me.seq == row.seq and (row.op == op or (op == 'grant' and row.op == 'none'))) then",
			 "if op ~= 'grant' and me.seq <= row.seq then"},
			{"prelude", "if me.seq ~= row.seq + 1 or before ~= row.balance then", "if false then"}}},
	{"empty_grant_uses_no_number", "a grant of nothing leaves its number to the next operation", "leased twice",
		{{"grant", "row.seq = me.seq --", "row.seq = units > 0 and me.seq or row.seq --"},
			{"prelude", "if me.seq ~= row.seq + 1 or before ~= row.balance then", "if false then"}}},
	{"generation_not_asked", "a call of another generation is done", "leased twice",
		{{"prelude", "if me.generation ~= s.gen then", "if me.generation == '' then"}}},
	{"process_not_asked", "a replica that was made master goes on with what it has", "leased twice",
		{{"prelude", "if s.server ~= s.run then", "if false then"}}},
	{"mastership_not_asked", "a master that is one again, with older data, goes on: it is the process of before",
		"leased twice", {{"prelude", "string.sub(about, mastership + 1, mastership + 20) .. ", ""}}},
	{"later_promise_ignored", "an old master serves a node that has settled with the new one", "are sold",
		{{"prelude", "if lease_generation_number(me.generation) >= s.number then", "if false then"},
			{"prelude", "if me.generation ~= s.gen then",
				"if lease_generation_number(me.generation) < s.number then"}}},
	{"open_before_all_settled", "units are counted as free before every member has said what it holds",
		"leased twice",
		{{"prelude",
			"		if lease_unmet(s, member) then\n			return\n		end",
			"		if false then\n			return\n		end"}}},
	{"fence_frees_what_was_sold", "a fence frees what the node has sold too", "leased twice",
		{{"fence", "lease_fence(s, target, sold)", "lease_fence(s, target, 0)"}}},
	{"epoch_not_asked", "a node that was fenced goes on with its lease", "leased twice",
		{{"prelude", "if me.epoch < row.epoch then", "if false then"}}},
	{"fence_outlives_a_loss", "who was fenced before something was lost is not waited for", "leased twice",
		{{"prelude", "if keep and row.fenced == s.number", "if row.fenced == s.number"}}},
	{"new_member_unannounced", "a node takes part that the ledgers of the others do not know of", "leased twice",
		{{"prelude", "				return lease_regen(s, true)",
			"				s.members[member] = true\n				s.members_text = lease_list(s.members)\n				s.begun = true\n				s.rows[member] = lease_row_read()\n"
			"				lease_touch(s, member).settled = s.number\n				s.shown = s.rows[me.node]"}}},
	{"more_than_free", "more is granted than is free", "leased twice",
		{{"grant", "math.min(want, s.free, share)", "math.min(want, share)"}}},
	{"stale_word_counts", "a report that comes late is taken for the node's word", "a generation without need",
		{{"settle", "elseif row.settled ~= s.number then",
			"elseif row.settled ~= s.number or me.seq < row.seq then"}}},
};

const unsigned script_plant_count = sizeof(script_plants) / sizeof(script_plants[0]);
