"""A launch that was decided before a stop was makes nothing any more."""

from types import SimpleNamespace
from typing import cast

from tests.unit.core.test_growth import grown, live
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn


def test_nothing_is_planned_for_an_attempt_that_is_to_stop() -> None:
    state, gang = grown()
    state.handle(ev.JobCancelRequested(gang.id, "ann"), 11.0)
    assert live(state, gang).stopping_at is not None

    # It looks at the state first, and needs nothing else of a service then.
    assert Service.plan(cast(Service, None), cast(Turn, SimpleNamespace(state=state)), gang.id, 1) is None
