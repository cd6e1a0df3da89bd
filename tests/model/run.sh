#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Exhausts the model of the way of an order (orders.pml) in several configurations, then shows that it can fail: with each of the defects
# below spin must find the claim broken that is named beside it, and each of the situations below must come about. Called by `make check-model`; needs spin and a C compiler.
# usage: tests/model/run.sh BUILD_DIR [NAME...]     only those configurations and defects
set -u
cd "$(dirname "$0")/../.." || exit 1

[ $# -gt 0 ] || { echo 'usage: tests/model/run.sh BUILD_DIR [NAME...]' >&2; exit 2; }
mkdir -p "$1" || exit 1
build=$(realpath "$1")
shift
only=" $* "
DEPTH_MAX=20000 # steps of a run; the longest has some 200
RUN_MAX_S=120   # the longest takes five seconds on a machine that does nothing else

# --- what is explored: name | how | sizes and budgets (orders.pml has the defaults) ----------------------------------------------------
# safety: every claim, in every state. ends: no run goes on for ever, so that each comes to rest (and what must hold at rest is a claim).
one_each='-DTOKENS=2 -DTOKENS_OF_ONE=1 -DJUDGES=1' # two tokens of two buyers
configurations="
the_last_unit            safety -DREQUESTS=4 -DDAEMON_CRASHES=1 -DWRITER_CRASHES=1
a_buyer_with_two_tokens  safety -DREQUESTS=3 -DPUT_IN=2 -DLIMIT=2 -DDAEMON_CRASHES=1 -DWRITER_CRASHES=1
a_ring_that_is_full      safety -DREQUESTS=4 -DPUT_IN=2 -DRING_SLOTS=1 -DWRITER_CRASHES=1
crash_after_crash        safety -DREQUESTS=3 -DPUT_IN=2 -DDAEMON_CRASHES=2 -DWRITER_CRASHES=1
reboot                   safety -DREQUESTS=4 -DPUT_IN=2 -DREBOOTS=1 -DDAEMON_CRASHES=1
returns                  safety $one_each -DREQUESTS=3 -DCHANGES=4 -DWRITER_CRASHES=1
returns_and_crashes      safety $one_each -DREQUESTS=3 -DCHANGES=3 -DDAEMON_CRASHES=1 -DWRITER_CRASHES=1
returns_and_breaks       safety $one_each -DREQUESTS=3 -DCHANGES=3 -DLINK_BREAKS=1 -DDAEMON_CRASHES=1
returns_and_reboot       safety $one_each -DREQUESTS=3 -DCHANGES=3 -DREBOOTS=1 -DWRITER_CRASHES=1
returns_in_a_crowd       safety -DREQUESTS=3 -DCHANGES=1 -DPUT_IN=2 -DWRITER_CRASHES=1
returns_to_one_buyer     safety -DTOKENS=2 -DJUDGES=1 -DREQUESTS=3 -DCHANGES=3 -DPUT_IN=2 -DDAEMON_CRASHES=1
every_run_comes_to_rest  ends   $one_each -DREQUESTS=2 -DCHANGES=2 -DDAEMON_CRASHES=1 -DWRITER_CRASHES=1
"

# --- what must be found: the defect (a switch BUG_… of orders.pml) | the claim that it breaks | where ---------------------------------------
defects="
TAKE_BEFORE_DUPLICATE_CHECK   I2 -DPUT_IN=2
CLAIM_IN_TWO_STEPS            I2 -DPUT_IN=2 -DLIMIT=2
TAKE_IN_TWO_STEPS             I1
OFF_BY_ONE                    I1
RING_FULL_AFTER_TAKE          I2 -DPUT_IN=2 -DRING_SLOTS=1
UNDO_FORGETS_BUYER            I2
SOLD_OUT_BEFORE_ADMITTED      I5
YES_BEFORE_DURABLE            I3
ACKNOWLEDGE_BEFORE_COMMIT     I3 -DWRITER_CRASHES=1
TAKE_BACK_LOSES               I2 -DWRITER_CRASHES=1
LOST_RING_ENTRY               I2 -DDAEMON_CRASHES=1
NO_SETTLE                     I1 -DWRITER_CRASHES=1
OPEN_BEFORE_RECOVERY          I1 -DDAEMON_CRASHES=1
STALE_STOCK_AFTER_RESTART     I2 $one_each -DCHANGES=1 -DDAEMON_CRASHES=1
STOCK_REBUILT_WITHOUT_ORDERS  I1 -DREBOOTS=1
LATE_CONFIRM_TAKES_NOTHING    I1 $one_each -DCHANGES=2
DOUBLE_RELEASE                I1 $one_each -DCHANGES=2
RELEASE_FORGETS_BUYER         I2 $one_each -DCHANGES=1
RELEASE_WHILE_UNCERTAIN       I1 $one_each -DCHANGES=1 -DWRITER_CRASHES=1
RELEASE_BEFORE_LAST_ANSWER    I1 $one_each -DCHANGES=2
"

# --- what must be possible, or the claims would say nothing: the situation (a switch REACH_…) | possible | where --------------------------------
situations="
ADMITTED_WITHOUT_A_DAEMON      possible -DDAEMON_CRASHES=1
COMMITTED_AND_NOT_ACKNOWLEDGED possible -DWRITER_CRASHES=1
RETURNED_AND_SOLD_AGAIN        possible $one_each -DCHANGES=1
LATE_CONFIRMATION              possible $one_each -DCHANGES=2
CHANGED_AND_NOT_ANSWERED       possible $one_each -DCHANGES=1 -DWRITER_CRASHES=1
REBUILT_AFTER_REBOOT           possible -DREBOOTS=1
"

# Builds the verifier in a directory of its own and runs it; its report is in `report`.
verify() # NAME MODE DEFINES...
{
	local name=$1 mode=$2
	shift 2
	rm -rf "${build:?}/$name"
	mkdir "$build/$name" && cp tests/model/orders.pml "$build/$name/" && cd "$build/$name" || return 1
	spin -a "$@" orders.pml >spin.log 2>&1 || { cat spin.log; return 1; }
	if [ "$mode" = ends ]; then
		cc -w -O1 -DNP -DCOLLAPSE -DVECTORSZ=4096 -o pan pan.c >cc.log 2>&1 && timeout "$RUN_MAX_S" ./pan -l "-m$DEPTH_MAX" >report 2>&1
	else
		cc -w -O1 -DSAFETY -DCOLLAPSE -DVECTORSZ=4096 -o pan pan.c >cc.log 2>&1 && timeout "$RUN_MAX_S" ./pan "-m$DEPTH_MAX" >report 2>&1
	fi
}

states_of()
{
	awk '/ states, stored/ { print $1 }' report
}

# One line on stdout: "ok …" or "failed …".
explore() # NAME MODE DEFINES...
{
	local broken
	verify "$@" || { echo "failed $1: the verifier could not be built or run ($build/$1)"; return; }
	broken=$(grep -E 'assertion violated|non-progress cycle \(at|invalid end state \(|max search depth|out of memory|Search not completed' report | head -1)
	if [ -n "$broken" ] || ! grep -q 'errors: 0$' report; then
		echo "failed $1: ${broken:-no result} (cd $build/$1 && spin -t -p orders.pml, with the same -D)"
	else
		echo "ok $1: $(states_of) states, all of them"
	fi
}

catch() # DEFECT CLAIM DEFINES...
{
	local name=$1 claim=$2 broken
	shift 2
	local switch=BUG
	[ "$claim" != possible ] || switch=REACH
	verify "$name" safety "-D${switch}_$name" "$@" || { echo "failed $name: the verifier could not be built or run ($build/$name)"; return; }
	broken=$(sed -n 's/.*assertion violated (*\([A-Za-z0-9]*\).*/\1/p' report | head -1)
	if [ "$broken" = "$claim" ]; then
		case $claim in
		possible) echo "ok $name is possible: reached after $(states_of) states" ;;
		*) echo "ok $name is caught: $claim broken after $(states_of) states" ;;
		esac
	else
		echo "failed $name: $claim should have been found, and was: ${broken:-nothing}"
	fi
}

