#!/bin/sh
# Follows a log file of several hosts, each line with its host in front.
#
#   follow-log.sh FILE HOST...
#
# Reconnects when a connection ends, with growing pauses of up to 60 seconds; lines that were
# written in between are not shown. Runs until SIGINT or SIGTERM, and takes the commands on
# the hosts along.
set -eu

if [ $# -lt 2 ]; then
	echo 'usage: follow-log.sh FILE HOST...' >&2
	exit 2
fi
file=$1
shift

# Quotes a word for the shell on the other host.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

folder=$(mktemp -d)
followers=
end() {
	trap - INT TERM
	# shellcheck disable=SC2086 # a list of numbers
	kill $followers 2>/dev/null || :
	wait
	rm -rf "$folder"
	exit 0
}
trap end INT TERM

label() {
	while IFS= read -r line; do printf '%s: %s\n' "$1" "$line"; done
}

# The shell waits for `cos`, not for its output, so that it hears signals at once.
follow() {
	cos=
	trap 'kill "$cos" 2>/dev/null; wait; exit 0' INT TERM
	pipe=$folder/$1 pause=1
	mkfifo "$pipe"
	while :; do
		label "$1" <"$pipe" &
		cos run -n "$1" "tail -n 0 -F $(quote "$file")" >"$pipe" &
		cos=$!
		wait "$cos" || :
		echo "follow-log.sh: $1: the connection has ended; reconnecting in $pause s" >&2
		sleep "$pause" &
		cos=$!
		wait "$cos"
		[ "$pause" -ge 60 ] || pause=$((pause * 2))
	done
}

for host; do
	follow "$host" &
	followers="$followers $!"
done
wait
