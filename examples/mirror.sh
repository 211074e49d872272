#!/bin/sh
# Mirrors a folder to another host with rsync.
#
#   mirror.sh FOLDER HOST:FOLDER [RSYNC-OPTION...]
#
# Files that are no longer in FOLDER are deleted on HOST. A run whose connection failed is
# repeated up to three times; rsync continues where it stopped.
# Exit status: that of rsync.
set -eu

if [ $# -lt 2 ]; then
	echo 'usage: mirror.sh FOLDER HOST:FOLDER [RSYNC-OPTION...]' >&2
	exit 2
fi
from=${1%/}/ to=${2%/}/
shift 2

tries=3
while :; do
	status=0
	rsync --archive --delete --partial --rsh=cosrsh "$@" "$from" "$to" || status=$?
	tries=$((tries - 1))
	case $status in
	10 | 12 | 30 | 35 | 255) ;; # the connection failed or timed out
	*) exit "$status" ;;
	esac
	[ "$tries" -gt 0 ] || exit "$status"
	echo "mirror.sh: $to: rsync failed with status $status; trying again" >&2
	sleep "${MIRROR_PAUSE:-10}"
done
