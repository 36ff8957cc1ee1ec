"""The domain model: job, gang, attempt, pod, queue, cluster. Frozen values without decisions.

Times are service time, in seconds since the epoch; durations carry ``_s``; amounts are `Resources`. Terms: docs/glossary.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from tuttilab.scheduler.domain.resources import NOTHING, Resources, total

DOMAIN: Final = "tuttilab.io"
"""Prefix of all Kubernetes labels, annotations, finalizers and events of this project."""

NOTEBOOK_VARIABLE: Final = "TUTTILAB_NOTEBOOK"
"""Environment variable with the job id of a preemptible notebook server."""

SERVER_OF_LABEL: Final = f"{DOMAIN}/server-of"
"""Label of a server's pod, which the hub makes: the installation whose ledger has it as a job."""
MASTER: Final = "master"
"""Role of the pod that opens a distributed job's barrier. Its rank is -1; the scheduler adds it, requests cannot."""


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
    """Not seen on the cluster yet, or seen but not yet at the barrier."""
    READY = "Ready"
    """Waits at the barrier: image and context are ready."""
    RUNNING = "Running"
    """User code runs."""
    ENDED = "Ended"
    """The terminal record is committed; exit code and reason are final."""


class Ends(StrEnum):
    REQUIRED = "required"
    """The job succeeds only if every pod of the set exits with 0."""
    WITH_JOB = "with_job"
    """Stopped when the required sets are done (parameter servers, TensorBoard)."""


class Framework(StrEnum):
    NONE = "none"
    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    XGBOOST = "xgboost"
    SPARK = "spark"
    """A driver and its executors; only kinds of Spark have it."""


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
    """A taint that a pod tolerates. Without ``value`` every value of the key, without ``effect`` every effect."""

    key: str
    value: str | None = None
    effect: str | None = None


@dataclass(frozen=True, slots=True)
class PodSet:
    """``count`` equal pods of a gang. A node takes them only if it has all of ``node_labels``."""

    role: str
    count: int
    resources: Resources
    min_count: int | None = None
    ends: Ends = Ends.REQUIRED
    node_labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    tolerations: tuple[Toleration, ...] = ()
    can_grow: bool = False
    """Whether pods between ``min_count`` and ``count`` may join and leave the running gang."""


@dataclass(frozen=True, slots=True)
class Gang:
    """Pods that start together or not at all. A single pod is a gang of one."""

    pod_sets: tuple[PodSet, ...]

    @property
    def size(self) -> int:
        return sum(pod_set.count for pod_set in self.pod_sets)

    @property
    def resources(self) -> Resources:
        """The sum over all pods, without sidecars and master."""
        return total(pod_set.resources * pod_set.count for pod_set in self.pod_sets)


@dataclass(frozen=True, slots=True)
class Input:
    """A path that must exist before user code starts, or an artifact to download to that path below DATA_DIR."""

    path: str
    artifact: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """A relative path below RESULT_DIR that is uploaded as an artifact under ``name`` when the job ends."""

    name: str
    path: str
    is_optional: bool = False
    """If False and the file is missing, a pod that exits 0 ends with reason OutputMissing and exit code 1."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume in the user's container, or the folder ``sub_path`` of it, in which ``{owner}`` stands for the job's owner.

    ``kind`` and ``source`` are those of the configuration's list of storages.
    """

    path: str
    kind: str
    source: str
    sub_path: str = ""
    is_writable: bool = False


