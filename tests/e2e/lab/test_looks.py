"""How the panel looks, in both themes and both languages; who cannot see it; and how it bears 10,000 jobs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.chromium import close_page
from tests.lab import CONFIG, GPU, SMALL, Lab, made_lab, open_lab, pictures, row, show_panel
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

ROOT = Path(__file__).resolve().parents[3]
AXE = ROOT / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
DAG = """
kind: Dag
name: nightly
nodes:
  - {name: features, job: {pods: [{cpus: 1, memory: 64Mi}], command: ["true"]}}
  - {name: train-tree, job: {pods: [{cpus: 1, memory: 64Mi}], command: [sleep, "600"]}, after: [features]}
  - {name: train-linear, job: {pods: [{cpus: 1, memory: 64Mi}], command: ["true"]}, after: [features]}
  - {name: report, job: {pods: [{cpus: 1, memory: 64Mi}], command: ["true"]}, after: [train-tree, train-linear]}
"""
TALK = r"""i=0; while true; do
  i=$((i+1)); printf '\033[36mepoch %d\033[0m  loss \033[1m0.%03d\033[0m\n' $i $((900-i)); sleep 1
done"""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A machine in ordinary use: a gang, a waiting job, a run, and ended jobs."""
    with made_lab(tmp_path_factory.mktemp("busy"), CONFIG.replace("  - {name: none, parent: root, max: {cpu: 100m}}\n", "")) as lab:
        lab.until(lab.submit("prepare-quotes", "true", queue="quant"), "Succeeded")
        lab.until(lab.submit("smoke-test", "sh", "-c", "exit 3"), "Failed")
        dag = lab.machine.home / "nightly.yaml"
        dag.write_text(DAG)
        assert lab.machine.run("dag", "run", str(dag)).code == 0
        gang = (PodRequest(count=2, cpus=4, memory="8Gi", gpus=1),)
        lab.until(lab.submit("train-resnet", "sh", "-c", TALK, pods=gang), "Running")
        lab.until(lab.submit("factor-search", "sleep", "600", queue="quant", pods=GPU), "Running")
        lab.submit("fine-tune", "sleep", "600", pods=(PodRequest(count=2, cpus=2, memory="8Gi", gpus=1),))
        yield lab


@pytest.mark.feature("B16")
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_text_can_be_read_in_both_themes_and_axe_finds_nothing_serious(browser: Browser, busy: Lab, theme: str) -> None:
    busy.settings("@jupyterlab/apputils-extension/themes", {"theme": theme})
    page = open_lab(browser, busy, width=1280, height=760)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    expect(page.get_by_role("button", name="Logs of prepare-quotes")).to_be_attached()
    short = theme.removeprefix("JupyterLab ").lower()
    page.get_by_role("button", name="Logs of train-resnet").click()
    expect(page.get_by_role("log")).to_contain_text(re.compile(r"epoch \d"))  # the first ones are above by now
    page.mouse.move(700, 400)
    page.screenshot(path=pictures() / f"log-{short}.png")
    log = serious(page, ".tl-Log")
    names = glued(page.locator("#tuttilab-panel")) + glued(page.locator(".tl-Log"))
    page.locator(".tl-Run-main").first.click()
    expect(page.locator('[data-node="report"]')).to_be_visible()
    page.mouse.move(700, 500)
    page.screenshot(path=pictures() / f"sidebar-{short}.png")

    assert serious(page, "#tuttilab-panel") + log + serious(page, ".tl-Graph") == []
    assert names + glued(page.locator(".tl-Graph")) == []
    close_page(page)


def serious(page: Page, selector: str) -> list[str]:
    """What axe-core finds in that part, of the kinds that keep somebody from using it."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("selector => axe.run(selector, {resultTypes: ['violations']})", selector)
    return [
        f"{violation['id']}: {node['target']}: {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


# Texts of neighbours within a line with nothing between them: a screen reader says them as one word.
GLUED = """root => {
    const inline = ['SPAN', 'B', 'BDI', 'I', 'SMALL', 'CODE', 'TIME', 'A'];
    const lineOf = node => {
        let at = node.parentElement;
        while (inline.includes(at.tagName)) { at = at.parentElement; }
        return at;
    };
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found = [];
    let last = null;
    for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
        const text = node.textContent;
        if (text === '' || node.parentElement.closest('[aria-hidden="true"], svg, .tl-Line-text, .tl-Code, canvas')) { continue; }
        const isGlued = last !== null && node.parentElement !== last.parentElement && lineOf(node) === lineOf(last)
            && /[^\\s(·]$/.test(last.textContent) && /^[^\\s:,.;)·]/.test(text);
        if (isGlued) { found.push(last.textContent.slice(-20) + '|' + text.slice(0, 20)); }
        last = node;
    }
    return found;
}"""


def glued(found: Locator) -> list[str]:
    pairs: list[str] = found.evaluate(GLUED)
    return pairs


@pytest.mark.feature("B17")
def test_panel_is_chinese_where_lab_is(browser: Browser, busy: Lab) -> None:
    busy.settings("@jupyterlab/translation-extension/plugin", {"locale": "zh_CN"})
    try:
        context = browser.new_context(viewport={"width": 1280, "height": 760})
        page = context.new_page()
        page.goto(f"{busy.url}/lab?reset&token=of-the-test")
        expect(page.locator(".jp-Launcher")).to_be_visible(timeout=150_000)
        show_panel(page)
        panel = page.locator("#tuttilab-panel")
        expect(panel.locator(".tl-Job").first).to_be_visible()
        for text in ("作业", "配额", "运行中", "等待中", "失败"):
            expect(panel).to_contain_text(text)
        expect(panel.get_by_role("button", name="取消 train-resnet")).to_be_visible()
        page.screenshot(path=pictures() / "sidebar-chinese.png")
        context.close()
    finally:
        busy.settings("@jupyterlab/translation-extension/plugin", {"locale": "en"})


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Lab]:
    """Of one test: its jobs need not be stopped one by one, they go with the machine."""
    with made_lab(tmp_path) as lab:
        yield lab


@pytest.mark.feature("B09")
def test_ten_thousand_jobs_scroll_to_the_last(browser: Browser, crowded: Lab) -> None:
    lab = crowded
    page = open_lab(browser, lab)
    first = lab.waiting("many-0")
    for start in range(1, 10_000, 1000):
        requests = [JobRequest(name=f"many-{start + index}", command=("true",), queue="none", pods=SMALL) for index in range(1000)]
        lab.client.submit_many(requests)
    newest = lab.waiting("many-newest")
    expect(row(page, newest)).to_be_visible()
    scroller = page.locator(".tl-JobList")
    limit = time.monotonic() + 90
    while scroller.get_attribute("aria-rowcount") == "-1" and time.monotonic() < limit:
        scroller.evaluate("node => node.scrollTo(0, node.scrollHeight)")
        page.wait_for_timeout(100)
    assert int(scroller.get_attribute("aria-rowcount") or 0) > 10_000
    scroller.evaluate("node => node.scrollTo(0, node.scrollHeight)")
    page.wait_for_timeout(300)
    # Below it is the holder of the queue.
    for _ in range(50):
        if row(page, first).count():
            break
        scroller.evaluate("node => node.scrollBy(0, -200)")
        page.wait_for_timeout(50)
    expect(row(page, first)).to_contain_text("Waiting")
    assert page.locator(".tl-Job").count() < 100
    lab.client.cancel(first.id)
    expect(row(page, first)).to_contain_text("Cancelled")
    close_page(page)
