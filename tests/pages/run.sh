#!/usr/bin/env bash
# Opens the pages of a live job in Chromium: see pages.mjs. Then tests how they format numbers, by Node's own runner.
#   tests/pages/run.sh         fails at the first difference
# KEYTIDE_BIN names a program that is built already; else this builds it. SHOTS names a folder for pictures of the pages.
# Needs Linux, cargo, Node.js 20 or newer with npm, and Chromium with fonts of Korean (Debian: chromium, fonts-noto-cjk), which it
# installs where it may (Debian, root). playwright-core and axe-core come from npm in the versions of package-lock.json. Without
# one of these this fails: it never passes by skipping.

set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() { printf 'pages: %s\n' "$1" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing"; }
need npm
need node
if ! { command -v chromium && [[ -d /usr/share/fonts/opentype/noto ]]; } >/dev/null; then
    if ! command -v apt-get >/dev/null || [[ $(id -u) != 0 ]]; then
        fail 'chromium or its fonts are missing (Debian: the packages chromium and fonts-noto-cjk)'
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null
fi
keytide=${KEYTIDE_BIN:-}
if [[ -z $keytide ]]; then
    need cargo
    cargo build --quiet
    keytide=${CARGO_TARGET_DIR:-target}/debug/keytide
fi
keytide=$(realpath "$keytide")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Node takes the pages' modules for what they are if a package says so.
mkdir "$scratch/assets"
cp worker/src/serve/pages/assets/*.js "$scratch/assets"
printf '{"type": "module"}\n' >"$scratch/assets/package.json"
ASSETS=$scratch/assets node --test --test-reporter=dot tests/pages/format.test.mjs

cp tests/pages/{package.json,package-lock.json,pages.mjs} "$scratch"
npm ci --prefix "$scratch" --no-audit --no-fund --silent
node "$scratch/pages.mjs" "$scratch" "$keytide" "$(command -v chromium)"
