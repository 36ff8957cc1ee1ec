"""The schema of `tuttilab.yaml`: sections, keys and their types, before anything is checked beyond that.

`StoreConfig`, `ArtifactsConfig`, `AuthConfig` and `ListenConfig` have the same keys in the file as in the service, so the file's
schema uses them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.config.model import ArtifactsConfig, AuthConfig, ListenConfig, SparkConfig, StoreConfig
from tuttilab.scheduler.domain.requests import Amount
from tuttilab.scheduler.domain.wire import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFile:
    name: str
    cpus: Amount
    memory: Amount
    resources: Mapping[str, Amount] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    """As kubectl writes them: ``dedicated=ml:NoSchedule``; without an effect NoSchedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    name: str
    kind: str
    nodes: tuple[NodeFile, ...] | None = None
    grows: bool = False
    """Whether nodes may be added later: jobs that fit on none of its nodes wait for one instead of being refused."""
    kubeconfig: str | None = None
    in_cluster: bool = False
    context: str | None = None
    namespace: str | None = None
    namespaces: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)
    """Major and minor version of Python by image."""
    spark_image: str | None = None
    sidecar_image: str | None = None
    report_url: str | None = None
    logs: str | None = None
    tolerations: tuple[str, ...] = ()
    """As taints are written: ``dedicated=ml:NoSchedule``."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    uid: int = 1000
    isolate_gangs: bool = False
    cephfs_claim: str = "cephfs-{name}"
    binding: str = "auto"
    """Who binds pods to nodes: ``direct`` (we), ``scheduler`` (kube-scheduler), ``auto`` (we, on nodes tainted for our pods)."""
    container_patience_s: int | float = 30
    run_as: str = "service"
    """``owner``: pods of a local cluster run as the users who own their jobs."""
    folder: str | None = None
    sidecar_user: str = "tuttilab"
    accounts: Mapping[str, str] = field(default_factory=dict)
    least_uid: int = 1000
    python: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFile:
    name: str
    parent: str | None = None
    weight: int = 1
    priority: int = 0
    guaranteed: Mapping[str, Amount] = field(default_factory=dict)
    max: Mapping[str, Amount] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    max_jobs: int | None = None
    max_pods: int | None = None
    clusters: tuple[str, ...] | None = None
    """Without ``groups`` everybody's, without ``clusters`` on all: that is not what an empty list says, so it is refused."""
    can_borrow: bool = True
    can_reclaim: bool = True
    stops_busy_notebooks: bool = False
    overtaking: float | int = 0.15
    overtaking_s: float | int = 900
    class_cap_s: float | int = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFile:
    cephfs: str | None = None
    claim: str | None = None
    nfs: str | None = None
    host_path: str | None = None
    sub_path: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    """``r`` or ``rw`` by group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyUserFile:
    name: str
    groups: tuple[str, ...] = ()
    account: str | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamFile:
    """In the words of JSON Schema; ``pattern`` is of the whole value."""

    type: str = "string"
    default: str | int | float | bool | None = None
    enum: tuple[str | int | float | bool, ...] = ()
    minimum: int | float | None = None
    maximum: int | float | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SideCarFile:
    """``$(param)`` in ``command`` and ``env`` stands for the value of a parameter."""

    name: str
    image: str
    cpus: Amount
    memory: Amount
    resources: Mapping[str, Amount] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    shared_folder: bool = False
    params: Mapping[str, ParamFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultsFile:
    queue: str | None = None
    timeout: str | int | None = None
    spark_conf: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsFile:
    bundle_bytes: Amount = 200 * 2**20
    unpacked_bytes: Amount = 2 * 2**30
    output_bytes: Amount = 16 * 2**30
    barrier_s: int | float = 300
    idle_stop_s: int | float = 1800
    back_off_s: int | float = 10
    observe_every_s: int | float = 30
    lost_after_s: int | float = 60
    keep_jobs: str | int = "90d"
    keep_journal: str | int = "30d"
    heartbeat_s: int | float = 5
    lease_s: int | float = 45
    ticket_s: int | float = 3600
    user_waiting_jobs: int = 20_000
    user_live_jobs: int = 30_000
    user_writes_per_s: int | float = 200
    user_writes_at_once: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneFile:
    """``every``: five fields of cron. ``bounds``: by parameter the values allowed, of a number the least and the largest."""

    every: str | None = None
    zone: str = "UTC"
    days: int = 28
    limit: str | int = "30m"
    least_jobs: int = 500
    bounds: Mapping[str, tuple[bool | int | float | str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    store: StoreConfig = StoreConfig()  # noqa: RUF009  frozen
    artifacts: ArtifactsConfig = ArtifactsConfig()  # noqa: RUF009  frozen
    auth: AuthConfig = AuthConfig()  # noqa: RUF009  frozen
    listen: ListenConfig = ListenConfig()  # noqa: RUF009  frozen
    clusters: tuple[ClusterFile, ...] = (ClusterFile(name="here", kind="local"),)
    queues: tuple[QueueFile, ...] = (QueueFile(name="root"), QueueFile(name="default", parent="root"))
    storages: tuple[StorageFile, ...] = ()
    proxy_users: tuple[ProxyUserFile, ...] = ()
    driver_ports: str = ""
    sidecars: tuple[SideCarFile, ...] = ()
    defaults: DefaultsFile = DefaultsFile()
    limits: LimitsFile = LimitsFile()
    policy: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Parameters of the decision rule that hold whatever is tuned (`core.rows.tuning`)."""
    tune: TuneFile = TuneFile()
    spark: SparkConfig = SparkConfig()  # noqa: RUF009  frozen


SECTIONS: Final[Mapping[str, type]] = {
    "store": StoreConfig,
    "artifacts": ArtifactsConfig,
    "auth": AuthConfig,
    "listen": ListenConfig,
    "defaults": DefaultsFile,
    "limits": LimitsFile,
}
"""Sections whose keys a variable overrides: TUTTILAB_LISTEN_PORT is `port` of `listen`."""

for _cls in (
    ConfigFile,
    NodeFile,
    ClusterFile,
    QueueFile,
    StorageFile,
    ParamFile,
    TuneFile,
    SideCarFile,
    SparkConfig,
    *SECTIONS.values(),
):
    _cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]  # pydantic's documented hook for stdlib dataclasses
