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

create 3
authority ca
for node in $(nodes); do
    certificate "$node" IP:127.0.0.1,DNS:localhost
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
