"""The code bundle of a captured cell: one tar whose bytes depend on nothing but what travels.

The same cell with the same inputs gives the same artifact id, so a submit that is sent again uploads nothing new.

    runner.py     starts tuttilab_cell/, which runs the cell in the job (tuttilab.sidecar.cell, as it stands)
    bundle.json   versions, the cell's name, what comes back, where modules are, the lines of functions that the cell uses, sizes
                  of captured names
    cell.py       the cell; its first line stands for the magic's line, so that line numbers are the editor's
    inputs.pkl    the captured objects by name
    files/...     what --files named
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tuttilab.magics.shared.labels import FIRST_LINE
from tuttilab.magics.submission.capture import LIMIT_BYTES, Captured, show_sizes
from tuttilab.magics.submission.interpreter import versions
from tuttilab.magics.submission.names import Brought
from tuttilab.scheduler.client import tar_of
from tuttilab.scheduler.domain.errors import BadInput, TooLarge

RUNNER: Final = "runner.py"
PACKAGE: Final = "tuttilab_cell"
_START: Final = f"""from {PACKAGE}.main import start

start()
"""
_SKIPPED: Final = frozenset({"__pycache__", ".git", ".ipynb_checkpoints"})


def cell_source(cell: str) -> str:
    """The text of ``cell.py``."""
    return FIRST_LINE + cell + ("" if cell.endswith("\n") else "\n")


def read_files(sources: Sequence[str]) -> dict[str, bytes]:
    """Path inside the bundle to content, of files and whole folders. Raises BadInput for one that is not there."""
    found: dict[str, bytes] = {}
    for source in sources:
        path = Path(source).expanduser()
        if path.is_file():
            _add(found, path.name, path, source)
        elif path.is_dir():
            root = path.resolve()
            for inner in sorted(root.rglob("*")):
                relative = inner.relative_to(root)
                # A link that leaves the folder would carry along what nobody named.
                if inner.is_file() and not _SKIPPED & set(relative.parts) and inner.resolve().is_relative_to(root):
                    _add(found, f"{root.name}/{relative.as_posix()}", inner, source)
        else:
            raise BadInput(f"--files {source}: there is no such file or folder here ({Path.cwd()}).")
    total = sum(map(len, found.values()))
    if total > LIMIT_BYTES:
        raise TooLarge(
            f"--files would send {show_sizes({name: len(body) for name, body in found.items()}, most=3)}, and at most "
            f"{LIMIT_BYTES // 2**20} MiB may travel with a job; put large files on shared storage and read them there."
        )
    return found


def _add(found: dict[str, bytes], name: str, path: Path, source: str) -> None:
    if name in found:
        raise BadInput(f"--files {source}: a file {name} is sent already; rename one of the two.")
    try:
        found[name] = path.read_bytes()
    except OSError as error:
        raise BadInput(f"--files {source}: {path} cannot be read ({error.strerror}).") from error


def build_bundle(
    cell: str,
    cell_name: str,
    captured: Captured,
    *,
    out: Sequence[str] = (),
    brought: Brought = Brought(),  # noqa: B008 - immutable
    map_name: str | None = None,
    framework: str = "none",
    files: Mapping[str, bytes] | None = None,
    path: Sequence[str] = (),
    is_image: bool = False,
) -> bytes:
    """The tar. ``path``: where else the job looks for modules. Raises TooLarge when everything together passes the limit."""
    about = {
        **versions(),
        "cell_name": cell_name,
        "out": list(out),
        "brought": list(brought.names),
        "value_names": list(brought.value_names),
        "ending": brought.ending,
        "framework": framework,
        "map_index": None,
        "map_name": map_name,
        "sources": captured.sources,
        "path": list(path),
        "is_image": is_image,
        "sizes": dict(captured.sizes),
    }
    members = {
        **starter(),
        "bundle.json": json.dumps(about, sort_keys=True).encode(),
        "cell.py": cell_source(cell).encode(),
        "inputs.pkl": captured.pickled,
        **{f"files/{name}": body for name, body in (files or {}).items()},
    }
    total = sum(map(len, members.values()))
    if total > LIMIT_BYTES:
        raise TooLarge(
            f"This cell would send {show_sizes({**captured.sizes, '--files': sum(map(len, (files or {}).values()))})}, "
            f"and at most {LIMIT_BYTES // 2**20} MiB may travel with a job; put large data on shared storage instead."
        )
    return tar_of(members)


@functools.cache
def starter() -> Mapping[str, bytes]:
    """What runs the cell in the job: ``runner.py`` and the package that it starts."""
    folder = importlib.resources.files("tuttilab.sidecar.cell")
    package = {f"{PACKAGE}/{each.name}": each.read_bytes() for each in folder.iterdir() if each.name.endswith(".py")}
    return {RUNNER: _START.encode(), **package}
