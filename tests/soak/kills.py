"""Kills at random, of control plane, side-cars, keepers and masters, under load.

`python -m tests.soak.kills KILLS JOBS [MINUTES] [FOLDER]` ends after so many kills and jobs, or after the minutes. It prints the
kills by whom they met, jobs, attempts and violations; exit 1 when there is one. docs/soak-report.md has the figures of a run.

Each kind of process gets its share of the kills also where the machine is slow: who is furthest behind its share is next, and none
gets far ahead of another. A new control plane is let live until it has answered and for as long again as its start took, at most.

After each `AUDIT_EVERY` kills there is a pause: nothing runs and nothing is charged; then some jobs run, and what is charged is
what they asked for, and the pods of their attempts are those that have processes.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.kills.plane import MARK, Plane, plane_in
from tests.e2e.kills.pods import keepers, sidecars
from tuttilab.scheduler.domain.model import Why
from tuttilab.scheduler.domain.wire import JobView

LIVE = 30
"""Jobs that could run, in the system at any time; those whose attempt was lost wait ten seconds and longer for the next."""
MOST_LIVE = 90
"""With those that wait for their next attempt."""
PAUSE_S = (0.1, 0.7)
AUDIT_EVERY = 100
WAIT_S = 600.0
SHARES = {"control plane": 0.15, "side-car": 0.35, "keeper": 0.25, "master": 0.25}
"""Whom the kills meet."""
AHEAD = 0.05
"""How much of its kills one kind may have had more than another has had of its own."""
KILLED_AT_START = 0.1
"""Of the control planes, those that do not become ready; the next one does."""
AT_MOMENT = 0.2
"""And these at any moment of their start, as likely at each."""
SPARED = (0.0, 1.0)
"""How long a control plane that has answered is left alone, to how long its start took."""
# One process of a rank at a time, whichever attempt it is of: the lock is held by all that the pod starts.
SCRIPT = f'exec 9>>"locks/$TUTTILAB_JOB_ID.$TUTTILAB_RANK"; flock -n 9 || echo "$TUTTILAB_JOB_ID" >>overlaps; {MARK}; sleep '
ANCHORS = (1, 2, 1, 3)
"""Workers of the jobs of a pause."""


@dataclass
class Soak:
    plane: Plane
    kills: int
    most_jobs: int
    until: float
    chance: random.Random = field(default_factory=lambda: random.Random(15))
    killed: Counter[str] = field(default_factory=Counter)
    jobs: list[str] = field(default_factory=list)
    live: set[str] = field(default_factory=set)
    delayed: int = 0
    """Of those that are live, how many wait for the time of their next attempt."""
    audits: int = 0
    spared: float = 1.0
    """Of the control plane that runs or starts now: a part of `SPARED`."""
    dies_at_start: bool = False
    longest_submit_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        is_done = self.killed.total() >= self.kills and len(self.jobs) >= self.most_jobs
        return is_done or time.monotonic() > self.until

    def run(self) -> None:
        while not self.is_over:
            self._load(self.killed.total() + AUDIT_EVERY)
            self._audit(f"pause {self.audits + 1}")
            self._tell()
        self._drain()
        self._check_jobs()
        self.plane.check_at_rest()

    def _tell(self) -> None:
        by_target = ", ".join(f"{self.killed[target]} of {target}" for target in SHARES)
        sys.stdout.write(f"pause {self.audits}: {by_target}; {len(self.jobs)} jobs; {len(self.violations)} violations\n")
        sys.stdout.flush()

    def _load(self, kills: int) -> None:
        """Load and kills, until there were so many kills in all."""
        ends = threading.Event()
        killer = threading.Thread(target=self._kill, args=(ends,), daemon=True)
        killer.start()
        try:
            while not self.is_over and self.killed.total() < kills:
                while len(self.live) - self.delayed < LIVE and len(self.live) < MOST_LIVE and not self.is_over:
                    self._submit(self.chance.choice(["0.5", "1", "2"]))
                self._look()
                time.sleep(0.2)
        finally:
            ends.set()
            killer.join()

    def _submit(self, sleep: str) -> None:
        number = len(self.jobs)
        begun = time.monotonic()
        job_id = self.plane.submit(f"j{number}", workers=1 + (number % 3 == 2), script=SCRIPT + sleep)
        self.longest_submit_s = max(self.longest_submit_s, time.monotonic() - begun)
        self.jobs.append(job_id)
        self.live.add(job_id)

    def _look(self) -> None:
        unfinished = self.plane.ask(lambda client: client.jobs(limit=200)).jobs
        self.live &= {job.id for job in unfinished}
        self.delayed = sum(job.wait is not None and job.wait.why == Why.BACK_OFF for job in unfinished)

    def _kill(self, ends: threading.Event) -> None:
        while not ends.wait(self.chance.uniform(*PAUSE_S)):
            for target in self._targets():
                if self._kill_one(target):
                    self.killed[target] += 1
                    break

    def _targets(self) -> list[str]:
        """Those that may be killed now, the one first that is furthest behind its share; about one kill of it by chance."""
        wanted = {target: share * self.kills for target, share in SHARES.items()}
        had = {target: self.killed[target] / wanted[target] for target in SHARES}
        due = [target for target in SHARES if had[target] < 1 and had[target] <= min(had.values()) + AHEAD]
        return sorted(due, key=lambda target: (self.killed[target] + self.chance.random()) / wanted[target])

    def _kill_one(self, target: str) -> bool:
        """Whether there was one, and it was still there."""
        if target == "control plane":
            return self._kill_control_plane()
        found = keepers(self.plane) if target == "keeper" else sidecars(self.plane, "master" if target == "master" else "")
        if target == "side-car":
            found = [process for process in found if (pod := _pod_of(process)) and not pod.endswith("master")]
        with suppress(psutil.Error, IndexError):
            self.chance.choice(found).kill()
            return True
        return False

    def _kill_control_plane(self) -> bool:
        """Not before it has answered, but for the few that die while they start: on a busy machine nothing would ever go on."""
        process, plane = self.plane.process, self.plane
        if process is None or process.poll() is not None:
            return False
        is_ready = plane.ready_pid == process.pid
        if is_ready:
            spared_s = self.spared * max(plane.start_took_s, 1.0)
            if not plane.has_answered or time.monotonic() < plane.ready_at + spared_s:
                return False
        elif not self.dies_at_start or self.chance.random() > AT_MOMENT:
            return False
        process.kill()
        self.dies_at_start = is_ready and self.chance.random() < KILLED_AT_START
        self.spared = self.chance.uniform(*SPARED)
        return True

    def _drain(self) -> None:
        until = time.monotonic() + WAIT_S
        while self.live:
            if time.monotonic() > until:
                self.violations += [f"{job_id} has not ended {WAIT_S:g} s after the last kill" for job_id in self.live]
                return
            self._look()
            time.sleep(0.2)

    def _audit(self, name: str) -> None:
        self.audits += 1
        self._drain()
        self._compare(name, [])
        (self.plane.home / "go").unlink(missing_ok=True)
        script = f"{MARK}; while [ ! -e go ]; do sleep 0.2; done"
        ids = [self.plane.submit(f"{name}-{number}", workers=workers, script=script) for number, workers in enumerate(ANCHORS)]
        for job_id, workers in zip(ids, ANCHORS, strict=True):
            self.plane.until_ran(job_id, Counter({f"{rank} 1": 1 for rank in range(workers)}))
        self._compare(name, [self._job(job_id) for job_id in ids])
        (self.plane.home / "go").touch()
        self.live |= set(ids)
        self._drain()
        self.jobs += ids

    def _job(self, job_id: str) -> JobView:
        return self.plane.ask(lambda client: client.job(job_id))

    def _compare(self, name: str, running: list[JobView]) -> None:
        """What is charged is what these jobs asked for, and their pods are those that have a side-car."""
        wanted = {
            "cpu": sum(100 * pod.count for job in running for pod in job.pods),
            "memory": sum(256 * 2**20 * pod.count for job in running for pod in job.pods),
        }
        pods = {pod.name for job in running for pod in job.attempts[-1].pods}
        until = time.monotonic() + 60.0
        while True:
            queues = self.plane.ask(lambda client: client.queues())
            charged = {use.resource: use.used for queue in queues if queue.parent is None for use in queue.use if use.used}
            found = {_pod_of(process) for process in sidecars(self.plane, "")} - {""}
            if charged == {what: amount for what, amount in wanted.items() if amount} and found == pods:
                return
            if time.monotonic() > until:
                self.violations += [
                    f"{name}: charged {charged}, asked for {wanted}; pods {sorted(pods)}, processes {sorted(found)}"
                ]
                return
            time.sleep(0.2)

    def _check_jobs(self) -> None:
        """Every accepted job succeeded, each rank ran once in its last attempt, and none twice in any."""
        self.attempts: Counter[str] = Counter()
        for job_id in self.jobs:
            job = self.plane.ended(job_id)
            self.attempts.update(attempt.phase for attempt in job.attempts)
            ran = self.plane.ran(job_id)
            last = Counter({f"{rank} {job.attempts[-1].number}": 1 for rank in range(job.pods[0].count)})
            if job.phase != "Succeeded" or not last <= ran or max(ran.values(), default=0) > 1:
                phases = [attempt.phase for attempt in job.attempts]
                self.violations.append(f"{job_id}: {job.phase}, attempts {phases}, ran {dict(ran)}, {job.reason}")
        overlaps = self.plane.home / "overlaps"
        if overlaps.exists():
            self.violations += [f"two attempts of {line} lived at once" for line in overlaps.read_text().split()]


def _pod_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return next((Path(word).parent.name for word in process.cmdline() if word.endswith("plan.json")), "")
    return ""


def main(kills: int, jobs: int, minutes: float, folder: Path) -> int:
    begun = time.monotonic()
    with plane_in(folder / "plane") as plane:
        (plane.home / "locks").mkdir()
        plane.is_hunted = True
        plane.ensure()
        soak = Soak(plane, kills, jobs, begun + minutes * 60)
        soak.run()
    by_target = ", ".join(f"{soak.killed[target]} of {target}" for target in SHARES)
    attempts = ", ".join(f"{count} {phase}" for phase, count in sorted(soak.attempts.items()))
    sys.stdout.write(
        f"{soak.killed.total()} kills in {time.monotonic() - begun:.0f} s: {by_target}\n"
        f"{len(soak.jobs)} jobs accepted; attempts: {attempts}; longest submit {soak.longest_submit_s:.2f} s\n"
        f"{soak.audits} pauses in which ledger, rows and processes were compared\n"
        f"{len(soak.violations)} violations\n"
    )
    sys.stdout.writelines(f"  {sentence}\n" for sentence in soak.violations)
    return 1 if soak.violations else 0


if __name__ == "__main__":
    given = sys.argv[1:]
    place = Path(given[3]) if len(given) > 3 else Path(tempfile.mkdtemp(prefix="tuttilab-kills-"))
    sys.exit(main(int(given[0]), int(given[1]), float(given[2]) if len(given) > 2 else 120.0, place))
