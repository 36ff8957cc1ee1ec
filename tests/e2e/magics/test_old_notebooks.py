"""Notebooks as people have them from LinkisMagic and sparkmagic, written from the documentation of those: they run unedited."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.magics.conftest import ControlPlane
from tests.e2e.magics.old_names import linkismagic_wheel
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]

OLD = Path(__file__).with_name("old")


def executed(control: ControlPlane, name: str, home: Path, environ: dict[str, str]) -> list[dict[str, Any]]:
    """The code cells after a run from the first to the last, in a folder of their own. A cell that fails raises."""
    notebook = nbformat.read(str(OLD / f"{name}.ipynb"), as_version=4)  # type: ignore[no-untyped-call]
    asked = {**control.environ, "IPYTHONDIR": str(home / "ipython"), "TUTTILAB_WORKSPACE": str(home), **environ}
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(home)}}).execute(env=asked)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cells: list[dict[str, Any]], start: str) -> str:
    """What the cell printed, displayed and gave that starts so."""
    (cell,) = [cell for cell in cells if cell["source"].startswith(start)]
    texts = [out.get("text") or out.get("data", {}).get("text/plain") or "" for out in cell["outputs"]]
    return "\n".join(texts)


@pytest.mark.feature("M14", "M01", "M07")
def test_a_notebook_of_linkismagic_runs_unedited(control: ControlPlane, tmp_path: Path) -> None:
    environ = {"PYTHONPATH": str(linkismagic_wheel(tmp_path)), "TUTTILAB_LINKISMAGIC_JSON": str(tmp_path / "none.json")}
    cells = executed(control, "linkismagic", tmp_path, environ)
    assert "`%%spark` is Scala now" in said(cells, "%load_ext linkismagic")
    assert "rows 3" in said(cells, "%%pyspark -u orders")
    assert "9.5" in said(cells, "frame = ")
    assert "20.0" in said(cells, "frame = ")
    assert ast.literal_eval(said(cells, "over")) == {"a": True, "b": True}
    assert (tmp_path / "orders_by_shop.csv").read_text().split() == ['"shop","n"', '"a",2', '"b",1']
    assert "shop,number,price" in said(cells, "%%spark -q false")
    assert "2.5" in said(cells, "%%spark -q false")
    assert said(cells, "printed['result0']") == "'3'"
    assert said(cells, "engine_job") == "'Running'"
    assert said(cells, "%status").startswith("Running")
    assert "ready in" in said(cells, "%log")
    assert said(cells, "%enginekill").startswith("Success: session default is stopped.")
    jobs = control.client().jobs(all=True, kind="spark").jobs
    assert control.client().wait(jobs[0].id, timeout_s=150).phase == "Cancelled"


@pytest.mark.feature("M14")
def test_a_notebook_of_sparkmagic_runs_unedited(control: ControlPlane, tmp_path: Path) -> None:
    # The profile's one line that the guide has.
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text('c.InteractiveShellApp.extensions.append("tuttilab.magics.sparkmagic")\n')
    cells = executed(control, "sparkmagic", tmp_path, {})
    assert "First building is 1" in said(cells, "%%spark\nnumbers")
    assert "warm 1" in said(cells, "%%spark\nfrom pyspark")
    assert "2 rows × 2 columns" in said(cells, "%%spark -c sql")
    assert said(cells, "%%local") == "4"
    assert said(cells, "len(query2)") == "True"
    assert said(cells, "hvac.delta") == "[3, -8, 0]"
    assert "7 times" in said(cells, "%%spark -s my_spark")
    assert "ready in" in said(cells, "%spark logs")
    assert "my_pyspark" in said(cells, "%%info")
    assert "my_pyspark" in said(cells, "%%cleanup")
    eventually(lambda: not control.client().spark_sessions())  # they take a moment to end
