"""Whether each fault that tests of the backend use is what it says, seen by a plain client."""

from __future__ import annotations

import json
import queue
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kube.api import Api, ApiError, Unreachable
from tests.kube.cluster import Cluster
from tests.kube.faults import FaultyApi, faulty_api
from tests.kube.processes import eventually

pytestmark = pytest.mark.tier("control-plane")
LIMIT_S = 120.0
OF_KUBERNETES = "kube-root-ca.crt"
"""It puts this map into every namespace, some time after it was made."""


@pytest.fixture
def faults(control_plane_cluster: Cluster) -> Iterator[FaultyApi]:
    with faulty_api(control_plane_cluster) as faults:
        yield faults


@pytest.fixture
def kubeconfig(control_plane_cluster: Cluster, faults: FaultyApi) -> Path:
    return faults.kubeconfig(control_plane_cluster.service_account_kubeconfig())


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[Api]:
    """The product's account, through the proxy."""
    api = Api(kubeconfig, timeout_s=LIMIT_S)
    yield api
    api.close()


@pytest.fixture
def maps(fake_namespace: str) -> str:
    return f"/api/v1/namespaces/{fake_namespace}/configmaps"


class Watching:
    """A watch in a thread: what came of it, and how it ended."""

    def __init__(self, kubeconfig: Path, path: str) -> None:
        self._config = json.loads(kubeconfig.read_text())
        self._path = path
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.end: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        cluster = self._config["clusters"][0]["cluster"]
        verify = ssl.create_default_context(cadata=b64decode(cluster["certificate-authority-data"]).decode())
        headers = {"Authorization": f"Bearer {self._config['users'][0]['user']['token']}"}
        url = f"{cluster['server']}{self._path}?watch=1&allowWatchBookmarks=true&timeoutSeconds={2 * LIMIT_S:.0f}"
        try:
            with httpx.stream("GET", url, headers=headers, verify=verify, timeout=2 * LIMIT_S, trust_env=False) as answer:
                for line in answer.iter_lines():
                    self.events.put(json.loads(line))
            self.end.put("ended")
        except httpx.TransportError:
            self.end.put("broken")

    def names_until(self, name: str) -> list[str]:
        """Of the objects whose events came, up to this one's."""
        names: list[str] = []
        while not names or names[-1] != name:
            event = self.events.get(timeout=LIMIT_S)
            if event["type"] != "BOOKMARK":
                names.append(event["object"]["metadata"]["name"])
        return names

    def names_within(self, seconds: float) -> list[str]:
        """Of the objects whose events come in this time."""
        names: list[str] = []
        end = time.monotonic() + seconds
        with suppress(queue.Empty):
            while (left := end - time.monotonic()) > 0:
                event = self.events.get(timeout=left)
                if event["type"] != "BOOKMARK":
                    names.append(event["object"]["metadata"]["name"])
        return names


def a_map(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


def test_without_a_fault_all_passes(faults: FaultyApi, api: Api, kubeconfig: Path, maps: str) -> None:
    watching = Watching(kubeconfig, maps)
    faults.wait_for_watches(1)
    assert api.post(maps, a_map("one"))["metadata"]["name"] == "one"
    assert watching.names_until("one")[-1] == "one"
    api.delete(f"{maps}/one")
    assert not api.exists(f"{maps}/one")
    with pytest.raises(ApiError, match="403"):
        api.delete("/api/v1/nodes/none")
    assert faults.seen["POST", 201] == 1


def test_a_storm_of_429_says_when_to_come_back_and_ends(faults: FaultyApi, api: Api, maps: str) -> None:
    with faults.refusing(429, methods="POST", times=2, retry_after_s=1) as rule:
        for _ in range(2):
            with pytest.raises(ApiError, match="429: refused by the test"):
                api.post(maps, a_map("one"))
        assert not api.exists(f"{maps}/one")
        api.post(maps, a_map("one"))
        assert rule.hits == 2
    with faults.refusing(500, "configmaps"):
        with pytest.raises(ApiError, match="500"):
            api.get(maps)
        assert api.get("/version")["major"] == "1"
    assert api.exists(f"{maps}/one")


def test_a_token_that_expired_is_refused(control_plane_cluster: Cluster, faults: FaultyApi, api: Api, maps: str) -> None:
    with faults.refusing(401):
        with pytest.raises(ApiError, match="401"):
            api.get(maps)
    api.get(maps)
    control_plane_cluster.revoke_tokens()
    # The API server remembers a token that was good for ten seconds.
    eventually("the token is refused", lambda: status_of(api, maps) == 401)


def status_of(api: Api, path: str) -> int:
    try:
        api.get(path)
    except ApiError as error:
        return error.status
    return 200


def test_a_create_whose_answer_is_lost_took_effect(faults: FaultyApi, api: Api, kubeconfig: Path, maps: str) -> None:
    with faults.losing_answers("configmaps"):
        with pytest.raises(Unreachable):
            api.post(maps, a_map("lost"))
        assert api.exists(f"{maps}/lost")
    with faults.not_answering("configmaps"):
        with pytest.raises(Unreachable, match="Timeout"):
            Api(kubeconfig, timeout_s=2.0).post(maps, a_map("silent"))
        eventually("the map is there", lambda: api.exists(f"{maps}/silent"))
    eventually("both are counted", lambda: faults.seen["POST", 0] == 2)


def test_a_watch_ends_with_410_or_breaks_off(faults: FaultyApi, kubeconfig: Path, maps: str) -> None:
    watching = Watching(kubeconfig, maps)
    faults.wait_for_watches(1)
    assert faults.expire_watches() == 1
    assert watching.end.get(timeout=LIMIT_S) == "ended"
    events = [watching.events.get_nowait() for _ in range(watching.events.qsize())]
    assert (events[-1]["type"], events[-1]["object"]["code"]) == ("ERROR", 410)
    watching = Watching(kubeconfig, maps)
    faults.wait_for_watches(1)
    assert faults.drop_watches() == 1
    assert watching.end.get(timeout=LIMIT_S) == "broken"


def test_watch_events_come_late_or_twice(faults: FaultyApi, api: Api, kubeconfig: Path, maps: str) -> None:
    watching = Watching(kubeconfig, maps)
    faults.wait_for_watches(1)
    watching.names_until(OF_KUBERNETES)
    with faults.held_events():
        api.post(maps, a_map("held"))
        assert watching.names_within(1.0) == []
    assert "held" in watching.names_until("held")
    with faults.repeated_events():
        api.post(maps, a_map("twice"))
        assert watching.names_until("twice")[-1] == "twice"
        assert watching.names_until("twice") == ["twice"]


def test_the_api_server_behind_it_may_be_down(control_plane_cluster: Cluster, faults: FaultyApi, api: Api, maps: str) -> None:
    api.get(maps)
    with control_plane_cluster.api_server_down(), pytest.raises(Unreachable):
        api.get(maps)
    api.get(maps)
