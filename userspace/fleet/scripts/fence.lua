-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Takes the lease of a node away, by the operator's word: it sells nothing any more, and has sold so many. Arguments: the 15 of all calls (of the
-- node that asks), then the node, its epoch and `heard` as they were shown, how many it has sold (-1 = not known: all that it may hold), and 1 if
-- that was read from its ledger.
local s = lease_open()
local target, epoch, heard, sold, exact = lease_whole(16), lease_whole(17), lease_whole(18), lease_whole(19), ARGV[20] == '1'
local refusal = lease_enter(s)
if refusal then
	return refusal
end

local row = s.rows[target]
s.shown = row
if not row then
	return lease_answer(s, 'refused')
end
-- Done before; or it has said something since it was shown, so it is not gone, and may have sold more.
if row.epoch ~= epoch or (sold >= 0 and row.heard ~= heard) then
	return lease_answer(s, 'stale')
end
-- In state settling the balance of one that has not settled is what it was before something was lost: no bound. Nor is it one where nobody knows.
local unknown = lease_is_unknown(s, row)
local known = s.open or not lease_unmet(s, target)
local told = sold >= 0
-- Who was fenced with too few can be fenced with more, as long as there are units that nobody has.
local most = row.balance
if row.fenced == s.number then
	most = s.open and row.balance + math.max(s.free, 0) or s.total
end
if not told then
	sold = known and row.balance or LEASE_REST
elseif (known and not unknown and row.balance >= 0 and sold > most) or sold > s.total or (sold < row.sold and not exact) then
	return lease_answer(s, 'refused')
end
lease_fence(s, target, sold)
if unknown and not told then
	row.want = LEASE_REST
end
lease_say(s, true)
lease_open_if_settled(s)
return lease_answer(s, 'ok')
