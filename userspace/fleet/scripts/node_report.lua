-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- A node says that it is there, and hears of the others. Time is that of Redis, so clocks that differ do no harm.
--
-- KEYS[1]  hash: number of a node -> "MS REPORT": when it was here last, and what it said of itself
-- ARGV     the node's number; its report; after how many ms a node that was not here any more is forgotten
-- Answers  {now in ms, {number, "MS REPORT", …}}
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
return {now, redis.call('HGETALL', KEYS[1])}
