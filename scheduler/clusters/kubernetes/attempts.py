"""What the control plane notes of an attempt beside the cluster, and the folders with the logs of its pods.

The pods' labels say what is there. The note says what must not be there again: pods that were made, stopped or forgotten. It is
kept before the pods that it is about are made. Where: a file beside the logs for a control plane that leads alone; the database for
one of several (`service/attempt_notes.py`), of which the next leader has to know it. `tests/contract/test_attempt_notes.py` asks
both the same. The notes of a launch alone need not outlive a crash of the machine: the pods' own names, digests and finalizers say
the same, so that they are made once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tuttilab.scheduler.clusters.kept import folders
from tuttilab.sidecar import records

FILE: Final = folders.ATTEMPT


@dataclass(slots=True)
class Noted:
    """``digest``: of the plan. ``pods``: their digests, by name; ``made``: uids of those that exist or existed."""

    epoch: int
    digest: str
    namespace: str
    pods: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    never: list[str] = field(default_factory=list)
    """Pods that were stopped before they were made."""
    is_stopped: bool = False
    is_forgotten: bool = False
    refused: str = ""
    told: list[str] = field(default_factory=list)
    """Pods that were asked to stop before they had ended."""
    why: dict[str, str] = field(default_factory=dict)
    """Why we deleted a pod before its user code ran, by its name."""
    notes: dict[str, str] = field(default_factory=dict)
    """A sentence for the pod's log."""


Record = Mapping[str, Any]
"""The fields of a `Noted`. ``Any``: they have different types."""


class Keeper(Protocol):
    """Where the notes of one cluster are kept."""

    def lead(self, epoch: int) -> None:
        """From now on, notes are written by the leader of ``epoch``."""
        ...

    def peek(self, job_id: str, attempt: int) -> Record | None:
        """`read` where that needs no waiting; None elsewhere."""
        ...

    async def all(self) -> Mapping[tuple[str, int], Record]:
        """Of all attempts whose pods are not forgotten, where `peek` cannot tell them."""
        ...

    async def read(self, job_id: str, attempt: int) -> Record | None: ...

    async def write(self, job_id: str, attempt: int, record: Record, *, is_over: bool, is_durable: bool = True) -> None:
        """Returns once it is kept, with ``is_durable`` so that it outlives a crash of the machine.

        A keeper that several control planes share raises StaleEpoch for a former leader.
        """
        ...

    async def erase(self, job_id: str, attempt: int) -> None: ...


class Together:
    """Short work with files, in a thread: what comes while the thread is busy is done in one go after it."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], None], asyncio.Future[None]]] = []
        self._working: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[], None]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work(), name="files of attempts")
        await done

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            failures = await asyncio.to_thread(lambda works: [_failure(work) for work in works], [work for work, _ in batch])
            for (_, done), failure in zip(batch, failures, strict=True):
                if done.done():
                    continue  # nobody waits any more
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)


def _failure(work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except Exception as error:
        return error
    return None


class FileNotes:
    """A file in the attempt's folder, for the only control plane of a state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._together = Together()

    def lead(self, epoch: int) -> None:
        """The lock of the state folder says who leads."""

    def peek(self, job_id: str, attempt: int) -> Record | None:
        return records.read(str(folders.attempt_folder(self._state_dir, job_id, attempt) / FILE))

    async def all(self) -> Mapping[tuple[str, int], Record]:
        return {}

    async def read(self, job_id: str, attempt: int) -> Record | None:
        return self.peek(job_id, attempt)

    async def write(self, job_id: str, attempt: int, record: Record, *, is_over: bool, is_durable: bool = True) -> None:
        folder = folders.attempt_folder(self._state_dir, job_id, attempt)
        if is_durable:
            await asyncio.to_thread(self._write, folder, record, is_durable=True)
        else:
            await self._together.run(lambda: self._write(folder, record, is_durable=False))

    @staticmethod
    def _write(folder: Path, record: Record, *, is_durable: bool) -> None:
        path = str(folder / FILE)
        try:
            records.write(path, record, is_durable=is_durable)
        except FileNotFoundError:
            # Seldom: each call that has to wait for the interpreter costs a launch among thousands more than the work.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            records.write(path, record, is_durable=is_durable)
        if is_durable:
            for parent in (folder.parent, folder.parent.parent):
                records.sync_folder(str(parent))

    async def erase(self, job_id: str, attempt: int) -> None:
        (folders.attempt_folder(self._state_dir, job_id, attempt) / FILE).unlink(missing_ok=True)


