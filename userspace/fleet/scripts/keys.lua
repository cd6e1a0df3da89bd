-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Which signing keys a fleet uses; called by daemon/fleet_keys.c. Numbers only: the keys themselves are derived on each node.
--
-- KEYS: the hash of the keys. Fields: print (fingerprint of the fleet's secret), cur (the key that signs), next and need (in a rotation: the key
-- that is to be accepted, and the nodes that must accept it before anybody signs with it), and per node N accepted:N, signs:N, over:N (the
-- highest key whose tokens of N are all over), until:N (when those of the key before signs:N are), seen:N (ms).
-- ARGV: op, node, fingerprint, sure (1: this node has agreed with the fleet before, so another fingerprint here is somebody else's mistake), the
-- nodes of the fleet (commas), channel; then
--   sync: accepted, signs, over, until     what this node does
--   rotate: force (1: whatever is still valid), nodes that need not accept (commas)
--   show
-- Answers: {"ok" (or "other": the same, but another secret stood here, which some node must have), cur, next or 0, waiting for (commas), node, accepted, signs, ms ago, node, …}, {"secret"}, and for rotate
-- {"in_use", node, until} or {"unknown", node}: that node has not told until when it needs the older keys.
--
-- Nothing here is lost for good with Redis: each node tells what it uses, and the highest number wins.
local key = KEYS[1]
local op, node, fingerprint, sure, members, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local function get(field)
	return redis.call('HGET', key, field)
end

local function number(field)
	return tonumber(get(field) or '0')
end

local function set(field, value)
	redis.call('HSET', key, field, value)
end

local function waiting(next)
	local list = {}
	for n in (get('need') or ''):gmatch('%d+') do
		if number('accepted:' .. n) < next then
			list[#list + 1] = n
		end
	end
	return table.concat(list, ',')
end

local known = get('print')
local word = 'ok'
if not known or (known ~= fingerprint and sure == '1') then
	if op == 'show' then
		known = fingerprint
	else
		set('print', fingerprint)
		word = known and 'other' or 'ok'
	end
elseif known ~= fingerprint then
	return {'secret'}
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local cur, next = math.max(number('cur'), 1), number('next')
local before_cur, before_next = number('cur'), next

if op == 'sync' then
	local accepted, signs = tonumber(ARGV[7]), tonumber(ARGV[8])
	cur = math.max(cur, signs)
	if accepted > cur and accepted > next then
		next = accepted -- a rotation that Redis has forgotten
		set('need', members)
	end
	set('accepted:' .. node, accepted)
	set('signs:' .. node, signs)
	set('over:' .. node, ARGV[9])
	set('until:' .. node, ARGV[10])
	set('seen:' .. node, string.format('%.0f', now_ms))
elseif op == 'rotate' then
	local excused = {}
	for n in ARGV[8]:gmatch('%d+') do
		excused[n] = true
	end
	local need = {}
	for n in members:gmatch('%d+') do
		if not excused[n] then
			need[#need + 1] = n
		end
	end
	if next <= cur then
		for _, n in ipairs(need) do
			local over = tonumber(get('over:' .. n) or '-1')
			if ARGV[7] ~= '1' and (over < 0 or number('signs:' .. n) < cur) then
				return {'unknown', n}
			end
			if ARGV[7] ~= '1' and over < cur - 1 then
				return {'in_use', n, get('until:' .. n) or '0'}
			end
		end
		next = cur + 1
	end
	set('need', table.concat(need, ','))
end

local left = ''
if next > cur then
	left = waiting(next)
	if left == '' then
		cur = next
	end
end
if next <= cur then
	next = 0
end
if op ~= 'show' and (cur ~= before_cur or next ~= before_next) then
	set('cur', cur)
	set('next', next)
	redis.call('PUBLISH', channel, 'keys')
end

local answer = {word, tostring(cur), tostring(next), left}
for n in members:gmatch('%d+') do
	local seen = tonumber(get('seen:' .. n) or '-1')
	answer[#answer + 1] = n
	answer[#answer + 1] = get('accepted:' .. n) or '0'
	answer[#answer + 1] = get('signs:' .. n) or '0'
	answer[#answer + 1] = seen < 0 and '-1' or string.format('%.0f', math.max(now_ms - seen, 0))
end
return answer
