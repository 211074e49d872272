#!/bin/sh
# Follows a log file of several hosts, each line with its host in front.
#
#   follow-log.sh FILE HOST...
#
# Reconnects when a connection ends, with growing pauses of up to 60 seconds; lines that were
# written in between are not shown. Runs until SIGHUP, SIGINT or SIGTERM, and ends the commands
# on the hosts; then its status is 0. It is 1 when its output is no longer read.
set -eu

if [ $# -lt 2 ]; then
	echo 'usage: follow-log.sh FILE HOST...' >&2
	exit 2
fi
file=$1
shift

# Quotes a word for the shell on the other host. The dot keeps newlines at the word's end.
quote() {
	quoted=$(printf '%s.\n' "$1" | sed "s/'/'\\\\''/g")
	printf "'%s'" "${quoted%.}"
}

folder=$(mktemp -d)
followers='' status=0
# $! is the last child; a trap may run before a variable has its number.
end() {
	trap '' HUP INT TERM USR1
	# shellcheck disable=SC2086 # a list of numbers
	kill $followers "${!-}" 2>/dev/null || :
	wait
	rm -rf -- "$folder"
	exit "$status"
}
trap end HUP INT TERM
# A follower that cannot continue ends the others too.
trap 'status=1; end' USR1

label() {
	while IFS= read -r line; do printf '%s: %s\n' "$1" "$line"; done
}

# The shell waits for `cos`, not for its output, so that it handles signals at once. It ends
# `label` too, which hangs if `cos` never opened the pipe.
follow() { # HOST PIPE
	cos='' label='' pause=1
	trap 'kill $cos $label "${!-}" 2>/dev/null || :; wait; exit 0' HUP INT TERM
	mkfifo "$2"
	while :; do
		label "$1" <"$2" &
		label=$!
		cos run -n -- "$1" "tail -n 0 -F -- $(quote "$file")" >"$2" &
		cos=$!
		wait "$cos" || :
		wait "$label" || {
			echo "follow-log.sh: $1: cannot write to standard output" >&2
			kill -s USR1 "$$"
			exit 1
		}
		label=''
		echo "follow-log.sh: $1: the connection has ended; reconnecting in $pause s" >&2
		sleep "$pause" &
		cos=$!
		wait "$cos"
		[ "$pause" -ge 60 ] || pause=$((pause * 2))
	done
}

number=0
for host; do
	number=$((number + 1))
	follow "$host" "$folder/$number" &
	followers="$followers $!"
done
wait
# They have all failed before they followed anything.
rm -rf -- "$folder"
false
