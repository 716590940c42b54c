"""Makes a container of a store that speaks Azure Blob Storage.

    python container.py http://HOST:PORT CONTAINER

The account and its key are those of azurite, which are the same everywhere.
"""

import base64
import email.utils
import hashlib
import hmac
import sys
import urllib.request

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

address, container = sys.argv[1:]
path = f"/{ACCOUNT}/{container}"
of_request = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
# The method, eleven headers that the request doesn't have, those of Azure, and the resource.
signed = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in of_request.items()), f"/{ACCOUNT}{path}", "restype:container"]
signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), "\n".join(signed).encode(), hashlib.sha256)).decode()
headers = of_request | {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
urllib.request.urlopen(urllib.request.Request(f"{address}{path}?restype=container", method="PUT", headers=headers)).read()
