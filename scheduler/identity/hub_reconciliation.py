"""Reconciles notebook servers with the hub: a server that the hub has not renewed for long and does not know any more is ended.

A hub reports the end of its servers itself and retries until the report is accepted. It cannot report the end of a server that it
has no record of, because it was killed at the wrong moment or lost its database. A hub that does not answer ends no server.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import quote

from tuttilab.scheduler.core.kinds.notebook import SERVER_LABEL
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.model import Job
from tuttilab.scheduler.domain.requests import RenewRequest
from tuttilab.scheduler.identity.auth import HubSettings
from tuttilab.scheduler.runtime.http_library import httpx
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.usecases.notebooks import Notebooks

SILENT_S: Final = 300.0
"""A hub renews each server whenever it polls it, every half minute unless its site changed that."""
INTERVAL_S: Final = 60.0
ENDED: Final = RenewRequest(phase="ended", reason="the hub has no such server any more")

log = logging.getLogger(__name__)


async def keep_hub_reconciled(service: Service, hub: HubSettings, http: httpx.AsyncClient) -> None:
    """Reconcile every `INTERVAL_S` until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            await reconcile_with_hub(service, hub, http)
        except (httpx.HTTPError, ValueError, TuttiError) as error:
            log.warning("the notebook servers could not be compared with the hub's, the next try comes soon: %s", error)


async def reconcile_with_hub(service: Service, hub: HubSettings, http: httpx.AsyncClient) -> None:
    for job in Notebooks(service).silent(SILENT_S):
        if await is_unknown_to_hub(job, hub, http):
            log.warning("server %s of %s ended: the hub has no such server", job.id, job.owner)
            await Notebooks(service).renew(job.id, ENDED)


async def is_unknown_to_hub(job: Job, hub: HubSettings, http: httpx.AsyncClient) -> bool:
    """Whether the hub answers that it has no such server. Raises httpx.HTTPError for an error and when it does not answer."""
    response = await http.get(f"{hub.url}/users/{quote(job.owner, safe='')}", headers={"Authorization": f"token {hub.token}"})
    if response.status_code == httpx.codes.NOT_FOUND:
        # A token that may not list users gets 404 for each of them.
        return await _may_see_users(hub, http)
    servers = response.raise_for_status().json().get("servers")
    return isinstance(servers, dict) and job.labels.get(SERVER_LABEL, "") not in servers


async def _may_see_users(hub: HubSettings, http: httpx.AsyncClient) -> bool:
    response = await http.get(f"{hub.url}/users?limit=1", headers={"Authorization": f"token {hub.token}"})
    return bool(response.is_success)
