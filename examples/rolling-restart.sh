#!/bin/sh
# Runs a command on a list of hosts, so many at a time, and stops at the first failure.
#
#   rolling-restart.sh [-P NUMBER] FILE COMMAND
#
# FILE has one host on each line; blank lines and lines that begin with # are ignored. NUMBER
# (1) commands run at the same time. COMMAND restarts the service and checks it, for example
# 'service httpd restart && service httpd status'.
# Prints a line for each host, and the output of a command that failed.
# Exit status: 0 when the command succeeded everywhere, 1 when it failed on a host. No
# further host is begun then.
set -eu

parallel=1
if [ "${1:-}" = -P ] && [ $# -gt 1 ]; then
	parallel=$2
	shift 2
fi
if [ $# -ne 2 ]; then
	echo 'usage: rolling-restart.sh [-P NUMBER] FILE COMMAND' >&2
	exit 2
fi
hosts=$1 command=$2

# Exit status 255 tells xargs to start nothing more.
# shellcheck disable=SC2016 # the inner shell expands these
one='
	command=$1 host=$2 status=0
	output=$(cos run -n "$host" "$command" 2>&1) || status=$?
	if [ "$status" -eq 0 ]; then
		echo "$host: ok"
	else
		printf "%s: failed with status %s\n%s\n" "$host" "$status" "$output" >&2
		exit 255
	fi'
# -P is not in POSIX; GNU, the BSDs and busybox have it.
if ! sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' "$hosts" |
	xargs -n 1 -P "$parallel" sh -c "$one" sh "$command"; then
	echo 'rolling-restart.sh: stopped' >&2
	exit 1
fi
