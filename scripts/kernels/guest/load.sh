# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# (suite and mode are set by lib.sh)
# Does the gate load, and what does this kernel's verifier have to do for it?

load_with_default_sizes()
{
	/sluice/load_gate >/tmp/load.txt
	cat /tmp/load.txt
}

if try 'the gate and the door load, with the default sizes of all maps' load_with_default_sizes; then
	while read -r name what rest; do
		case $what in
		verified_instructions)
			report fact load "$name.verified_instructions" "${rest%% *}"
			rest=${rest#* verify_us }
			report fact load "$name.verify_us" "${rest%% *}"
			;;
		load_us) report fact load load_us "$rest" ;;
		esac
	done </tmp/load.txt
fi
