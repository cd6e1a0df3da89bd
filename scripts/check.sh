#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Every test of Sluice, one part after another, then a table and the total as the last line: "N passed, N failed". Called by `make check`.
# A part that fails does not stop the others. Exits non-zero if anything failed. Ctrl-C reaches the part that runs, so
# that its namespaces and pins are cleaned up, and then ends the check.
# Environment: BUILD (build), MAKE (make). Logs and the total are left in $BUILD/check/.
set -u
cd "$(dirname "$0")/.." || exit 1

BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
GRACE_S=30 # for cleaning up after Ctrl-C
parts=(check-unit check-packet check-model check-fuzz sanitize check-e2e check-fault check-kernel)
logs=$BUILD/check

if [ "$(id -u)" -ne 0 ]; then
	echo 'check: packet and end-to-end tests load programs into the kernel: run this as root (sudo make check)' >&2
	exit 1
fi
mkdir -p "$logs" || exit 1
rm -f "$logs"/*.log "$logs/total"

job=0
interrupt()
{
	trap '' INT TERM
	echo 'check: interrupted; letting the running part clean up' >&2
	if [ "$job" -ne 0 ]; then
		kill -INT -- "-$job" 2>/dev/null
		for ((i = 0; i < GRACE_S * 10; i++)); do
			kill -0 -- "-$job" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL -- "-$job" 2>/dev/null
	fi
	exit 130
}
trap interrupt INT TERM

# Sums a number out of a log's result lines. cmocka: "[  PASSED  ] 12 test(s)."; pytest: "3 failed, 12 passed, 1 skipped in 4.2s".
count() # LOG passed|failed|skipped
{
	awk -v what="$2" '
		BEGIN { cmocka = what == "passed" ? "PASSED" : what == "failed" ? "FAILED" : "SKIPPED" }
		$1 == "[" && $2 == cmocka && $3 == "]" && $5 ~ /^test\(s\)/ { sum += $4 }
		/ in [0-9.]+s/ && /(passed|failed|error|skipped)/ {
			for (i = 2; i <= NF; i++) {
				word = $i
				gsub(/[,=]/, "", word)
				if (word == what || (what == "failed" && (word == "error" || word == "errors")))
					sum += $(i - 1)
			}
		}
		END { print sum + 0 }' "$1"
}

set -m # each part in a process group of its own; env gives SIGINT back to it where we were started without (nohup, &)
rows=()
total_passed=0
total_failed=0
for part in "${parts[@]}"; do
	printf '\n=== %s\n' "$part"
	began=$SECONDS
	(
		set -o pipefail
		env --default-signal=INT,QUIT "$MAKE" --no-print-directory BUILD="$BUILD" "$part" 2>&1 </dev/null | tee -i "$logs/$part.log"
	) &
	job=$!
	wait "$job"
	status=$?
	job=0
	passed=$(count "$logs/$part.log" passed)
	failed=$(count "$logs/$part.log" failed)
	skipped=$(count "$logs/$part.log" skipped)
	result=ok
	# A part that broke without a failed test case (it did not build, it crashed) counts as one.
	if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
		failed=1
	fi
	# So does one that tested nothing.
	if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
		failed=1
	fi
	[ "$failed" -eq 0 ] || result=FAILED
	total_passed=$((total_passed + passed))
	total_failed=$((total_failed + failed))
	rows+=("$(printf '%-14s %-7s %7d %7d %8d %7ds' "$part" "$result" "$passed" "$failed" "$skipped" $((SECONDS - began)))")
done

printf '\n%-14s %-7s %7s %7s %8s %8s\n' part result passed failed skipped time
printf '%s\n' "${rows[@]}"
printf '\nlogs: %s/\n' "$logs"
echo "$total_passed passed, $total_failed failed" | tee "$logs/total"
[ "$total_failed" -eq 0 ]
