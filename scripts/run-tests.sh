#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Runs the given cmocka test programs one after another; fails if one fails or if there is none.
set -u
[ $# -gt 0 ] || { echo 'run-tests: no test program given' >&2; exit 1; }
failed=''
for program in "$@"; do
	printf '== %s\n' "${program##*/}"
	"$program" || failed="$failed ${program##*/}"
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
