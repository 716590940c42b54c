"""Asks a live job through NGINX and Caddy, and by Schemathesis: see run.sh.

The job is a process of its own. It reads the traffic of `keytide demo` from that demo's broker, and sells it to a subscription
`sub-demo`. Its other keys call through the gateways alone, so what it counts of them is what gateways asked for.
"""

import csv
import hashlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

SCRATCH, KEYTIDE = Path(sys.argv[1]), sys.argv[2]
HERE = Path(__file__).parent
DOCUMENT = Path("docs/api.md").read_text()
DEADLINE_S = 240
TOKENS = {role: f"token-of-{role}-{os.urandom(16).hex()}" for role in ("admin", "check", "consumer")}
# Each has a key `key-NAME`, and may make so many calls in a billing period. The description's examples have the last.
LIMITS = {"some": 6, "other": 3, "raised": 2, "crowd-1": 50, "crowd-2": 50, "crowd-3": 50, "out": 1, "1": 400}
STATES = {"suspended": "suspended", "revoked": "revoked"}
CLIENTS = 100


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def eventually(what, look):
    """Looks until there is a value."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"in vain: {what}")


def replaced(text, *pairs):
    for old, new in pairs:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in\n{text}"
        text = text.replace(old, new)
    return text


def is_open(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Backend:
    """The service behind the gateways. It keeps the keys of the calls that reach it."""

    def __init__(self):
        backend = self
        self.calls, self.lock = [], threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with backend.lock:
                    backend.calls.append(self.headers["apikey"])
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_GET

            def log_message(self, *arguments):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 512

        server = Server(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Process:
    """A process that ends with the test."""

    def __init__(self, name, command, folder, **environment):
        self.log = SCRATCH / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "HOME": str(SCRATCH), **environment})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGCONT)
        self.stop()

    def stop(self):
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def wait_for(self, look):
        def looked():
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()[-3000:]}"
            return look()

        return eventually(f"{self.log.name}", looked)


class Job:
    """The live job, with its tables."""

    def __init__(self, brokers, sold):
        self.port, self.folder = free_port(), SCRATCH / "job"
        self.folder.mkdir()
        tables = "".join(
            f'[tables.{name}]\nkind = "file"\npath = "{name}.csv"\nformat = "csv"\n'
            for name in ("keys", "subscriptions", "plans", "prices", "quotas"))
        tokens = "".join(
            f'[[api.token]]\nname = "{role}"\ntoken = "env:{role.upper()}"\nrole = "{role}"\n'
            + ('customer = "Acme"\n' if role == "consumer" else "")
            for role in TOKENS)
        # What is booked is an hour behind. So checks of keys without records aren't forgotten while the test runs.
        (self.folder / "keytide.toml").write_text(
            f'[job]\nname = "asked"\ntick = "200ms"\nreload = "1s"\n'
            f'[keys]\nfrom = ["header:apikey", "query:apikey", "key"]\n'
            f'[[source]]\nname = "gateway"\nkind = "kafka"\nbrokers = "{brokers}"\ntopic = "access-events"\nformat = "json"\n'
            f'[source.fields]\ntime = {{ at = "/requestTime", unit = "ms" }}\nkey = "/apiKey"\nstatus = "/status"\n'
            f'[windows]\nout_of_orderness = "1h"\n[sink.files]\ndir = "views"\n{tables}'
            f'[api]\nlisten = "127.0.0.1:{self.port}"\n{tokens}')
        names = [*LIMITS, *STATES]
        # No billing period ends while the test runs.
        anchor = 1 if 8 <= datetime.now(timezone.utc).day <= 22 else 15
        keys = [(hashlib.sha256(f"key-{name}".encode()).hexdigest(), f"sub-{name}", STATES.get(name, "active")) for name in names]
        self.write("keys", "key_hash,subscription,state", [*keys, *((key_hash, "sub-demo", "active") for key_hash in sold)])
        self.write("subscriptions", "id,customer,plan,billing_anchor", (
            (f"sub-{name}", "Acme", "free", anchor) for name in [*names, "demo"]))
        self.write("plans", "id,name,currency", [("free", "Free", "EUR")])
        self.write("prices", "plan,item,metric,unit_price", [("free", "calls", "calls", "0.5")])
        self.limit()

    def limit(self, **more):
        limits = {**LIMITS, **more}
        self.write("quotas", "subscription,metric,period,limit,hard", (
            (f"sub-{name}", "calls", "billing", limit, "true") for name, limit in limits.items()))

    def write(self, name, head, rows):
        new = self.folder / f"{name}.new"
        new.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
        new.rename(self.folder / f"{name}.csv")

    def start(self):
        environment = {role.upper(): token for role, token in TOKENS.items()}
        process = Process("job", [KEYTIDE, "run", "keytide.toml"], self.folder, **environment)
        process.wait_for(lambda: is_open(self.port))
        process.wait_for(lambda: self.standing("some")["limit"] == LIMITS["some"])
        process.wait_for(lambda: not self.get("/v1/status")["stale"])
        for view in ("usage", "bills"):
            process.wait_for(lambda: self.get(f"/v1/subscriptions/sub-demo/{view}")["rows"])
        return process

    def ask(self, method, path, body=None, role="admin"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        connection.request(method, path, body, {"X-Keytide-Token": TOKENS[role]})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def get(self, path):
        status, page = self.ask("GET", path)
        assert status == 200, page
        return page

    def standing(self, name):
        """How the quota of a key stands; asking counts nothing."""
        body = json.dumps({"subscription": f"sub-{name}", "hits": 0})
        status, page = self.ask("POST", "/v1/check", body, "check")
        assert status == 200, page
        return page


class Gateway:
    """A server in front of the backend."""

    def __init__(self, name, process, port):
        self.name, self.process, self.port = name, process, port

    def call(self, key=None, path="/orders", headers=(), body=b""):
        """Makes a call; returns its status and `Retry-After`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        connection.putrequest("POST" if body else "GET", path)
        length = [("Content-Length", str(len(body)))] if body else []
        for header in [*([("apikey", key)] if key else []), *headers, *length]:
            connection.putheader(*header)
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.getheader("Retry-After")

    def expect(self, status, *arguments, **named):
        found, retry = self.call(*arguments, **named)
        assert found == status, f"{self.name}: {found} instead of {status} for {arguments} {named}"
        assert (retry is not None) == (status == 429), f"{self.name}: Retry-After is {retry} with {status}"
        assert retry is None or 0 < int(retry) <= 32 * 86_400, retry


