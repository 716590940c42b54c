#!/bin/sh
# Fetches NGINX, lua-cjson, HAProxy, Apache httpd and Caddy from Debian into a temporary folder (nothing is installed),
# sends them the catalogue, and writes what they logged to connectors/tests/fixtures/writers/.
# Debian 12, apt, dpkg-deb, curl, python3 (standard library); ports 18080 to 18110 of loopback. Takes about 2 minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$(mktemp -d /tmp/writers.XXXXXX)}
chmod 755 "$folder"
if [ ! -e "$folder/root/usr/sbin/nginx" ]; then
    mkdir -p "$folder/debs" "$folder/root"
    apt-get install -y --reinstall --print-uris --no-install-recommends \
        nginx libnginx-mod-http-lua lua-cjson haproxy apache2 caddy 2>/dev/null |
        sed -n "s/^'\([^']*\)' \([^ ]*\) .*/url = \"\1\"\noutput = \"\2\"/p" >"$folder/urls"
    (cd "$folder/debs" && curl -sSf --parallel -K ../urls)
    for package in "$folder"/debs/*.deb; do
        dpkg-deb -x "$package" "$folder/root"
    done
fi
PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/make.py" "$folder" "$here/../../connectors/tests/fixtures/writers"
