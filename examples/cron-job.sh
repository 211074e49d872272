#!/bin/sh
# Runs a command on another host from cron, never twice at the same time.
#
#   cron-job.sh NAME HOST COMMAND
#
# A crontab line: 17 * * * *  /usr/local/bin/cron-job.sh report hostb '/srv/report --hourly'
#
# NAME names the lock, in LOCK_FOLDER (/var/lock). A run that finds the lock held does nothing
# and succeeds. Prints nothing when the command succeeds, so that cron sends mail about failures
# alone; otherwise prints what the command has printed.
# The command ends with this script: cosserver takes it down when the client goes away.
# Exit status: that of the command, or 255 when cos failed. Needs flock(1).
set -eu

if [ $# -ne 3 ]; then
	echo 'usage: cron-job.sh NAME HOST COMMAND' >&2
	exit 2
fi
name=$1 host=$2 command=$3

# The lock is held as long as descriptor 9 is open: nothing is left behind by a crash.
exec 9>"${LOCK_FOLDER:-/var/lock}/cron-job-$name"
flock -n 9 || exit 0

status=0
output=$(cos run -n "$host" "$command" 2>&1 9>&-) || status=$?
if [ "$status" -ne 0 ]; then
	printf 'cron-job.sh: %s on %s failed with status %s\n%s\n' "$name" "$host" "$status" "$output"
fi
exit "$status"
