#!/bin/sh
# Runs a command on another host from cron, never twice at the same time.
#
#   cron-job.sh NAME HOST COMMAND
#
# A crontab line: 17 * * * *  /usr/local/bin/cron-job.sh report hostb '/srv/report --hourly'
#
# NAME names the lock, in LOCK_FOLDER (/var/run/cron-job; for other users than root
# ~/.cron-job). The folder must be the user's own, and not writable for others: any user who can
# open a lock can hold it. A run that finds the lock held does nothing and succeeds.
# Prints nothing when the command succeeds, so that cron sends mail only about failures;
# otherwise prints what the command has printed.
# The command ends with this script. If this script is killed, cos holds the lock until the
# command has ended.
# Exit status: that of the command; 2 for wrong arguments; 128 + n when signal n ended this
# script; 255 when cos failed or the lock could not be taken. Needs flock(1) of util-linux.
set -eu

usage() {
	echo 'usage: cron-job.sh NAME HOST COMMAND' >&2
	exit 2
}
[ $# -eq 3 ] || usage
name=$1 host=$2 command=$3
case $name in '' | */*) usage ;; esac

fail() {
	echo "cron-job.sh: $name: $1" >&2
	exit 255
}
umask 077
folder=/var/run/cron-job
[ "$(id -u)" -eq 0 ] || folder=$HOME/.cron-job
folder=${LOCK_FOLDER:-$folder}
mkdir -p -- "$folder" || fail "$folder cannot be made"
[ -n "$(find "$folder" -prune -type d -user "$(id -u)" ! -perm -020 ! -perm -002)" ] ||
	fail "$folder is no folder that this user alone can write to"

# The lock is held as long as descriptor 9 is open, here or in cos.
command exec 9>"$folder/$name.lock" || fail "$folder/$name.lock cannot be written"
held=75 status=0
flock -n -E "$held" 9 || status=$?
case $status in
0) ;;
"$held") exit 0 ;;
*) fail "flock failed with status $status" ;;
esac

output=$folder/$name.output
trap 'rm -f -- "$output"' EXIT
# Ends the command, and this script with it.
# shellcheck disable=SC2317 # the traps call it
stop() {
	trap '' HUP INT TERM
	kill "${!-}" 2>/dev/null || :
	wait
	echo "cron-job.sh: $name on $host was ended by signal $1"
	exit $((128 + $1))
}
trap 'stop 1' HUP
trap 'stop 2' INT
trap 'stop 15' TERM

cos run -n -- "$host" "$command" >"$output" 2>&1 &
wait "$!" || status=$?
if [ "$status" -ne 0 ]; then
	printf 'cron-job.sh: %s on %s failed with status %s\n' "$name" "$host" "$status"
	cat "$output"
fi
exit "$status"
