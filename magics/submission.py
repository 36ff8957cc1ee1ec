"""From a cell and its options to what is sent: the bundle, the request, and the key that makes sending it twice harmless.

Shared by `%%submit`, the `submit` decorator and `sweep`. Nothing here talks to the service.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tuttilab.magics.bundle import RUNNER, build_bundle, cell_source
from tuttilab.magics.capture import Captured
from tuttilab.magics.parse import UsageError
from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.requests import Amount, JobRequest, OutputRequest, PodRequest

RESULT: Final = "result"
ERROR: Final = "error"
MAP_INDEX: Final = "TUTTILAB_MAP_INDEX"
SWEEP: Final = "sweep"
"""Label of the jobs of one `--map`; `ELEMENT` is the label with the index among them."""
ELEMENT: Final = "element"
SWEEP_LETTERS: Final = 8
MOST_ELEMENTS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a submit may say about its job, from the magic's line or from the keywords of the Python twin."""

    name: str | None = None
    cpus: Amount = 1
    memory: Amount = "1Gi"
    gpus: Amount = 0
    gpu_type: str | None = None
    workers: int = 1
    min_workers: int | None = None
    queue: str | None = None
    priority: int = 0
    image: str | None = None
    timeout: float | None = None
    """Seconds."""
    retries: int = 0
    after: tuple[str, ...] = ()
    cluster: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    framework: str = "none"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Submission:
    """One bundle and the requests that run it, each with its key: one, or one an element of ``--map``."""

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
    map_name: str | None = None,
    elements: int | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Submission:
    """The bundle and its requests. With ``elements`` the variable ``map_name`` is one of its own elements in each job.

    ``stem_of`` gives the stem of the keys for a digest of everything that is sent (`Executions.stem`).
    """
    bundle = build_bundle(cell, cell_name, captured, out=out, map_name=map_name, framework=options.framework, files=files)
    request = _request(options, hashlib.sha256(bundle).hexdigest())
    stem = stem_of(hashlib.sha256(f"{request!r} {elements}".encode()).hexdigest())
    if elements is None:
        return Submission(bundle, (request,), (stem,))
    # The stem is in the names too, so that the elements of one sweep can be listed by it.
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
    worker = PodRequest(
        role="worker",
        count=options.workers,
        min_count=options.min_workers,
        cpus=options.cpus,
        memory=options.memory,
        gpus=options.gpus,
        gpu_type=options.gpu_type,
    )
    return JobRequest(
        name=options.name or "cell",
        queue=options.queue,
        priority=options.priority,
        pods=(worker,),
        image=options.image,
        # An image brings its own interpreter; without one the job runs where this kernel's interpreter is.
        command=("python3" if options.image else sys.executable, f"$(TUTTILAB_CODE_DIR)/{RUNNER}"),
        env=dict(options.env),
        workdir=None if options.image else str(Path.cwd()),
        code=code,
        outputs=(
            OutputRequest(name=RESULT, path="result.pkl", optional=True),
            OutputRequest(name=ERROR, path="error.json", optional=True),
        ),
        framework=options.framework,
        timeout=None if options.timeout is None else max(1, math.ceil(options.timeout)),
        retries=options.retries,
        after=options.after,
        cluster=options.cluster,
        labels=dict(options.labels),
    )


def compiled(cell: str, cell_name: str) -> None:
    """Raise what is wrong with the cell before anything is sent; line numbers are those of the editor."""
    compile(cell_source(cell), cell_name, "exec", dont_inherit=True)


def elements_of(name: str, value: Any) -> list[Any]:
    """The elements of ``--map``'s variable. Raises UsageError for what has none, none in order, or too many."""
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
    """Keys of submits. The same submit in the same cell execution has the same key, however often it is sent."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex
        self._number = 0
        self._ordinals: dict[str, int] = {}

    def begin(self, *_: object) -> None:
        """A cell execution starts (IPython's ``pre_run_cell``)."""
        self._number += 1
        self._ordinals.clear()

    def stem(self, message_id: str | None, digest: str) -> str:
        """``message_id`` names the execution where the front end gave it a name; a loop may submit the same thing several times."""
        ordinal = self._ordinals.get(digest, 0)
        self._ordinals[digest] = ordinal + 1
        execution = message_id or f"{self._process}:{os.getpid()}:{self._number}"
        return hashlib.sha256(f"{execution}:{ordinal}:{digest}".encode()).hexdigest()[:40]
