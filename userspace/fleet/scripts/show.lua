-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- The row of a node. Changes nothing but what every call does that finds data lost. Arguments: the 15 of all calls, then the node.
local s = lease_open()
local refusal = lease_enter(s)
if refusal then
	return refusal
end
s.shown = s.rows[lease_whole(16)]
return lease_answer(s, s.shown and 'ok' or 'refused')
