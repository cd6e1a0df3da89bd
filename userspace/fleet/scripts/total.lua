-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Changes the total of a sale, or makes the sale. Arguments: the 15 of all calls, then operation id, units more or fewer, and to create either run and
-- time (ms) of a server's answer, or "any" and 0.
local s = lease_open()
local me = s.me
local operation, delta, run = ARGV[16], lease_whole(17), ARGV[18]

if s.gen and s.server == s.run and lease_knows(s, operation) then
	return lease_answer(s, 'ok')
end
if run ~= '' and not s.gen then
	-- Open at once, because nobody can hold anything of a sale that was not there. A late copy of this call must not bring back one that was
	-- lost, so it is good for moments only. Who is not sure that it is the first call for this sale says "any", and all members settle first.
	local age = s.now - lease_whole(19)
	if run ~= 'any' and (run ~= s.run or age < 0 or age > LEASE_CREATE_MS) then
		return lease_answer(s, 'refused')
	end
	lease_begin(s, run ~= 'any')
	s.open = run ~= 'any'
else
	local refusal = lease_enter(s)
	if refusal then
		return refusal
	end
	-- It knows a change that this Redis does not: they are to agree first, or one of the two is lost.
	if me.version > s.version or (me.version == s.version and me.operation ~= s.operation) then
		return lease_answer(s, 'settling')
	end
	if run ~= '' and s.version > 0 then
		return lease_answer(s, 'refused')
	end
	-- Version 0: who made the sale was cut off with what it knew. A change of a total that nobody knows would get the number of its making, and one
	-- of the two would be lost.
	if (not s.open and s.version > 0) or (run == '' and s.version == 0) then
		return lease_answer(s, 'settling')
	end
end
if s.total + delta > LEASE_UNITS_MAX then
	return lease_answer(s, 'refused')
end
if s.free + delta < 0 and delta < 0 then
	s.cut, s.cut_at, s.dirty = -delta, s.now, true
	lease_say(s, true)
	return lease_answer(s, 'short')
end
s.total = s.total + delta
if s.open then
	s.free = s.free + delta
end
s.version = s.version + 1
s.operation = operation
s.cut = 0
lease_remember(s, operation)
lease_say(s, true)
return lease_answer(s, 'ok')
