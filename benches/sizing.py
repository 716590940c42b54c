"""Measures what a live job needs at a rate of calls: the rows of docs/sizing.md. Linux, Python 3.11 or newer.

    tests/kafka/run.sh run python3 benches/sizing.py --keytide PROGRAM --rate 100 --keys 500 --history 49 --minutes 10

The job is as it would be in production: calls from a topic of four partitions, all views to topics, a detector, and a state with
exactly-once delivery. With --history it first reads as many hours of calls before now, at the same rate. Its memory is that
of a job that has run for two days then. After that come calls of this moment, and each minute prints a line:

    cores       CPU of the job's process since the line before
    MiB         resident memory
    state       keytide_state_bytes in all, and those of them that are request ids
    out         records and bytes that the broker acknowledged, before compression, and what the job's topics are on disk
    checkpoint  bytes of the newest one, bytes that were written for all since the line before and how many these were, and how
                long the newest took and paused a worker

With --kill the job is killed at the end and started again; the clock runs from the kill to the first new tick that is committed.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

arguments = argparse.ArgumentParser()
arguments.add_argument("--keytide", type=Path, required=True)
arguments.add_argument("--rate", type=int, required=True, help="calls a second")
arguments.add_argument("--keys", type=int, required=True)
arguments.add_argument("--minutes", type=int, default=10)
arguments.add_argument("--history", type=int, default=0, help="hours of calls before now")
arguments.add_argument("--no-state", action="store_true", help="a job without [state], so at least once")
arguments.add_argument("--kill", action="store_true", help="kill the job at the end, and start it again")
options = arguments.parse_args()

brokers = os.environ["KEYTIDE_TEST_BROKERS"]
control = os.environ["KEYTIDE_TEST_KAFKA"]
NAME = f"sizing-{options.rate}"
INPUT = f"{NAME}-calls"
MIB = 1 << 20

# Behind the configuration that the generator writes for its topic.
MORE = """
[sink.kafka]
brokers = "{brokers}"
prefix = "{name}"
partitions = 4
replication = 1

[http]
listen = "127.0.0.1:{port}"

[log]
level = "warn"
"""


def generate(*more: str) -> list[str]:
    return [
        str(options.keytide), "generate", "--keys", str(options.keys), "--seed", "1", "--kafka", brokers,
        "--topic", INPUT, "--librdkafka", "compression.type=lz4", *more,
    ]  # fmt: skip


def metrics(port: int) -> dict[str, float]:
    """Returns the sum of each metric over its labels, and as `state NAME` the bytes of each state."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return {}
    sums: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(keytide_\w+)(\{.*\})? (\S+)$", text, re.MULTILINE):
        sums[name] = sums.get(name, 0) + float(value)
        if name == "keytide_state_bytes":
            state = re.search(r'state="([^"]*)"', labels)
            key = f"state {state[1] if state else '?'}"
            sums[key] = sums.get(key, 0) + float(value)
    return sums


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def on_disk(folder: Path) -> float:
    """Returns the MiB of the topics out, of the only broker."""
    logs = folder.glob(f"node-1/data/{NAME}.*/*.log")
    return sum(log.stat().st_blocks for log in logs) * 512 / MIB


def main() -> None:
    broker = Path(control).parent
    subprocess.run(
        [control, "topic", "--create", "--topic", INPUT, "--partitions", "4"], check=True, stdout=subprocess.DEVNULL
    )
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        live = ["--start", "now", "--rate", str(options.rate), "--span", f"{options.minutes * 60 + 30}s"]
        world = ["--out", str(folder / "world")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if options.history:
            seconds = options.history * 3600
            start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))
            events = ["--events", str(options.rate * seconds), "--span", f"{seconds}s", "--start", start]
            subprocess.run(generate(*world, *events), check=True, **quiet)
        else:
            # Tables and databases are there before the job is.
            subprocess.run(generate(*world, "--events", "1", "--span", "1s"), check=True, **quiet)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        more = MORE.format(name=NAME, brokers=brokers, port=port)
        if not options.no_state:
            more += f'\n[state]\nurl = "{folder}/state"\n'
        config = folder / "world" / "keytide.toml"
        config.write_text(config.read_text().replace('[sink.files]\ndir = "views"\n', "") + more)
        job = subprocess.Popen([options.keytide, "run", config])
        traffic = None
        try:
            began = time.monotonic()
            while True:
                now = metrics(port)
                if now.get("keytide_ready") == 1 and now.get("keytide_lag_records") == 0:
                    break
                if job.poll() is not None:
                    sys.exit(f"the job ended with {job.returncode}")
                time.sleep(1)
            if options.history:
                print(
                    f"{options.history} h of history, {now['keytide_events_total']:,.0f} calls: read in"
                    f" {time.monotonic() - began:.0f} s with {cpu(job.pid):.0f} s of CPU"
                )
            traffic = subprocess.Popen(generate(*live), **quiet)
            print(f"{options.rate} calls/s of {options.keys} keys, {'no' if options.no_state else 'a'} state")
            before, spent, disk = now, cpu(job.pid), on_disk(broker)
            for minute in range(1, options.minutes + 1):
                time.sleep(60)
                now, spent_now, disk_now = metrics(port), cpu(job.pid), on_disk(broker)
                since = {name: value - before.get(name, 0) for name, value in now.items()}
                print(
                    f"{minute:3} min  {since['keytide_events_total']:9,.0f} calls, lag {now['keytide_lag_records']:.0f}"
                    f"  {(spent_now - spent) / 60:.3f} cores"
                    f"  {now['keytide_process_resident_memory_bytes'] / MIB:5.0f} MiB"
                    f"  state {now['keytide_state_bytes'] / MIB:5.0f} MiB, ids {now.get('state dedupe', 0) / MIB:.1f}"
                    f"  out {since['keytide_sink_records_total']:8,.0f} records"
                    f" {since['keytide_sink_bytes_total'] / MIB:6.1f} MiB, {disk_now - disk:6.1f} on disk"
                    f"  checkpoint {now.get('keytide_checkpoint_bytes', 0) / MIB:.1f} MiB,"
                    f" written {since.get('keytide_checkpoint_written_bytes_total', 0) / MIB:.1f}"
                    f" for {since.get('keytide_checkpoints_total', 0):.0f}"
                    f" in {now.get('keytide_checkpoint_seconds', 0):.2f} s,"
                    f" pause {now.get('keytide_checkpoint_pause_seconds', 0):.3f} s",
                    flush=True,
                )
                before, spent, disk = now, spent_now, disk_now
            parts = sorted(
                ((value, name) for name, value in now.items() if name.startswith("state ")), reverse=True
            )
            print(", ".join(f"{name.removeprefix('state ')} {value / MIB:.1f} MiB" for value, name in parts))
            if options.kill:
                number = metrics(port)["keytide_ledger_tick_number"]
                job.kill()
                job.wait()
                began = time.monotonic()
                job = subprocess.Popen([options.keytide, "run", config])
                while True:
                    now = metrics(port)
                    if now.get("keytide_ledger_tick_number", 0) > number and now.get("keytide_commits_total", 0) > 0:
                        break
                    if job.poll() is not None:
                        sys.exit(f"the job ended with {job.returncode}")
                    time.sleep(0.05)
                print(
                    f"killed: {time.monotonic() - began:.1f} s to a new tick that is committed, with"
                    f" {now['keytide_replayed_ticks_total']:.0f} ticks made again"
                )
        finally:
            for process in filter(None, (traffic, job)):
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.wait()


main()
