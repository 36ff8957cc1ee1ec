"""What users ask about graphs of jobs: keep one, run it, look at a run, cancel it, retry it."""

from __future__ import annotations

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.dag import to_retry
from tuttilab.scheduler.dags import build_run, check, retry_jobs
from tuttilab.scheduler.errors import Conflict, NotFound
from tuttilab.scheduler.jobs import SHORTEST_PREFIX
from tuttilab.scheduler.model import Dag, Run, RunPhase
from tuttilab.scheduler.repeats import Repeats, digest
from tuttilab.scheduler.requests import DagRequest, RunRequest, Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.wire import from_json, to_json


class Graphs:
    """Methods that change something return after the commit; all raise the errors of `errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def run(self, request: RunRequest, who: Who, key: str | None = None) -> Run:
        """Accept a run: every node's job is checked, then all of it is committed at once. The same key gives the same run."""
        repeats = await Repeats.among(self._service, who, [key] if key is not None else ())
        earlier = {run_id: await self._service.store.run(run_id) for run_id in repeats.made_ids}
        asked = digest(b"run " + to_json(request))

        def run(turn: Turn) -> Run:
            before = repeats.of(turn, key, asked)
            if before is not None:
                known = turn.state.runs.get(before.made_id) or earlier.get(before.made_id)
                if known is None:
                    raise NotFound(f"Run {before.made_id}, started under this key, is not kept any more.")
                return known
            now, order, new_id = turn.now, self._service.order + 1, self._service.new_id
            fresh = build_run(
                request.dag if request.dag is not None else self._applied(request.name, who),
                request.variables,
                who,
                self._service.site(),
                run_id=new_id(),
                new_id=new_id,
                order=order,
                now=now,
            )
            self._service.order += len(fresh.nodes)
            turn.apply(ev.RunSubmitted(fresh), fresh.id)
            repeats.first(key, asked, fresh.id)
            turn.keys |= repeats.fresh
            return turn.state.runs[fresh.id]

        return await self._service.ask(run)

    def _applied(self, name: str | None, who: Who) -> DagRequest:
        known = self._service.state.dags.get(name or "")
        if known is None or (known.owner != who.name and not who.is_admin):
            raise NotFound(f"There is no DAG {name!r}; apply one with `tuttilab dag apply FILE` or run a file.")
        return from_json(DagRequest, known.body)

    async def apply(self, request: DagRequest, who: Who) -> Dag:
        """Keep a DAG by its name: a new version when it changed, the known one when not."""
        check(request)
        body = to_json(request).decode()

        def run(turn: Turn) -> Dag:
            known = turn.state.dags.get(request.name)
            if known is not None and known.owner != who.name and not who.is_admin:
                raise Conflict(f"The DAG {request.name!r} belongs to somebody else; choose another name.")
            if known is None or known.body != body:
                version = known.version + 1 if known is not None else 1
                owner = known.owner if known is not None else who.name
                turn.apply(ev.DagApplied(Dag(request.name, version, owner, body, turn.now)), request.name)
            return turn.state.dags[request.name]

        return await self._service.ask(run)

    async def find(self, prefix_or_id: str, who: Who) -> Run:
        """A run by its id or a unique prefix of it. Another owner's is not found, except by an admin."""
        run = self._service.state.runs.get(prefix_or_id) or await self._service.store.run(prefix_or_id)
        if run is None and len(prefix_or_id) >= SHORTEST_PREFIX:
            known = await self._service.store.runs(None if who.is_admin else who.name, 1000)
            found = [
                one for one in {**{r.id: r for r in known}, **self._service.state.runs}.values() if one.id.startswith(prefix_or_id)
            ]
            run = found[0] if len(found) == 1 else None
        if run is None or (run.owner != who.name and not who.is_admin):
            raise NotFound(f"There is no run {prefix_or_id!r}; `tuttilab dag runs` lists yours.")
        return self._service.state.runs.get(run.id, run)

    async def cancel(self, run_id: str, who: Who) -> Run:
        def run(turn: Turn) -> Run | None:
            known = turn.state.runs.get(run_id)
            if known is not None and known.phase is RunPhase.RUNNING and not known.cancel_requested:
                turn.apply(ev.RunCancelRequested(run_id, who.name), run_id)
            return turn.state.runs.get(run_id)

        return await self._service.ask(run) or await self.find(run_id, who)

    async def retry(self, run_id: str, who: Who, key: str | None = None) -> Run:
        """Start over the nodes that did not end well and what is below them; what succeeded stays. Raises Conflict.

        Under a key that was used for that nothing is started over again, however the run is by now.
        """
        found = await self.find(run_id, who)
        repeats = await Repeats.among(self._service, who, [key] if key is not None else ())
        asked = digest(b"retry run " + found.id.encode())

        def run(turn: Turn) -> Run:
            old = turn.state.runs.get(found.id, found)
            if repeats.of(turn, key, asked) is not None:
                return old
            if old.phase is RunPhase.RUNNING:
                raise Conflict(f"Run {old.id} is still running; wait for its end or cancel it before you retry it.")
            if not to_retry(old):
                raise Conflict(f"Run {old.id} succeeded; there is nothing to retry.")
            turn.state.adopt_run(old)
            jobs = retry_jobs(old, self._service.new_id, self._service.order + 1, turn.now)
            self._service.order += len(jobs)
            turn.apply(ev.RunRetried(old.id, jobs), old.id)
            repeats.first(key, asked, old.id)
            turn.keys |= repeats.fresh
            return turn.state.runs[old.id]

        return await self._service.ask(run)
