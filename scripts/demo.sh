#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# `make demo`: one whole flash sale by `sluice drill` with its defaults, in namespaces of its own. Called with the build directory; needs
# root. Leaves BUILD/demo/report.json and BUILD/demo/ledger.db, says how to ask the ledger, and ends with the drill's exit code.
set -eu
build=${1:?usage: scripts/demo.sh BUILD_DIRECTORY}
build=$(cd "$build" && pwd)
demo=$build/demo

if [ "$(id -u)" -ne 0 ]; then
	echo 'demo: needs root, for network namespaces and BPF programs: sudo make demo' >&2
	exit 1
fi
mkdir -p "$demo"
rm -f "$demo/report.json"
code=0
"$build/sluice" drill --work-dir "$demo" --report "$demo/report.json" || code=$?
if [ -e "$demo/report.json" ]; then
	as_root=${SUDO_USER:+sudo }
	cat <<END

The report:  $demo/report.json
The ledger:  $demo/ledger.db
Ask it:      ${as_root}sqlite3 -box $demo/ledger.db "SELECT slug, put_in, held, confirmed, unsold FROM sales_view"
             ${as_root}sqlite3 -box $demo/ledger.db "SELECT * FROM orders_view WHERE sale = 'drill' LIMIT 5"
END
fi
exit "$code"
