#!/usr/bin/env python3
"""Cuts the network between the processes of one job, and shows that the job goes on and that its rows stay exact.

    tests/cluster/partition.py --keytide PROGRAM [CASE ...]

Linux, Python 3.11 or newer, iproute2, util-linux, the right to make network namespaces, and what tests/kafka/README.md
lists. By command only, no CI runs it. It takes about two minutes, and six more with the case `return`.

Everything happens in network namespaces that end with this program, so no interface of the machine is touched:

    hub: Kafka, this program   10.77.2.1 ──┬── bridge `kafka` ──── eth-kafka of each process
                               10.77.3.1 ──┼── bridge `watch` ──── eth-watch, for /status, never cut
                                           └── bridge `links` ──── eth-links, between processes

Each process has a namespace of its own. A cut takes its end of a link down at the bridge, as a pulled cable does: packets
are lost without a word. A one-way cut is a permanent neighbour entry with an address that nobody has: what this side sends
to that other one is lost, and what comes from there arrives. The folder of the state is shared by the file system, which
isn't cut.

Calls come in without a pause, from first to last. Each case begins with a generation of three processes that publishes, cuts
something, and measures how long it takes until a tick is published that is younger than the cut. Then the cut is healed, and
all processes are asked to end, which they must do with exit code 0. In the end one more life reads all calls. Then

1. no `keytide-id` came twice to a reader of committed records, and each record of progress has the count and the sum of the
   ids of its tick's rows, and their numbers have no gap;
2. the last rows of `usage` are those of a recount of all calls, by key, minute and hour.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROCESSES = (1, 2, 3)
KAFKA_HOST = "10.77.2.1"
NETS = {"links": "10.77.1", "kafka": "10.77.2", "watch": "10.77.3"}
TOKEN = "token-of-this-program-and-of-nothing-else"
# An address of the range for local use, which no interface here has.
NOBODY = "02:00:00:00:00:99"
PREFIX, CALLS = "cut", "cut-calls"
DEAD_AFTER_S, SETTLE_S = 6, 2
# cluster.dead_after to notice. If the one that is cut off claims the next generation first, settle and dead_after until the
# others don't wait for it any more, and 5 s for attempts to reach it. Then settle for those that don't come, and 9 s for the
# new run of each program, its checkpoint and the ticks since.
BOUND_S = 2 * DEAD_AFTER_S + 2 * SETTLE_S + 14
# If two of three are cut off from each other, the third one may lead first, in vain: another dead_after, and a new run.
PAIR_BOUND_S = BOUND_S + DEAD_AFTER_S + 6
# A generation that began short ends for a process that waits after 5 minutes, at its next checkpoint.
RETURN_BOUND_S = 300 + 60
RATE, KEYS = 200, 40
CONFIG = """
[job]
name = "cut"
tick = "200ms"
workers = 1
[keys]
from = ["key"]
hash = "none"
[[source]]
name = "calls"
kind = "kafka"
brokers = "{brokers}"
topic = "{calls}"
format = "json"
[source.fields]
request_id = "/id"
time = {{ at = "/t", unit = "ms" }}
key = "/k"
route = "/route"
status = "/status"
[sink.kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 3
replication = 1
[http]
listen = "127.0.0.1:1"
token = "env:TOKEN"
[state]
url = "state"
shared = true
checkpoint_every = "2s"
[cluster]
listen = "127.0.0.1:1"
processes = 3
min_processes = 2
settle = "{settle}s"
dead_after = "{dead_after}s"
secret = "env:SECRET"
"""


def fail(why: str) -> None:
    sys.exit(f"partition: {why}")


def run(*command: str, at: int | None = None) -> None:
    """Runs a command that has to succeed, in the network namespace of the process with the PID `at`."""
    entered = ["nsenter", f"--net=/proc/{at}/ns/net"] if at else []
    done = subprocess.run([*entered, *command], capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(command)}: {done.stderr.strip()}")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# -- Namespaces -------------------------------------------------------------------------------------------------------


def enter(arguments: list[str]) -> None:
    """Begins anew: first in the namespace of the hub, then with Kafka in it."""
    stage = os.environ.get("KEYTIDE_PARTITION")
    this = [sys.executable, str(Path(__file__).resolve()), *arguments]
    if stage is None:
        for tool in ("unshare", "nsenter", "ip"):
            if not shutil.which(tool):
                fail(f"{tool} is missing; iproute2 and util-linux are needed")
        tried = subprocess.run(["unshare", "--net", "ip", "link", "add", "type", "bridge"], capture_output=True, text=True)
        if tried.returncode != 0:
            reason = tried.stderr.strip() or f"exit code {tried.returncode}"
            fail(f"no network namespace with a bridge can be made here ({reason}): it takes root, or CAP_SYS_ADMIN and CAP_NET_ADMIN")
        os.execvpe("unshare", ["unshare", "--net", *this], os.environ | {"KEYTIDE_PARTITION": "hub"})
    if stage == "hub":
        run("ip", "link", "set", "lo", "up")
        for net, address in NETS.items():
            run("ip", "link", "add", f"br-{net}", "type", "bridge")
            # Only Kafka and this program have an address here. No process reaches another one but by `links`.
            if net != "links":
                run("ip", "address", "add", f"{address}.1/24", "dev", f"br-{net}")
            run("ip", "link", "set", f"br-{net}", "up")
        kafka = str(HERE.parent / "kafka" / "run.sh")
        more = {"KEYTIDE_PARTITION": "kafka", "KEYTIDE_KAFKA_HOST": KAFKA_HOST}
        os.execvpe(kafka, [kafka, "run", *this], os.environ | more)


class Node:
    """A machine with one process: a network namespace, held by a process that sleeps."""

    def __init__(self, number: int):
        self.number = number
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        # The holder is in its namespace once it has become `sleep`.
        comm = Path(f"/proc/{self.holder.pid}/comm")
        while comm.read_text().strip() != "sleep":
            time.sleep(0.01)
        run("ip", "link", "set", "lo", "up", at=self.holder.pid)
        for net, address in NETS.items():
            ours, theirs = f"{net}{number}", f"eth-{net}"
            run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", str(self.holder.pid))
            run("ip", "link", "set", ours, "master", f"br-{net}", "up")
            run("ip", "address", "add", f"{address}.1{number}/24", "dev", theirs, at=self.holder.pid)
            run("ip", "link", "set", theirs, "up", at=self.holder.pid)

    def address(self, net: str) -> str:
        return f"{NETS[net]}.1{self.number}"

    def cut(self, net: str) -> None:
        run("ip", "link", "set", f"{net}{self.number}", "down")

    def mute(self, net: str, to: str) -> None:
        """Lets everything be lost that goes to an address."""
        neighbour = [to, "lladdr", NOBODY, "dev", f"eth-{net}", "nud", "permanent"]
        run("ip", "neigh", "replace", *neighbour, at=self.holder.pid)

    def heal(self) -> None:
        for net in NETS:
            run("ip", "link", "set", f"{net}{self.number}", "up")
            # A permanent entry stays until it is deleted. The next packet asks for the right one.
            run("ip", "neigh", "flush", "nud", "permanent", "dev", f"eth-{net}", at=self.holder.pid)

    def end(self) -> None:
        self.holder.kill()
        self.holder.wait()


# -- Calls ------------------------------------------------------------------------------------------------------------


class Traffic(threading.Thread):
    """Sends calls through one of Kafka's own producers, and counts them by key, window and kind."""

    def __init__(self, control: str):
        super().__init__(daemon=True)
        command = [control, "console-producer", "--topic", CALLS, "--producer-property", "acks=all"]
        command += ["--producer-property", "linger.ms=20"]
        self.producer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.random, self.enough = random.Random(1), threading.Event()
        self.sent, self.owed = 0, collections.Counter()

    def run(self) -> None:
        began = time.monotonic()
        while not self.enough.is_set():
            due = int((time.monotonic() - began) * RATE)
            while self.sent < due:
                self.call()
            self.producer.stdin.flush()
            time.sleep(0.02)
        self.producer.stdin.close()
        self.producer.wait()

    def call(self) -> None:
        self.sent += 1
        at, key = now_ms() - self.random.randrange(2_000), f"k{self.random.randrange(KEYS)}"
        status = self.random.choice((200, 200, 200, 404, 503))
        record = {"id": f"{self.random.getrandbits(64):016x}", "t": at, "k": key, "route": "/r", "status": status}
        self.producer.stdin.write(json.dumps(record) + "\n")
        start = datetime.fromtimestamp(at / 1_000, timezone.utc)
        for window, text in (("1m", "%Y-%m-%dT%H:%M:00Z"), ("1h", "%Y-%m-%dT%H:00:00Z")):
            group = (key, window, start.strftime(text))
            self.owed[group, "calls"] += 1
            self.owed[group, "errors_4xx"] += status == 404
            self.owed[group, "errors_5xx"] += status == 503

    def end(self) -> None:
        self.enough.set()
        self.join()


# -- The job ----------------------------------------------------------------------------------------------------------


class Process:
    def __init__(self, program: Path, folder: Path, node: Node):
        self.node, self.log = node, folder / f"process-{node.number}.log"
        more = {
            "SECRET": "a secret of this program, and of nothing else",
            "TOKEN": TOKEN,
            "KEYTIDE_CLUSTER__LISTEN": f"{node.address('links')}:9465",
            "KEYTIDE_HTTP__LISTEN": f"{node.address('watch')}:9464",
        }
        command = ["nsenter", f"--net=/proc/{node.holder.pid}/ns/net", str(program), "run", str(folder / "keytide.toml")]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, env=os.environ | more, stdout=log, stderr=log)

    def status(self) -> dict:
        page = f"http://{self.node.address('watch')}:9464/status"
        request = urllib.request.Request(page, headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=1) as answer:
                return json.loads(answer.read())
        except (urllib.error.URLError, OSError, ValueError):
            return {}


