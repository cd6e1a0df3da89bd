#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Makes a manual page of its template (scripts/packaging/man/NAME.SECTION.in): whatever the programs or the config example say themselves
# is asked of them, so that a page cannot say anything else. Called by scripts/packaging/rules.mk.
#   man-page.sh TEMPLATE BUILD VERSION DATE > PAGE
# A line of a template that is one of these words is replaced:
#   @COMMANDS@        COMMANDS and EXIT STATUS of sluice, from its tables (sluice help --man)
#   @HELP:PROGRAM@    SYNOPSIS, DESCRIPTION and OPTIONS, from PROGRAM --help
#   @CONF@            the keys, from docs/sluice.conf.example
# @VERSION@ and @DATE@ are replaced anywhere.
set -eu
template=$1 build=$2 version=$3 date=$4

escape='
	function roff(text) {
		gsub(/\\/, "\\e", text)
		gsub(/-/, "\\-", text)
		gsub(/\047/, "\\(aq", text)
		gsub(/`/, "\\(ga", text)
		gsub(/\^/, "\\(ha", text)
		gsub(/~/, "\\(ti", text)
		return text ~ /^[.]/ ? "\\&" text : text
	}'

# Usage lines, then paragraphs, then lines that begin with an option: "  -c, --config FILE  text", continued by lines that are indented.
help_section()
{
	"$build/$1" --help | awk -v program="$1" "$escape"'
		function option(text) {
			text = roff(text)
			gsub(/[A-Z][A-Z]+/, "\\fI&\\fB", text)
			return "\\fB" text "\\fR"
		}
		NR == 1 {
			sub(/^[Uu]sage: */, "")
			sub(/^[^ ]+ */, "")
			print ".SH SYNOPSIS\n.B " program "\n" roff($0) "\n.SH DESCRIPTION"
			next
		}
		/^ +-/ {
			if (!options++)
				print ".SH OPTIONS"
			sub(/^ +/, "")
			at = match($0, /  +/)
			if (at) {
				print ".TP\n" option(substr($0, 1, at - 1)) "\n" roff(substr($0, at + RLENGTH))
			} else {
				print ".TP\n" option($0) "\nprint that and exit"
			}
			next
		}
		/^ +/ && options { sub(/^ +/, ""); print roff($0); next }
		!NF { if (NR > 2 && !options) print ".PP"; next }
		{ print roff($0) }' | awk '
		# No paragraph without a text behind it.
		$0 == ".PP" { held = 1; next }
		{ if (held && !/^[.]SH/ && last !~ /^[.]SH/) print ".PP"; held = 0; print; last = $0 }'
}

# The example has groups ("gate:" or "services = ("), keys ("name = value;  # text", "name: { ... };  # text"), and comments above them.
conf_section()
{
	awk "$escape"'
		BEGIN { heading = 1 }
		function flush() {
			if (about != "") print (heading ? "" : ".PP\n") roff(about)
			heading = heading && about == ""
			about = ""
		}
		function key(name, value, text) {
			flush()
			gsub(/[ \t]+$/, "", value)
			if (text == "") {
				print FILENAME ":" FNR ": the key " name " has no explanation" > "/dev/stderr"
				failed = 1
			}
			heading = 0
			print ".TP\n\\fB" roff(name) "\\fR = " roff(value) "\n" roff(text)
			open = 1
		}
		/^# SPDX/ || /^[ \t]*[{}]/ || /^\);/ { if (/^\);/ || /^}/) open = 0; next }
		/^#/ { sub(/^# ?/, ""); about = about (about == "" ? "" : " ") $0; open = 0; if ($0 == "") flush(); next }
		/^[ \t]*#/ && open { sub(/^[ \t]*# ?/, ""); print roff($0); next }
		/^[ \t]*$/ { if (first++) next; flush(); next }
		/^[a-z_]+ = \((\);)?$/ || /^[a-z_]+:$/ {
			name = $1
			sub(/:$/, "", name)
			print ".SS " roff(name)
			heading = 1
			flush()
			next
		}
		match($0, /^[ \t]+[a-z_]+ = [^#]*;/) || match($0, /^[ \t]+[a-z_]+: *\{[^}]*\};/) {
			setting = substr($0, RSTART, RLENGTH)
			text = substr($0, RSTART + RLENGTH)
			sub(/^[ \t]*#? ?/, "", text)
			sub(/^[ \t]+/, "", setting)
			sub(/;$/, "", setting)
			gsub(/  +/, " ", setting)
			at = match(setting, / = |: /)
			key(substr(setting, 1, at - 1), substr(setting, at + RLENGTH), text)
			next
		}
		{ print FILENAME ":" FNR ": cannot be put into the manual page: " $0 > "/dev/stderr"; failed = 1 }
		END { flush(); exit failed }' docs/sluice.conf.example
}

while IFS= read -r line; do
	case $line in
	@COMMANDS@) "$build/sluice" help --man ;;
	@HELP:*@) program=${line#@HELP:} && help_section "${program%@}" ;;
	@CONF@) conf_section ;;
	*) printf '%s\n' "$line" | sed -e "s|@VERSION@|$version|g" -e "s|@DATE@|$date|g" ;;
	esac
done <"$template"
