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
    from tuttilab.scheduler.domain.wire import ReloadView
    from tuttilab.scheduler.service.loop import Service

log = logging.getLogger(__name__)


Reload = Callable[[bool, tuple[str, ...], str], Awaitable["ReloadView"]]
"""What `POST /reload` calls: whether it is a dry run, what is accepted, and who asks."""


def reloader(service: Service, runtime: Runtime, environ: Mapping[str, str]) -> Reload | None:
    """None when there is no configuration file."""
    from tuttilab.scheduler.config.load import load_config
    from tuttilab.scheduler.service.reload import reload

    path, state = Path(runtime.config), Path(runtime.state_dir)

    async def reload_config(dry_run: bool, accept: tuple[str, ...], by: str) -> ReloadView:
        digest = discovery.config_digest(path)
        wanted = await asyncio.to_thread(load_config, path, state, environ)
        view = await reload(service, wanted, dry_run=dry_run, accept=accept, by=by)
        if dry_run:
            return view
        log.info("%s was read again for %s: %s", path, by, "; ".join(view.changes) or "nothing changed")
        for sentence in view.unchecked:
            log.warning("%s", sentence)
        found = discovery.find(state).runtime
        if found is not None and found.process == runtime.process:
            discovery.write_runtime(replace(found, config_digest=digest))
        return view

    return reload_config if runtime.config else None


def with_current_queues(config: Config, runtime: Runtime, environ: Mapping[str, str]) -> Config:
    """``config`` with what a reload takes of its file as that is now; unchanged when the file is invalid or there is none."""
    from tuttilab.scheduler.config.load import load_config
    from tuttilab.scheduler.service.reload import RELOADED

    if not runtime.config:
        return config
    try:
        found = load_config(Path(runtime.config), Path(runtime.state_dir), environ)
    except TuttiError as error:
        log.error("goes on with the queues of its start: %s", error)
        return config
    return replace(config, **{part: getattr(found, part) for part in RELOADED})
