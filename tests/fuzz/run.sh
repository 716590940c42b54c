#!/usr/bin/env bash
# Runs fuzz targets, each for SECONDS (600), two at a time: tests/fuzz/run.sh [SECONDS [TARGET...]]. All by default. Builds
# them first, in CARGO_TARGET_DIR (tests/fuzz/target). What is learnt stays in tests/fuzz/corpus/, what fails in
# tests/fuzz/artifacts/, what was said in tests/fuzz/logs/. Fails if a target does.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-600}
(($# == 0)) || shift
targets=("$@")
((${#targets[@]} > 0)) || mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir .)

# No sanitizer: what is fuzzed is safe Rust, and librdkafka's configure script fails under one.
for target in "${targets[@]}"; do
    cargo +nightly fuzz build -s none --fuzz-dir . "$target"
done
mkdir -p logs

run() {
    local dictionary=json
    case $1 in
        config) dictionary=config ;;
        geo) dictionary=geo ;;
        table_*) dictionary=tables ;;
        decode_combined) dictionary=combined ;;
    esac
    mkdir -p "corpus/$1"
    nice -n 19 cargo +nightly fuzz run -s none --fuzz-dir . "$1" "corpus/$1" "seeds/$1" -- \
        -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -max_len=8192 -dict="dictionaries/$dictionary" \
        -print_final_stats=1 >"logs/$1" 2>&1 || { echo "$1 failed: tests/fuzz/logs/$1" >&2; return 1; }
}
export -f run
printf '%s\n' "${targets[@]}" | xargs -P 2 -I {} bash -c 'run "$1" "$2"' run {} "$seconds"