def published_ms(status: dict) -> int:
    tick = status.get("published_tick")
    return int(datetime.fromisoformat(tick).timestamp() * 1_000) if tick else 0


class Job:
    def __init__(self, program: Path, folder: Path, brokers: str):
        self.program, self.folder = program, folder
        text = CONFIG.format(brokers=brokers, calls=CALLS, prefix=PREFIX, settle=SETTLE_S, dead_after=DEAD_AFTER_S)
        (folder / "keytide.toml").write_text(text)
        self.nodes = [Node(number) for number in PROCESSES]
        self.processes: list[Process] = []

    def start(self) -> None:
        self.processes = [Process(self.program, self.folder, node) for node in self.nodes]
        began = now_ms()
        self.until("three processes publish", 60, lambda: self.publishes(began, 3))

    def statuses(self) -> list[dict]:
        return [process.status() for process in self.processes]

    def publishes(self, since_ms: int, members: int, besides: int = 0) -> int | None:
        """Returns the generation of so many processes that has published a tick of after `since_ms`, if there is one. It
        isn't `besides`."""
        for status in self.statuses():
            is_new = published_ms(status) > since_ms and status.get("generation") != besides
            if status.get("leads") and is_new and len(status.get("processes", [])) == members:
                return status["generation"]
        return None

    def until(self, what: str, seconds: float, condition):
        """Waits until a condition holds. Returns its value and the seconds that it took."""
        began = time.monotonic()
        while not (value := condition()):
            for process in self.processes:
                if process.process.poll() is not None:
                    self.fail(f"process {process.node.number} ended by itself, with {process.process.returncode}")
            if time.monotonic() - began > seconds:
                self.fail(f"{what}: not within {seconds:.0f} s; /status: {json.dumps(self.statuses())}")
            time.sleep(0.05)
        return value, time.monotonic() - began

    def fail(self, why: str) -> None:
        for process in self.processes:
            lines = process.log.read_text().splitlines()[-25:]
            print(f"-- process {process.node.number}", *lines, sep="\n", file=sys.stderr)
        fail(why)

    def leader(self) -> int:
        found, _ = self.until("a leader", 30, lambda: [n for n, of in enumerate(self.statuses()) if of.get("leads")])
        return found[0]

    def waits(self, process: int) -> str | None:
        return self.processes[process].status().get("waits_for")

    def stop(self) -> float:
        """Asks all processes to end. Returns the seconds that it took."""
        began = time.monotonic()
        for process in self.processes:
            process.process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                code = process.process.wait(60)
            except subprocess.TimeoutExpired:
                self.fail(f"process {process.node.number} doesn't end within 60 s after SIGTERM")
            if code != 0:
                self.fail(f"process {process.node.number} ends with {code} after SIGTERM")
        return time.monotonic() - began

    def end(self) -> None:
        for process in self.processes:
            process.process.kill()
            process.process.wait()
        for node in self.nodes:
            node.end()


