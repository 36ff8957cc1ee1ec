"""The `Cluster` protocol and its values: lead, observe, launch, stop, logs, usage,
displays, forget. Implementations pass
`tests/contract/test_clusters.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.errors import LaunchRefused
from tuttilab.scheduler.domain.model import MASTER, Node, PodPhase, Work
from tuttilab.scheduler.domain.resources import NOTHING, Resources
from tuttilab.scheduler.domain.titles import title_of


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One pod to create. ``env`` is what the job environment adds for this rank.

    ``resources``: of the user's process or container alone; of a master its own.
    ``token`` authenticates the pod's sidecar to the master or the control plane, for this pod alone.
    """

    name: str
    role: str
    rank: int
    node: str
    resources: Resources
    env: Mapping[str, str] = field(default_factory=dict)
    was_made: bool = False
    """The pod was created before or is no longer wanted: if the cluster does not have it, it must not create it."""
    joins: bool = False
    """The pod joins a running gang: it does not wait at the barrier, and its failure does not affect the others."""
    token: str = field(default="", repr=False)

    @property
    def is_master(self) -> bool:
        return self.role == MASTER

    @property
    def digest(self) -> str:
        """Digest of what must not differ between two launches of the same pod."""
        return _digest([self.name, self.role, self.rank, self.node, str(self.resources)])


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Everything a cluster needs to create the pods of one attempt.

    ``pods`` is in order: the master first if there is one, then the members by rank. ``gang_key`` is the secret of the attempt. It
    signs the tokens of the pods; only the master gets it, to verify the tokens of its members. ``report_url_file``, for clusters on
    the control plane's machine, names a file readable by the pods that always has the current URL of the control plane.
    ``secrets`` maps file names to contents: files of mode 0600 in TUTTILAB_SECRETS_DIR of the pod, never argv or environment.
    ``epoch`` is the one in which the attempt was admitted. After a restore of a backup, attempt numbers repeat but epochs do not.
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
    min_members: int | None = None
    """With how many members an elastic gang can run. None: all of ``pods``."""
    max_members: int | None = None
    """How many members it asked for. None: all of ``pods``."""
    group: str = ""
    """Group of the job; clusters with namespaces choose by it."""
    job_name: str = ""
    run_as: ProxyUser | None = None
    """The account of ``work.run_as``; None: there is no such proxy user (any more)."""

    def proxy_user(self) -> ProxyUser | None:
        """As whom the pods run instead of their owner. Raises LaunchRefused for a proxy user that is not listed any more."""
        if self.work.run_as is not None and self.run_as is None:
            raise LaunchRefused(
                f"{self.title} asks to run as {self.work.run_as!r}, which proxy_users of tuttilab.yaml do not list any more.",
                permanent=True,
            )
        return self.run_as

    @property
    def title(self) -> str:
        """``attempt 1 of job 'train' (3f2a9c12)``."""
        return f"attempt {self.attempt} of job {title_of(self.job_id, self.job_name)}"

    @property
    def digest(self) -> str:
        """Digest of what must not differ between two launches of the same attempt, whichever pods it has."""
        beside = [repr(each) for each in (self.work.mounts, self.work.sidecars) if each]
        return _digest([self.job_id, self.attempt, repr(self.work), *beside])

    @property
    def is_growth(self) -> bool:
        """Whether the gang runs and the pods to create join it. A refusal then concerns only these pods."""
        return any(pod.joins for pod in self.pods)


