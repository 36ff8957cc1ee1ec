"""What callers ask for, before it is a job: the fields of a submit and of a manifest, with amounts as people write them.

These classes are the one place that lists the keys a caller may use; `wire` refuses all others. `core.kinds` turns a request into
a `Job` with its `Gang`, and that is where amounts are parsed, with the field's path in every error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Amount = str | int | float
"""``2``, ``"1500m"``, ``"8Gi"``: parsed by `resources`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRequest:
    """One role of a gang. ``resources`` takes extended resources by their Kubernetes key.

    ``node_labels`` must all be on a node that takes one of its pods; ``gpu_type`` is short for the label ``gpu-model``.
    ``tolerations`` are taints of nodes that it puts up with, as kubectl writes them: ``dedicated=ml:NoSchedule``, or only the key.
    """

    role: str = "worker"
    count: int = 1
    min_count: int | None = None
    cpus: Amount = 1
    memory: Amount = "1Gi"
    gpus: Amount = 0
    gpu_type: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    resources: Mapping[str, Amount] = field(default_factory=dict)
    ends: str = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequest:
    path: str
    artifact: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRequest:
    name: str
    path: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A submit. ``kind`` is ``batch`` (one pod or a distributed gang) or ``spark``; a ``notebook`` is submitted by the hub only."""

    name: str = "job"
    kind: str = "batch"
    group: str | None = None
    queue: str | None = None
    priority: int = 0
    pods: tuple[PodRequest, ...] = (PodRequest(),)
    image: str | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    code: str | None = None
    inputs: tuple[InputRequest, ...] = ()
    outputs: tuple[OutputRequest, ...] = ()
    framework: str = "none"
    timeout: str | int | None = None
    """Seconds, or ``90s``, ``10m``, ``2h``, ``1d``."""
    grace: str | int = "30s"
    retries: int = 0
    after: tuple[str, ...] = ()
    cluster: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    sidecar: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkRequest:
    """A Spark session by name: started when it is not there, else answered as it is."""

    name: str = "default"
    cpus: Amount = 2
    memory: Amount = "2Gi"
    queue: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)
    idle: str | int = "60m"
    ui: bool = False
    """Whether the session serves Spark's own web page, on loopback."""
    interpreter: str | None = None
    """Python the session's server process runs in; the service's own when absent (local clusters only)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableRequest:
    """A run variable. ``type`` is string, integer, number or boolean; without a default a run has to give it."""

    type: str = "string"
    default: str | int | float | bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """One node of a DAG: a job, or one SQL statement run by Spark in a job of its own and saved as Parquet, CSV or JSON.

    ``${name}`` in any text is replaced by a run variable; a text that is nothing but ``${name}`` takes the variable's type.
    """

    name: str
    after: tuple[str, ...] = ()
    when: str = "all_succeeded"
    ignore_fail: bool = False
    job: JobRequest | None = None
    spark_sql: str | None = None
    save: str | None = None
    cpus: Amount = 1
    memory: Amount = "2Gi"
    """``cpus`` and ``memory`` are those of a spark_sql node; a job says its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagRequest:
    """A graph of jobs. ``workdir`` and ``queue`` stand for every node that names none."""

    name: str
    variables: Mapping[str, VariableRequest] = field(default_factory=dict)
    nodes: tuple[NodeRequest, ...] = ()
    workdir: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Run a DAG: one that was applied, by name, or this one. ``variables`` override the defaults."""

    name: str | None = None
    dag: DagRequest | None = None
    variables: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRequest:
    """A volume of a notebook: ``cephfs`` names a shared CephFS volume, ``claim`` a PersistentVolumeClaim that is there already.

    ``sub_path`` is a folder of the volume; ``{owner}`` in it stands for the user. ``mode`` is ``rw`` or ``r``.
    """

    path: str
    cephfs: str | None = None
    claim: str | None = None
    sub_path: str = ""
    mode: str = "rw"


@dataclass(frozen=True, slots=True, kw_only=True)
class HdfsRequest:
    """``config`` names the ConfigMap with core-site.xml and hdfs-site.xml; ``kerberos`` gives tickets a place in memory."""

    config: str
    kerberos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRequest:
    """A server that nobody uses is stopped after this long."""

    stop_after: str | int
    warn_before: str | int = "10m"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """What a notebook server gets, offered to the members of ``groups`` (to everybody when there are none).

    ``images`` are others that a user may choose; ``custom_images`` are registries and repositories below which any image may be.
    """

    name: str
    title: str = ""
    description: str = ""
    groups: tuple[str, ...] = ()
    disabled: bool = False
    queue: str | None = None
    image: str | None = None
    images: tuple[str, ...] = ()
    custom_images: tuple[str, ...] = ()
    cpus: Amount = 1
    memory: Amount = "2Gi"
    gpus: Amount = 0
    gpu_type: str | None = None
    resources: Mapping[str, Amount] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    preemptible: bool = False
    """Whether its servers may be stopped for others; only such servers borrow what their queue is not guaranteed."""
    mounts: tuple[MountRequest, ...] = ()
    hdfs: HdfsRequest | None = None
    idle: IdleRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookRequest:
    """The hub asks for room for a server of ``owner`` before its pod is made. ``groups`` are the owner's, as the hub knows them.

    Without ``profile`` it is the first one that the owner is offered. ``cluster`` is where the hub makes its pods.
    """

    owner: str
    groups: tuple[str, ...] = ()
    server: str = ""
    profile: str | None = None
    image: str | None = None
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewRequest:
    """How the server is: ``waiting`` (somebody waits for it or starts it), ``running``, or ``ended``. Each says: still wanted."""

    phase: str
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, as `auth` verified it. A local token is one user, admin, in every group."""

    name: str
    groups: tuple[str, ...] = ()
    is_admin: bool = False
    in_every_group: bool = False
    is_hub: bool = False
    """The hub itself, which asks for its users' servers."""

    def is_in(self, group: str) -> bool:
        return self.in_every_group or group in self.groups
