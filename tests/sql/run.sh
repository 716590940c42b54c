#!/usr/bin/env bash
# Runs docs/sql.md: its statements and those that the program writes beside views, in DuckDB and in PostgreSQL, on the
# views of config/examples/replay.toml and of a short live job, and compares the answers.
#   tests/sql/run.sh           fails at the first difference
#   tests/sql/run.sh --write   writes DuckDB's answers into docs/sql.md
# KEYTIDE_BIN names a program that is built already; else this builds it.
# Needs Linux, cargo, Python 3.11 or newer with venv and pip, and PostgreSQL 13 or newer (initdb, pg_ctl, psql). DuckDB comes from PyPI in
# the version below. Without one of these this fails: it never passes by skipping. Nothing of the machine's own
# PostgreSQL is touched: the cluster is made for this run, in a folder of its own, and listens on no network.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
duckdb=2.0.1

fail() { printf 'sql: %s\n' "$1" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing"; }
need python3
need psql
need setpriv
# Debian keeps the server's programs out of PATH.
bin=$(dirname "$(command -v initdb || find /usr/lib/postgresql -name initdb 2>/dev/null | sort -V | tail -n 1)")
[[ -x $bin/initdb && -x $bin/pg_ctl ]] || fail 'PostgreSQL is missing: neither PATH nor /usr/lib/postgresql has initdb'

scratch=$(mktemp -d)
# PostgreSQL refuses to run as root.
as=()
stop() {
    if [[ -f $scratch/cluster/data/postmaster.pid ]]; then
        "${as[@]}" "$bin/pg_ctl" --pgdata "$scratch/cluster/data" --mode immediate --silent stop || true
    fi
    rm -rf "$scratch"
}
trap stop EXIT

python3 -m venv "$scratch/venv" || fail 'python3 has no venv: install python3-venv'
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "duckdb==$duckdb"

keytide=${KEYTIDE_BIN:-}
if [[ -z $keytide ]]; then
    need cargo
    cargo build --quiet
    keytide=${CARGO_TARGET_DIR:-target}/debug/keytide
fi
for format in jsonl parquet; do
    "$keytide" replay config/examples/replay.toml --out "$scratch/$format" --format "$format" \
        --now 2025-06-10T00:00:00Z --quiet >/dev/null 2>&1 || fail "replay --format $format failed"
done
# The shortest demo: a live job with [sink.files].
"$keytide" demo --headless --duration 40s --rate 50 --seed 2 --out "$scratch/demo" >/dev/null ||
    fail 'the demo failed'

if [[ $(id -u) == 0 ]]; then
    id postgres >/dev/null 2>&1 || fail 'as root this needs a user postgres'
    chmod 755 "$scratch"
    install -d -o postgres "$scratch/cluster"
    as=(setpriv --reuid postgres --regid postgres --clear-groups --)
else
    mkdir "$scratch/cluster"
fi
"${as[@]}" "$bin/initdb" --pgdata "$scratch/cluster/data" --username keytide --auth trust --encoding UTF8 \
    --locale C --no-sync >/dev/null || fail 'initdb failed'
# Returns once it answers.
"${as[@]}" "$bin/pg_ctl" --pgdata "$scratch/cluster/data" --log "$scratch/cluster/log" --silent --wait \
    --options "-k $scratch/cluster -c listen_addresses= -c fsync=off" start ||
    { cat "$scratch/cluster/log" >&2; fail 'PostgreSQL did not start'; }
export PGHOST=$scratch/cluster PGUSER=keytide PGDATABASE=postgres

"$scratch/venv/bin/python" tests/sql/check.py "$scratch" "$@"
