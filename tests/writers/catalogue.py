"""What callers send: each case is a name, the bytes of its requests, the key that made them, and how they end.

A case has a key of its own, so that a call which is lost, counted twice or moved is seen by its name. All values are
invented. Nothing here depends on a server; where servers differ in what they take for the key, `OTHERWISE` says so.
"""
import base64
import gzip
import hashlib
import json

# The key that callers write where it isn't theirs. It never made a call.
VICTIM = b"kt_demo_victim_4fd1c0aa17b2"
# A member each, as gateways name them: what a caller appends to a text that isn't escaped.
FORGED = b'x","apikey":"' + VICTIM + b'","http_apikey":"' + VICTIM + b'","key":"' + VICTIM + b'","z":"1'

CASES = []


def key_of(name):
    return b"kt_demo_" + hashlib.sha256(name.encode()).hexdigest()[:16].encode()


def request(target=b"/v2/orders/17", *, method=b"GET", version=b"HTTP/1.1", headers=(), key=None, agent=b"writers/1.0",
            host=b"api.example.com", body=None, last=()):
    """One request; what it holds besides is what every call of the catalogue has: ids and addresses of its own making."""
    lines = [method + b" " + target + b" " + version]
    if host is not None:
        lines.append(b"Host: " + host)
    if agent is not None:
        lines.append(b"User-Agent: " + agent)
    if key is not None:
        lines.append(b"apikey: " + key)
    lines += [b"X-Request-ID: same-for-all", b"X-Forwarded-For: 203.0.113.9"]
    lines += list(headers)
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    lines += list(last) + [b"Connection: close", b"", b""]
    return b"\r\n".join(lines) + (body or b"")


def case(name, make=None, *, key=True, calls=1, ends="answer", raw=None):
    """Adds a case. `make` gives a request from the case's key; `key` is the key that is right: True for the case's
    own, bytes for another text, None for a call without one. `ends`: "answer" reads to the end, "hangup" closes at
    once, "half" closes after half of the request."""
    own = key_of(name)
    sent = raw if raw is not None else (make or (lambda own: request(key=own)))(own)
    CASES.append({"name": name, "raw": sent, "key": own if key is True else key, "calls": calls, "ends": ends})


def header(name, **more):
    """A case of one request with its key in the header, and one odd thing in it."""
    case(name, lambda own: request(key=own, **more))


# ---- nothing odd, and equal calls side by side

case("plain", calls=1)
one = lambda own: request(key=own).replace(b"Connection: close", b"Connection: keep-alive")
case("burst-of-20", lambda own: one(own) * 19 + request(key=own), calls=20)
case("anonymous", lambda own: request(), key=None)
case("empty-key", lambda own: request(key=b""), key=None)

# ---- texts: in the agent, the referer, the user, the host

TEXTS = {
    "latin1": b"caf\xe9",
    "broken-utf8": b"\xff\xfe \xf0\x28\x8c\x28 \xed\xa0\x80 \xc0\xaf \xc3",
    "utf8": "Dalvik ü 漢字 🎉 \u2028".encode(),
    "quote": b'My "special" agent',
    "backslash": b"C:\\temp\\x\\",
    "x-escape": b"\\x22\\xff\\x5c",
    "u-escape": b"\\u0022 \\u0000 \\ud800 \\uZZ",
    "percent": b"%00%FF%22%5C%0A",
    "tab": b"a\tb",
    "controls": b"\x01\x02\x08\x0b\x0c\x1b[31m\x1f\x7f",
    "forged": FORGED,
    "forged-end": b'x"}{"request_id":"f',
    "forged-next": b'"},{"',
    "forged-array": b'x"}],"k":[{"',
    "forged-time": b'x","status":"000","msec":"1000000000.001","start_time":1,"request_time":"-5","z":"',
    "forged-log": b'" 200 5 "-" "-" "' + VICTIM + b'" ada [20/Nov/2025:12:44:15 +0000] "GET / HTTP/1.1" 200 5 "-" "-"',
    "braces": b"{|} {||||} [x] #{22} }{",
    "dash": b"-",
    "digits": b"1e999999",
    "null": b"null",
    "8k": b"a" * 8000,
    "8k-bytes": b"\xe9\xff" * 3900,
    "8k-quotes": b'"\\' * 3900,
}
for what, text in TEXTS.items():
    header("agent-" + what, agent=text)
for what in ("broken-utf8", "quote", "backslash", "x-escape", "tab", "controls", "forged", "forged-log", "8k"):
    header("referer-" + what, headers=[b"Referer: " + TEXTS[what]])
