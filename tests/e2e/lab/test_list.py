"""The sidebar's list as a day fills it: what runs is first, groups, chips, many at once; in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.chromium import close_page
from tests.e2e.lab.test_looks import serious
from tests.lab import SMALL, Lab, made_lab, open_lab, pictures, row, show_panel, until_saved
from tests.user_machine import eventually
from tuttilab.scheduler.domain.requests import JobRequest
from tuttilab.scheduler.domain.wire import JobView

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A map with every state, a notebook with two jobs, a run, a name from right to left, and single jobs."""
    with made_lab(tmp_path_factory.mktemp("full")) as lab:
        lab.until(lab.submit("old-runner", "sleep", "3000"), "Running")
        manifest = lab.machine.home / "nightly.yaml"
        nodes = "".join(
            f"  - {{name: {name}, job: {{pods: [{{cpus: 100m, memory: 64Mi}}], command: ['true']}}, after: [{after}]}}\n"
            for name, after in (("load", ""), ("fit", "load"), ("report", "fit"))
        )
        manifest.write_text(f"kind: Dag\nname: nightly\nnodes:\n{nodes}")
        assert lab.machine.run("dag", "run", str(manifest)).code == 0
        notebook = {"notebook": "research/momentum.ipynb", "cell": "x"}
        for name in ("features", "model"):
            labelled(lab, name, "true", **notebook)
        for index in range(12):
            command = "false" if index % 5 == 4 else ("true" if index < 8 else "sleep 3000")
            labelled(lab, f"sweep-0a1b2c3d[{index}]", command, sweep="0a1b2c3d", element=str(index), **notebook)
        lab.until(lab.submit("ended-last", "true"), "Succeeded")
        lab.until(lab.submit("דגם abc", "true"), "Succeeded")
        # All but those that stay have ended, and the last node of the run is among them.
        eventually(lambda: [run.phase for run in lab.client.runs()] == ["Succeeded"])
        eventually(lambda: [job.phase for job in lab.client.jobs().jobs] == ["Running"] * 4)
        yield lab


def labelled(lab: Lab, name: str, command: str, **labels: str) -> JobView:
    return lab.client.submit(JobRequest(name=name, command=("sh", "-c", command), pods=SMALL, labels=labels))


def rows(page: Page) -> list[str]:
    """The names in the list, from above."""
    page.wait_for_timeout(400)
    found = page.locator(".tl-Job")
    at = found.evaluate_all("all => all.map(one => [+one.dataset.index, one.querySelector('.tl-Job-name').textContent])")
    return [name for _, name in sorted(at)]


def group(page: Page, key: str) -> Locator:
    return page.locator(f'.tl-Job[data-group^="{key}"]')


def test_what_runs_is_first_and_each_row_says_the_time_of_day(browser: Browser, full: Lab) -> None:
    page = open_lab(browser, full)
    expect(row(page, named(full, "old-runner"))).to_be_visible()

    eventually(lambda: rows(page)[:2] == ["sweep-0a1b2c3d", "old-runner"])
    expect(row(page, named(full, "old-runner")).locator(".tl-Job-time")).to_have_text(re.compile(r"^\d\d:\d\d · "))
    page.get_by_role("button", name="Grouped").click()
    page.get_by_label("Order").select_option("By name")
    wanted = ["ended-last", "features", "model", "old-runner", "sweep-0a1b2c3d[2]", "sweep-0a1b2c3d[3]", "sweep-0a1b2c3d[10]"]

    def is_in_order() -> bool:
        names = rows(page)
        return [name for name in names if name in wanted] == [name for name in wanted if name in names] != []

    eventually(is_in_order)
    close_page(page)


def named(lab: Lab, name: str) -> JobView:
    return next(job for job in lab.client.jobs(all=True, text=name).jobs if job.name == name)


