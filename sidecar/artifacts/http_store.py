"""Artifacts by HTTP, for pods that do not see their folder: fetched from and sent to the control plane with the pod's token."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

PATH = "/api/v1/pods/artifacts/"
TRY_S = 60.0
"""How long a transfer is tried again while the control plane does not answer."""
PAUSE_S = 0.5
SOCKET_TIMEOUT_S = 30.0
_BLOCK = 2**20


class TransferFailed(OSError):
    """The control plane refused, or did not answer for `TRY_S`."""


def fetch(plan: Mapping[str, Any], artifact: str) -> BinaryIO:
    """The content, in a file without a name in a folder of the pod that is ours or its owner's. Raises TransferFailed."""
    copy = tempfile.TemporaryFile(dir=plan["dirs"]["code" if plan.get("owner_account") else "pod"])  # noqa: SIM115  the caller closes it

    def receive(connection: Any, path: str, headers: Mapping[str, str]) -> int:
        copy.seek(0)
        copy.truncate()
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        if response.status != 200:
            return _refused(response)
        while block := response.read(_BLOCK):
            copy.write(block)
        return 200

    _exchange(plan, artifact, receive)
    copy.seek(0)
    return copy


def send(plan: Mapping[str, Any], source: BinaryIO) -> tuple[str, int]:
    """Keeps the file's content as an artifact; its id and size. Raises TransferFailed."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        digest.update(block)
        size += len(block)
    artifact = digest.hexdigest()

    def transmit(connection: Any, path: str, headers: Mapping[str, str]) -> int:
        source.seek(0)
        connection.request("PUT", path, source, {**headers, "Content-Length": str(size)})
        response = connection.getresponse()
        return 200 if response.status == 201 else _refused(response)

    _exchange(plan, artifact, transmit)
    return artifact, size


def _refused(response: Any) -> int:
    """The status, for another try; raises TransferFailed where a retry cannot help."""
    text = response.read(2000).decode(errors="replace")
    if response.status < 500 and response.status != 429:
        raise TransferFailed(f"the control plane answered {response.status}: {text}")
    return int(response.status)


def _exchange(plan: Mapping[str, Any], artifact: str, call: Any) -> None:
    import http.client

    parts = urlsplit(plan["artifacts_url"])
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    claims = {"job_id": plan["job_id"], "attempt": plan["attempt"], "epoch": plan["epoch"]}
    path = f"{parts.path.rstrip('/')}{PATH}{artifact}?{urlencode(claims)}"
    headers = {"Authorization": f"Bearer {plan['token']}", "Content-Type": "application/octet-stream", "Connection": "close"}
    until = time.monotonic() + TRY_S
    while True:
        connection = kind(parts.hostname or "", parts.port, timeout=SOCKET_TIMEOUT_S)
        try:
            if (status := call(connection, path, headers)) == 200:
                return
            problem = f"it answered {status}"
        except TransferFailed:
            raise
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        if time.monotonic() > until:
            raise TransferFailed(f"the control plane at {parts.netloc} did not take or give artifact {artifact} ({problem})")
        time.sleep(PAUSE_S)
