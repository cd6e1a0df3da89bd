#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# `make bench`: runs the benches that were built, merges what they say into BUILD/bench/report.json and prints the table of it; then Sluice beside
# its peers (BUILD/bench/peers.json). Each comparison leaves an SVG plot there.
# Usage: scripts/bench.sh BUILD. Exit code 1 if a bench failed or a limit that does not depend on the moment is broken; a missed
# time is marked in the table and fails nothing.
set -eu
build=${1:?usage: scripts/bench.sh BUILD}
here=$(dirname "$0")
out=$build/bench
failed=0

[ "$(id -u)" = 0 ] || { echo 'bench: loading the gate needs root: sudo make bench' >&2; exit 1; }
[ -x "$build/tests/bench/bench_gate" ] || { echo "bench: $build/tests/bench/bench_gate is not built: make bench" >&2; exit 1; }
mkdir -p "$out"
rm -f "$out"/*.json "$out"/*.svg "$out"/*.folded
"$build/tests/bench/bench_gate" > "$out/gate.json" || failed=1
if [ -x "$build/tests/bench/bench_writer" ]; then
	echo '  BENCH   order writer' >&2
	"$build/tests/bench/bench_writer" > "$out/writer.json" || failed=1
fi
if [ -x "$build/tests/bench/bench_growth" ]; then
	"$build/tests/bench/bench_growth" > "$out/growth.json" || failed=1
fi
"${PYTHON:-/usr/bin/python3}" "$here/bench-report.py" "$out" || failed=1
"${PYTHON:-/usr/bin/python3}" -B "$here/../tests/bench/peers/run.py" --build "$build" --out "$out" || failed=1
exit "$failed"