def block(heading):
    """The first block below a heading of the document."""
    section = DOCUMENT.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    found = re.search(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"docs/api.md has no block below {heading}"
    return found[1]


# A busy machine answers later. Then NGINX would let calls through, which is tested apart.
PATIENT = lambda text: text.replace("100ms", "60s")
AS_WRITTEN = lambda text: text
CLOSED = lambda text: replaced(text, ("    error_page 500 502 504 = @keytide_open;\n", ""))


def nginx(name, api, backend, change):
    port, folder = free_port(), SCRATCH / name
    folder.mkdir()
    server = change(replaced(block("NGINX"), ("127.0.0.1:9466", f"127.0.0.1:{api}"), ("the token", TOKENS["check"]),
                             ("http://backend", f"http://127.0.0.1:{backend}")))
    temporary = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"events {{ worker_connections 1024; }}\nhttp {{\n    access_log off;\n{temporary}"
        f"    server {{\n        listen 127.0.0.1:{port};\n{server}    }}\n}}\n")
    command = ["nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr",
               "-g", f"daemon off; pid {folder}/pid; worker_processes 2;"]
    process = Process(name, command, folder)
    process.wait_for(lambda: is_open(port))
    return Gateway(name, process, port)


def caddy(name, api, backend, change):
    port, folder = free_port(), SCRATCH / name
    folder.mkdir()
    site = change(replaced(block("Caddy"), ("127.0.0.1:9466", f"127.0.0.1:{api}"), ("example.com", f"http://127.0.0.1:{port}"),
                           ("backend:8080", f"127.0.0.1:{backend}")))
    (folder / "Caddyfile").write_text("{\n    admin off\n    auto_https off\n}\n" + site)
    command = ["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]
    process = Process(name, command, folder, KEYTIDE_EDGE_TOKEN=TOKENS["check"])
    process.wait_for(lambda: is_open(port))
    return Gateway(name, process, port)


def keys_are_let_in_up_to_their_quota(job, gateways):
    for gateway in gateways:
        before = job.standing("some")["used"]
        gateway.expect(200, "key-some")
        gateway.expect(200, path="/orders?a=b&apikey=key-some", body=b"x" * 300_000)
        gateway.expect(200, "key-some", headers=[("Authorization", "Bearer of-the-service"), ("X-Keytide-Token", "a-client-s")])
        assert job.standing("some")["used"] == before + 3
    for gateway in gateways:
        gateway.expect(429, "key-some")
        gateway.expect(429, path="/orders?apikey=key-some")
    assert job.standing("some")["used"] == LIMITS["some"], "a call that is refused counts nothing"


def a_client_cannot_show_another_key_to_the_api(job, gateways, backend):
    before = len(backend.calls)
    other = [("X-Forwarded-Uri", "/?apikey=key-other")]
    for gateway in gateways:
        for headers in (other, other * 2, [("x-forwarded-uri", "/?apikey=key-other")], [("X_Forwarded_Uri", "/?apikey=key-other")],
                        [("X-Original-Uri", "/?apikey=key-other")], [("Connection", "X-Forwarded-Uri"), *other]):
            gateway.expect(429, path="/orders?apikey=key-some", headers=headers)
        for path in ("/\u00ff/orders?apikey=key-some", "/orders?a=\u00fe&apikey=key-some", "/v1/auth?deny=404&apikey=key-some",
                     "/%00/%2e%2e/orders?apikey=key-some", "/orders?%61pikey=key%2Dsome", "/" + "a" * 7_000 + "?apikey=key-some"):
            # http.client writes a path in ASCII alone.
            status = raw_status(gateway.port, path.encode("latin-1"))
            # Some of them gateways refuse by themselves.
            assert status in (400, 429), f"{gateway.name}: {status} for {path[:40]!r}"
        # The largest head that NGINX takes by default.
        gateway.expect(429, "key-some", headers=[(f"X-{n}", "x" * 8_000) for n in range(3)])
        # A header that is for the next hop alone is hidden from all, or from none.
        gateway.call("key-some", headers=[("Connection", "apikey")])
        assert "key-some" not in backend.calls[before:], gateway.name
        del backend.calls[before:]
    assert job.standing("other")["used"] == 0 and len(backend.calls) == before


def raw_status(port, path):
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port)
        return int(client.makefile("rb").readline().split()[1])