# -- Cases ------------------------------------------------------------------------------------------------------------


class Case:
    """What a case cuts, of the process that leads, one that follows and the other one, and what has to come of it."""

    def __init__(
        self, says: str, cut, members: int | None = 2, lost: str | None = "follower", hold: float = 0, bound: float = BOUND_S
    ):
        # `members` is the number of processes that go on; None if the generation does, which was cut for `hold` seconds.
        # `lost` is the process that takes no part until the cut is healed: leader, follower, either of both, or any.
        self.says, self.cut, self.members, self.lost, self.hold, self.bound = says, cut, members, lost, hold, bound


def leader_alone(leader: Node, *_: Node) -> None:
    leader.cut("links")


def leader_away(leader: Node, *_: Node) -> None:
    leader.cut("links")
    leader.cut("kafka")


def follower_away(_: Node, follower: Node, __: Node) -> None:
    follower.cut("links")
    follower.cut("kafka")


def followers_apart(_: Node, follower: Node, other: Node) -> None:
    follower.mute("links", other.address("links"))
    other.mute("links", follower.address("links"))


CASES = {
    "brief": Case("a follower is cut off for 2 s", lambda _, follower, __: follower.cut("links"), None, None, 2),
    "follower": Case("a follower is cut off from the others", lambda _, follower, __: follower.cut("links")),
    "follower-away": Case("a follower is cut off from everything", follower_away),
    "leader": Case("the leader is cut off from the others, not from Kafka", leader_alone, lost="leader"),
    "leader-away": Case("the leader is cut off from everything", leader_away, lost="leader"),
    "to-leader": Case(
        "what a follower sends to the leader is lost", lambda leader, follower, _: follower.mute("links", leader.address("links")),
        lost="either",
        bound=PAIR_BOUND_S,
    ),
    "from-leader": Case(
        "what the leader sends to a follower is lost", lambda leader, follower, _: leader.mute("links", follower.address("links")),
        lost="either",
        bound=PAIR_BOUND_S,
    ),
    "from-leader-to-all": Case(
        "what the leader sends to the others is lost",
        lambda leader, *others: [leader.mute("links", other.address("links")) for other in others],
        lost="leader",
    ),
    "between-followers": Case(
        "two that follow are cut off from each other, not from the leader", followers_apart, lost="any",
        bound=PAIR_BOUND_S,
    ),
    "to-kafka": Case(
        "what the leader sends to Kafka is lost for 20 s, and the job waits",
        lambda leader, *_: leader.mute("kafka", KAFKA_HOST), None, None, 20,
    ),
    "return": Case("a follower is cut off, and comes back", lambda _, follower, __: follower.cut("links")),
}  # fmt: skip


