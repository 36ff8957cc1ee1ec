"""JSON of the API and the journal: strict parsing of requests, and the views that callers get.

Requests are parsed strictly: no booleans as numbers, no unknown key at any depth; errors name the path and the nearest key.
Views are separate classes, so that epochs, digests and secrets stay private. Times are seconds since the epoch.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Annotated, Any, Final, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tuttilab.scheduler.domain import shape
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.events import Event
from tuttilab.scheduler.domain.requests import (
    AccountRequest,
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
    SideCarRequest,
    SparkRequest,
    VariableRequest,
)
from tuttilab.scheduler.domain.shape import MAX_DEPTH, AtMost, show_path

T = TypeVar("T")

WHOLE_BYTES: Final = 64 * 1024
"""A longer text is validated in pieces."""

MOST_NAMES: Final = 256
"""Of the endpoints and of the outputs that one pod reports, as in `sidecar.protocol`."""
MOST_MEMBERS: Final = 20_000
"""In a report of a master: a gang has 10,000 pods at most, and those that left it are told too."""

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
    """Why it was removed from the running gang; empty if it was not."""


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
    """Ended pods that a shrink removed from the running gang."""
    asks_for: str = ""
    """With how many workers it said last that it can do something (`TUTTILAB_WORKERS_FILE`); empty when it said nothing."""
    waited_for: str = ""
    """Why the job waited before this attempt, as it was last told; empty when it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptView:
    """Room that is held for a job from ``start`` on (seconds since 1970), on these nodes as it looks now.

    ``trusts``: what others that start there before must promise to be gone by then: their predictions, or only their limits.
    """

    cluster: str
    nodes: tuple[str, ...]
    start: float
    trusts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedView:
    """A job that was submitted later and was started past the hold of this one, as far as the caller may know it.

    ``promise``: why that was not to delay it. ``kept_start``: when it was to start then. ``ends_by``: when that one was to end, by
    its prediction or its limit. ``must_end``: whether it was to be gone by ``kept_start``.
    """

    job: str
    promise: str
    started_at: float
    kept_start: float
    ends_by: float | None = None
    ended_at: float | None = None
    nodes: tuple[str, ...] = ()
    must_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitView:
    """Why a job waits: one sentence, and the same as data. ``short``: what is missing, by Kubernetes resource key.

    It starts between ``earliest`` and ``latest`` (seconds since 1970), on ``basis``; without them ``basis`` says why no start is
    told. ``held_by``: those who hold what is missing, as far as the caller may know. ``rule``: what the site's decision rule was
    tuned to, since when and by whom; empty for the built-in one. ``kept``: the room that is held for it; ``passed``: the newest
    that were started past that. ``overtaken_s``: how long jobs submitted later in its queue used the whole room, or a part of it
    for longer, while it waited; above ``allowed_s`` it is protected and goes before all of them.
    """

    why: str
    sentence: str
    place: int
    short: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None
    role: str | None = None
    blockers: tuple[str, ...] = ()
    estimated_start: float | None = None
    basis: str = ""
    earliest: float | None = None
    latest: float | None = None
    held_by: tuple[str, ...] = ()
    rule: str = ""
    kept: KeptView | None = None
    passed: tuple[PassedView, ...] = ()
    overtaken_s: float = 0.0
    allowed_s: float = 0.0
    is_protected: bool = False


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
    """A job. ``phase``: that of the live attempt, else the job's own."""

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
    run_as: str | None = None
    """The proxy user as which its pods run; None: as its owner, or as its cluster runs all."""
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
    """What a submit would lead to now. ``verdict``: starts, waits or refused."""

    verdict: str
    sentence: str
    charge: Mapping[str, str] = field(default_factory=dict)
    placements: Mapping[str, str] = field(default_factory=dict)
    """Role and rank (``worker-0``) to node, if it would start now."""
    wait: WaitView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UseView:
    """Use of one resource in a queue: integers in the units of `resources`, and texts for people."""

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
    others: Mapping[str, str] = field(default_factory=dict)
    """Requested by pods that are not ours."""
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
    others: Mapping[str, str] = field(default_factory=dict)
    """Requested by pods that are not ours."""
    unreachable_why: str = ""
    """In its own words; empty while it answers."""
    image: str | None = None
    """Of jobs that name none, where pods are containers."""
    pythons: Mapping[str, str] = field(default_factory=dict)
    """Major and minor version of Python by image, as the site says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """Whole lines from ``start``; read on from ``next``. ``is_end``: the pod ended and its log is complete.

    ``partial``: newest state of the unfinished line after them, such as a progress bar; empty when there is none.
    ``times``: numbers of lines with when they were written, in seconds since 1970, each up to the next entry's; empty where the
    cluster cannot tell.
    """

    pod: str
    rank: int
    start: int
    lines: tuple[str, ...]
    next: int
    is_end: bool
    partial: str = ""
    times: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    seq: int
    at: float
    kind: str
    key: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteView:
    """Something that somebody changed. ``by`` is empty where nobody asked: at a start, and for what was kept long enough."""

    seq: int
    at: float
    by: str
    kind: str
    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    """Newest first; pass ``next`` as ``cursor`` to get those before."""

    writes: tuple[WriteView, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesView:
    """Changes after ``since``: kind and id of each changed object. The client fetches what it shows."""

    seq: int
    changes: tuple[EventView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkSessionView:
    """A Spark session of the caller. ``is_ready``: its endpoint is available."""

    name: str
    job_id: str
    phase: str
    reason: str
    is_ready: bool
    cpus: str
    memory: str
    created_at: float
    wait: WaitView | None = None
    executors: int = 0
    """Pods beside the driver's, whose size is ``cpus`` and ``memory``; 0: tasks run in the driver."""
    executor_cores: int = 0
    executor_memory: str = ""
    """Heap of each, in Spark's words, as ``4096m``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkEndpointView:
    """How the owner's kernel connects to the session. Sent to the owner only."""

    name: str
    job_id: str
    host: str
    port: int
    token: str = ""
    """Of the session itself. Empty when a Spark proxy listens there, which takes the caller's own token."""
    ui: str | None = None
    tls: bool = False
    here: bool = True
    """Whether the session runs on the machine of that address, and so sees its files."""
    attempt: int = 1
    """Of the job: with another one the session's views and settings are gone."""
    ui_token: str = ""
    """Of its pages, for the header Authorization, where they are served on a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkRouteRequest:
    """Asked by the Spark proxy for a caller, whose own token it is. ``job_id``: the session must be this one."""

    token: str
    session: str
    job_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkRouteView:
    """Where the caller's session is, and the secret of its server. Sent to the Spark proxy only."""

    owner: str
    job_id: str
    host: str
    port: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactView:
    id: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadView:
    """Where to PUT the bytes. ``url`` None: to the service itself."""

    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultView:
    """Outputs of one rank: output name to artifact id."""

    job_id: str
    attempt: int
    rank: int
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNodeView:
    """A node of a run. ``phase``: that of its job while the job exists, else the node's own."""

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
    """``queues``: where servers of the profile can start for the user whom the hub asks about, the default first."""

    profile: ProfileRequest
    applied_by: str
    applied_at: float
    queues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookView:
    """The job of a notebook server, for the hub only.

    ``is_admitted``: create its pod, on ``node`` of the job's cluster. ``is_wanted`` false: stop the server and its pod.
    """

    job: JobView
    profile: ProfileRequest
    is_admitted: bool
    is_wanted: bool
    node: str | None = None
    image: str | None = None
    installation: str = ""
    """Of the control plane, for a label of the pod: what the ledger has is not counted again as what others take of a node."""
    run_as: AccountRequest | None = None
    """The proxy user's; None: as the user themselves."""
    driver_ports: tuple[int, ...] = ()
    """Its own, of all live servers: the pod listens there, and the hub opens them."""
    place: int | None = None
    refusal: str = ""
    """While it waits: what it asks for, what is free, and which members of the owner's group use the rest."""
    expires_at: float | None = None
    """When it is cancelled unless it is renewed; None once the server runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityView:
    name: str
    groups: tuple[str, ...]
    admin: bool
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadView:
    """What a reload of the configuration changed, one sentence each.

    ``loosened``: limits that are gone or larger, which the caller has to accept. ``unchecked``: resources that no node has yet.
    """

    changes: tuple[str, ...]
    loosened: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyView:
    """Parameters of the decision rule that are not the built-in ones, since when, by whom and why. ``fixed``: by the file."""

    text: str
    values: Mapping[str, float | str | bool] = field(default_factory=dict)
    fixed: Mapping[str, float | str | bool] = field(default_factory=dict)
    since: float | None = None
    by: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """RFC 9457 problem document. ``type``: the stable ``type`` of a class in `errors`."""

    type: str
    title: str
    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class MemberReport:
    """State of one pod, reported by its sidecar or by the master of its gang."""

    pod: str
    rank: int
    phase: str
    uid: str = ""
    exit_code: int | None = None
    reason: str = ""
    endpoints: Annotated[Mapping[str, str], AtMost(MOST_NAMES)] = field(default_factory=dict)
    outputs: Annotated[Mapping[str, str], AtMost(MOST_NAMES)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodReport:
    """Report of a sidecar or a master; ``seq`` increases with each report of one sender."""

    job_id: str
    attempt: int
    epoch: int
    seq: int
    members: Annotated[tuple[MemberReport, ...], AtMost(MOST_MEMBERS)]


# Any: the dataclasses do not declare `__pydantic_config__`.
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
    SideCarRequest,
    HdfsRequest,
    IdleRequest,
    NotebookRequest,
    RenewRequest,
    MemberReport,
    PodReport,
    SparkRouteRequest,
)
for _request in _REQUESTS:
    _request.__pydantic_config__ = STRICT

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def adapter(cls: Any) -> TypeAdapter[Any]:
    """The cached TypeAdapter of the type: building one takes milliseconds."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


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
    """The path of the first NaN or infinity, down to `MAX_DEPTH` levels; requests are only a few levels deep."""
    if isinstance(data, float) and not isfinite(data):
        return path
    items: Iterable[tuple[str | int, object]] = ()
    if isinstance(data, Mapping):
        items = ((str(key), value) for key, value in data.items())
    elif isinstance(data, (list, tuple)):
        items = enumerate(data)
    found = (_not_finite(value, (*path, step)) for step, value in items if len(path) < MAX_DEPTH)
    return next((one for one in found if one is not None), None)


