"""Reads the cluster, policy and events files of `tuttilab simulate`: YAML, checked as strictly as a request.

```yaml
nodes:
  - {name: gpu, count: 8, cpus: 64, memory: 512Gi, gpus: 8, labels: {rack: r1}}
queues:
  - {name: main, weight: 1}
```

and an events file, with the time of each event:

```yaml
events:
  - {at_s: 600, lost: east}
  - {at_s: 900, queues: [{name: main, clusters: [west]}]}
  - {at_s: 1200, cancel: job-17}
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tuttilab.scheduler.config.file import QueueFile
from tuttilab.scheduler.config.load import check_name, check_room, node_room, queues_of
from tuttilab.scheduler.core.ordering.queues import leaves
from tuttilab.scheduler.core.placement.taints import taint_of
from tuttilab.scheduler.core.rules import Order, Reservation
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Cluster, Node, Queue
from tuttilab.scheduler.domain.requests import Amount
from tuttilab.scheduler.domain.resources import GPU, Resources, parse_count
from tuttilab.scheduler.domain.strict_yaml import document
from tuttilab.scheduler.domain.wire import STRICT, parse
from tuttilab.scheduler.simulation.policies import POLICIES, Policy
from tuttilab.scheduler.simulation.trace import LONGEST_S, TraceJob

MOST_NODES: Final = 100_000
"""Of a site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """``count`` equal nodes: ``name`` itself, or ``name-0``, ``name-1`` and so on. ``taints`` as in tuttilab.yaml."""

    name: str
    count: int = 1
    cpus: Amount
    memory: Amount = "64Gi"
    gpus: Amount = 0
    resources: Mapping[str, Amount] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    cluster: str = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    nodes: tuple[NodeLine, ...]
    queues: tuple[QueueFile, ...] = (QueueFile(name="main"),)
    """As in tuttilab.yaml."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """``base`` is one of the known policies; the rest changes it."""

    base: str = "ours"
    name: str = "own"
    order: str | None = None
    keep: str | None = None
    protects: bool | None = None
    preempts: bool | None = None
    knows_durations: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One event at ``at_s``: a cluster becomes unreachable or is back, the queues are replaced, or a job is cancelled."""

    at_s: float | int
    lost: str | None = None
    back: str | None = None
    queues: tuple[QueueFile, ...] | None = None
    cancel: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsFile:
    events: tuple[EventLine, ...]


# Any: the hook of pydantic is not in the type of a dataclass.
_FILES: tuple[Any, ...] = (SiteFile, NodeLine, PolicyFile, EventLine, EventsFile)
for _file in _FILES:
    _file.__pydantic_config__ = STRICT


def read_site(text: str, what: str = "cluster file") -> tuple[list[Cluster], list[Queue]]:
    """Clusters and queues. Raises BadInput naming the place; a site without a node is refused."""
    given = parse(SiteFile, document(text, what), what)
    try:
        nodes = _nodes(given.nodes)
        queues = queues_of(given.queues, list(nodes))
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    return [Cluster(name, "fake", tuple(members)) for name, members in nodes.items()], list(queues)


def _nodes(lines: Iterable[NodeLine]) -> dict[str, list[Node]]:
    """By cluster."""
    nodes: dict[str, list[Node]] = {}
    for index, line in enumerate(lines):
        path = f"nodes[{index}]"
        if not 1 <= line.count <= MOST_NODES - sum(map(len, nodes.values())):
            raise BadInput(
                f"{path}.count: {line.count} is out of range; expected 1 or more, and at most {MOST_NODES} nodes in all."
            )
        room = node_room(line.cpus, line.memory, line.resources, path)
        room += Resources.of({GPU: parse_count(line.gpus, f"{path}.gpus")})
        taints = tuple(taint_of(text, f"{path}.taints[{place}]") for place, text in enumerate(line.taints))
        names = [line.name] if line.count == 1 else [f"{line.name}-{number}" for number in range(line.count)]
        check_name(f"{path}.name", names[-1])
        check_name(f"{path}.cluster", line.cluster)
        members = nodes.setdefault(line.cluster, [])
        members += [Node(name, line.cluster, room, dict(line.labels), taints) for name in names]
    if not nodes:
        raise BadInput("it has no nodes; expected at least one under `nodes`.")
    for cluster, members in nodes.items():
        if len({node.name for node in members}) != len(members):
            raise BadInput(f"nodes: cluster {cluster!r} has two nodes of one name; expected each once.")
    check_room((node.allocatable for members in nodes.values() for node in members), "nodes")
    return nodes