def test_a_map_a_run_and_a_notebook_are_one_row_each_that_opens(browser: Browser, full: Lab) -> None:
    page = open_lab(browser, full, height=900)
    swept = group(page, "map:")
    expect(swept).to_contain_text("Map of 12")
    expect(swept).to_contain_text("3 Running, 7 Succeeded, 2 Failed")
    expect(swept.locator(".tl-Run-node")).to_have_count(12)
    expect(group(page, "run:")).to_contain_text("3 Succeeded")
    expect(group(page, "notebook:")).to_contain_text("momentum.ipynb")
    expect(row(page, named(full, "features"))).to_be_visible()
    element = row(page, named(full, "sweep-0a1b2c3d[9]"))
    expect(element).to_have_count(0)

    swept.locator(".tl-Job-name").click()
    expect(swept).to_have_attribute("aria-expanded", "true")
    expect(element).to_be_visible()
    swept.press("Enter")
    expect(element).to_have_count(0)
    page.get_by_role("button", name="Grouped").click()
    expect(swept).to_have_count(0)
    expect(element).to_be_visible()
    close_page(page)


def test_chips_show_only_those_states_and_count_them(browser: Browser, full: Lab) -> None:
    page = open_lab(browser, full)
    page.get_by_role("button", name="Grouped").click()
    page.get_by_role("button", name="Failed 2").click()
    expect(page.locator(".tl-Job")).to_have_count(2)
    eventually(lambda: rows(page) == ["sweep-0a1b2c3d[9]", "sweep-0a1b2c3d[4]"])
    page.get_by_role("button", name="Running 4").click()
    expect(page.locator(".tl-Job")).to_have_count(6)
    page.get_by_role("button", name="Failed 2").click()
    page.get_by_role("button", name="Running 4").click()
    eventually(lambda: len(rows(page)) > 6)
    close_page(page)


def test_many_are_cancelled_run_again_and_deleted_after_one_question(browser: Browser, lab: Lab) -> None:
    live = [lab.until(lab.submit(f"many-live-{index}", "sleep", "1000"), "Running") for index in range(3)]
    ended = [lab.until(lab.submit(f"many-ended-{index}", "true"), "Succeeded") for index in range(2)]
    page = open_lab(browser, lab)
    other = lab.submit("other", "true")
    expect(row(page, other)).to_be_visible()
    page.get_by_role("searchbox", name="Filter jobs by name").fill("many-")
    expect(row(page, other)).to_have_count(0)
    expect(page.locator(".tl-Job")).to_have_count(5)

    row(page, live[2]).hover()
    row(page, live[2]).get_by_role("checkbox").check()
    row(page, ended[0]).get_by_role("checkbox").click(modifiers=["Shift"])
    bar = page.get_by_role("toolbar", name="Chosen jobs")
    expect(bar).to_contain_text("5 chosen")
    bar.get_by_role("button", name="Cancel 3").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel 3 jobs?")
    for job in live:
        expect(dialog).to_contain_text(job.name)
    dialog.get_by_role("button", name="Cancel them").click()
    for job in live:
        expect(row(page, job)).to_contain_text("Cancelled")
    expect(bar).to_have_count(0)

    # By keyboard alone: the first row, two more, and Delete.
    page.locator(".tl-Job").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    expect(bar).to_contain_text("3 chosen")
    page.keyboard.press("Delete")
    expect(dialog).to_contain_text("Delete 3 jobs?")
    expect(dialog.get_by_role("button", name="Keep them")).to_be_focused()  # Lab gives it the focus once the names are drawn
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".tl-Job")).to_have_count(2)
    page.locator(".tl-Job").first.focus()
    page.keyboard.press("Control+a")
    bar.get_by_role("button", name="Run 2 again").click()
    dialog.get_by_role("button", name="Run again").click()
    expect(page.locator(".tl-Job")).to_have_count(4)
    close_page(page)


