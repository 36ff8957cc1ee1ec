"""A bundle as the magics make it, run by its own runner in a process, as a job's sidecar starts it."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuttilab.magics.bundle import build_bundle
from tuttilab.magics.capture import capture

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


def loaded(results: Path) -> Any:
    return pickle.loads((results / "result.pkl").read_bytes())  # noqa: S301 - this test wrote it


@pytest.mark.feature("M12")
def test_the_value_and_the_named_variables_come_back(run: Run) -> None:
    code, results, _ = run("y = x * 2\ny + 1", {"x": 20}, out=("y",))
    assert code == 0
    assert loaded(results) == {"value": 41, "out": {"y": 40}}


@pytest.mark.feature("J20")
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
