"""A kernel of a user's server, driven through the hub's proxy as a browser does."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from tests.e2e.hub.site import Browser, HubSite


async def run_cells(site: HubSite, user: Browser, *cells: str, limit_s: float = 240.0) -> str:
    """What the cells printed, one after the other in a new kernel. Raises AssertionError with the traceback of one that fails."""
    token = user.token()
    authorized = {"Authorization": f"token {token}"}
    made = user.http.post(f"/user/{user.name}/api/kernels", headers=authorized, json={"name": "python3"})
    assert made.status_code == 201, made.text
    path = f"/user/{user.name}/api/kernels/{made.json()['id']}"
    socket = await websocket_connect(HTTPRequest(f"ws{site.url.removeprefix('http')}{path}/channels", headers=authorized))
    try:
        return "".join([await _run(socket, cell, limit_s) for cell in cells])
    finally:
        socket.close()
        user.http.delete(path, headers=authorized)


async def _run(socket: Any, code: str, limit_s: float) -> str:
    asked = uuid.uuid4().hex
    header = {"msg_id": asked, "msg_type": "execute_request", "session": asked, "username": "", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    await socket.write_message(
        json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []})
    )
    printed, until = "", time.monotonic() + limit_s
    while time.monotonic() < until:
        message = json.loads(await socket.read_message())
        if message["parent_header"].get("msg_id") != asked:
            continue
        kind, said = message["header"]["msg_type"], message["content"]
        if kind == "stream":
            printed += said["text"]
        elif kind == "error":
            raise AssertionError("\n".join(said["traceback"]))
        elif kind == "status" and said["execution_state"] == "idle":
            # On the channel of the outputs, and after them; the reply is on another and may come before.
            return printed
    raise AssertionError(f"the cell had not ended after {limit_s} s")
