# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# (suite and mode are set by lib.sh)
# A whole flash sale on veth: `sluice drill` with a small crowd, and its verdict on the books.

small_crowd="--stock 50 --buyers 200 --bots 600 --spoofed 300 --seconds 100"

drill()
{
	# shellcheck disable=SC2086
	timeout 170 /sluice/sluice drill $small_crowd --mode "$mode" --seed 11 --report /tmp/drill.json
	[ "$(json_number broken </tmp/drill.json)" = 0 ] || fail 'an invariant is broken'
	[ "$(json_number units_ordered </tmp/drill.json)" = 50 ] || fail 'not all units were sold'
	grep -q "\"mode\": *\"$mode\"" /tmp/drill.json || fail "the gate was not attached in $mode mode"
}

try '50 units, 200 buyers, 600 bots, 300 spoofed SYNs: every check holds, every unit is sold' drill
if [ -e /tmp/drill.json ]; then
	report fact "$suite" orders "$(json_number orders </tmp/drill.json)"
	report fact "$suite" seconds "$(json_number crowd_seconds </tmp/drill.json)"
	rm /tmp/drill.json
fi
