#!/usr/bin/env bash
# Measures Keytide beside DuckDB and Flink: benches/beside/beside.py says at which task, and checks that they agree.
#   benches/beside/run.sh [--events N] [--rounds N]                            a file, all three
#   tests/kafka/run.sh run benches/beside/run.sh --stream [--events N] ...     a topic, Keytide and Flink
# KEYTIDE_BIN names a program that is built already; else this builds it with --release.
# Needs Linux, Python 3.11 or newer with venv and pip, Java 17 or newer with javac, and Maven. DuckDB comes from PyPI, Flink from Maven
# Central, once, into KEYTIDE_TOOLS, else target/beside-tools (140 MB).

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
DUCKDB=2.0.1

fail() { printf 'beside: %s\n' "$1" >&2; exit 1; }
for tool in python3 java javac mvn; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done
tools=${KEYTIDE_TOOLS:-target/beside-tools}
mkdir -p "$tools/flink/classes"
tools=$(cd "$tools" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

[[ -x $tools/python/bin/python ]] || python3 -m venv "$tools/python"
"$tools/python/bin/pip" install --quiet --disable-pip-version-check "duckdb==$DUCKDB"
if ! cmp -s benches/beside/flink/pom.xml "$tools/flink/pom.xml"; then
    rm -rf "$tools/flink/jars"
    mvn --batch-mode --quiet --strict-checksums -Dstyle.color=never -f benches/beside/flink/pom.xml \
        -Djars="$tools/flink/jars" dependency:copy-dependencies
    cp benches/beside/flink/pom.xml "$tools/flink/pom.xml"
fi
javac -cp "$tools/flink/jars/*" -d "$tools/flink/classes" benches/beside/flink/Beside.java

keytide=${KEYTIDE_BIN:-}
if [[ -z $keytide ]]; then
    cargo build --release --quiet --bin keytide
    keytide=${CARGO_TARGET_DIR:-target}/release/keytide
fi
"$tools/python/bin/python" benches/beside/beside.py --keytide "$keytide" --flink "$tools/flink" --work "$scratch" "$@"