def states_deny_and_unknown_keys_go_through(job, gateways, backend):
    for gateway in gateways:
        for name in STATES:
            gateway.expect(403, f"key-{name}")
            gateway.expect(403, path=f"/orders?apikey=key-{name}")
        before = len(backend.calls)
        gateway.expect(200, "key-nobody-knows")
        gateway.expect(200)
        assert len(backend.calls) == before + 2


def a_raised_quota_acts_at_the_next_call(job, gateways):
    for gateway in gateways:
        gateway.expect(200, "key-raised")
    for gateway in gateways:
        gateway.expect(429, "key-raised")
    job.limit(raised=4)
    eventually("the new limit", lambda: job.standing("raised")["limit"] == 4)
    for gateway in gateways:
        gateway.expect(200, "key-raised")
    for gateway in gateways:
        gateway.expect(429, "key-raised")


def clients_that_ask_at_once_never_pass_a_limit(job, gateways, backend):
    for crowd in ("crowd-1", "crowd-2", "crowd-3"):
        before = len(backend.calls)
        barrier, answers = threading.Barrier(CLIENTS), [None] * CLIENTS

        def client(number):
            barrier.wait()
            answers[number] = gateways[number % len(gateways)].call(f"key-{crowd}")

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = [status for status, _ in answers]
        limit = LIMITS[crowd]
        assert (statuses.count(200), statuses.count(429)) == (limit, CLIENTS - limit), statuses
        assert all((retry is None) == (status == 200) for status, retry in answers), answers
        assert len(backend.calls) == before + limit
        assert job.standing(crowd)["used"] == limit