class Attempts:
    """Of one cluster: notes, kept in memory too, and folders below ``log_dir``."""

    def __init__(self, log_dir: Path, keeper: Keeper) -> None:
        self._log_dir = log_dir
        self._keeper = keeper
        self._known: dict[tuple[str, int], Noted | None] = {}
        self._is_loaded = False
        self._loading = asyncio.Lock()
        self._elsewhere: dict[tuple[str, int], bool] = {}
        self._together = Together()

    def folder(self, job_id: str, attempt: int) -> Path:
        return folders.attempt_folder(self._log_dir, job_id, attempt)

    def pod_folder(self, job_id: str, attempt: int, pod: str) -> Path:
        return folders.pod_folder(self._log_dir, job_id, attempt, pod)

    def lead(self, epoch: int) -> None:
        """What another leader noted meanwhile is read anew."""
        self._keeper.lead(epoch)
        self._known.clear()
        self._is_loaded = False

    async def load(self) -> None:
        """Before pods are looked at. Once for each epoch that is led: from then on only we note anything."""
        async with self._loading:
            if not self._is_loaded:
                self._known |= {key: Noted(**record) for key, record in (await self._keeper.all()).items()}
                self._is_loaded = True

    def get(self, job_id: str, attempt: int) -> Noted | None:
        """Of an attempt whose pods are shown. None also for one that was forgotten before we led, where a database keeps notes."""
        key = (job_id, attempt)
        if key not in self._known:
            record = self._keeper.peek(job_id, attempt)
            self._known[key] = None if record is None else Noted(**record)
        return self._known[key]

    async def find(self, job_id: str, attempt: int) -> Noted | None:
        """Of any attempt."""
        key = (job_id, attempt)
        if self._known.get(key) is None:
            record = await self._keeper.read(job_id, attempt)
            self._known[key] = None if record is None else Noted(**record)
        return self._known[key]

    async def put(self, job_id: str, attempt: int, noted: Noted, *, is_durable: bool = True) -> None:
        """Raises StaleEpoch, StoreError. ``is_durable``: it has to outlive a crash of the machine too."""
        await self._keeper.write(job_id, attempt, asdict(noted), is_over=noted.is_forgotten, is_durable=is_durable)
        self._known[job_id, attempt] = noted

    async def make_folders(self, job_id: str, attempt: int, pods: Iterable[str]) -> None:
        wanted = [self.pod_folder(job_id, attempt, pod) for pod in pods]

        def make() -> None:
            for folder in wanted:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

        await self._together.run(make)

    def is_elsewhere(self, job_id: str, attempt: int) -> bool:
        """Whether another control plane made the attempt's pods and keeps their logs in a folder that we do not see.

        As it was when this was asked first: we make a folder of our own afterwards.
        """
        key = (job_id, attempt)
        if key not in self._elsewhere:
            self._elsewhere[key] = self._known.get(key) is not None and not self.folder(job_id, attempt).is_dir()
        return self._elsewhere[key]

    async def erase(self, job_id: str, attempt: int) -> None:
        """The note first: where others may lead, only the leader comes further."""
        folder = self.folder(job_id, attempt)
        self._known.pop((job_id, attempt), None)
        self._elsewhere.pop((job_id, attempt), None)
        await self._keeper.erase(job_id, attempt)
        await asyncio.to_thread(folders.erase, folder)
        try:
            folder.parent.rmdir()
        except OSError:
            pass  # other attempts are still there, or nothing was
