#!/usr/bin/env bash
# Makes the file tree of the image: deploy/image.sh PROGRAM FOLDER
#
# deploy/Dockerfile runs it in Debian. By hand it shows what the image holds and how large it is, and "chroot FOLDER" tries
# it, without a container. It needs coreutils, strip and ldd, the package ca-certificates, and root for the owners.

set -euo pipefail

(($# == 2)) || { printf 'usage: image.sh PROGRAM FOLDER\n' >&2; exit 2; }
program=$1 tree=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ ! -e $tree ]] || { printf 'image.sh: %s exists\n' "$tree" >&2; exit 2; }

install -d -m 755 "$tree" "$tree"/{etc,usr/bin,usr/share/doc,var/lib}
install -m 755 "$program" "$tree/usr/bin/keytide"
strip "$tree/usr/bin/keytide"

# The loader and the libraries, at the paths where the program looks for them.
ldd "$program" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i }' | while read -r library; do
    install -D -m 755 "$library" "$tree$library"
done

# Certificates: librdkafka and the mailer look for this file.
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"

printf 'keytide:x:65532:65532::/var/lib/keytide:/sbin/nologin\n' >"$tree/etc/passwd"
printf 'keytide:x:65532:\n' >"$tree/etc/group"
printf 'hosts: files dns\n' >"$tree/etc/nsswitch.conf"
install -d -m 1777 "$tree/tmp"
install -d -m 750 -o 65532 -g 65532 "$tree/var/lib/keytide"

# The licences of the program and of the libraries beside it.
install -D -m 644 -t "$tree/usr/share/doc/keytide" "$here"/../LICENSE-*
for package in libc6 libgcc-s1 ca-certificates; do
    copyright=/usr/share/doc/$package/copyright
    [[ ! -e $copyright ]] || install -D -m 644 "$copyright" "$tree$copyright"
done
