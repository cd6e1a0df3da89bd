-- SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
-- Orders by wrk: wrk -s orders.lua BASE -- FILE [close]. Takes the tokens of FILE in turn, again and again; looks at each answer; prints how many
-- of each status there were, and how many answers were not what they should be.
local tokens, at, headers = {}, 0, {}
local counts, bad = {}, 0
local threads = {}

function setup(thread)
	table.insert(threads, thread)
end

function init(args)
	for line in io.lines(args[1]) do
		table.insert(tokens, line)
	end
	if args[2] == "close" then
		headers["Connection"] = "close"
	end
	statuses, wrong = "", 0
end

function request()
	at = at % #tokens + 1
	return wrk.format("POST", "/v1/orders/" .. tokens[at], headers)
end

function response(status, fields, body)
	local kind = fields["Content-Type"]
	local good = tonumber(fields["Content-Length"]) == #body and fields["Cache-Control"] == "no-store"

	if status < 300 then
		good = good and kind == "application/json" and body:find('"state":"held"', 1, true)
	else
		good = good and kind == "application/problem+json" and body:find('"code":"', 1, true) and fields["Connection"] == "close"
	end
	if not good then
		wrong = wrong + 1
	end
	counts[status] = (counts[status] or 0) + 1
	statuses = ""
	for code, count in pairs(counts) do
		statuses = statuses .. " " .. code .. "=" .. count
	end
end

function done(summary)
	for _, thread in ipairs(threads) do
		print("statuses:" .. thread:get("statuses") .. " wrong=" .. thread:get("wrong"))
	end
	local errors = summary.errors
	print("errors: connect=" .. errors.connect .. " read=" .. errors.read .. " write=" .. errors.write .. " timeout=" .. errors.timeout)
end
