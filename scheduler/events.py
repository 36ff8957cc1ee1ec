"""What happened, in the past tense. Events are the only input of `core.state`; each is one line of the journal.

An event may arrive twice or late: handling it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuttilab.scheduler.model import Cluster, Dag, Job, Prediction, Profile, Queue, Run


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    job: Job


@dataclass(frozen=True, slots=True)
class JobCancelRequested:
    job_id: str
    by: str


@dataclass(frozen=True, slots=True)
class JobDeleted:
    """An ended job and all it left is given up."""

    job_id: str


@dataclass(frozen=True, slots=True)
class QueuesConfigured:
    queues: tuple[Queue, ...]


@dataclass(frozen=True, slots=True)
class ClusterObserved:
    """The cluster's nodes as they are now."""

    cluster: Cluster


@dataclass(frozen=True, slots=True)
class ClusterLost:
    cluster: str


@dataclass(frozen=True, slots=True)
class ClusterBack:
    cluster: str


@dataclass(frozen=True, slots=True)
class Placement:
    """One pod of a gang and the node it goes to."""

    role: str
    rank: int
    node: str


@dataclass(frozen=True, slots=True)
class GangAdmitted:
    """The decision to start an attempt: where every pod goes. ``attempt`` is the number it gets."""

    job_id: str
    attempt: int
    cluster: str
    placements: tuple[Placement, ...]
    epoch: int
    is_lifted: bool = False
    """Whether higher classes had passed it for as long as they may."""
    prediction: Prediction | None = None
    """Of its run time, from what was known then."""


@dataclass(frozen=True, slots=True)
class GangPreempted:
    """The decision to stop a whole attempt, so that the job ``by`` can have its guaranteed share or go before a lower class."""

    job_id: str
    attempt: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class GangGrown:
    """The decision to give a running gang that can grow more of the pods it asked for."""

    job_id: str
    attempt: int
    placements: tuple[Placement, ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class GangShrunk:
    """The decision to take borrowed pods back from a running gang, by name; it goes on with the others."""

    job_id: str
    attempt: int
    pods: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class GrowthFailed:
    """Pods that a running gang was given could not be made on ``node``, or did not start: it goes on without them."""

    job_id: str
    attempt: int
    pods: tuple[str, ...]
    reason: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class NotebookActive:
    """A notebook's server reports a running cell."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class PodSeen:
    """The cluster shows a pod by that name for the first time."""

    job_id: str
    attempt: int
    pod: str
    uid: str


@dataclass(frozen=True, slots=True)
class PodReady:
    """The pod waits at the barrier."""

    job_id: str
    attempt: int
    pod: str


@dataclass(frozen=True, slots=True)
class PodStarted:
    """User code runs in the pod."""

    job_id: str
    attempt: int
    pod: str


@dataclass(frozen=True, slots=True)
class PodOffers:
    """The pod's main process offers addresses."""

    job_id: str
    attempt: int
    pod: str
    endpoints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodEnded:
    """The pod's terminal record. ``exit_code`` is None when nobody can tell (the pod is lost); signals count as 128 + number."""

    job_id: str
    attempt: int
    pod: str
    exit_code: int | None
    reason: str = ""
    """Completed, Error, OOMKilled, Lost, Stopped, InputMissing, OutputMissing, CommandNotFound …"""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Declared outputs that were flushed: name to artifact id."""


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The cluster refused the gang. ``permanent``: trying again cannot help."""

    job_id: str
    attempt: int
    reason: str
    permanent: bool = False
    node: str | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatMissed:
    """No sign of life from the pod for the time that counts as lost."""

    job_id: str
    attempt: int
    pod: str


@dataclass(frozen=True, slots=True)
class BarrierTimedOut:
    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunTimedOut:
    """The job's own limit has passed since user code started."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NotebookExpired:
    """Nobody said for a long time that he still waits for this notebook, starts it or stops it."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ProfileApplied:
    profile: Profile


@dataclass(frozen=True, slots=True)
class ProfileDeleted:
    name: str


@dataclass(frozen=True, slots=True)
class DagApplied:
    """A new version of a named DAG."""

    dag: Dag


@dataclass(frozen=True, slots=True)
class RunSubmitted:
    run: Run


@dataclass(frozen=True, slots=True)
class RunCancelRequested:
    run_id: str
    by: str


@dataclass(frozen=True, slots=True)
class RunRetried:
    """The nodes named in ``jobs`` start over with these jobs; nodes that succeeded stay as they are."""

    run_id: str
    jobs: Mapping[str, Job]


Event = (
    JobSubmitted
    | JobCancelRequested
    | JobDeleted
    | QueuesConfigured
    | ClusterObserved
    | ClusterLost
    | ClusterBack
    | GangAdmitted
    | GangPreempted
    | GangGrown
    | GangShrunk
    | GrowthFailed
    | NotebookActive
    | PodSeen
    | PodReady
    | PodStarted
    | PodOffers
    | PodEnded
    | LaunchFailed
    | HeartbeatMissed
    | BarrierTimedOut
    | RunTimedOut
    | NotebookExpired
    | ProfileApplied
    | ProfileDeleted
    | DagApplied
    | RunSubmitted
    | RunCancelRequested
    | RunRetried
)
