"""Runs the servers, sends them the catalogue, and writes logs and expectations. Called by make.sh.

usage: make.py FOLDER OUT      (FOLDER/root holds the unpacked packages; logs are written to FOLDER/run)
"""
import gzip
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import catalogue
from catalogue import CASES, OTHERWISE, VICTIM

HERE = pathlib.Path(__file__).resolve().parent
FOLDER, OUT = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
ROOT, RUN = FOLDER / "root", FOLDER / "run"

# Logs by server; an entry is a log's name, and whether its writer escapes what callers write.
ESCAPES, DOES_NOT = True, False
SERVERS = {
    "nginx": (18080, {"nginx-json": ESCAPES, "nginx-json-default": ESCAPES, "nginx-json-none": DOES_NOT,
                      "nginx-json-unquoted": ESCAPES, "nginx-combined": ESCAPES, "nginx-combined-key": ESCAPES,
                      "nginx-ingress": ESCAPES, "apisix": ESCAPES, "apisix-body": ESCAPES, "kong": ESCAPES}),
    "haproxy-text": (18090, {"haproxy-text": ESCAPES}),
    "haproxy-short": (18091, {"haproxy-short": ESCAPES}),
    "haproxy-json": (18092, {"haproxy-json": DOES_NOT}),
    "haproxy-json-flags": (18093, {"haproxy-json-flags": DOES_NOT}),
    "haproxy-json-converter": (18094, {"haproxy-json-converter": ESCAPES}),
    "apache": (18100, {"apache-combined": ESCAPES, "apache-combined-key": ESCAPES, "apache-json": ESCAPES}),
    "caddy": (18110, {"caddy": ESCAPES}),
}
# Written by the same calls as another log, several records a line.
BATCHES = {"apisix-batch": "apisix", "kong-batch": "kong"}


def render(name):
    text = (HERE / name).read_text()
    for mark, path in (("@ROOT@", ROOT), ("@DIR@", RUN), ("@HERE@", HERE)):
        text = text.replace(mark, str(path))
    (RUN / name).write_text(text)
    return str(RUN / name)


def start():
    """The servers' processes, each once it accepts connections."""
    libraries = ("usr/lib", "lib")
    env = dict(os.environ, LD_LIBRARY_PATH=":".join(str(ROOT / at / "x86_64-linux-gnu") for at in libraries), DIR=str(RUN),
               XDG_DATA_HOME=str(RUN), XDG_CONFIG_HOME=str(RUN))
    commands = {
        18080: [ROOT / "usr/sbin/nginx", "-p", RUN, "-c", render("nginx.conf")],
        18090: [ROOT / "usr/sbin/haproxy", "-db", "-f", render("haproxy.cfg")],
        18100: [ROOT / "usr/sbin/apache2", "-X", "-f", render("apache.conf")],
        18110: [ROOT / "usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", render("Caddyfile")],
    }
    processes = []
    for port, command in commands.items():
        said = open(RUN / f"said-{port}", "wb")
        processes.append(subprocess.Popen(list(map(str, command)), env=env, stdout=said, stderr=said))
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert processes[-1].poll() is None, (RUN / f"said-{port}").read_text()
                time.sleep(0.1)
        else:
            sys.exit(f"nothing listens at {port}")
    return processes