for what in ("broken-utf8", "quote", "forged", "forged-log", "controls"):
    user = base64.b64encode(TEXTS[what] + b":secret")
    header("user-" + what, headers=[b"Authorization: Basic " + user])
header("agent-empty", agent=b"")
header("agent-none", agent=None)
header("host-upper", host=b"API.Example.COM:8080")
header("host-other", host=b"victim.example.com")
header("host-odd", host=b"a..b_c")

# ---- the path and its query

for what, target in {
    "latin1": b"/caf\xe9",
    "broken-utf8": b"/v2/\xff\xfe/\xf0\x28\x8c\x28/\xed\xa0\x80",
    "utf8": "/v2/ü/漢字".encode(),
    "quote": b'/v2/"x"/y',
    "backslash": b"/v2/a\\b\\",
    "x-escape": b"/v2/\\x22\\xff",
    "u-escape": b"/v2/\\u0022\\ud800",
    "percent-nul": b"/v2/%00/x",
    "percent-ff": b"/v2/%FF%FE/%22/%5C/%0A",
    "dots": b"/a/../b/./c//d/%2e%2e/e",
    "fragment": b"/v2/orders#top?a=x",
    "semicolon": b"/v2/orders;jsessionid=1;b",
    "forged": b"/" + FORGED,
    "forged-next": b'/"},{"',
    "braces": b"/{id}/[x]/<y>/^`|~",
    "star-segments": b"/*/**/%7Bkey%7D",
    "8k": b"/" + b"a" * 8000,
    "8k-bytes": b"/" + b"\xff" * 8000,
    "8k-segments": b"/a" * 4000,
    "question": b"/v2/orders??a?b=?",
}.items():
    header("path-" + what, target=target)
for what, query in {
    "latin1": b"q=caf\xe9",
    "broken-utf8": b"\xff\xfe=\xed\xa0\x80&q=\xf0\x28",
    "quote": b'q="x"&"q"=1',
    "backslash": b"q=\\&\\=\\",
    "x-escape": b"q=\\x22",
    "percent": b"q=%00%FF%22%5C&%22=1&%FF=2&%&%4&q=%zz",
    "forged": b"q=" + FORGED,
    "forged-names": b'"},{"=1&x":{"request_id":"f"}=2',
    "bare": b"a&b&c&apikey",
    "empty-names": b"=&&=x&=&&",
    "repeated": b"a[]=1&a[]=2&a=1&a=2&a",
    "8k": b"q=" + b"a" * 7900,
    "8k-separators": b"&" * 7900,
}.items():
    header("query-" + what, target=b"/v2/orders?" + query)
for count in (63, 64, 65, 70, 100, 101, 200):
    arguments = b"&".join(b"apikey=%d" % n for n in range(count))
    header("arguments-%d" % count, target=b"/v2/orders?" + arguments)
    others = b"&".join(b"a%d=%d" % (n, n) for n in range(count))
    header("other-arguments-%d" % count, target=b"/v2/orders?" + others)

# ---- where the key stands, and how

case("key-in-query", lambda own: request(b"/v2/orders?page=2&apikey=" + own))
case("key-in-query-percent",
     lambda own: request(b"/v2/orders?%61pike%79=" + b"".join(b"%%%02x" % byte for byte in own)))
case("key-in-query-and-header", lambda own: request(b"/v2/orders?apikey=other-key", key=own))
case("key-in-query-empty-header", lambda own: request(b"/v2/orders?apikey=" + own, key=b""))
case("key-in-query-twice", lambda own: request(b"/v2/orders?apikey=" + own + b"&apikey=second-key"))
case("key-in-query-empty-first", lambda own: request(b"/v2/orders?apikey=&apikey&apikey=" + own))
case("key-in-query-after-200", lambda own: request(
    b"/v2/orders?" + b"".join(b"a%d=%d&" % (n, n) for n in range(200)) + b"apikey=" + own), key="either")
