#!/bin/sh
# Creates what bench.py needs: the user that commands run as, and under BENCH_DIR
# the reference programs, and keys and configuration for each installed peer.
# Run as root; safe to run again. It starts no daemon.
#   peers.sh --remove   removes everything, including the user
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${BENCH_DIR:-/var/tmp/cosserver-bench}
user=rbench
export BENCH_DIR="$work" BENCH_USER="$user"

if [ "$(id -u)" -ne 0 ]; then
	echo 'peers: run this as root' >&2
	exit 1
fi
if [ "${1:-}" = --remove ]; then
	userdel -r "$user" 2>/dev/null || true
	rm -rf "$work"
	exit 0
fi
has() {
	for program in "$@"; do
		command -v "$program" >/dev/null 2>&1 || {
			echo "peers: no $program: that peer is skipped"
			return 1
		}
	done
}

# Root runs programs from this folder, and it holds keys: only root may own it.
if [ -e "$work" ] && [ "$(stat -c %u "$work")" -ne 0 ]; then
	echo "peers: $work belongs to somebody else; set BENCH_DIR" >&2
	exit 1
fi
mkdir -p "$work/bin"
chmod 755 "$work"
cd "$work"
id "$user" >/dev/null 2>&1 || useradd -m -s /bin/sh "$user"
usermod -p '*' "$user" # no password, and yet not locked
home=$(getent passwd "$user" | cut -d: -f6)
mkdir -p "$home/.ssh"
allow() { # a public key on standard input
	key=$(cat)
	grep -qxF "$key" "$home/.ssh/authorized_keys" 2>/dev/null || echo "$key" >>"$home/.ssh/authorized_keys"
}

cc -O2 -Wall -Wextra -static -o bin/times "$here/ref/times.c"
if [ -e /usr/include/sodium.h ]; then
	cc -O2 -Wall -Wextra -static -pthread -o bin/floor "$here/ref/floor.c" -lsodium
else
	echo 'peers: no libsodium-dev: the floors are skipped'
fi
[ -e random ] || head -c 67108864 /dev/urandom >random
truncate -s 1G zeros
chmod 644 random zeros

if has sshd ssh ssh-keygen; then
	mkdir -p ssh /run/sshd
	for kind in rsa ecdsa ed25519; do
		[ -e ssh/host_$kind ] || ssh-keygen -q -t $kind -N '' -C host -f ssh/host_$kind
	done
	[ -e ssh/id ] || ssh-keygen -q -t ed25519 -N '' -C bench -f ssh/id
	allow <ssh/id.pub
	# as Debian ships it, except port and keys
	cat >ssh/sshd_config <<-END
		Port 42022
		ListenAddress 127.0.0.1
		HostKey $work/ssh/host_rsa
		HostKey $work/ssh/host_ecdsa
		HostKey $work/ssh/host_ed25519
		PidFile none
		KbdInteractiveAuthentication no
		UsePAM yes
		X11Forwarding yes
		PrintMotd no
		AcceptEnv LANG LC_*
		Subsystem sftp /usr/lib/openssh/sftp-server
	END
	cat >ssh/sshd_config.lean <<-END
		Port 42023
		ListenAddress 127.0.0.1
		HostKey $work/ssh/host_ed25519
		PidFile none
		KbdInteractiveAuthentication no
		UsePAM no
		PrintMotd no
	END
	for port in 42022 42023; do
		printf '[127.0.0.1]:%s %s\n' $port "$(cat ssh/host_ed25519.pub)"
	done >ssh/known_hosts
	# for programs that call ssh: the host's name is the same as for cosrsh
	cat >ssh/config <<-END
		Host hostb
		HostName 127.0.0.1
		Port 42022
		User $user
		IdentityFile $work/ssh/id
		IdentitiesOnly yes
		UserKnownHostsFile $work/ssh/known_hosts
		StrictHostKeyChecking yes
		BatchMode yes
		LogLevel ERROR
		Ciphers aes128-gcm@openssh.com
		KexAlgorithms curve25519-sha256
	END
fi

if has dropbear dbclient dropbearkey; then
	mkdir -p dropbear
	for key in host id; do
		[ -e dropbear/$key ] || dropbearkey -t ed25519 -f dropbear/$key >/dev/null 2>&1
	done
	dropbearkey -y -f dropbear/id | grep '^ssh-' | allow
fi

if has in.rshd rsh-redone-rsh inetd; then
	mkdir -p rsh
	echo '127.0.0.1:514 stream tcp nowait.60000 root /usr/sbin/in.rshd in.rshd' >rsh/inetd.conf
	printf 'localhost root\n127.0.0.1 root\n' >"$home/.rhosts"
	chmod 600 "$home/.rhosts"
fi
chown -R "$user:" "$home"
chmod 700 "$home/.ssh"
[ ! -e "$home/.ssh/authorized_keys" ] || chmod 600 "$home/.ssh/authorized_keys"

COS_BIN=${COS_BIN:-${CARGO_TARGET_DIR:-$here/../target}/release}
case $COS_BIN in
/*) ;;
*) COS_BIN=$OLDPWD/$COS_BIN ;;
esac
export COS_BIN COS_DIR="$work/cos"
if [ -x "$COS_BIN/cosadm" ]; then
	"$here/peer-setup.sh"
else
	echo "peers: no $COS_BIN/cosadm: run make first; cosserver is skipped"
fi
echo "peers: ready under $work"
