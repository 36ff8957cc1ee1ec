"""The wheel `tuttilab-linkismagic`: built, installed into a folder of its own, and loaded by the names of old notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.magics.old_names import linkismagic_wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = linkismagic_wheel(tmp_path_factory.mktemp("wheel"))
    assert len(list(found.rglob("*.py"))) == 3
    return found


@pytest.mark.feature("M14")
@pytest.mark.parametrize(
    "line",
    ["%load_ext linkismagic", "%load_ext linkismagic.magics.linkismagic", "import linkismagic.magics.linkismagic"],
)
def test_each_way_of_loading_it_says_that_spark_is_scala_now(installed: Path, tmp_path: Path, line: str) -> None:
    cells = f"{line}\nprint(sorted(get_ipython().magics_manager.magics['line'].keys() & {{'listjob', 'enginekill', 'submit'}}))\n"
    (tmp_path / "old.ipy").write_text(cells)
    ran = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", str(tmp_path / "old.ipy")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("`%%spark` is Scala now, as in LinkisMagic; `%%pyspark` is Python.") == 1
    assert "['enginekill', 'listjob', 'submit']" in ran.stdout
