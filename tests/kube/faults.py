"""An API server that misbehaves on demand: a TLS proxy before a real one, whose faults a test sets and lifts.

`with faulty_api(cluster) as faults:` and then `faults.kubeconfig(…)`, in place of the cluster's own, for what is tested. A fault
that lasts is a context: it holds inside. Outages of the whole server are levers of `Cluster` itself.

Only tokens pass a proxy, so its kubeconfigs are those of service accounts and token users. It speaks HTTP/1.1, and upgrades (exec)
do not pass.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.kube.cluster import Cluster
from tests.kube.processes import eventually
from tests.kube.proxy import Exchange, Proxy, Watch

ALL = "GET POST PUT PATCH DELETE"
EXPIRED = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old (test)"}
REASONS = {401: "Unauthorized", 403: "Forbidden", 409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}


@dataclass
class Rule:
    """What happens to requests of these methods in whose path, with its query, ``path`` is found. ``hits``: to how many it did."""

    kind: Literal["refuse", "lose the answer", "no answer"]
    methods: frozenset[str]
    path: str
    times: float
    status: int = 0
    retry_after_s: int | None = None
    hits: int = 0

    def takes(self, method: str, target: str) -> bool:
        if self.hits >= self.times or method not in self.methods or not re.search(self.path, target):
            return False
        self.hits += 1
        return True


class FaultyApi:
    """``seen`` counts requests by method and the status the client got, 0 where it got none."""

    def __init__(self, cluster: Cluster) -> None:
        self._rules: list[Rule] = []
        self._answers: list[tuple[str, Callable[[], object]]] = []
        self._is_repeating = self._is_holding = self._is_without_bookmarks = False
        self.seen: Counter[tuple[str, int]] = Counter()
        self._proxy = Proxy(cluster.control_plane, self._exchange, self._event)

    def kubeconfig(self, real: Path) -> Path:
        """The same user as in ``real``, who goes through the proxy."""
        config = json.loads(real.read_text(encoding="utf-8"))
        assert "token" in config["users"][0]["user"], "a client certificate does not pass a proxy"
        config["clusters"][0]["cluster"]["server"] = self._proxy.url
        path = real.with_name(f"{real.stem}-faulty.kubeconfig")
        path.touch(0o600)
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    # Single requests.

    @contextmanager
    def refusing(
        self, status: int, path: str = "", methods: str = ALL, *, times: float = float("inf"), retry_after_s: int | None = None
    ) -> Iterator[Rule]:
        """They are answered with ``status`` and never reach the server: 429 and 500 for storms, 401 for a token that expired."""
        with self._ruled(Rule("refuse", frozenset(methods.split()), path, times, status, retry_after_s)) as rule:
            yield rule

    @contextmanager
    def losing_answers(self, path: str = "", methods: str = "POST", *, times: float = 1) -> Iterator[Rule]:
        """The server does what was asked, then the connection breaks before the client hears of it."""
        with self._ruled(Rule("lose the answer", frozenset(methods.split()), path, times)) as rule:
            yield rule

    @contextmanager
    def not_answering(self, path: str = "", methods: str = "POST", *, times: float = 1) -> Iterator[Rule]:
        """The server does what was asked, and the client waits until its own limit."""
        with self._ruled(Rule("no answer", frozenset(methods.split()), path, times)) as rule:
            yield rule

    @contextmanager
    def answering(self, path: str, answer: Callable[[], object]) -> Iterator[None]:
        """GETs of it are answered with the JSON of ``answer()``, in place of a server that the cluster does not have."""
        self._answers = [*self._answers, (path, answer)]
        try:
            yield
        finally:
            self._answers = [each for each in self._answers if each != (path, answer)]

    # Watches.

    def watch_count(self) -> int:
        return self._proxy.do(lambda: len(self._proxy.watches))

    def wait_for_watches(self, count: int, limit_s: float = 240.0) -> None:
        eventually(f"{count} watches are open", lambda: self.watch_count() >= count, limit_s)

    def drop_watches(self) -> int:
        """All that are open break off; their number."""
        return self._end_each_watch(Watch.abort)

    def expire_watches(self) -> int:
        """All that are open end with the event that says their resourceVersion is too old (410); their number."""

        def expire(watch: Watch) -> None:
            watch.send(json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n")
            watch.end()

        return self._end_each_watch(expire)

    @contextmanager
    def held_events(self) -> Iterator[None]:
        """Watches stay open and silent; what happened meanwhile comes at the end, so that who watches knows an old state only."""
        self._is_holding = True
        try:
            yield
        finally:
            self._is_holding = False
            self._each_watch(Watch.release)

    @contextmanager
    def repeated_events(self) -> Iterator[None]:
        """Each event comes twice."""
        self._is_repeating = True
        try:
            yield
        finally:
            self._is_repeating = False

    @contextmanager
    def lost_bookmarks(self) -> Iterator[None]:
        self._is_without_bookmarks = True
        try:
            yield
        finally:
            self._is_without_bookmarks = False

    def close(self) -> None:
        self._proxy.close()

    @contextmanager
    def _ruled(self, rule: Rule) -> Iterator[Rule]:
        self._rules = [*self._rules, rule]
        try:
            yield rule
        finally:
            self._rules = [other for other in self._rules if other is not rule]

    def _each_watch(self, act: Callable[[Watch], None]) -> int:
        def each() -> int:
            watches = list(self._proxy.watches)
            for watch in watches:
                act(watch)
            return len(watches)

        return self._proxy.do(each)

    def _end_each_watch(self, end: Callable[[Watch], None]) -> int:
        """From then on they count as open no more."""

        def each(watch: Watch) -> None:
            end(watch)
            self._proxy.watches.discard(watch)

        return self._each_watch(each)

    async def _exchange(self, exchange: Exchange) -> None:
        for path, answer in self._answers:
            if exchange.method == "GET" and re.search(path, exchange.target):
                await exchange.answer(200, json.dumps(await asyncio.to_thread(answer)).encode(), {})
                self.seen["GET", 200] += 1
                return
        rule = next((rule for rule in self._rules if rule.takes(exchange.method, exchange.target)), None)
        if rule is None:
            self.seen[exchange.method, await exchange.pass_on()] += 1
        elif rule.kind == "refuse":
            body = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": rule.status,
                "message": "refused by the test",
            }
            body["reason"] = REASONS.get(rule.status, "Unknown")
            headers = {} if rule.retry_after_s is None else {"Retry-After": str(rule.retry_after_s)}
            await exchange.answer(rule.status, json.dumps(body).encode(), headers)
            self.seen[exchange.method, rule.status] += 1
        else:
            await exchange.ask()
            self.seen[exchange.method, 0] += 1
            if rule.kind == "no answer":
                await exchange.client_is_gone()
            exchange.abort()

    def _event(self, watch: Watch, line: bytes) -> None:
        is_bookmark = b'"type":"BOOKMARK"' in line[:40]
        if is_bookmark and self._is_without_bookmarks:
            return
        for _ in range(2 if self._is_repeating and not is_bookmark else 1):
            if self._is_holding:
                watch.held.append(line)
            else:
                watch.send(line)


@contextmanager
def faulty_api(cluster: Cluster) -> Iterator[FaultyApi]:
    faults = FaultyApi(cluster)
    try:
        yield faults
    finally:
        faults.close()