case("key-in-query-forged", lambda own: request(b"/v2/orders?apikey=" + own + b"&q=" + FORGED))
case("key-in-query-broken-bytes", lambda own: request(b"/\xff/\xfe?\xff=\xfe&apikey=" + own + b"&z=\xff"))
case("key-upper-name", lambda own: request(headers=[b"APIKEY: " + own]))
case("key-last-of-60", lambda own: request(headers=[b"X-H-%d: %d" % (n, n) for n in range(60)], last=[b"apikey: " + own]))
case("key-twice", lambda own: request(key=own, last=[b"apikey: second-key"]))
case("key-thrice-empty-first", lambda own: request(key=b"", last=[b"apikey: " + own, b"ApiKey: " + own]), key="either")
case("key-latin1", lambda own: request(key=own + b"\xe9\xff"), key=key_of("key-latin1") + b"\xe9\xff")
case("key-latin1-other", lambda own: request(key=own + b"\xe9\xfe"), key=key_of("key-latin1-other") + b"\xe9\xfe")
# Two keys that are one if bytes that aren't UTF-8 are replaced.
case("key-twin-ff", lambda own: request(key=b"kt_demo_twin_\xff"), key=b"kt_demo_twin_\xff")
case("key-twin-fe", lambda own: request(key=b"kt_demo_twin_\xfe"), key=b"kt_demo_twin_\xfe")
case("key-utf8", lambda own: request(key=own + "ü漢".encode()), key=key_of("key-utf8") + "ü漢".encode())
case("key-percent-ff", lambda own: request(b"/v2?apikey=" + own + b"%FF%FE"), key=key_of("key-percent-ff") + b"\xff\xfe")
case("key-raw-ff-query", lambda own: request(b"/v2?apikey=" + own + b"\xff\xfe"), key=key_of("key-raw-ff-query") + b"\xff\xfe")
case("key-quote", lambda own: request(key=own + b'"q"'), key=key_of("key-quote") + b'"q"')
case("key-backslash", lambda own: request(key=own + b"\\x22\\"), key=key_of("key-backslash") + b"\\x22\\")
case("key-tab", lambda own: request(key=own + b"\tz"), key=key_of("key-tab") + b"\tz")
case("key-spaces", lambda own: request(key=own + b" and more"), key=key_of("key-spaces") + b" and more")
case("key-4k", lambda own: request(key=own + b"k" * 4000), key=key_of("key-4k") + b"k" * 4000)
case("key-in-path-too", lambda own: request(b"/v2/" + own + b"/x?z=" + own, key=own))
case("key-in-agent-too", lambda own: request(key=own, agent=b"x " + own + b" \xff",
                                             headers=[b"Referer: http://a/?k=" + own]))
case("key-in-path-broken", lambda own: request(b"/v2/\xff" + own + b"\xfe/x", key=own))
case("key-bytes-in-path", lambda own: request(b"/v2/" + own + b"\xff/x", key=own + b"\xff"),
     key=key_of("key-bytes-in-path") + b"\xff")
case("key-forged-victim", lambda own: request(key=own + FORGED), key=key_of("key-forged-victim") + FORGED)

# ---- headers

header("headers-80", headers=[b"X-H-%d: %d" % (n, n) for n in range(80)])
header("headers-95-long", headers=[b"X-H-%d: %s" % (n, b"v" * 250) for n in range(92)])
header("headers-150", headers=[b"X-H-%d: %d" % (n, n) for n in range(150)])
header("headers-80-same", headers=[b"X-Same: %d" % n for n in range(80)])
header("header-8k", headers=[b"X-Long: " + b"v" * 7900])
header("header-names", headers=[b"x!#$%&'*+.^`|~: 1", b"X_Under_Score: 2", b"0: 3", b"A.B: 4"])
header("header-values", headers=[b"X-A: " + TEXTS["broken-utf8"], b"X-B: " + FORGED, b"X-C:", b'X-D: ["', b"X-E: \x01\x7f"])
header("header-cookie", headers=[b'Cookie: a="b\\"; c=\xff; apikey=' + VICTIM])
header("header-underscore-key", headers=[b"api_key: " + VICTIM, b"api-key: " + VICTIM, b"x-apikey: " + VICTIM])

# ---- what callers forge

header("forged-id", headers=[b"X-Request-Id: " + TEXTS["forged"]])
header("forged-id-bytes", headers=[b"X-Request-Id: \xff\xfe"])
header("forged-consumer", headers=[b"X-Consumer-Username: victim", b"X-Consumer-Custom-ID: victim",
                                   b"X-Credential-Identifier: victim", b"X-Consumer-ID: victim"])
case("forged-consumer-anonymous", lambda own: request(headers=[b"X-Consumer-Username: victim",
                                                               b"X-Credential-Identifier: victim"]), key=None)
header("forged-xff", headers=[b"X-Forwarded-For: \xff, 999.1.1.1, ::, unknown, " + FORGED])
header("forged-xff-200", headers=[b"X-Forwarded-For: " + b", ".join(b"198.51.100.%d" % (n % 256) for n in range(200))])
header("forged-xff-many", headers=[b"X-Forwarded-For: 198.51.100.%d" % n for n in range(40)])
header("forged-trace", headers=[b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])

# ---- request lines

