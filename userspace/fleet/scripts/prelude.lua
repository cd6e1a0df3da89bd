-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Stands before every script of this directory, and does nothing by itself. Here is how a script knows its server (server_run), and what those of
-- the lease protocol share (settle, grant, return, fence, total, rebuild, show); what the protocol promises and why it holds is in docs/fleet.md.
--
-- Their KEYS[1] is the hash of one sale's stock, PREFIX:{SLUG}:stock. Its field `head` has, with spaces between them: server (the run that wrote
-- it), gen, state (settling|open), total, version, operation (that made the version; - = none), free, cut and cut_at (units that a cut
-- of the total waits for), said (ms of the last message). `members` is "1,2,3", `ops` the last operations, and nN the row of node N: epoch seq op
-- units balance sold settled fenced seen heard want wanted_at rate origin written. settled and fenced are the number of the generation in which the node
-- was so; want is -1 of one that was fenced so that nobody knows what it holds; seen and wanted_at are ms; heard counts what the node has said; origin is where its daemon runs (- = not told), written the highest
-- sum of the numbers of the last operation and the last order that it has said its ledger has. free = total - the sum of all balances, whenever the state is open.
--
-- A script reads all that it needs, decides, and writes at its end (lease_answer): one that fails has done nothing.

local LEASE_OPS_KEPT = 32           -- operation ids that are remembered
local LEASE_WISH_MS = 3000          -- so long a wish counts that is not repeated
local LEASE_SAY_MS = 50             -- messages of one sale are no closer than that
local LEASE_SAY_AGAIN_MS = 500      -- while members are missing: who rests may not have heard the first one
local LEASE_FENCE_MARGIN_MS = 5000  -- a node stops selling by itself so long before the others fence it
local LEASE_CREATE_MS = 3000        -- a `create` that comes later than that is a copy that lingered
local LEASE_SILENT_MS = 20000       -- a node reports more often, also of what rests: one that was not heard of for so long may go on at another place
local LEASE_UNITS_MAX = 1000000000000  -- of one sale; a node reads no more (lease_book.h)
local LEASE_REST = -1               -- balance of a node that was fenced with nothing known: all that the others do not hold
local LEASE_HEAD = '^' .. string.rep('(%S+) ', 9) .. '(%S+)$'
local LEASE_ROW = '^' .. string.rep('(%S+) ', 14) .. '(%S+)'
local LEASE_ROW_REST = ' - 0'       -- of a row that an earlier version wrote

-- The run of this server: the time in which one process is master without a break, as 40 hex digits. In one run data do not go back. It is half of
-- master_replid, which Redis makes anew whenever a process becomes master, and half of run_id, because replicas and files on the disk have the replid
-- too. run_id alone would not do: a master that was replaced, followed its replacement and is master again has what that one had, and is the process
-- of before.
-- Redis makes a new replid also for the first replica of a process, and when none was there for repl-backlog-ttl. Nothing is lost then, but nobody can
-- tell. The texts are looked for plain: with INFO that is 4.5 us, less than INFO of one section and one pattern.
local function server_run()
	local about = redis.call('INFO', 'server', 'replication')
	local _, process = string.find(about, '\nrun_id:', 1, true)
	local _, mastership = string.find(about, '\nmaster_replid:', process or 1, true)
	if not process or not mastership then
		error('INFO of this Redis has no run_id or no master_replid')
	end
	return string.sub(about, mastership + 1, mastership + 20) .. string.sub(about, process + 1, process + 20)
end

local function lease_text(number)
	return string.format('%.0f', number)
end

local function lease_whole(index)
	local number = tonumber(ARGV[index])
	if not number or number ~= math.floor(number) or math.abs(number) > 2 ^ 53 then
		error('argument ' .. index .. ' is not a whole number')
	end
	return number
end

local function lease_set(list)
	local set = {}
	for member in string.gmatch(list, '%d+') do
		set[tonumber(member)] = true
	end
	return set
end

