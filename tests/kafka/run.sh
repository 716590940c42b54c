#!/usr/bin/env bash
# Runs the tests that need a real Apache Kafka against one broker, made for this run and gone after it.
#   tests/kafka/run.sh [TEST ARGUMENT ...]   the suite; exits with its code
#   tests/kafka/run.sh run COMMAND ...       any command with the suite's variables
#   tests/kafka/run.sh up                    for work by hand: prints the variables, stays until Ctrl-C
# Needs what README.md beside it lists. Without it this fails: it never passes by skipping.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
    up) (($# == 1)) || fail 'usage: run.sh up' ;;
    run) (($# > 1)) || fail 'usage: run.sh run COMMAND ...' ;;
    *) need cargo ;;
esac

create 1
printf 'listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT\n' >>"$folder/common.properties"
printf 'security.protocol=PLAINTEXT\n' >"$folder/client.properties"
printf 'bootstrap.servers=%s\n' "$(addresses)" >"$folder/librdkafka.conf"
# shellcheck disable=SC2119
format

case ${1:-} in
    up) stay_up ;;
    run) shift; session "$@" ;;
    *)
        session cargo test --manifest-path "$here/../../Cargo.toml" --package keytide --features real-kafka \
            --test real_kafka -- "$@"
        ;;
esac
