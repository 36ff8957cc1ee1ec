"""What the hub asks about its notebook servers, and an admin about their profiles."""

from __future__ import annotations

from tuttilab.scheduler import events as ev
from tuttilab.scheduler import notebooks
from tuttilab.scheduler.core.profiles import check as check_profile
from tuttilab.scheduler.errors import NotFound
from tuttilab.scheduler.model import Job, JobKind, Profile
from tuttilab.scheduler.requests import NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.wire import to_json


class Servers:
    """Methods that change something return after the commit; all raise the errors of `errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def start(self, asked: NotebookRequest) -> Job:
        """Put a server of the hub into the ledger, before its pod exists. Raises Forbidden, BadInput, AboveMax, NeverFits."""

        def run(turn: Turn) -> Job:
            order = self._service.order + 1
            job, _ = notebooks.build_server(
                asked, turn.state, self._service.site(), job_id=self._service.new_id(), order=order, now=turn.now
            )
            placed = notebooks.place(turn, job)
            self._service.order = max(self._service.order, placed.order)
            self._service.heard.note(placed.id, turn.now)
            return placed

        return await self._service.ask(run)

    async def renew(self, job_id: str, said: RenewRequest) -> Job:
        """The hub says how the server is. Raises NotFound for what is no server."""
        job = self._service.state.jobs.get(job_id) or await self._service.store.job(job_id)
        if job is None or job.kind is not JobKind.NOTEBOOK:
            raise NotFound(f"There is no notebook server {job_id!r}; expected the id that its submit answered.")
        self._service.heard.note(job_id, self._service.now())
        if notebooks.has_news(self._service.state, job, said):
            await self._service.ask(lambda turn: notebooks.apply_news(turn, turn.state.jobs[job_id], said))
        return self._service.state.jobs.get(job_id, job)

    async def active(self, job_id: str, who: Who) -> None:
        """The server says that one of its cells runs; in memory alone, as other signs of life. Raises NotFound.

        Its own user's word is enough: who says so of a server without a cell gains what an endless cell would give.
        """

        def run(turn: Turn) -> None:
            job, attempt = turn.state.jobs.get(job_id), turn.state.live_attempt(job_id)
            is_mine = job is not None and job.kind is JobKind.NOTEBOOK and (who.name == job.owner or who.is_admin)
            if not is_mine or attempt is None:
                raise NotFound(f"{who.name} has no notebook server {job_id!r} that starts or runs.")
            turn.state.handle(ev.NotebookActive(job_id, attempt.number), turn.now)

        await self._service.ask(run)

    def silent(self, for_s: float) -> list[Job]:
        """Those that run and that the hub has not spoken of for so long."""
        return self._service.heard.silent(self._service.state, self._service.now() - for_s)

    def expires_at(self, job_id: str) -> float | None:
        return self._service.heard.deadline(job_id, self._service.state.live_attempt(job_id))

    async def apply_profile(self, request: ProfileRequest, who: Who) -> Profile:
        """Keep a profile by its name, in place of the one before. Raises what is wrong with it."""
        check_profile(request, self._service.site())
        profile = Profile(request.name, to_json(request).decode(), who.name, self._service.now())

        def run(turn: Turn) -> Profile:
            known = turn.state.profiles.get(request.name)
            if known is None or known.body != profile.body:
                turn.apply(ev.ProfileApplied(profile), request.name)
            return turn.state.profiles[request.name]

        return await self._service.ask(run)

    async def delete_profile(self, name: str) -> None:
        """Servers that were started with it go on."""

        def run(turn: Turn) -> None:
            if name not in turn.state.profiles:
                raise NotFound(f"There is no profile {name!r}; `tuttilab profile list` shows what there is.")
            turn.apply(ev.ProfileDeleted(name), name)

        await self._service.ask(run)
