#!/bin/sh
# Deploys an archive to another host, checks it there, and rolls back when the check fails.
#
#   deploy.sh HOST ARCHIVE TOP CHECK
#
# Unpacks ARCHIVE (a tar file, not compressed) into TOP/releases/NAME on HOST, NAME being the
# archive's name and a date, and points the link TOP/current at it. CHECK is a command that
# runs on HOST in TOP/current; when it fails, or this script is interrupted, the link is reset
# to the previous release.
# A truncated archive is rejected, as far as that can be detected: tar ends each with zeros.
# Exit status: 0 deployed; 1 the check failed, rolled back; 2 wrong arguments; 3 nothing was
# changed; 4 the roll-back failed: TOP/current may be the release that was not checked;
# 128 + n ended by signal n, nothing was changed or rolled back; 255 cos failed. When the
# connection is lost, HOST rolls back, unless the check had already succeeded.
set -eu

if [ $# -ne 4 ]; then
	echo 'usage: deploy.sh HOST ARCHIVE TOP CHECK' >&2
	exit 2
fi
host=$1 archive=$2 top=$3 check=$4

# Quotes a word for the shell on the other host. The dot keeps newlines at the word's end.
quote() {
	quoted=$(printf '%s.\n' "$1" | sed "s/'/'\\\\''/g")
	printf "'%s'" "${quoted%.}"
}

# tar cannot distinguish an archive that was cut between two files from a whole one.
if [ "$(tail -c 1024 <"$archive" | tr '\000' 0)" != "$(printf %01024d 0)" ]; then
	echo "deploy.sh: $archive is no tar file, or was cut short" >&2
	exit 3
fi
name=$(basename -- "$archive" | sed 's/\..*//')-$(date +%Y%m%dT%H%M%S)-$$

# Ends the running child, and this script with it.
stop() {
	trap '' HUP INT TERM
	kill "${!-}" 2>/dev/null || :
	wait
	exit $((128 + $1))
}
trap 'stop 1' HUP
trap 'stop 2' INT
trap 'stop 15' TERM

# The archive is standard input. A release that did not arrive whole is removed.
# shellcheck disable=SC2016 # the shell on the other host expands these
unpack='
	release=$1
	trap "[ \$? -eq 0 ] || rm -rf -- \"\$release\"" EXIT
	trap "exit 3" HUP INT TERM
	umask 022
	mkdir -p -- "$release" && tar -C "$release" -xf - || exit 3'
cos run -- "$host" "sh -c $(quote "$unpack") sh $(quote "$top/releases/$name")" <"$archive" &
wait "$!"

# rename(2) replaces a link at once: no request finds TOP/current missing. `mv -T` is GNU's
# and busybox's; the BSDs call it `mv -h`. The check runs in the background, so that the
# shell notices at once that the client has disconnected.
# shellcheck disable=SC2016 # the shell on the other host expands these
switch='
	top=$1 name=$2 check=$3 new=current.new.$$
	cd -- "$top" || exit 3
	point() {
		rm -f "$new" && ln -s "$1" "$new" && mv -T "$new" current && return
		rm -f "$new"
		return 1
	}
	back() { # STATUS WHY
		trap "" HUP INT TERM PIPE
		[ -z "$!" ] || kill "$!" 2>/dev/null
		if if [ -n "$before" ]; then point "$before"; else rm -f current; fi; then
			echo "deploy.sh: $2; rolled back to ${before:-nothing}" >&2
			exit "$1"
		fi
		echo "deploy.sh: $2; the roll-back FAILED: look at $top/current" >&2
		exit 4
	}
	before=$(readlink current) || before=
	if [ -e current ] && [ -z "$before" ]; then
		echo "deploy.sh: $top/current is no link" >&2
		exit 3
	fi
	trap "back 129 \"ended by SIGHUP\"" HUP
	trap "back 130 \"ended by SIGINT\"" INT
	trap "back 143 \"ended by SIGTERM\"" TERM
	point "releases/$name" || exit 3
	status=0
	(cd current && exec sh -c "$check") &
	wait "$!" || status=$?
	[ "$status" -ne 0 ] || exit 0
	back 1 "the check failed with status $status"'
exec cos run -n -- "$host" "sh -c $(quote "$switch") sh $(quote "$top") $(quote "$name") $(quote "$check")"