def parse_json(cls: type[T], text: str | bytes, what: str) -> T:
    """A request of type ``cls`` from JSON. Raises BadInput with path and nearest key, for the first thing that is wrong.

    A long text is validated in pieces, one element of its outer lists at a time: one call for all of it would keep every other
    thread of the process waiting.
    """
    body = text.encode() if isinstance(text, str) else text
    cuts = shape.check(cls, body, what)
    if len(body) <= WHOLE_BYTES or not all(_has_commas(body, cut) for cut in cuts):
        return _validated(cls, body, what)
    rest, at = bytearray(), 0
    for cut in cuts:
        rest += body[at : cut.span[0]]
        at = cut.span[1]
    whole = _validated(cls, bytes(rest + body[at:]), what)
    for cut in cuts:
        pieces: Iterable[object] = (
            _validated(cut.cls, body[a:b], what, (*cut.path, index)) for index, (a, b) in enumerate(cut.items)
        )
        whole = _with(whole, cut.path, tuple(pieces))
    return whole


def _has_commas(body: bytes, cut: shape.Cut) -> bool:
    """Whether one comma is between each two elements and nothing else beside them; the spans alone do not tell."""
    ends = [cut.span[0], *(end for _, end in cut.items)]
    begins = [*(begin for begin, _ in cut.items), cut.span[1]]
    gaps = [body[end:begin].strip() for end, begin in zip(ends, begins, strict=True)]
    return all(gap == (b"," if 0 < place < len(cut.items) else b"") for place, gap in enumerate(gaps))


