"""A validating admission webhook that answers, and refuses what it is asked for."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kube.control_plane import ControlPlane

CERTIFICATE = "webhook-server"


@contextmanager
def refusing_webhook(control_plane: ControlPlane, message: str) -> Iterator[dict[str, Any]]:
    """Its `clientConfig`: where the API server finds it, and by which authority."""

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": message}}
            body = json.dumps({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": answer}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing to stderr."""

    pki = control_plane.authority.folder
    control_plane.authority.issue(CERTIFICATE, CERTIFICATE, hosts=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki / f"{CERTIFICATE}.crt", pki / f"{CERTIFICATE}.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, name="webhook", daemon=True)
        serving.start()
        try:
            authority = base64.b64encode((pki / "ca.crt").read_bytes()).decode()
            yield {"url": f"https://127.0.0.1:{server.server_port}/check", "caBundle": authority}
        finally:
            server.shutdown()
            serving.join(30)