def _digest(body: list[object]) -> str:
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod as the cluster shows it now. ``exit_code`` None in phase Ended means lost: how it ended is unknown."""

    job_id: str
    attempt: int
    name: str
    uid: str
    phase: PodPhase
    exit_code: int | None = None
    reason: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Uploaded outputs (Work.outputs): name to artifact id. Reports of sidecars have the same key."""
    epoch: int | None = None
    """Epoch of the plan that it was created from, if known. It distinguishes two attempts of the same number."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Pods and nodes that a cluster shows.

    A complete observation has all our pods on the cluster, ended ones too until they are forgotten; a partial one only those that
    changed. ``nodes`` None means unchanged.
    """

    pods: tuple[PodState, ...]
    nodes: tuple[Node, ...] | None = None
    is_complete: bool = False
    sidecar_cost: Resources = NOTHING
    """What each pod takes beside what its job asked for; with ``nodes``."""
    master_cost: Resources = NOTHING
    """What the master of a gang takes; with ``nodes``."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Whole lines, each at most 8 KiB, starting at line ``start`` (0 for the first). ``is_end``: the pod ended and this is all.

    ``partial``: newest state of the unfinished line after these, such as a progress bar; empty when there is none, or when
    there are more lines before it. Clusters that cannot tell leave it empty.
    """

    start: int
    lines: tuple[str, ...]
    is_end: bool
    partial: str = ""
    times: tuple[tuple[int, float], ...] = field(default=(), compare=False)
    """Numbers of lines, rising, with when they were written, in seconds since 1970: from each one on, up to the next entry's.

    The first entry concerns the first line. Clusters that cannot tell have none.
    """


@dataclass(frozen=True, slots=True)
class Usage:
    """What a pod used over time, at most a few hundred points.

    ``points``: seconds since ``started_at`` (service time), rising; the mean number of cores since the point before; the most bytes
    of memory since then. ``cpu_s``: CPU seconds in all. ``peak_bytes``: the most at any time, as far as it was seen.
    """

    started_at: float
    points: tuple[tuple[float, float, int], ...]
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class DisplayChunk:
    """What a cell displayed, a JSON record a line; read on from byte ``next``."""

    lines: tuple[str, ...]
    next: int


class Cluster(Protocol):
    """A place where pods run. Every method may raise ClusterUnreachable; none retries."""

    name: str

    async def lead(self, epoch: int) -> None:
        """From now on, calls through this object come from a control plane that leads with ``epoch``.

        Once this has returned, or any later call, calls with an earlier epoch have no effect: those in flight have finished or
        raise StaleEpoch, and so does every later one that could change something. So a leader that was suspended
        between the check of its lease and the call does no harm. Raises StaleEpoch when a later epoch leads.
        """
        ...

    def observe(self) -> AsyncGenerator[Observation]:
        """First one complete observation, then changes as they come, for as long as the caller iterates."""
        ...

    async def launch(self, plan: LaunchPlan) -> None:
        """Create the pods of an attempt, the master first. Idempotent: a repeated call with the same digests creates nothing twice.

        Pods of an attempt of the same number and an earlier epoch, which a restored database does not contain, are ended and erased
        first. Pods that join a running gang are created beside it. Raises LaunchRefused for an attempt of a later epoch, for one
        that was forgotten, when the gang cannot start there (then nothing of it remains), or when some joining pods cannot (then
        the caller stops these); Bug when the attempt, or a pod of the same name, has another digest.
        """
        ...

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None, *, why: str = "") -> None:
        """Stop all pods of the attempt, or ``pods``; kill them after ``grace_s``. Unknown and ended pods are ignored.

        ``why``, such as "its time limit has passed", is for the pods' logs, where the cluster can tell them.

        A pod of the attempt that was not created yet is never created after this.
        """
        ...

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        """Up to ``limit`` whole lines from line ``start`` of what the pod printed. Raises NotFound for an unknown pod."""
        ...

    async def usage(self, job_id: str, attempt: int, pod: str) -> Usage:
        """What the pod used so far. Raises NotFound for a pod that is unknown or was not measured yet."""
        ...

    async def displays(self, job_id: str, attempt: int, pod: str, start: int) -> DisplayChunk:
        """What the pod's cell displayed so far, from byte ``start``. A cluster that cannot tell before the end has none."""
        ...

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        """Stop listing the attempt's pods, after their end was committed. With ``erase`` also delete logs and files."""
        ...


@runtime_checkable
class KeepsDisplays(Protocol):
    """A cluster that does not see the files of its pods: they send what their cells display."""

    async def keep_displays(self, job_id: str, attempt: int, pod: str, start: int, body: bytes) -> int:
        """Keep these lines, which begin at byte ``start``; the byte that is wanted next. Raises NotFound, TooLarge."""
        ...
