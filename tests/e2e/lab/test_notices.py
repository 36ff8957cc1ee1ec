"""Who looked away is told when it matters: a job that was left alone starts, fails or ends. And tabs come back after a reload."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.chromium import close_page
from tests.lab import SMALL, Lab, open_lab, row, show_panel
from tests.user_machine import eventually
from tuttilab.scheduler.domain.requests import JobRequest

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

SETTINGS = "@tuttilab/labextension/panel"


def toasts(page: Page) -> Locator:
    return page.locator(".Toastify__toast")


@pytest.mark.feature("B25")
def test_a_job_left_alone_that_fails_is_told_of_and_a_click_opens_its_page(page: Page, lab: Lab) -> None:
    gate = lab.machine.home / "gate-fails"
    job = lab.until(lab.submit("doomed", "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done; exit 3"), "Running")
    expect(row(page, job)).to_contain_text("Running")
    gate.touch()

    toast = toasts(page).filter(has_text="doomed failed: it exited with code 3")
    expect(toast).to_be_visible(timeout=20_000)
    toast.get_by_role("button", name="Open").click()
    expect(page.locator(f"#tuttilab-job-{job.id}")).to_be_visible()


@pytest.mark.feature("B25")
def test_a_job_that_started_after_a_wait_and_one_that_ended_are_told_of(page: Page, lab: Lab) -> None:
    # The holder of the queue; then one that runs long enough to be seen running.
    lab.client.cancel(lab.waiting("first").id)
    later = lab.client.submit(JobRequest(name="late-starter", command=("sleep", "1000"), queue="none", pods=SMALL))
    gate = lab.machine.home / "gate-ends"
    ending = lab.until(lab.submit("finisher", "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done"), "Running")
    expect(row(page, later)).to_contain_text("Waiting")
    expect(row(page, ending)).to_contain_text("Running")
    time.sleep(max(0.0, later.created_at + 11 - time.time()))

    gate.touch()
    expect(toasts(page).filter(has_text="finisher has ended well, after it ran")).to_be_visible(timeout=20_000)
    lab.client.cancel(lab.holder)
    expect(toasts(page).filter(has_text="late-starter has started, after it waited")).to_be_visible(timeout=40_000)
    lab.client.cancel(later.id)


@pytest.mark.feature("B25")
def test_many_that_end_together_are_one_notification_with_their_number(page: Page, lab: Lab) -> None:
    gate = lab.machine.home / "gate-many"
    command = ("sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done; [ $0 != bad ]")
    requests = [
        JobRequest(name=f"crowd-{number}", command=(*command, "bad" if number < 2 else "good"), pods=SMALL) for number in range(30)
    ]
    jobs = lab.client.submit_many(requests)
    for job in jobs:
        lab.until(job, "Running")
    expect(row(page, jobs[-1])).to_contain_text("Running")
    # Without ended ones: how those of a burst ended has to be asked for.
    page.get_by_label("Ended").uncheck()
    time.sleep(5)
    began = time.monotonic()
    gate.touch()

    # On a busy machine they end over some time, and there is one at most in a quarter of a minute; each goes by itself.
    seen: dict[str, str] = {}

    def all_told() -> bool:
        seen.update(toasts(page).evaluate_all("nodes => Object.fromEntries(nodes.map(node => [node.id, node.textContent]))"))
        return counted(seen.values()) == 30

    eventually(all_told, 120)
    assert len(seen) <= 3 + (time.monotonic() - began) / 15
    page.get_by_label("Ended").check()


def counted(texts: Iterable[str]) -> int:
    """How many of the thirty these notifications told of."""
    together = [int(found[1]) for text in texts if (found := re.search(r"(\d+) of your jobs:", text))]
    return sum(together) + sum("crowd-" in text for text in texts)


@pytest.mark.feature("B25")
def test_a_job_that_is_watched_is_not_told_of_and_a_setting_turns_all_off(browser: Browser, lab: Lab) -> None:
    page = open_lab(browser, lab)
    gate = lab.machine.home / "gate-watched"
    job = lab.until(lab.submit("watched", "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done; exit 3"), "Running")
    row(page, job).locator(".tl-Job-main").click()
    expect(page.locator(f"#tuttilab-job-{job.id} .tl-Page-state")).to_have_text("Running")
    gate.touch()
    expect(page.locator(f"#tuttilab-job-{job.id} .tl-Page-state")).to_have_text("Failed")
    page.wait_for_timeout(4000)
    assert toasts(page).filter(has_text="watched failed").count() == 0
    close_page(page)

    lab.settings(SETTINGS, {"notify": False})
    try:
        page = open_lab(browser, lab)
        job = lab.until(lab.submit("unheard", "sh", "-c", "sleep 6; exit 3"), "Running")
        expect(row(page, job)).to_contain_text("Failed")
        page.wait_for_timeout(4000)
        assert toasts(page).filter(has_text="unheard failed").count() == 0
        close_page(page)
    finally:
        lab.settings(SETTINGS, {})


@pytest.mark.feature("B25")
def test_a_job_whose_cell_is_on_screen_is_watched_and_one_scrolled_away_is_not(page: Page, lab: Lab) -> None:
    def cell(name: str, lines: int) -> dict[str, object]:
        return {
            "id": name,
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": "# line\n" * lines,
        }

    cells = [cell("near-cell", 2), cell("tall-cell", 200), cell("far-cell", 2)]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = {"cells": cells, "metadata": spec, "nbformat": 4, "nbformat_minor": 5}
    (lab.machine.home / "watch.ipynb").write_text(json.dumps(notebook))
    page.goto(f"{lab.url}/lab/tree/watch.ipynb?reset")
    expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible(timeout=150_000)
    show_panel(page)
    gate = lab.machine.home / "gate-cells"
    command = ("sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.1; done; exit 3")
    near, far = (
        lab.client.submit(JobRequest(name=name, command=command, pods=SMALL, labels={"cell": f"{name}-cell"}))
        for name in ("near", "far")
    )
    expect(row(page, near)).to_contain_text("Running")
    expect(row(page, far)).to_contain_text("Running")

    gate.touch()

    expect(toasts(page).filter(has_text="far failed: it exited with code 3")).to_be_visible(timeout=20_000)
    page.wait_for_timeout(1000)
    assert toasts(page).filter(has_text="near").count() == 0


def test_pages_logs_and_graphs_come_back_after_a_reload(page: Page, lab: Lab) -> None:
    dag = lab.machine.home / "back.yaml"
    dag.write_text("kind: Dag\nname: back-again\nnodes:\n  - {name: one, job: {command: ['true']}}\n")
    assert lab.machine.run("dag", "run", str(dag)).code == 0
    job = lab.until(lab.submit("returning", "sh", "-c", "echo written"), "Succeeded")
    page.get_by_role("button", name="Logs of returning").click()
    row(page, job).locator(".tl-Job-main").click()
    page.locator(".tl-Run-main", has_text="back-again").click()
    expect(page.locator('[data-node="one"]')).to_be_visible()
    workspaces = lab.machine.home / ".jupyter" / "lab" / "workspaces"
    eventually(lambda: all(f"tuttilab-{kind}-" in saved(workspaces) for kind in ("job", "log", "run")))

    page.goto(page.url.split("?")[0])

    expect(page.locator(".lm-TabBar-tabLabel", has_text="returning")).to_have_count(2)
    expect(page.locator(".lm-TabBar-tabLabel", has_text="back-again")).to_have_count(1)
    expect(page.locator('[data-node="one"]')).to_be_visible()
    page.locator(f'.lm-TabBar-tab[data-id="tuttilab-log-{job.id}"]').click()
    expect(page.locator(f"#tuttilab-log-{job.id}").get_by_role("log")).to_contain_text("written")
    page.locator(f'.lm-TabBar-tab[data-id="tuttilab-job-{job.id}"]').click()
    expect(page.locator(f"#tuttilab-job-{job.id} .tl-Page-state")).to_have_text("Succeeded")
    show_panel(page)


def saved(folder: Path) -> str:
    return json.dumps([path.read_text() for path in folder.glob("*")])
