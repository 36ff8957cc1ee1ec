"""Sends what a cell displays to the control plane while the cell runs: it does not see the pod's files.

The control plane answers with the byte that it wants next, so a side-car or a control plane that was restarted goes on where the
other is. At its end the file is an output of the job as any other.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from tuttilab.sidecar import beneath

NAME = "display.jsonl"
PATH = "/api/v1/pods/displays"
PERIOD_S = 1.0
LONGEST_PERIOD_S = 30.0
SOCKET_TIMEOUT_S = 30.0
LARGEST = 16 * 2**20
"""Bytes sent at once; a line has at most half of it (`cell/display.py`)."""
_BLOCK = 2**16


class Refused(Exception):
    """The control plane takes no more of it; says why."""


def is_asked_for(plan: Mapping[str, Any]) -> bool:
    return any(output["path"] == NAME for output in plan["outputs"])


def start(plan: Mapping[str, Any]) -> None:
    threading.Thread(target=_send_all, args=(plan,), name="shown", daemon=True).start()


def _send_all(plan: Mapping[str, Any]) -> None:
    at, period_s = 0, PERIOD_S
    while True:
        time.sleep(period_s)
        try:
            at, period_s = send(plan, at), PERIOD_S
        except Refused as refusal:
            sys.stderr.write(f"displays are shown no more before the end: {refusal}\n")
            return
        except (OSError, ValueError):
            period_s = min(period_s * 2, LONGEST_PERIOD_S)


def send(plan: Mapping[str, Any], at: int) -> int:
    """Send the whole lines from byte ``at`` on, if there are any; the byte to go on from.

    Raises Refused, and OSError or ValueError without an answer.
    """
    folder = beneath.open_folder(plan["dirs"]["result"])
    try:
        try:
            file = beneath.open_in(folder, NAME)
        except (FileNotFoundError, beneath.NotRegular):
            return at
    finally:
        os.close(folder)
    with file:
        size = _whole_lines(file, at)
        return _post(plan, file, at, size) if size else at


def _whole_lines(file: BinaryIO, at: int) -> int:
    """How many bytes from ``at`` on are whole lines, of at most `LARGEST`."""
    file.seek(at)
    whole = size = 0
    while size < LARGEST and (block := file.read(min(_BLOCK, LARGEST - size))):
        if (feed := block.rfind(b"\n")) >= 0:
            whole = size + feed + 1
        size += len(block)
    return whole


def _post(plan: Mapping[str, Any], file: BinaryIO, at: int, size: int) -> int:
    import http.client

    parts = urlsplit(plan["report_url"])
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    claims = {"job_id": plan["job_id"], "attempt": plan["attempt"], "epoch": plan["epoch"], "start": at}
    headers = {
        "Authorization": f"Bearer {plan['token']}",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
        "Connection": "close",
    }
    connection = kind(parts.hostname or "", parts.port, timeout=SOCKET_TIMEOUT_S)
    try:
        path = f"{parts.path.rstrip('/')}{PATH}?{urlencode(claims)}"
        connection.request("POST", path, _blocks(file, at, size), headers)
        response = connection.getresponse()
        text = response.read(2000)
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if response.status == 200:
        return int(json.loads(text)["next"])
    if response.status < 500 and response.status != 429:
        raise Refused(f"the control plane answered {response.status}: {text.decode(errors='replace')}")
    raise OSError(f"the control plane answered {response.status}")


def _blocks(file: BinaryIO, at: int, size: int) -> Iterator[bytes]:
    """In pieces, so that a long one needs no memory."""
    file.seek(at)
    while size and (block := file.read(min(_BLOCK, size))):
        size -= len(block)
        yield block
