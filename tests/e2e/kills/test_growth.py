"""A gang that shrinks for another job and grows back, on a real cluster, also over kill -9 of the control plane on the way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.e2e.kills.plane import MARK, Plane, plane_in, resize
from tests.user_machine import eventually

WORKER = f"{MARK}; trap 'echo bye $TUTTILAB_RANK >> left; exit 0' TERM; while [ ! -e done ]; do sleep 0.1; done"


ASKS = f"""{MARK}
trap 'exit 0' TERM
while [ ! -e done ]; do
    if [ "$TUTTILAB_WORKERS_FILE" ] && [ -e asked ]; then cp asked "$TUTTILAB_WORKERS_FILE"; fi
    sleep 0.1
done"""


def mains(plane: Plane, job_id: str) -> dict[str, int]:
    """Pod to the pid of its sidecar, for the pods of a job that live."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        plans = [Path(word) for word in process.info["cmdline"] or [] if word.endswith("plan.json")]
        found.update({path.parent.name: process.pid for path in plans if job_id in path.parts and str(plane.state) in str(path)})
    return found


@pytest.mark.feature("S16", "C05")
def test_a_second_job_gets_the_room_of_spare_workers_and_they_come_back_when_it_has_ended(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        plane.ensure()
        elastic = plane.submit("elastic", workers=4, least=2, cpus=2, script=WORKER)
        plane.until_ran(elastic, Counter({f"{rank} 1": 1 for rank in range(4)}))
        before = mains(plane, elastic)
        assert len(before) == 5
        big = plane.submit("big", cpus=4, script=f"{MARK}; sleep 1")
        plane.until_ran(big, Counter({"0 1": 1}))
        stay = {name: before[name] for name in before if name.rsplit("-", 1)[1] in ("master", "0", "1")}
        # A side-car tells its end before it is gone.
        eventually(lambda: mains(plane, elastic) == stay)
        assert sorted((plane.home / "left").read_text().split("\n"))[1:] == ["bye 2", "bye 3"], "they were asked to go"
        shown = plane.ask(lambda client: client.job(elastic)).attempts[0]
        assert (shown.phase, shown.charge["cpu"], [pod.rank for pod in shown.pods]) == ("Running", "4", [-1, 0, 1])
        assert [(pod.rank, pod.exit_code, pod.reason) for pod in sorted(shown.left, key=lambda pod: pod.rank)] == [
            (2, 0, "Stopped"), (3, 0, "Stopped"),
        ]  # fmt: skip
        assert plane.ended(big).phase == "Succeeded"
        plane.until_ran(elastic, Counter({"2 1": 2, "3 1": 2}))
        after = mains(plane, elastic)
        assert {name: after[name] for name in stay} == stay
        assert sorted(after.keys() - stay.keys()) == [f"{elastic}-1-worker-2-g1", f"{elastic}-1-worker-3-g1"]
        (plane.home / "done").touch()
        done = plane.ended(elastic)
        assert (done.phase, done.exit_code, len(done.attempts)) == ("Succeeded", 0, 1), done
        assert plane.ran(elastic) == Counter({"0 1": 1, "1 1": 1, "2 1": 2, "3 1": 2})
        plane.check_at_rest()


@pytest.mark.feature("C01")
def test_a_gang_has_as_many_workers_as_it_asks_for_also_under_the_next_control_plane(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        plane.ensure()

        def ask_for(workers: str) -> None:
            (plane.home / "new").write_text(workers)
            (plane.home / "new").rename(plane.home / "asked")

        gang = plane.submit("asks", workers=4, least=1, cpus=2, script=ASKS)
        plane.until_ran(gang, Counter({f"{rank} 1": 1 for rank in range(4)}))
        first = mains(plane, gang)[f"{gang}-1-worker-0"]
        ask_for("2")
        eventually(lambda: len(mains(plane, gang)) == 3)
        plane.kill()
        ask_for("3")
        plane.until_ran(gang, Counter({"2 1": 2}))
        ask_for("many")
        plane.until_ran(gang, Counter({"3 1": 2}))

        said = [event.text for event in plane.ask(lambda client: client.events(gang))]
        for words in ("asks for 2 workers", "asks for 3 workers", "asks for many workers, which is no whole number"):
            assert any(words in text for text in said), said
        left = plane.ask(lambda client: client.job(gang)).attempts[0].left
        assert {(pod.rank, pod.given_back) for pod in left} == {
            (2, "the job asked for 2 workers"),
            (3, "the job asked for 2 workers"),
        }
        assert mains(plane, gang)[f"{gang}-1-worker-0"] == first, "who goes on is not touched"
        assert plane.ran(gang) == Counter({"0 1": 1, "1 1": 1, "2 1": 2, "3 1": 2})
        (plane.home / "done").touch()
        assert plane.ended(gang).phase == "Succeeded"
        plane.check_at_rest()


@pytest.mark.feature("B06", "S17")
@pytest.mark.parametrize("point", ["perform.shrink:1", "perform.grow:1", "grow.reserve:1", "grow.pod:1", "grow.pod:2"])
def test_killed_between_the_decision_and_the_pods_nothing_is_lost_or_started_twice(tmp_path: Path, point: str) -> None:
    with plane_in(tmp_path / "p") as plane:
        assert plane.start(TUTTILAB_CRASH_AT=point)
        resize(plane)
        assert plane.kills == 1
        plane.check_at_rest()


def test_a_worker_that_cannot_join_costs_the_gang_nothing(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        plane.ensure()
        first = plane.submit("first", cpus=6, script="while [ ! -e first-done ]; do sleep 0.1; done")
        elastic = plane.submit("elastic", workers=2, least=1, cpus=2, script=WORKER)
        plane.until_ran(elastic, Counter({"0 1": 1}))
        # Something is in the way of the new pod's working folder, so that its side-car cannot be started.
        folder = plane.state / "clusters" / "here" / "pods" / elastic / "1" / f"{elastic}-1-worker-1-g1"
        folder.mkdir(parents=True)
        (folder / "work").touch()
        (plane.home / "first-done").touch()
        assert plane.ended(first).phase == "Succeeded"
        shown = eventually(lambda: (one := plane.ask(lambda client: client.job(elastic)).attempts[0]).left and one)
        assert (shown.phase, [pod.rank for pod in shown.pods], shown.charge["cpu"]) == ("Running", [-1, 0], "2")
        assert [(pod.reason, "File exists" in pod.given_back) for pod in shown.left] == [("NeverStarted", True)]
        # It is tried again after the back-off, as another pod.
        plane.until_ran(elastic, Counter({"0 1": 1, "1 1": 1}))
        (plane.home / "done").touch()
        done = plane.ended(elastic)
        assert (done.phase, len(done.attempts)) == ("Succeeded", 1), done
