# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# (suite and mode are set by lib.sh)
# The packet tests: each a program that runs frames through the gate by BPF_PROG_TEST_RUN. packet-quick leaves out those that play
# thousands of rounds; both leave out the model.

packet_program() # PROGRAM
{
	timeout 240 "$1" 2>&1 && return
	# The names of the cases that failed, in the last line.
	echo "failed:$(sed -n 's/^\[  FAILED  \] \([a-z0-9_]*\)$/ \1/p' /tmp/try.log | sort -u | tr -d '\n')"
	return 1
}

for program in /sluice/tests/test_*; do
	name=${program##*/test_}
	# The model explains each verdict by an instant of the real clock, to the nanosecond; an emulated CPU's clock gives it none.
	case $mode:$name in *:model | quick:concurrency | quick:random | quick:lists) continue ;; esac
	try "$name" packet_program "$program"
	passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' /tmp/try.log)
	report fact "$suite" "$name.passed" "${passed:-0}"
done