local function lease_list(set)
	local list = {}
	for member in pairs(set) do
		list[#list + 1] = member
	end
	table.sort(list)
	return table.concat(list, ',')
end

local function lease_generation_number(generation)
	return tonumber(string.match(generation, '^(%d+)-')) or 0
end

local function lease_row_read(words)
	local epoch, seq, op, units, balance, sold, settled, fenced, seen, heard, want, wanted_at, rate, origin, written =
		string.match((words or '0 0 none 0 0 0 0 0 0 0 0 0 0') .. LEASE_ROW_REST, LEASE_ROW)
	return {
		epoch = tonumber(epoch), seq = tonumber(seq), op = op, units = tonumber(units), balance = tonumber(balance), sold = tonumber(sold),
		settled = tonumber(settled), fenced = tonumber(fenced), seen = tonumber(seen), heard = tonumber(heard), want = tonumber(want),
		wanted_at = tonumber(wanted_at), rate = tonumber(rate), origin = origin, written = tonumber(written),
	}
end

local function lease_row_write(row)
	return string.format('%.0f %.0f %s %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %s %.0f', row.epoch, row.seq, row.op, row.units,
		row.balance, row.sold, row.settled, row.fenced, row.seen, row.heard, row.want, row.wanted_at, row.rate, row.origin, row.written)
end

-- Whether a buyer may get one: a unit is free, or lies at a node unsold, as far as that has told.
local function lease_has_units(s)
	local has = s.free > 0
	for _, row in pairs(s.rows) do
		has = has or (row.fenced ~= s.number and row.balance > row.sold)
	end
	return has
end

-- What the caller says of itself, the first 15 arguments of every call, and what the hash says. s.gen is nil if there is no such hash.
local function lease_open()
	local clock = redis.call('TIME')
	local me = {
		generation = ARGV[1],
		node = lease_whole(2),
		epoch = lease_whole(3),
		seq = lease_whole(4), -- settle: of the last operation that the node knows of; grant, return: of this one
		balance = lease_whole(5),
		unsold = lease_whole(6),
		total = lease_whole(7),
		version = lease_whole(8),
		operation = ARGV[9],
		rate = lease_whole(10), -- units in 1000 s
		members_text = ARGV[11],
		fence_after = lease_whole(12), -- ms; 0 = never
		channel = ARGV[13],
		origin = ARGV[14], -- where it runs: a word
		written = lease_whole(15), -- number of the last operation that its ledger has, and of the last order: a sum that only grows
	}
	local s = {
		run = server_run(),
		now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000),
		clock = clock[1] .. string.format('%06d', tonumber(clock[2])),
		rows = {},
		changed = {},
		me = me,
	}
	local hash = {}
	local fields = redis.call('HGETALL', KEYS[1])
	for index = 1, #fields, 2 do
		hash[fields[index]] = fields[index + 1]
	end
	local server, gen, state, total, version, operation, free, cut, cut_at, said = string.match(hash.head or '- - - 0 0 - 0 0 0 0', LEASE_HEAD)
	s.server = server
	s.gen = hash.head and gen
	s.number = lease_generation_number(gen)
	s.open = state == 'open'
	s.total = tonumber(total)
	s.version = tonumber(version)
	s.operation = operation ~= '-' and operation or ''
	s.free = tonumber(free)
	s.cut = tonumber(cut)
	s.cut_at = tonumber(cut_at)
	s.said = tonumber(said)
	s.ops = hash.ops or ''
	s.members_text = hash.members or ''
	s.members = lease_set(s.members_text)
	for member in pairs(s.members) do
		s.rows[member] = lease_row_read(hash['n' .. member])
	end
	s.shown = s.rows[me.node]
	s.had_units = lease_has_units(s)
	return s
end

-- The row is written at the end.
local function lease_touch(s, member)
	s.changed[member] = true
	return s.rows[member]
end

local function lease_unmet(s, member)
	local row = s.rows[member]
	return row.settled ~= s.number and row.fenced ~= s.number
end

-- "Look", to who leases of this sale: not more often than LEASE_SAY_MS, unless it is `urgent`. Others have other sales, and may have a thousand.
local function lease_say(s, urgent)
	if urgent or s.now - s.said >= LEASE_SAY_MS or s.now < s.said then
		s.said = s.now
		s.says = s.says or 'lease ' .. string.match(KEYS[1], '{([^{}]*)}')
	end
end

-- A new generation: nobody has settled, nobody is fenced, and what was asked for in another generation does nothing any more. Its number is higher
-- than any that the caller or the hash has. `keep`: nothing is lost, so who is fenced stays so. Else other things than this sale may be lost as well,
-- and all parts of all nodes are to look.
local function lease_begin(s, keep)
	local number = math.max(s.number, lease_generation_number(s.me.generation)) + 1
	for member in pairs(lease_set(s.me.members_text)) do
		if not s.members[member] then
			s.members[member] = true
			s.rows[member] = lease_row_read()
			lease_touch(s, member)
		end
	end
	s.members_text = lease_list(s.members)
	for member, row in pairs(s.rows) do
		if keep and row.fenced == s.number and s.number > 0 then
			lease_touch(s, member).fenced = number
		end
	end
	s.number = number
	s.gen = lease_text(number) .. '-' .. string.sub(s.run, 1, 8) .. s.clock
	s.server = s.run
	s.open = false
	s.free = 0
	s.cut = 0
	s.shown = s.rows[s.me.node]
	s.begun = true
	s.says = not keep and 'look' or nil
	lease_say(s, true)
end

