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


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, as `auth` verified it. A local token is one user, admin, in every group."""

    name: str
    groups: tuple[str, ...] = ()
    is_admin: bool = False
    in_every_group: bool = False

    def is_in(self, group: str) -> bool:
        return self.in_every_group or group in self.groups
