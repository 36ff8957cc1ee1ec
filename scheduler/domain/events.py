"""Events: what happened, in the past tense. They are the only input of `core.state`; each is one journal entry.

Handling is idempotent: an event may arrive late or more than once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuttilab.scheduler.domain.model import Cluster, Dag, Job, ParameterValue, Past, Prediction, Profile, Queue, Run
from tuttilab.scheduler.domain.resources import Resources


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """``by``: who asked for it where that is not the owner, as an admin who retries a user's job."""

    job: Job
    by: str = ""


@dataclass(frozen=True, slots=True)
class JobCancelRequested:
    job_id: str
    by: str


@dataclass(frozen=True, slots=True)
class JobDeleted:
    """An ended job was deleted, with everything its attempts left. ``by``: empty for one that was kept long enough."""

    job_id: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactStored:
    """Bytes that the owner did not have before were stored. ``of_job``: the job of which a pod brought them, as its output."""

    artifact_id: str
    owner: str
    size: int
    of_job: str = ""


@dataclass(frozen=True, slots=True)
class QueuesConfigured:
    """``by``: who had the configuration read again; empty for a start."""

    queues: tuple[Queue, ...]
    by: str = ""


@dataclass(frozen=True, slots=True)
class PolicyTuned:
    """Parameters of the decision rule (`core.rows.tuning`) were set while the service runs. ``values``: all, empty for none.

    ``why``: the result of the replay of the past that spoke for it.
    """

    values: tuple[tuple[str, ParameterValue], ...]
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class ClusterObserved:
    """The current nodes of the cluster."""

    cluster: Cluster


@dataclass(frozen=True, slots=True)
class OthersObserved:
    """What pods that are not ours have taken of nodes of the cluster: those on which it changed, by name."""

    cluster: str
    taken: Mapping[str, Resources]


@dataclass(frozen=True, slots=True)
class ClusterLost:
    """It does not answer, or not so that anything is known of it; ``why`` in its backend's words."""

    cluster: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class ClusterBack:
    cluster: str


@dataclass(frozen=True, slots=True)
class Placement:
    """One pod of a gang and its node."""

    role: str
    rank: int
    node: str


@dataclass(frozen=True, slots=True)
class GangAdmitted:
    """The decision to start an attempt, with the node of every pod. ``attempt`` is the number of the new attempt."""

    job_id: str
    attempt: int
    cluster: str
    placements: tuple[Placement, ...]
    epoch: int
    is_class_exempt: bool = False
    """Whether higher classes had passed it for `class_cap_s`."""
    prediction: Prediction | None = None
    """Run-time estimate at admission."""
    waited_for: str = ""
    """Why the gang waited, as it was last told; empty when it did not."""
    past: tuple[Past, ...] = ()
    """The waiting gangs whose hold it is started past."""


@dataclass(frozen=True, slots=True)
class GangPreempted:
    """The decision to stop a whole attempt for the job ``by``: to reclaim a guaranteed share, or because its class is higher."""

    job_id: str
    attempt: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class SessionGaveWay:
    """The decision to end an idle Spark session because the job ``by`` of the same owner waits for what it holds."""

    job_id: str
    attempt: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class GangGrown:
    """The decision to add pods to a running elastic gang, up to the count it asked for."""

    job_id: str
    attempt: int
    placements: tuple[Placement, ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class GangShrunk:
    """The decision to remove the named pods, on borrowed room, from a running gang; the gang continues with the others."""

    job_id: str
    attempt: int
    pods: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class GrowthFailed:
    """Pods of a growth could not be created on ``node``, or did not start. The gang continues without them."""

    job_id: str
    attempt: int
    pods: tuple[str, ...]
    reason: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class NotebookActive:
    """A notebook server reports a running cell."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class PodSeen:
    """The cluster shows the pod for the first time; ``uid`` is the identity that the cluster gave it."""

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
    """The pod's main process published addresses."""

    job_id: str
    attempt: int
    pod: str
    endpoints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodEnded:
    """The pod's terminal record. ``exit_code`` is None when it is unknown (the pod is lost), and 128 + number for a signal."""

    job_id: str
    attempt: int
    pod: str
    exit_code: int | None
    reason: str = ""
    """Completed, Error, OOMKilled, Lost, Stopped, InputMissing, OutputMissing, CommandNotFound …"""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Uploaded outputs: declared name to artifact id."""


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The cluster refused the gang. ``permanent``: a retry cannot help."""

    job_id: str
    attempt: int
    reason: str
    permanent: bool = False
    node: str | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatMissed:
    """The pod sent no heartbeat for so long that it counts as lost."""

    job_id: str
    attempt: int
    pod: str


@dataclass(frozen=True, slots=True)
class PodsOutlived:
    """These pods still ran when their attempt was over, as those of a launch that came late. They are stopped; no row changes."""

    job_id: str
    attempt: int
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BarrierTimedOut:
    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunTimedOut:
    """The attempt ran longer than the job's run-time limit, counted from the start of user code."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NotebookExpired:
    """The hub did not renew the notebook in time while it waited, started or stopped."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ProfileApplied:
    profile: Profile


@dataclass(frozen=True, slots=True)
class ProfileDeleted:
    name: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class DagApplied:
    """A new version of a named DAG. ``by``: who applied it, who may be an admin and not the owner."""

    dag: Dag
    by: str = ""


@dataclass(frozen=True, slots=True)
class RunSubmitted:
    run: Run


@dataclass(frozen=True, slots=True)
class RunCancelRequested:
    run_id: str
    by: str


@dataclass(frozen=True, slots=True)
class RunRetried:
    """Nodes of an ended run are retried: ``jobs`` maps each node name to its new job. Nodes that succeeded stay unchanged."""

    run_id: str
    jobs: Mapping[str, Job]
    by: str = ""


Event = (
    JobSubmitted
    | JobCancelRequested
    | JobDeleted
    | ArtifactStored
    | QueuesConfigured
    | PolicyTuned
    | ClusterObserved
    | OthersObserved
    | ClusterLost
    | ClusterBack
    | GangAdmitted
    | GangPreempted
    | SessionGaveWay
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
    | PodsOutlived
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
