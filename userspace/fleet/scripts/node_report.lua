-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- A node says that it is there, and hears of the others. Time is that of Redis, so clocks that differ do no harm.
--
-- KEYS[1]  hash: number of a node -> "MS REPORT": when it was here last, and what it said of itself
-- KEYS[2]  hash: what is set in the fleet (settings.lua); KEYS[3] hash: its keys (keys.lua); KEYS[4] the number of an audit
-- ARGV     the node's number; its report; after how many ms a node that was not here any more is forgotten
-- Answers  {now in ms, {number, "MS REPORT", …}, what stands in the other keys: three texts that are others when there is something new}
--
-- So one call tells a node that missed a message where to look, and also if this is another run of Redis (server_run) or one that has forgotten.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local nodes = redis.call('HGETALL', KEYS[1])

for i = 1, #nodes, 2 do
	local seen = tonumber(string.match(nodes[i + 1], '^%d+'))
	if not seen or now - seen > tonumber(ARGV[3]) then
		redis.call('HDEL', KEYS[1], nodes[i])
	end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))

local run = server_run()
local function stamp(key, ...)
	local values = redis.call('HMGET', key, ...)
	for i = 1, #values do
		values[i] = values[i] or '-'
	end
	return run .. ' ' .. table.concat(values, ' ')
end
return {
	now, redis.call('HGETALL', KEYS[1]),
	{stamp(KEYS[2], 'server', 'gen', 'place', 'version'), stamp(KEYS[3], 'print', 'cur', 'next'), redis.call('GET', KEYS[4]) or ''},
}
