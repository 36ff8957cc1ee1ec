"""The cluster and policy files of `tuttilab simulate`: YAML, checked as strictly as a request, amounts as people write them.

```yaml
nodes:
  - {name: gpu, count: 8, cpus: 64, memory: 512Gi, gpus: 8, labels: {rack: r1}}
queues:
  - {name: main, weight: 1}
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from tuttilab.scheduler.core.queues import check_tree
from tuttilab.scheduler.core.rules import Keep, Order, Rules
from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.model import Cluster, Node, Queue, Taint
from tuttilab.scheduler.requests import Amount
from tuttilab.scheduler.resources import CPU, GPU, MEMORY, Resources, parse_count, parse_cpu, parse_memory
from tuttilab.scheduler.simulation.policies import POLICIES, Policy
from tuttilab.scheduler.wire import STRICT, parse

MOST_NODES: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
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
class QueueLine:
    name: str
    parent: str | None = None
    weight: int = 1
    priority: int = 0
    guaranteed: Mapping[str, Amount] = field(default_factory=dict)
    max: Mapping[str, Amount] = field(default_factory=dict)
    max_jobs: int | None = None
    max_pods: int | None = None
    can_borrow: bool = True
    can_reclaim: bool = True
    overtaking: float | int = 0.15
    overtaking_s: float | int = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    nodes: tuple[NodeLine, ...]
    queues: tuple[QueueLine, ...] = (QueueLine(name="main"),)


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


# Any: the hook of pydantic is not in the type of a dataclass.
_FILES: tuple[Any, ...] = (SiteFile, NodeLine, QueueLine, PolicyFile)
for _file in _FILES:
    _file.__pydantic_config__ = STRICT


def _document(text: str, what: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{what}{where}: {error.problem}; mend the YAML there.") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{what}: it is not YAML ({' '.join(str(error).split())}).") from None


def read_site(text: str, what: str = "cluster file") -> tuple[list[Cluster], list[Queue]]:
    """Clusters and queues. Raises BadInput naming the place; a site without a node is refused."""
    given = parse(SiteFile, _document(text, what), what)
    nodes: dict[str, list[Node]] = {}
    for index, line in enumerate(given.nodes):
        path = f"{what}: nodes[{index}]"
        if not 1 <= line.count <= MOST_NODES:
            raise BadInput(f"{path}.count: {line.count} is out of range; expected 1 to {MOST_NODES}.")
        amounts = {
            CPU: parse_cpu(line.cpus, f"{path}.cpus"),
            MEMORY: parse_memory(line.memory, f"{path}.memory"),
            GPU: parse_count(line.gpus, f"{path}.gpus"),
        }
        room = Resources.of(amounts) + Resources.parse(line.resources, f"{path}.resources")
        for number in range(line.count):
            name = line.name if line.count == 1 else f"{line.name}-{number}"
            taints = tuple(Taint(key) for key in line.taints)
            nodes.setdefault(line.cluster, []).append(Node(name, line.cluster, room, dict(line.labels), taints))
    for name, members in nodes.items():
        if len({node.name for node in members}) != len(members):
            raise BadInput(f"{what}: cluster {name!r} has two nodes of one name; expected each once.")
    if not nodes:
        raise BadInput(f"{what}: it has no nodes; expected at least one under `nodes`.")
    queues = [_queue(line, f"{what}: queues[{index}]") for index, line in enumerate(given.queues)]
    try:
        check_tree(queues)
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    return [Cluster(name, "fake", tuple(members)) for name, members in nodes.items()], queues


def _queue(line: QueueLine, path: str) -> Queue:
    return Queue(
        name=line.name,
        parent=line.parent,
        weight=line.weight,
        priority=line.priority,
        guaranteed=Resources.parse(line.guaranteed, f"{path}.guaranteed"),
        max=Resources.parse_limits(line.max, f"{path}.max"),
        max_jobs=line.max_jobs,
        max_pods=line.max_pods,
        can_borrow=line.can_borrow,
        can_reclaim=line.can_reclaim,
        overtaking=float(line.overtaking),
        overtaking_s=float(line.overtaking_s),
    )


def policy_named(name: str) -> Policy:
    if name not in POLICIES:
        raise BadInput(f"policy: {name!r} is not known; expected one of {', '.join(POLICIES)}.")
    return POLICIES[name]


def read_policy(text: str, what: str = "policy file") -> Policy:
    given = parse(PolicyFile, _document(text, what) or {}, what)
    base = policy_named(given.base)
    for key, value, known in (("order", given.order, list(Order)), ("keep", given.keep, list(Keep))):
        if value is not None and value not in known:
            raise BadInput(f"{what}: {key}: {value!r} is not known; expected one of {', '.join(known)}.")
    rules = Rules(
        order=base.rules.order if given.order is None else Order(given.order),
        keep=base.rules.keep if given.keep is None else Keep(given.keep),
        protects=base.rules.protects if given.protects is None else given.protects,
        preempts=base.rules.preempts if given.preempts is None else given.preempts,
        tells_all=False,
    )
    knows = base.knows_durations if given.knows_durations is None else given.knows_durations
    return replace(base, name=given.name, rules=rules, knows_durations=knows)


def check_trace_fits(clusters: list[Cluster], queues: list[Queue], names: set[str]) -> None:
    """Refuses a trace whose queues the site does not have."""
    inner = {queue.parent for queue in queues}
    leaves = {queue.name for queue in queues if queue.name not in inner}
    unknown = sorted(names - leaves)
    if unknown:
        raise BadInput(f"trace: there is no queue {unknown[0]!r} for jobs; expected one of {', '.join(sorted(leaves))}.")
    if not any(cluster.nodes for cluster in clusters):
        raise BadInput("cluster file: no cluster has a node; expected at least one.")
