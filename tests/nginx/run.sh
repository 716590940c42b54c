#!/usr/bin/env bash
# Runs deploy/gateways/nginx with a stock nginx and `keytide demo --act`: the stolen key is refused with 403 once `keytide actions
# approve` says so, others aren't, and `keytide actions reinstate` lets it in again.
#   tests/nginx/run.sh         fails at the first difference
# KEYTIDE_BIN names a program that is built already; else this builds it.
# Needs Linux, cargo, Python 3.11 or newer, curl, and nginx with http-lua (Debian: nginx, libnginx-mod-http-lua). Without one of
# these this fails: it never passes by skipping. Nothing of the machine's own nginx is touched.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() { printf 'nginx: %s\n' "$1" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing"; }
need curl
need python3
need nginx
modules=$(nginx -V 2>&1 | sed -n 's/.*--modules-path=\([^ ]*\).*/\1/p')
[[ -f $modules/ngx_http_lua_module.so ]] || fail 'nginx has no http-lua: install libnginx-mod-http-lua'
keytide=${KEYTIDE_BIN:-}
if [[ -z $keytide ]]; then
    need cargo
    cargo build --quiet
    keytide=${CARGO_TARGET_DIR:-target}/debug/keytide
fi

scratch=$(mktemp -d)
# Workers of nginx are another user.
chmod 755 "$scratch"
demo=
stop() {
    if [[ -f $scratch/nginx.pid ]]; then kill "$(cat "$scratch/nginx.pid")" 2>/dev/null || true; fi
    if [[ -n $demo ]]; then
        kill "$demo" 2>/dev/null || true
        wait "$demo" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap stop EXIT

free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
backend=$(free_port)
# The example as it stands, but for its paths and ports, with a service behind it.
sed -e "s#modules/#$modules/#; s#/etc/keytide#$PWD/deploy/gateways/nginx#" \
    -e "s#/var/lib/keytide/denied.txt#$scratch/demo/denied.txt#; s#:8080#:$port#; s#:8081#:$backend#" \
    -e "s#^    server {#    access_log off;\n    server { listen 127.0.0.1:$backend; location / { return 200; } }\n&#" \
    deploy/gateways/nginx/nginx.conf >"$scratch/nginx.conf"

"$keytide" demo --act --headless --duration 10m --rate 100 --out "$scratch/demo" >"$scratch/demo.out" 2>&1 &
demo=$!
is_there() { [[ -f $1 ]] || ! kill -0 "$demo" 2>/dev/null; }
poll() { local what=$1; shift; for _ in $(seq 3000); do if "$@"; then return; fi; sleep 0.1; done; fail "in vain: $what"; }
poll 'the deny list' is_there "$scratch/demo/denied.txt"
[[ -f $scratch/demo/denied.txt ]] || fail "the demo ended: $(tail -n 5 "$scratch/demo.out")"
nginx -p "$scratch" -c "$scratch/nginx.conf" -e "$scratch/error.log" -g "pid $scratch/nginx.pid;" ||
    fail "nginx does not start: $(tail -n 5 "$scratch/error.log")"

status() { curl --silent --output /dev/null --write-out '%{http_code}' "$@" "http://127.0.0.1:$port/orders"; }
key=$(cat "$scratch/demo/stolen-key")
is() { [[ $(status --header "apikey: $key") == "$1" ]]; }
poll 'nginx answers' is 200
actions() { "$keytide" actions "$scratch/demo/keytide.toml" "$@"; }
held() {
    id=$(actions list --json 2>/dev/null | python3 -c '
import json, sys
page = json.load(sys.stdin)
assert page["on_probation"] == ["edge"], page
for one in page["actions"]:
    assert (one["action"], one["state"]) == ("suspend", "held") and "on probation" in one["reason"], page
    print(one["action_id"])') && [[ -n $id ]]
}
# The gateway is on probation, so a person approves.
poll 'the suspension waits for a person' held
is 200 || fail 'the key is refused before a person approved that'
actions approve "$id" --why 'it is stolen' >/dev/null
poll 'the stolen key is refused' is 403
[[ $(status --header 'apikey: another' --header "apikey: $key") == 403 ]] || fail 'a second header hides the key'
[[ $(status --header 'apikey: another') == 200 ]] || fail 'another key is refused'
[[ $(status) == 200 ]] || fail 'a call without a key is refused'

actions reinstate "$id" --why 'a trial' >/dev/null
poll 'the key is let in again' is 200
[[ $(status --header "apikey: $key") == 200 ]] || fail 'the key is refused again'
# Without a list nginx keeps the last one.
kill "$demo"
wait "$demo" || fail "the demo failed: $(tail -n 5 "$scratch/demo.out")"
demo=
printf '%s suspended\n' "$(printf %s "$key" | sha256sum | cut -c 1-32)" >"$scratch/demo/new"
mv "$scratch/demo/new" "$scratch/demo/denied.txt"
poll 'the key is refused' is 403
rm "$scratch/demo/denied.txt"
poll 'nginx misses the list' grep -q 'keytide: .*No such file' "$scratch/error.log"
is 403 || fail 'a list that is gone lets the key in'
printf 'nginx: the stolen key is refused, and let in again\n'
