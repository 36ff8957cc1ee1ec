"""A real control plane that is killed and started again over one state folder, a workload, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from tests import warm
from tests.warm import AnyProcess
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import CommitUnknown, StoreError, TuttiError, Unavailable
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.store.verify import differences, replay

T = TypeVar("T")
START_S = 120.0
DEADLINE_S = 120.0
CONFIG = """
clusters:
  - name: here
    kind: local
    nodes:
      - {name: a, cpus: 8, memory: 16Gi}
limits: {heartbeat_s: 0.5, lease_s: 8, lost_after_s: 8}
"""
MARK = 'echo "$TUTTILAB_RANK $TUTTILAB_ATTEMPT" >> runs/$TUTTILAB_JOB_ID'


@dataclass
class Plane:
    """``kills`` counts how often it was killed, by us or at a point that a variable named."""

    home: Path
    process: AnyProcess | None = None
    kills: int = 0
    accepted: dict[str, str] = field(default_factory=dict)
    """Idempotency key to job id."""
    program: tuple[str, ...] = ()
    """Arguments of Python, where it is another one than the control plane's own."""
    more_environ: dict[str, str] = field(default_factory=dict)
    is_hunted: bool = False
    """Somebody kills it at any moment, also while it starts."""
    start_took_s: float = 0.0
    """The last time that it became ready."""
    ready_at: float = 0.0
    ready_pid: int = 0
    """Of the process that became ready then."""
    has_answered: bool = False
    """Since it became ready."""

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TUTTILAB_")}
        return {**kept, "HOME": str(self.home), "TUTTILAB_STATE_DIR": str(self.state)}

    def start(self, **environ: str) -> bool:
        """Whether it became ready; else it has died on the way."""
        self.process = self.launch(**environ)
        begun = time.monotonic()
        until = time.monotonic() + (10 * START_S if self.is_hunted else START_S)
        while time.monotonic() < until:
            if self.has_died():
                return False
            found = discovery.find(self.state).runtime
            if found is not None and found.pid == self.process.pid:
                self.ready_at = time.monotonic()
                self.start_took_s = self.ready_at - begun
                self.has_answered, self.ready_pid = False, self.process.pid
                return True
            time.sleep(0.02)
        raise AssertionError(f"not ready after {START_S} s: {(self.home / 'serve.log').read_text()[-2000:]}")

    def launch(self, **environ: str) -> AnyProcess:
        (self.home / "runs").mkdir(exist_ok=True)
        config = self.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        given = {**self.environ, **self.more_environ, **environ}
        with open(self.home / "serve.log", "ab") as log:
            if not self.program:
                return warm.serve(["--config", str(config)], self.home, given, log)
            command = [sys.executable, *self.program, "--config", str(config)]
            return subprocess.Popen(command, env=given, cwd=self.home, stdout=log, stderr=log)

    def has_died(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            assert self.process.returncode == -signal.SIGKILL, (self.home / "serve.log").read_text()[-3000:]
            self.kills += 1
            self.process = None
        return self.process is None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.has_died()

    def ensure(self) -> None:
        while self.has_died() and not self.start():
            assert self.is_hunted, "it dies without being told to"

    def ask(self, call: Callable[[Client], T]) -> T:
        """Asked until it answers; a control plane that has died is started again."""
        until = time.monotonic() + (10 * DEADLINE_S if self.is_hunted else DEADLINE_S)
        while True:
            self.ensure()
            runtime = discovery.find(self.state).runtime
            try:
                if runtime is not None:
                    with Client(runtime.url, runtime.token, timeout_s=10.0) as client:
                        answer = call(client)
                    self.has_answered = True
                    return answer
            except (Unavailable, CommitUnknown, StoreError):
                assert time.monotonic() < until, "no answer"
            time.sleep(0.05)

    def submit(
        self, key: str, *, workers: int = 1, least: int | None = None, cpus: float = 0.1, script: str = MARK, times: int = 1
    ) -> str:
        request = self.request(workers=workers, least=least, cpus=cpus, script=script)
        for _ in range(times):
            job_id = self.ask(lambda client: client.submit(request, key=key)).id
            assert self.accepted.setdefault(key, job_id) == job_id, f"{key} gave two jobs"
        return self.accepted[key]

    def request(self, *, workers: int = 1, least: int | None = None, cpus: float = 0.1, script: str = MARK) -> JobRequest:
        return JobRequest(
            command=("sh", "-c", script),
            workdir=str(self.home),
            grace="1s",
            pods=(PodRequest(role="worker", count=workers, min_count=least, cpus=cpus, memory="256Mi"),),
        )

    def ended(self, job_id: str) -> JobView:
        until = time.monotonic() + DEADLINE_S
        while True:
            job = self.ask(lambda client: client.job(job_id))
            if job.phase in ("Succeeded", "Failed", "Cancelled"):
                return job
            assert time.monotonic() < until, job
            time.sleep(0.05)

    def ran(self, job_id: str) -> Counter[str]:
        """How often each rank of each attempt ran."""
        path = self.home / "runs" / job_id
        return Counter(path.read_text().splitlines()) if path.exists() else Counter()

    def until_ran(self, job_id: str, ranks: Counter[str]) -> None:
        """Returns when these have started, each as often as it says."""
        until = time.monotonic() + DEADLINE_S
        while not ranks <= self.ran(job_id):
            self.ensure()
            assert time.monotonic() < until, (self.ran(job_id), self.ask(lambda client: client.job(job_id)))
            time.sleep(0.05)

    def processes(self) -> list[str]:
        """Everything but the control plane that runs because of this folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                texts = [*process.cmdline(), *process.environ().values()]
                is_it = process.status() != psutil.STATUS_ZOMBIE and any(str(self.state) in text for text in texts)
                if is_it and process.pid not in (os.getpid(), self.process.pid if self.process else 0):
                    found.append(" ".join(process.cmdline()))
        return found

    def check_at_rest(self) -> None:
        """Nothing runs, nothing is charged, no pod is kept, and the journal gives the rows."""
        until = time.monotonic() + DEADLINE_S
        while left := self.processes():
            assert time.monotonic() < until, left
            time.sleep(0.05)
        queues = self.ask(lambda client: client.queues())
        assert all(use.used == 0 for queue in queues for use in queue.use), queues
        kept = self.state / "clusters" / "here" / "pods"
        while (left := [str(a) for a in kept.glob("*/*/.attempt.json") if not (a.parent / ".forgotten").exists()]) != []:
            assert time.monotonic() < until, left
            time.sleep(0.05)
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(150) == 0
        self.process = None
        assert asyncio.run(self._verified()) == []

    async def _verified(self) -> list[str]:
        store = SqlStore(f"sqlite:///{self.state}/state.db")
        await store.open()
        try:
            return [sentence async for sentence in differences(store, await replay(store))]
        finally:
            await store.close()


@contextmanager
def plane_in(home: Path) -> Iterator[Plane]:
    home.mkdir(parents=True)
    plane = Plane(home)
    try:
        yield plane
    finally:
        if plane.process is not None:
            plane.process.kill()
            plane.process.wait()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if str(plane.state) in " ".join([*process.cmdline(), *process.environ().values()]) and process.pid != os.getpid():
                    process.kill()


def work(plane: Plane) -> None:
    """Every kind of thing that is written, launched, stopped and let go of; then what must be true of it."""
    upload = plane.ask(lambda client: client.put_artifact(b"x" * 100_000))
    assert plane.ask(lambda client: client.get_artifact(upload)) == b"x" * 100_000
    single = plane.submit("single", times=2)
    gang = plane.submit("gang", workers=2, script=f"{MARK}; sleep 0.3", times=2)
    long = plane.submit("long", workers=2, script=f"{MARK}; sleep 300")
    plane.until_ran(long, Counter({"0 1": 1, "1 1": 1}))
    plane.ask(lambda client: client.cancel(long))
    assert plane.ended(long).phase == "Cancelled"
    for job_id, ranks in ((single, 1), (gang, 2)):
        done = plane.ended(job_id)
        assert done.phase == "Succeeded", done
        assert [attempt.phase for attempt in done.attempts] == ["Succeeded"]
        assert plane.ran(job_id) == Counter({f"{rank} 1": 1 for rank in range(ranks)})
    assert plane.ran(long) == Counter({"0 1": 1, "1 1": 1})
    resized = resize(plane)
    _delete(plane, single)
    with suppress(TuttiError):
        plane.submit("single")  # its key stands for a job that is gone
    jobs = plane.ask(lambda client: client.jobs(all=True)).jobs
    assert sorted(job.id for job in jobs) == sorted([gang, long, *resized])
    plane.check_at_rest()


def resize(plane: Plane) -> list[str]:
    """A gang gives two workers back to a job that waits and is given others later; the two that go on are never started again."""
    elastic = plane.submit("elastic", workers=4, least=2, cpus=2, script=f"{MARK}; while [ ! -e done ]; do sleep 0.1; done")
    plane.until_ran(elastic, Counter({f"{rank} 1": 1 for rank in range(4)}))
    big = plane.submit("big", cpus=4)
    assert plane.ended(big).phase == "Succeeded"
    assert plane.ran(big) == Counter({"0 1": 1})
    ranks = Counter({"0 1": 1, "1 1": 1, "2 1": 2, "3 1": 2})
    plane.until_ran(elastic, ranks)
    (plane.home / "done").touch()
    done = plane.ended(elastic)
    assert (done.phase, done.exit_code, [attempt.phase for attempt in done.attempts]) == ("Succeeded", 0, ["Succeeded"]), done
    assert plane.ran(elastic) == ranks
    return [elastic, big]


def _delete(plane: Plane, job_id: str) -> None:
    """The answer to a first try may have been lost."""
    from tuttilab.scheduler.domain.errors import NotFound

    with suppress(NotFound):
        plane.ask(lambda client: client.delete(job_id))
