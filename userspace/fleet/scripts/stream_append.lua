-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Puts events of one node behind a sale's stream, in the order of the node's ledger, and moves the node's cursor with them.
--
-- KEYS: the stream, the hash of cursors. ARGV: node, the position that the events follow, then for each event its position and its fields
-- (a JSON array: name, value, name, value, …, all texts).
-- Answers {cursor, appended}. The cursor is the ledger's position of the last event of the node that is in the stream.
--
-- What is there already is not appended again, so a call that is repeated, or comes late, does no harm. Events that do not follow the
-- cursor are refused: Redis has lost what is in between, and the node must begin where the answer says.
-- Positions are compared as doubles: exact up to 2^53.
stream_forget_cursors_of_none()
local node, after = ARGV[1], tonumber(ARGV[2])
local cursor = tonumber(redis.call('HGET', KEYS[2], node) or '0')
local appended = 0

if cursor < after then
	return {cursor, 0}
end
for i = 3, #ARGV, 2 do
	local position = tonumber(ARGV[i])
	if position > cursor then
		redis.call('XADD', KEYS[1], '*', unpack(cjson.decode(ARGV[i + 1])))
		cursor = position
		appended = appended + 1
	end
end
-- Last: should Redis stop in between, events are in the stream twice, not missing.
if appended > 0 then
	redis.call('HSET', KEYS[2], node, string.format('%.0f', cursor))
end
return {cursor, appended}
