"""Manifests: YAML files with one `kind` each, read into requests. A new kind is one line in the table below."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.requests import DagRequest, JobRequest, ProfileRequest
from tuttilab.scheduler.wire import parse
from tuttilab.scheduler.yaml_text import documents

KINDS: Final[Mapping[str, type[JobRequest] | type[DagRequest] | type[ProfileRequest]]] = {
    "Job": JobRequest,
    "Dag": DagRequest,
    "Profile": ProfileRequest,
}
TAKERS: Final = {"Job": "tuttilab submit", "Dag": "tuttilab dag run", "Profile": "tuttilab profile apply"}
"""The command that takes each kind."""

T = TypeVar("T", JobRequest, DagRequest, ProfileRequest)


def read(path: Path, kind: type[T]) -> list[T]:
    """Every document of a file, in its order; all must be of that kind. Raises BadInput with file, document and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{path}: the manifest cannot be read ({why}); give the path of a YAML file.") from error
    return parse_manifests(text, str(path), kind)


def parse_manifests(text: str, what: str, wanted: type[T]) -> list[T]:
    found = documents(text, what)
    word = next(name for name, cls in KINDS.items() if cls is wanted)
    if not found:
        raise BadInput(f"{what}: it is empty; expected a document that begins with `kind: {word}`.")
    return [
        _one(document, what if len(found) == 1 else f"{what}, document {at}", wanted, word) for at, document in enumerate(found, 1)
    ]


def _one(document: object, what: str, wanted: type[T], word: str) -> T:
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise BadInput(f"{what}: expected a mapping that begins with `kind: {word}`.")
    kind = document.get("kind")
    if kind is None:
        raise BadInput(f"{what}: the key kind is missing; expected `kind: {word}`.")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind).capitalize(), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known now: {', '.join(KINDS)}."
        raise BadInput(f"{what}: kind: {kind!r} is not a kind of manifest; {hint}")
    if kind != word:
        raise BadInput(f"{what}: kind: {kind!r} goes to `{TAKERS[kind]}`; expected `kind: {word}` here.")
    return parse(wanted, {key: value for key, value in document.items() if key != "kind"}, what)
