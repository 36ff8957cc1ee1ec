"""The domain model: what a job, a gang, an attempt, a queue and a cluster are. Frozen values, no behaviour that decides.

Times are service time in seconds since the epoch (see architecture: service time). Durations carry ``_s``. Amounts are `Resources`.
The words are those of Kubernetes and its batch schedulers: gang, pod set, queue, guaranteed, max, attempt, rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from tuttilab.scheduler.resources import NOTHING, Resources, total

DOMAIN: Final = "tuttilab.io"

NOTEBOOK_VARIABLE: Final = "TUTTILAB_NOTEBOOK"
"""The environment variable by which a notebook server that may be stopped for others knows its own job."""
"""The one domain of our labels, finalizers and events."""

MASTER: Final = "master"
"""Role of the pod that opens a distributed job's barrier; it has rank -1 and is made by us, never asked for."""


class JobKind(StrEnum):
    BATCH = "batch"
    DISTRIBUTED = "distributed"
    SPARK = "spark"
    NOTEBOOK = "notebook"
    DAG = "dag"
    SERVICE = "service"


class JobPhase(StrEnum):
    QUEUED = "Queued"
    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED)


class AttemptPhase(StrEnum):
    ADMITTED = "Admitted"
    LAUNCHING = "Launching"
    RUNNING = "Running"
    STOPPING = "Stopping"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    PREEMPTED = "Preempted"
    LOST = "Lost"

    @property
    def is_live(self) -> bool:
        return self in LIVE


LIVE: Final = frozenset({AttemptPhase.ADMITTED, AttemptPhase.LAUNCHING, AttemptPhase.RUNNING, AttemptPhase.STOPPING})


class PodPhase(StrEnum):
    PENDING = "Pending"
    """Not seen yet, or seen and on its way to the barrier."""
    READY = "Ready"
    """Waits at the barrier: its image is there and its context is prepared."""
    RUNNING = "Running"
    """User code runs."""
    ENDED = "Ended"
    """The terminal record is committed; exit code and reason are final."""


class Ends(StrEnum):
    REQUIRED = "required"
    """Exit 0 of every pod of the set is part of success."""
    WITH_JOB = "with_job"
    """Stopped when the required ones are done (parameter servers, TensorBoard)."""


class Framework(StrEnum):
    NONE = "none"
    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    XGBOOST = "xgboost"


class StopReason(StrEnum):
    CANCELLED = "Cancelled"
    TIMEOUT = "Timeout"
    MEMBER_FAILED = "MemberFailed"
    MEMBER_LOST = "MemberLost"
    BARRIER_TIMEOUT = "BarrierTimeout"
    LAUNCH_FAILED = "LaunchFailed"
    PREEMPTED = "Preempted"
    REQUIRED_DONE = "RequiredDone"


@dataclass(frozen=True, slots=True)
class Toleration:
    """A taint that a pod puts up with. Without ``value`` every value of the key, without ``effect`` every effect."""

    key: str
    value: str | None = None
    effect: str | None = None


@dataclass(frozen=True, slots=True)
class PodSet:
    """``count`` equal pods of a gang. ``node_labels`` must all be on a node that takes one of them."""

    role: str
    count: int
    resources: Resources
    min_count: int | None = None
    ends: Ends = Ends.REQUIRED
    node_labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    tolerations: tuple[Toleration, ...] = ()
    can_grow: bool = False
    """Whether a running gang may be given the pods between ``min_count`` and ``count`` later, and have them taken back."""


@dataclass(frozen=True, slots=True)
class Gang:
    """The pods that start together or not at all. A single pod is a gang of one."""

    pod_sets: tuple[PodSet, ...]

    @property
    def size(self) -> int:
        return sum(pod_set.count for pod_set in self.pod_sets)

    @property
    def resources(self) -> Resources:
        """What all pods ask for together, without our own pods."""
        return total(pod_set.resources * pod_set.count for pod_set in self.pod_sets)


