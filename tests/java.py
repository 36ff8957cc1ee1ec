"""The machine's Java as tests use it: it compiles and collects with one thread each, and only as far as a short life is worth.

Most sessions of tests run a few small queries. Half of their CPU time went into compiling what then ran once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLAGS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@contextmanager
def for_short_lives() -> Iterator[None]:
    """JAVA_HOME is a folder like that of PATH's Java, whose program adds the flags; not where it is set, or there is no Java."""
    found = shutil.which("java")
    if found is None or "JAVA_HOME" in os.environ:
        yield
        return
    home = Path(found).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="tuttilab-java-") as folder:
        made = Path(folder)
        made.chmod(0o755)  # for jobs that run as other accounts
        for entry in home.iterdir():
            if entry.name != "bin":
                (made / entry.name).symlink_to(entry)
        (made / "bin").mkdir()
        program = made / "bin" / "java"
        program.write_text(f'#!/bin/sh\nexec {home}/bin/java {FLAGS} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        os.environ["JAVA_HOME"] = str(made)
        try:
            yield
        finally:
            del os.environ["JAVA_HOME"]
