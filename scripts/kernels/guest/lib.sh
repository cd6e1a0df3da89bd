# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# shellcheck shell=dash
# How a suite in the guest tests and reports. Read by init, once; a suite is a file of that name in /sluice/guest, read in a subshell, that
# calls `try` for each of its tests.

tests=0

# Debian's busybox prefers its own commands to those in PATH.
ip()
{
	/usr/sbin/ip "$@"
}

report() # FIELD...
{
	report_line=$1
	shift
	for report_field in "$@"; do
		report_line="$report_line	$report_field"
	done
	echo "$report_line" >/dev/ttyS1
}

now_ms()
{
	read -r now_up _ </proc/uptime
	echo "${now_up%.*}${now_up#*.}0"
}

# One test: a function or command, in a subshell that ends at the first command that fails. Its last line says why.
try() # NAME COMMAND [ARGUMENT...]
{
	try_name=$1
	shift
	try_began=$(now_ms)
	echo "$suite: $try_name" >/tmp/trying
	set +e
	(
		set -e
		"$@"
	) >/tmp/try.log 2>&1 </dev/null
	try_code=$?
	try_ms=$(($(now_ms) - try_began))
	tests=$((tests + 1))
	case $try_code in
	0)
		report test "$suite" passed "$try_ms" "$try_name" ''
		echo "ok      $suite: $try_name ($try_ms ms)"
		return 0
		;;
	77)
		report test "$suite" skipped "$try_ms" "$try_name" "$(tail -n 1 /tmp/try.log)"
		echo "skipped $suite: $try_name: $(tail -n 1 /tmp/try.log)"
		return 0
		;;
	esac
	report test "$suite" failed "$try_ms" "$try_name" "$(grep -v '^$' /tmp/try.log | tail -n 1 | cut -c 1-300) (exit code $try_code)"
	echo "FAILED  $suite: $try_name (exit code $try_code)"
	tail -n 60 /tmp/try.log
	return 1
}

# Inside a test.
fail() # SENTENCE
{
	echo "$*"
	exit 1
}

skip() # SENTENCE
{
	echo "$*"
	exit 77
}

# Waits for a condition.
until_true() # SECONDS COMMAND...
{
	until_end=$(($(now_ms) + $1 * 1000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now_ms)" -lt "$until_end" ] || fail "waited in vain for: $*"
		sleep 0.1
	done
}

# The number after "key": in JSON text of one level.
json_number() # KEY
{
	sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" | head -n 1
}

# A command that must be refused: exit code, and these words in the last sentence that sluice says.
refused() # EXIT-CODE WORDS COMMAND...
{
	refused_code=$1
	refused_words=$2
	shift 2
	set +e
	"$@" >/tmp/refused.log 2>&1
	refused_got=$?
	set -e
	cat /tmp/refused.log
	refused_said=$(grep '^sluice' /tmp/refused.log | tail -n 1)
	[ "$refused_got" -eq "$refused_code" ] || fail "exit code $refused_got instead of $refused_code: $refused_said"
	echo "$refused_said" | grep -q -- "$refused_words" || fail "said \"$refused_said\", without \"$refused_words\""
}

# A suite's name may have a part behind a dash, which is its mode: sale-native is the suite `sale` with mode=native. A suite that breaks
# outside its tests has failed too.
run_suite() # SUITE
{
	suite=$1
	# shellcheck disable=SC2034 # the suites read it
	mode=${suite#*-}
	echo "$tests" >/tmp/tests
	(
		# shellcheck disable=SC1090
		. "/sluice/guest/${suite%%-*}.sh"
		echo "$tests" >/tmp/tests
	)
	run_suite_code=$?
	tests=$(cat /tmp/tests)
	[ "$run_suite_code" -eq 0 ] || try 'the suite comes to its end' fail "it ended with exit code $run_suite_code outside its tests"
}
