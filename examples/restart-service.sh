#!/bin/sh
# Allows an ordinary user to restart one service on another host, and to do nothing else as root there.
#
#   restart-service.sh HOST SERVICE
#
# Once, the administrator of HOST invites the user's host and adds the command to its line in
# /etc/cosserver/hostinfo:
#
#   cosadm host invite hosta --addr 192.0.2.1 --users alice:root -o card
#   hosta cos addr=192.0.2.1 users=alice:root commands="/usr/sbin/service httpd restart"
#
# The command runs without a shell: no argument of the user's can turn it into another command.
# cosserver on the user's own host, or cos-sign, vouches for the user.
# Exit status: that of the command, or 255 when cos failed or the request was denied.
set -eu

if [ $# -ne 2 ]; then
	echo 'usage: restart-service.sh HOST SERVICE' >&2
	exit 2
fi
exec cos run -n -l root -- "$1" /usr/sbin/service "$2" restart
