# shellcheck shell=bash
# A real Apache Kafka for tests: fetched with Maven, configured in a temporary folder, run on loopback ports. Sourced
# by run.sh (one node), cluster.sh (three) and control.sh (what a test calls while nodes run).
#
#   FOLDER/control             runs control.sh for this folder
#   FOLDER/environment         the variables of a test, as export lines
#   FOLDER/client.properties   how the Java tools connect;  FOLDER/librdkafka.conf  how kcat does (-F)
#   FOLDER/command             the process group of what the session runs
#   FOLDER/node-N/             server.properties, data/, log, pid, port
#
# Nothing is waited for by time: a loop polls a condition under a deadline and, when it passes, fails saying
# for what. A node that ends while it is waited for fails at once, with the end of its log.
# Ports lie below the range that Linux gives to outgoing connections, so a node that is down keeps its port; two runs
# that draw the same one in the same moment (1 in 10,000) are a loud failure.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly deadline_s=90
# The address at which clients reach the nodes.
readonly host=${KEYTIDE_KAFKA_HOST:-127.0.0.1}

fail() { printf 'kafka: %s\n' "$1" >&2; exit 1; }

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "$tool is missing; tests/kafka/README.md lists what is needed"
    done
}

# Polls a command until it succeeds. The command ends the script itself if there is nothing left to wait for.
poll() {
    local what=$1 until=$((SECONDS + deadline_s))
    shift
    until "$@"; do
        ((SECONDS < until)) || fail "$what: not within $deadline_s s"
        sleep 0.1
    done
}

# -- Apache Kafka itself ------------------------------------------------------------------------------------------

