#!/usr/bin/env bash
# What a test does to the nodes of a folder while they run. A test calls it as $KEYTIDE_TEST_KAFKA COMMAND ...; it
# exits with 0 when the condition holds that the command's line names, else with 1 and the reason.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat >&2 <<'TEXT'
control COMMAND [NODE ...] or control TOOL [ARGUMENT ...]; without NODE, all nodes
  start     they run and the cluster counts them as alive; if no node is down, all replicas are in sync too
  stop      asked to end (SIGTERM), and ended
  kill      killed (SIGKILL), and ended
  restart   stop, start, one node after the other
  pause     stopped where they are (SIGSTOP): connections stay open, nothing is answered
  resume    go on (SIGCONT)
  status    a line per node: number, address, up or down
  topic, configs, console-consumer, console-producer, offsets, delete-records, transactions, groups, acls
            Kafka's own tool of that name, already connected
TEXT
    exit 1
}

(($# >= 2)) || usage
folder=$1
command=$2
shift 2
if [[ $command == destroy-after ]]; then
    tail --pid="$1" -f /dev/null
    destroy
    exit
fi
[[ -d $folder ]] || fail "$folder is gone: its session has ended"

case $command in
    start | stop | kill | restart | pause | resume | status)
        if (($# == 0)); then
            # shellcheck disable=SC2046
            set -- $(nodes)
        fi
        for node in "$@"; do
            [[ $node =~ ^[0-9]+$ && -d $folder/node-$node ]] || fail "there is no node $node"
        done
        ;;
esac
connected=(--bootstrap-server "$(addresses)")
configured=("${connected[@]}" --command-config "$folder/client.properties")

case $command in
    start) start_nodes "$@" ;;
    stop) end_nodes TERM "$@" ;;
    kill) end_nodes KILL "$@" ;;
    restart) for node in "$@"; do end_nodes TERM "$node"; start_nodes "$node"; done ;;
    pause) for node in "$@"; do signal STOP "$node"; done ;;
    resume) for node in "$@"; do signal CONT "$node"; done ;;
    status)
        for node in "$@"; do
            if alive "$node"; then state=up; else state=down; fi
            printf '%s %s %s\n' "$node" "$(address "$node")" "$state"
        done
        ;;
    topic) tool org.apache.kafka.tools.TopicCommand "${configured[@]}" "$@" ;;
    configs) tool kafka.admin.ConfigCommand "${configured[@]}" "$@" ;;
    console-consumer)
        tool org.apache.kafka.tools.consumer.ConsoleConsumer "${connected[@]}" \
            --consumer.config "$folder/client.properties" "$@"
        ;;
    console-producer)
        tool org.apache.kafka.tools.ConsoleProducer "${connected[@]}" \
            --producer.config "$folder/client.properties" "$@"
        ;;
    offsets) tool org.apache.kafka.tools.GetOffsetShell "${configured[@]}" "$@" ;;
    delete-records) tool org.apache.kafka.tools.DeleteRecordsCommand "${configured[@]}" "$@" ;;
    transactions) tool org.apache.kafka.tools.TransactionsCommand "${configured[@]}" "$@" ;;
    groups) tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "${configured[@]}" "$@" ;;
    acls) tool org.apache.kafka.tools.AclCommand "${configured[@]}" "$@" ;;
    *) usage ;;
esac
