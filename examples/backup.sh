#!/bin/sh
# Backs up a folder of another host with tar.
#
#   backup.sh HOST FOLDER DESTINATION [KEEP]
#
# Writes DESTINATION/HOST-DATE.tar.gz and removes all but the KEEP (7) newest archives of HOST.
# The archive gets its name only after tar has succeeded on HOST and the archive has been
# read back; a failed run leaves the older archives alone.
# Exit status: 0, the status of the remote tar, or 255 when cos failed.
set -eu

if [ $# -lt 3 ] || [ $# -gt 4 ]; then
	echo 'usage: backup.sh HOST FOLDER DESTINATION [KEEP]' >&2
	exit 2
fi
host=$1 folder=$2 destination=$3 keep=${4:-7}

# Quotes a word for the shell on the other host.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

umask 077
archive=$destination/$host-$(date +%Y%m%dT%H%M%S).tar.gz
trap 'rm -f "$archive.part"' EXIT

status=0
cos run -n "$host" "tar -C $(quote "$folder") -czf - ." >"$archive.part" || status=$?
# GNU tar exits with 1 when a file changed while it was read: the archive is usable.
if [ "$status" -gt 1 ]; then
	echo "backup.sh: $host: $folder: tar failed with status $status" >&2
	exit "$status"
fi
gzip -t "$archive.part"
mv "$archive.part" "$archive"
[ "$status" -eq 0 ] || echo "backup.sh: $host: $folder: files changed during the backup" >&2

# The names sort by date: the newest stand last.
set -- "$destination/$host"-[0-9]*T[0-9]*.tar.gz
while [ $# -gt "$keep" ]; do
	rm -f "$1"
	shift
done
