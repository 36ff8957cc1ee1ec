"""What is remembered of a large cluster, so that each look costs what changed and not what is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from tuttilab.scheduler.clusters.kubernetes import api as api_module
from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.api import CONNECTIONS, Api
from tuttilab.scheduler.clusters.kubernetes.fence import EPOCH, LeaseFence
from tuttilab.scheduler.clusters.kubernetes.kept import Kept, Observer, ShownNodes, due, node_kept, pod_kept
from tuttilab.scheduler.clusters.kubernetes.logs import Turns
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.errors import StaleEpoch
from tuttilab.scheduler.domain.resources import Resources


def pod(name: str, job: str = "job", node: str = "a") -> dict[str, Any]:
    labels = {names.JOB: job, names.ATTEMPT: "1"}
    metadata = {"namespace": "ml", "name": name, "uid": f"u-{name}", "resourceVersion": "1", "labels": labels, "managedFields": [1]}
    return pod_kept(
        {"metadata": metadata, "spec": {"nodeName": node, "containers": [{"name": "main"}]}, "status": {"phase": "Running"}}
    )


def node(name: str, *, is_ready: bool = True, cpu: str = "4", version: str = "1") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(is_ready)}, {"type": "DiskPressure", "status": "False"}]
    return node_kept(
        {
            "metadata": {"name": name, "resourceVersion": version},
            "status": {"allocatable": {"cpu": cpu}, "conditions": conditions, "images": ["x"] * 50},
        }
    )


def test_most_of_an_object_is_not_kept() -> None:
    assert pod("p")["spec"] == {"nodeName": "a", "terminationGracePeriodSeconds": 0}
    with_proxy = {
        **pod("p"),
        "spec": {"nodeName": "a", "initContainers": [{"name": "sidecar"}, {"name": "site-proxy", "image": "i"}]},
    }
    assert pod_kept(with_proxy)["spec"]["initContainers"] == [{"name": "site-proxy"}], "`states.hopeless` asks"
    assert "managedFields" not in pod("p")["metadata"]
    (ready,) = node("a")["status"]["conditions"]
    assert (node("a")["status"]["allocatable"], ready["type"], ready["status"]) == ({"cpu": "4"}, "Ready", "True")
    assert set(ready) == {"type", "status", "lastTransitionTime"}, "`silence` asks since when"


def test_pods_are_found_by_their_attempt_and_only_what_changed_is_looked_at() -> None:
    kept, watching = Kept(), Observer()
    kept.observers.add(watching)
    for name, job in (("a-0", "a"), ("a-1", "a"), ("b-0", "b")):
        kept.note_pod(None, pod(name, job))

    assert [each["metadata"]["name"] for each in kept.of_attempt("a", 1)] == ["a-0", "a-1"]
    assert kept.of_attempt("a", 2) == []
    assert {key for key, _ in due(watching, kept, 100.0, 2.0)} == {("ml", "a-0"), ("ml", "a-1"), ("ml", "b-0")}
    assert list(due(watching, kept, 101.0, 2.0)) == []
    kept.note_pod(pod("a-1", "a"), None)
    assert list(due(watching, kept, 101.0, 2.0)) == [(("ml", "a-1"), None)]
    assert [each["metadata"]["name"] for each in kept.of_attempt("a", 1)] == ["a-0"]


def test_what_depends_on_time_is_looked_at_again_and_pods_of_a_node_that_stops_answering_at_once() -> None:
    kept, watching = Kept(), Observer(unsettled={("ml", "a-0")})
    kept.observers.add(watching)
    kept.note_pod(None, pod("a-0", node="a"))
    kept.note_pod(None, pod("b-0", node="b"))
    list(due(watching, kept, 100.0, 2.0))

    assert [key for key, _ in due(watching, kept, 101.0, 2.0)] == []
    assert [key for key, _ in due(watching, kept, 102.5, 2.0)] == [("ml", "a-0")]
    kept.note_node(node("b"), node("b", version="2"))
    assert list(due(watching, kept, 103.0, 2.0)) == []
    kept.note_node(node("b"), node("b", is_ready=False))
    assert [key for key, _ in due(watching, kept, 103.0, 2.0)] == [("ml", "b-0")]


def test_nodes_are_shown_as_the_same_while_nothing_of_them_changes() -> None:
    shown, objects = ShownNodes("k", ()), {("", name): node(name) for name in ("b", "a")}
    for each in objects.values():
        shown.note(None, each)
    first = shown.of(objects, {})
    assert [each.name for each in first] == ["a", "b"]

    shown.note(objects["", "a"], objects["", "a"])
    assert shown.of(objects, {}) is first
    others = {"b": Resources.parse({"cpu": 1})}
    beside = shown.of(objects, others)
    assert ([str(each.others) for each in beside], beside[0] is first[0]) == (["nothing", "1 CPU"], True)
    objects["", "a"] = node("a", cpu="8")
    shown.note(None, objects["", "a"])
    assert [each.allocatable["cpu"] for each in shown.of(objects, others)] == [8000, 4000]
    shown.note(objects.pop(("", "b")), None)
    assert [each.name for each in shown.of(objects, others)] == ["a"]


class Leases:
    """Answers reads of a Lease, each when it is allowed to."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.reads = 0

    async def call(self, _method: str, _path: str, _body: object = None) -> dict[str, Any]:
        self.reads += 1
        found = {"metadata": {"annotations": {EPOCH: str(self.epoch)}}}
        await asyncio.sleep(0.01)
        return found