def test_heights_chips_order_and_grouping_are_kept_over_a_reload_and_no_section_is_crushed(browser: Browser, full: Lab) -> None:
    page = open_lab(browser, full)
    page.get_by_role("button", name="Failed 2").click()
    page.get_by_role("button", name="Grouped").click()
    page.get_by_label("Order").select_option("By name")
    eventually(lambda: rows(page) == ["sweep-0a1b2c3d[4]", "sweep-0a1b2c3d[9]"])
    heights = sections(page)
    handle = page.locator("#tuttilab-panel .lm-AccordionPanel-title").nth(1)
    place = handle.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 80, place["y"] - 1)
    page.mouse.down()
    page.mouse.move(place["x"] + 80, place["y"] - 121, steps=8)
    dropped = time.time()
    page.mouse.up()
    # The layout follows a moment later.
    eventually(lambda: abs(heights[0] - sections(page)[0] - 120) < 15)
    moved = sections(page)
    until_saved(page, full, dropped, '"order":"name"')
    page.goto(page.url.split("?")[0])
    show_panel(page)
    expect(page.get_by_role("button", name="Failed 2")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Grouped")).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_label("Order")).to_have_value("name")
    eventually(lambda: rows(page) == ["sweep-0a1b2c3d[4]", "sweep-0a1b2c3d[9]"])
    limit = time.monotonic() + 60
    while [abs(a - b) < 6 for a, b in zip(sections(page), moved, strict=True)] != [True] * 3:
        assert time.monotonic() < limit, (moved, sections(page))
        page.wait_for_timeout(200)
    close_page(page)

    # A laptop's window at 150 %.
    small = open_lab(browser, full, width=853, height=480)
    eventually(lambda: min(sections(small)) >= 80)
    small.screenshot(path=pictures() / "list-150.png")
    close_page(small)


def test_the_text_and_which_groups_are_open_are_kept_over_a_reload(browser: Browser, full: Lab) -> None:
    page = open_lab(browser, full, height=900)
    for key in ("notebook:", "run:", "map:"):
        group(page, key).locator(".tl-Job-name").click()
    text = page.get_by_role("searchbox", name="Filter jobs by name")
    filled = time.time()
    text.fill("sweep-")
    expect(row(page, named(full, "old-runner"))).to_have_count(0)
    until_saved(page, full, filled, '"text":"sweep-"')
    page.goto(page.url.split("?")[0])
    show_panel(page)
    expect(text).to_have_value("sweep-")
    expect(group(page, "map:")).to_have_attribute("aria-expanded", "true")
    expect(row(page, named(full, "sweep-0a1b2c3d[9]"))).to_be_visible()
    eventually(lambda: {name.partition("[")[0] for name in rows(page)} == {"sweep-0a1b2c3d"})
    text.fill("")
    expect(row(page, named(full, "old-runner"))).to_have_count(1)
    group(page, "map:").locator(".tl-Job-name").click()  # its rows leave no room for the others
    expect(group(page, "run:")).to_have_attribute("aria-expanded", "true")
    expect(group(page, "notebook:")).to_have_attribute("aria-expanded", "false")
    expect(row(page, named(full, "features"))).to_have_count(0)
    close_page(page)


def sections(page: Page) -> list[float]:
    found: list[float] = page.locator("#tuttilab-panel .tl-Section").evaluate_all("all => all.map(one => one.offsetHeight)")
    return found


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_list_can_be_read_and_used_by_all(browser: Browser, full: Lab, theme: str) -> None:
    full.settings("@jupyterlab/apputils-extension/themes", {"theme": theme})
    page = open_lab(browser, full, height=900)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    expect(page.locator("bdi.tl-Job-name", has_text="דגם abc")).to_be_visible()
    group(page, "map:").locator(".tl-Job-name").click()
    group(page, "map:").get_by_role("checkbox").click()
    found = serious(page, "#tuttilab-panel")
    page.screenshot(path=pictures() / f"list-{theme.split()[-1].lower()}.png")
    assert found == []
    close_page(page)