def an_outage_does_what_the_document_says(process, gateways):
    """The gateways are as the document has them, with their short timeouts."""
    open_, closed, caddy_ = gateways

    def check():
        open_.expect(200, "key-out")
        open_.expect(200, "key-suspended")
        closed.expect(500, "key-out")
        status, _ = caddy_.call("key-out")
        assert status in (502, 504), status
        return status

    process.process.send_signal(signal.SIGSTOP)
    frozen = check()
    process.process.send_signal(signal.SIGCONT)
    assert process.stop() == 0, process.log.read_text()[-3000:]
    stopped = check()
    print(f"api: without an answer Caddy says {frozen}, without a server {stopped}")
    assert (frozen, stopped) == (504, 502)


def a_client_that_is_slow_loses_its_connection(job):
    """Bodies have ten seconds."""
    head = f"POST /v1/check HTTP/1.1\r\nHost: keytide\r\nX-Keytide-Token: {TOKENS['check']}\r\nContent-Length: 9\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", job.port), DEADLINE_S) as client:
        client.sendall(head.encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408 ") and b'{"error":' in answer, answer


def answers_are_as_they_are_described(job, sold):
    config = SCRATCH / "schemathesis.toml"
    keys = ", ".join(f'"{key_hash[:32]}"' for key_hash in sold[:20])
    config.write_text(replaced((HERE / "schemathesis.toml").read_text(), ('"KEYS"', keys)))
    environment = {"PATH": os.environ["PATH"], "HOME": str(SCRATCH), "COLUMNS": "200"}
    for role, token in TOKENS.items():
        command = [SCRATCH / "venv/bin/schemathesis", "--config-file", config, "run",
                   f"http://127.0.0.1:{job.port}/v1/openapi.json", "--header", f"X-Keytide-Token: {token}"]
        ended = subprocess.run(command, cwd=SCRATCH, env=environment, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, f"as {role}:\n{ended.stdout}{ended.stderr}"
        cases = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
        assert cases and int(cases[2]) > 100, ended.stdout
        print(f"api: Schemathesis as {role}: {cases[0]}")


def main():
    demo_folder = SCRATCH / "demo"
    demo = Process("demo", [KEYTIDE, "demo", "--headless", "--rate", "5", "--duration", "1h", "--out", demo_folder], SCRATCH)
    with ExitStack() as stack:
        stack.enter_context(demo)
        config = demo_folder / "keytide.toml"
        text = demo.wait_for(lambda: config.is_file() and config.read_text())
        sold = [row["key_hash"] for row in csv.DictReader((demo_folder / "tables/keys.csv").open())]
        job, backend = Job(re.search(r'^brokers = "(.*)"$', text, re.MULTILINE)[1], sold), Backend()
        process = stack.enter_context(job.start())

        def start(make, name, change):
            gateway = make(name, job.port, backend.port, change)
            stack.enter_context(gateway.process)
            return gateway

        gateways = [start(nginx, "nginx", PATIENT), start(caddy, "caddy", PATIENT)]
        keys_are_let_in_up_to_their_quota(job, gateways)
        a_client_cannot_show_another_key_to_the_api(job, gateways, backend)
        states_deny_and_unknown_keys_go_through(job, gateways, backend)
        a_raised_quota_acts_at_the_next_call(job, gateways)
        clients_that_ask_at_once_never_pass_a_limit(job, gateways, backend)
        a_client_that_is_slow_loses_its_connection(job)
        answers_are_as_they_are_described(job, sold)
        impatient = [start(nginx, "nginx-open", AS_WRITTEN), start(nginx, "nginx-closed", CLOSED),
                     start(caddy, "caddy-short", AS_WRITTEN)]
        an_outage_does_what_the_document_says(process, impatient)
        log = process.log.read_text()
        assert not any(token in log for token in TOKENS.values()) and "key-some" not in log, log
    print("api: NGINX and Caddy refuse what is over its quota")


main()
