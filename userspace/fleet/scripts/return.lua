-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Units that a node has taken out of its gate and its ledger before it calls. Arguments: the 15 of all calls, then units.
local s = lease_open()
local me = s.me
local units = lease_whole(16)
local refusal = lease_enter_operation(s, 'return', me.balance + units)
if refusal then
	return refusal
end

local row = lease_report(s)
row.seq, row.op, row.units = me.seq, 'return', units
row.balance = row.balance - units
s.free = s.free + units
for member in pairs(s.rows) do
	if member ~= me.node and lease_wishes(s, member) > 0 then
		lease_say(s, true)
		break
	end
end
return lease_answer(s, 'ok')
