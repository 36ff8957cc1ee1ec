"""How the servers are built, seen with a compiler that is a script: when it builds, what it leaves, what it says."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.kube.tools import build

# `go list` names two packages; `go build … -o FILE .` writes FILE, and a line into the list of builds.
COMPILER = """#!/bin/sh
cd "$(dirname "$0")"
if [ "$1" = list ]; then echo one; echo two; exit 0; fi
while [ "$1" != -o ]; do shift; done
echo built >> builds
{then}
echo '#!/bin/sh' > "$2" && chmod +x "$2"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder where `go` may be put."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "GO", (str(tmp_path / "go"),))
    return tmp_path


def put_compiler(place: Path, then: str = "") -> None:
    compiler = place / "go"
    compiler.write_text(COMPILER.format(then=then))
    compiler.chmod(0o755)


def builds(place: Path) -> int:
    return (place / "builds").read_text().count("built")


def test_it_is_built_once_and_found_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_compiler(place)
    assert not build.is_built()
    first = build.build()
    assert first == build.program()
    assert first.is_relative_to(place / "cache/tuttilab/kube")
    assert build.is_built()
    assert "Built " in capsys.readouterr().err
    assert build.build() == first
    assert builds(place) == 1


def test_who_comes_second_waits_and_builds_nothing(place: Path) -> None:
    put_compiler(place, then="sleep 0.5")
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(build.build())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == [build.program()] * 3
    assert builds(place) == 1


def test_a_build_that_fails_says_why_and_leaves_nothing_that_looks_built(place: Path) -> None:
    put_compiler(place, then="echo no space left; exit 1")
    with pytest.raises(build.CannotBuild, match="no space left"):
        build.build()
    assert not build.is_built()
    assert [path.name for path in build.program().parent.iterdir()] == ["lock"]
    put_compiler(place)
    assert build.build() == build.program()


def test_without_go_the_remedy_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main() == 1
    assert "install Go 1.26 or newer" in capsys.readouterr().err
    assert build.main(is_optional=True) == 0


def test_another_go_file_has_another_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.program()
    changed = place / "tools"
    changed.mkdir()
    for name in build.GO_FILES:
        (changed / name).write_bytes((build.HERE / name).read_bytes())
    monkeypatch.setattr(build, "HERE", changed)
    assert build.program() == before
    (changed / "main.go").write_text("package main\n")
    assert build.program() != before


def test_the_go_files_require_the_versions_that_are_named() -> None:
    required = dict(
        line.split()[:2] for line in (build.HERE / "go.mod").read_text().splitlines() if line.startswith("\t") and " v" in line
    )
    assert required["k8s.io/kubernetes"] == build.KUBERNETES
    assert required["go.etcd.io/etcd/server/v3"] == "v3.7.0"
    assert required["sigs.k8s.io/kwok"] == "v0.8.0"


def test_the_command_says_where_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = build.program()
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    said = subprocess.run(
        [sys.executable, "-m", "tests.kube.tools.build"], cwd=build.HERE.parents[2], capture_output=True, text=True, timeout=60
    )
    assert (said.returncode, said.stdout.strip()) == (0, str(program))
