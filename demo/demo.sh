#!/bin/sh
# cosserver at work on this machine: two configurations under target/demo, a
# server's and a client's, and real commands between them over loopback.
# Everything that is shown is also checked; the exit status is 0 only if all of
# it was as it should be. `make demo` builds the programs first.
#   --check       only says whether this user can run it
#   COS_BIN_DIR   where the programs are (target/release)
#   COS_DEMO_DIR  where the configurations go (target/demo); made anew each time
set -eu
cd "$(dirname "$0")/.."

# The daemon runs commands by the shell of the user who starts it, so there must
# be both.
uid=$(id -u)
entry=$(getent passwd "$uid" 2>/dev/null || grep "^[^:]*:[^:]*:$uid:" /etc/passwd || true)
if [ -z "$entry" ]; then
	echo "demo: user number $uid has no name here (no entry in the user database), and a daemon runs" >&2
	echo "demo: commands as a user of this machine. Run it as a user whom 'id -un' can name, or as root." >&2
	exit 1
fi
shell=${entry##*:}
case ${shell##*/} in
nologin | false)
	echo "demo: the shell of ${entry%%:*} is $shell, which runs no commands, so a daemon of that user cannot" >&2
	echo "demo: either. Run it as a user with a shell: your own, or root." >&2
	exit 1
	;;
esac
if [ "${1:-}" = --check ]; then exit 0; fi

# A demo that hangs is a failure too.
if [ -z "${COS_DEMO_TIMED:-}" ]; then
	COS_DEMO_TIMED=1 exec timeout --foreground 300 "$0" "$@"
fi

target=${CARGO_TARGET_DIR:-target}
bin=${COS_BIN_DIR:-$target/release}
dir=${COS_DEMO_DIR:-$target/demo}
for program in cosserver cos cosadm; do
	if [ ! -x "$bin/$program" ]; then
		echo "demo: there is no $bin/$program: run make first" >&2
		exit 1
	fi
done
bin=$(cd "$bin" && pwd)
umask 077
rm -rf "$dir"
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)
for program in cosserver cos cosadm; do ln -s "$bin/$program" "$dir/bin/$program"; done
ln -s "$bin/cos" "$dir/bin/cosrsh"
PATH=$dir/bin:$PATH
export PATH
cd "$dir"
me=$(id -un)

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$(printf '\033[1m') good=$(printf '\033[32m') bad=$(printf '\033[31m') plain=$(printf '\033[0m')
else
	bold='' good='' bad='' plain=''
fi

daemon=
wrong=0
cleanup() {
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
		daemon=
		cat <&3 >>daemon.log
	fi
}
# The end: what there is to say, and the exit status.
finish() {
	cleanup
	if [ $wrong -ne 0 ]; then
		printf '\nThe daemon'\''s log, %s:\n' "$dir/daemon.log"
		tail -n 40 daemon.log | sed 's/^/    /'
		printf '\n%sdemo: %s of it was not as it should be%s\n' "$bad" $wrong "$plain"
		exit 1
	fi
	printf '\n%sdemo: all as it should be%s (what it made is in %s)\n' "$good" "$plain" "$dir"
	exit 0
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ok() { printf '  %sok%s    %s\n' "$good" "$plain" "$*"; }
no() {
	printf '  %sWRONG%s %s\n' "$bad" "$plain" "$*"
	wrong=$((wrong + 1))
}
same() { # WHAT EXPECTED GOT
	if [ "$2" = "$3" ]; then ok "$1"; else no "$1: expected '$2', got '$3'"; fi
}

# Runs a command, shows it and what came of it; leaves status, and the files
# out and err.
show() {
	printf '  $'
	for word in "$@"; do
		case $word in
		*[!A-Za-z0-9_./:=@%+-]*) printf " '%s'" "$word" ;;
		*) printf ' %s' "$word" ;;
		esac
	done
	echo
	status=0
	"$@" >out 2>err || status=$?
	sed 's/^/    stdout  | /' out
	sed 's/^/    stderr  | /' err
	echo "    status  | $status"
}