@dataclass(frozen=True, slots=True)
class SideCar:
    """A container of the site beside the user's, as the configuration had it when the job was submitted.

    ``params``: what the job set and the defaults of the rest, by name, as text.
    """

    name: str
    image: str
    resources: Resources
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    """User code starts once something listens there."""
    shares_folder: bool = False
    """Whether it has the job's own folder, where its code, work and results are."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every pod of a job runs. ``$(NAME)`` in ``command`` expands to a variable of the job environment, as in Kubernetes."""

    command: tuple[str, ...]
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    code: str | None = None
    """Artifact id of a bundle (tar or zip), unpacked to TUTTILAB_CODE_DIR before the command starts."""
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    framework: Framework = Framework.NONE
    sidecar: bool = True
    grace_s: float = 30.0
    """Grace period from SIGTERM to the kill, the upload of outputs included."""
    inherited: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The submitter's environment, below ``env``. Not in ``repr``, of which an attempt's digest is made."""
    run_as: str | None = field(default=None, repr=False)
    """Proxy user as which the pods run instead of their owner. Not in ``repr`` either: attempts of older versions go on."""
    mounts: tuple[Mount, ...] = field(default=(), repr=False)
    """Like ``sidecars`` not in ``repr``: the digest of a job without them is what it was before there were any."""
    sidecars: tuple[SideCar, ...] = field(default=(), repr=False)
    """Containers of the site."""

    @property
    def needs_containers(self) -> bool:
        """Whether it asks for what processes of a machine do not get."""
        return self.image is not None or bool(self.mounts or self.sidecars)

    @property
    def sidecars_cost(self) -> Resources:
        """What the site's side-cars take in each pod."""
        return total(one.resources for one in self.sidecars)


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted job. Only `core.rows.handlers` replaces its row."""

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
    """Sequence number of the submission in the whole service; unique and increasing."""
    priority: int = 0
    """Priority class; higher first."""
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
    """Number of attempts that counted against ``retries``."""
    failed_launches: int = 0
    """Consecutive failed launches; five end the job."""
    losses: int = 0
    """Attempts in a row that were lost within `core.rows.lifecycle.SETTLED_S` of their start; twenty end the job."""
    cancel_requested: bool = False
    not_before: float = 0.0
    """Service time before which no new attempt starts (back-off)."""
    avoid_nodes: tuple[str, ...] = ()
    retry_of: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    preemptible: bool | None = None
    """Whether it may be preempted. None: depends on the kind (notebooks and services may not, and so never borrow)."""

    @property
    def is_preemptible(self) -> bool:
        return self.preemptible if self.preemptible is not None else self.kind not in (JobKind.NOTEBOOK, JobKind.SERVICE)


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of an attempt. ``name`` is unique in the whole service and fixed before the pod exists."""

    name: str
    role: str
    rank: int
    cluster: str
    node: str
    resources: Resources
    uid: str | None = None
    """Identity that the cluster gave the real pod, committed when the pod is first seen."""
    phase: PodPhase = PodPhase.PENDING
    exit_code: int | None = None
    reason: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Addresses (host:port) that the pod's main process publishes by name, such as ``connect`` of a Spark session."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Uploaded outputs: declared name to artifact id (sha256, hex)."""
    joined_at: float | None = None
    """When it was added to the running gang; None if it started with the gang."""
    is_given_back: bool = False
    """Being stopped by a shrink while the gang continues. It leaves the attempt and its charge once it has ended."""
    given_back_why: str = ""


class Promise(StrEnum):
    """Why a gang that was submitted later could start first. The values are stored."""

    ORDER = "order"
    FITS = "fits"
    PREDICTION = "prediction"
    SPREAD = "spread"
    LIMIT = "limit"
    SPARE = "spare"

    @property
    def text(self) -> str:
        return PROMISES[self]


PROMISES: Final = {
    Promise.ORDER: "stood before it in line",
    Promise.FITS: "fitted where it did not, and no room was held for it",
    Promise.PREDICTION: "was predicted to end before its start",
    Promise.SPREAD: "was predicted to end before its start, with the spread",
    Promise.LIMIT: "was to end by its limit before its start",
    Promise.SPARE: "used room that it did not need",
}


