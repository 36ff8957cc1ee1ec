"""The output box of a cell that sent a job, in a real notebook: it shows the true state whatever became of kernel and page."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.chromium import close_page
from tests.e2e.lab.test_looks import glued
from tests.lab import TOKEN, Lab, open_lab, pictures, saved_outputs
from tests.user_machine import eventually
from tuttilab.magics.shared.display import Shown
from tuttilab.magics.shared.job_text import progress
from tuttilab.magics.spark.display import Preview

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

MIME = "application/vnd.tuttilab.job+json"
WAITS = """%%submit {options}
import pathlib, time
print("step 1", flush=True)
while not pathlib.Path("{gate}").exists():
    time.sleep(0.1)
"""


def notebook(lab: Lab, name: str, *cells: str, shown: Sequence[Shown | Preview] = ()) -> Path:
    """A notebook file in Lab's folder, with outputs of its first cell that were saved."""
    path = lab.machine.home / f"{name}.ipynb"
    made: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"cell-{index}", "metadata": {}, "execution_count": None, "outputs": [], "source": cell}
        for index, cell in enumerate(cells)
    ]
    made[0]["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": one._repr_mimebundle_()} for one in shown]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


def opened(page: Page, lab: Lab, path: Path, reset: bool = True) -> Page:
    """Lab with that notebook open; without `reset` as it was left."""
    page.goto(f"{lab.url}/lab/tree/{path.name}?{'reset&' if reset else ''}token={TOKEN}")
    expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=150_000)
    return page


def run_cell(page: Page, index: int = 0) -> None:
    """A first click may come before the notebook takes it: then again."""
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=150_000)
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    for _ in range(5):
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        with contextlib.suppress(AssertionError):
            expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[(\*|\d+)\]"), timeout=10_000)
            return
    raise AssertionError(f"cell {index} was run five times and did not start")


def box(page: Page) -> Locator:
    return page.locator(".jp-OutputArea-output.tl-Box").first


def save(page: Page, path: Path, phase: str) -> dict[str, Any]:
    """Save, and wait until the file has the box of a job in that phase; the data of that output."""
    button = page.locator('[data-command="docmanager:save"]').first

    def saved() -> dict[str, Any] | None:
        if page.get_by_role("dialog").count():
            # Lab says that the kernel died.
            page.keyboard.press("Escape")
        button.click()
        page.wait_for_timeout(300)
        found: list[dict[str, Any]] = [out["data"] for out in saved_outputs(path) if MIME in out.get("data", {})]
        return found[0] if found and found[0][MIME]["phase"] == phase else None

    return eventually(saved)  # type: ignore[no-any-return]  # what `saved` gives


def kernels(lab: Lab) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{lab.url}/api/kernels", headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=150) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


def kill_kernels(lab: Lab) -> None:
    """SIGKILL to the kernels of this Lab, and then no kernel: the server starts them again by itself."""
    assert lab.server is not None
    for child in psutil.Process(lab.server.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("ipykernel" in word for word in child.cmdline()):
                child.kill()


@pytest.mark.feature("B22")
def test_a_box_reloaded_in_mid_run_shows_the_true_state_and_end(browser: Browser, lab: Lab) -> None:
    gate = lab.machine.home / "gate-reload"
    path = notebook(lab, "reload", WAITS.format(options="training --name reloaded --memory 256Mi", gate=gate))
    page = open_lab(browser, lab)
    opened(page, lab, path)
    run_cell(page)
    expect(box(page)).to_contain_text("Running")
    expect(box(page)).to_contain_text("step 1")
    save(page, path, "Running")

    opened(page, lab, path, reset=False)
    second = page.context.new_page()
    opened(second, lab, path, reset=False)
    for shown in (page, second):
        expect(box(shown).locator(".tl-Box-state")).to_contain_text("Running")
        expect(box(shown)).to_contain_text("step 1")
    assert glued(box(page)) == []
    before = box(page).locator(".tl-Box-state").inner_text()
    expect(box(page).locator(".tl-Box-state")).not_to_have_text(before)
    page.screenshot(path=pictures() / "box-running.png")
    kill_kernels(lab)
    gate.touch()

    for shown in (page, second):
        expect(box(shown).get_by_text("Succeeded").first).to_be_visible(timeout=30_000)
        expect(box(shown).get_by_text("Running")).not_to_be_visible()
        expect(box(shown)).to_contain_text("step 1")
    # Before anything else is clicked: Lab says a moment later that the kernel died.
    page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    # What the notebook file keeps is true as well, for whoever reads it elsewhere.
    expect(box(page).locator(".tuttilab-box-head")).to_contain_text("Succeeded")
    kept = save(page, path, "Succeeded")
    assert "Running" not in str(kept)
    assert "Succeeded (" in "".join(kept["text/plain"])
    box(page).get_by_role("button", name="Open log").click()
    expect(page.get_by_role("log").first).to_contain_text("step 1")
    close_page(page)


@pytest.mark.feature("B22")
def test_a_box_of_a_map_shows_the_end_of_all_its_jobs_when_the_kernel_is_gone(browser: Browser, lab: Lab) -> None:
    gate = lab.machine.home / "gate-map"
    cell = WAITS.format(options="values --name sweep --map xs --cpus 100m --memory 128Mi", gate=gate)
    path = notebook(lab, "map", "xs = [1, 2, 3]", cell + "assert xs != 2\nxs\n")
    page = open_lab(browser, lab)
    opened(page, lab, path)
    run_cell(page)
    run_cell(page, 1)
    expect(box(page)).to_contain_text("3 Running")
    kill_kernels(lab)
    gate.touch()

    expect(box(page).get_by_text("3 of 3").first).to_be_visible(timeout=150_000)
    expect(box(page).get_by_text("1 Failed, 2 Succeeded").first).to_be_visible()
    expect(box(page).get_by_text("Running")).not_to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    box(page).get_by_role("button", name="Show its jobs").click()
    expect(page.get_by_role("searchbox", name="Filter jobs by name")).to_have_value(re.compile("^sweep-"))
    close_page(page)


@pytest.mark.feature("B22")
def test_a_box_says_when_its_job_is_deleted_and_when_nobody_can_be_asked(browser: Browser, lab: Lab) -> None:
    gone = lab.until(lab.submit("gone", "sleep", "1000"), "Running")
    kept = lab.until(lab.submit("kept", "sleep", "1000"), "Running")
    boxes = [progress(job, time.time()) for job in (gone, kept)]
    lab.client.cancel(gone.id)
    lab.until(gone, "Cancelled")
    lab.client.delete(gone.id)
    page = open_lab(browser, lab)
    opened(page, lab, notebook(lab, "saved", "1", shown=boxes))
    first, second = (page.locator(".tl-Box").nth(index).locator(".tl-Box-state") for index in (0, 1))

    expect(first).to_contain_text("deleted, or not yours · Running when last seen")
    expect(second).to_contain_text("Running · ")
    os.kill(lab.machine.runtime().pid, signal.SIGKILL)
    expect(second).to_contain_text("the control plane does not answer · Running when last seen")
    assert lab.machine.run("up").code == 0
    lab.reconnect()
    lab.client.cancel(kept.id)
    expect(second).to_contain_text("Cancelled")
    close_page(page)
