"""Keytide beside DuckDB and Flink, at a task that all three can do. run.sh calls this.

The input is a log of calls (`keytide generate`, 20,000 keys, an hour of event time). The output of each is

    usage      key and minute          calls, errors (4xx and 5xx without 499)
    latency    key and five minutes    calls, 99th percentile of the latency, by nearest rank
    callers    key and day             distinct addresses

in JSON lines, with a key's id (of SHA-256) instead of the key, and with each repeated record counted once. Whole processes
are measured in turns, from start to exit. After each round the rows of all three are compared: counts and addresses must
be equal, percentiles of DuckDB and Flink too. Keytide's may be off by 0.8 %, as its histograms are.

Keytide is measured twice: as it is, and without its detector. It always makes its other views as well. With --stream the
same calls are in a topic. Keytide and Flink read it to its end, and DuckDB has no part in it.
"""

import argparse
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import duckdb

HERE = Path(__file__).resolve().parent
TOPIC = "calls"
# Flink's serializers look into classes of these packages.
OPENED = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.lang", "java.util", "java.time")]

arguments = argparse.ArgumentParser()
arguments.add_argument("--keytide", type=Path, required=True)
arguments.add_argument("--flink", type=Path, required=True, help="folder with jars and classes")
arguments.add_argument("--work", type=Path, required=True, help="folder for the input and all output")
arguments.add_argument("--events", type=int, default=2_000_000)
arguments.add_argument("--rounds", type=int, default=5)
arguments.add_argument("--heap", default="4g", help="what Flink's process may take for its objects")
arguments.add_argument("--stream", action="store_true", help="of a topic; to be run by tests/kafka/run.sh run")
options = arguments.parse_args()
cores = len(os.sched_getaffinity(0))


def configured(name: str, more: str) -> Path:
    """Writes a configuration beside the generated one, with other sections appended to it."""
    text = (world / "keytide.toml").read_text()
    # Distinct addresses are exact without a limit in DuckDB and Flink.
    path = world / f"{name}.toml"
    path.write_text(f"{text}\n[limits]\ncallers_exact = 1048576\n{more}")
    return path


def flink(out: Path) -> list[str]:
    source = f"{brokers}/{TOPIC}" if options.stream else str(world / "events.jsonl")
    classes = f"{options.flink}/classes:{options.flink}/jars/*"
    return ["java", f"-Xmx{options.heap}", *OPENED, "-cp", classes, "Beside", source, str(out), str(cores)]


def keytide(config: Path, out: Path) -> list[str]:
    return [str(options.keytide), "replay", str(config), "--out", str(out), "--workers", str(cores), "--quiet"]


def measure(name: str, command: list[str]) -> dict[str, float]:
    """Runs a process to its end, and returns seconds by the clock, seconds of CPU, and the peak of resident MiB."""
    log = options.work / f"{name}.log"
    with log.open("wb") as to:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=to, stderr=to)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{name} ended with {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}")
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}