@dataclass(frozen=True, slots=True)
class Input:
    """A path that must exist before user code starts, or an artifact to fetch to that path below DATA_DIR."""

    path: str
    artifact: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """A path below RESULT_DIR (relative) that is kept as an artifact under a name when the job ends."""

    name: str
    path: str
    is_optional: bool = False
    """Without it a run that exits 0 and left no such file ends with reason OutputMissing and exit code 1."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every pod of a job runs. ``command`` may use ``$(NAME)`` for variables of the job environment, as Kubernetes does."""

    command: tuple[str, ...]
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    code: str | None = None
    """Artifact id of a code bundle (tar), unpacked to TUTTILAB_CODE_DIR before the command starts."""
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    framework: Framework = Framework.NONE
    sidecar: bool = True
    grace_s: float = 30.0
    """From the polite signal to the forced end, flush included."""


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted piece of work. Rows of it are only ever replaced by the rules of `core.handlers`."""

    id: str
    name: str
    owner: str
    group: str
    queue: str
    kind: JobKind
    gang: Gang
    work: Work
    submitted_at: float
    order: int
    """Place in the order of submission over the whole service; unique and rising."""
    priority: int = 0
    """Priority class: higher goes first."""
    timeout_s: float | None = None
    retries: int = 0
    after: tuple[str, ...] = ()
    cluster: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    phase: JobPhase = JobPhase.QUEUED
    reason: str = ""
    attempts: int = 0
    """Number of the newest attempt; 0 before the first."""
    failures: int = 0
    """Attempts that used up a retry."""
    failed_launches: int = 0
    """In a row; five end the job."""
    cancel_requested: bool = False
    not_before: float = 0.0
    """Service time before which no new attempt may start (back-off)."""
    avoid_nodes: tuple[str, ...] = ()
    retry_of: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    preemptible: bool | None = None
    """Whether it may be stopped for others. None: by kind (notebooks and services may not, and so never borrow)."""

    @property
    def is_preemptible(self) -> bool:
        return self.preemptible if self.preemptible is not None else self.kind not in (JobKind.NOTEBOOK, JobKind.SERVICE)


@dataclass(frozen=True, slots=True)
class Pod:
    """One member of an attempt. ``name`` is unique over the service and fixed before the pod exists."""

    name: str
    role: str
    rank: int
    cluster: str
    node: str
    resources: Resources
    uid: str | None = None
    """The cluster's identity of the real pod, committed on first sight."""
    phase: PodPhase = PodPhase.PENDING
    exit_code: int | None = None
    reason: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Named addresses the pod's main process offers, such as ``connect`` of a Spark session: host:port."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Declared outputs that were flushed: name to artifact id (sha256, hex)."""
    joined_at: float | None = None
    """When it was given to the gang that ran already; None: it started with the gang."""
    is_given_back: bool = False
    """Told to end while the gang goes on without it; leaves the attempt, and the charge, when it has."""
    given_back_why: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at running a job. At most one attempt of a job is live."""

    job_id: str
    number: int
    phase: AttemptPhase
    cluster: str
    pods: tuple[Pod, ...]
    charge: Resources
    """What quota counts while the attempt is live: every pod, our own included."""
    admitted_at: float
    epoch: int
    started_at: float | None = None
    stopping_at: float | None = None
    stop_reason: StopReason | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    standing: tuple[int, ...] = ()
    """To the guaranteed shares of the queues above it, root first (`core.standing.Level`), when it was admitted or last grew."""
    is_lifted: bool = False
    """Whether higher classes had passed it for as long as they may, so that none of them stops it either."""
    growths: int = 0
    """How often it was given more pods; part of the names of those, so that no name is used twice."""
    failed_growths: int = 0
    """In a row: pods that it was given and that never started."""
    grows_at: float = 0.0
    """Service time before which it is given no more pods (back-off)."""
    left: tuple[Pod, ...] = ()
    """Members that were given back and have ended, oldest first: those that had done their work, and the last of the others."""
    cluster_total: Resources = NOTHING
    """What the ready nodes of its cluster had in all when it was admitted: its part of that is what it has overtaken others by."""
    prediction: Prediction | None = None
    """Of its run time, when it was admitted; None where nothing was."""

    @property
    def is_borrowed(self) -> bool:
        """Whether a queue on its path was above its guaranteed share with it."""
        return 0 in self.standing

    @property
    def members(self) -> tuple[Pod, ...]:
        """The pods that run user code: all but the master."""
        return tuple(pod for pod in self.pods if pod.role != MASTER)

    def of_rank(self, rank: int) -> Pod | None:
        """The newest pod of that rank: one of now, else the last that was given back."""
        return next((pod for pod in (*self.pods, *reversed(self.left)) if pod.rank == rank), None)


@dataclass(frozen=True, slots=True)
class Charge:
    """Resources held by a live attempt, as quota sees them."""

    job_id: str
    attempt: int
    queue: str
    owner: str
    resources: Resources


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    cluster: str
    allocatable: Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    is_ready: bool = True


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the decisions know of a cluster; how to talk to it is the business of `clusters`."""

    name: str
    kind: str
    nodes: tuple[Node, ...] = ()
    sidecar_cost: Resources = NOTHING
    master_cost: Resources = NOTHING
    unreachable_since: float | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A node of the queue tree. ``guaranteed`` and ``max`` count over all clusters; an absent key of ``max`` is unlimited.

    ``max_jobs`` and ``max_pods`` limit what runs. Gangs that start later than a sibling's although submitted earlier are protected
    as scheduling.md says; ``overtaking``, ``overtaking_s`` and ``class_cap_s`` are the numbers of that promise.
    """

    name: str
    parent: str | None = None
    weight: int = 1
    priority: int = 0
    guaranteed: Resources = NOTHING
    max: Resources = NOTHING
    groups: tuple[str, ...] = ()
    max_jobs: int | None = None
    max_pods: int | None = None
    clusters: tuple[str, ...] = ()
    """Where new work of this queue and those below it may go; empty: everywhere. Changing it drains the others."""
    can_borrow: bool = True
    """Whether it may use more than its guaranteed share while others leave theirs idle."""
    can_reclaim: bool = True
    """Whether gangs of it may stop borrowers to get its guaranteed share."""
    stops_busy_notebooks: bool = False
    """Whether a borrowing notebook of this queue may be stopped while one of its cells runs."""
    overtaking: float = 0.15
    overtaking_s: float = 900.0
    class_cap_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class Overtaking:
    """One waiting gang's row of the account of who was overtaken (`core.accounts`). Amounts are room-seconds by cluster.

    ``later`` was used by ended gangs of the same queue and class submitted after this one and before the next that waits, ``above``
    by gangs of higher ones. ``base`` and ``base_above`` had been used when this wait began at ``since``.
    """

    job_id: str
    since: float
    later: tuple[tuple[str, float], ...] = ()
    above: tuple[tuple[str, float], ...] = ()
    base: tuple[tuple[str, float], ...] = ()
    base_above: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RunHistory:
    """How long the last runs under ``key`` took, newest last; a row. ``scatter``: of a queue, squared log-ratios of repeats."""

    key: str
    runs: tuple[float, ...] = ()
    scatter: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """How long a run will take: the middle in seconds, the factor up or down that two runs in three stay within, and why."""

    seconds: float
    spread: float
    basis: str


class Why(StrEnum):
    """Why a gang waits. Stable: people and programs read it."""

    QUOTA = "quota"
    NO_ROOM = "no-room"
    NEVER_FITS = "never-fits"
    BEHIND = "behind"
    HOLD = "hold"
    CLUSTER_DOWN = "cluster-down"
    DEPENDENCY = "dependency"
    BACK_OFF = "back-off"
    NOT_YET = "not-yet"


class Wait(NamedTuple):
    """Why one gang waits: one sentence for people, and the same as data. A tuple, as a cycle makes one for every waiting gang."""

    job_id: str
    why: Why
    sentence: str
    place: int
    """1 for the next in its queue."""
    short: Resources = NOTHING
    """What is missing, on ``queue`` or for the pod shape of ``role``."""
    queue: str | None = None
    role: str | None = None
    blockers: tuple[str, ...] = ()
    """Ids of the jobs that hold what is missing, or that it waits for."""
    estimated_start: float | None = None
    basis: str = ""
    overtaken_s: float = 0.0
    """Seconds of the whole room that gangs submitted after this one used while it waits."""
    is_protected: bool = False
    """Whether that is so much that it now goes before smaller gangs and has the hold."""


class NodePhase(StrEnum):
    PENDING = "Pending"
    """Its parents have not all ended."""
    SUBMITTED = "Submitted"
    """Its job is in the ledger: the job's own phase tells more."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SKIPPED = "Skipped"
    """Never ran, because a parent did not succeed."""

    @property
    def is_terminal(self) -> bool:
        return self not in (NodePhase.PENDING, NodePhase.SUBMITTED)


