#!/bin/sh
# Makes the Python environment of the independent client, once, under target/,
# and prints its interpreter. It is made anew when requirements.txt changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${CARGO_TARGET_DIR:-$here/../../target}/independent
if [ "${1:-}" != --locked ]; then
	mkdir -p "$venv"
	exec flock "$venv" "$0" --locked
fi
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
	if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
		echo 'venv.sh: python3 with venv is missing: apt-get install python3 python3-venv' >&2
		exit 3
	fi
	python3 -m venv --clear "$venv"
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
		-r "$here/requirements.txt" >&2
	cp "$here/requirements.txt" "$venv/requirements.txt"
fi
printf '%s\n' "$venv/bin/python"
