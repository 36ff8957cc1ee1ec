"""How long a change takes from the service's answer to the screen, with one job listed and with ten thousand."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page

from tests.benchmarks.figures import Figure, shown
from tests.lab import SMALL, Lab, chromium, made_lab, open_lab
from tuttilab.scheduler.requests import JobRequest
from tuttilab.scheduler.wire import JobView

ROUNDS = 10
LIMIT_S = 1.0
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
    });
}"""


def panel_latency_s(jobs: int = 0) -> list[float]:
    """From the moment a cancel was sent to the state on screen, ten times, with so many other jobs listed. The worst counts."""
    with tempfile.TemporaryDirectory(prefix="tuttilab-bench-") as folder, made_lab(Path(folder)) as lab, chromium() as browser:
        # First the job that fills the queue, or one of the many would.
        lab.client.cancel(lab.waiting("first").id)
        for start in range(0, jobs, 1000):
            names = [f"many-{index}" for index in range(start, min(start + 1000, jobs))]
            lab.client.submit_many([JobRequest(name=name, command=("true",), queue="none", pods=SMALL) for name in names])
        page = open_lab(browser, lab)
        if jobs:
            load_all(page)
        return [one_round(lab, page) for _ in range(ROUNDS)]


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
    for jobs in (0, 10_000):
        times = panel_latency_s(jobs)
        note = f"worst of {len(times)}, median {shown(statistics.median(times))}"
        yield Figure(f"a job's state in the panel, {jobs:,} jobs listed", max(times), LIMIT_S, note)


if __name__ == "__main__":
    for figure in figures():
        sys.stdout.write(figure.line() + "\n")
