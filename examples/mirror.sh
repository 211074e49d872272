#!/bin/sh
# Mirrors a folder to another host with rsync.
#
#   mirror.sh FOLDER HOST:FOLDER [RSYNC-OPTION...]
#
# Files that are no longer in FOLDER are deleted on HOST. `HOST:` without a path is the home
# folder there. A run whose connection failed is repeated up to twice, three runs in all; rsync
# continues where it stopped.
# Exit status: that of rsync; 2 for wrong arguments; 128 + n when signal n ended this script.
set -eu

usage() {
	echo 'usage: mirror.sh FOLDER HOST:FOLDER [RSYNC-OPTION...]' >&2
	exit 2
}
[ $# -ge 2 ] || usage
from=$1 to=$2
shift 2
# An empty word, such as an unset variable, must not become the root folder.
[ -n "$from" ] || usage
case $to in
-* | :* | '') usage ;;
*:*) ;;
*) usage ;;
esac
# With a slash at its end, a path means the contents of the folder.
case $from in */) ;; *) from=$from/ ;; esac
case $to in *: | */) ;; *) to=$to/ ;; esac

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

tries=3
while :; do
	status=0
	rsync --archive --delete --partial --rsh=cosrsh "$@" -- "$from" "$to" &
	wait "$!" || status=$?
	tries=$((tries - 1))
	case $status in
	10 | 12 | 30 | 35 | 255) ;; # the connection failed or timed out
	*) exit "$status" ;;
	esac
	[ "$tries" -gt 0 ] || exit "$status"
	echo "mirror.sh: $to: rsync failed with status $status; trying again" >&2
	sleep "${MIRROR_PAUSE:-10}" &
	wait "$!"
done
