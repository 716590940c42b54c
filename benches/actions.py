"""Measures actions on keys: from the tick that asks for one to the gateway's answer, and from there to the row. Linux, Python 3.11.

    tests/kafka/run.sh run python3 benches/actions.py --keytide PROGRAM --keys 10000 --actions 200

A job with ticks of 1 s and a stand-in of Kong that answers at once. All keys make one call. When the minute after that is over
all of them are reported as leaked at once. A line says how many were asked of the gateway, by a policy that lets pass 10
keys an hour, how many are held, and the memory of the job before and --settle seconds after. Then
--actions of those that are held are approved, one each 0.7 s or so. The job's reply comes once the tick is committed that requests
the action, and then the action is looked at every 10 ms. A line says how long after the reply the gateway answered the
change, and another how long after that the action was shown as done, which it is once that tick is committed. The last one
says how many mails there were.
"""

import argparse
import hashlib
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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

arguments = argparse.ArgumentParser()
arguments.add_argument("--keytide", type=Path, required=True)
arguments.add_argument("--keys", type=int, default=10_000)
arguments.add_argument("--actions", type=int, default=200, help="how many are approved, at most 900")
arguments.add_argument("--settle", type=int, default=60, help="seconds until the memory is looked at")
options = arguments.parse_args()

brokers = os.environ["KEYTIDE_TEST_BROKERS"]
control = os.environ["KEYTIDE_TEST_KAFKA"]
TOPIC = "action-calls"
TOKEN = "the-token-of-a-measurement"
CONFIG = """
[job]
name = "actions"
tick = "1s"
reload = "1s"
[keys]
from = ["key"]
hash = "sha256"
[[source]]
name = "calls"
kind = "kafka"
brokers = "{brokers}"
topic = "{topic}"
format = "json"
[source.fields]
request_id = "/id"
time = {{ at = "/t", unit = "ms" }}
key = "/k"
route = "/route"
status = "/status"
client_ip = "/ip"
[tables.keys]
kind = "file"
path = "keys.csv"
format = "csv"
[tables.subscriptions]
kind = "file"
path = "subscriptions.csv"
format = "csv"
[tables.plans]
kind = "file"
path = "plans.csv"
format = "csv"
[tables.leaks]
kind = "file"
path = "leaks.csv"
format = "csv"
[sink.files]
dir = "views"
[state]
url = "state"
[alerts.email]
dir = "mails"
from = "keytide@localhost"
to = ["security@localhost"]
[alerts.policy]
keys_per_hour = 10
percent_per_hour = 100
[[gateway]]
name = "edge"
kind = "kong"
url = "http://127.0.0.1:{gateway}"
allow_private = ["127.0.0.1"]
mode = "live"
probation = false
[http]
listen = "127.0.0.1:{http}"
[http.people]
alice = "file:token"
"""


class Gateway(BaseHTTPRequestHandler):
    """A Kong whose credentials have the ids of their keys' numbers. It keeps when each change was answered."""

    keys: dict[str, str] = {}
    answered: dict[str, float] = {}

    def reply(self, body: dict) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        credential = self.path.rpartition("/")[2]
        self.reply({"id": credential, "key": self.keys[credential]})

    def do_PATCH(self) -> None:
        credential = self.path.rpartition("/")[2]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.keys[credential] = body["key"]
        self.reply({"id": credential, "key": body["key"]})
        self.answered[credential] = time.monotonic()

    def log_message(self, *_) -> None:
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def key_hash(number: int) -> str:
    return hashlib.sha256(f"key-{number}".encode()).hexdigest()


