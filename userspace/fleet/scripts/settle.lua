-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- A node's word: what its ledger says it holds. While the state is settling, this is what counts; in state open it is a report.
-- Arguments: the 15 of all calls.
local s = lease_open()
local refusal = lease_enter_self(s)
if refusal then
	return refusal
end
local me, row = s.me, s.shown

if row.fenced == s.number then
	-- It has bowed to the fence: it took everything unsold out, and its balance is what it has truly sold.
	lease_release(s, me.node, me.balance)
	row.balance, row.seq, row.op, row.units = me.balance, me.seq, 'none', 0
	row.fenced, row.settled, row.want = 0, s.number, 0
elseif row.settled ~= s.number then
	if s.open then
		-- The sale was just created, and nobody has held anything yet.
		if me.balance ~= row.balance then
			return lease_regen(s)
		end
	end
	row.balance, row.seq, row.op, row.units = me.balance, me.seq, 'none', 0
	row.epoch, row.settled = me.epoch, s.number
elseif me.seq > row.seq or (me.seq == row.seq and me.balance ~= row.balance) or me.epoch > row.epoch then
	return lease_regen(s)
end

if me.version > s.version and s.open then
	return lease_regen(s)
end
-- Two changes of one version were made apart, the one forgotten by Redis before the other. Which of them is right nobody knows, nor what both together
-- would make: the smaller total holds, whoever tells first. What it takes away and is leased, the nodes give back.
if me.version > s.version or (me.version == s.version and me.operation ~= s.operation and
	(me.total < s.total or (me.total == s.total and me.operation < s.operation))) then
	if s.open then
		s.free = s.free + me.total - s.total
		s.cut, s.cut_at = math.max(-s.free, 0), s.now
		lease_say(s, true)
	end
	s.total, s.version, s.operation = me.total, me.version, me.operation
	lease_remember(s, me.operation)
end
lease_report(s)
if s.open and me.fence_after > 0 then
	-- Nothing is guessed: what it holds stays counted as sold until it comes back, or somebody knows better.
	for member, other in pairs(s.rows) do
		if member ~= me.node and other.fenced ~= s.number and other.settled == s.number and
			s.now - other.seen > me.fence_after + LEASE_FENCE_MARGIN_MS then
			lease_fence(s, member, other.balance)
			lease_say(s, true)
		end
	end
end
lease_open_if_settled(s)
if not s.open and (s.now - s.said >= LEASE_SAY_AGAIN_MS or s.now < s.said) then
	lease_say(s)
end
return lease_answer(s, 'ok')
