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
need openssl

# Beside the plain listener, which may do everything, there is one with TLS and one with TLS, SCRAM and ACLs: a user of
# that one has no right that a test didn't give it. The certificate is for 127.0.0.1, and not for localhost.
create 1
draw_port
tls=127.0.0.1:$port
draw_port
sasl=127.0.0.1:$port
more_listeners=,TLS://$tls,SASL://$sasl
authority ca
authority stranger
certificate 1 IP:127.0.0.1
cat >>"$folder/common.properties" <<PROPERTIES
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SASL:SASL_SSL
listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location=$folder/node-1/keystore.pem
PROPERTIES
printf 'security.protocol=PLAINTEXT\n' >"$folder/client.properties"
printf 'bootstrap.servers=%s\n' "$(addresses)" >"$folder/librdkafka.conf"
cat >>"$folder/environment" <<VARIABLES
export KEYTIDE_TEST_TLS=$tls
export KEYTIDE_TEST_SASL=$sasl
export KEYTIDE_TEST_CA_FILE=$(printf %q "$folder/ca.pem")
export KEYTIDE_TEST_STRANGER_FILE=$(printf %q "$folder/stranger.pem")
VARIABLES
# shellcheck disable=SC2119
format

case ${1:-} in
    up) stay_up ;;
    run) shift; session "$@" ;;
    *)
        # Without --package, so that all crates have the features that `cargo test` has built them with.
        session cargo test --manifest-path "$here/../../Cargo.toml" --features keytide/real-kafka \
            --test real_kafka -- "$@"
        ;;
esac
