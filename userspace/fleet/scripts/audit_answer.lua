-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- What a node holds, for who has asked for it (daemon/fleet_audit.c). In one step, so that no answer stays for ever.
--
-- KEYS[1]  hash of what was asked for: number of a node -> its answer
-- ARGV     the node's number; its answer; after how many seconds all of it vanishes
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('EXPIRE', KEYS[1], ARGV[3])