async def test_checks_that_come_together_share_a_read_that_begins_after_each_of_them(tmp_path: Path) -> None:
    leases = Leases(0)
    fence = LeaseFence(cast(Api, leases), "k", "ml", "ours", tmp_path)

    await asyncio.gather(*(fence.check() for _ in range(500)))

    assert leases.reads == 1
    under_way = asyncio.create_task(fence.check())
    await asyncio.sleep(0.005)
    leases.epoch = 5  # after the read that is under way
    late = asyncio.create_task(fence.check())
    await under_way
    with pytest.raises(StaleEpoch, match="and 5 leads"):
        await late


def test_some_follow_their_logs_and_the_others_read_them_less_often_the_more_they_are() -> None:
    turns = Turns(follow=2)
    with contextlib.ExitStack() as held:
        assert [held.enter_context(turns.taken()) for _ in range(1002)] == [True, True] + [False] * 1000
        assert turns.pause_s == 50.0
    with turns.taken() as may_follow:
        assert may_follow


async def test_calls_do_not_wait_for_connections_that_streams_hold_and_the_api_servers_clock_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def answer(request: Any) -> Any:
        if request.query.get("follow") != "true":
            return web.json_response({"ok": True})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"line\n")
        await ended.wait()
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    settings = KubernetesSettings(namespace="ml", sidecar_image="i", report_url="http://x", kubeconfig=str(tmp_path / "config"))
    api = Api("k", settings)
    streams = [api.batches("/log", {"follow": "true"}, 30.0) for _ in range(CONNECTIONS + 20)]

    assert await asyncio.gather(*(anext(stream) for stream in streams)) == [[b"line"]] * len(streams)
    async with asyncio.timeout(5):
        assert await api.call("GET", "/pods") == {"ok": True}
    assert abs(api.now() - time.time()) < 0.1, "its clock and ours are the same"
    monkeypatch.setattr(api_module, "time", SimpleNamespace(time=lambda: time.time() - 3600, monotonic=time.monotonic))
    await api.call("GET", "/pods")
    assert abs(api.now() - time.time()) < 3, "ours is an hour behind"

    ended.set()
    await asyncio.gather(*(stream.aclose() for stream in streams))
    await api.close()
    await runner.cleanup()
