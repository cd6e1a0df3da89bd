-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Takes from the beginning of a stream what every group has read and acknowledged, and tells how the stream stands.
--
-- KEYS: the stream, the hash of cursors. ARGV: node, how many entries stay in any case, how many are removed at most.
-- Answers {cursor of the node, length, removed, groups, waiting}; `waiting`: entries that some group has not read yet or not acknowledged, as
-- Redis counts them, of the group with the most.
--
-- Without a group nothing is removed: nobody can say that it was read. A group that nobody reads any more holds everything back until it is
-- destroyed. "~" removes whole nodes of the stream's tree only (some 10 to 100 entries each), and with LIMIT never more than that number: so what
-- must stay stays, and no entry has to be looked at.
stream_forget_cursors_of_none()
local node, keep, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local cursor = tonumber(redis.call('HGET', KEYS[2], node) or '0')
local length = redis.call('XLEN', KEYS[1])
local removed, waiting, bound = 0, 0, nil

-- Is entry id a before b? Decimal numbers of any length, without a loss of digits.
local function is_before(a, b)
	local a_ms, a_seq = a:match('^(%d+)-(%d+)$')
	local b_ms, b_seq = b:match('^(%d+)-(%d+)$')
	local x, y = a_ms, b_ms
	if a_ms == b_ms then
		x, y = a_seq, b_seq
	end
	if #x ~= #y then
		return #x < #y
	end
	return x < y
end

local groups = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
for _, flat in ipairs(groups) do
	local group = {}
	for i = 1, #flat, 2 do
		group[flat[i]] = flat[i + 1]
	end
	-- The first entry that this group still needs is behind what was delivered last, or is the oldest that is not acknowledged.
	local needed = group['last-delivered-id']
	if group.pending > 0 then
		needed = redis.call('XPENDING', KEYS[1], group.name)[2]
	end
	if not bound or is_before(needed, bound) then
		bound = needed
	end
	waiting = math.max(waiting, group.pending + (group.lag or 0))
end
if bound and length > keep then
	removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', bound, 'LIMIT', math.min(length - keep, most))
end
return {cursor, length - removed, removed, #groups, waiting}
