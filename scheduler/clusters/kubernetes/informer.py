"""What the API server has of one kind of object, kept up to date by a list and a watch.

It survives what watches do: they end, drop, repeat events, deliver old ones, and lose their place (410), after which everything is
listed again. An object never goes back to an older resource version, nor does a deleted one return by a late event.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from tuttilab.scheduler.clusters.kubernetes.api import Api, parsed
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError, sentence
from tuttilab.scheduler.domain.errors import ClusterUnreachable

log = logging.getLogger(__name__)

PAGE: Final = 500
WATCH_S: Final = (240, 300)
"""How long a watch lasts, by chance between these, so that not all of them begin anew together."""
SILENCE_S: Final = 120.0
"""The API server sends a bookmark about once a minute: a watch without any line is dead."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0

MOST_GONE: Final = 20_000

Object = dict[str, Any]
"""Any: JSON of the Kubernetes API."""


class Informer:
    """``on_change`` is called after each change of `objects`, which is by namespace and name.

    ``fields``: a selector by fields. ``keep``: makes of an object what is kept of it, with `metadata`. ``on_item``: called for each
    object that changed, with what it was and what it is; None is an object that is not there.
    """

    def __init__(
        self,
        api: Api,
        cluster: str,
        path: str,
        selector: str,
        on_change: Callable[[], None],
        fields: str = "",
        keep: Callable[[Object], Object] = lambda item: item,
        on_item: Callable[[Object | None, Object | None], None] = lambda _was, _is: None,
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._path = path
        chosen = {"labelSelector": selector, "fieldSelector": fields}
        self._query: dict[str, object] = {key: text for key, text in chosen.items() if text}
        self._keep = keep
        self._on_change = on_change
        self._on_item = on_item
        self.objects: dict[tuple[str, str], Object] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        """Uids of objects that were deleted last: no later event brings one back."""
        self._listed_at = 0
        self.listed_at = float("-inf")
        """When it was listed last (monotonic), and how many seconds that took."""
        self.listing_s = 0.0
        self._version: str | None = None
        self._failing_since: float | None = None
        self._failure = ""

    def failing_s(self) -> float:
        """For how long the API server has not answered; 0 while it does."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    @property
    def failure(self) -> str:
        return self._failure

    async def sync(self) -> None:
        """List everything anew. Raises ClusterUnreachable."""
        began = time.monotonic()
        try:
            items, version = await self._list()
        except ApiError as error:
            raise ClusterUnreachable(sentence(error, self._cluster, f"list {self._path}")) from error
        self._listed_at = max(self._listed_at, _number(version))
        fresh = {_key(item): item for item in items if item["metadata"]["uid"] not in self._gone}
        for key, known in self.objects.items():
            # Created or changed by ourselves since: newer than the list.
            if _number(known["metadata"]["resourceVersion"]) > self._listed_at:
                fresh[key] = known
        before, self.objects = self.objects, fresh
        for key in before.keys() | fresh.keys():
            was, new = before.get(key), fresh.get(key)
            if was is None or new is None or was["metadata"]["resourceVersion"] != new["metadata"]["resourceVersion"]:
                self._on_item(was, new)
        self._version = version
        self.listed_at = time.monotonic()
        self.listing_s = self.listed_at - began
        self._failing_since = None
        self._on_change()

    def put(self, item: Object) -> None:
        """An object as the API server answered it to a write of ours, or as a watch has it."""
        uid, version = item["metadata"]["uid"], _number(item["metadata"]["resourceVersion"])
        known = self.objects.get(_key(item))
        if known is not None and _number(known["metadata"]["resourceVersion"]) >= version:
            return
        if uid in self._gone:
            return
        self.objects[_key(item)] = kept = self._keep(item)
        self._on_item(known, kept)
        self._on_change()

    def drop(self, item: Object) -> None:
        """An object that is gone, unless another of its name is there by now."""
        uid = item["metadata"]["uid"]
        self._gone[uid] = None
        if len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)
        known = self.objects.get(_key(item))
        if known is not None and known["metadata"]["uid"] == uid:
            del self.objects[_key(item)]
            self._on_item(known, None)
            self._on_change()

    async def run(self) -> None:
        """Watch until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                if self._version is None:
                    await self.sync()
                if await self._watch():
                    pause = FIRST_PAUSE_S
            except ApiError as error:
                self._note_failure(sentence(error, self._cluster, f"watch {self._path}"))
                if error.status == 410:
                    self._version, self._failing_since = None, None
            except ClusterUnreachable as error:
                self._note_failure(str(error))
            except Exception:
                log.exception("cluster %s: watching %s broke, it is listed again", self._cluster, self._path)
                self._version = None
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _note_failure(self, why: str) -> None:
        self._failure = why
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            log.warning("%s", why)

    async def _list(self) -> tuple[list[Object], str]:
        items: list[Object] = []
        query: dict[str, object] = {**self._query, "limit": PAGE}
        while True:
            answer = await self._api.call("GET", self._path, query=query)
            items += map(self._keep, answer.get("items", []))
            metadata = answer["metadata"]
            if not metadata.get("continue"):
                return items, metadata["resourceVersion"]
            query["continue"] = metadata["continue"]

    async def _watch(self) -> bool:
        """Until the watch ends; whether anything came. Raises ApiError (410 when the place is lost), ClusterUnreachable."""
        seconds = random.randint(*WATCH_S)
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": seconds,
        }
        has_come = False
        async for batch in self._api.batches(self._path, query, SILENCE_S):
            self._failing_since = None
            has_come = True
            for line in batch:
                self._take(parsed(line))
        self._failing_since = None
        return has_come

    def _take(self, event: Object) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(item.get("code", 500)), str(item.get("reason", "")), str(item.get("message", "")))
        version = item["metadata"]["resourceVersion"]
        self._version = version
        if kind == "BOOKMARK" or _number(version) <= self._listed_at:
            return
        if kind == "DELETED":
            self.drop(item)
        else:
            self.put(item)


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _number(version: object) -> int:
    """Resource versions are numbers that rise (Kubernetes 1.35 promises it; every API server has had them so)."""
    return int(str(version)) if str(version).isdecimal() else 0