def collect():
    """HAProxy's syslog: a datagram a line, to the log of the frontend that is called."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    server.bind(("127.0.0.1", 18099))
    collect.to = None

    def run():
        while True:
            line = server.recv(1 << 17)
            if collect.to:
                with open(collect.to, "ab") as log:
                    log.write(line.rstrip(b"\n\0") + b"\n")
    threading.Thread(target=run, daemon=True).start()


def send(port, case):
    """Sends a case's bytes; returns the status of the first answer, 0 without one."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(8)
    answer = b""
    raw = case["raw"]
    try:
        connection.sendall(raw[:len(raw) // 2] if case["ends"] == "half" else raw)
        if case["ends"] == "answer":
            while chunk := connection.recv(1 << 16):
                answer += chunk
        else:
            time.sleep(0.2)
    except OSError:
        pass
    connection.close()
    return int(answer[9:12]) if answer[9:12].isdigit() else 0


def size(path):
    return path.stat().st_size if path.exists() else 0


def grown(path, since):
    with open(path, "rb") as log:
        log.seek(since)
        return log.read()


def is_sound(line):
    """Whether a line is JSON in which no member stands twice."""
    def unique(pairs):
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)
    try:
        json.loads(line.decode("latin-1"), object_pairs_hook=unique)
        return True
    except ValueError:
        return False


def argument(raw):
    """The first argument `apikey` of a request's query that has a value."""
    target = raw.split(b" ")[1] if raw.startswith((b"GET /", b"POST /")) else b""
    for pair in target.partition(b"?")[2].split(b"&"):
        name, _, value = pair.partition(b"=")
        if urllib.parse.unquote_to_bytes(name) == b"apikey" and value:
            return urllib.parse.unquote_to_bytes(value)
    return None


def expected(log, server, escapes, case, lines):
    """How a case must be counted where that isn't as the catalogue says: a pair of a kind and the key."""
    count = lines.count(b"\n")
    if count == 0:
        return "absent", None
    assert count == case["calls"], (log, case["name"], count)
    own = catalogue.key_of(case["name"])
    right = own if case["key"] == "either" else case["key"]
    key = OTHERWISE.get((log, case["name"]), OTHERWISE.get((server, case["name"]), right))
    if log.endswith("-combined"):
        # A log without headers: what the path's query has.
        key = argument(case["raw"])
    elif key and key.startswith(own) and own not in lines and case["name"] != "key-in-query-percent":
        # A server that refused a call early has no key to log.
        key = None
    if not escapes and not all(map(is_sound, lines.splitlines())):
        return "unsound", key
    if key == right:
        return None
    return ("other", key) if key else ("anonymous", None)


def write(name, value):
    """JSON with a line for each member of the two upper levels."""
    text = json.dumps(value, indent=1, sort_keys=False)
    (OUT / name).write_text(re.sub(r"\n {3,}", " ", text).replace("\n  }", " }") + "\n")


def main():
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(mode=0o777)
    RUN.chmod(0o777)
    collect()
    processes = start()
    expectations = {log: {} for _, logs in SERVERS.values() for log in logs}
    began = int(time.time())
    try:
        for server, (port, logs) in SERVERS.items():
            paths = {log: RUN / f"{log}.log" for log in logs}
            if server.startswith("haproxy"):
                collect.to = paths[server]
            for case in CASES:
                before = {log: size(path) for log, path in paths.items()}
                status = send(port, case)
                deadline = time.monotonic() + 1.5
                enough = lambda: all(grown(path, before[log]).count(b"\n") >= case["calls"]
                                     for log, path in paths.items() if path.exists()) and all(
                                         path.exists() for path in paths.values())
                while not enough() and time.monotonic() < deadline:
                    time.sleep(0.005)
                for log, path in paths.items():
                    lines = grown(path, before[log]) if path.exists() else b""
                    found = expected(log, server.split("-")[0], logs[log], case, lines)
                    if found:
                        print(f"{log}: {case['name']} ({status}): {found}", file=sys.stderr)
                        kind, key = found
                        keys = expectations[log].setdefault(kind, {})
                        keys[case["name"]] = key and key.decode("latin-1")
            collect.to = None
        send(18080, {"raw": catalogue.request(b"/flush"), "ends": "answer"})
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    for batch, of in BATCHES.items():
        expectations[batch] = expectations[of]
    ended = int(time.time()) + 1
    OUT.mkdir(parents=True, exist_ok=True)
    own = lambda case: catalogue.key_of(case["name"]) if case["key"] == "either" else case["key"]
    cases = [{"case": case["name"], "key": own(case) and own(case).decode("latin-1"), "calls": case["calls"]}
             for case in CASES]
    catalog = {"began": began, "ended": ended, "victim": VICTIM.decode(), "cases": cases}
    write("catalogue.json", catalog)
    for log, others in expectations.items():
        (OUT / f"{log}.log.gz").write_bytes(gzip.compress((RUN / f"{log}.log").read_bytes(), 9, mtime=0))
        write(f"{log}.json", others)
    print(sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


main()
