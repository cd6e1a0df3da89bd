-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Which node each buyer of one sale is at home at; called by daemon/fleet_homes.c. A home is given once, to the node that asks first, and never moves.
--
-- KEYS: the hash of the sale's homes, and that of its stock (which says who is fenced). Fields of the former: 16 hex digits (a buyer's hash) = node;
-- .server (the run of a Redis that has all of it; server_run in prelude.lua), .gen ("NUMBER-…", another after each loss), .state ("settling" or "open"), .told.N (the gen in
-- which node N has told the buyers that it knows).
-- ARGV: op, node, the nodes of the fleet (commas), channel, second at which the hash may go, gen that the node has told last ("" = none); then
--   ask: buyers …          answers {gen, state, nodes that have not told (commas), home of each buyer, or "0": not given}
--   tell: final, buyers …  buyers that are at home at this node; final "1": these were the last of them
--                          answers {"told", buyers that are at home elsewhere …}, or {"regen"}: the gen is another
--
-- A Redis in another run than before may have lost homes: the last second of them, as a replica, or everything; so may one that does not know the
-- gen that a node quotes. Then nobody new gets a home before every node that is not fenced has told which buyers it knows, or a buyer
-- could have two. A former master that goes on in a partition gives none to a node that has told another.
local homes, stock = KEYS[1], KEYS[2]
local op, node, members, channel, expires, quoted = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local function number_of(gen)
	return tonumber(gen:match('^(%d+)%-')) or 0
end

local server = server_run()
local kept = redis.call('HMGET', homes, '.gen', '.state', '.server')
local gen, state = kept[1] or '', kept[2]
if kept[3] ~= server or (quoted ~= gen and number_of(quoted) >= number_of(gen)) then
	if op == 'tell' then
		return {'regen'}
	end
	local time = redis.call('TIME')
	gen = string.format('%d-%s.%s.%s', math.max(number_of(gen), number_of(quoted)) + 1, server:sub(1, 12), time[1], time[2])
	state = 'settling'
	redis.call('HSET', homes, '.server', server, '.state', state, '.gen', gen)
	redis.call('PUBLISH', channel, 'homes')
end
redis.call('EXPIREAT', homes, expires)

-- What the stock says of its members (prelude.lua) counts if it was written in this run: an older word may be of a node that came back meanwhile, and of
-- what it did nothing is known here. Until a node has begun the stock anew, which all do at their next report, nobody new gets a home. A sale without a
-- stock is one node's own, from before the fleet, or its stock is about to be told by the ledgers.
local stock_number, stock_open, stock_is_old
do
	local head, in_books = unpack(redis.call('HMGET', stock, 'head', 'members'))
	local by, generation, stock_state = (head or ''):match('^(%S+) (%S+) (%S+) ')
	stock_is_old = by and by ~= server
	if by == server then
		stock_number = number_of(generation)
		stock_open = stock_state == 'open'
		-- Nodes that were taken out of the config may have buyers all the same.
		local is_member = {}
		for n in members:gmatch('%d+') do
			is_member[n] = true
		end
		for n in (in_books or ''):gmatch('%d+') do
			if not is_member[n] then
				members = members .. ',' .. n
			end
		end
	end
end

-- Who need not be waited for: a node that is fenced in the stock's generation. And of homes in which nothing was
-- lost yet, a node that has not settled although the stock is open: that is so only in the generation in which the sale was made, and a node that has
-- never spoken of the sale since cannot have buyers in it. It learns of the sale later, and tells before it gets a home for anybody.
local function need_not_tell(n)
	if not stock_number then
		return false
	end
	local row = redis.call('HGET', stock, 'n' .. n)
	local settled, fenced = (row or '0 0 none 0 0 0 0 0 '):match('^%S+ %S+ %S+ %S+ %S+ %S+ (%d+) (%d+) ')
	if tonumber(fenced) == stock_number then
		return true
	end
	return stock_open and number_of(gen) == 1 and tonumber(settled) ~= stock_number
end

local function missing()
	local list = {}
	for n in members:gmatch('%d+') do
		if redis.call('HGET', homes, '.told.' .. n) ~= gen and not need_not_tell(n) then
			list[#list + 1] = n
		end
	end
	return table.concat(list, ',')
end

local function open_if_told()
	local left = state ~= 'open' and missing() or ''
	if state ~= 'open' and left == '' and not stock_is_old then
		state = 'open'
		redis.call('HSET', homes, '.state', state)
		redis.call('PUBLISH', channel, 'homes')
	end
	return left
end

if op == 'tell' then
	if quoted ~= gen then
		return {'regen'}
	end
	local answer = {'told'}
	for i = 8, #ARGV do
		if redis.call('HSETNX', homes, ARGV[i], node) == 0 and redis.call('HGET', homes, ARGV[i]) ~= node then
			answer[#answer + 1] = ARGV[i]
		end
	end
	if ARGV[7] == '1' then
		redis.call('HSET', homes, '.told.' .. node, gen)
		open_if_told()
	end
	return answer
end

local answer = {gen, '', open_if_told()}
answer[2] = state
for i = 7, #ARGV do
	local home = redis.call('HGET', homes, ARGV[i])
	if not home and state == 'open' and quoted == gen then
		redis.call('HSET', homes, ARGV[i], node)
		home = node
	end
	answer[#answer + 1] = home or '0'
end
return answer
