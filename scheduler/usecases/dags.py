"""Requests about DAGs and runs: store a DAG, run it, find, cancel and retry a run."""

from __future__ import annotations

from tuttilab.scheduler.core.dag import to_retry
from tuttilab.scheduler.core.kinds import check_sizes
from tuttilab.scheduler.core.kinds.proxy_users import check_listed, check_proxy_user
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import Conflict, NotFound, UserError
from tuttilab.scheduler.domain.model import Dag, Run, RunPhase
from tuttilab.scheduler.domain.requests import DagRequest, RunRequest, Who
from tuttilab.scheduler.domain.titles import title, title_of
from tuttilab.scheduler.domain.wire import from_json, to_json
from tuttilab.scheduler.domain.words import word
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.usecases.artifacts import ReadableArtifacts, readable
from tuttilab.scheduler.usecases.caps import check_caps
from tuttilab.scheduler.usecases.dag_build import artifacts_of, build_run, check_dag, retry_jobs, with_node_name
from tuttilab.scheduler.usecases.idempotency import IdempotencyKeys, digest
from tuttilab.scheduler.usecases.lookup import LAST, MOST_NAMED, SHORTEST_PREFIX, Candidate, the_one


class Dags:
    """Methods that change something return after the commit. All raise the errors of `domain.errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def run(self, request: RunRequest, who: Who, key: str | None = None) -> Run:
        """Start a run: all jobs are checked, then committed at once. The same idempotency key gives the same run."""
        idempotency_keys = await IdempotencyKeys.load(self._service, who, [key] if key is not None else ())
        earlier = {run_id: await self._service.store.run(run_id) for run_id in idempotency_keys.made_ids}
        asked = digest(b"run " + to_json(request))
        artifacts = ReadableArtifacts(await readable(self._service, self._artifacts_of(request, who), who))

        def run(turn: Turn) -> Run:
            before = idempotency_keys.find(turn, key, asked)
            if before is not None:
                known = turn.state.runs.get(before.made_id) or earlier.get(before.made_id)
                if known is None:
                    raise NotFound(
                        f"Run {title_of(before.made_id)}, started under this key, is not kept any more; start it under another key."
                    )
                return known
            now, order, new_id = turn.now, self._service.last_order + 1, self._service.new_id
            fresh = build_run(
                request.dag if request.dag is not None else self.definition(request.name, who),
                request.variables,
                who,
                self._service.site(),
                run_id=new_id(),
                new_id=new_id,
                order=order,
                now=now,
                artifacts=artifacts,
                inherited=request.inherited,
            )
            check_caps(turn.state, self._service.config.limits, fresh.owner, len(fresh.nodes))
            self._service.last_order += len(fresh.nodes)
            turn.apply(ev.RunSubmitted(fresh), fresh.id)
            idempotency_keys.record(key, asked, fresh.id)
            turn.keys |= idempotency_keys.fresh
            return turn.state.runs[fresh.id]

        return await self._service.ask(run)

    def _artifacts_of(self, request: RunRequest, who: Who) -> set[str]:
        """None for a request that cannot be run: the turn tells why, or finds the run that was made under the same key."""
        try:
            return artifacts_of(request.dag if request.dag is not None else self.definition(request.name, who), request.variables)
        except UserError:
            return set()

    def definition(self, name: str | None, who: Who) -> DagRequest:
        """The newest version of an applied DAG, as it was applied. Raises NotFound, for another's too."""
        known = self._service.state.dags.get(name or "")
        if known is None or (known.owner != who.name and not who.is_admin):
            raise NotFound(f"There is no DAG {name!r}; apply one with `tuttilab dag apply FILE` or run a file.")
        return from_json(DagRequest, known.body)

    async def apply(self, request: DagRequest, who: Who) -> Dag:
        """Store a DAG under its name. Returns a new version when it changed, else the current one."""
        check_dag(request)
        body = to_json(request).decode()

        def run(turn: Turn) -> Dag:
            known = turn.state.dags.get(request.name)
            if known is not None and known.owner != who.name and not who.is_admin:
                raise Conflict(f"The DAG {request.name!r} belongs to somebody else; choose another name.")
            if known is None or known.body != body:
                version = known.version + 1 if known is not None else 1
                owner = known.owner if known is not None else who.name
                turn.apply(ev.DagApplied(Dag(request.name, version, owner, body, turn.now), who.name), request.name)
            return turn.state.dags[request.name]

        return await self._service.ask(run)

    async def find(self, text: str, who: Who) -> Run:
        """A run by its id, the beginning of it, its DAG's name, or ``last``. Only admins find others', and by id.

        Raises NotFound, with the candidates where there are several.
        """
        run = self._service.state.runs.get(text) or await self._service.store.run(text)
        if run is None:
            run = await self._look_up(text, who)
        if run is None or (run.owner != who.name and not who.is_admin):
            raise NotFound(f"There is no run {text[:80]!r}; `tuttilab dag runs` lists yours.")
        return self._service.state.runs.get(run.id, run)

    async def _look_up(self, text: str, who: Who) -> Run | None:
        stored = await self._service.store.runs(None if who.is_admin else who.name, MOST_NAMED)
        known = {**{run.id: run for run in stored}, **self._service.state.runs}
        found = [run for run in known.values() if len(text) >= SHORTEST_PREFIX and run.id.startswith(text)]
        if len(found) != 1:
            found += [run for run in known.values() if run.name == text and run.owner == who.name]
        if not found and text == LAST:
            mine = [run for run in known.values() if run.owner == who.name]
            return max(mine, key=lambda run: run.created_at, default=None)
        by_id = {run.id: run for run in found}
        candidates = [
            Candidate(run.id, run.name, word(run.phase), run.created_at, run.phase is RunPhase.RUNNING) for run in by_id.values()
        ]
        chosen = the_one(text, "run", candidates, self._service.now())
        return None if chosen is None else by_id[chosen]

    async def cancel(self, run_id: str, who: Who) -> Run:
        def run(turn: Turn) -> Run | None:
            known = turn.state.runs.get(run_id)
            if known is not None and known.phase is RunPhase.RUNNING and not known.cancel_requested:
                turn.apply(ev.RunCancelRequested(run_id, who.name), run_id)
            return turn.state.runs.get(run_id)

        return await self._service.ask(run) or await self.find(run_id, who)

    async def retry(self, run_id: str, who: Who, key: str | None = None) -> Run:
        """Run the nodes that did not succeed again, and their successors. Raises Conflict.

        Under an idempotency key that was used before, nothing is retried; the run is returned as it is now.
        """
        found = await self.find(run_id, who)
        idempotency_keys = await IdempotencyKeys.load(self._service, who, [key] if key is not None else ())
        asked = digest(b"retry run " + found.id.encode())

        def run(turn: Turn) -> Run:
            old = turn.state.runs.get(found.id, found)
            if idempotency_keys.find(turn, key, asked) is not None:
                return old
            if old.phase is RunPhase.RUNNING:
                raise Conflict(f"Run {title(old)} is still running; wait for its end or cancel it before you retry it.")
            if not to_retry(old):
                raise Conflict(f"Run {title(old)} succeeded; there is nothing to retry.")
            turn.state.reload_run(old)
            jobs = retry_jobs(old, self._service.new_id, self._service.last_order + 1, turn.now)
            for name, job in jobs.items():
                with_node_name(name, check_sizes, job, self._service.site())
                if who.name == job.owner:
                    with_node_name(name, check_proxy_user, job, who, self._service.site().proxy_users)
                with_node_name(name, check_listed, job, self._service.site().proxy_users)
            check_caps(turn.state, self._service.config.limits, old.owner, len(jobs))
            self._service.last_order += len(jobs)
            turn.apply(ev.RunRetried(old.id, jobs, who.name), old.id)
            idempotency_keys.record(key, asked, old.id)
            turn.keys |= idempotency_keys.fresh
            return turn.state.runs[old.id]

        return await self._service.ask(run)
