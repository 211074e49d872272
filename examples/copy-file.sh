#!/bin/sh
# Copies a file to another host and verifies its checksum there.
#
#   copy-file.sh FILE HOST PATH
#
# The file is written next to PATH and renamed to it only when its SHA-256 is right: PATH
# never has a part of it. An existing PATH keeps its owner and mode; a new one gets the
# permissions of FILE. PATH must name the file: a folder, or a device, is rejected.
# Exit status: 0; 1 when the checksum differs; any other status when reading, sending or writing failed.
set -eu

if [ $# -ne 3 ]; then
	echo 'usage: copy-file.sh FILE HOST PATH' >&2
	exit 2
fi
file=$1 host=$2 path=$3

# Quotes a word for the shell on the other host. The dot keeps newlines at the word's end.
quote() {
	quoted=$(printf '%s.\n' "$1" | sed "s/'/'\\\\''/g")
	printf "'%s'" "${quoted%.}"
}

# From standard input: a name with a backslash would change the line's form.
sum=$(sha256sum <"$file")
sum=${sum%% *}
# In the form of chmod(1): -rw-r----- is u=rw,g=r,o= here. There is no stat(1) in POSIX.
# shellcheck disable=SC2012 # the name is not used
mode=$(ls -ldL -- "$file" | sed -n '1s/^.\(...\)\(...\)\(...\).*/u=\1,g=\2,o=\3/p' | sed 's/[-ST]//g; s/[st]/x/g')

# shellcheck disable=SC2016 # the shell on the other host expands these
receive='
	path=$1 sum=$2 mode=$3
	if [ -e "$path" ] && [ ! -f "$path" ]; then
		echo "copy-file.sh: $path: not a regular file; nothing was changed" >&2
		exit 3
	fi
	umask 077
	part=$(mktemp -- "$path.part.XXXXXX") || exit 3
	trap "rm -f -- \"\$part\"" EXIT
	trap "exit 255" HUP INT TERM
	if [ -f "$path" ]; then
		# Owner and mode come from the file that is replaced.
		cp -p -- "$path" "$part" || exit 3
		mode=
	fi
	cat >"$part" || exit 3
	have=$(sha256sum <"$part") || exit 3
	if [ "${have%% *}" != "$sum" ]; then
		echo "copy-file.sh: $path: the checksum differs; nothing was changed" >&2
		exit 1
	fi
	[ -z "$mode" ] || chmod -- "$mode" "$part" || exit 3
	mv -f -- "$part" "$path" || exit 3'
exec cos run -- "$host" "sh -c $(quote "$receive") sh $(quote "$path") $sum $mode" <"$file"
