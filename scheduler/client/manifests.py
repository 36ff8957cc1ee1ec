"""Reads manifests, YAML documents with a `kind`, into requests, and writes jobs as manifests. A new kind is one line in `KINDS`.

One rule for folders: a job runs in its ``workdir``, which is relative to the manifest's folder, and without one in that folder
itself; ``~`` is the home of whoever reads the manifest. So the same file does the same wherever it is submitted from.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from tuttilab.scheduler.client.environment import is_secret
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, ProfileRequest
from tuttilab.scheduler.domain.strict_yaml import documents
from tuttilab.scheduler.domain.wire import parse

SPARK_BATCH: Final = "spark-batch"
"""Kind of a manifest of a job that is a Spark application."""
KINDS: Final[Mapping[str, type[JobRequest] | type[DagRequest] | type[ProfileRequest]]] = {
    "Job": JobRequest,
    SPARK_BATCH: JobRequest,
    "Dag": DagRequest,
    "Profile": ProfileRequest,
}
COMMANDS: Final = {
    "Job": "tuttilab submit",
    SPARK_BATCH: "tuttilab submit",
    "Dag": "tuttilab dag run",
    "Profile": "tuttilab profile apply",
}
"""The command that accepts each kind."""

_NOT_WRITTEN: Final = ("kind", "inherited")
"""Of a request: what a manifest does not say. ``kind`` there is the manifest's."""
_ALWAYS_WRITTEN: Final = ("name", "role", "count", "cpus", "memory", "path")

T = TypeVar("T", JobRequest, DagRequest, ProfileRequest)


def read(path: Path, kind: type[T]) -> list[T]:
    """The documents of a file, in order, all of that kind, with absolute folders. Raises BadInput with file, document and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{path}: the manifest cannot be read ({why}); give the path of a YAML file.") from error
    folder = str(path.absolute().parent)
    return [_with_folders(one, folder) for one in parse_manifests(text, str(path), kind)]


def _with_folders(request: T, folder: str) -> T:
    """The request with absolute folders and inputs. ``folder``: the manifest's."""
    if isinstance(request, JobRequest):
        return _placed(request, folder, ".")
    if isinstance(request, DagRequest):
        nodes = tuple(
            replace(
                node,
                job=None if node.job is None else _placed(node.job, folder, None),
                notebook=None if node.notebook is None else absolute(node.notebook, folder),
            )
            for node in request.nodes
        )
        return replace(request, workdir=absolute(request.workdir or ".", folder), nodes=nodes)
    return request


def _placed(job: JobRequest, folder: str, default: str | None) -> JobRequest:
    """``default``: the job's folder where it names none. An image has folders of its own; ``workdir: ""`` is private and empty."""
    if job.needs_containers:
        return job
    workdir = default if job.workdir is None else job.workdir
    inputs = tuple(one if one.artifact is not None else replace(one, path=absolute(one.path, folder)) for one in job.inputs)
    placed = replace(job, workdir=absolute(workdir, folder) if workdir else workdir, inputs=inputs)
    return with_interpreter(placed)


def with_interpreter(job: JobRequest) -> JobRequest:
    """A Spark application outside of images runs in this Python, if it names none."""
    if job.spark is None or job.spark.interpreter is not None or job.needs_containers:
        return job
    return replace(job, spark=replace(job.spark, interpreter=sys.executable))


def absolute(path: str, folder: str) -> str:
    """``path`` below ``folder``. One that begins with a variable stays as it is: it gets its value later."""
    if path.startswith("$"):
        return path
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


def parse_manifests(text: str, what: str, wanted: type[T]) -> list[T]:
    found = documents(text, what)
    expected_kind = next(name for name, cls in KINDS.items() if cls is wanted)
    if not found:
        raise BadInput(f"{what}: it is empty; expected a document that begins with `kind: {expected_kind}`.")
    return [
        _parse_document(document, what if len(found) == 1 else f"{what}, document {at}", wanted, expected_kind)
        for at, document in enumerate(found, 1)
    ]


def write(request: JobRequest | DagRequest) -> str:
    """The manifest of a job or a DAG, with the keys that are not at their default. `read` gives an equal request.

    Variables whose names look like secrets are left out, and named in a comment: a manifest is shown and kept.
    """
    secrets: list[str] = []
    is_spark = isinstance(request, JobRequest) and request.kind == SPARK_BATCH
    kind = SPARK_BATCH if is_spark else next(name for name, cls in KINDS.items() if isinstance(request, cls))
    body = {"kind": kind, **_given(request, secrets)}
    text = str(yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120))
    return f"# Left out of env, as they may be secret: {', '.join(secrets)}\n{text}" if secrets else text


# Any: a dataclass of `requests`, and values of keys that have types of their own.
def _given(request: Any, secrets: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields(request):
        value = getattr(request, one.name)
        if one.name == "env":
            value = {name: text for name, text in value.items() if not is_secret(name, text)}
            secrets += [name for name in request.env if name not in value]
        is_told = one.name in _ALWAYS_WRITTEN or value != _default(one)
        # ``kind`` in a manifest is the manifest's.
        if is_told and not (one.name in _NOT_WRITTEN and isinstance(request, (JobRequest, DagRequest))):
            found[one.name] = _number(value) if one.name in ("cpus", "gpus") else _plain(value, secrets)
    return found


def _plain(value: Any, secrets: list[str]) -> Any:
    if is_dataclass(value):
        return _given(value, secrets)
    if isinstance(value, Mapping):
        return {key: _plain(one, secrets) for key, one in value.items()}
    return [_plain(one, secrets) for one in value] if isinstance(value, (list, tuple)) else value


def _default(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _parse_document(document: object, what: str, wanted: type[T], expected_kind: str) -> T:
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise BadInput(f"{what}: expected a mapping that begins with `kind: {expected_kind}`.")
    kind = document.get("kind")
    if kind is None:
        raise BadInput(f"{what}: the key kind is missing; expected `kind: {expected_kind}`.")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind).capitalize(), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known now: {', '.join(KINDS)}."
        raise BadInput(f"{what}: kind: {kind!r} is not a kind of manifest; {hint}")
    if kind != expected_kind and KINDS[kind] is not wanted:
        raise BadInput(f"{what}: kind: {kind!r} goes to `{COMMANDS[kind]}`; expected `kind: {expected_kind}` here.")
    if "inherited" in document:
        raise BadInput(f"{what}: unknown key inherited; did you mean 'env'?")
    body = {key: value for key, value in document.items() if key != "kind"}
    if kind == SPARK_BATCH:
        body["kind"] = kind
    return parse(wanted, body, what)
