"""The configuration as the service uses it: every value checked, amounts and durations parsed, paths absolute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.clusters.local.owners import OwnersSettings
from tuttilab.scheduler.config.cron import Cron
from tuttilab.scheduler.core.sidecars import SideCarOffer
from tuttilab.scheduler.core.storages import Storage
from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.model import Node, ParameterValue, Queue

POSTGRES: Final = "postgresql+psycopg"
"""Scheme of a `store.url` that names a Postgres database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    url: str = "sqlite:///state.db"
    alone: bool = False
    """On Postgres: no other control plane will share the database, so a cluster that only this one knows is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactsConfig:
    url: str = "artifacts"
    """A folder, as a path or as a file: URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """``local``: one token for one user. ``hub``: the users of a JupyterHub, by its tokens."""

    kind: str = "local"
    key_file: str | None = None
    """A file of 32 bytes or more from which all tokens derive, the same on all replicas. None: the key of the state folder."""
    url: str = ""
    """The hub's API, such as https://hub.example/hub/api. Default for a service that the hub started: JUPYTERHUB_API_URL."""
    service: str = "tuttilab"
    """The name under which the hub knows this service."""
    token_file: str = ""
    """Holds the token that the hub gave the service. Default: JUPYTERHUB_API_TOKEN."""
    admin_groups: tuple[str, ...] = ()
    viewer_groups: tuple[str, ...] = ()
    """Groups whose members only read, unless they are in another group too."""
    unsafe_shared_user: bool = False
    """Allow pods of all users to run as the user of this process, where they can read each other's files: for tests only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig:
    host: str = "127.0.0.1"
    port: int = 0
    """0 lets the system choose a free one."""
    names: tuple[str, ...] = ()
    """Other host names of the service, such as that of a TLS proxy in front of it."""
    pods: str = ""
    """Address and port, such as 10.0.0.5:8790, at which pods of Kubernetes are served, and nobody else. Empty: none."""

    @property
    def pods_address(self) -> tuple[str, int] | None:
        """Host and port of ``pods``, which was checked."""
        host, _, port = self.pods.rpartition(":")
        return (host.strip("[]"), int(port)) if self.pods else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkConfig:
    proxy: str = "own"
    """``own``: the control plane runs a Spark proxy on loopback. ``direct``: kernels connect to sessions themselves. Else the
    address of a proxy that the site runs, such as grpcs://spark.example:15002."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    name: str
    kind: str
    nodes: tuple[Node, ...] | None
    """None: one node with the resources of this machine."""
    grows: bool = False
    """Whether nodes may be added later (`core.placement.never`)."""
    kubernetes: KubernetesSettings | None = None
    """Of a cluster of kind ``kubernetes``."""
    owners: OwnersSettings | None = None
    """Of a cluster of kind ``local`` whose pods run as the users who own their jobs."""


@dataclass(frozen=True, slots=True)
class Defaults:
    queue: str
    timeout_s: float | None = None
    spark_conf: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    bundle_bytes: int = 200 * 2**20
    """Largest artifact, code bundles of jobs included."""
    unpacked_bytes: int = 2 * 2**30
    """What a code bundle may unpack to."""
    output_bytes: int = 16 * 2**30
    """All outputs of a pod together."""
    barrier_s: float = 300.0
    """From all members' images pulled to all members ready."""
    idle_stop_s: float = 1800.0
    """The local control plane ends after this time without live jobs and without requests."""
    back_off_s: float = 10.0
    """Before the first further attempt of a job that was lost or could not be launched; it doubles with each, up to 600 s."""
    lost_after_s: float = 60.0
    """A member whose node is missing counts as lost after this time without a heartbeat."""
    observe_every_s: float = 30.0
    """Between two complete looks at a cluster, which find pods that vanished while nobody watched."""
    keep_jobs_s: float = 90 * 86400.0
    """An ended job is deleted, with its logs and results, this time after its end."""
    keep_journal_s: float = 30 * 86400.0
    """Older events are deleted; a client that asks for changes since then has to fetch everything again."""
    heartbeat_s: float = 5.0
    """Period of a pod's heartbeat while nothing changes."""
    lease_s: float = 45.0
    """A member that has no contact with its gang's master for this time stops itself."""
    ticket_s: float = 3600.0
    """How long the signed URL of a big artifact may start a transfer."""
    user_waiting_jobs: int = 20_000
    """Jobs of one user that wait, those of DAG nodes that wait for their parents among them."""
    user_live_jobs: int = 30_000
    """Jobs of one user that wait, start or run."""
    user_writes_per_s: float = 200.0
    """Requests of one user that change something, in the long run."""
    user_writes_at_once: int = 10_000
    """As many more of them after a quiet time."""


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """How the site tunes the parameters of its decision rule on its own past."""

    every: Cron | None = None
    """When that is done without being asked for; None: never."""
    days: int = 28
    """How much of the past is replayed."""
    limit_s: float = 1800.0
    """After how long a run ends with what it has."""
    least_jobs: int = 500
    """Fewer ended jobs are too little to judge by."""
    bounds: Mapping[str, tuple[ParameterValue, ...]] = field(default_factory=dict)
    """Values allowed, by parameter; of a number the least and the largest. What is not here only a person changes."""


@dataclass(frozen=True, slots=True)
class Config:
    store: StoreConfig
    artifacts: ArtifactsConfig
    auth: AuthConfig
    listen: ListenConfig
    clusters: tuple[ClusterConfig, ...]
    queues: tuple[Queue, ...]
    defaults: Defaults
    limits: Limits
    storages: tuple[Storage, ...] = ()
    """Volumes that profiles and jobs may mount, by group."""
    sidecars: tuple[SideCarOffer, ...] = ()
    """Containers that jobs may have beside the user's."""
    driver_ports: range = range(0)
    """For Spark drivers of notebook servers (`core.kinds.driver_ports`)."""
    proxy_users: Mapping[str, ProxyUser] = field(default_factory=dict)
    """Accounts other than their owner's as which jobs may run, by name."""
    tune: TuneConfig = TuneConfig()
    spark: SparkConfig = SparkConfig()

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names and addresses under which the service is asked."""
        pods = self.listen.pods_address
        urls = [urlsplit(one.kubernetes.report_url).hostname for one in self.clusters if one.kubernetes is not None]
        given = (self.listen.host, *self.listen.names, pods[0] if pods else None, *urls)
        return tuple(dict.fromkeys(name for name in given if name))

    @property
    def store_dir(self) -> Path | None:
        """Where SQLite has its file; None for another database."""
        scheme, _, path = self.store.url.partition(":///")
        return Path(path).parent if scheme == "sqlite" else None

    @property
    def artifacts_dir(self) -> Path:
        return Path(unquote(urlsplit(self.artifacts.url).path))
