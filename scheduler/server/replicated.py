"""Runs this process as one of several control planes on one Postgres: see `replica` for who leads."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp

from tuttilab.scheduler.api import create_app
from tuttilab.scheduler.api.artifacts.process import ArtifactProcess
from tuttilab.scheduler.api.artifacts.routes import blobs_of, commit_artifact
from tuttilab.scheduler.api.artifacts.uploads import sweep_periodically
from tuttilab.scheduler.api.middleware import AccessMiddleware, PodsOnly
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.identity.auth import Authenticator, HubAuthenticator, LocalAuthenticator, hub_settings
from tuttilab.scheduler.identity.hub_reconciliation import keep_hub_reconciled
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.discovery import Runtime
from tuttilab.scheduler.runtime.processes import user_name
from tuttilab.scheduler.server.clusters import build_clusters, has_local_cluster, newest_fenced_epoch
from tuttilab.scheduler.server.config_reload import reloader, with_current_queues
from tuttilab.scheduler.server.deadline import end_within
from tuttilab.scheduler.server.listener import serve_app, serving_pods, unpublish
from tuttilab.scheduler.server.nightly import proposer, tune_nightly
from tuttilab.scheduler.server.readiness import ReadinessPipe
from tuttilab.scheduler.server.replica import MayAct, Replica
from tuttilab.scheduler.service.launch_plans import Secrets
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.spark.proxy.process import proxy_of
from tuttilab.scheduler.store.leadership import Candidate
from tuttilab.scheduler.store.sql import SqlStore

LEADER_WAIT_S: Final = 20
"""How long a starting replica waits for a leader before it reports that it is ready; later callers get 503 and retry."""

log = logging.getLogger(__name__)


async def run_replica(
    bound: socket.socket, runtime: Runtime, config: Config, environ: Mapping[str, str], readiness: ReadinessPipe
) -> None:
    """Leads or follows until SIGTERM; a replica does not end by itself."""
    state = Path(runtime.state_dir)
    keys = Secrets.of(config.auth.key_file, state)
    # Derived from the shared key, so that each replica accepts the same token.
    runtime = replace(runtime, token=keys.user_token())
    operator = LocalAuthenticator(runtime.token, user_name())
    authenticator: Authenticator = operator
    beside: list[Callable[[Service], Coroutine[None, None, None]]] = []
    if config.auth.kind == "hub":
        hub = hub_settings(config.auth, environ)
        authenticator = HubAuthenticator(hub, operator)
        beside.append(partial(keep_hub_reconciled, hub=hub, http=authenticator.http))
    if runtime.config:
        beside.append(partial(tune_nightly, propose=proposer(runtime, environ)))
    is_alone = config.store.alone or has_local_cluster(config)
    shared = f"{keys.digest()} {socket.gethostname()} {state}" if is_alone else keys.digest()
    discovery.write_private(discovery.url_file(state), json.dumps({"url": runtime.url}))

    def service_of(store: SqlStore, may_act: MayAct) -> Service:
        # The file may have changed while another replica led.
        current = with_current_queues(config, runtime, environ)
        service = Service(current, store, build_clusters(config, state, environ, store), state_dir=state, may_act=may_act)
        service.addresses = replace(service.addresses, report_url=runtime.url)
        return service

    blobs = blobs_of(config)
    artifacts = ArtifactProcess(blobs, config.listen.host, config.limits.ticket_s)
    proxy = proxy_of(config.spark.proxy, state, runtime.url, keys.proxy_token())

    async def while_leading(service: Service) -> None:
        await asyncio.gather(*(one(service) for one in beside))

    def app_of(service: Service) -> ASGIApp:
        artifacts.set_committer(partial(commit_artifact, service))
        return create_app(
            service, authenticator, reload=reloader(service, runtime, environ), artifacts=artifacts, spark_proxy=proxy
        )

    replica = Replica(
        config.store.url,
        Candidate(runtime.url, hashlib.sha256(shared.encode()).hexdigest(), above=await newest_fenced_epoch(config, state)),
        service_of,
        app_of,
        lambda forward: AccessMiddleware(forward, authenticator, config.host_names),
        ended_epoch=discovery.ended_epoch(state),
        note_leading=partial(discovery.note_leading, state),
        while_leading=while_leading,
    )
    signalled = asyncio.Event()

    def end() -> None:
        signalled.set()
        end_within()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    running = asyncio.create_task(replica.run())
    has_leader = asyncio.create_task(replica.has_leader.wait())
    ended = asyncio.create_task(signalled.wait())
    sweeping = asyncio.create_task(sweep_periodically(blobs))
    try:
        await asyncio.wait({running, has_leader, ended}, timeout=LEADER_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        until = asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
        async with serving_pods(PodsOnly(replica), config.listen.pods_address):
            await serve_app(replica, bound, runtime, readiness, until)
        if running.done():
            await running
    finally:
        unpublish(runtime)
        for task in (running, has_leader, ended, sweeping):
            task.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await artifacts.close()
        if proxy is not None:
            await proxy.close()
        if isinstance(authenticator, HubAuthenticator):
            await authenticator.close()
        log.info("ended; live jobs go on by themselves")