def read_events(
    text: str, clusters: Iterable[Cluster], trace: Iterable[TraceJob], what: str = "events file"
) -> list[tuple[float, ev.Event]]:
    """The events beside the trace, by time. Raises BadInput naming the place, also for an unknown cluster, queue or job."""
    given = parse(EventsFile, document(text, what), what)
    jobs = {job.job_id: job.queue for job in trace}
    names = [cluster.name for cluster in clusters]
    events: list[tuple[float, ev.Event]] = []
    for index, line in enumerate(given.events):
        path = f"events[{index}]"
        try:
            if not 0 <= line.at_s <= LONGEST_S:
                raise BadInput(f"{path}.at_s: {line.at_s} is not a time; expected seconds from 0 to {LONGEST_S:g}.")
            events.append((float(line.at_s), _event(line, path, names, jobs)))
        except BadInput as error:
            raise BadInput(f"{what}: {error}") from None
    return sorted(events, key=lambda event: event[0])


def _event(line: EventLine, path: str, clusters: list[str], jobs: Mapping[str, str]) -> ev.Event:
    keys = [key for key in ("lost", "back", "queues", "cancel") if getattr(line, key) is not None]
    if len(keys) != 1:
        raise BadInput(f"{path}: it says {' and '.join(keys) or 'nothing'}; expected one of lost, back, queues and cancel.")
    if line.queues is not None:
        queues = queues_of(line.queues, clusters, f"{path}.queues")
        check_trace_fits(queues, jobs.values(), f"{path}.queues")
        return ev.QueuesConfigured(queues)
    if line.cancel is not None:
        if line.cancel not in jobs:
            raise BadInput(f"{path}.cancel: the trace has no job {line.cancel[:120]!r}; expected the job_id of one.")
        return ev.JobCancelRequested(line.cancel, "the events file")
    cluster = line.lost or line.back or ""
    if cluster not in clusters:
        raise BadInput(f"{path}.{keys[0]}: there is no cluster {cluster!r}; expected one of {', '.join(clusters)}.")
    return ev.ClusterLost(cluster) if line.lost else ev.ClusterBack(cluster)


def known_policy(name: str) -> Policy:
    if name not in POLICIES:
        raise BadInput(f"policy: {name!r} is not known; expected one of {', '.join(POLICIES)}.")
    return POLICIES[name]


def read_policy(text: str, what: str = "policy file") -> Policy:
    given = parse(PolicyFile, document(text, what) or {}, what)
    base = known_policy(given.base)
    for key, value, known in (("order", given.order, list(Order)), ("keep", given.keep, list(Reservation))):
        if value is not None and value not in known:
            raise BadInput(f"{what}: {key}: {value!r} is not known; expected one of {', '.join(known)}.")
    rules = replace(
        base.rules,
        order=base.rules.order if given.order is None else Order(given.order),
        reservation=base.rules.reservation if given.keep is None else Reservation(given.keep),
        protects=base.rules.protects if given.protects is None else given.protects,
        preempts=base.rules.preempts if given.preempts is None else given.preempts,
        explains_all=False,
    )
    knows = base.knows_durations if given.knows_durations is None else given.knows_durations
    return replace(base, name=given.name, rules=rules, knows_durations=knows)


def check_trace_fits(queues: Iterable[Queue], names: Iterable[str], what: str = "trace") -> None:
    """Raises BadInput for a queue name that is not a leaf of the queue tree."""
    known = sorted(queue.name for queue in leaves({queue.name: queue for queue in queues}))
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise BadInput(f"{what}: there is no queue {unknown[0]!r} for jobs; expected one of {', '.join(known)}.")
