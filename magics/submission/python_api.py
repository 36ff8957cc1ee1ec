"""The Python API of `%%submit`: a decorator that runs a function as a job, and a sweep of a function over values.

from tuttilab.magics import submit, sweep

@submit(gpus=1, workers=2)
def train(rate): ...

job = train(0.1)                 # returns a JobHandle at once
job.result()                     # waits
sweep(train, [0.1, 0.2]).result()
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, cast

from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import MapHandle
from tuttilab.magics.shared.notebook import origin_labels
from tuttilab.magics.shared.parse import duration_s, nearest
from tuttilab.magics.submission.bundle import read_files
from tuttilab.magics.submission.capture import capture
from tuttilab.magics.submission.interpreter import interpreter
from tuttilab.magics.submission.request import Options, elements_of, prepare
from tuttilab.magics.submission.send import key_stem, send
from tuttilab.scheduler.client import read_mount, read_sidecar
from tuttilab.scheduler.domain.errors import BadInput

P = ParamSpec("P")
R = TypeVar("R")

_CALL = "_tuttilab_call"
_ELEMENT = "_tuttilab_element"
_KEYWORDS = (
    "name", "cpus", "memory", "gpus", "gpu_type", "workers", "min_workers", "queue", "priority", "image", "python", "timeout",
    "retries", "after", "cluster", "env", "framework", "mount", "sidecar", "run_as",
)  # fmt: skip


class Submitted(Generic[P, R]):
    """A function whose calls submit jobs. ``local(…)`` calls it here; ``options(cpus=4)`` returns one with other options."""

    def __init__(self, function: Callable[P, R], keywords: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.local = function
        self._keywords = dict(keywords)
        _options(function, self._keywords)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        options, files = _options(self.local, self._keywords)
        captured = capture({_CALL: functools.partial(self.local, *args, **kwargs)})
        submission = prepare(f"{_CALL}()", _cell_name(self.local), captured, options, key_stem, files=files)
        return cast(JobHandle, send(submission, is_map=False))

    def map(self, values: Iterable[Any]) -> MapHandle:
        """Submits one job per value."""
        listed = elements_of("values", values if hasattr(values, "__len__") else list(values))
        options, files = _options(self.local, self._keywords)
        captured = capture({_CALL: self.local, _ELEMENT: listed})
        submission = prepare(
            f"{_CALL}({_ELEMENT})",
            _cell_name(self.local),
            captured,
            options,
            key_stem,
            map_name=_ELEMENT,
            elements=len(listed),
            files=files,
        )
        return cast(MapHandle, send(submission, is_map=True))

    def options(self, **keywords: Any) -> Submitted[P, R]:
        return Submitted(self.local, {**self._keywords, **keywords})


def submit(function: Callable[P, R] | None = None, **keywords: Any) -> Any:
    """Decorate a function so that calling it submits a job: ``@submit`` or ``@submit(gpus=1, workers=2)``.

    The keywords are the options of ``%%submit`` with underscores; ``timeout`` is seconds or a text such as "2h",
    ``after`` a handle, an id or several, ``files`` paths. Raises BadInput for an unknown keyword.
    """
    if function is None:
        _options(submit, keywords)
        return lambda decorated: Submitted(decorated, keywords)
    return Submitted(function, keywords)


def sweep(function: Callable[[Any], R] | Submitted[[Any], R], values: Iterable[Any], **keywords: Any) -> MapHandle:
    """Submits one job per value; ``result()`` of the handle has the values in order, a RemoteError in the place of a failed one."""
    submitted = function if isinstance(function, Submitted) else Submitted(function, {})
    return submitted.options(**keywords).map(values)


def _options(function: Any, keywords: Mapping[str, Any]) -> tuple[Options, dict[str, bytes]]:
    known = (*_KEYWORDS, "files")
    for key in keywords:
        if key not in known:
            guess = nearest(key, known)
            hint = f"did you mean {guess}?" if guess else f"known: {', '.join(known)}."
            raise BadInput(f"submit: unknown keyword {key}; {hint}")
    given = {key: value for key, value in keywords.items() if key in _KEYWORDS and value is not None}
    given.setdefault("name", getattr(function, "__name__", "job"))
    if isinstance(given.get("timeout"), str):
        try:
            given["timeout"] = duration_s(given["timeout"])
        except ValueError as error:
            raise BadInput(f"submit: timeout takes {error}, got {given['timeout']!r}.") from error
    if "python" in given:
        try:
            given["python"] = interpreter(str(given["python"]))
        except ValueError as error:
            raise BadInput(f"submit: python takes {error}, got {given['python']!r}.") from error
    for key, read, field in (("mount", read_mount, "mounts"), ("sidecar", read_sidecar, "sidecars")):
        texts = given.pop(key, ())
        try:
            given[field] = tuple(map(read, [texts] if isinstance(texts, str) else texts))
        except ValueError as error:
            raise BadInput(f"submit: {key} takes {error}, got {texts!r}.") from error
    if "after" in given:
        given["after"] = tuple(_job_ids(given["after"]))
    files = keywords.get("files") or ()
    return Options(**given, labels=origin_labels(None)), read_files([files] if isinstance(files, str) else [str(f) for f in files])


def _job_ids(after: Any) -> Sequence[str]:
    if isinstance(after, str):
        return [JobHandle(after).id]
    if isinstance(after, JobHandle):
        return [after.id]
    return [one for job in after for one in _job_ids(job)]


def _cell_name(function: Callable[..., Any]) -> str:
    return f"<submit {getattr(function, '__name__', 'job')}>"
