-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Units for a node. Arguments: the 15 of all calls, then want, and least (what one order may need; less than that might be of no use).
local s = lease_open()
local me = s.me
local want, least = lease_whole(16), lease_whole(17)
local refusal = lease_enter_operation(s, 'grant', me.balance)
if refusal then
	return refusal
end

-- A share of what remains: large early, single units at the end. Of those only who sell or want take part.
local sharing = 1
for member, other in pairs(s.rows) do
	if member ~= me.node and other.fenced ~= s.number and math.abs(s.now - other.seen) < LEASE_WISH_MS and
		(other.rate > 0 or lease_wishes(s, member) > 0) then
		sharing = sharing + 1
	end
end
local share = math.max(math.ceil(s.free / (2 * sharing)), least, 1)
local units = math.max(math.min(want, s.free, share), 0)
local row = lease_report(s)
row.seq = me.seq -- used up also when nothing is granted: a late copy of this call must find it so
row.op = units > 0 and 'grant' or 'none'
row.units = units
row.balance = row.balance + units
row.want = want - units
row.wanted_at = s.now
s.free = s.free - units
if row.want > 0 and s.free <= 0 then
	lease_say(s)
end
return lease_answer(s, want > 0 and units == 0 and 'nothing' or 'ok')
