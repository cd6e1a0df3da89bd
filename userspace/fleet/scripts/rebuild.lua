-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- A new generation, by the operator's word. Arguments: the 15 of all calls.
local s = lease_open()
local refusal = lease_enter(s)
if refusal then
	return refusal
end
return lease_regen(s)
