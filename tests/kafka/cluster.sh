#!/usr/bin/env bash
# Three nodes as in production: SASL_SSL with SCRAM-SHA-512 under a private CA, controllers that know each other by
# certificate, replication factor 3, two replicas in sync at least. Made for one session and gone after it.
#   tests/kafka/cluster.sh run COMMAND ...   the command with the variables; exits with its code
#   tests/kafka/cluster.sh up                for work by hand: prints the variables, stays until Ctrl-C
# Three brokers take three times 512 MB of heap at most; by command only, no CI runs it.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
    up) (($# == 1)) || fail 'usage: cluster.sh up' ;;
    run) (($# > 1)) || fail 'usage: cluster.sh run COMMAND ...' ;;
    *) fail 'usage: cluster.sh up | run COMMAND ...' ;;
esac
need openssl

# A key and a certificate for 127.0.0.1, as server and (towards controllers) as client, in one file as Kafka reads it.
certificate() {
    local home=$folder/node-$1
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=node-$1" \
        -keyout "$home/key.pem" -out "$home/request.pem" 2>/dev/null
    openssl x509 -req -in "$home/request.pem" -CA "$folder/ca.pem" -CAkey "$folder/ca-key.pem" -CAcreateserial \
        -days 30 -out "$home/certificate.pem" 2>/dev/null -extfile <(
            printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n'
        )
    cat "$home/key.pem" "$home/certificate.pem" "$folder/ca.pem" >"$home/keystore.pem"
}

login() {
    printf 'org.apache.kafka.common.security.scram.ScramLoginModule required username="%s" password="%s";\n' "$1" "$2"
}

create 3
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=keytide test CA' -days 30 \
    -keyout "$folder/ca-key.pem" -out "$folder/ca.pem" 2>/dev/null
for node in $(nodes); do
    certificate "$node"
    printf 'ssl.keystore.location=%s\n' "$folder/node-$node/keystore.pem" >"$folder/node-$node/own.properties"
done
admin_password=$(openssl rand -hex 16)
password=$(openssl rand -hex 16)
printf '%s\n' "$password" >"$folder/password"

cat >>"$folder/common.properties" <<PROPERTIES
listener.security.protocol.map=CLIENT:SASL_SSL,CONTROLLER:SSL
listener.name.controller.ssl.client.auth=required
listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.client.scram-sha-512.sasl.jaas.config=$(login admin "$admin_password")
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.truststore.type=PEM
ssl.truststore.location=$folder/ca.pem
PROPERTIES
cat >"$folder/client.properties" <<PROPERTIES
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=$(login admin "$admin_password")
ssl.truststore.type=PEM
ssl.truststore.location=$folder/ca.pem
PROPERTIES
cat >"$folder/librdkafka.conf" <<PROPERTIES
bootstrap.servers=$(addresses)
security.protocol=SASL_SSL
sasl.mechanisms=SCRAM-SHA-512
sasl.username=keytide
sasl.password=$password
ssl.ca.location=$folder/ca.pem
PROPERTIES
cat >>"$folder/environment" <<VARIABLES
export KEYTIDE_TEST_USER=keytide
export KEYTIDE_TEST_PASSWORD_FILE=$(printf %q "$folder/password")
export KEYTIDE_TEST_CA_FILE=$(printf %q "$folder/ca.pem")
VARIABLES
# For a moment other processes of this machine see these passwords. They open nothing but these three nodes.
format --add-scram "SCRAM-SHA-512=[name=admin,password=$admin_password]" \
    --add-scram "SCRAM-SHA-512=[name=keytide,password=$password]"

case $1 in
    up) stay_up ;;
    run) shift; session "$@" ;;
esac
