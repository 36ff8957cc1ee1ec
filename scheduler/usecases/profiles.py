"""Profiles of notebook servers: an admin applies and deletes them, users see those that they are offered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tuttilab.scheduler.core.profiles import check as check_profile
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.model import Profile
from tuttilab.scheduler.domain.requests import ProfileRequest, Who
from tuttilab.scheduler.domain.wire import from_json, to_json
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn


class Profiles:
    """Methods that change something return after the commit. All raise the errors of `domain.errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def visible_to(self, who: Who) -> Iterator[ProfileRequest]:
        """Profiles by name: all of them for an admin, for others those that they are offered."""
        for _, profile in sorted(stored_profiles(self._service.state).items()):
            is_offered = not profile.disabled and (not profile.groups or any(who.is_in(group) for group in profile.groups))
            if who.is_admin or is_offered:
                yield profile

    async def apply(self, request: ProfileRequest, who: Who) -> Profile:
        """Store a profile under its name, in place of the one before. Raises UserError for an invalid profile."""
        check_profile(request, self._service.site())
        profile = Profile(request.name, to_json(request).decode(), who.name, self._service.now())

        def run(turn: Turn) -> Profile:
            known = turn.state.profiles.get(request.name)
            if known is None or known.body != profile.body:
                turn.apply(ev.ProfileApplied(profile), request.name)
            return turn.state.profiles[request.name]

        return await self._service.ask(run)

    async def delete(self, name: str, who: Who) -> None:
        """Delete a profile. Servers that were started from it keep running."""

        def run(turn: Turn) -> None:
            if name not in turn.state.profiles:
                raise NotFound(f"There is no profile {name!r}; `tuttilab profile list` shows what there is.")
            turn.apply(ev.ProfileDeleted(name, who.name), name)

        await self._service.ask(run)


def stored_profiles(state: State) -> Mapping[str, ProfileRequest]:
    return {name: parse_profile(profile) for name, profile in state.profiles.items()}


def parse_profile(profile: Profile) -> ProfileRequest:
    """The request that a stored profile was applied with."""
    return from_json(ProfileRequest, profile.body)
