"""`tuttilab up`, `down`, `status`, `lab`, `doctor`: the control plane of this machine and what it depends on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler import __version__
from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import count_of, note, short
from tuttilab.scheduler.domain.errors import Conflict, TuttiError, Unavailable
from tuttilab.scheduler.domain.words import word
from tuttilab.scheduler.runtime import discovery

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.runtime.discovery import Runtime

EXIT_UNREACHABLE = Unavailable.exit_code
ANSWER_S = 5.0
"""A control plane that takes longer to list its jobs counts as stuck."""
EXIT_LIMIT_S = 20.0
"""Time from the request to end, without a live job, to the end of the process."""

config_option = click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="A tuttilab.yaml; built-in without it."
)


@click.command()
@config_option
def up(config: Path | None) -> None:
    """Start the local control plane, unless it runs."""
    from tuttilab.scheduler.client.transport import is_user_of_hub

    if is_user_of_hub(os.environ):
        raise Conflict(
            "This server uses the control plane of its hub, which only the hub's admin starts; one of your own would be outside "
            "all quota, and nothing here would use it. `tuttilab doctor` says how the hub's is."
        )
    state = discovery.state_dir(os.environ)
    before = discovery.find(state).runtime
    began = time.monotonic()
    runtime = discovery.ensure_started(os.environ, config=config, say=note, is_asked=True)
    runs_with = runtime.config or "the built-in configuration"
    if before is not None and before.process == runtime.process:
        console.put(f"The control plane runs already: {runtime.url}, pid {runtime.pid}, with {runs_with}.")
    else:
        took = time.monotonic() - began
        console.put(f"The control plane is ready after {took:.1f} s: {runtime.url}, pid {runtime.pid}, with {runs_with}.")


@click.command()
@click.option("--now", is_flag=True, help="Stop live jobs instead of waiting for their end.")
def down(now: bool) -> None:
    """Stop the local control plane, after its jobs have ended."""
    state = discovery.state_dir(os.environ)
    found = discovery.find(state)
    runtime = found.runtime
    if runtime is None:
        last = discovery.read_last(state)
        # A crashed control plane did not record its live jobs.
        may_have_live_jobs = bool(found.stale) or (last is not None and last.live_jobs > 0)
        if found.stale:
            note(found.stale)
        if not (now and may_have_live_jobs):
            hint = ""
            if last is not None and last.live_jobs:
                hint = f"; {count_of(last.live_jobs, 'job')} of the last one may go on, and `tuttilab down --now` ends what does"
            console.put(f"No control plane runs in {state}{hint}.")
            if not may_have_live_jobs:
                discovery.forget_last(state)
            return
        note("Its jobs may still run: it is started once more to stop them.")
        runtime = discovery.ensure_started(os.environ, say=note, is_asked=True)
    _stop(runtime, now)
    discovery.forget_last(state)
    console.put(f"The control plane (pid {runtime.pid}) has ended.")


def _stop(runtime: Runtime, now: bool) -> None:
    from tuttilab.scheduler.client import Client

    try:
        client = Client(runtime.url, runtime.token, timeout_s=ANSWER_S)
        try:
            if not now:
                _drain(client)
            client.shutdown(now)
            if now:
                _wait_until_stopped(runtime, client)
        finally:
            client.close()
    except Unavailable:
        if runtime.process.is_alive():
            note(f"The control plane (pid {runtime.pid}) does not answer and gets SIGTERM; its jobs go on.")
            os.kill(runtime.pid, signal.SIGTERM)
    until = time.monotonic() + EXIT_LIMIT_S
    while runtime.process.is_alive():
        if time.monotonic() > until:
            raise TuttiError(
                f"The control plane (pid {runtime.pid}) has not ended after {EXIT_LIMIT_S:.0f} s; "
                f"see {discovery.log_file(Path(runtime.state_dir))}, and `kill -9 {runtime.pid}` ends it (no accepted job is lost)."
            )
        time.sleep(0.05)


def _drain(client: Client) -> None:
    """Wait until no job is live, and print which jobs are."""
    shown = ""
    while True:
        live = client.jobs(owner="*", limit=100).jobs
        if not live:
            return
        names = ", ".join(f"{short(job.id)} {job.name} ({word(job.phase)})" for job in live[:5])
        more = f" and {len(live) - 5} more" if len(live) > 5 else ""
        if names + more != shown:
            hint = "" if shown else " Ctrl-C leaves everything as it is; --now stops them."
            note(f"Waiting for {count_of(len(live), 'job')}: {names}{more}.{hint}")
            shown = names + more
        time.sleep(0.5)


def _wait_until_stopped(runtime: Runtime, client: Client) -> None:
    """Wait while the cancelled jobs have their grace period, with a note after a second."""
    began = time.monotonic()
    is_noted = False
    while runtime.process.is_alive():
        try:
            live = client.jobs(owner="*", limit=100).jobs
        except Unavailable:
            return
        if live and not is_noted and time.monotonic() - began > 1.0:
            note(f"Waiting for {count_of(len(live), 'job')} to stop.")
            is_noted = True
        time.sleep(0.1)


@click.command()
@console.json_option
def status(as_json: bool) -> int:
    """Show the control plane; exit code 4 when there is none."""
    url = os.environ.get("TUTTILAB_URL")
    if url:
        return _remote_status(url, as_json)
    state = discovery.state_dir(os.environ)
    found = discovery.find(state)
    runtime = found.runtime
    if runtime is None:
        if as_json:
            console.put_json({"running": False, "state_dir": str(state), "version": __version__, "stale": found.stale or None})
        else:
            console.put(found.stale or f"No control plane runs in {state}; `tuttilab up` starts one.")
        return EXIT_UNREACHABLE
    if as_json:
        console.put_json(
            {
                "running": True,
                "url": runtime.url,
                "token_file": str(discovery.token_file(state)),
                "pid": runtime.pid,
                "version": runtime.version,
                "state_dir": str(state),
                "clusters": list(runtime.clusters),
                "config": runtime.config or None,
                "log": str(discovery.log_file(state)),
            }
        )
        return 0
    other = "" if runtime.version == __version__ else f" (this is {__version__}: run `tuttilab down`, then `tuttilab up`)"
    facts = [
        ("url", runtime.url),
        ("pid", str(runtime.pid)),
        ("version", runtime.version + other),
        ("state", str(state)),
        ("log", str(discovery.log_file(state))),
        ("config", runtime.config or "built-in"),
        ("clusters", ", ".join(runtime.clusters)),
    ]
    for name, text in facts:
        console.put(f"{name:<9} {text}")
    return _show_load(runtime)


def _show_load(runtime: Runtime) -> int:
    """Print whether the control plane answers and how many jobs it has; returns the exit code."""
    from tuttilab.scheduler.client import Client

    client = Client(runtime.url, runtime.token, timeout_s=ANSWER_S)
    try:
        began = time.monotonic()
        live = client.jobs(owner="*", limit=1000).jobs
        took = time.monotonic() - began
        trouble = _trouble(client)
    except TuttiError as error:
        console.put(f"health    {error}")
        return EXIT_UNREACHABLE
    finally:
        client.close()
    waiting = sum(job.wait is not None or job.phase == "Queued" for job in live)
    console.put(f"health    answers in {took * 1000:.0f} ms; {count_of(len(live) - waiting, 'job')} active, {waiting} waiting")
    if trouble:
        console.put(f"trouble   {trouble}")
    return 0


def _trouble(client: Client) -> str:
    """Why the control plane answers and cannot do its work; empty when it can."""
    try:
        client.check_ready()
    except TuttiError as error:
        return str(error)
    return ""


def _remote_status(url: str, as_json: bool) -> int:
    """Show the service that TUTTILAB_URL names."""
    from tuttilab.scheduler.client import connect

    client = connect(start=False, say=note)
    me = client.me()
    clusters = [cluster.name for cluster in client.clusters()]
    if as_json:
        console.put_json({"running": True, "url": url, "version": me.version, "user": me.name, "clusters": clusters})
        return 0
    for name, text in [("url", url), ("version", me.version), ("user", me.name), ("clusters", ", ".join(clusters))]:
        console.put(f"{name:<9} {text}")
    return 0


@click.command()
@console.json_option
def doctor(as_json: bool) -> int:
    """Check what tuttilab depends on; exit code 1 when something is broken."""
    from tuttilab.scheduler.cli.doctor import run_checks
    from tuttilab.scheduler.cli.doctor_service import Level

    findings = run_checks(os.environ)
    if as_json:
        console.put_json(findings)
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            console.put(f"{finding.level:<6}  {finding.what:<{width}}  {finding.detail}")
            if finding.remedy:
                console.put(f"{'':<6}  {'':<{width}}  -> {finding.remedy}")
    return 1 if any(finding.level is Level.BROKEN for finding in findings) else 0


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("--port", type=click.IntRange(1, 65535), help="Port of JupyterLab; Jupyter chooses without it.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@click.argument("jupyter_options", metavar="[-- JUPYTER OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def lab(port: int | None, no_browser: bool, jupyter_options: tuple[str, ...]) -> None:
    """Start JupyterLab with the magics on, and the control plane with it."""
    from tuttilab.scheduler.cli.lab import start_lab

    start_lab(os.environ, port=port, no_browser=no_browser, options=jupyter_options, say=note)


COMMANDS = (lab, up, down, status, doctor)
