"""The cells of the guides run as they are written, and the errors that they show say what the guide says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import Kernel

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]
GUIDES = Path(__file__).resolve().parents[3] / "docs" / "guides"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.feature("B18")
def test_every_cell_of_the_notebook_guide_runs_as_written(kernel: Kernel) -> None:
    cells = [text for kind, text in BLOCK.findall((GUIDES / "notebook.md").read_text(encoding="utf-8")) if kind == "python"]
    assert len(cells) >= 5
    for cell in cells:
        ran = kernel.run(cell.rstrip("\n"))
        assert ran.status == "ok", f"{cell}\n{ran.error}"
    assert kernel.value("found, squares") == "(2, [9.0, 64.0, 441.0])"


def test_the_ten_common_errors_say_what_the_guide_says(kernel: Kernel) -> None:
    guide = (GUIDES / "troubleshooting.md").read_text(encoding="utf-8")
    sections = re.split(r"^## \d+\. ", guide, flags=re.MULTILINE)[1:]
    assert len(sections) == 10
    for section in sections:
        *cells, expected = [text.rstrip("\n") for _, text in BLOCK.findall(section)]
        ran = [kernel.run(cell) for cell in cells]
        assert all(each.status == "ok" for each in ran[:-1]), section
        pattern = ".*".join(re.escape(part.strip()) for part in re.split("…", expected))
        assert re.search(pattern, ran[-1].error, re.DOTALL), f"{section}\n{ran[-1].error}"