def compare(outs: dict[str, Path]) -> str:
    """Ends the program unless all have the same rows; returns how many there are."""
    database = duckdb.connect()
    for name, out in outs.items():
        for view, columns in {"usage": "calls, errors", "latency": "calls, p99_us", "callers": "callers"}.items():
            if name == "Keytide":
                length = {"usage": "1m", "latency": "5m", "callers": "1d"}[view]
                which = f"\"window\" = '{length}'" + ("" if view == "usage" else " AND scope = 'key'")
                columns = columns.replace("errors", "errors_4xx + errors_5xx AS errors")
                select = f"""
                    SELECT {'key_id' if view == 'usage' else 'id AS key_id'},
                        CAST(epoch(CAST(window_start AS TIMESTAMP)) AS BIGINT) AS window_start, {columns}
                    FROM read_json('{out}/{view}.jsonl', format = 'newline_delimited') WHERE {which}"""
            else:
                files = out / view / "*" if name == "Flink" else out / f"{view}.jsonl"
                select = f"""
                    SELECT key_id, window_start, {columns} FROM read_json('{files}', format = 'newline_delimited')"""
            database.execute(f"CREATE TABLE {name}_{view} AS {select}")

    counts = []
    first, *others = outs
    for view, exact in {"usage": "calls, errors", "latency": "calls", "callers": "callers"}.items():
        rows = database.execute(f"SELECT count(*) FROM {first}_{view}").fetchone()[0]
        counts.append(f"{rows:,} of {view}")
        for other in others:
            same = f"SELECT key_id, window_start, {exact} FROM"
            differing = sum(
                database.execute(f"SELECT count(*) FROM ({same} {a}_{view} EXCEPT {same} {b}_{view})").fetchone()[0]
                for a, b in ((first, other), (other, first))
            )
            if differing or not rows:
                sys.exit(f"{first} and {other}: {differing} rows of {view} differ, of {rows}")
    for other in others:
        tolerance = 0.008 if "Keytide" in (first, other) else 0
        far = database.execute(
            f"""
            SELECT count(*) FROM {first}_latency JOIN {other}_latency AS other USING (key_id, window_start)
            WHERE abs({first}_latency.p99_us - other.p99_us) > {tolerance} * greatest({first}_latency.p99_us, other.p99_us) + 1
            """
        ).fetchone()[0]
        if far:
            sys.exit(f"{first} and {other}: {far} percentiles differ by more than {tolerance}")
    return ", ".join(counts)


world = options.work / "world"
brokers = os.environ.get("KEYTIDE_TEST_BROKERS", "")
generated = ["--keys", "20000", "--events", str(options.events), "--span", "60m", "--seed", "1"]
if options.stream:
    if not brokers:
        sys.exit("--stream needs a broker: tests/kafka/run.sh run benches/beside/run.sh --stream")
    control = os.environ["KEYTIDE_TEST_KAFKA"]
    topic = ["topic", "--create", "--topic", TOPIC, "--partitions", "4"]
    subprocess.run([control, *topic], check=True, stdout=subprocess.DEVNULL)
    generated += ["--kafka", brokers, "--topic", TOPIC]
subprocess.run(
    [str(options.keytide), "generate", "--out", str(world), *generated], check=True, stdout=subprocess.DEVNULL
)

full = configured("full", "")
meters = configured("meters", "\n[detection]\nenabled = false\n")
entrants = {
    "Keytide": lambda out: keytide(full, out),
    "Keytide, no detector": lambda out: keytide(meters, out),
    "Flink": flink,
}
if not options.stream:
    entrants["DuckDB"] = lambda out: [
        sys.executable, str(HERE / "in_duckdb.py"), str(world / "events.jsonl"), str(out), str(cores)
    ]

results: dict[str, list[dict[str, float]]] = {name: [] for name in entrants}
for number in range(options.rounds):
    outs = {}
    # Each is first in some rounds, so that a machine that warms up or slows down favours none.
    order = list(entrants)[number % len(entrants) :] + list(entrants)[: number % len(entrants)]
    for name in order:
        out = options.work / name.replace(",", "").replace(" ", "-")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        result = measure(out.name, entrants[name](out))
        results[name].append(result)
        print(f"{number + 1}  {name:22} {result['wall']:7.2f} s  {result['cpu']:7.2f} s of CPU  {result['mib']:6.0f} MiB",
              f" load {os.getloadavg()[0]:.1f}", flush=True)
        if name != "Keytide, no detector":
            outs[name] = out
    rows = compare(outs)

print(f"\n{datetime.date.today()}, {cores} cores, {options.events:,} calls, {options.rounds} rounds, medians; rows: {rows}")
for name, rounds in results.items():
    middle = {column: statistics.median(result[column] for result in rounds) for column in rounds[0]}
    least, most = (f(result["wall"] for result in rounds) for f in (min, max))
    print(f"{name:22} {middle['wall']:7.2f} s ({least:.2f} to {most:.2f})  {options.events / middle['wall'] / 1e6:5.2f} M calls/s",
          f" {middle['cpu']:7.2f} s of CPU  {middle['mib']:6.0f} MiB")
