"""What a job's page shows beside the job: what was sent along, what was kept, what the pods used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tuttilab.scheduler.clusters.base import DisplayChunk, Usage
from tuttilab.scheduler.domain.errors import BadInput, NotFound
from tuttilab.scheduler.domain.model import MASTER, Attempt, Job, Pod
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.domain.titles import title
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.blobs import Blobs
from tuttilab.scheduler.usecases.bundles import Bundle, read_bundle
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.scheduler.usecases.shown import LARGEST_READ, Shown, lines_of, read_shown

MOST_OUTPUTS: Final = 200
DISPLAY: Final = "display"
"""Name of the output in which a cell keeps what it showed."""


@dataclass(frozen=True, slots=True)
class Output:
    """``size`` in bytes; None when its bytes are not here."""

    rank: int
    name: str
    artifact: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Details:
    job: Job
    bundle: Bundle | None
    outputs: tuple[Output, ...]
    more_outputs: int


@dataclass(frozen=True, slots=True)
class PodUsage:
    pod: Pod
    usage: Usage


async def details_of(service: Service, blobs: Blobs, job_id: str, who: Who) -> Details:
    """Raises NotFound for a job that is not there or another owner's."""
    job, attempts = await Jobs(service).find(job_id, who)
    kept = [
        (pod.rank, name, artifact)
        for pod in (ranks_of(attempts[-1]) if attempts else ())
        for name, artifact in sorted(pod.outputs.items())
    ]

    def read() -> tuple[Bundle | None, tuple[Output, ...]]:
        bundle = read_bundle(blobs.path(job.work.code)) if job.work.code else None
        return bundle, tuple(Output(*each, _size_of(blobs, each[2])) for each in kept[:MOST_OUTPUTS])

    bundle, outputs = await asyncio.to_thread(read)
    return Details(job, bundle, outputs, len(kept) - len(outputs))


@dataclass(frozen=True, slots=True)
class ShownSoFar:
    """What a cell showed. ``size``: of all that it wrote about it; the same size means that nothing has changed."""

    size: int
    shown: Sequence[Shown] = ()
    more: int = 0
    """How many outputs are left out."""


async def shown_by(service: Service, blobs: Blobs, job_id: str, who: Who, rank: int, known: int) -> ShownSoFar:
    """What the cell of this rank showed in the newest attempt, while it runs and afterwards.

    ``known``: the size of what the caller has; nothing else is given when that is all. Raises NotFound for the job.
    """
    job, attempts = await Jobs(service).find(job_id, who)
    pod = attempts[-1].of_rank(rank) if attempts else None
    if pod is None:
        return ShownSoFar(0)
    lines: list[str] | list[bytes]
    if DISPLAY in pod.outputs:
        path = blobs.path(pod.outputs[DISPLAY])
        size = _size_of(blobs, pod.outputs[DISPLAY]) or 0
        lines = await asyncio.to_thread(lines_of, path) if size != known else []
    else:
        size, lines = await _lines_so_far(service, job, attempts[-1], pod, known)
    if size == known:
        return ShownSoFar(size)
    shown, more = await asyncio.to_thread(read_shown, lines)
    return ShownSoFar(size, shown, more)


async def _lines_so_far(service: Service, job: Job, attempt: Attempt, pod: Pod, known: int) -> tuple[int, list[str]]:
    cluster = service.clusters[attempt.cluster]
    if known and (await cluster.displays(job.id, attempt.number, pod.name, known)).next == known:
        return known, []
    lines: list[str] = []
    size = 0
    while size < LARGEST_READ:
        chunk = await cluster.displays(job.id, attempt.number, pod.name, size)
        if chunk.next <= size:
            break
        lines += chunk.lines
        size = chunk.next
    return size, lines


def _size_of(blobs: Blobs, artifact: str) -> int | None:
    try:
        return blobs.find(artifact).stat().st_size
    except (NotFound, BadInput, OSError):
        return None


async def usage_of(
    service: Service, job_id: str, who: Who, attempt: int | None, first: int, limit: int
) -> tuple[Job, Attempt | None, Sequence[PodUsage]]:
    """What ``limit`` pods from the ``first`` rank on used, of the newest attempt unless another is named.

    Pods of which nothing is known are left out. Without an attempt there is none. Raises NotFound.
    """
    job, attempts = await Jobs(service).find(job_id, who)
    if not attempts and attempt is None:
        return job, None, ()
    chosen = attempts[-1] if attempt is None else next((one for one in attempts if one.number == attempt), None)
    if chosen is None:
        raise NotFound(f"Job {title(job)} has no attempt {attempt}; it has {len(attempts)}.")
    cluster = service.clusters[chosen.cluster]

    async def of(pod: Pod) -> PodUsage | None:
        try:
            return PodUsage(pod, await cluster.usage(job.id, chosen.number, pod.name))
        except NotFound:
            return None

    pods = [pod for pod in ranks_of(chosen) if pod.rank >= first][:limit]
    found = await asyncio.gather(*map(of, pods))
    return job, chosen, [one for one in found if one is not None]


async def displays_of(service: Service, job_id: str, who: Who, attempt: int, rank: int, start: int) -> DisplayChunk:
    """What the cell of one rank displayed so far, from byte ``start``. Raises NotFound for an attempt that the job has not."""
    job, attempts = await Jobs(service).find(job_id, who)
    chosen = next((one for one in attempts if one.number == attempt), None)
    pod = chosen.of_rank(rank) if chosen is not None else None
    if chosen is None or pod is None:
        raise NotFound(f"Job {title(job)} has no rank {rank} in an attempt {attempt}.")
    return await service.clusters[chosen.cluster].displays(job.id, chosen.number, pod.name, start)


def ranks_of(attempt: Attempt) -> list[Pod]:
    """The newest pod of each rank, by rank, without the master."""
    newest: dict[int, Pod] = {}
    for pod in (*attempt.left, *attempt.pods):
        if pod.role != MASTER:
            newest[pod.rank] = pod
    return [newest[rank] for rank in sorted(newest)]
