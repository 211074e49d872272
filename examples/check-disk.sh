#!/bin/sh
# A Nagios check of the space on another host's file system.
#
#   check-disk.sh HOST FOLDER WARNING CRITICAL
#
# WARNING and CRITICAL are percentages in use.
# Exit status and output are those of a Nagios plug-in: 0 OK, 1 WARNING, 2 CRITICAL,
# 3 UNKNOWN, which is also the result when the host does not run the command, when df's output
# cannot be parsed, and when this script is ended by a signal.
set -u

unknown() {
	echo "DISK UNKNOWN - $1"
	exit 3
}
[ $# -eq 4 ] || unknown 'usage: check-disk.sh HOST FOLDER WARNING CRITICAL'
host=$1 folder=$2 warning=$3 critical=$4
# The words reach df as they are if commands= allows them, otherwise by a shell.
case $folder in
/*) ;;
*) unknown "$folder is no absolute path" ;;
esac
case $folder in
*[!A-Za-z0-9/._+-]*) unknown "$folder has characters that a shell would act on" ;;
esac
for threshold in "$warning" "$critical"; do
	case $threshold in
	'' | *[!0-9]*) unknown "$threshold is no percentage" ;;
	esac
done

# The client runs in the background, so that the shell handles signals at once.
output=$(mktemp) || unknown 'mktemp failed'
trap 'rm -f -- "$output"' EXIT
# shellcheck disable=SC2317 # the traps call it
stop() {
	trap '' HUP INT TERM
	kill "${!-}" 2>/dev/null
	wait
	unknown "ended by signal $1"
}
trap 'stop 1' HUP
trap 'stop 2' INT
trap 'stop 15' TERM
# cos prints one line on standard error when it fails: Nagios shows it. A monitored host
# may allow this one command: commands="/bin/df -P /*" in hostinfo(5).
LC_ALL=C cos run -n -o ConnectTimeout=5 -o BatchMode=yes -- "$host" /bin/df -P "$folder" >"$output" 2>&1 &
wait "$!"
status=$?
[ "$status" -eq 0 ] || unknown "$(tr '\n|' '  ' <"$output")"

# A device's name may have blanks: the percentage is the field between a number and a path.
used=$(awk '{
	for (i = 5; i < NF; i++)
		if ($i ~ /^[0-9]+%$/ && $(i - 1) ~ /^-?[0-9]+$/ && $(i + 1) ~ /^\//) {
			sub("%", "", $i)
			print $i
		}
}' "$output")
case $used in
'' | *[!0-9]*) unknown "df printed no percentage for $folder" ;;
esac

state=OK code=0
[ "$used" -lt "$warning" ] || { state=WARNING code=1; }
[ "$used" -lt "$critical" ] || { state=CRITICAL code=2; }
echo "DISK $state - $folder on $host: $used% in use|used=$used%;$warning;$critical;0;100"
exit "$code"
