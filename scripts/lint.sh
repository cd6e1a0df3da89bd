#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Formatting and static checks of everything that is ours: clang-format (as .clang-format has it), clang's warnings (the build is gcc's), cppcheck
# and shellcheck, and the shells' own parser. Called by `make lint`; ends with a verdict line and exits non-zero if there is a finding.
#   scripts/lint.sh --fix    formats the C files instead of complaining about them
set -u
cd "$(dirname "$0")/.." || exit 1

# Format by the version that Debian 12 has: others break lines elsewhere.
CLANG_FORMAT=$(command -v clang-format-14 || command -v clang-format) || CLANG_FORMAT=clang-format
fix=0
case ${1-} in
'') ;;
--fix) fix=1 ;;
*) echo 'usage: scripts/lint.sh [--fix]' >&2; exit 2 ;;
esac

# Tracked and new files, without what .gitignore names; in an unpacked archive without git, all files outside build/.
files()
{
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files -z --cached --others --exclude-standard -- "$@" | while IFS= read -r -d '' file; do
			[ ! -e "$file" ] || printf '%s\0' "$file"
		done
	else
		local pattern
		for pattern in "$@"; do
			find . -path ./build -prune -o -type f -name "${pattern##*/}" -print0
		done
	fi
}

failed=()
step() # NAME COMMAND...
{
	local name=$1
	shift
	if "$@"; then
		printf '  %-12s ok\n' "$name"
	else
		printf '  %-12s FINDINGS\n' "$name"
		failed+=("$name")
	fi
}

format()
{
	if [ "$fix" -eq 1 ]; then
		"$CLANG_FORMAT" -i "${c_files[@]}"
	else
		"$CLANG_FORMAT" --dry-run -Werror "${c_files[@]}"
	fi
}

# Userspace only: cppcheck knows neither the verifier nor BPF's sections. Users and groups are looked up by programs that have one thread
# yet, and glibc's readdir is safe on a directory of one's own, so the functions that are not reentrant will do. Variables that are
# not set are the compilers' to find, and leaks LeakSanitizer's (make sanitize): cppcheck loses a buffer that is filled through a struct and
# takes a mapping that is returned for a leak. The macros of headers that it does not read and that declare things are told to it.
check_c()
{
	local header told=()
	for header in sys/queue.h jansson.h; do
		told+=(--include="$(echo "#include <$header>" | cc -E - | sed -n "s|^# 1 \"\(/.*/$header\)\".*|\1|p")")
	done
	cppcheck --quiet --std=c11 --language=c --platform=unix64 --error-exitcode=1 --inline-suppr \
		--enable=warning,performance,portability --suppress=missingIncludeSystem \
		--suppress=getgrnamCalled --suppress=getpwnamCalled --suppress=readdirCalled \
		--suppress=uninitvar --suppress=memleak \
		"${told[@]}" \
		-D'LIBBPF_OPTS(type,name,...)=struct type name = { __VA_ARGS__ }' \
		-D'DECLARE_LIBXDP_OPTS(type,name,...)=struct type name = { __VA_ARGS__ }' \
		--library=posix --template=gcc \
		-D_GNU_SOURCE -DSLUICE_VERSION='"lint"' -Iinclude -Iuserspace "${userspace_files[@]}"
}

check_clang()
{
	"${MAKE:-make}" --no-print-directory BUILD="${BUILD:-build}" lint-clang
}

check_shell()
{
	shellcheck -x "${shell_files[@]}"
}

parse_shell()
{
	local file rc=0
	for file in "${shell_files[@]}"; do
		case $(head -n 1 "$file") in
		*bash*) bash -n "$file" || rc=1 ;;
		*) sh -n "$file" || rc=1 ;;
		esac
	done
	return $rc
}

for tool in "$CLANG_FORMAT" cppcheck shellcheck; do
	command -v "$tool" >/dev/null || { echo "lint: $tool is missing (scripts/install-deps.sh installs it)" >&2; exit 1; }
done
mapfile -d '' -t c_files < <(files '*.c' '*.h')
mapfile -d '' -t userspace_files < <(files 'userspace/*.c')
mapfile -d '' -t shell_files < <(files '*.sh' '.ci/run')

step format format
step clang check_clang
step cppcheck check_c
step shellcheck check_shell
step parse parse_shell
if [ ${#failed[@]} -gt 0 ]; then
	echo "lint: FAILED: ${failed[*]}"
	exit 1
fi
echo "lint: ok, ${#c_files[@]} C files and ${#shell_files[@]} scripts"