header("absolute-form", target=b"http://victim.example.com/v2/orders?a=1")
for method in (b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"PROPFIND", b"FOO", b"M-SEARCH", b"A" * 200):
    header("method-" + method.decode()[:12], method=method, body=b"" if method in (b"POST", b"PUT", b"PATCH") else None)
header("method-lower", method=b"get")
header("method-quote", method=b'G"T')
header("options-star", method=b"OPTIONS", target=b"*")
header("connect", method=b"CONNECT", target=b"victim.example.com:443")
header("http-1.0", version=b"HTTP/1.0")
header("http-1.0-no-host", version=b"HTTP/1.0", host=None)
header("http-1.1-no-host", host=None)
header("http-9.9", version=b"HTTP/9.9")
header("two-hosts", headers=[b"Host: other.example.com"])
header("two-spaces", target=b" /v2/orders")
header("space-in-path", target=b"/a b c")
header("path-20k", target=b"/" + b"a" * 20000)
header("header-40k", headers=[b"X-Long: " + b"v" * 40000])
header("bad-length", headers=[b"Content-Length: x"])
header("length-and-chunked", headers=[b"Content-Length: 5", b"Transfer-Encoding: chunked"])
case("http-0.9", raw=b"GET /v2/orders\r\n\r\n", key="either")
case("not-http", raw=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xff\xfe\"\\\r\n\r\n", key="either")
case("bad-quotes", raw=b'"},{"\\x22 \\" ' + FORGED + b"\r\n\r\n", key="either")
case("bad-word", raw=b"GET\r\n\r\n", key="either")

# ---- bodies, for the writers that log them

json_type = [b"Content-Type: application/json"]
nested = lambda depth: b'{"a":' * depth + b"1" + b"}" * depth
bodies = {
    "json": json.dumps({"apikey": VICTIM.decode(), "request": {"headers": {"apikey": VICTIM.decode()}}}).encode(),
    "forged": b'","apikey":"' + VICTIM + b'","http_apikey":"' + VICTIM + b'","z":"',
    "lines": b'{"a":1}\n{"b":2}\r\n\n"},{"\n',
    "deep-80": nested(80),
    "deep-600": b"[" * 600 + b"]" * 600,
    "binary": bytes(range(256)) * 4,
    "gzip": gzip.compress(b'{"a":1}' * 50, mtime=0),
    "100k": b"0123456789" * 10_000,
    "100k-quotes": b'"\\' * 50_000,
    "form": b"apikey=" + VICTIM + b"&x=%FF",
    "nul": b"\x00" * 100,
    "empty": b"",
}
for what, body in bodies.items():
    header("body-" + what, method=b"POST", headers=json_type, body=body)
case("body-chunked", lambda own: request(method=b"POST", key=own, headers=[b"Transfer-Encoding: chunked"])
     + b'6\r\n{"a":"\r\n4;x="y"\r\n\xff\xfe"}\r\n0\r\n\r\n')

# ---- callers that go away

case("hangup", lambda own: request(b"/slow", key=own), ends="hangup")
case("hangup-upload", lambda own: request(b"/slow", key=own, method=b"POST", body=b"x" * 700), ends="hangup")
case("half-headers", ends="half", key="either")
case("half-body", lambda own: request(method=b"POST", key=own, body=b"x" * 5000), ends="half")
case("last", calls=1)

# Keys that a server, or one of its logs, takes for another text than the others.
OTHERWISE = {
    # RFC 9110 lets Apache join headers that stand twice.
    ("apache", "key-twice"): key_of("key-twice") + b", second-key",
    ("apache", "key-thrice-empty-first"): b", " + b", ".join([key_of("key-thrice-empty-first")] * 2),
    # HAProxy's captures hold the last one, and no more than their length; its converter drops what isn't UTF-8.
    ("haproxy", "key-twice"): b"second-key",
    ("haproxy-short", "key-4k"): (key_of("key-4k") + b"k" * 4000)[:256],
    ("haproxy-json-converter", "key-latin1"): key_of("key-latin1"),
    ("haproxy-json-converter", "key-latin1-other"): key_of("key-latin1-other"),
    ("haproxy-json-converter", "key-twin-ff"): b"kt_demo_twin_",
    ("haproxy-json-converter", "key-twin-fe"): b"kt_demo_twin_",
}
# Go replaces what isn't UTF-8 in Caddy's log, each byte by U+FFFD.
for name, key in ((case["name"], case["key"]) for case in CASES):
    if key and key != "either" and name != "key-percent-ff" and key.decode("utf-8", "ignore").encode() != key:
        OTHERWISE["caddy", name] = b"".join(b"\xef\xbf\xbd" if byte > 0x7F else bytes([byte]) for byte in key)
