"""Measures what several processes cost and how fast they get over a loss. Linux, Python 3.11 or newer.

    tests/kafka/run.sh run python3 benches/cluster.py --keytide PROGRAM --events 1000000 --keys 20000 --rounds 3

Each round reads the same calls with one process of one worker (1x1), one of two (1x2), and two of one (2x1), each with a
state of its own and all views to topics of its own. A line of each says the wall time until no call is unread and
all ticks are committed, and the CPU of its processes, without the broker. With --losses a job of two processes then reads
--rate calls a second, and loses as many: in turns a process that follows and the one that leads is killed and started again,
and frozen for a while. A line says the time from the signal to the first tick that is committed after it. With --idle two
processes cut ticks of 100 ms for so many seconds, with --rate calls a second and then without any: a line says how long
ticks were open after their cut was asked for, and what an empty tick costs a process. Then --strangers connections a second
come to the port of each process meanwhile.
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

arguments = argparse.ArgumentParser()
arguments.add_argument("--keytide", type=Path, required=True)
arguments.add_argument("--events", type=int, default=1_000_000)
arguments.add_argument("--keys", type=int, default=20_000)
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--losses", type=int, default=0)
arguments.add_argument("--rate", type=int, default=1_000, help="calls a second while processes are lost")
arguments.add_argument("--idle", type=int, default=0, help="seconds of ticks of 100 ms")
arguments.add_argument("--strangers", type=int, default=1_000, help="connections a second of strangers with --idle")
options = arguments.parse_args()

brokers = os.environ["KEYTIDE_TEST_BROKERS"]
control = os.environ["KEYTIDE_TEST_KAFKA"]
INPUT = "cluster-calls"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
MORE = """
[sink.kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 4
replication = 1
[http]
listen = "127.0.0.1:1"
[log]
level = "{level}"
[state]
url = "{folder}/state-{prefix}"
shared = true
[cluster]
listen = "127.0.0.1:1"
processes = {processes}
settle = "2s"
dead_after = "10s"
secret = "env:SECRET"
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def generate(*more: str) -> list[str]:
    return [
        str(options.keytide), "generate", "--keys", str(options.keys), "--seed", "1", "--kafka", brokers,
        "--topic", INPUT, "--librdkafka", "compression.type=lz4", *more,
    ]  # fmt: skip


def ask(port: int, page: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=2) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return ""


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Job:
    """The processes of a job."""

    def __init__(self, folder: Path, prefix: str, processes: int, workers: int, level: str = "warn", **more: str):
        self.folder, self.prefix, self.more = folder, prefix, more
        text = (folder / "world" / "keytide.toml").read_text().replace('[sink.files]\ndir = "views"\n', "")
        self.config = folder / "world" / f"{prefix}.toml"
        more = MORE.format(brokers=brokers, prefix=prefix, folder=folder, processes=processes, level=level)
        self.config.write_text(text + more)
        self.workers, self.ports = workers, [tuple(free_ports(2)) for _ in range(processes)]
        self.processes = [self.start(number) for number in range(processes)]

    def start(self, number: int) -> subprocess.Popen:
        http, cluster = self.ports[number]
        environment = os.environ | {
            "SECRET": "a secret of a measurement, and of nothing else",
            "KEYTIDE_HTTP__LISTEN": f"127.0.0.1:{http}",
            "KEYTIDE_CLUSTER__LISTEN": f"127.0.0.1:{cluster}",
            "KEYTIDE_JOB__WORKERS": str(self.workers),
        }
        with open(self.log(number), "a") as log:
            return subprocess.Popen([options.keytide, "run", self.config], env=environment | self.more, stderr=log)

    def log(self, number: int) -> Path:
        return self.folder / f"{self.prefix}-{number}.log"

    def leader(self) -> int | None:
        for number, (http, _) in enumerate(self.ports):
            if (status := ask(http, "/status")) and json.loads(status)["leads"]:
                return number
        return None

    def metric(self, name: str) -> float | None:
        """Returns a metric of the process that leads, summed over its labels."""
        leader = self.leader()
        text = "" if leader is None else ask(self.ports[leader][0], "/metrics")
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values)) if values else None

    def wait(self, what: str, condition, seconds: float = 600) -> float:
        began = time.monotonic()
        while not condition():
            if any(process.poll() is not None for process in self.processes):
                sys.exit(f"a process ended while {what} was waited for")
            if time.monotonic() - began > seconds:
                sys.exit(f"{what}: not within {seconds} s")
            time.sleep(0.02)
        return time.monotonic() - began

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()


def backlog(folder: Path, prefix: str, processes: int, workers: int) -> None:
    job = Job(folder, prefix, processes, workers)
    try:
        # Lags are known only after the first fetch. A few calls of the generator are duplicates, late or broken.
        def is_read() -> bool:
            lag, behind = job.metric("keytide_lag_records"), job.metric("keytide_catching_up")
            return lag == 0 and behind == 0 and (job.metric("keytide_events_total") or 0) > 0.9 * options.events

        took = job.wait("the end of the backlog", is_read)
        spent = sum(cpu(process.pid) for process in job.processes)
        print(f"{processes}x{workers}  {took:6.1f} s  {spent:6.1f} s of CPU", flush=True)
    finally:
        job.stop()


