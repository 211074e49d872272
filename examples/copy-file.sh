#!/bin/sh
# Copies a file to another host and verifies its checksum there.
#
#   copy-file.sh FILE HOST PATH
#
# The file is written beside PATH and renamed to it only when its SHA-256 is right: nobody on
# HOST ever sees a part of it. An existing PATH keeps its owner and mode.
# Exit status: 0; 1 when the checksum differs; any other status when reading, sending or writing failed.
set -eu

if [ $# -ne 3 ]; then
	echo 'usage: copy-file.sh FILE HOST PATH' >&2
	exit 2
fi
file=$1 host=$2 path=$3

# Quotes a word for the shell on the other host.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

# From standard input: a name with a backslash would change the line's form.
sum=$(sha256sum <"$file")
sum=${sum%% *}

# shellcheck disable=SC2016 # the shell on the other host expands these
receive='
	path=$1 sum=$2 part=$1.part.$$
	trap "rm -f \"\$part\"" EXIT
	trap "exit 255" HUP INT TERM
	# Owner and mode come from the file that is replaced.
	[ ! -f "$path" ] || cp -p "$path" "$part" || exit 3
	cat >"$part" || exit 3
	have=$(sha256sum <"$part") || exit 3
	if [ "${have%% *}" != "$sum" ]; then
		echo "copy-file.sh: $path: the checksum differs; nothing was changed" >&2
		exit 1
	fi
	mv -f "$part" "$path" || exit 3'
exec cos run "$host" "sh -c $(quote "$receive") sh $(quote "$path") $sum" <"$file"