local function lease_sum(s)
	local sum = 0
	for _, row in pairs(s.rows) do
		sum = sum + math.max(row.balance, 0)
	end
	return sum
end

-- All members have settled or are fenced, so all units are accounted for.
local function lease_open_if_settled(s)
	if s.open then
		return
	end
	for member in pairs(s.members) do
		if lease_unmet(s, member) then
			return
		end
	end
	-- Of several each may hold all of the rest: the first of them has it in the books, and lease_release passes it on.
	for member, row in pairs(s.rows) do
		if row.balance == LEASE_REST then
			lease_touch(s, member).balance = math.max(s.total - lease_sum(s), 0)
			row.want = LEASE_REST
		end
	end
	s.free = s.total - lease_sum(s)
	s.open = true
	lease_say(s, true)
end

-- Was it fenced so that nobody knows what it holds?
local function lease_is_unknown(s, row)
	return row.want == LEASE_REST and row.fenced == s.number
end

-- Of what the row has, so much is kept; the others may have what is released, or, of the rest that nobody knows of, who else may hold it.
local function lease_release(s, member, kept)
	local row = s.rows[member]
	local released = row.balance - kept
	if lease_is_unknown(s, row) then
		for other, held in pairs(s.rows) do
			if other ~= member and lease_is_unknown(s, held) then
				local left = held.balance + released
				lease_touch(s, other).balance = math.max(left, 0)
				released = math.min(left, 0)
				break
			end
		end
	end
	if s.open then
		s.free = s.free + released
	end
end

local function lease_fence(s, member, sold)
	local row = lease_touch(s, member)
	lease_release(s, member, sold)
	row.epoch = math.max(row.epoch + 1, s.now)
	row.balance = sold
	row.fenced = s.number
	row.want = 0
end

