#!/usr/bin/env bash
# Runs a live job with `[api]` behind the gateways of docs/api.md: NGINX and Caddy, as that page configures them, refuse keys over
# their quotas. Then Schemathesis asks everything that /v1/openapi.json describes, also wrongly, and compares the answers.
#   tests/api/run.sh           fails at the first difference
# KEYTIDE_BIN names a program that is built already; else this builds it.
# Needs Linux, cargo, Python 3.11 or newer with venv and pip, nginx with auth_request and Caddy 2 (Debian: nginx, caddy).
# Schemathesis comes from PyPI in the version below. Without one of these this fails: it never passes by skipping. Nothing of the
# machine's own servers is touched.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
schemathesis=4.32.5

fail() { printf 'api: %s\n' "$1" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing"; }
need python3
need nginx
need caddy
[[ $(nginx -V 2>&1) == *--with-http_auth_request_module* ]] || fail 'nginx has no auth_request'
keytide=${KEYTIDE_BIN:-}
if [[ -z $keytide ]]; then
    need cargo
    cargo build --quiet
    keytide=${CARGO_TARGET_DIR:-target}/debug/keytide
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Workers of nginx are another user.
chmod 755 "$scratch"
python3 -m venv "$scratch/venv" || fail 'python3 has no venv: install python3-venv'
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$schemathesis"
"$scratch/venv/bin/python" tests/api/check.py "$scratch" "$(realpath "$keytide")"
