"""A real JupyterLab on the user's machine of a test, with a real control plane, shown in a real Chromium."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.chromium import LOCALE, new_page
from tests.ports import free_port
from tests.user_machine import UserMachine, eventually, hide_programs, made_machine
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

TOKEN = "of-the-test"
SMALL = (PodRequest(cpus="100m", memory="64Mi"),)
GPU = (PodRequest(cpus=1, memory="256Mi", gpus=1),)

CONFIG = """
clusters:
  - name: here
    kind: local
    nodes:
      - {name: gpu-a, cpus: 16, memory: 64Gi, resources: {nvidia.com/gpu: 4}}
      - {name: cpu-b, cpus: 32, memory: 64Gi}
queues:
  - {name: root, max: {cpu: 48, memory: 128Gi, nvidia.com/gpu: 4}}
  - {name: research, parent: root, weight: 2, guaranteed: {nvidia.com/gpu: 2}, max: {nvidia.com/gpu: 4}}
  - {name: quant, parent: root, guaranteed: {nvidia.com/gpu: 1}, max: {nvidia.com/gpu: 2, cpu: 16}}
  - {name: none, parent: root, max: {cpu: 100m}}
defaults: {queue: research}
"""

# Lab asks a new user about news; a test does not answer.
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}


@dataclass
class Lab:
    """A running Lab, its control plane, and a client of that with the user's token."""

    machine: UserMachine
    port: int
    client: Client
    holder: str = ""
    """Id of the job that fills the queue `none`, once there is one."""
    server: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def submit(self, name: str, *command: str, queue: str | None = None, pods: tuple[PodRequest, ...] = SMALL) -> JobView:
        return self.client.submit(JobRequest(name=name, command=command, queue=queue, pods=pods))

    def waiting(self, name: str) -> JobView:
        """A job that waits until the end of the test: another job uses all that its queue may use."""
        if not self.holder or self.client.job(self.holder).is_ended:
            self.holder = self.until(self.submit("holder", "sleep", "1000", queue="none"), "Running").id
        return self.until(self.submit(name, "true", queue="none"), "Queued")

    def until(self, job: JobView, phase: str) -> JobView:
        def reached() -> JobView | None:
            found = self.client.job(job.id)
            return found if found.phase == phase else None

        return eventually(reached)  # type: ignore[no-any-return]  # what `reached` gives

    def reset(self) -> None:
        """End all jobs, and start the control plane again with the test's configuration, which `down` forgets."""
        self.machine.run("down", "--now", timeout_s=240)
        said = self.machine.run("up", "--config", str(self.machine.home / "tuttilab.yaml"))
        assert said.code == 0, said
        self.holder = ""
        self.reconnect()

    def reconnect(self) -> None:
        """After a restart of the control plane, which has another port and another token."""
        runtime = self.machine.runtime()
        self.client.close()
        self.client = Client(runtime.url, runtime.token)

    def start_server(self) -> None:
        log = open(self.machine.home / "lab.log", "ab")  # noqa: SIM115  it is the process's
        command = [sys.executable, "-m", "tuttilab.scheduler.cli", "lab", "--no-browser", "--port", str(self.port)]
        command += ["--", f"--IdentityProvider.token={TOKEN}"]
        # To a file: a pipe is not read here, and a full one would block the server.
        self.server = subprocess.Popen(command, cwd=self.machine.home, env=self.machine.environ, stdout=log, stderr=log, text=True)
        self.machine.started.append(self.server)
        eventually(lambda: answers(f"{self.url}/api/status"))

    def restart_server(self) -> None:
        assert self.server is not None
        self.server.terminate()
        self.server.wait(timeout=150)
        self.start_server()

    def settings(self, plugin: str, values: dict[str, object]) -> None:
        path = self.machine.home / ".jupyter" / "lab" / "user-settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")


@contextmanager
def made_lab(folder: Path, config: str = CONFIG, *, without: Collection[str] = ()) -> Iterator[Lab]:
    """Without ``config`` the machine itself is the one node. ``without``: how the names of programs begin that PATH lacks."""
    with made_machine(folder) as machine:
        if without:
            hide_programs(machine, without)
        path = machine.home / "tuttilab.yaml"
        path.write_text(config)
        said = machine.run("up", *(["--config", str(path)] if config else []))
        assert said.code == 0, said
        machine.environ["JUPYTER_RUNTIME_DIR"] = str(machine.home / "runtime")
        runtime = machine.runtime()
        lab = Lab(machine, free_port(), Client(runtime.url, runtime.token))
        lab.settings("@jupyterlab/apputils-extension/notification", NO_NEWS)
        lab.start_server()
        try:
            yield lab
        finally:
            lab.client.close()


def open_lab(browser: Browser, lab: Lab, *, width: int = 1280, height: int = 800, locale: str = LOCALE) -> Page:
    """A new page, signed in, with the panel shown; `close_page` ends it."""
    page = new_page(browser, f"{lab.url}/lab?reset&token={TOKEN}", width=width, height=height, locale=locale)
    expect(page.locator(".jp-Launcher")).to_be_visible(timeout=150_000)
    show_panel(page)
    return page


def show_panel(page: Page) -> None:
    panel = page.locator("#tuttilab-panel")
    tab = page.locator('.lm-TabBar-tab[data-id="tuttilab-panel"]')
    until = time.monotonic() + 150
    # Lab restores its layout after it is drawn, which may undo an earlier click: it has to be seen twice.
    while True:
        is_shown = panel.is_visible()
        if not is_shown:
            tab.click()
        page.wait_for_timeout(300)
        if is_shown and panel.is_visible():
            return
        assert time.monotonic() < until, "the panel does not open"


def until_saved(page: Page, lab: Lab, since: float, holds: str) -> None:
    """Lab has saved its layout and state after ``since``, with ``holds`` in them (JSON without spaces), and saves no more."""
    folder = lab.machine.home / ".jupyter" / "lab" / "workspaces"

    def is_quiet() -> bool:
        newest = max(folder.glob("*"), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None or newest.stat().st_mtime < since or time.time() - newest.stat().st_mtime < 2.5:
            return False
        return holds in "".join(newest.read_text(encoding="utf-8").split())

    until = time.monotonic() + 150
    while not is_quiet():
        assert time.monotonic() < until, "Lab does not save its state"
        page.wait_for_timeout(200)


def saved_outputs(notebook: Path) -> list[dict[str, Any]]:
    """Of all its cells, as they were saved last; none at the moment when Lab writes the file."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except ValueError:
        return []
    return [output for cell in cells for output in cell.get("outputs", [])]


def row(page: Page, job: JobView) -> Locator:
    return page.locator(f'.tl-Job[data-job-id="{job.id}"]')


def pictures() -> Path:
    """The folder for screenshots; tools/screenshot.py copies those of README from there."""
    folder = Path(os.environ.get("TUTTILAB_PICTURES", Path(__file__).resolve().parents[1] / "build" / "pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
