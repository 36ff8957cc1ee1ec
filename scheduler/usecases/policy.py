"""The parameters of the decision rule that are in force, and setting them while the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.core.rows.tuning import checked, describe, tuning_of, values_of
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput, Conflict
from tuttilab.scheduler.domain.model import Tuning
from tuttilab.scheduler.domain.wire import PolicyView

if TYPE_CHECKING:
    from tuttilab.scheduler.service.loop import Service
    from tuttilab.scheduler.service.turn import Turn

LONGEST_WHY: Final = 400
"""Characters."""


def view_of(tuning: Tuning | None) -> PolicyView:
    if tuning is None:
        return PolicyView(text="the built-in rule")
    return PolicyView(
        text=describe(tuning) or "the built-in rule",
        values=values_of(tuning),
        fixed=dict(tuning.fixed),
        since=tuning.since,
        by=tuning.by,
        why=tuning.why,
    )


async def tune(service: Service, values: Mapping[str, object], by: str, why: str = "") -> PolicyView:
    """Set these parameters in place of what was set before; none: the built-in rule.

    Raises, and changes nothing: BadInput for an unknown parameter or value, Conflict for one that the configuration fixes.
    """
    wanted = checked(values, "values")
    if len(why) > LONGEST_WHY or not why.isprintable():
        raise BadInput(f"why: it has {len(why)} characters; expected {LONGEST_WHY} printable ones at most.")

    def apply(turn: Turn) -> PolicyView:
        before = tuning_of(turn.state.queues.values())
        fixed = dict(before.fixed) if before else {}
        others = [name for name, value in wanted if name in fixed and fixed[name] != value]
        if others:
            raise Conflict(
                f"values.{others[0]}: the configuration says policy.{others[0]} {fixed[others[0]]}, which holds whatever is tuned; "
                "take it out there and reload, or leave it. Nothing was changed."
            )
        free = tuple((name, value) for name, value in wanted if name not in fixed)
        if free != (before.tuned if before else ()):
            turn.apply(ev.PolicyTuned(free, by, why), "policy")
        return view_of(tuning_of(turn.state.queues.values()))

    return await service.ask(apply)