kafka_version() { sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$here/pom.xml"; }

cache() {
    realpath -m -- "${KEYTIDE_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keytide/kafka-$(kafka_version)}"
}

# Fills the cache, unless it was filled from the same pom.xml. Other runs see all of it or none.
fetch() {
    local target
    need java mvn
    target=$(cache)
    if cmp -s "$here/pom.xml" "$target/fetched-from.xml"; then return; fi
    if [[ -n $(ls -A "$target" 2>/dev/null) && ! -f $target/fetched-from.xml ]]; then
        fail "$target holds something else; name an empty folder as KEYTIDE_KAFKA_CACHE"
    fi
    printf 'kafka: fetching Apache Kafka %s into %s\n' "$(kafka_version)" "$target" >&2
    partial=$target.$$
    trap 'rm -rf "$partial"' EXIT
    mkdir -p "$partial"
    mvn --batch-mode --quiet --strict-checksums -Dstyle.color=never -f "$here/pom.xml" -Djars="$partial" \
        dependency:copy-dependencies >&2 || fail 'Maven could not fetch Apache Kafka (above)'
    cp "$here/pom.xml" "$partial/fetched-from.xml"
    rm -rf "$target"
    # Where another run was faster, its folder stays: it holds the same.
    mv -T "$partial" "$target" 2>/dev/null || rm -rf "$partial"
    trap - EXIT
    cmp -s "$here/pom.xml" "$target/fetched-from.xml" || fail "$target is not what was fetched"
}

# A tool lives for a second: the quick compiler and the simplest collector start it faster.
tool() {
    java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$here/log4j2.properties" \
        -cp "$(cache)/*" "$@"
}

# -- One node -----------------------------------------------------------------------------------------------------

nodes() {
    local path
    for path in "$folder"/node-*; do
        if [[ -d $path ]]; then printf '%s\n' "${path##*-}"; fi
    done
}

address() { printf '%s:%s\n' "$host" "$(cat "$folder/node-$1/port")"; }

addresses() { local node; for node in $(nodes); do address "$node"; done | paste -sd, -; }

# The folder's name in the command line tells our broker from a process that was given its number later. A process that
# ended and that nobody has reaped has no command line. Nor has one for a moment while it becomes another program, so
# that only java counts: it becomes nothing else.
alive() {
    local pid
    pid=$(cat "$folder/node-$1/pid" 2>/dev/null) || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" |
        awk -v last="$folder/node-$1/server.properties" '
            NR == 1 { java = $0 == "java" }
            { found = $0 == last }
            END { exit !(java && found) }
        '
}

dead() { ! alive "$1"; }

signal() { if alive "$2"; then kill "-$1" "$(cat "$folder/node-$2/pid")" 2>/dev/null || dead "$2"; fi; }

log_of() {
    printf -- '-- the end of the log of node %s\n' "$1" >&2
    tail -n 40 "$folder/node-$1/log" >&2
}

# The broker keeps none of our files open: who reads the output of `control start` must see its end.
launch() {
    local home=$folder/node-$1
    if alive "$1"; then return; fi
    setsid java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dkeytide.log=INFO \
        -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$(cache)/*" \
        kafka.Kafka "$home/server.properties" >>"$home/log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$home/pid"
    poll "node $1: its process" launched "$1" "$!"
}

launched() { alive "$1" || ! kill -0 "$2" 2>/dev/null; }

accepts() {
    alive "$1" || { log_of "$1"; fail "node $1 ended while it started"; }
    (exec 3<>"/dev/tcp/$host/$(cat "$folder/node-$1/port")") 2>/dev/null
}

# Known to the cluster as alive: the node heads a block of the answer to a metadata request. From then on its
# partitions have leaders: the controller writes both in one batch.
listed() {
    alive "$1" || { log_of "$1"; fail "node $1 ended while it started"; }
    tool org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server "$(address "$1")" \
        --command-config "$folder/client.properties" 2>/dev/null |
        grep "^$(address "$1") .*-> (" >/dev/null
}

in_sync() {
    local behind
    behind=$(tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$(addresses)" \
        --command-config "$folder/client.properties" --describe --under-replicated-partitions 2>&1) && [[ -z $behind ]]
}

all_alive() { local node; for node in $(nodes); do alive "$node" || return 1; done; }

# A node of a cluster is ready when it has caught up, which can be known only if no other node is down.
start_nodes() {
    local node
    for node in "$@"; do launch "$node"; done
    for node in "$@"; do poll "node $node: its port" accepts "$node"; done
    for node in "$@"; do poll "node $node: a metadata answer with it" listed "$node"; done
    if [[ $(nodes | wc -l) -gt 1 ]] && all_alive; then poll 'replicas in sync' in_sync; fi
}

end_nodes() {
    local signal=$1 node
    shift
    for node in "$@"; do signal "$signal" "$node"; done
    for node in "$@"; do poll "node $node: its end" dead "$node"; done
}

# -- A folder of nodes --------------------------------------------------------------------------------------------

# Sets `port`.
draw_port() {
    local attempt
    for attempt in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        if [[ " ${drawn:-} " != *" $port "* ]] && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            drawn="${drawn:-} $port"
            return
        fi
    done
    fail "no free port in $attempt draws from 20000 to 29999"
}

# Sets `folder`, which only this user may enter and which is gone when this script ends: nodes 1 to COUNT with their
# ports; common.properties is what all of them share, node-N/own.properties what one has for itself.
# What is short here is so that a test waits for the broker as little as possible: compaction, deletion, expiry of
# transactions, joining a group. A killed node may come back after broker.session.timeout.ms.
create() {
    local count=$1 node voters='' replicas=$1
    fetch
    folder=$(mktemp -d "${TMPDIR:-/tmp}/keytide-kafka.XXXXXXXX")
    clean_up_at_exit
    for ((node = 1; node <= count; node++)); do
        mkdir "$folder/node-$node"
        : >"$folder/node-$node/own.properties"
        draw_port
        printf '%s\n' "$port" >"$folder/node-$node/port"
        draw_port
        printf '%s\n' "$port" >"$folder/node-$node/controller-port"
        voters+=",$node@127.0.0.1:$port"
    done
    cat >"$folder/common.properties" <<-PROPERTIES
		process.roles=broker,controller
		controller.quorum.voters=${voters#,}
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=CLIENT
		broker.heartbeat.interval.ms=300
		broker.session.timeout.ms=3000
		auto.create.topics.enable=false
		default.replication.factor=$replicas
		min.insync.replicas=$(((replicas + 1) / 2))
		offsets.topic.num.partitions=4
		offsets.topic.replication.factor=$replicas
		transaction.state.log.num.partitions=4
		transaction.state.log.replication.factor=$replicas
		transaction.state.log.min.isr=$(((replicas + 1) / 2))
		transaction.abort.timed.out.transaction.cleanup.interval.ms=500
		share.coordinator.state.topic.replication.factor=$replicas
		share.coordinator.state.topic.min.isr=$(((replicas + 1) / 2))
		group.initial.rebalance.delay.ms=0
		log.initial.task.delay.ms=0
		log.retention.check.interval.ms=500
		log.segment.delete.delay.ms=500
		log.cleaner.backoff.ms=100
		log.cleaner.dedupe.buffer.size=16777216
	PROPERTIES
    printf '#!/usr/bin/env bash\nexec env KEYTIDE_KAFKA_CACHE=%q %q %q "$@"\n' \
        "$(cache)" "$here/control.sh" "$folder" >"$folder/control"
    chmod +x "$folder/control"
    {
        printf 'export KEYTIDE_TEST_BROKERS=%q\n' "$(addresses)"
        printf 'export KEYTIDE_TEST_KAFKA=%q\n' "$folder/control"
    } >"$folder/environment"
}

# -- Certificates and users ---------------------------------------------------------------------------------------

# Makes FOLDER/NAME.pem, a certificate authority of this session alone.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=keytide test $1" -days 30 \
        -keyout "$folder/$1-key.pem" -out "$folder/$1.pem" 2>/dev/null
}

# A node's key and its certificate for the names, as server and (towards controllers) as client, in one file as Kafka
# reads it.
certificate() {
    local home=$folder/node-$1 names=$2
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=node-$1" \
        -keyout "$home/key.pem" -out "$home/request.pem" 2>/dev/null
    openssl x509 -req -in "$home/request.pem" -CA "$folder/ca.pem" -CAkey "$folder/ca-key.pem" -CAcreateserial \
        -days 30 -out "$home/certificate.pem" 2>/dev/null -extfile <(
            printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names"
        )
    cat "$home/key.pem" "$home/certificate.pem" "$folder/ca.pem" >"$home/keystore.pem"
}

login() {
    printf 'org.apache.kafka.common.security.scram.ScramLoginModule required username="%s" password="%s";\n' "$1" "$2"
}

# Writes each node's server.properties and formats its data folder. `more_listeners`, such as
# ",NAME://127.0.0.1:PORT", come beside the client's and the controller's. Arguments go to the formatter.
format() {
    local node home id
    id=$(tool kafka.tools.StorageTool random-uuid)
    for node in $(nodes); do
        home=$folder/node-$node
        {
            cat "$folder/common.properties" "$home/own.properties"
            printf 'node.id=%s\nlog.dirs=%s/data\n' "$node" "$home"
            printf 'listeners=CLIENT://%s,CONTROLLER://127.0.0.1:%s%s\n' \
                "$(address "$node")" "$(cat "$home/controller-port")" "${more_listeners:-}"
            printf 'advertised.listeners=CLIENT://%s%s\n' "$(address "$node")" "${more_listeners:-}"
        } >"$home/server.properties"
        if ! tool kafka.tools.StorageTool format -t "$id" -c "$home/server.properties" "$@" >"$home/log" 2>&1; then
            log_of "$node"
            fail "the data folder of node $node could not be formatted"
        fi
    done
}

destroy() {
    [[ -d $folder ]] || return 0
    local node group
    if group=$(cat "$folder/command" 2>/dev/null); then
        # A shell tells of the death of its own child on its errors, unless it is asked here.
        { kill -KILL -- "-$group" && wait "$group"; } 2>/dev/null || true
    fi
    for node in $(nodes); do signal KILL "$node"; done
    for node in $(nodes); do poll "node $node: its end" dead "$node"; done
    rm -rf "${folder:?}"
}

# -- A session: nodes up, a command, everything gone ----------------------------------------------------------------

# Makes sure that nothing stays, from now on: at the end of this script, at a signal, and (a second later) when this
# script is killed without a chance to act.
clean_up_at_exit() {
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    setsid "$here/control.sh" "$folder" destroy-after "$$" >/dev/null 2>&1 </dev/null &
}

clean_up() {
    local code=$?
    trap '' HUP INT TERM
    destroy
    exit "$code"
}

# Starts the nodes, runs the command with the variables of FOLDER/environment, and exits with its code. The command
# is a group of processes of its own, so that nothing of it stays either.
session() {
    local code=0 group node before=$SECONDS
    "$folder/control" start
    printf 'kafka: Apache Kafka %s answers on %s (%d s)\n' \
        "$(kafka_version)" "$(addresses)" "$((SECONDS - before))" >&2
    # shellcheck source=/dev/null
    source "$folder/environment"
    set -m
    "$@" </dev/null &
    group=$!
    printf '%s\n' "$group" >"$folder/command"
    set +m
    wait "$group" || code=$?
    if ((code != 0)); then
        for node in $(nodes); do
            printf -- '-- the last warnings of node %s\n' "$node" >&2
            grep -E ' (WARN|ERROR|FATAL) ' "$folder/node-$node/log" | tail -n 20 >&2 || true
        done
    fi
    exit "$code"
}

# For work by hand: another shell takes over the lines that are printed.
stay_up() {
    # shellcheck disable=SC2016
    session bash -c 'cat "$1/environment"; printf "# kcat -F %s ...; logs in %s/node-*/log; Ctrl-C ends it\n" \
        "$1/librdkafka.conf" "$1"; exec sleep infinity' bash "$folder"
}
