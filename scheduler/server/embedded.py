"""Runs a control plane that has no replicas: it leads its SQLite database alone, from its start to its end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.domain.errors import StaleEpoch, StoreError
from tuttilab.scheduler.domain.model import JobKind
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.discovery import LastRun, Runtime
from tuttilab.scheduler.runtime.processes import user_name
from tuttilab.scheduler.server.clusters import build_clusters, has_local_cluster, newest_fenced_epoch
from tuttilab.scheduler.server.config_reload import reloader
from tuttilab.scheduler.server.deadline import end_within
from tuttilab.scheduler.server.listener import serve_app, serving_pods, unpublish
from tuttilab.scheduler.server.nightly import proposer, tune_nightly
from tuttilab.scheduler.server.readiness import ReadinessPipe
from tuttilab.scheduler.server.shutdown import Activity, Shutdown
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store import leadership
from tuttilab.scheduler.store.leadership import Candidate
from tuttilab.scheduler.store.sql import SqlStore

EPOCH_CHECK_S: Final = 2.0
"""Between two checks whether another process leads the database file."""

log = logging.getLogger(__name__)


async def run_embedded(
    bound: socket.socket, runtime: Runtime, config: Config, environ: Mapping[str, str], readiness: ReadinessPipe
) -> None:
    """Until a signal, `tuttilab down` or a long time without work ends it. Raises the error of a failed start."""
    state = Path(runtime.state_dir)
    store = SqlStore(config.store.url, candidate=_candidate(config, state, await newest_fenced_epoch(config, state)))
    clusters = build_clusters(config, state, environ)
    service = Service(config, store, clusters, state_dir=state, may_act=lambda: not service.deposed.is_set())
    service.addresses = replace(service.addresses, report_url=runtime.url)
    # Before recovery, because pods that recovery launches or adopts report to this URL.
    discovery.write_private(discovery.url_file(state), json.dumps({"url": runtime.url}))
    shutdown = Shutdown(service, user_name())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, shutdown.at_once, signal.Signals(number).name)
    await service.start()
    epoch_check = asyncio.create_task(_watch_epoch(service, store), name="epoch")
    countdown = asyncio.create_task(_end_in_time(shutdown), name="countdown")
    if service.deposed.is_set():
        raise StaleEpoch("Another process has opened this database and leads; end it, then start again.")
    try:
        await _serve(service, bound, shutdown, runtime, readiness, environ)
    finally:
        unpublish(runtime)
        epoch_check.cancel()
        countdown.cancel()
        live_jobs = sum(not job.phase.is_terminal for job in service.state.jobs.values())
        await service.stop()
        discovery.write_last(state, LastRun(config=runtime.config, live_jobs=live_jobs, is_site=runtime.is_site))
        log.info("ended; %d live jobs go on by themselves", live_jobs)


def _candidate(config: Config, state: Path, newest_epoch: int) -> Candidate:
    """The pods of a local cluster are recorded in its state folder and nowhere else, so another folder must not lead them."""
    digest = hashlib.sha256(os.fsencode(state.resolve())).hexdigest() if has_local_cluster(config) else ""
    return Candidate(key_digest=digest, folder=state, above=newest_epoch)


async def _end_in_time(shutdown: Shutdown) -> None:
    await shutdown.wait()
    end_within()


async def _watch_epoch(service: Service, store: SqlStore) -> None:
    """Step down as soon as another process leads the database, even if the lock of the state folder did not prevent it."""
    while True:
        await asyncio.sleep(EPOCH_CHECK_S)
        try:
            leads = (await store.leader()).epoch
        except StoreError:
            # Without the database nothing is committed; the next check comes soon.
            continue
        if leads != service.state.epoch:
            service.step_down(leadership.stale(service.state.epoch, leads))
            return


async def _serve(
    service: Service,
    bound: socket.socket,
    shutdown: Shutdown,
    runtime: Runtime,
    readiness: ReadinessPipe,
    environ: Mapping[str, str],
) -> None:
    # Imported after recovery, which need not wait for FastAPI to load.
    from tuttilab.scheduler.api import create_app
    from tuttilab.scheduler.api.artifacts.process import ArtifactProcess
    from tuttilab.scheduler.api.artifacts.routes import blobs_of, commit_artifact
    from tuttilab.scheduler.api.artifacts.uploads import sweep_periodically
    from tuttilab.scheduler.api.middleware import PodsOnly
    from tuttilab.scheduler.identity.auth import Authenticator, HubAuthenticator, LocalAuthenticator, hub_settings
    from tuttilab.scheduler.identity.hub_reconciliation import keep_hub_reconciled
    from tuttilab.scheduler.spark.proxy.process import proxy_of

    operator = LocalAuthenticator(runtime.token, user_name())
    authenticator: Authenticator = operator
    tasks = [asyncio.create_task(_shut_down_when_deposed(service, shutdown))]
    if service.config.auth.kind == "hub":
        hub = hub_settings(service.config.auth, environ)
        authenticator = HubAuthenticator(hub, operator)
        tasks.append(asyncio.create_task(keep_hub_reconciled(service, hub, authenticator.http)))
    if runtime.config:
        tasks.append(asyncio.create_task(tune_nightly(service, proposer(runtime, environ)), name="nightly tuning"))
    blobs = blobs_of(service.config)
    tasks.append(asyncio.create_task(sweep_periodically(blobs)))
    artifacts = ArtifactProcess(blobs, service.config.listen.host, service.config.limits.ticket_s)
    artifacts.set_committer(partial(commit_artifact, service))
    reload = reloader(service, runtime, environ)
    proxy = proxy_of(service.config.spark.proxy, Path(runtime.state_dir), runtime.url, service.secrets.proxy_token())
    if proxy is not None and any(job.kind is JobKind.SPARK and not job.phase.is_terminal for job in service.state.jobs.values()):
        proxy.start_soon()
    app = create_app(service, authenticator, shut_down=shutdown.after_jobs, reload=reload, artifacts=artifacts, spark_proxy=proxy)
    activity = Activity(app)
    if service.config.auth.kind != "hub":
        shutdown.when_idle(activity, service.config.limits.idle_stop_s)
    async with serving_pods(PodsOnly(activity), service.config.listen.pods_address):
        await serve_app(activity, bound, runtime, readiness, shutdown.wait())
    await artifacts.close()
    if proxy is not None:
        await proxy.close()
    for task in tasks:
        task.cancel()
    if isinstance(authenticator, HubAuthenticator):
        await authenticator.close()


async def _shut_down_when_deposed(service: Service, shutdown: Shutdown) -> None:
    await service.deposed.wait()
    shutdown.at_once("another process leads")
