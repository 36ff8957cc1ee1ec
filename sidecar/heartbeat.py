"""Reports to a master or to the control plane: the whole state at every change and every 5 s, for as long as the pod lives.

Runs on a thread and never holds up the pod: silence of the other side is waited out, and what changed meanwhile is told as one
state. ``http.client`` is imported by that thread, after the main command of a single pod was started.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tuttilab.sidecar import records
from tuttilab.sidecar.protocol import REPORT_PATH

PERIOD_S = 5.0
UNWANTED_PERIOD_S = 60.0
LONGEST_PERIOD_S = 60.0
"""After 401, 403, 404 or 410: nobody waits for these reports."""
ANSWER_S = 10.0
FIRST_PAUSE_S = 0.25
"""After a failure, doubling up to the period."""
LAST_PAUSE_S = 0.2
"""Between the tries of a pod that ends."""


class NoAnswer(Exception):
    """Nobody there, or nobody who answers as we expect."""


def exchange(url: str, path: str, token: str, body: Mapping[str, Any] | None, answer_s: float) -> tuple[int, dict[str, Any]]:
    """One request on a connection of its own; GET without a body. Raises NoAnswer."""
    import http.client
    from urllib.parse import urlsplit

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=answer_s)
        try:
            text = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", parts.path.rstrip("/") + path, text, headers)
            response = connection.getresponse()
            answer = response.read(2**20)
        finally:
            connection.close()
        reply = json.loads(answer) if response.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
    if not isinstance(reply, dict):
        raise NoAnswer(f"{url} answered {reply!r:.80}: expected a JSON object.")
    return response.status, reply


class Listener:
    """Where reports go: a fixed URL, or the one that a file names at present (the control plane may come back at another port)."""

    def __init__(self, url: str, url_file: str | None = None) -> None:
        self._url = url
        self._file = url_file

    def url(self) -> str:
        named = records.read(self._file) if self._file else None
        if named is not None and isinstance(named.get("url"), str):
            self._url = named["url"]
        return self._url


class Heartbeat:
    """``on_reply`` and ``on_silence`` are called on the heartbeat's thread: they only hand over."""

    def __init__(
        self,
        listener: Listener,
        token: str,
        on_reply: Callable[[dict[str, Any]], None],
        on_silence: Callable[[], None] = lambda: None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._listener = listener
        self._token = token
        self._on_reply = on_reply
        self._on_silence = on_silence
        self._period_s = period_s
        self._next_s = period_s
        """Until the next report when nothing changes; the control plane stretches it when very many report."""
        self._waiting: list[dict[str, Any]] = []
        self._last: dict[str, Any] | None = None
        self._seq = 0
        self._give_up_at: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._is_started = False

    def start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._thread.start()

    def report(self, body: dict[str, Any]) -> None:
        """Every state is told in order while somebody listens; after a silence only the newest."""
        with self._changed:
            self._waiting.append(body)
            self._changed.notify()

    def finish(self, timeout_s: float) -> None:
        """Gives what waits a last chance, at most ``timeout_s``."""
        with self._changed:
            self._give_up_at = time.monotonic() + timeout_s
            self._changed.notify()
        self.start()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        url, pause_s = self._listener.url(), 0.0
        while (body := self._next(pause_s)) is not None:
            self._seq += 1
            try:
                status, reply = exchange(url, REPORT_PATH, self._token, {**body, "seq": self._seq}, ANSWER_S)
            except NoAnswer:
                pause_s = min(max(FIRST_PAUSE_S, pause_s * 2), self._period_s)
                url = self._listener.url()
                self._on_silence()
                continue
            if status in (401, 403, 404, 410):
                pause_s = UNWANTED_PERIOD_S
                self._told(body)
            elif status == 200:
                pause_s = 0.0
                self._next_s = self._asked(reply.get("next_s"))
                self._told(body)
                self._on_reply(reply)
            else:
                pause_s = min(max(FIRST_PAUSE_S, pause_s * 2), self._period_s)

    def _asked(self, next_s: object) -> float:
        if isinstance(next_s, bool) or not isinstance(next_s, int | float) or not next_s > 0:
            return self._period_s
        return min(max(float(next_s), self._period_s), LONGEST_PERIOD_S)

    def _told(self, body: dict[str, Any]) -> None:
        with self._changed:
            self._last = body
            if self._waiting and self._waiting[0] is body:
                del self._waiting[0]

    def _next(self, pause_s: float) -> dict[str, Any] | None:
        """The state to tell next, once ``pause_s`` is over (nobody listened: then only the newest is worth telling), or once the
        period is. None when the pod ends and all is told, or its last chance is over."""
        begun = time.monotonic()
        with self._changed:
            while True:
                now = time.monotonic()
                if pause_s:
                    del self._waiting[:-1]
                if self._give_up_at is not None:
                    if not self._waiting or now >= self._give_up_at:
                        return None
                    pause_s = min(pause_s, LAST_PAUSE_S)
                due = begun + (pause_s if self._waiting or pause_s else self._next_s)
                if now >= due and (self._waiting or self._last):
                    return self._waiting[0] if self._waiting else self._last
                self._changed.wait(max(due - now, LAST_PAUSE_S))
