"""A leader that is stopped just before it acts, another one that takes over and goes on, and the first one continued.

One folder, one database, one cluster: locks keep a second control plane away from all three, so they are removed here, as somebody
might who tidies up. Then only the epoch is left, in each commit and in each call to the cluster.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from tests.doses import IS_SOAK
from tests.e2e.kills.plane import MARK, Plane, plane_in
from tests.user_machine import eventually
from tests.warm import AnyProcess
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import Unavailable
from tuttilab.scheduler.runtime import discovery

T = TypeVar("T")
LONG = f"trap '' TERM; {MARK}; while [ ! -e done ]; do sleep 0.1; done"
"""A pod hears of a stop with its next report too, and shall not have ended by then."""
TWICE = Counter({"0 1": 1, "1 1": 1})


def tried(plane: Plane, call: Callable[[Client], T]) -> T | None:
    """Once: whoever is asked may have stopped before its answer."""
    runtime = discovery.find(plane.state).runtime
    assert runtime is not None
    with suppress(Unavailable), Client(runtime.url, runtime.token, timeout_s=5.0) as client:
        return call(client)
    return None


def is_stopped(process: AnyProcess) -> bool:
    return bool(psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


def stopped(plane: Plane) -> AnyProcess:
    """The control plane that has stopped at its point, and nothing in the way of another one."""
    process = plane.process
    assert process is not None
    eventually(lambda: is_stopped(process))
    for lock in ("control.lock", "state.db.lock"):
        (plane.state / lock).unlink()
    plane.process = None
    return process


def to_a_launch(plane: Plane) -> None:
    tried(plane, lambda client: client.submit(plane.request(workers=2, script=LONG), key="job"))


def to_a_stop(plane: Plane) -> None:
    job = plane.submit("job", workers=2, script=LONG)
    plane.until_ran(job, TWICE)
    tried(plane, lambda client: client.cancel(job))


def to_an_erasure(plane: Plane) -> None:
    job = plane.submit("gone", workers=2)
    plane.ended(job)
    tried(plane, lambda client: client.delete(job))


@contextmanager
def taken_over(folder: Path, point: str, lead_there: Callable[[Plane], None]) -> Iterator[tuple[Plane, AnyProcess]]:
    """Another control plane leads, and the one before it has stopped at its point."""
    with plane_in(folder) as plane:
        assert plane.start(TUTTILAB_STOP_AT=point)
        lead_there(plane)
        old = stopped(plane)
        try:
            assert plane.start()
            yield plane, old
        finally:
            old.kill()


BEFORE = (
    ("launch.before:1", to_a_launch),
    ("stop.before:1", to_a_stop),
    ("forget.before:1", to_a_stop),
    ("drop.before:1", to_an_erasure),
)
INSIDE = (("launch.spawn:2", to_a_launch), ("stop.signal:1", to_a_stop))


@pytest.mark.parametrize(("point", "lead_there"), BEFORE if IS_SOAK else BEFORE[:1])
def test_a_leader_stopped_between_decision_and_call_changes_nothing_when_it_goes_on(
    tmp_path: Path, point: str, lead_there: Callable[[Plane], None]
) -> None:
    with taken_over(tmp_path / "p", point, lead_there) as (plane, old):
        job = plane.submit("job", workers=2, script=LONG)
        plane.until_ran(job, TWICE)
        (plane.home / "done").touch()
        plane.ended(job)
        ran = plane.ran(job)
        # Nothing of it is left that could keep a pod from being made again.
        plane.ask(lambda client: client.delete(job))
        eventually(lambda: not (plane.state / "clusters" / "here" / "pods" / job).exists())
        old.send_signal(signal.SIGCONT)
        old.wait(150)
        assert "another process leads" in (plane.state / "control.log").read_text()
        time.sleep(0.5)
        assert plane.ran(job) == ran
        assert not (plane.state / "clusters" / "here" / "pods" / job).exists()
        assert plane.ended(plane.submit("next")).phase == "Succeeded"
        plane.check_at_rest()


@pytest.mark.parametrize(("point", "lead_there"), INSIDE if IS_SOAK else INSIDE[:1])
def test_a_leader_stopped_in_the_midst_of_a_call_is_waited_for(
    tmp_path: Path, point: str, lead_there: Callable[[Plane], None]
) -> None:
    """Half of what it does is done: the other half comes before anything of the one that took over."""
    with taken_over(tmp_path / "p", point, lead_there) as (plane, old):
        other = plane.submit("other")
        # Its watcher too has tried to take up the pods, when only the half of them were there.
        refused = "service.watcher: cluster here does not answer: another control plane is in the midst of a call"
        eventually(lambda: refused in (plane.state / "control.log").read_text())
        assert plane.ran(other) == Counter()
        (plane.home / "done").touch()
        old.send_signal(signal.SIGCONT)
        old.wait(150)
        job = plane.submit("job", workers=2, script=LONG)
        done = plane.ended(job)
        assert (done.phase, len(done.attempts)) == ("Succeeded" if lead_there is to_a_launch else "Cancelled", 1)
        assert plane.ran(job) == TWICE
        assert plane.ended(other).phase == "Succeeded"
        plane.check_at_rest()
