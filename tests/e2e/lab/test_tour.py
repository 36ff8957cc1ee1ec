"""The tour in JupyterLab, run by its menu as a new user does it, on the machine as it is."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.lab import TOKEN, Lab, made_lab, pictures, saved_outputs, show_panel
from tests.user_machine import eventually

ROOT = Path(__file__).resolve().parents[3]
LIMIT_MS = 240_000


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Lab]:
    with made_lab(tmp_path, config="", without=("java", "node", "npm", "npx")) as lab:
        yield lab


def run_all(page: Page) -> None:
    """By the menu. Right after Lab has loaded its entries may still be disabled, and a click on one does nothing: then again."""
    first = page.locator(".jp-NotebookPanel .jp-CodeCell .jp-InputPrompt").first
    for _ in range(5):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(AssertionError):
            expect(first).to_have_text(re.compile(r"\[(\*|\d+)\]"), timeout=10_000)
            return
        page.keyboard.press("Escape")
    raise AssertionError("Run All Cells was clicked five times and no cell ran")


@pytest.mark.feature("B18", "B03")
@pytest.mark.timeout(700)
def test_the_tour_runs_in_lab_as_it_is_written(browser: Browser, fresh: Lab) -> None:
    assert [shutil.which(name, path=fresh.machine.environ["PATH"]) for name in ("java", "node")] == [None, None]
    home = fresh.machine.home
    for name in ("tour.ipynb", "nightly.yaml"):
        shutil.copy(ROOT / "examples" / name, home / name)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{fresh.url}/lab/tree/tour.ipynb?reset&token={TOKEN}")
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=150_000)
    run_all(page)
    last = page.locator(".jp-NotebookPanel .jp-OutputArea-output", has_text="tumours held out: ")
    expect(last.last).to_contain_text("accuracy on the", timeout=LIMIT_MS)
    page.screenshot(path=pictures() / "tour.png")
    page.keyboard.press("Control+s")
    outputs = eventually(
        lambda: [*found] if "tumours held out: " in json.dumps(found := saved_outputs(home / "tour.ipynb")) else None
    )
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    show_panel(page)
    expect(page.locator("#tuttilab-panel").get_by_text("evaluate", exact=True).first).to_be_visible()
    page.screenshot(path=pictures() / "tour-panel.png")
    context.close()
