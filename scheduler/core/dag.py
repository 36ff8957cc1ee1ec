"""DAGs: validation of a graph, which nodes may start, and how a run advances when the jobs of its nodes end."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import JobPhase, NodePhase, Run, RunNode, RunPhase, When

Edges = Mapping[str, Sequence[str]]
"""Node name to the names of its parents."""


def check_graph(names: Sequence[str], after: Edges) -> list[str]:
    """The names in topological order, parents first (ties in the given order).

    Raises BadInput naming the nodes: a duplicate name, a missing parent, an edge to itself, a cycle.
    """
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"nodes: {name!r} stands there {names.count(name)} times; expected each name once.")
    for name in names:
        for parent in after.get(name, ()):
            if parent == name:
                raise BadInput(f"node {name!r}: it comes after itself; remove that edge.")
            if parent not in names:
                near = difflib.get_close_matches(parent, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the nodes are {', '.join(names)}."
                raise BadInput(f"node {name!r}: it comes after {parent!r}, which is not there; {hint}")
    order: list[str] = []
    left = list(names)
    while left:
        ready = [name for name in left if all(parent in order for parent in after.get(name, ()))]
        if not ready:
            raise BadInput(f"nodes: they form a cycle ({' -> '.join(_cycle(left, after))}); remove one of these edges.")
        order += ready
        left = [name for name in left if name not in ready]
    return order


def _cycle(left: Sequence[str], after: Edges) -> list[str]:
    """One cycle among the remaining nodes, parents first."""
    path = [left[0]]
    while True:
        parent = next(p for p in after[path[-1]] if p in left)
        if parent in path:
            return [parent, *reversed(path[path.index(parent) :])]
        path.append(parent)


def descendants(names: Iterable[str], after: Edges) -> set[str]:
    """The named nodes and all their descendants."""
    below = set(names)
    grew = True
    while grew:
        more = {name for name, parents in after.items() if name not in below and below & set(parents)}
        below |= more
        grew = bool(more)
    return below


def edges(run: Run) -> Edges:
    return {node.name: node.after for node in run.nodes}


def node_phase(job_phase: JobPhase) -> NodePhase:
    ends = {
        JobPhase.SUCCEEDED: NodePhase.SUCCEEDED,
        JobPhase.FAILED: NodePhase.FAILED,
        JobPhase.CANCELLED: NodePhase.CANCELLED,
    }
    return ends.get(job_phase, NodePhase.SUBMITTED)


def advance(run: Run) -> tuple[Run, list[RunNode]]:
    """The run advanced, and the nodes that may start now.

    Nodes that can never start are skipped, or cancelled with the run; ready nodes are marked submitted; when every node has
    ended, the run gets its final phase.
    """
    nodes = {node.name: node for node in run.nodes}
    changed = True
    while changed:
        changed = False
        for node in list(nodes.values()):
            reason = _skip_reason(node, nodes, run.cancel_requested)
            if reason is not None:
                phase = NodePhase.CANCELLED if run.cancel_requested else NodePhase.SKIPPED
                nodes[node.name] = replace(node, phase=phase, reason=reason)
                changed = True
    ready = [node for node in nodes.values() if node.phase is NodePhase.PENDING and _may_start(node, nodes)]
    for node in ready:
        nodes[node.name] = replace(node, phase=NodePhase.SUBMITTED)
    run = replace(run, nodes=tuple(nodes[node.name] for node in run.nodes))
    if all(node.phase.is_terminal for node in run.nodes):
        run = replace(run, phase=_end(run))
    return run, ready


def _is_success(node: RunNode) -> bool:
    return node.phase is NodePhase.SUCCEEDED or (node.ignore_fail and node.phase is NodePhase.FAILED)


def _may_start(node: RunNode, nodes: Mapping[str, RunNode]) -> bool:
    parents = [nodes[name] for name in node.after]
    if node.when is When.ALL_DONE:
        return all(parent.phase.is_terminal for parent in parents)
    return all(_is_success(parent) for parent in parents)


def _skip_reason(node: RunNode, nodes: Mapping[str, RunNode], is_cancelled: bool) -> str | None:
    """Why a pending node will never run; None while it may."""
    if node.phase is not NodePhase.PENDING:
        return None
    if is_cancelled:
        return "the run was cancelled"
    if node.when is When.ALL_DONE:
        return None
    bad = [name for name in node.after if nodes[name].phase.is_terminal and not _is_success(nodes[name])]
    return f"{', '.join(bad)} did not succeed" if bad else None


def _end(run: Run) -> RunPhase:
    if run.cancel_requested:
        return RunPhase.CANCELLED
    return RunPhase.SUCCEEDED if all(_is_success(node) for node in run.nodes) else RunPhase.FAILED


def to_retry(run: Run) -> set[str]:
    """The nodes that a retry starts over: those that did not end well, and everything below them."""
    return descendants((node.name for node in run.nodes if not _is_success(node)), edges(run))
