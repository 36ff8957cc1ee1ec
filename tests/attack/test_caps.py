"""A user who submits without end: what the command line, a notebook and the panel's server say when it is too much."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.chromium import chromium
from tests.lab import CONFIG as LAB
from tests.lab import made_lab, open_lab
from tests.user_machine import CONFIG, UserMachine, eventually, made_machine
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = pytest.mark.timeout(700)

LIMITS = "limits: {{user_live_jobs: {live}, user_writes_per_s: {rate}, user_writes_at_once: {burst}}}\n"
CELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "tuttilab.magics")
error = shell.run_cell(sys.argv[1]).error_in_exec
print(json.dumps([type(error).__name__, str(error)]))
"""
MAP = "n = list(range(600))\nget_ipython().run_cell_magic('submit', '--map n --detach --cpus 0.1 --memory 64Mi --queue none', 'n')"


@contextmanager
def limited(folder: Path, **limits: int) -> Iterator[UserMachine]:
    with made_machine(folder) as machine:
        config = machine.home / "tuttilab.yaml"
        none = "  - {name: none, parent: root, max: {cpu: 100m}}\ndefaults"
        config.write_text(CONFIG.replace("defaults", none) + LIMITS.format(**limits))
        said = machine.run("up", "--config", str(config))
        assert said.code == 0, said
        yield machine


@pytest.fixture
def few(tmp_path: Path) -> Iterator[UserMachine]:
    with limited(tmp_path, live=510, rate=1000, burst=1000) as machine:
        yield machine


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[UserMachine]:
    with limited(tmp_path, live=10, rate=1, burst=1) as machine:
        yield machine


def notebook(machine: UserMachine, cell: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CELL, cell], cwd=machine.home, env=machine.environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_map_in_parts_a_command_and_a_cell_are_refused_as_a_whole_and_say_why(few: UserMachine, tmp_path: Path) -> None:
    job = "kind: Job\nname: many\ncommand: [sleep, '600']\npods: [{memory: 8Mi}]\n"
    (tmp_path / "many.yaml").write_text("---\n".join([job] * 5))
    waits = JobRequest(name="waits", pods=(PodRequest(cpus="100m", memory="8Mi"),), command=("sleep", "600"), queue="none")
    runtime = few.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        kind, text = notebook(few, MAP)

        assert kind == "TooManyJobs", text
        assert "has 500 unfinished jobs, and 100 more would pass the limit of 510 (limits.user_live_jobs); wait until" in text
        assert text.endswith("The first 500 of the 600 elements were cancelled again.")
        eventually(lambda: client.jobs(limit=1000).jobs == (), 150)

        client.submit_many([waits] * 508)
        said = few.run("submit", "many.yaml", cwd=tmp_path)
        client.submit_many([waits] * 2)
        kind, text = notebook(few, "get_ipython().run_cell_magic('submit', '--detach', '1')")

    assert (said.code, said.out) == (3, "")
    assert "has 508 unfinished jobs, and 5 more would pass the limit of 510" in said.err
    assert len(said.sentences) == 1
    assert kind == "TooManyJobs"
    assert text.endswith("wait until some have ended, or cancel some with `tuttilab cancel`. Nothing was submitted.")


def test_a_command_that_writes_too_fast_waits_and_is_done(slow: UserMachine, tmp_path: Path) -> None:
    runtime = slow.runtime()
    with httpx.Client(
        base_url=runtime.url, headers={"Authorization": f"Bearer {runtime.token}"}, trust_env=False, timeout=150
    ) as web:
        answers = [web.post("/api/v1/jobs:dryrun", json={}) for _ in range(4)]
        said = slow.run("submit", "--memory", "8Mi", "--", "true")

    assert [answer.headers["retry-after"] for answer in answers if answer.status_code == 429]
    assert (said.code, said.err) == (0, "")


def test_the_panel_says_why_a_job_is_not_run_again(tmp_path: Path) -> None:
    with made_lab(tmp_path, LAB + LIMITS.format(live=1, rate=1000, burst=1000)) as lab, chromium() as browser:
        job = lab.until(lab.submit("once", "sh", "-c", "exit 3"), "Failed")
        lab.submit("long", "sleep", "600")
        page = open_lab(browser, lab)
        show = page.locator("#tuttilab-panel")
        show.get_by_role("button", name="Run once again").click()

        expect(page.locator(".Toastify")).to_contain_text("has 1 unfinished job, and 1 more would pass the limit of 1")
        assert lab.client.job(job.id).phase == "Failed"
