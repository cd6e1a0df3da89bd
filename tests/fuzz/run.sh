#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Runs the fuzz targets. Called by tests/fuzz/rules.mk.
#   run.sh check DIR (TARGET RUNS LENGTH)...        what is kept, then RUNS runs of each from a fixed seed; fails if one finds something
#   run.sh long DIR (TARGET SECONDS LENGTH)...      each for SECONDS; what is new stays in DIR/corpus
#   run.sh coverage DIR (TARGET CORPORA 0)...       what is kept and what is in CORPORA/TARGET, counted by llvm-cov
# DIR holds the programs; findings go to DIR/findings. The output of check reads like cmocka's, for scripts/check.sh.
set -u
cd "$(dirname "$0")/../.." || exit 1

SEED=20261122
TIMEOUT_S=10    # one input that takes longer is a finding
MEMORY_MIB=1024 # so is one that takes more
ALLOCATION_MIB=64 # or as much at once
mode=$1
dir=$2
shift 2

scratch=$(mktemp -d -p /dev/shm sluice-fuzz-run.XXXXXX 2>/dev/null || mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
export TMPDIR=$scratch
export ASAN_OPTIONS=quarantine_size_mb=16:max_allocation_size_mb=$ALLOCATION_MIB${ASAN_OPTIONS:+:$ASAN_OPTIONS}
mkdir -p "$dir/findings" "$dir/log" || exit 1

passed=0
failed=()
# Runs one program; a test by the name of what must hold.
claim() # NAME LOG COMMAND...
{
	local name=$1 log=$2
	shift 2
	printf '[ RUN      ] %s\n' "$name"
	if "$@" >"$log" 2>&1; then
		printf '[       OK ] %s\n' "$name"
		passed=$((passed + 1))
	else
		grep -v -e '	NEW' -e '	REDUCE' -e '	pulse' "$log" | tail -n 40
		printf '[  FAILED  ] %s\n' "$name"
		failed+=("$name")
	fi
}

# What every run has; the target's kept inputs come last.
prepare() # TARGET
{
	local place
	options=("-timeout=$TIMEOUT_S" "-rss_limit_mb=$MEMORY_MIB" -reload=0 "-artifact_prefix=$dir/findings/$1-")
	[ ! -e "tests/fuzz/dict/$1.dict" ] || options+=("-dict=tests/fuzz/dict/$1.dict")
	kept=()
	for place in "tests/fuzz/corpus/$1" "tests/fuzz/regressions/$1"; do
		[ ! -d "$place" ] || kept+=("$place")
	done
	# Its own example is the best input that there is for the config.
	if [ "$1" = config ]; then
		mkdir -p "$scratch/config"
		cp docs/sluice.conf.example "$scratch/config/"
		kept+=("$scratch/config")
	fi
}

begin=$SECONDS
profiles=()
programs=()
while [ $# -ge 3 ]; do
	target=$1 amount=$2 length=$3
	shift 3
	prepare "$target"
	program=$dir/fuzz_$target
	case $mode in
	check)
		claim "${target}_holds_for_every_input_that_is_kept" "$dir/log/$target-kept.log" \
			"$program" "${options[@]}" -runs=0 "${kept[@]}"
		mkdir "$scratch/new"
		claim "${target}_holds_for_${amount}_more" "$dir/log/$target.log" \
			"$program" "${options[@]}" -seed=$SEED -runs="$amount" -max_len="$length" -len_control=20 "$scratch/new" "${kept[@]}"
		rm -rf "$scratch/new"
		;;
	long)
		mkdir -p "$dir/corpus/$target"
		claim "${target}_holds_for_${amount}_seconds" "$dir/log/$target.log" \
			"$program" "${options[@]}" -max_total_time="$amount" -max_len="$length" -print_final_stats=1 "$dir/corpus/$target" "${kept[@]}"
		grep -a -h -e 'DONE' -e 'executed_units' "$dir/log/$target.log" | tail -n 2
		;;
	coverage)
		[ ! -d "$amount/$target" ] || kept+=("$amount/$target")
		LLVM_PROFILE_FILE=$scratch/$target.raw "$program" "${options[@]}" -runs=0 "${kept[@]}" >"$dir/log/$target.log" 2>&1 ||
			failed+=("$target")
		profiles+=("$scratch/$target.raw")
		programs+=(-object "$program")
		;;
	esac
done

if [ "$mode" = coverage ]; then
	llvm-profdata merge -o "$scratch/all" "${profiles[@]}" || exit 1
	llvm-cov report "${programs[@]:1}" -instr-profile="$scratch/all" -ignore-filename-regex='tests/|/usr/' || exit 1
	[ ${#failed[@]} -eq 0 ]
	exit
fi

printf '[==========] %d test(s) run in %d s.\n' $((passed + ${#failed[@]})) $((SECONDS - begin))
printf '[  PASSED  ] %d test(s).\n' "$passed"
if [ ${#failed[@]} -gt 0 ]; then
	printf '[  FAILED  ] %d test(s), listed below:\n' ${#failed[@]}
	printf '             %s\n' "${failed[@]}"
	echo "the inputs are in $dir/findings; docs/fuzzing.md says what to do with them"
	exit 1
fi
