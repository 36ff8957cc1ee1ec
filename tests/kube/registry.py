"""A registry whose one image is for another kind of machine than this one: it hands out its index, and has nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.kube.images import ARCHITECTURES, MANIFEST_TYPE

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def other_architecture() -> str:
    """Than this machine's."""
    own = ARCHITECTURES.get(os.uname().machine)
    return next(name for name in ARCHITECTURES.values() if name != own)


def index() -> bytes:
    platform = {"architecture": other_architecture(), "os": "linux"}
    manifest = {"mediaType": MANIFEST_TYPE, "digest": f"sha256:{'0' * 64}", "size": 100, "platform": platform}
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [manifest]}).encode()


@contextmanager
def running_registry(host: str) -> Iterator[str]:
    """Its address, HOST:PORT."""
    body = index()

    class Registry(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            is_manifest = "/manifests/" in self.path
            self.send_response(200 if is_manifest or self.path == "/v2/" else 404)
            if is_manifest:
                self.send_header("Content-Type", INDEX_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            if "/manifests/" in self.path:
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing to stderr."""

    with ThreadingHTTPServer((host, 0), Registry) as server:
        serving = threading.Thread(target=server.serve_forever, name="registry", daemon=True)
        serving.start()
        try:
            yield f"{host}:{server.server_port}"
        finally:
            server.shutdown()
            serving.join(30)
