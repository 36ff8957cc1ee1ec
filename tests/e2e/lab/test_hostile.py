"""Texts that other people's jobs wrote, in a real browser: nothing runs, nothing is asked of another place, all of it is seen."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.chromium import close_page
from tests.lab import Lab, open_lab, row
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = pytest.mark.tier("browser")

# Each sets the page's title, which a test can see, or asks a host that does not exist, which it can see too.
HIT = "document.title='hit'"
PAYLOADS = (
    f"<script>{HIT}</script>",
    f'<img src=x onerror="{HIT}">',
    f'"><svg onload="{HIT}">',
    f"'><body onload={HIT}>",
    f"<iframe srcdoc='<script>parent.{HIT}</script>'></iframe>",
    f'<a href="javascript:{HIT}">a</a>',
    f"javascript:{HIT}",
    "<link rel=stylesheet href=http://evil.invalid/x.css>",
    "<img src=http://evil.invalid/x.png>",
    "<form action=http://evil.invalid><button>go</button></form>",
    f"{{{{constructor.constructor('{HIT}')()}}}}",
    f"${{{HIT}}}",
    "%1 %2 </span><style>*{background:url(http://evil.invalid)}</style>",
    f"<button data-commandlinker-command='tuttilab:cancel-job'>x</button><details open ontoggle={HIT}>",
)


def watched(browser: Browser, lab: Lab) -> tuple[Page, list[str], list[str]]:
    page = open_lab(browser, lab)
    asked: list[str] = []
    errors: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((lab.url, "data:", "blob:")):
            asked.append(request.url)

    page.on("request", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    return page, asked, errors


@pytest.mark.timeout(700)
def test_names_reasons_labels_and_logs_are_text(browser: Browser, lab: Lab) -> None:
    page, asked, errors = watched(browser, lab)
    lines = "\n".join(PAYLOADS + tuple(f"\x1b[31m{text}\x1b]8;;javascript:{HIT}\x07link\x1b]8;;\x07" for text in PAYLOADS))
    pods = (PodRequest(cpus="100m", memory="64Mi"),)
    labels = {f"note-{index}": text for index, text in enumerate(PAYLOADS)}
    jobs = []
    for text in PAYLOADS:
        # The command does not exist, so the payload is in the reason too.
        jobs.append(lab.client.submit(JobRequest(name=text[:120], command=("/bin/sh", "-c", "exit 3"), pods=pods)))
    talker = lab.client.submit(JobRequest(name=PAYLOADS[1], command=("printf", "%s\n", lines), pods=pods, labels=labels))
    wrong = lab.client.submit(JobRequest(name="wrong", command=(PAYLOADS[2],), pods=pods))

    for job in (*jobs, talker):
        expect(row(page, job).locator(".tl-Job-name")).to_have_text(lab.client.job(job.id).name)
    expect(row(page, wrong)).to_contain_text("Failed")
    row(page, talker).get_by_role("button", name="Logs of").click()
    log = page.get_by_role("log").first
    page.get_by_label("Follow").uncheck()
    log.evaluate("node => node.scrollTo(0, 0)")
    for text in PAYLOADS:
        expect(log).to_contain_text(text)
    row(page, talker).click(button="right")
    page.keyboard.press("Escape")
    row(page, jobs[-1]).get_by_role("button", name="again").click()

    assert {link.get_attribute("href") for link in log.get_by_role("link").all()} <= hrefs(PAYLOADS)
    page.wait_for_timeout(500)
    assert page.title() != "hit"
    assert [url for url in asked if "evil.invalid" in url] == []
    assert errors == []
    assert page.locator("#tuttilab-panel, .tl-Log").locator("script, iframe, img, form, style, link").count() == 0
    close_page(page)


def hrefs(texts: tuple[str, ...]) -> set[str]:
    """The addresses that the log may offer: only those of http, as they stand."""
    found = set()
    for text in texts:
        for word in text.replace(">", " ").replace("<", " ").replace(")", " ").split():
            start = word.find("http://")
            if start >= 0:
                found.add(word[start:])
    return found


def test_opening_a_hostile_notebook_submits_nothing(browser: Browser, lab: Lab) -> None:
    cell = "".join(f"<p>{text}</p>" for text in PAYLOADS)
    notebook = {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": cell},
            {
                "cell_type": "code",
                "execution_count": 1,
                "metadata": {},
                "source": "%%submit\n1",
                "outputs": [{"output_type": "display_data", "metadata": {}, "data": {"text/html": cell}}],
            },
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    (lab.machine.home / "hostile.ipynb").write_text(json.dumps(notebook))
    before = len(lab.client.jobs(all=True, limit=1000).jobs)
    page, _, errors = watched(browser, lab)
    page.goto(f"{lab.url}/lab/tree/hostile.ipynb?reset")
    expect(page.locator(".jp-Notebook")).to_be_visible(timeout=30_000)
    page.wait_for_timeout(2000)

    assert page.title() != "hit"
    assert len(lab.client.jobs(all=True, limit=1000).jobs) == before
    assert errors == []
    close_page(page)
