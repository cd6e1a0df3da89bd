-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- What is set in the fleet: takes the changes of one node, and gives it those of the others. fleet/settings_sync.c asks, fleet/settings.h has the rules.
--
-- KEYS: meta, a hash (server: a run, as of server_run in prelude.lua; gen, place, version, count, ids, ids_gen, op:NODE, busy:NODE, sale:SLUG); values, a hash: name -> "VERSION NODE FINAL
-- UNTIL-MS x" or "v" and the value; index, a sorted set: names by place, in the order in which they came to this Redis; due, a sorted set: names by the
-- time (ms) at which they may be forgotten.
-- ARGV: verb, gen, node, channel, then
--   "sync": life, place, page, highest sale id, busy slots ("" = as before), then puts: "n" (a change: it gets a version) or "m" (it has one), op,
--           version, node, final, until-ms, "x" or "v", name, and the value
--   "sale": slug, highest sale id, busy slots
--
-- A place and an operation's number mean something within one gen only. It ends with the run of the server (a restart, or a failover to a replica
-- that may lag), or if parts are missing: then nothing is done but to say so, and every node tells again what it has.
local meta, values, index, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local verb, quoted, node, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local KEEP_MS = 8 * 86400 * 1000 -- removed ones: SETTINGS_KEEP_US and SETTINGS_MARGIN_US
local FORGET = 50 -- at most, in one call
local BUSY_MS = 7 * 86400 * 1000 -- what a node has said of its slots counts for so long
local SLOTS = 1024 -- SLUICE_MAX_SALES
local FIRST_ID = 16777216 -- below are the sales of nodes that were alone when they made them
local SPARE_IDS = 64 -- sales that other nodes may know and this Redis has forgotten, at most

local function text(number)
	return string.format('%.0f', number)
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local run = server_run()
local kept = redis.call('HMGET', meta, 'server', 'gen', 'place', 'version', 'count')
local gen = kept[2]
local place, version, count = tonumber(kept[3] or 0), tonumber(kept[4] or 0), tonumber(kept[5] or 0)
local is_whole = redis.call('HLEN', values) == count and redis.call('ZCARD', index) == count

if kept[1] ~= run or not gen or not is_whole or (verb == 'sync' and quoted == gen and tonumber(ARGV[6]) > place) then
	gen = string.sub(run, 1, 12) .. '-' .. text(now)
	redis.call('HSET', meta, 'server', run, 'gen', gen)
	if not is_whole then
		redis.call('DEL', values, index, due)
		redis.call('HSET', meta, 'count', 0)
	end
end
if quoted ~= gen then
	return {'regen', gen, text(now)}
end

-- Bit s of a text of hex digits, four slots a digit: is slot s in use?
local function is_busy(slots, slot)
	local digit = tonumber(string.sub(slots, math.floor(slot / 4) + 1, math.floor(slot / 4) + 1), 16) or 0
	return math.floor(digit / 2 ^ (slot % 4)) % 2 == 1
end

local function note_sales(highest, busy)
	local ids = tonumber(redis.call('HGET', meta, 'ids') or 0)
	if tonumber(highest) > ids then
		redis.call('HSET', meta, 'ids', highest)
	end
	if busy ~= '' then
		redis.call('HSET', meta, 'busy:' .. node, text(now / 1000) .. ' ' .. busy)
	end
end

