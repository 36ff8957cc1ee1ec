"""Reads the configuration file again, for `tuttilab scheduler reload` and for a replica that becomes the leader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.discovery import Runtime

if TYPE_CHECKING:
    from tuttilab.scheduler.config.model import Config
    from tuttilab.scheduler.service.loop import Service

log = logging.getLogger(__name__)


def reloader(service: Service, runtime: Runtime, environ: Mapping[str, str]) -> Callable[[], Awaitable[tuple[str, ...]]] | None:
    """What `POST /reload` calls; it returns the changes as sentences. None when there is no configuration file."""
    from tuttilab.scheduler.config.load import load_config
    from tuttilab.scheduler.service.reload import reload

    path, state = Path(runtime.config), Path(runtime.state_dir)

    async def reload_config() -> tuple[str, ...]:
        digest = discovery.config_digest(path)
        changes = await reload(service, await asyncio.to_thread(load_config, path, state, environ))
        log.info("%s was read again: %s", path, "; ".join(changes) or "nothing changed")
        found = discovery.find(state).runtime
        if found is not None and found.process == runtime.process:
            discovery.write_runtime(replace(found, config_digest=digest))
        return changes

    return reload_config if runtime.config else None


def with_current_queues(config: Config, runtime: Runtime, environ: Mapping[str, str]) -> Config:
    """``config`` with the queues and defaults that its file has now; unchanged when the file is invalid or there is none."""
    from tuttilab.scheduler.config.load import load_config

    if not runtime.config:
        return config
    try:
        found = load_config(Path(runtime.config), Path(runtime.state_dir), environ)
    except TuttiError as error:
        log.error("goes on with the queues of its start: %s", error)
        return config
    return replace(config, queues=found.queues, defaults=found.defaults)