local function lease_remember(s, operation)
	local kept = {}
	for known in string.gmatch(s.ops, '%S+') do
		kept[#kept + 1] = known
	end
	kept[#kept + 1] = operation
	s.remembered = true
	s.ops = table.concat(kept, ' ', math.max(1, #kept - LEASE_OPS_KEPT + 1))
end

local function lease_knows(s, operation)
	return string.find(' ' .. s.ops .. ' ', ' ' .. operation .. ' ', 1, true) ~= nil
end

local function lease_wishes(s, member)
	local row = s.rows[member]
	local age = s.now - row.wanted_at
	if row.fenced == s.number or age > LEASE_WISH_MS or age < -LEASE_WISH_MS then
		return 0
	end
	return math.max(row.want, 0)
end

-- Writes what has changed and makes the answer: LEASE_REPLY_TEXTS texts, in the order of struct lease_reply (fleet/lease.c reads them).
local function lease_answer(s, answer)
	local me = s.me
	local outside, demand, missing = 0, 0, {}
	for member, row in pairs(s.rows) do
		if member ~= me.node and row.fenced ~= s.number then
			outside = outside + math.max(row.balance - row.sold, 0)
			demand = demand + lease_wishes(s, member)
		end
		if not s.open and lease_unmet(s, member) then
			missing[member] = true
		end
	end
	if s.cut > 0 and s.now - s.cut_at <= LEASE_WISH_MS then
		demand = demand + s.cut
	end
	if s.open and next(s.changed) and not s.had_units and lease_has_units(s) then
		lease_say(s, true) -- the others rest, and tell buyers that it is sold out
	end
	if s.gen and (s.begun or s.says or next(s.changed) or s.dirty) then
		local fields = {
			'head', string.format('%s %s %s %.0f %.0f %s %.0f %.0f %.0f %.0f', s.server, s.gen, s.open and 'open' or 'settling', s.total, s.version,
				s.operation ~= '' and s.operation or '-', s.free, s.cut, s.cut_at, s.said),
		}
		if s.begun then
			fields[#fields + 1] = 'members'
			fields[#fields + 1] = s.members_text
		end
		if s.remembered then
			fields[#fields + 1] = 'ops'
			fields[#fields + 1] = s.ops
		end
		for member in pairs(s.changed) do
			fields[#fields + 1] = 'n' .. member
			fields[#fields + 1] = lease_row_write(s.rows[member])
		end
		redis.call('HSET', KEYS[1], unpack(fields))
		if s.says then
			redis.call('PUBLISH', me.channel, s.says)
		end
	end
	local row = s.shown or lease_row_read()
	return {
		answer, s.gen or '', s.open and 'open' or 'settling', lease_text(s.total), lease_text(s.version), s.operation, lease_text(s.free),
		lease_text(outside), lease_text(math.max(demand - math.max(s.free, 0), 0)), next(missing) and lease_list(missing) or '', s.members_text,
		lease_text(row.epoch), lease_text(row.seq), row.op, lease_text(row.units), lease_text(row.balance), lease_text(row.sold),
		row.fenced == s.number and s.gen and '1' or '0', lease_text(row.heard), s.run, lease_text(s.now), lease_text(row.written),
	}
end

local function lease_regen(s, keep)
	lease_begin(s, keep)
	return lease_answer(s, 'regen')
end

-- What stands before every operation. Returns an answer if the call can go no further.
local function lease_enter(s)
	local me = s.me
	if not s.gen then
		-- Nobody knows of this sale, or Redis has lost it.
		if me.version == 0 and me.balance == 0 then
			return lease_answer(s, 'absent')
		end
		return lease_regen(s)
	end
	-- Another run: a restart, a replica that was made master, a slot that moved. What it has may be older than what was answered.
	if s.server ~= s.run then
		return lease_regen(s)
	end
	if me.generation ~= s.gen then
		-- A node that has promised itself to a later generation (or to another of the same number) has been told things that this server does
		-- not know.
		if lease_generation_number(me.generation) >= s.number then
			return lease_regen(s)
		end
		return lease_answer(s, 'regen')
	end
	-- A new member: all must know of it in their ledgers before it can hold anything.
	if me.members_text ~= s.members_text then
		for member in pairs(lease_set(me.members_text)) do
			if not s.members[member] then
				return lease_regen(s, true)
			end
		end
	end
	if not s.shown then
		error('node ' .. me.node .. ' is no member of its own list')
	end
end

-- Is this the node that the row is of? A ledger that lacks what the node has said it has is an older copy, or another's: what it says of units sold
-- is too little, so it is not listened to, whatever was fenced or lost: asked first of all, because a promise to another generation moves units and uses
-- a number. Of two daemons with one number the one that is heard of goes on.
local function lease_enter_same(s)
	local me, row = s.me, s.shown
	if not row then
		return
	end
	if me.written < row.written then
		return lease_answer(s, 'set_back')
	end
	if row.origin ~= me.origin and row.origin ~= '-' and math.abs(s.now - row.seen) < LEASE_SILENT_MS then
		return lease_answer(s, 'doubled')
	end
end

-- And before every operation of a node for itself: is it the one, and was it fenced?
local function lease_enter_self(s)
	local refusal = lease_enter_same(s) or lease_enter(s)
	if refusal then
		return refusal
	end
	local me, row = s.me, s.shown
	if me.epoch < row.epoch then
		return lease_answer(s, 'fenced')
	end
	if row.fenced == s.number and me.epoch > row.epoch then
		-- Redis had forgotten a fence, and the node was fenced again with a number that is not new to it.
		lease_touch(s, me.node).epoch = me.epoch + 1
		return lease_answer(s, 'fenced')
	end
end

-- An operation of a node that moves units has the number me.seq. Returns an answer if it was done before or cannot be done. `before` is the
-- balance that the node had before it.
local function lease_enter_operation(s, op, before)
	local refusal = lease_enter_self(s)
	if refusal then
		return refusal
	end
	local me, row = s.me, s.shown
	-- Another place than the one that has settled settles first. But a return is what it has to tell before: it is in its ledger already.
	if row.settled ~= s.number or (op == 'grant' and row.origin ~= me.origin) then
		return lease_answer(s, 'unmet')
	end
	if not s.open then
		return lease_answer(s, 'settling')
	end
	if me.seq < row.seq or (me.seq == row.seq and (row.op == op or (op == 'grant' and row.op == 'none'))) then
		return lease_answer(s, 'ok')
	end
	-- A number that was used for something else, or one too high, or a balance that is not the row's: something was lost after all.
	if me.seq ~= row.seq + 1 or before ~= row.balance then
		return lease_regen(s)
	end
end

local function lease_report(s)
	local me = s.me
	local row = lease_touch(s, me.node)
	row.sold = math.max(me.balance - me.unsold, 0)
	row.rate = me.rate
	row.origin = me.origin
	row.written = me.written
	row.seen = s.now
	row.heard = row.heard + 1
	return row
end

-- Of the scripts of streams (KEYS: the stream, its cursors). Cursors are of a stream that is there: where it was deleted or evicted without them they
-- go too, and every node begins again. A consumer that makes its group may have made the stream anew: then nothing was ever put into it. One
-- whose entries were all removed keeps its last id.
local function stream_forget_cursors_of_none()
	if redis.call('EXISTS', KEYS[1]) == 1 then
		if redis.call('XLEN', KEYS[1]) > 0 then
			return
		end
		local about = redis.call('XINFO', 'STREAM', KEYS[1])
		for i = 1, #about, 2 do
			if about[i] == 'last-generated-id' and about[i + 1] ~= '0-0' then
				return
			end
		end
	end
	redis.call('DEL', KEYS[2])
end