class Job:
    """The job."""

    def __init__(self, folder: Path, gateway: int):
        self.folder, self.port = folder, free_port()
        (folder / "token").write_text(TOKEN)
        rows = "".join(f"{key_hash(number)},sub,user-{number},{number}\n" for number in range(options.keys))
        (folder / "keys.csv").write_text("key_hash,subscription,consumer,credential\n" + rows)
        (folder / "subscriptions.csv").write_text("id,customer,plan\nsub,Acme,gold\n")
        (folder / "plans.csv").write_text("id,name,policy\ngold,Gold,suspend\n")
        self.leak(range(0))
        config = CONFIG.format(brokers=brokers, topic=TOPIC, gateway=gateway, http=self.port)
        (folder / "keytide.toml").write_text(config)
        with open(folder / "log", "w") as log:
            self.process = subprocess.Popen([options.keytide, "run", folder / "keytide.toml"], stderr=log)

    def leak(self, numbers) -> None:
        rows = "".join(f"key-{number},scanner,https://git.example/x\n" for number in numbers)
        (self.folder / "leaks.part").write_text("token,source,url\n" + rows)
        (self.folder / "leaks.part").rename(self.folder / "leaks.csv")

    def ask(self, page: str, body: dict | None = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{page}", data)
        request.add_header("Authorization", "Bearer " + TOKEN)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return ""

    def metric(self, name: str) -> float | None:
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", self.ask("/metrics"), re.MULTILINE)
        return sum(map(float, values)) if values else None

    def held(self) -> int:
        found = re.search(r'^keytide_actions\{state="held"\} (\d+)', self.ask("/metrics"), re.MULTILINE)
        return int(found[1]) if found else 0

    def memory(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def wait(self, what: str, condition, seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > until:
                print((self.folder / "log").read_text()[-3_000:], file=sys.stderr)
                sys.exit(f"{what}: it never came")
            time.sleep(0.05)


def produce() -> None:
    now = int(time.time() * 1000)
    line = '{{"id":"r{0}","t":{1},"k":"key-{0}","route":"/r","status":200,"ip":"192.0.2.1"}}\n'
    lines = "".join(line.format(number, now) for number in range(options.keys))
    command = [control, "console-producer", "--topic", TOPIC]
    subprocess.run(command, input=lines.encode(), check=True, stdout=subprocess.DEVNULL)


def told(what: str, taken: list[float], target: str) -> None:
    taken = sorted(taken)
    at = lambda share: taken[min(len(taken) - 1, int(share * len(taken)))]
    print(f"{what}: {len(taken)} times, median {at(0.5):.3f} s, p99 {at(0.99):.3f} s, target {target}", flush=True)


def main() -> None:
    subprocess.run([control, "topic", "--create", "--topic", TOPIC, "--partitions", "1"], check=True, stdout=subprocess.DEVNULL)
    Gateway.keys = {str(number): f"key-{number}" for number in range(options.keys)}
    gateway = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), gateway.server_port)
        mails = lambda: len(list((Path(folder) / "mails").glob("*.eml")))
        try:
            job.wait("the job", lambda: job.metric("keytide_ticks_total"))
            produce()
            job.wait("all calls", lambda: (job.metric("keytide_events_total") or 0) >= options.keys)
            # Keys are in use once the minute of their calls is closed, and the next one says so.
            time.sleep(130)
            before = job.memory()
            job.leak(range(options.keys))
            decided = lambda: job.held() + (job.metric("keytide_denied_keys") or 0) >= options.keys
            job.wait("all actions", decided)
            time.sleep(options.settle)
            print(
                f"{options.keys} keys at once: {len(Gateway.answered)} asked of the gateway, {job.held()} held;"
                f" {before:.0f} MiB before, {job.memory():.0f} MiB after",
                flush=True,
            )
            # The list shows the newest 1,000, those that are held first.
            rows = [row for row in json.loads(job.ask("/v1/actions"))["actions"] if row["state"] == "held"]
            numbers = {key_hash(number)[:32]: str(number) for number in range(options.keys)}
            draw, to_answer, to_row = random.Random(1), [], []
            for row in rows[: options.actions]:
                time.sleep(draw.uniform(0.2, 1.2))
                page, number = "/v1/actions/" + row["action_id"], numbers[row["key_id"]]
                if not job.ask(page + "/approve", {"why": "a measurement"}):
                    sys.exit("an approval was refused")
                committed = time.monotonic()
                while json.loads(job.ask(page))["state"] != "done":
                    time.sleep(0.01)
                shown = time.monotonic()
                # The answer may come before the reply.
                to_answer.append(max(0.0, Gateway.answered[number] - committed))
                to_row.append(shown - Gateway.answered[number])
            told("from the committed tick to the gateway's answer", to_answer, "1 s")
            told("from the answer to the committed row", to_row, "2.5 s")
            print(f"{mails()} mails, {job.memory():.0f} MiB at the end", flush=True)
        finally:
            job.process.send_signal(signal.SIGTERM)
            job.process.wait()


main()
