"""A database with a past: what a simulated site did, as its service would have written it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Cluster, Node, Queue
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources
from tuttilab.scheduler.simulation import Simulation, TraceJob, known_policy
from tuttilab.scheduler.store.base import Batch, Entry, Store

LINES_A_COMMIT = 400


def key_of(event: ev.Event) -> str:
    match event:
        case ev.JobSubmitted(job):
            return job.id
        case ev.ClusterObserved(cluster):
            return cluster.name
        case _:
            return str(getattr(event, "job_id", "queues"))


async def fill(store: Store, trace: Sequence[TraceJob], clusters: Sequence[Cluster], queues: Sequence[Queue], at: float) -> None:
    """Write what the site did, with the submission of the first job at ``at``, and give up the lead."""
    moved = [replace(job, submit_s=job.submit_s + at) for job in trace]
    done = Simulation(clusters, queues, moved, known_policy("ours"), keeps_journal=True).run()
    epoch = await store.open()
    state, last = State(epoch=epoch), at
    for begin in range(0, len(done.journal), LINES_A_COMMIT):
        entries = []
        for event, when in done.journal[begin : begin + LINES_A_COMMIT]:
            last = max(when, last)
            state.handle(event, last)
            entries.append(Entry(event, last, key_of(event)))
        changes = state.take_changes()
        await store.commit(
            Batch(
                epoch,
                tuple(entries),
                changes.jobs,
                changes.attempts,
                changes.queues,
                accounts=changes.accounts,
                ended_accounts=changes.ended_accounts,
                history=changes.history,
                dropped_history=changes.dropped_history,
            )
        )
    await store.close()


def long_and_short(count: int) -> list[TraceJob]:
    """A site that is short of room, where long jobs come before many short ones, under names that recur."""
    return [
        TraceJob(f"long-{place}", place * 60.0, 2400.0, 4, owner="ann", name="train")
        if place % 6 == 0
        else TraceJob(f"short-{place}", place * 60.0, 120.0, 1, owner="bob", name="<b>test</b>")
        for place in range(count)
    ]


def two_nodes() -> tuple[Cluster, ...]:
    """Of a cluster `here`, 4 GPUs each."""
    nodes = [Node(name, "here", Resources.of({GPU: 4, CPU: 16000, MEMORY: 2**36})) for name in ("a", "b")]
    return (Cluster("here", "fake", tuple(nodes)),)
