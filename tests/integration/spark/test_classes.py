"""Spark's classes come from the archive that `make env` has made; without one that fits, Java starts all the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.user_machine import made_machine
from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.spark import classes
from tuttilab.scheduler.spark.gateway import start_java
from tuttilab.scheduler.spark.java import find_java
from tuttilab.scheduler.spark.pod import stop_java

pytestmark = pytest.mark.tier("spark")


def test_a_sessions_java_maps_the_archive_of_this_environment(tmp_path: Path) -> None:
    java = find_java(os.environ, tmp_path)
    archive, _ = classes.make_archive(os.environ)  # where it was not made by `make env`

    process, _gateway = start_java(java, 2**28, tmp_path, os.environ)
    try:
        assert str(archive) in Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        stop_java(process, 8.0)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 100_000], ids=["empty", "short", "long"])
def test_java_starts_without_an_archive_that_does_not_fit_and_says_nothing(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classes, "folder", lambda: tmp_path)
    java = find_java(os.environ, tmp_path)
    assert classes.options(java) == []
    classes.archive_of(java).write_bytes(content)

    options = classes.options(java)

    assert f"-XX:SharedArchiveFile={classes.archive_of(java)}" in options
    said = subprocess.run([java.executable, *options, "-version"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said
    assert said.stdout == ""
    assert "archive" not in said.stderr


def test_prepare_says_what_is_there_and_the_doctor_knows_it(tmp_path: Path) -> None:
    with made_machine(tmp_path) as machine:
        prepared = machine.run("spark", "prepare")
        assert prepared.code == 0, prepared
        archive = prepared.out.partition(": ")[0]
        assert Path(archive).parent == classes.folder()
        assert Path(archive).stat().st_size > 2**20
        assert prepared.out.endswith("there already; --again makes it anew\n")
        assert "spark classes  are kept, sessions start fast" in machine.run("doctor").out


def test_an_environment_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(classes, "folder", lambda: tmp_path / "file" / "classes")
    with pytest.raises(EnvironmentProblem, match=r"cannot be kept in .*/file/classes: Not a directory\. Run this as"):
        classes.make_archive(os.environ)