def losses(folder: Path) -> None:
    job = Job(folder, "losses", 2, 1)
    traffic = subprocess.Popen(
        generate("--out", str(folder / "more"), "--start", "now", "--rate", str(options.rate), "--span", "2h"), **QUIET
    )
    draw = random.Random(1)
    try:
        job.wait("the first tick", lambda: (job.metric("keytide_ledger_tick_number") or 0) > 5)
        for number in range(options.losses):
            time.sleep(draw.uniform(2, 8))
            job.wait("a leader", lambda: job.leader() is not None)
            leads, frozen = number % 2 == 1, number % 4 >= 2
            lost = job.leader() if leads else 1 - job.leader()
            before = job.metric("keytide_ledger_tick_number")
            began = time.monotonic()
            if frozen:
                job.processes[lost].send_signal(signal.SIGSTOP)
                # The others notice after cluster.dead_after.
                time.sleep(12)
                job.processes[lost].send_signal(signal.SIGCONT)
            else:
                job.processes[lost].kill()
                job.processes[lost].wait()
                job.processes[lost] = job.start(lost)

            def goes_on() -> bool:
                commits = job.metric("keytide_commits_total") or 0
                return commits > 0 and (job.metric("keytide_ledger_tick_number") or 0) > before

            # The old leader's last answer isn't one of the next generation.
            time.sleep(0.2)
            job.wait("a new tick", goes_on)
            what = "frozen for 12 s" if frozen else "killed"
            who = "the leader" if leads else "a follower"
            print(f"{who} {what}: {time.monotonic() - began:5.1f} s to a new tick", flush=True)
    finally:
        traffic.kill()
        job.stop()


def strangers(ports: list[int], rate: int, until: float) -> int:
    """Connects to ports and sends what no process would; returns how often it was let in by the system."""
    count, began = 0, time.monotonic()
    while time.monotonic() < until:
        ahead = count / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
        try:
            with socket.create_connection(("127.0.0.1", ports[count % len(ports)]), timeout=1) as guest:
                guest.sendall(b"GET / HTTP/1.1\r\n\r\n")
        except OSError:
            pass
        count += 1
    return count


def idle(folder: Path) -> None:
    job = Job(folder, "idle", 2, 1, level="debug", KEYTIDE_JOB__TICK="100ms")
    job.wait("the first tick", lambda: (job.metric("keytide_ledger_tick_number") or 0) > 5)
    closed = re.compile(r"closed a tick after its cut\S* .*us=(\d+)")

    def measure(what: str, meanwhile=None) -> None:
        logs = [job.log(number) for number in range(2)]
        read = [log.stat().st_size for log in logs]
        spent = [cpu(process.pid) for process in job.processes]
        until = time.monotonic() + options.idle
        note = meanwhile(until) if meanwhile else None
        time.sleep(max(0, until - time.monotonic()))
        texts = [log.read_bytes()[at:].decode() for log, at in zip(logs, read)]
        took = sorted(int(us) / 1_000 for text in texts for us in closed.findall(text))
        spent = [(cpu(process.pid) - before) / len(took) * 1_000 for process, before in zip(job.processes, spent)]
        at = lambda share: took[min(len(took) - 1, int(share * len(took)))]
        print(
            f"{what}: {len(took)} ticks, closed {at(0.5):.1f} ms after their cut, p99 {at(0.99):.1f} ms;"
            f" a tick costs {spent[0]:.1f} and {spent[1]:.1f} ms of CPU" + (f"; {note} strangers" if note else ""),
            flush=True,
        )

    traffic = None
    try:
        measure("without calls")
        ports = [cluster for _, cluster in job.ports]
        measure("without calls", lambda until: strangers(ports, options.strangers, until))
        traffic = subprocess.Popen(
            generate("--out", str(folder / "more"), "--start", "now", "--rate", str(options.rate), "--span", "2h"), **QUIET
        )
        time.sleep(5)
        measure(f"{options.rate} calls/s")
        # The handshake of the one that comes back is among those of strangers.
        guests = threading.Thread(target=strangers, args=(ports, options.strangers, time.monotonic() + options.idle))
        guests.start()
        lost = 1 - job.leader()
        job.processes[lost].kill()
        job.processes[lost].wait()
        before = job.metric("keytide_ledger_tick_number") or 0
        job.processes[lost] = job.start(lost)
        took = job.wait("a new tick", lambda: (job.metric("keytide_ledger_tick_number") or 0) > before)
        guests.join()
        print(f"a follower killed among {options.strangers} strangers/s: {took:5.1f} s to a new tick", flush=True)
    finally:
        if traffic:
            traffic.kill()
        job.stop()


def main() -> None:
    subprocess.run(
        [control, "topic", "--create", "--topic", INPUT, "--partitions", "4"], check=True, stdout=subprocess.DEVNULL
    )
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3_600))
        events = ["--events", str(options.events), "--span", "1h", "--start", start]
        subprocess.run(generate("--out", str(folder / "world"), *events), check=True, **QUIET)
        for number in range(options.rounds):
            for processes, workers in ((1, 1), (1, 2), (2, 1)):
                backlog(folder, f"round{number}-{processes}x{workers}", processes, workers)
        if options.losses:
            losses(folder)
        if options.idle:
            idle(folder)


main()
