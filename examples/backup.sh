#!/bin/sh
# Backs up a folder of another host with tar.
#
#   backup.sh HOST FOLDER DESTINATION [KEEP]
#
# Writes DESTINATION/HOST-DATE-NUMBER.tar.gz and removes all but the KEEP (7) newest archives
# of HOST; NUMBER, of this process, distinguishes runs that begin in the same second.
# The archive gets its name only after tar has succeeded on HOST and the archive has been
# read back; a failed run does not touch the older archives.
# Exit status: 0; the status of the remote tar; 1 when the archive is damaged; 2 for wrong
# arguments; 128 + n when signal n ended this script; 255 when cos failed.
set -eu

usage() {
	echo 'usage: backup.sh HOST FOLDER DESTINATION [KEEP]' >&2
	exit 2
}
[ $# -eq 3 ] || [ $# -eq 4 ] || usage
host=$1 folder=$2 destination=$3 keep=${4-7}
# Also false if it is not a number.
[ "$keep" -ge 1 ] 2>/dev/null || usage

# Quotes a word for the shell on the other host. The dot keeps newlines at the word's end.
quote() {
	quoted=$(printf '%s.\n' "$1" | sed "s/'/'\\\\''/g")
	printf "'%s'" "${quoted%.}"
}

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

umask 077
archive=$destination/$host-$(date +%Y%m%dT%H%M%S)-$(printf %07d $$).tar.gz
trap 'rm -f -- "$archive.part"' EXIT

status=0
cos run -n -- "$host" "tar -C $(quote "$folder") -czf - ." >"$archive.part" &
wait "$!" || status=$?
# GNU tar exits with 1 when a file changed while it was read: the archive is usable.
if [ "$status" -gt 1 ]; then
	# After 255, cos itself has reported the reason.
	[ "$status" -eq 255 ] ||
		echo "backup.sh: $host: $folder: tar failed with status $status" >&2
	exit "$status"
fi
gzip -t <"$archive.part" &
wait "$!"
mv -- "$archive.part" "$archive"
[ "$status" -eq 0 ] || echo "backup.sh: $host: $folder: files changed during the backup" >&2

# The names sort by date: the newest are last. The pattern has an exact number of digits, so
# that archives of a host whose name begins with this one's do not match.
d='[0-9]'
date=$d$d$d$d$d$d$d${d}T$d$d$d$d$d$d number=$d$d$d$d$d$d$d
# shellcheck disable=SC2086 # patterns
set -- "$destination/$host"-$date-$number.tar.gz
while [ $# -gt "$keep" ]; do
	rm -f -- "$1"
	shift
done