def _with(value: Any, path: Sequence[str], inner: object) -> Any:
    """The dataclass ``value`` with ``inner`` at ``path``. ``Any``: any dataclass."""
    return replace(value, **{path[0]: _with(getattr(value, path[0]), path[1:], inner) if len(path) > 1 else inner})


def _validated(cls: type[T], text: bytes, what: str, prefix: Sequence[shape.Step] = ()) -> T:
    try:
        return typing.cast(T, adapter(cls).validate_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = [*prefix, *(step for step in first["loc"] if not (isinstance(step, str) and step in ("str", "int", "float")))]
        given = first.get("input")
        given = f"{given[:80]}…" if isinstance(given, str) and len(given) > 80 else given
        shown = "" if isinstance(given, (dict, list, bytes)) else f" (given: {given!r})"
        where = f"{show_path(path)}: " if path else ""
        raise BadInput(f"{what}: {where}{first['msg'].lower()}{shown}.") from None


def to_json(value: object, cls: Any = None) -> bytes:
    """Raises BadInput where a text holds bytes that are no UTF-8, as a file's name or a variable may on Linux."""
    try:
        return adapter(cls or type(value)).dump_json(value)
    except ValueError:
        found = _not_unicode(adapter(cls or type(value)).dump_python(value, mode="python"), ())
        if found is None:
            raise
        path, text = found
        raise BadInput(f"{show_path(path)}: {check_text(text)}") from None


def check_text(text: str) -> str:
    """Empty for text that UTF-8 can hold, else a sentence that says what is wrong with it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{text[:80]!a} is not UTF-8 text, and only that can be sent; rename it, or leave it out."
    return ""


def _not_unicode(data: object, path: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], str] | None:
    if isinstance(data, str):
        return (path, data) if check_text(data) else None
    items: Iterable[tuple[str | int, object]] = ()
    if isinstance(data, dict):
        for key in data:
            if check_text(str(key)):
                return path, str(key)
        items = data.items()
    elif isinstance(data, (list, tuple)):
        items = enumerate(data)
    return next((found for key, item in items if (found := _not_unicode(item, (*path, key)))), None)


def to_data(value: object, cls: Any = None) -> Any:
    """The value as plain dicts and lists. ``Any``: JSON has no narrower static type."""
    return adapter(cls or type(value)).dump_python(value, mode="json")


def from_json(cls: type[T], text: str | bytes) -> T:
    """Strictly parse JSON that the product itself wrote (rows, journal, replies). Raises ValidationError: invalid data is a bug."""
    return typing.cast(T, adapter(cls).validate_json(text))


def event_kind(event: Event) -> str:
    return type(event).__name__


EVENT_TYPES: Mapping[str, type] = {cls.__name__: cls for cls in typing.get_args(Event)}


def event_to_json(event: Event) -> str:
    return to_json(event).decode()


def event_from_json(kind: str, body: str) -> Event:
    return typing.cast(Event, from_json(EVENT_TYPES[kind], body))
