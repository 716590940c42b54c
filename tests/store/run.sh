#!/usr/bin/env bash
# Tests jobs whose state is in a bucket: tests/bucket.rs, against moto, which speaks S3 and keeps objects in memory.
#   tests/store/run.sh              runs the tests
#   tests/store/run.sh run COMMAND  runs a command with such a store; KEYTIDE_TEST_S3 has its address
# Needs cargo and Python 3.11 or newer with venv and pip. moto comes from PyPI in the version below. Without one of these
# this fails: it never passes by skipping.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
moto=5.2.5

fail() { printf 'store: %s\n' "$1" >&2; exit 1; }
command -v python3 >/dev/null || fail 'python3 is missing'
command -v cargo >/dev/null || fail 'cargo is missing'

scratch=$(mktemp -d)
trap 'exec 3>&-; rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv" || fail 'python3 has no venv: install python3-venv'
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "moto[s3]==$moto" flask flask-cors

# It ends with its standard input, which this holds open.
mkfifo "$scratch/in"
"$scratch/venv/bin/python" tests/store/server.py keytide-test <"$scratch/in" >"$scratch/port" 2>"$scratch/log" &
server=$!
exec 3>"$scratch/in"
until [[ -s $scratch/port ]]; do
    kill -0 "$server" 2>/dev/null || { cat "$scratch/log" >&2; fail 'moto did not start'; }
    read -rt 0.1 <> <(:) || :
done
KEYTIDE_TEST_S3=http://127.0.0.1:$(<"$scratch/port")
export KEYTIDE_TEST_S3

if [[ ${1:-} == run ]]; then
    "${@:2}" 3>&-
else
    cargo test --features real-store --test keytide bucket:: 3>&-
fi
