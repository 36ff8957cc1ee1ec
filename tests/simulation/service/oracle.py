"""The judge: keeps its own books of what was acknowledged, committed and done, and raises `Violation` when a promise is broken.

Written from the list of invariants in plain Python; it asks the code under test nothing but rows and effects.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import ClassVar

from tuttilab.scheduler.domain.model import (
    MASTER,
    Attempt,
    AttemptPhase,
    Job,
    JobPhase,
    Node,
    PodPhase,
    Queue,
    Run,
    RunPhase,
    StopReason,
    When,
)
from tuttilab.scheduler.domain.resources import total
from tuttilab.scheduler.store.base import Batch

LIVE = ("Admitted", "Launching", "Running", "Stopping")
JOB_EDGES = {
    "Queued": ("Active", "Failed", "Cancelled"),
    "Active": ("Queued", "Succeeded", "Failed", "Cancelled"),
    "Succeeded": (),
    "Failed": (),
    "Cancelled": (),
}


class Violation(AssertionError):
    """Which invariant, and what was seen. Kept in ``seen``, because the code under test may catch what it does not know."""

    seen: ClassVar[list[Violation]] = []

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.seen.append(self)


def must(is_so: bool, what: str) -> None:
    if not is_so:
        raise Violation(what)


class Oracle:
    def __init__(self, nodes: Sequence[Node], queues: Sequence[Queue], clock: Callable[[], float]) -> None:
        self._room = {node.name: node.allocatable for node in nodes}
        self._queues = {queue.name: queue for queue in queues}
        self.jobs: dict[str, Job] = {}
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self.counts: Counter[str] = Counter()
        self.runs: dict[str, Run] = {}
        self.accepted_runs: dict[str, None] = {}
        self._nodes: dict[str, tuple[str, str]] = {}
        """By job, the run and the node that it is of."""
        self._deleted: set[str] = set()
        self._by_key: dict[str, str] = {}
        self._acknowledged: set[str] = set()
        self._cancelled: set[str] = set()
        self._epoch = self._looked = 0
        self._at = 0.0
        self._uids: dict[str, set[str]] = {}
        self._known_at: dict[str, float] = {}
        self._given_back_at: dict[str, float] = {}
        self._clock = clock
        self._user_code: Counter[str] = Counter()
        self._exits: dict[str, int] = {}
        self._mains: dict[str, int] = {}
        self._flushed: dict[str, dict[str, str]] = {}
        self._alive: defaultdict[tuple[str, int], set[str]] = defaultdict(set)

    # --- what clients were told ------------------------------------------------------------------------------------

    def submitted(self, key: str, job_id: str) -> None:
        self.counts["acknowledged submits"] += 1
        must(self._by_key.setdefault(key, job_id) == job_id, f"I1: key {key} gave {self._by_key[key]} and {job_id}")
        must(job_id in self.jobs or job_id in self._deleted, f"I1: {job_id} was acknowledged and is in no row")
        self._acknowledged.add(job_id)

    def cancelled(self, job_id: str) -> None:
        self.counts["acknowledged cancels"] += 1
        job = self.jobs.get(job_id)
        must(job is None or job.cancel_requested or job.phase.is_terminal, f"I1: the cancel of {job_id} is in no row")
        self._cancelled.add(job_id)

    def accepted_run(self, run_id: str) -> None:
        self.counts["acknowledged runs, retries and cancels of them"] += 1
        must(run_id in self.runs, f"I1: run {run_id} was acknowledged and is in no row")
        self.accepted_runs[run_id] = None

    # --- what was committed ----------------------------------------------------------------------------------------

    def opened(self, epoch: int) -> None:
        must(epoch > self._epoch, f"I11: epoch {epoch} after {self._epoch}")
        self._epoch = epoch

    def committed(self, batch: Batch, keys: Mapping[str, str]) -> None:
        self.counts["commits"] += 1
        must(batch.epoch == self._epoch, f"I11: a commit of epoch {batch.epoch} in epoch {self._epoch}")
        for entry in batch.entries:
            must(entry.at >= self._at, f"I24: service time went back from {self._at} to {entry.at}")
            self._at = entry.at
        for run in batch.runs:
            self._run(run)
        for job in batch.jobs:
            self._job(job)
        for attempt in batch.attempts:
            self._attempt(attempt)
        for job_id in batch.deleted_jobs:
            must(self.jobs[job_id].phase.is_terminal, f"I10: {job_id} was deleted while live")
            del self.jobs[job_id]
            self._deleted.add(job_id)
        must(self._acknowledged <= self.jobs.keys() | self._deleted, "I1: an acknowledged job is gone")
        must(len(set(keys.values())) == len(keys), "I1: two keys stand for one job")
        self._limits()

    def _job(self, job: Job) -> None:
        old = self.jobs.get(job.id)
        must(job.id not in self._deleted, f"I10: {job.id} came back after it was deleted")
        if old is not None and old.phase is not job.phase:
            steps = JOB_EDGES[old.phase]
            is_two = any(job.phase in JOB_EDGES[step] for step in steps)  # a turn may hold two events
            must(job.phase in steps or is_two, f"I10: {job.id} went from {old.phase} to {job.phase}")
        must(old is None or not old.phase.is_terminal or old.phase is job.phase, f"I10: {job.id} had ended as {old and old.phase}")
        must(old is None or old.attempts <= job.attempts, f"I10: {job.id} counts attempts backwards")
        must(job.failures <= job.retries, f"I10: {job.id} failed {job.failures} times with {job.retries} retries")
        self.jobs[job.id] = job

    def _attempt(self, attempt: Attempt) -> None:
        key = (attempt.job_id, attempt.number)
        old = self.attempts.get(key)
        before = None if old is None else old.phase.value
        must(before is None or before in LIVE or before == attempt.phase, f"I10: attempt {key} had ended as {before}")
        if before is None:
            self._node_starts(attempt.job_id)
            must(attempt.number == 1 or (key[0], key[1] - 1) in self.attempts, f"I10: attempt {key} skips a number")
        self._size(attempt, old)
        is_refused = attempt.stop_reason is StopReason.LAUNCH_FAILED
        must(not is_refused or attempt.started_at is None, f"I6: {key} ran and was stopped because no pod could join it")
        for pod in (*attempt.pods, *attempt.left):
            was = next((one for one in old.pods if one.name == pod.name), None) if old is not None else None
            if was is not None and was.uid is not None:
                must(pod.uid == was.uid, f"I2: the row of {pod.name} changed from {was.uid} to {pod.uid}")
            if was is not None and was.phase is PodPhase.ENDED:
                must((pod.exit_code, pod.reason) == (was.exit_code, was.reason), f"I10: the end of {pod.name} changed")
            if pod.uid is not None:
                self._known_at.setdefault(pod.name, self._clock())
                real = self._uids.get(pod.name, set())
                must(pod.uid in real, f"I13: {pod.name} is known as {pod.uid}, it is {real}")
            if pod.phase is PodPhase.ENDED and pod.exit_code is not None and pod.role != MASTER and pod.name in self._exits:
                must(pod.exit_code == self._exits[pod.name], f"I22: {pod.name} exited {self._exits[pod.name]}, not {pod.exit_code}")
                must(dict(pod.outputs) == self._flushed.get(pod.name, {}), f"I22: outputs of {pod.name} are {pod.outputs}")
        if attempt.phase.value not in LIVE:
            left = [pod.name for pod in attempt.pods if pod.phase is not PodPhase.ENDED]
            must(not left, f"I10: attempt {key} ended as {attempt.phase} before {left}")
        if attempt.phase is AttemptPhase.SUCCEEDED and before != attempt.phase:
            self.counts["successes"] += 1
            others = [a for (job_id, _), a in self.attempts.items() if job_id == key[0] and a.phase is AttemptPhase.SUCCEEDED]
            must(not others, f"I14: {key[0]} succeeded twice")
            for pod in attempt.members:
                must(self._user_code[pod.name] == 1, f"I22: {pod.name} succeeded and ran {self._user_code[pod.name]} times")
                must(pod.exit_code == 0, f"I22: {pod.name} ended with {pod.exit_code} and its attempt succeeded")
                must(bool(pod.outputs) or not self.jobs[key[0]].work.outputs, f"I22: the outputs of {pod.name} were not kept")
        self.attempts[key] = attempt

    def _run(self, run: Run) -> None:
        """A retry gives nodes new jobs; one that succeeded only where something above it did not."""
        old = {node.name: node for node in self.runs[run.id].nodes} if run.id in self.runs else {}
        is_good: dict[str, bool] = {}
        for node in old.values():  # parents come before what is below them
            is_good[node.name] = node.phase.value == "Succeeded" and all(is_good[one] for one in node.after)
        for node in run.nodes:
            is_again = node.name in old and old[node.name].job.id != node.job.id
            must(not (is_again and is_good[node.name]), f"I14: {node.name} of {run.id} succeeded and is to run again")
            self._nodes[node.job.id] = (run.id, node.name)
        self.runs[run.id] = run

    def _node_starts(self, job_id: str) -> None:
        run_id, name = self._nodes.get(job_id, ("", ""))
        if not run_id:
            return
        self.counts["nodes of graphs tried"] += 1
        nodes = {node.name: node for node in self.runs[run_id].nodes}
        for parent in (nodes[one] for one in nodes[name].after):
            must(parent.phase.value not in ("Pending", "Submitted"), f"I14: {name} of {run_id} starts while {parent.name} goes on")
            is_good = parent.phase.value == "Succeeded" or parent.ignore_fail or nodes[name].when is When.ALL_DONE
            must(is_good, f"I14: {name} of {run_id} starts after {parent.name} ended as {parent.phase}")

    def _size(self, attempt: Attempt, old: Attempt | None) -> None:
        """Pods come to a gang that runs, and leave it when they have ended; none of them is counted twice or named twice."""
        names = [pod.name for pod in (*attempt.pods, *attempt.left)]
        must(len(names) == len(set(names)), f"I2: a name stands for two pods of {attempt.job_id}: {names}")
        if old is None:
            return
        gone = {pod.name: pod for pod in old.pods} | {pod.name: pod for pod in attempt.left}
        for pod in attempt.pods:
            is_new = gone.pop(pod.name, None) is None
            if is_new:
                self.counts["pods that joined"] += 1
                must(pod.joined_at is not None and pod.uid is None, f"I6: {pod.name} came to {attempt.job_id} from nowhere")
                must(old.phase is AttemptPhase.RUNNING, f"I6: {pod.name} came to a gang that is {old.phase}")
            if pod.is_given_back:
                self._given_back_at.setdefault(pod.name, self._clock())
        left = {pod.name for pod in old.left}
        for name, pod in gone.items():
            if name in left:
                continue
            self.counts["pods that left"] += 1
            must(name in {one.name for one in attempt.left}, f"I5: {name} is in no row any more")
            pod = next(one for one in attempt.left if one.name == name)
            must(pod.is_given_back and pod.phase is PodPhase.ENDED, f"I5: {name} left before it had ended, as {pod.phase}")
            is_over = name in self._exits or name not in self._alive[attempt.job_id, attempt.number]
            must(is_over, f"I5: the room of {name} was given up while it lives")
        if attempt.phase is AttemptPhase.RUNNING and attempt.job_id in self.jobs:
            for one in self.jobs[attempt.job_id].gang.pod_sets:
                least = one.count if one.min_count is None else one.min_count
                has_done = sum(pod.exit_code == 0 for pod in attempt.left if pod.role == one.role)
                stay = sum(pod.role == one.role and not pod.is_given_back for pod in attempt.pods)
                must(least <= stay + has_done and stay <= one.count, f"I6: {attempt.job_id} has {stay} {one.role} of {one.count}")

    def _limits(self) -> None:
        live = [a for a in self.attempts.values() if a.phase.value in LIVE and a.job_id in self.jobs]
        per_job = Counter(attempt.job_id for attempt in live)
        must(all(number == 1 for number in per_job.values()), f"I2: live attempts {per_job}")
        active = {job.id for job in self.jobs.values() if job.phase is JobPhase.ACTIVE}
        must(active == set(per_job), f"I1: active {sorted(active)}, with a live attempt {sorted(per_job)}")
        held: Counter[str] = Counter()
        for node, room in self._room.items():
            used = total(pod.resources for a in live for pod in a.pods if pod.node == node)
            held[node] += 1
            must(used.fits(room), f"I3: node {node} holds {used} of {room}")
        for name, queue in self._queues.items():
            under = {name, *(q.name for q in self._queues.values() if q.parent == name)}
            used = total(a.charge for a in live if self.jobs[a.job_id].queue in under)
            must(used.within(queue.max) and not used.is_negative(), f"I4: queue {name} uses {used} of {queue.max}")
        for attempt in live:
            must(total(pod.resources for pod in attempt.pods) == attempt.charge, f"I5: the charge of {attempt.job_id} is off")

    # --- what was done on the cluster ------------------------------------------------------------------------------

    def looked(self, epoch: int) -> None:
        """A leader sees what is there: nobody before it may change that behind its back."""
        self._looked = max(self._looked, epoch)

    def acted(self, epoch: int) -> None:
        must(epoch >= self._looked, f"I11: a call of epoch {epoch} after {self._looked} had looked")

    def created(self, job_id: str, attempt: int, pod: str, uid: str, began: float) -> None:
        self.counts["pods"] += 1
        row = self.attempts.get((job_id, attempt))
        must(row is not None, f"I2: {pod} was made before its intent was committed")
        # One that was gone before anybody knew of it may be made again.
        is_known = self._known_at.get(pod, began) < began
        must(not is_known, f"I2: {pod} was made twice, as {self._uids.get(pod)} and {uid}")
        must(pod not in self._alive[job_id, attempt], f"I2: {pod} was made while it lives")
        must(row is not None and row.phase.value in LIVE, f"I2: {pod} was made after the end of its attempt")
        must(row is not None and pod in {one.name for one in row.pods}, f"I2: {pod} was made and is in no row")
        is_wanted = self._given_back_at.get(pod, began) >= began
        must(is_wanted, f"I2: {pod} was made after it was given back")
        must(job_id not in self._cancelled, f"I23: {pod} was made after the cancel was acknowledged")
        for (other, number), alive in self._alive.items():
            must(other != job_id or number == attempt or not alive, f"I2: attempt {number} of {job_id} lives beside {attempt}")
        self._uids.setdefault(pod, set()).add(uid)
        self._alive[job_id, attempt].add(pod)

    def user_code(self, job_id: str, attempt: int, pod: str, ready: Set[str]) -> None:
        self._user_code[pod] += 1
        must(self._user_code[pod] == 1, f"I2: {pod} started twice")
        row = self.attempts[job_id, attempt]
        # Who joins a gang that runs is not waited for, and waits for nobody.
        wanted = {pod, *(one.name for one in row.members if one.joined_at is None)}
        must(wanted <= ready, f"I6: {pod} runs before {sorted(wanted - ready)} were ready")

    def main_exited(self, pod: str, exit_code: int) -> None:
        self._mains[pod] = exit_code

    def exited(self, pod: str, exit_code: int) -> None:
        main = self._mains.get(pod, exit_code)
        must(exit_code == main, f"I22: the main process of {pod} exited {main}, its record says {exit_code}")
        self._exits[pod] = exit_code

    def flushed(self, pod: str, outputs: Mapping[str, str]) -> None:
        self._flushed[pod] = dict(outputs)

    def died(self, job_id: str, attempt: int, pod: str) -> None:
        self._alive[job_id, attempt].discard(pod)

    def forgotten(self, job_id: str, attempt: int) -> None:
        row = self.attempts.get((job_id, attempt))
        is_over = row is None or row.phase.value not in LIVE or job_id not in self.jobs
        must(is_over, f"I22: attempt {attempt} of {job_id} was forgotten before its end was committed")

    # --- at rest ---------------------------------------------------------------------------------------------------

    def at_rest(
        self, listed: Sequence[str], alive: Sequence[str], rows: Mapping[str, Job], wrote: int, erased: Set[tuple[str, int]]
    ) -> None:
        live = sorted(job.id for job in self.jobs.values() if not job.phase.is_terminal)
        must(not live, f"I18: {live} never end")
        going = sorted(run.id for run in self.runs.values() if run.phase is RunPhase.RUNNING)
        must(not going, f"I18: runs {going} never end")
        must(not alive, f"I21: {list(alive)} are still alive")
        must(not listed, f"I21: {list(listed)} are still kept by the cluster")
        left = sorted(key for key in self.attempts if key[0] in self._deleted and key not in erased)
        must(not left, f"I21: logs and files of deleted jobs are left: {left}")
        must(wrote == 0, f"I20: {wrote} commits at rest")
        must(dict(rows) == self.jobs, "I1: the rows differ from what was committed")