if verb == 'sale' then
	local slug = ARGV[5]
	local there = redis.call('HGET', values, 'sale/' .. slug)
	if there then
		return {'exists', gen, text(now), there}
	end
	note_sales(ARGV[6], ARGV[7])
	local all, maps = redis.call('HGETALL', meta), {}
	local fields = {}
	for i = 1, #all, 2 do
		fields[all[i]] = all[i + 1]
		if string.sub(all[i], 1, 5) == 'busy:' then
			local at, slots = string.match(all[i + 1], '^(%d+) (%x+)$')
			if at and tonumber(at) + BUSY_MS > now / 1000 then
				maps[#maps + 1] = slots
			end
		end
	end
	-- Asked again, after an answer that was lost, the sale keeps its number; and whoever asked before may have made its stock.
	if fields['sale:' .. slug] then
		return {'again', gen, text(now), fields['sale:' .. slug]}
	end
	local last = math.max(tonumber(fields.ids or 0), FIRST_ID)
	if fields.ids_gen ~= gen then
		last = last + SPARE_IDS
	end
	for id = last + 1, last + SLOTS do
		local free = id < 4294967296
		for _, slots in ipairs(maps) do
			free = free and not is_busy(slots, id % SLOTS)
		end
		if free then
			redis.call('HSET', meta, 'ids', text(id), 'ids_gen', gen, 'sale:' .. slug, text(id))
			return {'ok', gen, text(now), text(id)}
		end
	end
	return {'full', gen, text(now)}
end

-- --- sync ---------------------------------------------------------------------------------------------------------------------------
local life, since, page = ARGV[5], ARGV[6], tonumber(ARGV[7])
note_sales(ARGV[8], ARGV[9])

local function store(name, stamp, final, until_ms, value)
	place = place + 1
	if redis.call('HSET', values, name, stamp .. ' ' .. final .. ' ' .. until_ms .. ' ' .. value) == 1 then
		count = count + 1
	end
	redis.call('ZADD', index, text(place), name)
	if value == 'x' then
		until_ms = text(math.floor(tonumber(string.match(stamp, '^%d+')) / 1000) + KEEP_MS)
	end
	if until_ms ~= '0' then
		redis.call('ZADD', due, until_ms, name)
	else
		redis.call('ZREM', due, name)
	end
	if string.sub(name, 1, 5) == 'sale/' then
		redis.call('HDEL', meta, 'sale:' .. string.sub(name, 6))
	end
end

local done_life, done_op = string.match(redis.call('HGET', meta, 'op:' .. node) or '', '^(%S+) (%d+)$')
done_op = done_life == life and tonumber(done_op) or 0
local results, put, changed = {}, {}, false
for i = 10, #ARGV do
	local kind, op, version_text, by, final, until_ms, value, name, rest =
		string.match(ARGV[i], '^(%a) (%d+) (%d+) (%d+) ([01]) (%d+) ([vx]) (%S+) ?(.*)$')
	local stored = redis.call('HGET', values, name)
	local old_version, old_by, old_final, old_rest
	local mine
	if stored then
		old_version, old_by, old_final, old_rest = string.match(stored, '^(%d+) (%d+) ([01]) (.*)$')
	end
	value = value .. rest
	put[name] = true
	if kind == 'n' then
		-- What was done already and not heard of is not done again: a later change of another node may stand there.
		local is_done = tonumber(op) <= done_op and stored
		if not is_done and not (stored and old_final == '1' and final == '0') then
			version = math.max(now, version + 1, tonumber(version_text) + 1, stored and tonumber(old_version) + 1 or 0)
			mine = text(version)
			store(name, mine .. ' ' .. node, final, until_ms, value)
		end
		done_op = math.max(done_op, tonumber(op))
	else
		local is_later = not stored or final > old_final
		if stored and final == old_final then
			local ours, theirs = tonumber(version_text), tonumber(old_version)
			is_later = ours > theirs or (ours == theirs and tonumber(by) > tonumber(old_by))
		end
		if is_later then
			version = math.max(version, tonumber(version_text))
			mine = version_text
			store(name, mine .. ' ' .. by, final, until_ms, value)
		end
	end
	changed = changed or mine
	results[#results + 1] = mine or redis.call('HGET', values, name) or ''
end
if #ARGV >= 10 then
	redis.call('HSET', meta, 'op:' .. node, life .. ' ' .. text(done_op))
end

-- So few that nobody waits for it. Who has forgotten it as well misses nothing, and the others do so soon.
local old = redis.call('ZRANGEBYSCORE', due, '-inf', text(now / 1000), 'LIMIT', 0, FORGET)
for _, name in ipairs(old) do
	count = count - redis.call('HDEL', values, name)
	redis.call('ZREM', index, name)
	redis.call('ZREM', due, name)
end
if changed or #old > 0 then
	redis.call('HSET', meta, 'place', text(place), 'version', text(version), 'count', text(count))
end
if changed then
	redis.call('PUBLISH', channel, 'settings')
end

local found = redis.call('ZRANGEBYSCORE', index, '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, page)
local entries, names, last = {}, {}, since
for i = 1, #found, 2 do
	if not put[found[i]] then
		names[#names + 1] = found[i]
	end
	last = text(tonumber(found[i + 1]))
end
if #names > 0 then
	for i, value in ipairs(redis.call('HMGET', values, unpack(names))) do
		entries[#entries + 1] = names[i]
		entries[#entries + 1] = value
	end
end
local is_end = #found < 2 * page
if is_end then
	last = text(place)
end
return {'ok', gen, text(now), text(place), text(version), results, last, is_end and 1 or 0, entries}