@dataclass(frozen=True, slots=True)
class Past:
    """A gang with a hold, submitted earlier than the one that was started past it."""

    job_id: str
    promise: Promise
    start: float
    """When it was to start then."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to run a job. At most one attempt of a job is live."""

    job_id: str
    number: int
    phase: AttemptPhase
    cluster: str
    pods: tuple[Pod, ...]
    charge: Resources
    """What quota counts while the attempt is live: every pod, sidecars and master included."""
    admitted_at: float
    epoch: int
    started_at: float | None = None
    stopping_at: float | None = None
    stop_reason: StopReason | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    standing: tuple[int, ...] = ()
    """`core.ordering.shares.Level` per queue on its path, root first, as of its admission or last growth."""
    is_class_exempt: bool = False
    """Whether higher classes had passed it for `class_cap_s`; then none of them preempts it."""
    growths: int = 0
    """Number of growths so far; part of the names of the added pods, so that no name is reused."""
    failed_growths: int = 0
    """Consecutive growths whose pods never started."""
    grows_at: float = 0.0
    """Service time before which it does not grow (back-off)."""
    left: tuple[Pod, ...] = ()
    """Ended pods that a shrink removed, oldest first: all that completed their work, and the newest of the others."""
    cluster_total: Resources = NOTHING
    """Total of the cluster's ready nodes at admission. Overtaking accounts count the attempt's share of it."""
    prediction: Prediction | None = None
    """Run-time estimate at admission; None if there was none."""
    waited_for: str = ""
    """Why the job waited before this attempt, as it was last told; empty when it did not."""
    past: tuple[Past, ...] = ()
    """The waiting gangs whose hold it was started past."""

    @property
    def is_borrowed(self) -> bool:
        """Whether it put a queue on its path above the guaranteed share."""
        return 0 in self.standing

    @property
    def members(self) -> tuple[Pod, ...]:
        """The pods that run user code: all but the master."""
        return tuple(pod for pod in self.pods if pod.role != MASTER)

    def of_rank(self, rank: int) -> Pod | None:
        """The newest pod of the rank: a current one, else the last one that left."""
        return next((pod for pod in (*self.pods, *reversed(self.left)) if pod.rank == rank), None)


@dataclass(frozen=True, slots=True)
class Charge:
    """Resources of a live attempt, as quota counts them."""

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
    others: Resources = NOTHING
    """What pods request there that are not ours."""
    failing: Resources = NOTHING
    """Devices that it has and cannot give out now: they are unhealthy, or what hands them out does not run."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What scheduling decisions need of a cluster; `scheduler.clusters` talks to it."""

    name: str
    kind: str
    nodes: tuple[Node, ...] = ()
    sidecar_cost: Resources = NOTHING
    master_cost: Resources = NOTHING
    unreachable_since: float | None = None
    unreachable_why: str = ""
    reachable_since: float | None = None
    """Since when it answers again; None where it has answered all the time."""


ParameterValue = float | str | bool
"""Of a parameter of the decision rule (`core.rows.tuning`)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Which parameters of the decision rule differ from the built-in ones. Every queue without a parent has the same."""

    fixed: tuple[tuple[str, ParameterValue], ...] = ()
    """By the configuration file, which goes before ``tuned``."""
    tuned: tuple[tuple[str, ParameterValue], ...] = ()
    """Set while the service runs, on the strength of its own past."""
    since: float = 0.0
    by: str = ""
    """Who set it last: a user, the nightly run, or the configuration file."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """A node of the queue tree. ``guaranteed`` and ``max`` count over all clusters; an absent key of ``max`` is unlimited.

    ``max_jobs`` and ``max_pods`` limit what runs at once. ``overtaking``, ``overtaking_s`` and ``class_cap_s`` decide when an
    overtaken gang is protected (docs/scheduling-proof.md).
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
    """Clusters for new work of this queue and the queues below it; empty: all. A change drains the clusters left out."""
    can_borrow: bool = True
    """Whether it may use more than its guaranteed share while other queues leave theirs idle."""
    can_reclaim: bool = True
    """Whether its gangs may preempt borrowers to get its guaranteed share."""
    stops_busy_notebooks: bool = False
    """Whether a borrowing notebook of this queue may be preempted while one of its cells runs."""
    overtaking: float = 0.15
    overtaking_s: float = 900.0
    class_cap_s: float = 86400.0
    tuning: Tuning | None = None
    """Of a queue without a parent: parameters of the decision rule that are not the built-in ones."""


