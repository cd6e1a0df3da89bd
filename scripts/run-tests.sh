#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Runs the given cmocka test programs, one after another or JOBS at a time; fails if one fails or if there is none. What each says comes in one piece.
# usage: scripts/run-tests.sh [-j JOBS] PROGRAM...     those that take longest should come first
set -u
jobs=1
if [ "${1-}" = -j ]; then
	jobs=$2
	shift 2
fi
[ $# -gt 0 ] || { echo 'run-tests: no test program given' >&2; exit 1; }
if [ "$jobs" -eq 1 ]; then
	failed=''
	for program in "$@"; do
		printf '== %s\n' "${program##*/}"
		"$program" || failed="$failed ${program##*/}"
	done
	[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
	exit 0
fi

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
export scratch

run_one() # PROGRAM
{
	local name=${1##*/} status=0
	"$1" >"$scratch/$name" 2>&1 || status=1
	[ "$status" -eq 0 ] || echo "$name" >>"$scratch/failed"
	{ flock 9 && printf '== %s\n' "$name" && cat "$scratch/$name"; } 9>>"$scratch/turn"
}
export -f run_one
# xargs ends when the last program has; of its own status only that something failed is known.
# shellcheck disable=SC2016 # $1 is that of the inner shell
printf '%s\0' "$@" | xargs -0 -P "$jobs" -I{} bash -c 'run_one "$1"' bash {} || exit 1
[ ! -e "$scratch/failed" ] || { echo "failed: $(tr '\n' ' ' <"$scratch/failed")" >&2; exit 1; }