one() # LINE of a table
{
	# shellcheck disable=SC2086 # the words of the line
	set -- $1
	case $2 in
	safety | ends) explore "$@" ;;
	*) catch "$@" ;;
	esac
}

command -v spin >/dev/null || { echo 'check-model: there is no spin (scripts/install-deps.sh)' >&2; exit 1; }
export build DEPTH_MAX RUN_MAX_S
export -f verify states_of explore catch one
lines=()
while read -r line; do
	[ -n "$line" ] || continue
	case $only in
	'  ' | *" ${line%% *} "*) lines+=("$line") ;;
	esac
done <<<"$configurations$defects$situations"
[ ${#lines[@]} -gt 0 ] || { echo "check-model: there is nothing of that name: $only" >&2; exit 2; }

echo "[==========] Running ${#lines[@]} test(s)."
# shellcheck disable=SC2016 # $1 is that of the inner shell
results=$(printf '%s\0' "${lines[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'one "$1"' bash {})
sed -n 's/^ok /[       OK ] /p; s/^failed /[  FAILED  ] /p' <<<"$results"
passed=$(grep -c '^ok ' <<<"$results")
failed=$((${#lines[@]} - passed))
echo "[  PASSED  ] $passed test(s)."
[ "$failed" -eq 0 ] || echo "[  FAILED  ] $failed test(s), named above."
[ "$failed" -eq 0 ]
