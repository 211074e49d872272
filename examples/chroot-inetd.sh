#!/bin/sh
# Sets up a chroot in which inetd runs cosserver: clients reach only what is in it.
#
#   chroot-inetd.sh FOLDER [PROGRAM...]
#
# Copies cosserver, cosadm, a shell and each PROGRAM with its shared libraries below FOLDER,
# creates the devices, the accounts and cosserver's own folders there, and prints the line for
# inetd.conf. FOLDER and PROGRAM are absolute paths. Run it again after an update: keys, tables
# and accounts are kept.
# Invite a host inside: chroot FOLDER /usr/local/sbin/cosadm host invite NAME --addr ADDRESS ...
# cosserver logs to FOLDER/dev/log: without a socket there the reason of a refusal is lost.
# rsyslog creates it by input(type="imuxsock" Socket="FOLDER/dev/log").
# A command that runs as root can leave a chroot: let the hosts run commands as another user.
# Run as root, on Linux.
set -eu

if [ $# -lt 1 ]; then
	echo 'usage: chroot-inetd.sh FOLDER [PROGRAM...]' >&2
	exit 2
fi
root=$1
shift
refuse() {
	echo "chroot-inetd.sh: $1" >&2
	exit 2
}
# Check first: every path that is joined with FOLDER must stay below it.
for word in "$root" "$@"; do
	case $word in
	*/../* | */..) refuse "$word leads out of its folder" ;;
	/?*) ;;
	*) refuse "$word is no absolute path" ;;
	esac
done
case $root in *[[:space:]]*) refuse "inetd.conf takes no blanks, as in $root" ;; esac
if [ -d "$root" ] && [ "$(cd "$root" && pwd -P)" = / ]; then
	refuse "$root is the root folder"
fi

# Remove first: a running program cannot be overwritten.
put() { # FILE PLACE
	mkdir -p "$root$(dirname "$2")"
	rm -f "$root$2"
	cp "$1" "$root$2"
}
copy() { # PROGRAM [PLACE]
	put "$1" "${2:-$1}"
	# A static program has no libraries, and ldd says so with a status of its own.
	{ ldd "$1" 2>/dev/null || :; } | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | while read -r library; do
		cmp -s "$library" "$root$library" || put "$library" "$library"
	done
}

umask 022
mkdir -p "$root/dev" "$root/etc" "$root/run/cosserver" "$root/var/lib/cosserver" "$root/root" "$root/tmp"
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
while read -r device major minor; do
	[ -e "$root/dev/$device" ] || mknod -m 666 "$root/dev/$device" c "$major" "$minor"
done <<-'DEVICES'
	null 1 3
	zero 1 5
	random 1 8
	urandom 1 9
DEVICES

cosserver=$(command -v cosserver) cosadm=$(command -v cosadm)
for program in "$cosserver" "$cosadm" /bin/sh "$@"; do copy "$program"; done

# The accounts of the chroot are its own.
if [ ! -e "$root/etc/passwd" ]; then
	{
		echo 'root:x:0:0:root:/root:/bin/sh'
		echo '_cosserver:x:990:990::/nonexistent:/usr/sbin/nologin'
		echo 'operator:x:1000:1000::/tmp:/bin/sh'
	} >"$root/etc/passwd"
	printf 'root:x:0:\n_cosserver:x:990:\noperator:x:1000:\n' >"$root/etc/group"
fi
[ -e "$root/etc/cosserver/cosserver.toml" ] || chroot "$root" "$cosadm" init >&2

echo "cosserver stream tcp nowait root $(command -v chroot) chroot $root $cosserver -i"
[ -S "$root/dev/log" ] ||
	echo "chroot-inetd.sh: let your syslog listen on $root/dev/log too, or the log goes nowhere" >&2
