"""The least that a test needs to talk to an API server: JSON in, JSON out, as the user of a kubeconfig.

Not the product's client, which is what the tests are about.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_S = 60.0
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """The API server refused; ``status`` is HTTP's, ``message`` what it said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Unreachable(OSError):
    """There was no answer at all."""


class Api:
    """Threads may share it. Bodies and answers are Kubernetes' own JSON, whose shape is in its API reference."""

    def __init__(self, kubeconfig: Path, timeout_s: float = TIMEOUT_S) -> None:
        config = json.loads(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as both:  # the ssl module reads files only
                both.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
                both.flush()
                context.load_cert_chain(both.name)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._client = httpx.Client(
            base_url=cluster["server"],
            verify=context,
            headers=headers,
            timeout=timeout_s,
            trust_env=False,
            limits=httpx.Limits(keepalive_expiry=2.0),
        )

    def get(self, path: str, **query: str) -> Any:
        return self._ask("GET", path, query=query).json()

    def text(self, path: str, **query: str) -> str:
        return self._ask("GET", path, query=query).text

    def post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, body).json()

    def put(self, path: str, body: Any) -> Any:
        return self._ask("PUT", path, body).json()

    def patch(self, path: str, body: Any, kind: str = MERGE) -> Any:
        return self._ask("PATCH", path, body, kind=kind).json()

    def delete(self, path: str, body: Any = None, **query: str) -> Any:
        return self._ask("DELETE", path, body, query=query).json()

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def close(self) -> None:
        self._client.close()

    def _ask(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", query: dict[str, str] | None = None
    ) -> httpx.Response:
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._client.request(method, path, content=content, params=query, headers={"Content-Type": kind})
        except httpx.TransportError as error:
            raise Unreachable(f"{method} {path}: {error!r}") from error
        if answer.is_error:
            raise ApiError(answer.status_code, _message(answer))
        return answer


def _message(answer: httpx.Response) -> str:
    try:
        said = answer.json()
    except ValueError:
        return answer.text
    return str(said.get("message", answer.text)) if isinstance(said, dict) else answer.text