# Reads the daemon's log up to a line that has WORD in it, and behind that the
# other one where there is one; leaves it in line.
await() { # WORD [WORD]
	while IFS= read -r line <&3; do
		printf '%s\n' "$line" >>daemon.log
		case $line in *"$1"*"${2-}"*) return 0 ;; esac
	done
	return 1
}

# The administrator's program: what it says is shown where asked for.
cosadm_says() { # ARGUMENT...; results go to standard output
	if ! cosadm "$@" 2>said; then
		sed 's/^/    /' said >&2
		exit 1
	fi
}

title '1. A server folder S, a client folder A, and the two commands that make trust between them'
echo '  $ cosadm -C S init; cosadm -C A init'
cosadm_says -C S init >/dev/null
cosadm_says -C A init >/dev/null
echo "  \$ cosadm -C S host invite hosta --addr 127.0.0.1 --run-as $me > card"
cosadm_says -C S host invite hosta --addr 127.0.0.1 --run-as "$me" >card
sed 's/^/    /' said
echo '  (transfer the card to the client securely: scp, paper)'
echo '  $ cosadm -C A host join card --name hostb'
cosadm_says -C A host join card --name hostb >/dev/null
sed 's/^/    /' said

title '2. The daemon, on a port that the system chooses'
echo '  $ cosserver -D -e -f S/cosserver.toml -p 0'
mkfifo log
: >daemon.log
cosserver -D -e -f S/cosserver.toml -p 0 2>log </dev/null &
daemon=$!
exec 3<log
if ! await 'listening on 127.0.0.1:'; then
	no 'the daemon ended before it listened'
	finish
fi
port=${line##*127.0.0.1:}
port=${port%%[!0-9]*}
ok "listening on 127.0.0.1:$port, as $me"

title '3. Output, errors and exit status arrive apart'
show cos -C A run -p "$port" hostb 'echo out; echo err >&2; exit 42'
same 'stdout is stdout' out "$(cat out)"
same 'stderr is stderr' err "$(cat err)"
same 'the status is the command'\''s' 42 "$status"

[ $wrong -eq 0 ] || finish # the rest would only fail too

title '4. Standard input is piped through'
echo '  $ tar -cf - src | cos run hostb '\''tar -xf -'\'' (into another folder)'
mkdir -p tree/src there
i=0
while [ $i -lt 200 ]; do
	echo "file $i" >"tree/src/$i"
	i=$((i + 1))
done
head -c 8388608 /dev/urandom >tree/src/random
tar -C tree -cf - src | cos -C A run -p "$port" hostb "tar -C '$dir/there' -xf -" || no 'tar ended with a failure'
if diff -r tree there; then ok '201 files and 8 MiB of random bytes are the same over there'; else no 'the trees differ'; fi

title '5. A command that a signal ends'
# shellcheck disable=SC2016 # $$ is for the remote shell
show cos -C A run -p "$port" hostb 'kill -TERM $$'
same '128 + 15' 143 "$status"

title '6. A client that is killed takes its command with it'
mkfifo alive
# shellcheck disable=SC2016 # the remote shell expands this
echo '  $ cos run hostb '\''exec sleep 1000'\'' &  kill -9 $!'
cos -C A run -p "$port" hostb "exec 9>'$dir/alive'; echo up >&9; exec sleep 1000" </dev/null &
client=$!
exec 4<alive
IFS= read -r up <&4
kill -9 $client
wait $client 2>/dev/null || true
# The command holds the other end: end of file means that it is gone.
same 'the remote command is gone' 'up, then the end' "$up, then the end$(cat <&4)"
exec 4<&-

title '7. cosrsh takes the command line of rsh: GNU tar and rsync need not know'
show env COS_CONFIG_DIR=A cosrsh -p "$port" -l "$me" hostb uname -s
same 'the same by rsh'\''s command line' "$(uname -s)" "$(cat out)"
if command -v rsync >/dev/null 2>&1; then
	show env COS_CONFIG_DIR=A RSYNC_RSH="cosrsh -p $port" rsync -a tree/src/ "hostb:$dir/mirror/"
	if [ "$status" -eq 0 ] && diff -r tree/src mirror; then ok 'rsync: the same tree'; else no 'rsync: the trees differ'; fi
fi

title '8. How long a command takes, with a new connection, keys and proof each time'
count=50
begin=$(date +%s%N)
i=0
while [ $i -lt $count ]; do
	cos -C A run -p "$port" -n hostb true || no 'a command failed'
	i=$((i + 1))
done
micros=$((($(date +%s%N) - begin) / 1000 / count))
printf '  %s commands, one after the other: %s.%03s ms each\n' $count $((micros / 1000)) "$(printf %03d $((micros % 1000)))"

refused() { # WHAT CAUSE: the last show was refused, and the daemon's log says why
	same "$1: status 255" 255 "$status"
	same "$1: nothing on stdout" '' "$(cat out)"
	# 16 hexadecimal digits by themselves: those of a machine ID are more.
	reference=$(tr -c '0-9A-Za-z' '\n' <err | grep -x '[0-9a-f]\{16\}' | head -n 1 || true)
	if [ -z "$reference" ]; then
		no "$1: the refusal has no reference"
	elif await denied "$reference"; then
		printf '    log     | %s\n' "$line"
		case $line in
		*"cause=$2"*) ok "$1: the daemon's log has the reference and the reason" ;;
		*) no "$1: the daemon's log has another reason than $2" ;;
		esac
	else
		no "$1: the daemon's log does not have $reference"
	fi
}

