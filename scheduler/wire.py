"""Between JSON and types: what callers send, what they get, and the journal's bodies.

Requests are parsed strictly (no booleans for numbers, no unknown key at any depth, the path and the nearest key in the error).
Views are classes of their own, so that epochs, digests and secrets stay private. Times are seconds since the epoch.
"""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.events import Event
from tuttilab.scheduler.requests import (
    DagRequest,
    HdfsRequest,
    IdleRequest,
    InputRequest,
    JobRequest,
    MountRequest,
    NodeRequest,
    NotebookRequest,
    OutputRequest,
    PodRequest,
    ProfileRequest,
    RenewRequest,
    RunRequest,
    SparkRequest,
    VariableRequest,
)

T = TypeVar("T")

UNKNOWN_KEY: Final = ("unexpected_keyword_argument", "extra_forbidden")
"""pydantic's names of the error, for dataclasses and for models."""

DEEPEST: Final = 20

STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    name: str
    rank: int
    role: str
    node: str
    phase: str
    exit_code: int | None = None
    reason: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    given_back: str = ""
    """Why it was told to go while its gang goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    number: int
    phase: str
    cluster: str
    reason: str = ""
    admitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    charge: Mapping[str, str] = field(default_factory=dict)
    pods: tuple[PodView, ...] = ()
    left: tuple[PodView, ...] = ()
    """Members of a gang that was smaller afterwards: given back, and ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitView:
    """Why a job waits (`explain`): one sentence and the same as data. ``short`` is by Kubernetes resource key."""

    why: str
    sentence: str
    place: int
    short: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None
    role: str | None = None
    blockers: tuple[str, ...] = ()
    estimated_start: float | None = None
    basis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodShapeView:
    role: str
    count: int
    cpus: str
    memory: str
    gpus: int
    resources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as people see it: ``phase`` is the live attempt's, else the job's own."""

    id: str
    name: str
    owner: str
    group: str
    queue: str
    kind: str
    phase: str
    reason: str
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    is_ended: bool = False
    cluster: str | None = None
    unreachable_since: float | None = None
    priority: int = 0
    pods: tuple[PodShapeView, ...] = ()
    charge: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    retry_of: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    timeout_s: float | None = None
    wait: WaitView | None = None
    attempts: tuple[AttemptView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobList:
    jobs: tuple[JobView, ...]
    next: str | None = None
    """Cursor of the next page; None on the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunView:
    """What would happen to this submit now. ``verdict``: starts, waits or refused."""

    verdict: str
    sentence: str
    charge: Mapping[str, str] = field(default_factory=dict)
    placements: Mapping[str, str] = field(default_factory=dict)
    """Role and rank (``worker-0``) to node, when it would start now."""
    wait: WaitView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UseView:
    """One resource of a queue: amounts as integers in the units of `resources` and as people read them."""

    resource: str
    used: int
    guaranteed: int
    max: int | None
    used_text: str
    guaranteed_text: str
    max_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    name: str
    parent: str | None
    weight: int
    priority: int
    groups: tuple[str, ...]
    waiting: int
    running: int
    use: tuple[UseView, ...]
    mine: bool
    """Whether the caller may submit to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    name: str
    cluster: str
    is_ready: bool
    allocatable: Mapping[str, str]
    used: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    name: str
    kind: str
    nodes: int
    is_reachable: bool
    unreachable_since: float | None
    allocatable: Mapping[str, str]
    used: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """Whole lines from ``start``; ``next`` is where to go on. ``is_end``: the pod ended and there is no more."""

    pod: str
    rank: int
    start: int
    lines: tuple[str, ...]
    next: int
    is_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    seq: int
    at: float
    kind: str
    key: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesView:
    """Notices after ``since``: what kind of thing changed and its id. Fetch what you show."""

    seq: int
    changes: tuple[EventView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkSessionView:
    """A session of the caller's. ``is_ready``: its endpoint can be asked for."""

    name: str
    job_id: str
    phase: str
    reason: str
    is_ready: bool
    cpus: str
    memory: str
    created_at: float
    wait: WaitView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkEndpointView:
    """How the owner's kernel reaches the session. Only ever sent to the owner."""

    name: str
    job_id: str
    host: str
    port: int
    token: str
    ui: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactView:
    id: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadView:
    """Where to PUT the bytes; None: to the service itself."""

    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultView:
    """Artifacts that one rank left: output name to artifact id."""

    job_id: str
    attempt: int
    rank: int
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNodeView:
    """A node of a run. ``phase`` is its job's while that is in the ledger, else the node's own."""

    name: str
    phase: str
    after: tuple[str, ...] = ()
    reason: str = ""
    job_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    id: str
    name: str
    owner: str
    phase: str
    created_at: float
    ended_at: float | None = None
    is_ended: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[RunNodeView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DagView:
    name: str
    version: int
    owner: str
    applied_at: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    profile: ProfileRequest
    applied_by: str
    applied_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookView:
    """A server of the hub as the ledger sees it, for the hub only.

    ``is_admitted``: make its pod, on ``node`` of the job's cluster. ``is_wanted`` false: stop what there is of it.
    """

    job: JobView
    profile: ProfileRequest
    is_admitted: bool
    is_wanted: bool
    node: str | None = None
    image: str | None = None
    place: int | None = None
    refusal: str = ""
    """While it waits: what it asks for, what is free, and who of the owner's group holds the rest."""
    expires_at: float | None = None
    """When it is given up without another renewal; None once the server runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityView:
    name: str
    groups: tuple[str, ...]
    admin: bool
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadView:
    """What a configuration changed that was read again, a sentence each; none: nothing."""

    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """RFC 9457 problem document. ``type`` is a stable word of `errors`."""

    type: str
    title: str
    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class MemberReport:
    """One pod's state as its sidecar, or its gang's master, tells it."""

    pod: str
    rank: int
    phase: str
    uid: str = ""
    exit_code: int | None = None
    reason: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodReport:
    """Sent by a sidecar or a master; ``seq`` rises with each report of one sender."""

    job_id: str
    attempt: int
    epoch: int
    seq: int
    members: tuple[MemberReport, ...]


# Any: the hook is not in their type.
_REQUESTS: tuple[Any, ...] = (
    JobRequest,
    PodRequest,
    InputRequest,
    OutputRequest,
    SparkRequest,
    DagRequest,
    NodeRequest,
    VariableRequest,
    RunRequest,
    ProfileRequest,
    MountRequest,
    HdfsRequest,
    IdleRequest,
    NotebookRequest,
    RenewRequest,
    MemberReport,
    PodReport,
)
for _request in _REQUESTS:
    _request.__pydantic_config__ = STRICT

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def adapter(cls: Any) -> TypeAdapter[Any]:
    """Built once a type: making one costs milliseconds."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _known_keys(cls: Any, path: Sequence[str | int]) -> list[str]:
    """The keys that stand at the level where ``path`` ends, found by walking the dataclass."""
    for step in path[:-1]:
        if isinstance(step, int):
            continue
        hints = typing.get_type_hints(cls) if is_dataclass(cls) else {}
        if step not in hints:
            return []
        cls = hints[step]
        for _ in range(3):
            inner = [a for a in typing.get_args(cls) if is_dataclass(a) or typing.get_origin(a) in (tuple, types.UnionType)]
            if is_dataclass(cls) or not inner:
                break
            cls = inner[0]
    return [f.name for f in fields(cls)] if is_dataclass(cls) else []


def show_path(path: Sequence[str | int]) -> str:
    """``pods[0].gpus`` for ``("pods", 0, "gpus")``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else str(step))
    return text


def parse(cls: type[T], data: object, what: str) -> T:
    """A request of type ``cls`` from decoded JSON or YAML. Raises BadInput with path and nearest key."""
    try:
        text = json.dumps(data, allow_nan=False)
    except RecursionError:
        raise BadInput(f"{what}: it is nested too deeply to be read; expected a few levels.") from None
    except (TypeError, ValueError) as error:
        where = _not_finite(data)
        if where is not None:
            raise BadInput(f"{what}: {show_path(where)}: it is no finite number; expected one that is.") from None
        raise BadInput(f"{what}: {error}; expected values that JSON can hold.") from error
    return parse_json(cls, text, what)


def _not_finite(data: object, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...] | None:
    """The path of the first number that is none or has no end. Requests are a few levels deep; what is deeper is not looked at."""
    if isinstance(data, float) and not isfinite(data):
        return path
    items: Iterable[tuple[str | int, object]] = ()
    if isinstance(data, Mapping):
        items = ((str(key), value) for key, value in data.items())
    elif isinstance(data, (list, tuple)):
        items = enumerate(data)
    found = (_not_finite(value, (*path, step)) for step, value in items if len(path) < DEEPEST)
    return next((one for one in found if one is not None), None)


def parse_json(cls: type[T], text: str | bytes, what: str) -> T:
    try:
        return typing.cast(T, adapter(cls).validate_json(text))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A misspelt key is also a missing one: the spelling is what helps.
        first = next((one for one in found if one["type"] in UNKNOWN_KEY), found[0])
        path = [step for step in first["loc"] if not (isinstance(step, str) and step in ("str", "int", "float"))]
        where = show_path(path) or what
        if first["type"] in UNKNOWN_KEY:
            known = _known_keys(cls, path)
            near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
            raise BadInput(f"{what}: unknown key {where}; {hint}") from None
        given = first.get("input")
        given = f"{given[:80]}…" if isinstance(given, str) and len(given) > 80 else given
        shown = "" if isinstance(given, (dict, list)) else f" (given: {given!r})"
        raise BadInput(f"{what}: {where}: {first['msg'].lower()}{shown}.") from None


def to_json(value: object, cls: Any = None) -> bytes:
    return adapter(cls or type(value)).dump_json(value)


def to_data(value: object, cls: Any = None) -> Any:
    """As plain dicts and lists. ``Any``: JSON has no narrower static type."""
    return adapter(cls or type(value)).dump_python(value, mode="json")


def from_json(cls: type[T], text: str | bytes) -> T:
    """Our own output read back (rows, journal, replies): lenient about nothing, but raises ValidationError, a bug, not BadInput."""
    return typing.cast(T, adapter(cls).validate_json(text))


def event_kind(event: Event) -> str:
    return type(event).__name__


EVENT_TYPES: Mapping[str, type] = {cls.__name__: cls for cls in typing.get_args(Event)}


def event_to_json(event: Event) -> str:
    return to_json(event).decode()


def event_from_json(kind: str, body: str) -> Event:
    return typing.cast(Event, from_json(EVENT_TYPES[kind], body))
