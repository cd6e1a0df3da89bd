#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Makes the bash completion of its template (scripts/completion.bash.in) and the words that sluice itself tells (sluice help --words).
#   completion.sh BUILD > sluice
set -eu
words=$("$1/sluice" help --words)
while IFS= read -r line; do
	case $line in
	*@WORDS@*) printf '%s%s%s\n' "${line%%@WORDS@*}" "$words" "${line#*@WORDS@}" ;;
	*) printf '%s\n' "$line" ;;
	esac
done <scripts/completion.bash.in
