"""`tuttilab cluster`: what an operator does to one cluster without a control plane."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.domain.errors import BadInput, Conflict, NotFound
from tuttilab.scheduler.domain.titles import title_of
from tuttilab.scheduler.runtime import discovery

if TYPE_CHECKING:
    from tuttilab.scheduler.clusters.kubernetes.launch import HeldPod
    from tuttilab.scheduler.config.model import Config

MOST_SHOWN = 5


@click.group(short_help="Give up a cluster.")
def cluster() -> None:
    """What is done to one cluster; `tuttilab clusters` shows them all."""


@cluster.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Also where jobs run, or the control plane does.")
@click.option("--config", type=click.Path(path_type=Path), help="A tuttilab.yaml.  [default: that of the last control plane]")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Of another account, as where the cluster's own one is gone.")
@console.json_option
def release(name: str, yes: bool, config: Path | None, kubeconfig: Path | None, as_json: bool) -> None:
    """Take our finalizers off all pods on the cluster NAME, so that Kubernetes can forget them.

    For a cluster that is given up, or a namespace that stays in deletion, when no control plane does it any more. Pods that run
    go on. A control plane that comes back has their attempts as lost if they are gone by then.
    """
    state = discovery.state_dir(os.environ)
    found = _configuration(state, config)
    known = {one.name: one.kubernetes for one in found.clusters}
    if name not in known:
        raise NotFound(f"There is no cluster {name!r} in the configuration; expected one of {', '.join(sorted(known))}.")
    settings = known[name]
    if settings is None:
        raise BadInput(f"Cluster {name} has no finalizers: it is not of kind kubernetes.")
    running = discovery.find(state).runtime
    if running is not None and not yes:
        raise Conflict(
            f"The control plane (pid {running.pid}) runs and takes its finalizers off once it has noted how a pod ended; run "
            "`tuttilab down` first, or say --yes. Nothing was changed."
        )
    if not (state / "secret.key").exists() and found.auth.key_file is None:
        raise NotFound(f"{state} is no state folder of a control plane, so its pods cannot be told; set TUTTILAB_STATE_DIR.")

    async def run() -> tuple[HeldPod, ...]:
        from tuttilab.scheduler.clusters.kubernetes.launch import releasing
        from tuttilab.scheduler.service.launch_plans import Secrets

        installation = Secrets.of(found.auth.key_file, state).installation
        async with releasing(name, settings, installation, None if kubeconfig is None else str(kubeconfig)) as opened:
            held = await opened.held()
            live = [pod for pod in held if not pod.has_ended]
            if live and not yes:
                raise Conflict(
                    f"{console.count_of(len(live), 'pod')} on cluster {name} {'has' if len(live) == 1 else 'have'} not ended "
                    f"({_listed(live)}), and how they end would be lost; cancel their jobs, or say --yes. Nothing was changed."
                )
            await opened.release(held)
            return held

    released = asyncio.run(run())
    if as_json:
        console.put_json(
            [{"namespace": pod.namespace, "pod": pod.name, "job": pod.job_id, "has_ended": pod.has_ended} for pod in released]
        )
        return
    for pod in released:
        how = "ended" if pod.has_ended else "is being deleted" if pod.is_deleted else "goes on"
        console.put(f"{pod.namespace}/{pod.name}, of attempt {pod.attempt} of job {title_of(pod.job_id)}: {how}")
    total = console.count_of(len(released), "pod")
    console.put(f"{total} released." if released else f"No pod on cluster {name} has our finalizer.")


def _configuration(state: Path, given: Path | None) -> Config:
    from tuttilab.scheduler.config.load import load_config

    if given is None:
        running, last = discovery.find(state).runtime, discovery.read_last(state)
        known = running.config if running is not None else last.config if last is not None else ""
        given = Path(known) if known else None
    return load_config(given, state, os.environ)


def _listed(pods: Sequence[HeldPod]) -> str:
    jobs = list(dict.fromkeys(pod.job_id for pod in pods))
    more = f" and {len(jobs) - MOST_SHOWN} more" if len(jobs) > MOST_SHOWN else ""
    return f"of job {', '.join(map(title_of, jobs[:MOST_SHOWN]))}{more}"


COMMANDS = (cluster,)
