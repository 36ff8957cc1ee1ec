"""Tunes the decision rule on the site's own past at the times that the configuration names, within the bounds that it sets.

The replays run in a process of their own at low priority. Only the leader runs this. A time that passed while no control plane led
is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from tuttilab.scheduler.core.rows.tuning import tuning_of, values_of
from tuttilab.scheduler.domain.errors import TuttiError, Unavailable
from tuttilab.scheduler.domain.wire import from_json
from tuttilab.scheduler.runtime.discovery import Runtime
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.simulation.tune import Proposal, is_within, show_values
from tuttilab.scheduler.usecases.policy import LONGEST_WHY, tune

AUTHOR: Final = "nightly tuning"
CHECK_S: Final = 20.0
"""Longest time between two looks at the clock and at the configuration."""
NICE: Final = "15"
LATE_S: Final = 60.0
"""What a run may take beyond its limit before it is ended."""
LARGEST_ANSWER: Final = 16 * 2**20

log = logging.getLogger(__name__)

Propose = Callable[[Service], Awaitable[Proposal]]
Sleep = Callable[[float], Awaitable[None]]


async def tune_nightly(service: Service, propose: Propose, sleep: Sleep = asyncio.sleep) -> None:
    """Until cancelled. A run that fails is logged, and the next one comes at its time."""
    while True:
        every = service.config.tune.every
        if every is None:
            await sleep(CHECK_S)
            continue
        due = every.next_after(service.now())
        while service.config.tune.every == every and (left := due - service.now()) > 0:
            await sleep(min(left, CHECK_S))
        if service.config.tune.every != every:
            continue
        try:
            log.info("nightly tuning: %s", await tune_once(service, propose))
        except TuttiError as error:
            log.warning("nightly tuning changed nothing: %s", error)
        except Exception:
            log.exception("nightly tuning changed nothing")


async def tune_once(service: Service, propose: Propose) -> str:
    """Run it and set what it proposes, if the bounds allow it. Returns what came of it, in one sentence."""
    found = await propose(service)
    if found.values is None:
        return found.text
    now = tuple(sorted(values_of(tuning_of(service.state.queues.values())).items()))
    if now != found.now:
        return "somebody set other parameters meanwhile, so what was found is not set"
    if not is_within(found.values, now, service.config.tune.bounds):
        return f"{show_values(found.values)} is outside of tune.bounds and is not set"
    view = await tune(service, dict(found.values), AUTHOR, found.text[:LONGEST_WHY])
    return f"in force is {view.text}, as {found.text}"


def proposer(runtime: Runtime, environ: Mapping[str, str]) -> Propose:
    """Runs `tuttilab scheduler tune` on the configuration of this control plane."""

    async def propose(service: Service) -> Proposal:
        words = ("-m", "tuttilab.scheduler.cli", "scheduler", "tune", "--json", "--config", runtime.config)
        process = await asyncio.create_subprocess_exec(
            *("nice", "-n", NICE, sys.executable, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environ, "TUTTILAB_STATE_DIR": runtime.state_dir},
            limit=LARGEST_ANSWER,
        )
        limit_s = service.config.tune.limit_s + LATE_S
        try:
            async with asyncio.timeout(limit_s):
                out, said = await process.communicate()
        except TimeoutError:
            raise Unavailable(
                f"The replays did not end in {limit_s:g} s and were ended; lower tune.days or raise tune.limit."
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            last = said.decode(errors="replace").strip().splitlines()
            raise Unavailable(f"The replays failed: {last[-1] if last else f'exit code {process.returncode}'}")
        return from_json(Proposal, out)

    return propose
