#!/bin/sh
# Creates the folders that benches/peer.toml names: a server folder S and a
# client folder A under COS_DIR, with which this machine can run commands on
# itself as the user rbench. Run as root; COS_BIN is the folder of the programs.
# Safe to run again: it recreates the folders.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
COS_BIN=${COS_BIN:-${CARGO_TARGET_DIR:-$top/target}/release}
COS_DIR=${COS_DIR:-/var/tmp/cosserver-bench/cos}
user=${BENCH_USER:-rbench}
if [ "$(id -u)" -ne 0 ]; then
	echo 'peer-setup: run this as root' >&2
	exit 1
fi
id "$user" >/dev/null 2>&1 || useradd -m -s /bin/sh "$user"
mkdir -p "$COS_DIR"
rm -rf "$COS_DIR/S" "$COS_DIR/A"
umask 077
"$COS_BIN/cosadm" -C "$COS_DIR/S" init
"$COS_BIN/cosadm" -C "$COS_DIR/A" init
"$COS_BIN/cosadm" -C "$COS_DIR/S" host invite hosta --addr 127.0.0.1 --run-as "$user" >"$COS_DIR/card"
"$COS_BIN/cosadm" -C "$COS_DIR/A" host join "$COS_DIR/card" --name hostb
rm -f "$COS_DIR/card"
echo "peer-setup: COS_BIN=$COS_BIN COS_DIR=$COS_DIR"
