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
    """One role of a gang. ``resources`` takes extended resources by their Kubernetes key."""

    role: str = "worker"
    count: int = 1
    min_count: int | None = None
    cpus: Amount = 1
    memory: Amount = "1Gi"
    gpus: Amount = 0
    gpu_type: str | None = None
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
    """A submit. ``kind`` is ``batch`` (one pod or a distributed gang), ``notebook``, ``spark`` or ``service``."""

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


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, as `auth` verified it. A local token is one user, admin, in every group."""

    name: str
    groups: tuple[str, ...] = ()
    is_admin: bool = False
    in_every_group: bool = False

    def is_in(self, group: str) -> bool:
        return self.in_every_group or group in self.groups
