#!/bin/sh
# Deploys an archive to another host, checks it there, and rolls back when the check fails.
#
#   deploy.sh HOST ARCHIVE TOP CHECK
#
# Unpacks ARCHIVE (a tar file) into TOP/releases/NAME on HOST, NAME being the archive's name
# and a date, and points the link TOP/current at it. CHECK is a command that runs on HOST in
# TOP/current; when it fails, the link goes back to the release before.
# Exit status: 0 deployed; 1 rolled back; any other: nothing was changed.
set -eu

if [ $# -ne 4 ]; then
	echo 'usage: deploy.sh HOST ARCHIVE TOP CHECK' >&2
	exit 2
fi
host=$1 archive=$2 top=$3 check=$4

# Quotes a word for the shell on the other host.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

name=$(basename "$archive" | sed 's/\..*//')-$(date +%Y%m%dT%H%M%S)-$$
release=$top/releases/$name

# The archive is standard input. A release that did not arrive whole is removed.
unpack="umask 022; mkdir -p $(quote "$release") && tar -C $(quote "$release") -xf - ||
	{ rm -rf $(quote "$release"); exit 3; }"
cos run "$host" "$unpack" <"$archive"

# rename(2) replaces a link at once: no request finds TOP/current missing. `mv -T` is GNU's
# and busybox's; the BSDs call it `mv -h`.
# shellcheck disable=SC2016 # the shell on the other host expands these
switch='
	top=$1 name=$2 check=$3
	cd "$top" || exit 3
	point() { rm -f current.new && ln -s "$1" current.new && mv -T current.new current; }
	before=$(readlink current) || before=
	point "releases/$name" || exit 3
	status=0
	(cd current && sh -c "$check") || status=$?
	[ "$status" -ne 0 ] || exit 0
	if [ -n "$before" ]; then point "$before"; else rm -f current; fi
	echo "deploy.sh: the check failed with status $status; rolled back to ${before:-nothing}" >&2
	exit 1'
exec cos run -n "$host" "sh -c $(quote "$switch") sh $(quote "$top") $(quote "$name") $(quote "$check")"
