-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Which node each buyer of one sale is at home at; called by daemon/fleet_homes.c. A home is given once, to the node that asks first, and never moves.
--
-- KEYS: the hash of the sale's homes. Fields: 16 hex digits (a buyer's hash) = node; .server (the Redis process that has all of it), .gen (another
-- after each loss), .state ("settling" or "open"), .told.N (the gen in which node N has told the buyers that it knows).
-- ARGV: op, node, the nodes of the fleet (commas), channel, second at which the hash may go; then
--   ask: buyers …          answers {state, gen, told ("1": this node has), nodes that have not (commas), home of each buyer, or "0": not given}
--   tell: gen, final, buyers …    buyers that are at home at this node; final "1": these were the last of them
--                          answers {"told", buyers that are at home elsewhere …} or {"regen"}
--
-- A Redis that is another process than before may have lost homes: the last second of it, as a replica, or everything. Then nobody new gets a
-- home before every node has told which buyers it knows, or a buyer could have two.
local key = KEYS[1]
local op, node, members, channel, expires = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local server = redis.call('INFO', 'server'):match('run_id:(%w+)')
local state, gen = redis.call('HGET', key, '.state'), redis.call('HGET', key, '.gen')
if not gen or redis.call('HGET', key, '.server') ~= server then
	local time = redis.call('TIME')
	state, gen = 'settling', server:sub(1, 12) .. '.' .. time[1] .. '.' .. time[2]
	redis.call('HSET', key, '.server', server, '.state', state, '.gen', gen)
	redis.call('PUBLISH', channel, 'homes')
end
redis.call('EXPIREAT', key, expires)

local function missing()
	local list = {}
	for n in members:gmatch('%d+') do
		if redis.call('HGET', key, '.told.' .. n) ~= gen then
			list[#list + 1] = n
		end
	end
	return table.concat(list, ',')
end

if op == 'tell' then
	if ARGV[6] ~= gen then
		return {'regen'}
	end
	local answer = {'told'}
	for i = 8, #ARGV do
		if redis.call('HSETNX', key, ARGV[i], node) == 0 and redis.call('HGET', key, ARGV[i]) ~= node then
			answer[#answer + 1] = ARGV[i]
		end
	end
	if ARGV[7] == '1' then
		redis.call('HSET', key, '.told.' .. node, gen)
		if state ~= 'open' and missing() == '' then
			redis.call('HSET', key, '.state', 'open')
			redis.call('PUBLISH', channel, 'homes')
		end
	end
	return answer
end

local answer = {state, gen, redis.call('HGET', key, '.told.' .. node) == gen and '1' or '0', state ~= 'open' and missing() or ''}
for i = 6, #ARGV do
	local home = redis.call('HGET', key, ARGV[i])
	if not home and state == 'open' then
		redis.call('HSET', key, ARGV[i], node)
		home = node
	end
	answer[#answer + 1] = home or '0'
end
return answer
