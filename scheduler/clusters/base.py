"""What every cluster can do: observe, launch, stop, logs, forget. Implementations pass `tests/contract/test_clusters.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tuttilab.scheduler.model import MASTER, Node, PodPhase, Work
from tuttilab.scheduler.resources import Resources


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One pod to be made. ``env`` is what the job environment adds for this rank (interfaces: Job environment).

    ``token`` is the pod's own: with it its sidecar speaks to the master or the control plane, for this pod alone.
    """

    name: str
    role: str
    rank: int
    node: str
    resources: Resources
    env: Mapping[str, str] = field(default_factory=dict)
    was_made: bool = False
    """The pod was seen already, or is wanted no more: one that is not there is not made, neither again nor at all."""
    joins: bool = False
    """It was given to the gang that runs already: it passes the barrier, and what becomes of it leaves the others alone."""
    token: str = field(default="", repr=False)

    @property
    def is_master(self) -> bool:
        return self.role == MASTER

    @property
    def digest(self) -> str:
        """Of what must not differ between two launches of the same pod."""
        return _digest([self.name, self.role, self.rank, self.node, str(self.resources)])


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Everything a cluster needs to make the pods of one attempt.

    ``pods`` is in order: the master first if there is one, then the members by rank. ``gang_key`` is the attempt's own secret: it
    signs the tokens of the pods, and only the master is given it, so that it knows its members by theirs; ``report_url_file`` names
    a file (readable by the pods on this machine) that always holds the control plane's present URL, for clusters on the same
    machine; ``secrets`` are written to files of mode
    0600 in the pod, never to argv or environment: file name to content, and their directory is TUTTILAB_SECRETS_DIR. ``epoch`` is
    the one in which the attempt was admitted. After a backup was restored the numbers of attempts come again, epochs never do.
    """

    job_id: str
    attempt: int
    owner: str
    kind: str
    epoch: int
    work: Work
    pods: tuple[PodPlan, ...]
    gang_key: str = field(repr=False)
    report_url: str
    report_url_file: str | None = None
    artifacts_url: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    barrier_s: float = 300.0
    least: int | None = None
    """With how many members the gang can go on, and how many it asked for; None: as many as it has."""
    most: int | None = None

    @property
    def digest(self) -> str:
        """Of what must not differ between two launches of the same attempt, whichever pods it has by then."""
        return _digest([self.job_id, self.attempt, repr(self.work)])

    @property
    def is_growth(self) -> bool:
        """The gang runs; what of it is still to be made joins it, and a refusal concerns only that."""
        return any(pod.joins for pod in self.pods)


def _digest(body: list[object]) -> str:
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod as the cluster shows it now. ``exit_code`` None in phase Ended means lost: nobody can tell how it ended."""

    job_id: str
    attempt: int
    name: str
    uid: str
    phase: PodPhase
    exit_code: int | None = None
    reason: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Declared outputs that were flushed (Work.outputs): name to artifact id. Reports of sidecars carry the same key."""
    epoch: int | None = None
    """That of the plan it was made from, where the cluster knows it: two attempts by one number have two."""


@dataclass(frozen=True, slots=True)
class Observation:
    """``pods`` of a complete observation are all pods of ours that the cluster has, ended ones too until they are forgotten;
    of a partial one only those that changed. ``nodes`` None means unchanged."""

    pods: tuple[PodState, ...]
    nodes: tuple[Node, ...] | None = None
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Whole lines, each at most 8 KiB, starting at line ``start`` (0 for the first). ``is_end``: the pod ended and this is all."""

    start: int
    lines: tuple[str, ...]
    is_end: bool


class Cluster(Protocol):
    """A place where pods run. Every method may raise ClusterUnreachable; none retries by itself."""

    name: str

    async def lead(self, epoch: int) -> None:
        """Calls through this object are of a control plane that leads with ``epoch``, from now on.

        Once this has returned, or any later call, nothing of one that leads with an earlier epoch has an effect: what was on
        its way is over or raises StaleEpoch, as each of its calls does that could change something. So a leader that was
        stopped between its last look at its lease and the call harms nobody. Raises StaleEpoch when a later one leads.
        """
        ...

    def observe(self) -> AsyncGenerator[Observation]:
        """First one complete observation, then changes as they come, for as long as the caller iterates."""
        ...

    async def launch(self, plan: LaunchPlan) -> None:
        """Make the pods of an attempt, the master first. Again with the same digests: success, nothing is made twice.

        What is there of an attempt by the same number and of an earlier epoch, which a restored database knows nothing of, is
        ended and erased first. LaunchRefused when it is of a later epoch, or when this attempt was forgotten: it was over.
        Pods that join a gang which runs are made beside it. Raises LaunchRefused when the gang cannot start there (then nothing
        of it is left), or when some of those that join cannot (then the caller stops these); Bug when the attempt, or a pod by
        one of those names, has another digest.
        """
        ...

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None) -> None:
        """Tell every pod of the attempt, or these, to end; by force after ``grace_s``. Unknown or ended pods: success.

        One of a launched attempt that was not made by then is not made any more.
        """
        ...

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        """Up to ``limit`` whole lines from line ``start`` of what the pod printed. Raises NotFound for an unknown pod."""
        ...

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        """The end is committed: stop listing the attempt's pods. With ``erase`` also remove logs and files."""
        ...
