"""Reports the whole state to a master or to the control plane, at every change and every 5 s, for as long as the pod lives.

Runs on its own thread and never delays the pod: while there is no answer it retries, and then reports only the newest state.
That thread imports ``http.client``, so in a single pod the import comes after the start of the main command.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tuttilab.sidecar import records
from tuttilab.sidecar.protocol import CLAIM, REPORT_PATH

PERIOD_S = 5.0
REFUSED_PERIOD_S = 60.0
"""After 401, 403, 404 or 410: nobody waits for these reports."""
LONGEST_PERIOD_S = 60.0
ANSWER_TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.25
"""Pause after a failure; doubles up to the period."""
FINAL_RETRY_S = 0.2
"""Between the retries of a pod that ends."""


class NoAnswer(Exception):
    """No answer, or one that is no JSON object."""


def exchange(url: str, path: str, token: str, body: Mapping[str, Any] | None, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Sends one request on its own connection: POST, or GET without a body. Raises NoAnswer."""
    import http.client
    from urllib.parse import urlsplit

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
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


class ReportUrl:
    """Where reports go: a fixed URL, or the one that a file holds at present (a restarted control plane may have another port)."""

    def __init__(self, url: str, url_file: str | None = None) -> None:
        self._url = url
        self._file = url_file

    def current(self) -> str:
        named = records.read(self._file) if self._file else None
        if named is not None and isinstance(named.get("url"), str):
            self._url = named["url"]
        return self._url


class Heartbeat:
    """The thread that reports. It calls ``on_reply`` and ``on_no_answer``, which only hand over to the event loop."""

    def __init__(
        self,
        report_url: ReportUrl,
        token: str,
        on_reply: Callable[[dict[str, Any]], None],
        on_no_answer: Callable[[], None] = lambda: None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._report_url = report_url
        self._token = token
        self._on_reply = on_reply
        self._on_no_answer = on_no_answer
        self._period_s = period_s
        self._next_s = period_s
        """Until the next report when nothing changes; the control plane lengthens it when very many pods report."""
        self._undelivered: list[dict[str, Any]] = []
        self._last_report: dict[str, Any] | None = None
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
        """Queues a state. States are delivered in order; after a failure only the newest."""
        with self._changed:
            self._undelivered.append(body)
            self._changed.notify()

    def finish(self, timeout_s: float) -> None:
        """Tries to deliver the queued states for at most ``timeout_s``, then ends."""
        with self._changed:
            self._give_up_at = time.monotonic() + timeout_s
            self._changed.notify()
        self.start()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        from urllib.parse import urlencode

        url, pause_s = self._report_url.current(), 0.0
        while (body := self._next_report(pause_s)) is not None:
            self._seq += 1
            claim = urlencode({key: body[key] for key in CLAIM if key in body})
            try:
                status, reply = exchange(url, f"{REPORT_PATH}?{claim}", self._token, {**body, "seq": self._seq}, ANSWER_TIMEOUT_S)
            except NoAnswer:
                pause_s = min(max(FIRST_RETRY_S, pause_s * 2), self._period_s)
                url = self._report_url.current()
                self._on_no_answer()
                continue
            if status in (401, 403, 404, 410):
                pause_s = REFUSED_PERIOD_S
                self._delivered(body)
            elif status == 200:
                pause_s = 0.0
                self._next_s = self._period_of(reply.get("next_s"))
                self._delivered(body)
                self._on_reply(reply)
            else:
                pause_s = min(max(FIRST_RETRY_S, pause_s * 2), self._period_s)

    def _period_of(self, next_s: object) -> float:
        if isinstance(next_s, bool) or not isinstance(next_s, int | float) or not next_s > 0:
            return self._period_s
        return min(max(float(next_s), self._period_s), LONGEST_PERIOD_S)

    def _delivered(self, body: dict[str, Any]) -> None:
        with self._changed:
            self._last_report = body
            if self._undelivered and self._undelivered[0] is body:
                del self._undelivered[0]

    def _next_report(self, pause_s: float) -> dict[str, Any] | None:
        """Waits for the next state to report: after ``pause_s`` (the last try failed, so only the newest is kept), or after the
        period. None when the pod ends and everything is delivered, or when `finish` timed out."""
        begun = time.monotonic()
        with self._changed:
            while True:
                now = time.monotonic()
                if pause_s:
                    del self._undelivered[:-1]
                if self._give_up_at is not None:
                    if not self._undelivered or now >= self._give_up_at:
                        return None
                    pause_s = min(pause_s, FINAL_RETRY_S)
                due = begun + (pause_s if self._undelivered or pause_s else self._next_s)
                if now >= due and (self._undelivered or self._last_report):
                    return self._undelivered[0] if self._undelivered else self._last_report
                self._changed.wait(max(due - now, FINAL_RETRY_S))
