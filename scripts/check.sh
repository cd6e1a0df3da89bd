#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Every test of Sluice in four lanes, which take part after part, then a table and the total as the last line: "N passed, N failed". Called by `make check`.
# A part that fails does not stop the others. Exits non-zero if anything failed. Ctrl-C reaches the part that runs, so
# that its namespaces and pins are cleaned up, and then ends the check.
# Environment: BUILD (build), MAKE (make). Logs and the total are left in $BUILD/check/.
set -u
cd "$(dirname "$0")/.." || exit 1

BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
GRACE_S=30 # for cleaning up after Ctrl-C
JOBS=$(nproc) # compilers at a time
# For machines with two CPUs: what computes in one lane, and three for what mostly waits (for clocks, restarts, time-outs; a third of a CPU each).
# Each lane takes the next part of its own kind that nobody has, and then of the other. Of what waits the longest come first. The CPUs are first of
# all for what waits, where a late answer is another answer.
COMPUTING_NICE=5
WAITING_LANES=3
computing=(check-unit check-packet sanitize check-sim check-fuzz check-model check-kernel)
waiting=(check-fleet check-lasting check-clients check-e2e check-nodes check-fault check-stream)
logs=$BUILD/check

if [ "$(id -u)" -ne 0 ]; then
	echo 'check: packet and end-to-end tests load programs into the kernel: run this as root (sudo make check)' >&2
	exit 1
fi
mkdir -p "$logs" || exit 1
rm -rf "$logs"/*.log "$logs"/*.result "$logs/total" "$logs/taken"
mkdir "$logs/taken" || exit 1

lanes=()
interrupt()
{
	trap '' INT TERM
	echo 'check: interrupted; letting the running parts clean up' >&2
	for lane in "${lanes[@]}"; do
		kill -INT -- "-$lane" 2>/dev/null
	done
	for lane in "${lanes[@]}"; do
		for ((i = 0; i < GRACE_S * 10; i++)); do
			kill -0 -- "-$lane" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL -- "-$lane" 2>/dev/null
	done
	exit 130
}
trap interrupt INT TERM

# Sums a number out of a log's result lines. cmocka: "[  PASSED  ] 12 test(s)."; pytest: "3 failed, 12 passed, 1 skipped in 4.2s".
count() # LOG passed|failed|skipped
{
	[ -e "$1" ] || { echo 0; return; }
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

# One part after another of those that no other lane has taken. What it prints goes to its log; SHOW "live" prints it as it comes, "after" when the
# part is over.
run_lane() # SHOW PART...
{
	local show=$1 part status began interrupted=0 run
	shift
	set -o pipefail
	trap 'interrupted=1' INT
	for part in "$@"; do
		# Both build the packet tests. Who runs the one comes to the other later.
		[ "$part" != check-kernel ] || [ -e "$logs/check-packet.result" ] || continue
		# If it cannot be made at all, the part runs all the same, and says what is wrong.
		mkdir "$logs/taken/$part" 2>/dev/null || { [ -d "$logs/taken/$part" ] && continue; }
		began=$SECONDS
		run=(env --default-signal='INT,QUIT' "$MAKE" -j"$JOBS" --no-print-directory BUILD="$BUILD" "$part")
		case " ${computing[*]} " in
		*" $part "*) run=(nice -n "$COMPUTING_NICE" "${run[@]}") ;;
		esac
		if [ "$show" = live ]; then
			printf '\n=== %s\n' "$part"
			"${run[@]}" 2>&1 </dev/null | tee -i "$logs/$part.log"
			status=$?
		else
			"${run[@]}" >"$logs/$part.log" 2>&1 </dev/null
			status=$?
			printf '\n=== %s\n%s\n' "$part" "$(cat "$logs/$part.log")"
		fi
		echo "$status $((SECONDS - began))" >"$logs/$part.result"
		[ "$interrupted" -eq 0 ] || return
	done
}

set -m # each lane in a process group of its own; env gives SIGINT back to its parts where we were started without (nohup, &)
run_lane live "${computing[@]}" "${waiting[@]}" &
lanes+=($!)
for ((i = 0; i < WAITING_LANES; i++)); do
	run_lane after "${waiting[@]}" "${computing[@]}" &
	lanes+=($!)
done
for lane in "${lanes[@]}"; do
	wait "$lane"
done
# What no lane has taken: check-kernel, where everybody came to it too early.
run_lane live "${computing[@]}" "${waiting[@]}" &
lanes=($!)
wait "$!"
lanes=()
rm -rf "$logs/taken"

rows=()
total_passed=0
total_failed=0
for part in "${computing[@]}" "${waiting[@]}"; do
	read -r status took <"$logs/$part.result" || { status=1 took=0; }
	passed=$(count "$logs/$part.log" passed)
	failed=$(count "$logs/$part.log" failed)
	skipped=$(count "$logs/$part.log" skipped)
	result=ok
	# A part that broke without a failed test case (it did not build, it crashed) counts as one.
	if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
		failed=1
	fi
	# So does one that tested nothing, unless it says what it skipped: its log has why.
	if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
		result=skipped
		[ "$skipped" -gt 0 ] || failed=1
	fi
	[ "$failed" -eq 0 ] || result=FAILED
	total_passed=$((total_passed + passed))
	total_failed=$((total_failed + failed))
	rows+=("$(printf '%-14s %-7s %7d %7d %8d %7ds' "$part" "$result" "$passed" "$failed" "$skipped" "$took")")
done

printf '\n%-14s %-7s %7s %7s %8s %8s\n' part result passed failed skipped time
printf '%s\n' "${rows[@]}"
# Here once more, because who reads the end of a long log (in CI, the end is often all there is) shall not have to look for it.
failures=$(grep -EH '^(FAILED|ERROR) |^\[  FAILED  \] [a-z_]+$|^failed:' "$logs"/*.log | sed "s|^$logs/||" | cut -c1-400)
[ -z "$failures" ] || printf '\nfailed:\n%s\n' "$failures"
printf '\nlogs: %s/\n' "$logs"
echo "$total_passed passed, $total_failed failed" | tee "$logs/total"
[ "$total_failed" -eq 0 ]