def play(name: str, job: Job) -> None:
    case = CASES[name]
    job.start()
    leader = job.leader()
    generation = job.processes[leader].status()["generation"]
    follower, other = [number for number in range(3) if number != leader]
    case.cut(job.nodes[leader], job.nodes[follower], job.nodes[other])
    cut_at = now_ms()
    if case.members is None:
        time.sleep(case.hold)
        for node in job.nodes:
            node.heal()
        # A tick that was cut after the network was whole again.
        whole_at = now_ms()
        found, took = job.until("the job goes on", BOUND_S, lambda: job.publishes(whole_at, 3))
        what = "the same generation" if found == generation else f"generation {found} after {generation}"
        line = f"{took:5.1f} s after it was healed to a new tick, {what}"
    else:
        found, _ = job.until("the job goes on", case.bound, lambda: job.publishes(cut_at, case.members, generation))
        line = f"{(now_ms() - cut_at) / 1_000:5.1f} s to a new tick, of {case.members} processes"
        lost = {"leader": [leader], "follower": [follower], "either": [leader, follower], "any": range(3)}[case.lost]
        waits = lambda: next((why for of in lost if (why := job.waits(of))), None)
        why, _ = job.until("the one that was cut off waits", BOUND_S, waits)
        # Nothing that it does may end the generation of the others.
        until = time.monotonic() + 2 * DEAD_AFTER_S
        job.until("the others go on", 60, lambda: time.monotonic() > until)
        if not job.publishes(now_ms() - 5_000, case.members):
            job.fail("the others don't go on beside one that is cut off")
        if (after := job.publishes(0, case.members)) != found:
            job.fail(f"generation {found} became {after} while one was cut off")
        line += f"; the one that is cut off waits for {why}"
        for node in job.nodes:
            node.heal()
        if name == "return":
            healed_at = now_ms()
            job.until("it takes part again", RETURN_BOUND_S, lambda: job.publishes(healed_at, 3))
            line += f"; {(now_ms() - healed_at) / 1_000:5.1f} s until it takes part again"
        else:
            # One that nobody reaches can't be told to end with the others, but ends by itself all the same.
            job.until("they go on", BOUND_S, lambda: job.publishes(now_ms() - 2_000, case.members))
    line += f"; {job.stop():.1f} s to the end of all"
    print(f"{name}: {case.says}: {line}", flush=True)


# -- The judge --------------------------------------------------------------------------------------------------------


