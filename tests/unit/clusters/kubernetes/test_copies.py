"""When the copies of logs begin while many pods are made."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from tuttilab.scheduler.clusters.kept import folders
from tuttilab.scheduler.clusters.kubernetes import logs
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.attempts import Attempts, FileNotes
from tuttilab.scheduler.clusters.kubernetes.copies import LogCopies
from tuttilab.scheduler.clusters.kubernetes.kept import Kept
from tuttilab.scheduler.clusters.kubernetes.states import Seen

KEYS = [("job", 1, f"pod-{number}") for number in range(3)]


class Followed:
    """Logs of one line each, which go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def batches(
        self, path: str, query: Mapping[str, object], idle_s: float, unfinished: list[bytes]
    ) -> AsyncGenerator[list[bytes]]:
        self.asked.append(path.split("/")[-2])
        yield [b"2026-11-29T12:00:00.000000000Z hello"]
        await asyncio.sleep(3600)


def seen(name: str) -> Seen:
    return Seen({"metadata": {"namespace": "n", "name": name, "uid": name}, "spec": {}, "status": {}})


async def test_a_log_that_is_read_is_copied_at_once_and_others_once_the_pods_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PAUSE_S", 0.01)
    is_launching = True
    api, kept, attempts = Followed(), Kept(), Attempts(tmp_path, FileNotes(tmp_path))
    await attempts.make_folders("job", 1, [pod for _, _, pod in KEYS])
    copies = LogCopies(cast("Api", api), attempts, kept, lambda: None, tmp_path, is_shared=False, is_launching=lambda: is_launching)
    for key in KEYS:
        pod = seen(key[2]).pod
        kept.pods["n", key[2]] = pod
        copies.follow(key, Seen(pod))
    try:
        await asyncio.sleep(0.2)
        assert api.asked == []

        copies.want(KEYS[1])
        await _until(lambda: (folders.pod_folder(tmp_path, *KEYS[1]) / "log").is_file())
        assert api.asked == ["pod-1"]

        is_launching = False
        await _until(lambda: len(api.asked) == 3)
    finally:
        await copies.close()


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110  files and requests have no event
            await asyncio.sleep(0.01)