class RunPhase(StrEnum):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class When(StrEnum):
    """Trigger rule of a DAG node."""

    ALL_SUCCEEDED = "all_succeeded"
    ALL_DONE = "all_done"


@dataclass(frozen=True, slots=True)
class RunNode:
    """A node of a run. ``job`` is built and checked when the run is accepted, and enters the ledger when the node is ready."""

    name: str
    job: Job
    after: tuple[str, ...] = ()
    when: When = When.ALL_SUCCEEDED
    ignore_fail: bool = False
    phase: NodePhase = NodePhase.PENDING
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a DAG version: a job a node, with edges."""

    id: str
    name: str
    owner: str
    nodes: tuple[RunNode, ...]
    created_at: float
    variables: Mapping[str, str] = field(default_factory=dict)
    phase: RunPhase = RunPhase.RUNNING
    cancel_requested: bool = False
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Dag:
    """A named DAG as it was applied; ``version`` rises by one with each change, and a version never changes."""

    name: str
    version: int
    owner: str
    body: str
    """The manifest as JSON, variables not yet filled in."""
    applied_at: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What a notebook server of a group gets, as an admin applied it. The newest body is the one that counts."""

    name: str
    body: str
    """The manifest as JSON, checked when it was applied."""
    applied_by: str
    applied_at: float
