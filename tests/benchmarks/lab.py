"""How long a change takes from the service's answer to the screen, with one job, with 300 queued and with ten thousand; how these
scroll; and how old the state of a progress bar is that the log tab shows."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page

from tests.benchmarks.figures import Figure, shown
from tests.chromium import chromium
from tests.lab import SMALL, Lab, made_lab, open_lab
from tuttilab.scheduler.domain.requests import JobRequest
from tuttilab.scheduler.domain.wire import JobView

ROUNDS = 10
QUEUED = 300
QUEUED_ROUNDS = 40
LIMIT_S = 1.0
BAR_STATES = 30
BAR = r"""import time
while True:
    print(f"\r{time.time():.3f} of the work", end="", flush=True)
    time.sleep(0.3)
"""
# Seconds from the print of each new state of the bar to its frame.
BAR_LAGS = """count => new Promise(resolve => {
    const lags = [];
    let last = '';
    const look = () => {
        const text = document.querySelector('.tl-mod-partial .tl-Line-text')?.textContent ?? '';
        if (text !== last && text !== '') {
            last = text;
            requestAnimationFrame(() => {
                lags.push(Date.now() / 1000 - Number.parseFloat(text));
                if (lags.length === count) {
                    observer.disconnect();
                    resolve(lags);
                }
            });
        }
    };
    const observer = new MutationObserver(look);
    observer.observe(document.body, {subtree: true, childList: true, characterData: true});
})"""
FRAME_LIMIT_S = 0.5
# The time of day at which the row of that job first says the word.
WATCH = """([id, word]) => {
    window.seenAt = new Promise(resolve => {
        const look = () => {
            const row = document.querySelector(`.tl-Job[data-job-id="${id}"] .tl-Job-phase`);
            if (row !== null && row.textContent === word) {
                observer.disconnect();
                requestAnimationFrame(() => resolve(Date.now() / 1000));
            }
        };
        const observer = new MutationObserver(look);
        observer.observe(document.body, {subtree: true, childList: true, characterData: true});
        look();
        setTimeout(() => resolve(Infinity), LIMIT_MS);
    });
}""".replace("LIMIT_MS", "30000")
# Seconds of the longest frame of a scroll from the last row to the first.
WORST_FRAME = """async node => {
    let worst = 0, last = performance.now();
    for (let step = 100; step >= 0; step -= 1) {
        node.scrollTo(0, node.scrollHeight * step / 100);
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        worst = Math.max(worst, now - last);
        last = now;
    }
    return worst / 1000;
}"""


def panel_s(jobs: int = 0, rounds: int = ROUNDS) -> tuple[list[float], float]:
    """With so many other jobs queued: from a cancel that is sent to the state on screen, each round; and the longest frame."""
    with tempfile.TemporaryDirectory(prefix="tuttilab-bench-") as folder, made_lab(Path(folder)) as lab, chromium() as browser:
        # First the job that fills the queue, or one of the many would.
        lab.client.cancel(lab.waiting("first").id)
        for start in range(0, jobs, 1000):
            names = [f"many-{index}" for index in range(start, min(start + 1000, jobs))]
            lab.client.submit_many([JobRequest(name=name, command=("true",), queue="none", pods=SMALL) for name in names])
        page = open_lab(browser, lab)
        # In the usual order a job that ends leaves the screen: it goes below all that wait.
        page.get_by_label("Order").select_option("newest")
        if jobs:
            load_all(page)
        times = [one_round(lab, page) for _ in range(rounds)]
        return times, float(page.locator(".tl-JobList").evaluate(WORST_FRAME))


def bar_s() -> list[float]:
    """From the print of a bar's state to the screen, for each state that the log tab showed."""
    with tempfile.TemporaryDirectory(prefix="tuttilab-bench-") as folder, made_lab(Path(folder)) as lab, chromium() as browser:
        script = lab.machine.home / "bar.py"
        script.write_text(BAR)
        job = lab.until(lab.submit("bar", "python", str(script)), "Running")
        page = open_lab(browser, lab)
        page.get_by_role("button", name="Logs of bar").click()
        page.locator(".tl-mod-partial").wait_for()
        lags = [float(lag) for lag in page.evaluate(BAR_LAGS, BAR_STATES)]
        lab.client.cancel(job.id)
        return lags


def one_round(lab: Lab, page: Page) -> float:
    job = lab.waiting("watched")
    watch(page, job, "Waiting")
    page.evaluate("window.seenAt")
    watch(page, job, "Cancelled")
    began = time.time()
    lab.client.cancel(job.id)
    return float(page.evaluate("window.seenAt")) - began


def watch(page: Page, job: JobView, word: str) -> None:
    page.evaluate(WATCH, [job.id, word])


def load_all(page: Page) -> None:
    scroller = page.locator(".tl-JobList")
    scroller.wait_for()
    until = time.monotonic() + 120
    while scroller.get_attribute("aria-rowcount") == "-1":
        assert time.monotonic() < until, "the list does not come to its end"
        scroller.evaluate("node => node.scrollTo(0, node.scrollHeight)")
        page.wait_for_timeout(100)
    scroller.evaluate("node => node.scrollTo(0, 0)")


def figures() -> Iterator[Figure]:
    lags = bar_s()
    note = f"worst of {len(lags)}, median {shown(statistics.median(lags))}"
    yield Figure("a progress bar's state in the log tab", max(lags), LIMIT_S, note)
    times, _ = panel_s(QUEUED, QUEUED_ROUNDS)
    p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
    note = f"p95 of {len(times)}, worst {shown(max(times))}, median {shown(statistics.median(times))}"
    yield Figure(f"a job's state in the panel, {QUEUED} jobs queued", p95, LIMIT_S, note)
    for jobs in (0, 10_000):
        times, frame_s = panel_s(jobs)
        note = f"worst of {len(times)}, median {shown(statistics.median(times))}"
        yield Figure(f"a job's state in the panel, {jobs:,} jobs listed", max(times), LIMIT_S, note)
        if jobs:
            note = "from the last row to the first"
            yield Figure(f"the longest frame of a scroll through {jobs:,} jobs", frame_s, FRAME_LIMIT_S, note)


if __name__ == "__main__":
    for figure in figures():
        sys.stdout.write(figure.line() + "\n")
