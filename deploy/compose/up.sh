#!/usr/bin/env bash
# Starts what compose.yaml describes, from nothing: what an earlier start left is removed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
HISTORY_START=$(date --utc --date '49 hours ago' +%Y-%m-%dT%H:00:00Z)
export HISTORY_START
docker compose down --volumes
exec docker compose up --build "$@"
