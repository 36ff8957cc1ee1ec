"""Modules that the user wrote: where they are, and which of them a job cannot find.

Libraries are installed where Python looks for them: in the folders of the interpreter and in its site-packages. Everything else on
``sys.path`` is the user's: the notebook's folder, a ``src/`` that a cell added, a checkout that is installed in place.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_MOST: Final = 100
"""Entries of a path that a job gets."""


def module_path() -> tuple[str, ...]:
    """Where this notebook finds modules beyond what the interpreter has of its own, as absolute paths, in order.

    Folders of modules that were imported before a change of directory, or whose path entry is gone, come last.
    """
    found = [os.path.abspath(entry) for entry in sys.path if not _is_library(os.path.abspath(entry))]
    loaded = [_root_of(module) for module in list(sys.modules.values())]
    return tuple(dict.fromkeys([*found, *(root for root in loaded if root)]))[:_MOST]


def needed_modules(source: str, values: Mapping[str, Any]) -> dict[str, Path]:
    """The user's own modules that a cell imports or that its values come from, by name, each with its file or folder."""
    names = set(_imported(source))
    for value in values.values():
        module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or type(value).__module__
        if isinstance(module, str):
            names.add(module.partition(".")[0])
    places = {name: _place_of(name) for name in sorted(names)}
    return {name: place for name, place in places.items() if place is not None}


def unknown_to_the_image(source: str, values: Mapping[str, Any], sent: Iterable[str]) -> str:
    """A sentence on the user's modules that an image does not have unless they were built into it; empty when there are none."""
    have = {name.partition("/")[0].removesuffix(".py") for name in sent}
    missing = {name: place for name, place in needed_modules(source, values).items() if name not in have}
    if not missing:
        return ""
    listed = ", ".join(f"{name} ({place})" for name, place in list(missing.items())[:3])
    files = " ".join(f"--files {place}" for place in list(missing.values())[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"your own modules {listed}{more} are not sent with --image: unless the image has them, add {files}"


def _imported(source: str) -> Iterable[str]:
    """Top-level names of all imports of the cell."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _place_of(name: str) -> Path | None:
    """The file or package folder of a module of the user's, as it would be named for ``--files``; None for a library."""
    if name in ("__main__", "builtins", ""):
        return None
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec is not None and spec.has_location else None
    if not isinstance(file, str) or _is_library(file):
        return None
    path = Path(file)
    whole = path.parent if path.stem == "__init__" else path
    try:
        return whole.relative_to(Path.cwd())
    except ValueError:
        return whole


def _root_of(module: ModuleType) -> str:
    """The folder that would have to be on the path to import a top-level module of the user's; empty for others."""
    name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    if not isinstance(name, str) or "." in name or name == "__main__" or not isinstance(file, str) or _is_library(file):
        return ""
    path = Path(file).absolute()
    return str(path.parent.parent if path.stem == "__init__" else path.parent)


def _is_library(path: str) -> bool:
    if "site-packages" in path or "dist-packages" in path or path.startswith(_library_folders()):
        return True
    real = os.path.realpath(path)
    return "site-packages" in real or real.startswith(_library_folders())


@cache
def _library_folders() -> tuple[str, ...]:
    own = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    zipped = os.path.join(sys.base_prefix, "lib", f"python{sys.version_info.major}{sys.version_info.minor}.zip")
    return tuple({each for folder in [*own, zipped] if folder for each in (folder, os.path.realpath(folder))})
