"""A bundle as the magics make it, run by its own runner in a process, as a job's sidecar starts it."""

import io
import json
import linecache
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuttilab.magics.jobs.results import unpack
from tuttilab.magics.submission.bundle import build_bundle
from tuttilab.magics.submission.capture import capture

Run = Callable[..., tuple[int, Path, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def start(cell: str, values: dict[str, Any], *, env: dict[str, str] | None = None, **more: Any) -> tuple[int, Path, str]:
        code, results, here = (tmp_path / name for name in ("code", "results", "here"))
        for folder in (code, results, here):
            folder.mkdir(exist_ok=True)
        bundle = build_bundle(cell, "<%%submit In[1]>", capture(values), **more)
        with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
            tar.extractall(code, filter="data")
        (here / "beside.py").write_text("where = 'working directory'")
        done = subprocess.run(
            [sys.executable, str(code / "runner.py")],
            cwd=here,
            env={**os.environ, "RESULT_DIR": str(results), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, results, done.stdout + done.stderr

    return start


def loaded(results: Path) -> dict[str, Any]:
    returned = unpack((results / "result.pkl").read_bytes(), "the cell", "")
    return {"value": returned.value, "out": returned.names}


def test_the_value_and_the_named_variables_come_back(run: Run) -> None:
    code, results, _ = run("y = x * 2\ny + 1", {"x": 20}, out=("y",))
    assert code == 0
    assert loaded(results) == {"value": 41, "out": {"y": 40}}


def test_a_map_variable_is_one_element_in_each_job(run: Run) -> None:
    values = {"x": ["a", "b", "c"]}
    seen = [loaded(run("x", values, map_name="x", env={"TUTTILAB_MAP_INDEX": str(i)})[1])["value"] for i in range(3)]
    assert seen == ["a", "b", "c"]


def test_files_and_the_working_directory_can_be_imported_but_the_runner_cannot(run: Run) -> None:
    cell = (
        "import beside, sent, importlib.util\n"
        "[beside.where, sent.where, importlib.util.find_spec('runner'), importlib.util.find_spec('cell')]"
    )
    _, results, output = run(cell, {}, files={"sent.py": b"where = 'files'"})
    assert loaded(results)["value"] == ["working directory", "files", None, None], output


def test_an_error_names_the_editors_line(run: Run) -> None:
    code, results, output = run("ok = 1\nok / zero", {"zero": 0})
    told = json.loads((results / "error.json").read_text())
    assert (code, told["type"], told["frames"][-1]["line"]) == (1, "ZeroDivisionError", 3)
    assert "ok / zero" in output


@pytest.mark.feature("B15")
def test_an_error_in_a_function_of_another_cell_shows_that_cell_and_its_lines(run: Run) -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    for name, source in {"cell one": "\ndef low(n):\n    return 1 / n", "cell two": "def high(n):\n    return low(n)"}.items():
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), notebook)  # noqa: S102
    _, results, output = run("ok = 1\nhigh(0)", {"high": notebook["high"]})
    told = json.loads((results / "error.json").read_text())
    assert [(frame["file"], frame["line"], frame["code"], frame["own"]) for frame in told["frames"]] == [
        ("<%%submit In[1]>", 3, "high(0)", True),
        ("cell two", 2, "    return low(n)", True),
        ("cell one", 3, "    return 1 / n", True),
    ]
    assert 'File "cell one", line 3, in low\n    return 1 / n\n' in output
