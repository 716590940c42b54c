#!/usr/bin/env bash
# Tests jobs whose state is in a bucket: tests/bucket.rs, against moto, which speaks S3, and azurite, which speaks Azure Blob
# Storage. Both keep objects in memory. moto is Amazon API Gateway, too, for a test of tests/gateways.rs.
#   tests/store/run.sh              runs the tests
#   tests/store/run.sh run COMMAND  runs a command with such stores; KEYTIDE_TEST_S3 and KEYTIDE_TEST_AZURE have their
#                                   addresses, KEYTIDE_TEST_API_GATEWAY that of the gateway, and KEYTIDE_TEST_API_KEY the
#                                   id of its API key
# Needs cargo, Python 3.11 or newer with venv and pip, and Node.js 20 or newer with npm. moto comes from PyPI and azurite from
# npm, in the versions below. Without one of these this fails: it never passes by skipping. There is no store for Google Cloud
# Storage: of those that can be fetched none writes an object only if it isn't there, by the interface that the job uses.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
moto=5.2.5
azurite=3.37.0

fail() { printf 'store: %s\n' "$1" >&2; exit 1; }
command -v python3 >/dev/null || fail 'python3 is missing'
command -v npm >/dev/null || fail 'npm is missing'
command -v cargo >/dev/null || fail 'cargo is missing'

scratch=$(mktemp -d)
azure=
clean_up() {
    exec 3>&-
    if [[ $azure ]]; then kill "$azure" 2>/dev/null && wait "$azure" 2>/dev/null || :; fi
    rm -rf "$scratch"
}
trap clean_up EXIT
# Waits until a server has written a line of its start, while it runs.
await() {
    until grep -q "$3" "$scratch/$2" 2>/dev/null; do
        kill -0 "$1" 2>/dev/null || { cat "$scratch"/log* >&2; fail "$2: the server did not start"; }
        read -rt 0.1 <> <(:) || :
    done
}
python3 -m venv "$scratch/venv" || fail 'python3 has no venv: install python3-venv'
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "moto[apigateway,s3]==$moto" flask flask-cors

# It ends with its standard input, which this holds open.
mkfifo "$scratch/in"
"$scratch/venv/bin/python" tests/store/server.py keytide-test <"$scratch/in" >"$scratch/port" 2>"$scratch/log-s3" &
server=$!
exec 3>"$scratch/in"

npm install --prefix "$scratch/npm" --no-audit --no-fund --silent "azurite@$azurite"
"$scratch/npm/node_modules/.bin/azurite-blob" --inMemoryPersistence --blobHost 127.0.0.1 --blobPort 0 \
    --skipApiVersionCheck --disableTelemetry 3>&- >"$scratch/log-azure" 2>&1 &
azure=$!
await "$server" port .
await "$azure" log-azure 'successfully listens on'
read -r s3 gateway KEYTIDE_TEST_API_KEY <"$scratch/port"
KEYTIDE_TEST_S3=http://127.0.0.1:$s3
KEYTIDE_TEST_API_GATEWAY=127.0.0.1:$gateway
KEYTIDE_TEST_AZURE=$(sed -n 's|.*successfully listens on \(http://[0-9.:]*\).*|\1|p' "$scratch/log-azure")
export KEYTIDE_TEST_S3 KEYTIDE_TEST_AZURE KEYTIDE_TEST_API_GATEWAY KEYTIDE_TEST_API_KEY
python3 tests/store/container.py "$KEYTIDE_TEST_AZURE" keytide-test

if [[ ${1:-} == run ]]; then
    "${@:2}" 3>&-
else
    cargo test --features real-store --test keytide -- bucket:: gateways::an_api_key 3>&-
fi
