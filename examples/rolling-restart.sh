#!/bin/sh
# Runs a command on a list of hosts, a limited number at a time, and stops at the first failure.
#
#   rolling-restart.sh [-P NUMBER] FILE COMMAND
#
# FILE has one host on each line; blank lines and lines that begin with # are ignored. At most
# NUMBER (1) commands run at the same time. COMMAND restarts the service and checks it, for
# example 'service httpd restart && service httpd status'.
# Prints a line for each host, and the output of a command that failed.
# Exit status: 0 when the command succeeded everywhere; 1 when it failed on a host; 2 for wrong
# arguments; 128 + n when signal n ended this script, and the commands with it. No further
# host is started then, and this script waits for the running commands.
set -eu

usage() {
	echo 'usage: rolling-restart.sh [-P NUMBER] FILE COMMAND' >&2
	exit 2
}
parallel=1
if [ "${1:-}" = -P ] && [ $# -gt 1 ]; then
	parallel=$2
	shift 2
fi
[ $# -eq 2 ] || usage
# Also false if it is not a number.
[ "$parallel" -ge 1 ] 2>/dev/null || usage
hosts=$1 command=$2

folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
running=
# $! is the last child; a trap may run before a variable has its number.
stop() {
	trap '' HUP INT TERM
	# shellcheck disable=SC2086 # a list of numbers
	kill $running "${!-}" 2>/dev/null || :
	wait
	echo "rolling-restart.sh: stopped by signal $1" >&2
	exit $((128 + $1))
}
trap 'stop 1' HUP
trap 'stop 2' INT
trap 'stop 15' TERM

one() { # HOST OUTPUT
	trap 'kill "${!-}" 2>/dev/null || :; wait; echo "$1: interrupted" >&2; exit 1' HUP INT TERM
	status=0
	cos run -n -- "$1" "$command" >"$2" 2>&1 &
	wait "$!" || status=$?
	if [ "$status" -eq 0 ]; then
		echo "$1: ok"
	else
		: >"$folder/failed"
		printf '%s: failed with status %s\n%s\n' "$1" "$status" "$(cat "$2")" >&2
	fi
}

number=0
while IFS=' 	' read -r host || [ -n "$host" ]; do
	case $host in '' | '#'*) continue ;; esac
	# shellcheck disable=SC2086 # a list of numbers
	set -- $running
	if [ $# -ge "$parallel" ]; then
		wait "$1" || : >"$folder/failed"
		shift
		running=$*
	fi
	[ ! -e "$folder/failed" ] || break
	number=$((number + 1))
	one "$host" "$folder/$number" &
	running="$running $!"
done <"$hosts"
for pid in $running; do wait "$pid" || : >"$folder/failed"; done
if [ -e "$folder/failed" ]; then
	echo 'rolling-restart.sh: stopped' >&2
	exit 1
fi
