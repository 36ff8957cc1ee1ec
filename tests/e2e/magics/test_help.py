"""Help where one looks for it: alone in a cell, and behind a question mark."""

import pytest

from tests.e2e.magics.conftest import Kernel

pytestmark = pytest.mark.tier("local")


@pytest.mark.parametrize("cell", ["%%submit --help", "%%submit --help\n", "%%submit x --help\n1", "%%sparksql --help"])
def test_help_alone_in_a_cell_shows_the_options(kernel: Kernel, cell: str) -> None:
    ran = kernel.run(cell)
    assert ran.status == "ok", ran.error
    assert ran.text.startswith(f"%%{cell.strip('%').split()[0]} [VAR] [options]\n")


def test_a_cell_of_help_with_a_body_runs_nothing(kernel: Kernel) -> None:
    assert kernel.run("%%submit --help\nraise SystemExit").status == "ok"


@pytest.mark.parametrize("magic", ["submit", "spark", "sparksql", "jobs", "job", "quota", "attach", "dag"])
def test_a_question_mark_shows_the_options(kernel: Kernel, magic: str) -> None:
    help_text = kernel.value(f"get_ipython().object_inspect('%{magic}')['docstring']")
    assert "[options]" in help_text
    assert f"%{magic}" in help_text
