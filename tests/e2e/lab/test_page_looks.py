"""How a job's page looks and who cannot see or touch it: both themes, narrow, at 150 %, in Chinese, by keyboard, by axe-core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.chromium import close_page
from tests.e2e.lab.test_looks import glued, serious
from tests.lab import CONFIG, TOKEN, Lab, made_lab, open_lab, pictures, row, show_panel
from tests.user_machine import eventually
from tuttilab.magics.submission.capture import capture
from tuttilab.magics.submission.request import Options, prepare
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

CELL = """import time
from pathlib import Path
rows = table[rank::world]
print("rows", len(rows), flush=True)
kept = bytearray(40 * 2**20)
for step in range(2000):
    print(f"step {step:3d}  loss \\x1b[1m{1 / (step + 1):.3f}\\x1b[0m", flush=True)
    end = time.time() + 0.2
    while time.time() < end:
        pass
    time.sleep(0.3)
"""
FAILS = "for i in 1 2 3; do echo epoch $i; done; echo 'Traceback (most recent call last):'; echo 'ValueError: no rows'; exit 1"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with made_lab(tmp_path_factory.mktemp("pages"), CONFIG) as lab:
        yield lab


@pytest.fixture(scope="module")
def jobs(busy: Lab) -> dict[str, JobView]:
    """A gang of two that runs, one that waits, and one that failed after a wait and at its second try."""
    submission = prepare(
        CELL,
        "<%%submit In[12]>",
        capture({"table": list(range(200_000)), "rank": 0, "world": 2}),
        Options(
            name="train-trees", cpus=1, memory="256Mi", workers=2, env={"SEED": "7"}, labels={"notebook": "examples/tour.ipynb"}
        ),
        lambda digest: digest[:40],
        files={"features/lags.py": b"x" * 5000, "params.yaml": b"y" * 300},
    )
    busy.client.put_artifact(submission.bundle)
    running = busy.until(busy.client.submit(submission.requests[0], key=submission.keys[0]), "Running")
    waiting = busy.waiting("fine-tune")
    failed = busy.client.submit(
        JobRequest(name="smoke-test", command=("sh", "-c", FAILS), retries=1, pods=(PodRequest(cpus="100m"),))
    )
    eventually(lambda: [len(pod.seconds) >= 8 for pod in busy.client.usage(running.id).pods] == [True, True], 90)
    return {"running": running, "waiting": waiting, "failed": busy.until(failed, "Failed")}


def opened(page: Page, job: JobView) -> Locator:
    row(page, job).locator(".tl-Job-main").click()
    shown = page.locator(f"#tuttilab-job-{job.id}")
    expect(shown.get_by_role("heading", level=1)).to_have_text(job.name)
    return shown


COLOUR = "node => getComputedStyle(node).color"


@pytest.mark.feature("B16", "B24")
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_page_can_be_read_in_both_themes_and_axe_finds_nothing_serious(
    browser: Browser, busy: Lab, jobs: dict[str, JobView], theme: str
) -> None:
    busy.settings("@jupyterlab/apputils-extension/themes", {"theme": theme})
    page = open_lab(browser, busy, width=1400, height=900)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    short = theme.removeprefix("JupyterLab ").lower()
    found: list[str] = []
    for name, job in jobs.items():
        shown = opened(page, job)
        if name == "running":
            expect(shown.locator("canvas")).to_have_count(2)
            shown.get_by_role("searchbox").fill("step")
        if name == "failed":
            shown.get_by_role("button", name="First error").click()
            expect(shown.locator(".tl-mod-current")).to_be_visible()
        page.wait_for_timeout(500)
        page.screenshot(path=pictures() / f"page-{name}-{short}.png")
        found += serious(page, f"#tuttilab-job-{job.id}") + glued(shown)
        if name == "running":
            # Its source has the colours of Python, also where no editor was opened.
            code = shown.locator(".tl-Code").first
            shades = {word: code.locator("span", has_text=word).first.evaluate(COLOUR) for word in ("import", "for", "2", '"rows"')}
            assert code.inner_text().strip() == f"# %%submit\n{CELL}".strip()
            assert shades["import"] == shades["for"]
            assert len({code.evaluate(COLOUR), *shades.values()}) == 4
    assert found == []
    close_page(page)
    busy.settings("@jupyterlab/apputils-extension/themes", {})


def test_page_fits_a_narrow_window_and_150_percent(browser: Browser, busy: Lab, jobs: dict[str, JobView]) -> None:
    for name, width, height, scale in (("narrow", 760, 900, 1.0), ("150", 1280 / 1.5, 800 / 1.5, 1.5)):
        context = browser.new_context(viewport={"width": int(width), "height": int(height)}, device_scale_factor=scale)
        page = context.new_page()
        page.goto(f"{busy.url}/lab?reset&token={TOKEN}")
        expect(page.locator(".jp-Launcher")).to_be_visible(timeout=150_000)
        show_panel(page)
        shown = opened(page, jobs["running"])
        expect(shown.locator("canvas")).to_have_count(2)
        page.wait_for_timeout(300)
        page.screenshot(path=pictures() / f"page-{name}.png")
        # Nothing hangs out to the side, and the log is reached by scrolling the page.
        assert shown.locator(".tl-Page").evaluate("node => node.scrollWidth <= node.clientWidth")
        log = shown.get_by_role("log")
        log.scroll_into_view_if_needed()
        expect(log).to_be_in_viewport()
        assert log.evaluate("node => node.clientHeight") > 150
        page.screenshot(path=pictures() / f"page-{name}-log.png")
        context.close()


@pytest.mark.feature("B17")
def test_page_is_chinese_where_lab_is(browser: Browser, busy: Lab, jobs: dict[str, JobView]) -> None:
    busy.settings("@jupyterlab/translation-extension/plugin", {"locale": "zh_CN"})
    try:
        page = open_lab(browser, busy, width=1400, height=900)
        shown = opened(page, jobs["failed"])
        for text in ("提交", "等待时长", "退出码"):
            expect(shown.get_by_text(text, exact=True).first).to_be_visible()
        for title in ("命令", "尝试", "日志"):
            expect(shown.get_by_role("region", name=title, exact=True)).to_be_visible()
        expect(shown.get_by_role("button", name="第一个错误")).to_be_enabled()
        page.screenshot(path=pictures() / "page-chinese.png")
        close_page(page)
    finally:
        busy.settings("@jupyterlab/translation-extension/plugin", {"locale": "en"})


@pytest.mark.feature("B16")
def test_page_is_used_by_keyboard_alone(browser: Browser, busy: Lab, jobs: dict[str, JobView]) -> None:
    page = open_lab(browser, busy)
    row(page, jobs["failed"]).focus()
    page.keyboard.press("Enter")
    shown = page.locator(f"#tuttilab-job-{jobs['failed'].id}")
    expect(shown.get_by_role("heading", level=1)).to_be_visible()
    expect(shown.get_by_role("log")).to_contain_text("epoch 1")

    reached: list[str] = []
    shown.get_by_role("button", name="Run again").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        what = page.evaluate(
            """() => { const node = document.activeElement;
            return node.getAttribute('aria-label') ?? node.closest('label')?.textContent ?? node.textContent.slice(0, 40); }"""
        )
        reached.append(what)
        if what == "Log of smoke-test":
            break
    wanted = ["Delete", "Copy id", "About smoke-test", "Search the log", "First error", "Wrap", "Follow", "Download the log"]
    assert [name for name in wanted if name not in [text.strip() for text in reached]] == []
    assert reached[-1] == "Log of smoke-test"
    page.keyboard.press("Control+f")
    page.keyboard.type("valueerror")
    page.keyboard.press("Enter")
    expect(shown.locator(".tl-mod-current")).to_contain_text("ValueError: no rows")
    close_page(page)