@dataclass(frozen=True, slots=True)
class Overtaking:
    """Overtaking account of one waiting gang, a row (`core.ordering.overtaking`). Amounts are room-seconds by cluster.

    ``later``: used by ended gangs of the same queue and class that were submitted after this gang and before the next waiting one.
    ``above``: the same, by gangs of higher queues and classes. ``base``, ``base_above``: used before this wait began at ``since``.
    """

    job_id: str
    since: float
    later: tuple[tuple[str, float], ...] = ()
    above: tuple[tuple[str, float], ...] = ()
    base: tuple[tuple[str, float], ...] = ()
    base_above: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Durations in seconds of the last runs under ``key``, newest last; a row.

    For a queue's key: ``scatter``, squared log-ratios of successive runs of the same name; ``missed``, squared log-ratios of
    runs and what was predicted when they were admitted; ``plain``, of the same runs and the middle of the queue's runs then.
    """

    key: str
    runs: tuple[float, ...] = ()
    scatter: tuple[float, ...] = ()
    missed: tuple[float, ...] = ()
    plain: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """Run-time estimate: the median in seconds, its spread and its basis.

    About two of three runs stay within the factor ``spread`` of ``seconds``, up or down.
    """

    seconds: float
    spread: float
    basis: str


class Why(StrEnum):
    """Why a gang waits. The values are part of the API."""

    QUOTA = "quota"
    NO_ROOM = "no-room"
    NEVER_FITS = "never-fits"
    BEHIND = "behind"
    HOLD = "hold"
    CLUSTER_DOWN = "cluster-down"
    DEPENDENCY = "dependency"
    BACK_OFF = "back-off"
    NOT_YET = "not-yet"


class StartKind(StrEnum):
    """What decides when a gang starts; the errors of forecasts differ by it."""

    FIRST = "first"
    """It starts when what runs has ended."""
    HELD = "held"
    """It has room, and starts as soon as it does not delay the gang with the hold."""
    LINE = "line"
    """It starts when the gangs before it in line have been served."""
    WIDE = "wide"
    """The same for one whose pods want much of a node: others start beside it while nodes empty for it."""


class StartForecast(NamedTuple):
    """Seconds from the cycle on until a gang starts, at the earliest and at the latest, before they are widened to what is told."""

    earliest_s: float
    latest_s: float
    kind: StartKind


@dataclass(frozen=True, slots=True)
class Kept:
    """What is held for a gang: its nodes are those that it would take at ``start``."""

    cluster: str
    nodes: tuple[str, ...]
    start: float
    trusts: str
    """What backfill is measured by: predictions, predictions with their spread, or limits."""


class Wait(NamedTuple):
    """Why one gang waits: one sentence for people, and the same as data. A NamedTuple is cheap: each cycle makes one per gang."""

    job_id: str
    why: Why
    sentence: str
    place: int
    """Position in its queue; 1 is next."""
    short: Resources = NOTHING
    """What is missing: in the quota of ``queue``, or on a node for a pod of ``role``."""
    queue: str | None = None
    role: str | None = None
    blockers: tuple[str, ...] = ()
    """Ids of the jobs that use what is missing, or that it depends on."""
    estimated_start: float | None = None
    basis: str = ""
    overtaken_s: float = 0.0
    """Overtaking account as seconds of the whole room: used by later gangs while this one waits."""
    is_protected: bool = False
    """Whether the account is so high that the gang goes before smaller ones and gets the hold."""
    earliest: float | None = None
    """Range in which the start is told, on ``basis``; None where no start can be told, and ``basis`` says why."""
    latest: float | None = None
    held_by: tuple[str, ...] = ()
    """The holders that the job's owner may know, each with the time it has left; then the number of the others."""
    forecast: StartForecast | None = None
    """What the range was made of; for the account of how well starts are forecast."""
    kept: Kept | None = None
    """The room that is held for it."""
    allowed_s: float = 0.0
    """Above this account it is protected."""


class NodePhase(StrEnum):
    PENDING = "Pending"
    """Waits for its parents."""
    SUBMITTED = "Submitted"
    """Its job was submitted; see the phase of the job."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SKIPPED = "Skipped"
    """Did not run, because a parent did not succeed."""

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
    """A node of a run. ``job`` is built and checked when the run is accepted, and submitted when the node is ready."""

    name: str
    job: Job
    after: tuple[str, ...] = ()
    when: When = When.ALL_SUCCEEDED
    ignore_fail: bool = False
    phase: NodePhase = NodePhase.PENDING
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a DAG version: one job per node, and the edges."""

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
    """One immutable version of a named DAG; each change applied makes the next ``version``."""

    name: str
    version: int
    owner: str
    body: str
    """The manifest as JSON, before variables are substituted."""
    applied_at: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A notebook profile as an admin applied it last."""

    name: str
    body: str
    """The manifest as JSON, validated when it was applied."""
    applied_by: str
    applied_at: float
