"""Builds what a submit sends: the bundle, the requests and their idempotency keys.

Shared by `%%submit`, the `submit` decorator and `sweep`. Sends nothing itself.
"""

from __future__ import annotations

import ast
import hashlib
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tuttilab.magics.shared.labels import DISPLAY, ELEMENT, ERROR, RESULT, SWEEP
from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.submission.bundle import RUNNER, build_bundle, cell_source
from tuttilab.magics.submission.capture import Captured
from tuttilab.magics.submission.modules import module_path
from tuttilab.magics.submission.names import Brought
from tuttilab.scheduler.client import read_spark
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import Amount, JobRequest, MountRequest, OutputRequest, PodRequest, SideCarRequest

MAP_INDEX: Final = "TUTTILAB_MAP_INDEX"
SWEEP_LETTERS: Final = 8
MOST_ELEMENTS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a submit, from the magic's line or from the keywords of the Python API."""

    name: str | None = None
    cpus: Amount = 1
    memory: Amount = "1Gi"
    gpus: Amount = 0
    gpu_type: str | None = None
    workers: int = 1
    min_workers: int | None = None
    queue: str | None = None
    run_as: str | None = None
    priority: int = 0
    image: str | None = None
    python: str | None = None
    """The interpreter's path; this kernel's without it."""
    timeout: float | None = None
    """Seconds."""
    retries: int = 0
    after: tuple[str, ...] = ()
    cluster: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    framework: str = "none"
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[MountRequest, ...] = ()
    sidecars: tuple[SideCarRequest, ...] = ()
    spark: tuple[str, ...] = ()
    """Size and settings of a Spark application, as `additions.read_spark` reads them; empty for other jobs."""

    @property
    def needs_containers(self) -> bool:
        """Whether it runs in an image, the cluster's default one where none is named."""
        return bool(self.image or self.mounts or self.sidecars)


@dataclass(frozen=True)
class Submission:
    """One bundle and the requests that run it, each with its idempotency key: one, or one per element of ``--map``."""

    bundle: bytes
    requests: tuple[JobRequest, ...]
    keys: tuple[str, ...]


def prepare(
    cell: str,
    cell_name: str,
    captured: Captured,
    options: Options,
    stem_of: Callable[[str], str],
    *,
    out: Sequence[str] = (),
    brought: Brought = Brought(),  # noqa: B008 - immutable
    map_name: str | None = None,
    elements: int | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Submission:
    """Builds the bundle and its requests. With ``elements``, each job gets one element of the variable ``map_name``.

    ``stem_of`` gives the stem of the keys for the digest of everything that is sent (`Executions.stem`).
    """
    bundle = build_bundle(
        cell,
        cell_name,
        captured,
        out=out,
        brought=brought,
        map_name=map_name,
        framework=options.framework,
        files=files,
        path=() if options.needs_containers else module_path(),
        is_image=options.needs_containers,
    )
    request = _request(options, hashlib.sha256(bundle).hexdigest())
    stem = stem_of(hashlib.sha256(f"{request!r} {elements}".encode()).hexdigest())
    if elements is None:
        return Submission(bundle, (request,), (stem,))
    # The stem is in the names too, so that the jobs of one sweep can be listed by it.
    sweep = stem[:SWEEP_LETTERS]
    requests = tuple(
        replace(
            request,
            name=f"{request.name}-{sweep}[{index}]",
            env={**request.env, MAP_INDEX: str(index)},
            labels={**request.labels, SWEEP: sweep, ELEMENT: str(index)},
        )
        for index in range(elements)
    )
    return Submission(bundle, requests, tuple(f"{stem}-{index}" for index in range(elements)))


def _request(options: Options, code: str) -> JobRequest:
    if options.min_workers is not None and options.min_workers > options.workers:
        raise BadInput(f"--min-workers {options.min_workers} is more than --workers {options.workers}; give at most that.")
    if options.python is not None and options.needs_containers:
        other = f"--image {options.image}" if options.image else "the image of a job with --mount or --sidecar"
        raise BadInput(f"--python {options.python} is an interpreter of this machine, and {other} has its own; give one.")
    worker = PodRequest(
        role="worker",
        count=options.workers,
        min_count=options.min_workers,
        cpus=options.cpus,
        memory=options.memory,
        gpus=options.gpus,
        gpu_type=options.gpu_type,
    )
    # An image has its own interpreter; without an image the job runs this kernel's, if no other is named.
    python = "python3" if options.needs_containers else options.python or sys.executable
    main = f"$(TUTTILAB_CODE_DIR)/{RUNNER}"
    request = JobRequest(
        name=options.name or "cell",
        queue=options.queue,
        run_as=options.run_as,
        priority=options.priority,
        pods=(worker,),
        image=options.image,
        command=(python, main),
        env=dict(options.env),
        workdir=None if options.needs_containers else str(Path.cwd()),
        code=code,
        outputs=(
            OutputRequest(name=RESULT, path="result.pkl", optional=True),
            OutputRequest(name=ERROR, path="error.json", optional=True),
            OutputRequest(name=DISPLAY, path="display.jsonl", optional=True),
        ),
        framework=options.framework,
        timeout=None if options.timeout is None else max(1, math.ceil(options.timeout)),
        retries=options.retries,
        after=options.after,
        cluster=options.cluster,
        labels=dict(options.labels),
        mounts=options.mounts,
        sidecars=options.sidecars,
    )
    if not options.spark:
        return request
    try:
        spark = replace(read_spark(options.spark, main), interpreter=python)
    except ValueError as error:
        raise BadInput(f"--spark: {' '.join(options.spark)[:80]!r} was given; expected {error}.") from error
    return replace(request, kind="spark-batch", pods=JobRequest().pods, command=(), spark=spark)


def check_syntax(cell: str, cell_name: str) -> None:
    """Raises SyntaxError for an invalid cell before anything is sent; line numbers are those of the editor."""
    compile(cell_source(cell), cell_name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def elements_of(name: str, value: Any) -> list[Any]:
    """The elements of ``--map``'s variable. Raises UsageError for a value without ordered elements, or with too many."""
    kind = type(value).__name__
    if isinstance(value, (str, bytes, Mapping)) or kind == "DataFrame":
        advice = "use list(...) of what each job shall get" if kind != "DataFrame" else 'use df.to_dict("records")'
        raise UsageError(f"--map {name} is a {kind}; expected a list, a tuple, a range or an array: {advice}.")
    if not isinstance(value, Iterable) or not isinstance(value, Sized):
        raise UsageError(f"--map {name} is a {kind} without a length; expected a list, a tuple, a range or an array.")
    if not 1 <= len(value) <= MOST_ELEMENTS:
        raise UsageError(f"--map {name} has {len(value):,} elements; expected 1 to {MOST_ELEMENTS:,}.")
    return list(value)


class Executions:
    """Idempotency keys of submits: the same submit in the same cell execution has the same key, however often it is sent."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex
        self._number = 0
        self._ordinals: dict[str, int] = {}

    def begin(self, *_: object) -> None:
        """Called when a cell execution starts (IPython's ``pre_run_cell``)."""
        self._number += 1
        self._ordinals.clear()

    def stem(self, message_id: str | None, digest: str) -> str:
        """``message_id`` identifies the execution if the front end sent one. Repeated submits of a loop are numbered."""
        ordinal = self._ordinals.get(digest, 0)
        self._ordinals[digest] = ordinal + 1
        execution = message_id or f"{self._process}:{os.getpid()}:{self._number}"
        return hashlib.sha256(f"{execution}:{ordinal}:{digest}".encode()).hexdigest()[:40]
