"""Servers that run in the ledger and that the hub has not spoken of for long: the hub is asked whether it has them at all.

A hub tells the end of its servers itself, again and again until it is heard. What it cannot tell is the end of a server that it has
forgotten, because it was killed at the wrong moment or lost its database. A hub that does not answer says nothing about a server.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import quote

import httpx

from tuttilab.scheduler.auth import HubSettings
from tuttilab.scheduler.core.kinds.notebook import SERVER_LABEL
from tuttilab.scheduler.errors import TuttiError
from tuttilab.scheduler.model import Job
from tuttilab.scheduler.requests import RenewRequest
from tuttilab.scheduler.servers import Servers
from tuttilab.scheduler.service import Service

SILENT_S: Final = 300.0
"""A hub speaks of each server as often as it polls them, every half minute unless its site changed that."""
LOOK_S: Final = 60.0
GONE: Final = RenewRequest(phase="ended", reason="the hub has no such server any more")

log = logging.getLogger(__name__)


async def look_after(service: Service, hub: HubSettings, http: httpx.AsyncClient) -> None:
    """For as long as the service lives."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            await look_once(service, hub, http)
        except (httpx.HTTPError, ValueError, TuttiError) as error:
            log.warning("the hub was not asked about silent servers, it is asked again: %s", error)


async def look_once(service: Service, hub: HubSettings, http: httpx.AsyncClient) -> None:
    for job in Servers(service).silent(SILENT_S):
        if await is_forgotten(job, hub, http):
            log.warning("server %s of %s ended: the hub has no such server", job.id, job.owner)
            await Servers(service).renew(job.id, GONE)


async def is_forgotten(job: Job, hub: HubSettings, http: httpx.AsyncClient) -> bool:
    """Whether the hub says so in as many words. Raises httpx.HTTPError when it does not answer, or may not tell."""
    response = await http.get(f"{hub.url}/users/{quote(job.owner, safe='')}", headers={"Authorization": f"token {hub.token}"})
    if response.status_code == httpx.codes.NOT_FOUND:
        # A hub that may not show us users says the same of every one.
        return await _may_see_users(hub, http)
    servers = response.raise_for_status().json().get("servers")
    return isinstance(servers, dict) and job.labels.get(SERVER_LABEL, "") not in servers


async def _may_see_users(hub: HubSettings, http: httpx.AsyncClient) -> bool:
    response = await http.get(f"{hub.url}/users?limit=1", headers={"Authorization": f"token {hub.token}"})
    return bool(response.is_success)