def records(control: str, topics: str):
    """Returns the committed records of topics from their beginning: topic, headers, key, value."""
    show = ["print.key=true", "print.headers=true", "print.timestamp=false", "null.literal=null", "headers.separator=,"]
    command = [control, "console-consumer", "--include", topics, "--from-beginning", "--timeout-ms", "15000"]
    command += ["--consumer-property", "isolation.level=read_committed", "--consumer-property", "fetch.max.wait.ms=100"]
    for each in show:
        command += ["--property", each]
    done = subprocess.run(command, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        headers, key, value = line.split("\t", 2)
        yield dict(header.split(":", 1) for header in headers.split(",") if ":" in header), key, value


def judge(control: str, owed: collections.Counter) -> str:
    """Ends this program if a row is lost, came twice or is wrong."""
    ids, of_tick, wrong = set(), collections.defaultdict(lambda: [0, 0]), []
    usage: dict[tuple, dict] = {}
    for headers, _, value in records(control, rf"{PREFIX}\.(?!progress\.).*"):
        row_id = int(headers["keytide-id"], 16)
        if row_id in ids:
            wrong.append(f"id {row_id:032x} came twice")
        ids.add(row_id)
        counted = of_tick[int(headers["keytide-tick"])]
        counted[0], counted[1] = counted[0] + 1, (counted[1] + row_id) % (1 << 128)
        row = json.loads(value) if value != "null" else None
        if row and "errors_5xx" in row and "key_id" in row and "route" not in row:
            group = (row["key_id"], row["window"], row["window_start"])
            # Rows of a key come in the order of their ticks, and the ticks of a partition ascend.
            usage[group] = row
    progress = {}
    for _, _, value in records(control, rf"{PREFIX}\.progress\..*"):
        record = json.loads(value)
        if record.get("record") == "tick":
            progress[record["number"]] = record
    # 1. Each tick's rows are there once.
    numbers = sorted(progress)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        wrong.append("the numbers of ticks have gaps")
    for record in progress.values():
        found = of_tick.pop(record["tick"], [0, 0])
        if (record["count"], int(record["digest"], 16)) != tuple(found):
            wrong.append(f"tick {record['number']} has {found[0]} rows of {record['count']}")
    # Records of progress of the first ticks are compacted away.
    oldest = progress[numbers[0]]["tick"]
    wrong += [f"tick {tick} has rows and no record of progress" for tick in of_tick if tick >= oldest]
    # 2. Rows of windows are those of a recount.
    for (group, column), count in owed.items():
        found = usage.get(group, {}).get(column)
        if group[1] in ("1m", "1h") and found != count and (count or found):
            wrong.append(f"{group} has {found} {column}, owed are {count}")
    for group in usage:
        if group[1] in ("1m", "1h") and (group, "calls") not in owed:
            wrong.append(f"{group} is owed nothing")
    if wrong:
        fail(f"{len(wrong)} findings, of which the first are:\n" + "\n".join(wrong[:20]))
    windows = sum(1 for (group, column) in owed if column == "calls")
    return f"{len(ids)} rows of {len(numbers)} ticks, {windows} windows of usage: 0 lost, 0 repeated, 0 wrong"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--keytide", type=Path, required=True)
    arguments.add_argument("cases", nargs="*", metavar="CASE", help=f"all but `return` if none is named: {', '.join(CASES)}")
    options = arguments.parse_args()
    cases = options.cases or [name for name in CASES if name != "return"]
    if unknown := set(cases) - set(CASES):
        arguments.error(f"there is no case {', '.join(unknown)}")
    enter(["--keytide", str(options.keytide.resolve()), *cases])

    control, brokers = os.environ["KEYTIDE_TEST_KAFKA"], os.environ["KEYTIDE_TEST_BROKERS"]
    create = [control, "topic", "--create", "--topic", CALLS, "--partitions", "4"]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = Job(options.keytide.resolve(), folder, brokers)
        traffic = Traffic(control)
        try:
            traffic.start()
            for case in cases:
                play(case, job)
            traffic.end()
            # Rows of an hour are published at most 30 s after a change.
            job.start()
            read = lambda: all(of.get("lag_records") == 0 for of in job.statuses())
            job.until("all calls are read", 60, read)
            until = time.monotonic() + 40
            job.until("the last rows", 60, lambda: time.monotonic() > until)
            job.stop()
            print(f"{traffic.sent} calls: {judge(control, traffic.owed)}", flush=True)
        finally:
            traffic.enough.set()
            job.end()


main()