title '9. A wrong cookie is refused; the answer says nothing, the log says why'
cp -R A wrong-cookie
head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >guess
sed "s/[0-9a-f]\{64\}/$(cat guess)/" A/cookies/hostb.out >wrong-cookie/cookies/hostb.out
if cmp -s A/cookies/hostb.out wrong-cookie/cookies/hostb.out; then no 'the cookie could not be changed'; fi
show cos -C wrong-cookie run -p "$port" hostb true
refused 'wrong cookie' proof

title '10. The right cookie on another machine is refused'
cp -R A thief
rm thief/machine.key
cosadm_says -C thief init >/dev/null
show cos -C thief run -p "$port" hostb true
refused 'stolen cookie' machine-key

title '11. A stranger is refused: a host that knows this one'\''s key, but is in no table'
cosadm_says -C S host invite hostx --addr 127.0.0.1 --run-as "$me" >cardx
cosadm_says -C X init >/dev/null
cosadm_says -C X host join cardx --name hostb >/dev/null
cosadm_says -C S host remove hostx >/dev/null
show cos -C X run -p "$port" hostb true
refused 'stranger' unknown-host

title '12. The doors: a machine that is not known registers once, while the door is open'
show cos -C X key show
id=$(cat out)
show cos -C X enrol -p "$port" hostb
refused 'the outer door is closed' unknown-machine
show cosadm -C S door open
echo "  \$ cosadm -C S otp add 'Reception PC' > password"
cosadm_says -C S otp add 'Reception PC' >password
show sh -c "cos -C X enrol -p $port --password-fd 3 hostb 3<password"
same 'registered' 0 "$status"
show cosadm -C S machine list
case $(cat out) in
*"Reception PC"*"$id"*) ok 'it is on the list by the name that the manager chose' ;;
*) no 'it is not on the list' ;;
esac
show cosadm -C S door close
show cos -C X enrol -p "$port" hostb
same 'it is let in by the closed door' 0 "$status"
show cosadm -C S exclude add "$id"
show cos -C X enrol -p "$port" hostb
refused 'an excluded machine' excluded

title '13. The known host still gets in, and the daemon ends when it is told to'
show cos -C A run -p "$port" hostb 'echo still here'
same 'still served' 'still here' "$(cat out)"
kill "$daemon"
code=0
wait "$daemon" || code=$?
daemon=
cat <&3 >>daemon.log
same 'SIGTERM ends it, status 0' 0 "$code"

finish
