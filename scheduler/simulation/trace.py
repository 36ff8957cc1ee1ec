"""Traces: which jobs were submitted when, their size and their duration; read from and written to CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Final

from tuttilab.scheduler.core.kinds import MAX_PRIORITY, batch
from tuttilab.scheduler.core.kinds.pods import GPU_TYPE_LABEL, MAX_PODS
from tuttilab.scheduler.core.placement.taints import toleration_of
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Gang, Job, JobKind, PodSet, Toleration, Work
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources, parse_count, parse_cpu, parse_memory, total
from tuttilab.scheduler.domain.strict_yaml import document
from tuttilab.scheduler.domain.wire import STRICT, parse, to_json

REQUIRED: Final = ("job_id", "submit_s", "duration_s", "gpus")
POD_COLUMNS: Final = ("pods", "cpu", "memory", "gpu_type", "labels", "tolerations", "min_count")
"""Columns that describe the pods of a job whose pods are all equal."""
OPTIONAL: Final = ("pods", "cpu", "memory", "queue", "owner", "name", "priority", "limit_s", *POD_COLUMNS[3:], "pod_sets", "kind")
LONGEST_S: Final = 10 * 366 * 86400.0
MOST_GPUS: Final = 1_000_000
QUEUE: Final = "main"
NOTEBOOK: Final = "notebook"
SPARK: Final = "spark"
KINDS: Final[Mapping[str, JobKind]] = {NOTEBOOK: JobKind.NOTEBOOK, SPARK: JobKind.SPARK}
"""Kinds that a line has to name; the others follow from its pods."""

_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,120}")


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One line of a trace. ``gpus``, ``cpu`` and ``memory`` are those of all pods together, split evenly without ``pod_sets``."""

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
    min_count: int | None = None
    """The fewest pods that it starts with. It gets the others when there is room; its duration does not depend on their number."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have for its pods."""
    tolerations: tuple[str, ...] = ()
    pod_sets: tuple[PodRequest, ...] = ()
    """Pods that are not all equal, as in a manifest."""
    kind: str = ""
    """One of `KINDS`: a notebook server or a Spark session. They are of one pod and end when their user ends them."""

    def job(self, order: int, start: float = 0.0) -> Job:
        """The job as the service would have accepted it. Without sidecars, which a simulation does not need."""
        kind, gang = self._gang()
        return Job(
            id=self.job_id,
            name=self.name,
            owner=self.owner,
            group=self.owner,
            queue=self.queue,
            kind=KINDS.get(self.kind, kind),
            gang=gang,
            work=Work(("true",), sidecar=False),
            submitted_at=start + self.submit_s,
            order=order,
            priority=self.priority,
            timeout_s=self.limit_s,
        )

    def _gang(self) -> tuple[JobKind, Gang]:
        if self.pod_sets:
            return gang_of(self.pod_sets)
        each = Resources.of({GPU: self.gpus // self.pods, CPU: -(-self.cpu // self.pods), MEMORY: -(-self.memory // self.pods)})
        one = PodSet(
            "worker",
            self.pods,
            each,
            self.min_count,
            node_labels=self.labels,
            tolerations=_tolerations(self.tolerations, "tolerations"),
            can_grow=self.min_count is not None and self.min_count < self.pods,
        )
        return JobKind.DISTRIBUTED if self.pods > 1 else JobKind.BATCH, Gang((one,))


def gang_of(pod_sets: tuple[PodRequest, ...]) -> tuple[JobKind, Gang]:
    kind, gang, _ = batch.gang(JobRequest(pods=pod_sets, command=("true",), sidecar=False))
    return kind, gang


def _seconds(text: str, where: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not least <= value <= LONGEST_S:
        raise BadInput(f"{where}: {_short(text)} is not a time; expected seconds from {least:g} to {LONGEST_S:g}.")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def read_trace(text: str, what: str = "trace", largest_node_gpus: int = 8) -> list[TraceJob]:
    """The jobs by submission time. Raises BadInput naming line and column of the first error.

    Without a column ``pods`` a job with more GPUs than one node has is split over as few pods as possible.
    """
    # Spreadsheets put a byte order mark in front.
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        _check_columns(columns, what)
        reader.fieldnames = columns
        jobs = [_row(row, f"{what}, line {reader.line_num}", largest_node_gpus) for row in reader]
    except csv.Error as error:
        raise BadInput(f"{what}, line {reader.line_num + 1}: {error}; expected CSV, text with commas in double quotes.") from None
    if not jobs:
        raise BadInput(f"{what}: it has no jobs; expected at least one line below the header.")
    seen: set[str] = set()
    for job in jobs:
        if job.job_id in seen:
            raise BadInput(f"{what}: job_id {job.job_id!r} stands there twice; expected each once.")
        seen.add(job.job_id)
    return sorted(jobs, key=lambda job: job.submit_s)


def _check_columns(columns: Sequence[str], what: str) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise BadInput(f"{what}, line 1: the columns {', '.join(missing)} are missing; expected {', '.join(REQUIRED)}.")
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    if unknown:
        some = ", ".join(name[:40] for name in unknown[:10])
        raise BadInput(f"{what}, line 1: the columns {some} are unknown; known are {', '.join(REQUIRED + OPTIONAL)}.")
    if len(set(columns)) != len(columns):
        raise BadInput(f"{what}, line 1: a column stands there twice; expected each once.")


def _row(row: Mapping[str, str | None], where: str, largest_node_gpus: int) -> TraceJob:
    given = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
    if None in row or None in row.values():
        raise BadInput(f"{where}: it has another number of fields than the header; expected one for each column.")
    for key in ("job_id", "queue", "owner", "name"):
        if given.get(key) and not _TEXT.fullmatch(given[key]):
            raise BadInput(f"{where}, {key}: {_short(given[key])} is not a name; expected 1 to 120 printable characters.")
    if not given["job_id"]:
        raise BadInput(f"{where}, job_id: it is empty; expected a name.")
    complete = _with_pod_sets if given.get("pod_sets") else _with_equal_pods
    job = TraceJob(
        job_id=given["job_id"],
        submit_s=_seconds(given["submit_s"], f"{where}, submit_s", 0.0),
        duration_s=_seconds(given["duration_s"], f"{where}, duration_s", 0.001),
        queue=given.get("queue") or QUEUE,
        owner=given.get("owner") or "someone",
        name=given.get("name") or "job",
        priority=_priority(given.get("priority") or "0", f"{where}, priority"),
        limit_s=_seconds(given["limit_s"], f"{where}, limit_s", 0.001) if given.get("limit_s") else None,
        kind=given.get("kind", ""),
    )
    if job.kind and job.kind not in KINDS:
        raise BadInput(f"{where}, kind: {_short(job.kind)} is not known; expected {' or '.join(KINDS)}, or an empty field.")
    whole = complete(job, given, where, largest_node_gpus)
    if job.kind and whole.pods > 1:
        raise BadInput(f"{where}, kind: a {job.kind} is one pod; given {whole.pods} pods.")
    return whole


def _priority(text: str, where: str) -> int:
    try:
        priority = int(text)
    except ValueError:
        raise BadInput(f"{where}: {_short(text)} is not whole; expected a number such as 0.") from None
    if abs(priority) > MAX_PRIORITY:
        raise BadInput(f"{where}: {priority} is out of range; expected -{MAX_PRIORITY} to {MAX_PRIORITY}.")
    return priority


def _with_equal_pods(job: TraceJob, given: Mapping[str, str], where: str, largest_node_gpus: int) -> TraceJob:
    gpus = parse_count(given["gpus"], f"{where}, gpus")
    if gpus > MOST_GPUS:
        raise BadInput(f"{where}, gpus: {gpus} is out of range; expected 0 to {MOST_GPUS}.")
    least = -(-gpus // largest_node_gpus) if largest_node_gpus else 1
    pods = parse_count(given["pods"], f"{where}, pods") if given.get("pods") else max(1, least)
    if not 1 <= pods <= MAX_PODS:
        raise BadInput(f"{where}, pods: {pods} is out of range; expected 1 to {MAX_PODS}.")
    if gpus % pods:
        raise BadInput(f"{where}, gpus: {gpus} cannot be shared out evenly over {pods} pods; expected a multiple.")
    min_count = parse_count(given["min_count"], f"{where}, min_count") if given.get("min_count") else None
    if min_count is not None and not 1 <= min_count <= pods:
        raise BadInput(f"{where}, min_count: {min_count} is out of range; expected 1 to the number of pods ({pods}).")
    tolerations = _split(given.get("tolerations", ""))
    _tolerations(tolerations, f"{where}, tolerations")
    labels = {}
    for text in _split(given.get("labels", "")):
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise BadInput(f"{where}, labels: {_short(text)} is no label; expected key=value, several with ';' between.")
        labels[key] = value
    if given.get("gpu_type"):
        labels[GPU_TYPE_LABEL] = given["gpu_type"]
    return replace(
        job,
        gpus=gpus,
        pods=pods,
        cpu=parse_cpu(given["cpu"], f"{where}, cpu") if given.get("cpu") else 1000 * max(1, gpus),
        memory=parse_memory(given["memory"], f"{where}, memory") if given.get("memory") else 2**30 * max(1, gpus),
        min_count=min_count,
        labels=labels,
        tolerations=tolerations,
    )


def _with_pod_sets(job: TraceJob, given: Mapping[str, str], where: str, largest_node_gpus: int) -> TraceJob:
    for key in ("gpus", *POD_COLUMNS):
        if given.get(key):
            raise BadInput(f"{where}, {key}: it is told by pod_sets; expected an empty field beside them.")
    what = f"{where}, pod_sets"
    pod_sets = parse(_PODS, {"pods": document(given["pod_sets"], what)}, what).pods
    try:
        _, gang = gang_of(pod_sets)
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    all_pods = total(one.resources * one.count for one in gang.pod_sets)
    return replace(job, gpus=all_pods[GPU], pods=gang.size, cpu=all_pods[CPU], memory=all_pods[MEMORY], pod_sets=pod_sets)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pods:
    pods: tuple[PodRequest, ...]


# Any: the hook of pydantic is not in the type of a dataclass.
_PODS: Any = _Pods
_PODS.__pydantic_config__ = STRICT


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _tolerations(texts: Iterable[str], where: str) -> tuple[Toleration, ...]:
    return tuple(toleration_of(text, where) for text in texts)


def trace_lines(jobs: Iterable[TraceJob]) -> Iterator[str]:
    """The trace as CSV, header first, each line with its line end; `read_trace` reads the same jobs from it."""
    return csv_lines((REQUIRED + OPTIONAL, *map(_fields, jobs)))


def csv_lines(rows: Iterable[Sequence[str | int]]) -> Iterator[str]:
    """Each row as a CSV line with its line end, quoted where needed."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield lines.getvalue()
        lines.seek(0)
        lines.truncate()


def _fields(job: TraceJob) -> tuple[str | int, ...]:
    own = (job.job_id, repr(job.submit_s), repr(job.duration_s), "" if job.pod_sets else job.gpus)
    rest = (job.queue, job.owner, job.name, job.priority, "" if job.limit_s is None else repr(job.limit_s))
    if job.pod_sets:
        return (*own, "", "", "", *rest, "", "", "", "", to_json(job.pod_sets, tuple[PodRequest, ...]).decode(), job.kind)
    labels = ";".join(f"{key}={value}" for key, value in job.labels.items())
    least = "" if job.min_count is None else job.min_count
    return (*own, job.pods, f"{job.cpu}m", job.memory, *rest, "", labels, ";".join(job.tolerations), least, "", job.kind)
