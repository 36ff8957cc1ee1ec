"""Requests: the keys of submits and manifests, with amounts as people write them.

Only these classes list the keys a caller may use; `wire` refuses all others. `core.kinds` turns a request into a `Job` with its
`Gang` and parses the amounts there, with the field's path in every error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from tuttilab.scheduler.domain.shape import AtMost

MOST_ENV_BYTES: Final = 64 * 1024
"""Of the submitter's environment, names and values together: it is kept with every job."""

MOST_ROLES: Final = 256
MOST_WORDS: Final = 16_384
"""Of a command."""
MOST_VARIABLES: Final = 2_000
"""Of an environment, and of other settings by name."""
MOST_LABELS: Final = 64
"""Also of the extended resources and tolerations of a pod."""
MOST_SIDECARS: Final = 16
MOST_INPUTS: Final = 1_000
MOST_OUTPUTS: Final = 256
MOST_PREDECESSORS: Final = 1_000
MOST_NODES: Final = 500
"""Of a DAG."""
MOST_GROUPS: Final = 2_000
MOST_DRIVER_PORTS: Final = 64
MOST_IMAGES: Final = 1_000

SLASH: Final = "%2F"
"""Stands for a slash of a name in a URL's path."""

Amount = str | int | float
"""``2``, ``"1500m"``, ``"8Gi"``: parsed by `resources`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRequest:
    """One role of a gang. ``resources``: extended resources by their Kubernetes key.

    A node takes its pods only if it has all of ``node_labels``; ``gpu_type`` is short for the label ``gpu-model``.
    ``tolerations`` are written as kubectl writes taints: ``dedicated=ml:NoSchedule``, or only the key.
    """

    role: str = "worker"
    count: int = 1
    min_count: int | None = None
    cpus: Amount = 1
    memory: Amount = "1Gi"
    gpus: Amount = 0
    gpu_type: str | None = None
    node_labels: Annotated[Mapping[str, str], AtMost(MOST_LABELS)] = field(default_factory=dict)
    tolerations: Annotated[tuple[str, ...], AtMost(MOST_LABELS)] = ()
    resources: Annotated[Mapping[str, Amount], AtMost(MOST_LABELS)] = field(default_factory=dict)
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
class MountRequest:
    """A volume of a notebook server or a job: ``cephfs`` names a shared CephFS volume, ``claim`` an existing PersistentVolumeClaim.

    ``nfs``: an export as ``SERVER:/PATH``; ``host_path``: a folder of the node. Both only if the configuration lists them.

    ``sub_path``: a folder of the volume, in which ``{owner}`` stands for the user, or the job's owner. ``mode``: ``rw`` or ``r``.
    """

    path: str
    cephfs: str | None = None
    claim: str | None = None
    nfs: str | None = None
    host_path: str | None = None
    sub_path: str = ""
    mode: str = "rw"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideCarRequest:
    """A container that the site offers beside the user's, by its name in the configuration, and what the job sets of it."""

    name: str
    params: Annotated[Mapping[str, str | int | float | bool], AtMost(MOST_VARIABLES)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkBatchRequest:
    """A Spark application that runs to its end: ``main`` is a Python file, or a jar with ``main_class``.

    Relative paths are below the job's folder. ``executors``, ``executor_cores``, ``executor_memory``, ``driver_cores`` and
    ``driver_memory`` as for a session.
    """

    main: str
    main_class: str | None = None
    args: Annotated[tuple[str, ...], AtMost(MOST_WORDS)] = ()
    py_files: Annotated[tuple[str, ...], AtMost(MOST_INPUTS)] = ()
    """Python files and zip files that Python finds in the driver and in the executors."""
    jars: Annotated[tuple[str, ...], AtMost(MOST_INPUTS)] = ()
    archives: Annotated[tuple[str, ...], AtMost(MOST_INPUTS)] = ()
    """Unpacked in the folder of each executor; ``data.zip#data`` into a folder of that name."""
    conf: Annotated[Mapping[str, str | int | float | bool], AtMost(MOST_VARIABLES)] = field(default_factory=dict)
    executors: int = 0
    executor_cores: Amount | None = None
    executor_memory: Amount | None = None
    driver_cores: Amount | None = None
    driver_memory: Amount | None = None
    interpreter: str | None = None
    """Python of the driver and the executors; the first one in their PATH when absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A submit. ``kind``: ``batch`` (one pod or a distributed gang), ``spark-batch`` (with ``spark``) or ``spark``.

    Only the hub submits ``notebook``.
    """

    name: str = "job"
    kind: str = "batch"
    group: str | None = None
    queue: str | None = None
    priority: int = 0
    pods: Annotated[tuple[PodRequest, ...], AtMost(MOST_ROLES)] = (PodRequest(),)
    image: str | None = None
    command: Annotated[tuple[str, ...], AtMost(MOST_WORDS)] = ()
    env: Annotated[Mapping[str, str], AtMost(MOST_VARIABLES)] = field(default_factory=dict)
    inherited: Annotated[Mapping[str, str], AtMost(MOST_VARIABLES)] = field(default_factory=dict, repr=False)
    """The submitter's environment, below ``env``; without it a pod gets a few variables of its cluster."""
    workdir: str | None = None
    code: str | None = None
    inputs: Annotated[tuple[InputRequest, ...], AtMost(MOST_INPUTS)] = ()
    outputs: Annotated[tuple[OutputRequest, ...], AtMost(MOST_OUTPUTS)] = ()
    framework: str = "none"
    timeout: str | int | None = None
    """Seconds, or ``90s``, ``10m``, ``2h``, ``1d``."""
    grace: str | int = "30s"
    retries: int = 0
    after: Annotated[tuple[str, ...], AtMost(MOST_PREDECESSORS)] = ()
    cluster: str | None = None
    labels: Annotated[Mapping[str, str], AtMost(MOST_LABELS)] = field(default_factory=dict)
    sidecar: bool = True
    """False: bare pods. They start as they come, without a barrier, and in containers have the user's container alone."""
    run_as: str | None = None
    """A proxy user of the submitter's groups, as which the pods run instead of their owner."""
    mounts: Annotated[tuple[MountRequest, ...], AtMost(MOST_LABELS)] = ()
    """Volumes that the configuration lists for the job's group."""
    sidecars: Annotated[tuple[SideCarRequest, ...], AtMost(MOST_SIDECARS)] = ()
    """Containers that the site offers beside the user's."""
    spark: SparkBatchRequest | None = None
    """Of kind ``spark-batch``, in place of ``pods``, ``command`` and ``framework``."""

    @property
    def needs_containers(self) -> bool:
        """Whether it runs in an image and never on the submitter's machine."""
        return self.image is not None or bool(self.mounts or self.sidecars)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkRequest:
    """A Spark session by name: started if it does not exist, else returned as it is."""

    name: str = "default"
    cpus: Amount | None = None
    memory: Amount | None = None
    """Without one: 2 cores and 2 GiB, but at most half of the largest node."""
    queue: str | None = None
    conf: Annotated[Mapping[str, str], AtMost(MOST_VARIABLES)] = field(default_factory=dict)
    idle: str | int = "60m"
    ui: bool = False
    """Whether the session serves Spark's web UI, on loopback."""
    keep: bool = False
    """Whether it stays although it is idle and other work of its owner waits for what it holds."""
    interpreter: str | None = None
    """Python that runs the session's server process; the service's own when absent (local clusters only)."""
    executors: int = 0
    """Pods beside the driver's, each with one executor: all start or none. 0: tasks run in the driver's own pod."""
    executor_cores: Amount | None = None
    """Of each executor, whole ones; 1 when absent."""
    executor_memory: Amount | None = None
    """Heap of each executor (``spark.executor.memory``); 1g when absent. Its pod takes more."""
    driver_cores: Amount | None = None
    """As ``cpus``."""
    driver_memory: Amount | None = None
    """Heap of the driver (``spark.driver.memory``), where ``memory`` is that of its pod in all."""
    ttl: str | int | None = None
    """Ends after this long, whatever runs in it."""
    image: str | None = None
    """Of its pods, with ``tuttilab[spark]`` in it. Absent: on a cluster of containers the one that the cluster names for Spark."""
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableRequest:
    """A run variable. ``type``: string, integer, number or boolean. Required in a run when it has no default."""

    type: str = "string"
    default: str | int | float | bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """One node of a DAG: a job, or one SQL statement that Spark runs in a job of its own and saves as Parquet, CSV or JSON.

    In a manifest also ``notebook``, a file, with ``parameters``: the client makes a job of it before it sends the DAG.

    ``${name}`` in any text is replaced by a run variable; a text that is only ``${name}`` takes the variable's type. ``$${`` stands
    for ``${``, so that a shell in the job sees its own variables.
    """

    name: str
    after: Annotated[tuple[str, ...], AtMost(MOST_NODES)] = ()
    when: str = "all_succeeded"
    ignore_fail: bool = False
    job: JobRequest | None = None
    spark_sql: str | None = None
    save: str | None = None
    notebook: str | None = None
    parameters: Annotated[Mapping[str, str | int | float | bool], AtMost(MOST_VARIABLES)] = field(default_factory=dict)
    cpus: Amount = 1
    memory: Amount = "2Gi"
    """``cpus`` and ``memory`` apply to a spark_sql or notebook node; a job has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagRequest:
    """A graph of jobs. ``workdir`` and ``queue`` are defaults for the nodes."""

    name: str
    variables: Annotated[Mapping[str, VariableRequest], AtMost(MOST_VARIABLES)] = field(default_factory=dict)
    nodes: Annotated[tuple[NodeRequest, ...], AtMost(MOST_NODES)] = ()
    workdir: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Run an applied DAG by ``name``, or the given ``dag``. ``variables`` override the defaults.

    ``inherited``: the submitter's environment, for the jobs of its nodes.
    """

    name: str | None = None
    dag: DagRequest | None = None
    variables: Annotated[Mapping[str, str | int | float | bool], AtMost(MOST_VARIABLES)] = field(default_factory=dict)
    inherited: Annotated[Mapping[str, str], AtMost(MOST_VARIABLES)] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HdfsRequest:
    """``config`` names the ConfigMap with core-site.xml and hdfs-site.xml; ``kerberos`` adds an in-memory ticket cache."""

    config: str
    kerberos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRequest:
    """When an idle server is stopped, and how long before that its user is warned."""

    stop_after: str | int
    warn_before: str | int = "10m"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRequest:
    """Who a process is to the file systems it writes to."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """A notebook profile, offered to the members of ``groups`` (to everybody when there are none).

    ``images``: further images that a user may choose. ``custom_images``: registries and repositories whose images are all allowed.
    ``proxy_users``: accounts, by name, as which a user may run the server instead of as themselves.
    """

    name: str
    title: str = ""
    description: str = ""
    groups: Annotated[tuple[str, ...], AtMost(MOST_GROUPS)] = ()
    disabled: bool = False
    queue: str | None = None
    image: str | None = None
    images: Annotated[tuple[str, ...], AtMost(MOST_IMAGES)] = ()
    custom_images: Annotated[tuple[str, ...], AtMost(MOST_IMAGES)] = ()
    cpus: Amount = 1
    memory: Amount = "2Gi"
    gpus: Amount = 0
    gpu_type: str | None = None
    resources: Annotated[Mapping[str, Amount], AtMost(MOST_LABELS)] = field(default_factory=dict)
    env: Annotated[Mapping[str, str], AtMost(MOST_VARIABLES)] = field(default_factory=dict)
    preemptible: bool = False
    """Whether its servers may be preempted; only such servers borrow above their queue's guarantee."""
    mounts: Annotated[tuple[MountRequest, ...], AtMost(MOST_LABELS)] = ()
    hdfs: HdfsRequest | None = None
    proxy_users: Annotated[Mapping[str, AccountRequest], AtMost(MOST_LABELS)] = field(default_factory=dict)
    driver_ports: int = 0
    """Ports of its own at which programs outside the cluster reach each server, as Spark executors on YARN reach their driver."""
    idle: IdleRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookRequest:
    """The hub's request for room for a server of ``owner``, before its pod is created. ``groups``: the owner's groups in the hub.

    Without ``profile``: the first one offered to the owner. ``cluster``: where the hub creates its pods. ``is_running``: the server
    runs already, and this control plane did not know it: it has another database than the one that admitted the server.
    ``run_as``: a proxy user of the profile. ``driver_ports``: those that a server which runs already has. ``queue``: one of those
    that take the owner's servers of the profile; without it, of these the first that has room.
    """

    owner: str
    groups: Annotated[tuple[str, ...], AtMost(MOST_GROUPS)] = ()
    server: str = ""
    profile: str | None = None
    image: str | None = None
    cluster: str | None = None
    run_as: str | None = None
    queue: str | None = None
    is_running: bool = False
    driver_ports: Annotated[tuple[int, ...], AtMost(MOST_DRIVER_PORTS)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewRequest:
    """The hub's report on a server; it renews the server's lease.

    ``phase``: ``waiting`` (a user waits for it, or it is being started), ``running``, or ``ended``.
    """

    phase: str
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Who:
    """The authenticated caller. A local token stands for one user, admin, in every group."""

    name: str
    groups: tuple[str, ...] = ()
    is_admin: bool = False
    in_every_group: bool = False
    is_hub: bool = False
    """Whether the caller is the hub itself, which requests servers for its users."""
    is_viewer: bool = False
    """Whether the caller changes nothing (`identity.roles`)."""

    def is_in(self, group: str) -> bool:
        return self.in_every_group or group in self.groups
