"""Services of AWS in memory, by moto: a store that speaks S3, and Amazon API Gateway with one API key.

    python server.py BUCKET     prints the ports of both and the API key's id, and serves until its standard input ends

The value of the API key is `key-3`, and it is enabled. The store is behind a lock and faults that a client chooses by its
access key.

Requests come one after the other, so that a conditional put is as real as that of a store with one lock. The access key
of a request names what goes wrong with it:

    sound         nothing
    lossy         every third PUT is done and answered with 500, as if the answer had been lost
    overwrites    PUT ignores If-None-Match
    refused       403, no such access key
    skewed        403, the clocks are too far apart
"""

import re
import socketserver
import sys
import threading
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from moto.apigateway.models import apigateway_backends
from moto.server import create_backend_app

REFUSALS = {"refused": "InvalidAccessKeyId", "skewed": "RequestTimeTooSkewed"}


class Faulty:
    def __init__(self, app):
        self.app, self.lock, self.puts = app, threading.Lock(), 0

    def __call__(self, environ, start_response):
        credential = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        fault = credential.group(1) if credential else "sound"
        # The body is read whole, as a client waits for that before it reads an answer.
        is_put = environ["REQUEST_METHOD"] == "PUT"
        if fault in REFUSALS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<Error><Code>{REFUSALS[fault]}</Code><Message>No.</Message></Error>".encode()
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if fault == "overwrites":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self.lock:
            answer = {}
            parts = list(self.app(environ, lambda status, headers, _=None: answer.update(status=status, headers=headers)))
            self.puts += is_put
            is_lost = fault == "lossy" and is_put and self.puts % 3 == 0
        if is_lost:
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        start_response(answer["status"], answer["headers"])
        return parts


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def main():
    server = Server(("127.0.0.1", 0), Quiet)
    server.set_app(Faulty(create_backend_app("s3")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{sys.argv[1]}"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT")).read()
    # By the interface a value has at least 20 characters.
    key = apigateway_backends["123456789012"]["us-east-1"].create_api_key({"name": "leaked", "enabled": True})
    key.value = "key-3"
    gateway = Server(("127.0.0.1", 0), Quiet)
    gateway.set_app(create_backend_app("apigateway"))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    print(server.server_port, gateway.server_port, key.id, flush=True)
    sys.stdin.read()


main()
