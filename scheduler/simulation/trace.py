"""A trace: who submitted what when, how large it was and how long it ran. Read from and written to CSV, refused with the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final

from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.model import Gang, Job, JobKind, PodSet, Work
from tuttilab.scheduler.resources import CPU, GPU, MEMORY, Resources, parse_count, parse_cpu, parse_memory

REQUIRED: Final = ("job_id", "submit_s", "duration_s", "gpus")
OPTIONAL: Final = ("pods", "cpu", "memory", "queue", "owner", "name", "priority", "limit_s")
LONGEST_S: Final = 10 * 366 * 86400.0
QUEUE: Final = "main"


@dataclass(frozen=True, slots=True)
class TraceJob:
    """``gpus``, ``cpu`` and ``memory`` are of all pods together, and are shared out evenly."""

    job_id: str
    submit_s: float
    duration_s: float
    gpus: int = 0
    pods: int = 1
    cpu: int = 1000
    memory: int = 2**30
    queue: str = QUEUE
    owner: str = "someone"
    name: str = "job"
    priority: int = 0
    limit_s: float | None = None

    def job(self, order: int, start: float = 0.0) -> Job:
        """As the service would have accepted it. Bare pods: in a simulation nothing of ours runs beside them."""
        each = Resources.of({GPU: self.gpus // self.pods, CPU: -(-self.cpu // self.pods), MEMORY: -(-self.memory // self.pods)})
        kind = JobKind.DISTRIBUTED if self.pods > 1 else JobKind.BATCH
        return Job(
            id=self.job_id,
            name=self.name,
            owner=self.owner,
            group=self.owner,
            queue=self.queue,
            kind=kind,
            gang=Gang((PodSet("worker", self.pods, each),)),
            work=Work(("true",), sidecar=False),
            submitted_at=start + self.submit_s,
            order=order,
            priority=self.priority,
            timeout_s=self.limit_s,
        )


def _seconds(text: str, where: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not least <= value <= LONGEST_S:
        raise BadInput(f"{where}: {text!r} is not a time; expected seconds from {least:g} to {LONGEST_S:g}.")
    return value


def read_trace(text: str, what: str = "trace", largest_node_gpus: int = 8) -> list[TraceJob]:
    """The jobs by submission time. Raises BadInput naming line and column; nothing is read of a trace that has an error.

    Without a column ``pods`` a job that asks for more GPUs than one node has is split over as few nodes as hold it.
    """
    reader = csv.DictReader(io.StringIO(text))
    columns = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise BadInput(f"{what}, line 1: the columns {', '.join(missing)} are missing; expected {', '.join(REQUIRED)}.")
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    if unknown:
        raise BadInput(f"{what}, line 1: the columns {', '.join(unknown)} are unknown; known are {', '.join(REQUIRED + OPTIONAL)}.")
    if len(set(columns)) != len(columns):
        raise BadInput(f"{what}, line 1: a column stands there twice; expected each once.")
    reader.fieldnames = columns
    jobs = [_row(row, f"{what}, line {reader.line_num}", largest_node_gpus) for row in reader]
    if not jobs:
        raise BadInput(f"{what}: it has no jobs; expected at least one line below the header.")
    seen: set[str] = set()
    for job in jobs:
        if job.job_id in seen:
            raise BadInput(f"{what}: job_id {job.job_id!r} stands there twice; expected each once.")
        seen.add(job.job_id)
    return sorted(jobs, key=lambda job: job.submit_s)


def _row(row: Mapping[str, str | None], where: str, largest_node_gpus: int) -> TraceJob:
    given = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
    if None in row or None in row.values():
        raise BadInput(f"{where}: it has another number of fields than the header; expected one for each column.")
    if not given["job_id"]:
        raise BadInput(f"{where}, job_id: it is empty; expected a name.")
    gpus = parse_count(given["gpus"], f"{where}, gpus")
    least = -(-gpus // largest_node_gpus) if largest_node_gpus else 1
    pods = parse_count(given["pods"], f"{where}, pods") if given.get("pods") else max(1, least)
    if not 1 <= pods <= 10_000:
        raise BadInput(f"{where}, pods: {pods} is out of range; expected 1 to 10000.")
    if gpus % pods:
        raise BadInput(f"{where}, gpus: {gpus} cannot be shared out evenly over {pods} pods; expected a multiple.")
    cpu = parse_cpu(given["cpu"], f"{where}, cpu") if given.get("cpu") else 1000 * max(1, gpus)
    memory = parse_memory(given["memory"], f"{where}, memory") if given.get("memory") else 2**30 * max(1, gpus)
    try:
        priority = int(given.get("priority") or 0)
    except ValueError:
        raise BadInput(f"{where}, priority: {given['priority']!r} is not whole; expected a number such as 0.") from None
    return TraceJob(
        job_id=given["job_id"],
        submit_s=_seconds(given["submit_s"], f"{where}, submit_s", 0.0),
        duration_s=_seconds(given["duration_s"], f"{where}, duration_s", 0.001),
        gpus=gpus,
        pods=pods,
        cpu=cpu,
        memory=memory,
        queue=given.get("queue") or QUEUE,
        owner=given.get("owner") or "someone",
        name=given.get("name") or "job",
        priority=priority,
        limit_s=_seconds(given["limit_s"], f"{where}, limit_s", 0.001) if given.get("limit_s") else None,
    )


def trace_lines(jobs: Iterable[TraceJob]) -> Iterator[str]:
    """As CSV, header first; `read_trace` of it gives the same jobs."""
    yield ",".join((*REQUIRED, "pods", "cpu", "memory", "queue", "owner", "name"))
    for job in jobs:
        amounts = f"{job.gpus},{job.pods},{job.cpu}m,{job.memory}"
        yield f"{job.job_id},{job.submit_s:.3f},{job.duration_s:.3f},{amounts},{job.queue},{job.owner},{job.name}"
