"""Probes, metrics, the caller's identity; reload of the configuration and shutdown of a local control plane."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from tuttilab.scheduler import __version__
from tuttilab.scheduler.api.dependencies import Caller, ServiceDep, json_response, parse_body
from tuttilab.scheduler.api.schema import ReloadRequest, ShutdownRequest, TuneRequest, takes
from tuttilab.scheduler.api.views import shown_phase
from tuttilab.scheduler.core.rows.tuning import tuning_of
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import Conflict, Forbidden
from tuttilab.scheduler.runtime.writable import Folders
from tuttilab.scheduler.spark.proxy.process import SparkProxy
from tuttilab.scheduler.usecases.policy import tune, view_of

probes = APIRouter(tags=["health"])
router = APIRouter(tags=["health"])

Sample = tuple[Mapping[str, str], float]


@probes.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> Response:
    """The process answers. Needs no token, so it reveals nothing else."""
    return PlainTextResponse("ok\n")


@probes.get("/readyz", response_class=PlainTextResponse)
async def readyz(request: Request, service: ServiceDep) -> Response:
    """Ready to serve requests: the database answers, and its folders can be written to. 5xx when not."""
    await service.store.changes(service.last_seq, 1)
    await asyncio.to_thread(cast(Folders, request.app.state.folders).check)
    return PlainTextResponse("ready\n")


@router.get("/me", response_model=wire.IdentityView)
async def me(who: Caller) -> Response:
    """The caller's identity, from the token."""
    return json_response(wire.IdentityView(name=who.name, groups=who.groups, admin=who.is_admin, version=__version__))


@router.post("/shutdown", status_code=202, response_model=wire.IdentityView, openapi_extra=takes(ShutdownRequest))
async def shutdown(request: Request, who: Caller) -> Response:
    """End a local control plane as soon as no job is live; with ``now`` every job is cancelled first."""
    shut_down = cast(Callable[[bool], None] | None, request.app.state.shut_down)
    if not (who.is_admin and who.in_every_group):
        raise Forbidden("shutdown: only the user who started a local control plane ends it; its token is in the state folder.")
    if shut_down is None:
        raise Conflict("shutdown: this control plane was not started as a local one; end its process as it was started.")
    shut_down((await parse_body(request, ShutdownRequest, "shutdown")).now)
    return json_response(wire.IdentityView(name=who.name, groups=who.groups, admin=who.is_admin, version=__version__), status=202)


@router.post("/reload", response_model=wire.ReloadView, openapi_extra=takes(ReloadRequest))
async def reload(request: Request, who: Caller) -> Response:
    """Read queues, defaults, storages, sidecars, policy and tune of the configuration file again.

    409, and nothing changed, when more than these differs, and when a limit is loosened that the body does not accept.
    """
    reload_config = cast(Callable[[bool, tuple[str, ...], str], Awaitable[wire.ReloadView]] | None, request.app.state.reload)
    if not (who.is_admin and who.in_every_group):
        raise Forbidden("reload: only the user who runs the control plane does this; its token is in the state folder.")
    if reload_config is None:
        raise Conflict(
            "reload: this control plane has the built-in configuration; start it with --config to have one that can change."
        )
    wanted = await parse_body(request, ReloadRequest, "reload")
    return json_response(await reload_config(wanted.dry_run, wanted.accept, who.name))


@router.get("/policy", response_model=wire.PolicyView)
async def policy(service: ServiceDep, who: Caller) -> Response:
    """Which parameters of the decision rule are in force, since when, by whom and why."""
    return json_response(view_of(tuning_of(service.state.queues.values())))


@router.post("/policy", response_model=wire.PolicyView, openapi_extra=takes(TuneRequest))
async def set_policy(request: Request, service: ServiceDep, who: Caller) -> Response:
    """Set parameters of the decision rule from the next cycle on. 409 for one that the configuration fixes."""
    if not (who.is_admin and who.in_every_group):
        raise Forbidden("policy: only the user who runs the control plane does this; its token is in the state folder.")
    wanted = await parse_body(request, TuneRequest, "policy")
    return json_response(await tune(service, wanted.values, who.name, wanted.why))


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, service: ServiceDep, who: Caller) -> Response:
    """Gauges in the text format of Prometheus, and what the control plane's own Spark proxy counts."""
    text = "".join(line + "\n" for line in gauges(service.state, service.last_seq))
    proxy = cast(SparkProxy | None, request.app.state.spark_proxy)
    text += proxy.metrics() if proxy is not None else ""
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def gauges(state: State, last_seq: int) -> Iterator[str]:
    phases: Counter[str] = Counter()
    for job in state.jobs.values():
        attempt = state.live_attempt(job.id)
        if not job.phase.is_terminal:
            phases[shown_phase(job, [attempt] if attempt else [])] += 1
    ledger = state.ledger()
    waits = Counter((state.jobs[one].queue, state.waits.why_of(one).value) for one in state.waits if one in state.jobs)
    queues = state.queues.values()
    limits = (({"queue": queue.name, "resource": key}, amount) for queue in queues for key, amount in queue.max)
    use = (({"queue": name, "resource": key}, amount) for name, used in ledger.use.items() for key, amount in used)
    reachable = (({"cluster": c.name}, float(c.unreachable_since is None)) for c in state.clusters.values())
    yield from _gauge("tuttilab_jobs", "Live jobs by phase.", (({"phase": p}, n) for p, n in sorted(phases.items())))
    yield from _gauge(
        "tuttilab_waiting",
        "Waiting jobs by queue and reason.",
        (({"queue": q, "why": w}, n) for (q, w), n in sorted(waits.items())),
    )
    yield from _gauge("tuttilab_queue_used", "Held by the queue and below (cpu: milli-cores, memory: bytes).", use)
    yield from _gauge("tuttilab_queue_max", "What the queue may hold at most, in the same units.", limits)
    yield from _gauge("tuttilab_cluster_reachable", "1 when the cluster answers.", reachable)
    yield from _gauge("tuttilab_journal_seq", "Number of the newest journal line.", [({}, last_seq)])


def _gauge(name: str, help_text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{pairs}}} {value:.17g}" if pairs else f"{name} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
