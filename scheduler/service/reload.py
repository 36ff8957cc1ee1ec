"""Reload of queues and defaults while jobs run: the file is checked as a whole and applied as a whole, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.core.ordering.queues import check_tree
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import Conflict
from tuttilab.scheduler.domain.model import Queue
from tuttilab.scheduler.domain.resources import NOTHING

if TYPE_CHECKING:
    from tuttilab.scheduler.config.model import Config
    from tuttilab.scheduler.core.state import State
    from tuttilab.scheduler.service.loop import Service
    from tuttilab.scheduler.service.turn import Turn

RELOADED: Final = ("queues", "defaults")
"""Parts of the configuration that may change while jobs run."""


async def reload(service: Service, wanted: Config) -> tuple[str, ...]:
    """Apply the queues and defaults of ``wanted``; return one sentence per change.

    Raises Conflict, and changes nothing, when another part differs or a removed queue has unended jobs.
    """
    others = [part.name for part in fields(wanted) if part.name not in RELOADED and _differs(part.name, service.config, wanted)]
    if others:
        raise Conflict(
            f"reload: {' and '.join(others)} changed too, and only {' and '.join(RELOADED)} can while jobs run; restart the "
            "control plane (no accepted job is lost), or put them back. Nothing was changed."
        )

    def apply(turn: Turn) -> tuple[str, ...]:
        old = turn.state.queues
        if tuple(old.values()) != wanted.queues:
            _check_removed(turn.state, check_tree(wanted.queues))
            turn.apply(ev.QueuesConfigured(wanted.queues), "queues")
        return tuple(_changes(old, wanted.queues))

    changes = list(await service.ask(apply))
    old, new = service.config.defaults, wanted.defaults
    parts = [part.name for part in fields(new) if getattr(old, part.name) != getattr(new, part.name)]
    changes += [f"defaults: {_change(part, getattr(old, part), getattr(new, part))}" for part in parts]
    service.apply_config(replace(service.config, queues=wanted.queues, defaults=wanted.defaults))
    return tuple(changes)


def _differs(part: str, old: Config, new: Config) -> bool:
    return bool(getattr(old, part) != getattr(new, part))


def _check_removed(state: State, tree: Mapping[str, Queue]) -> None:
    left = Counter(job.queue for job in state.jobs.values() if not job.phase.is_terminal and job.queue not in tree)
    for name, jobs in sorted(left.items()):
        raise Conflict(
            f"reload: queue {name!r} has {jobs} unended {'job' if jobs == 1 else 'jobs'} and would be gone; leave it with a max of "
            "0 until they have ended, or cancel them. Nothing was changed."
        )


def _changes(old: Mapping[str, Queue], new: Sequence[Queue]) -> Iterator[str]:
    names = {queue.name for queue in new}
    yield from (f"queue {name} is gone" for name in old if name not in names)
    for queue in new:
        before = old.get(queue.name)
        if before is None:
            yield f"queue {queue.name} is new"
        elif before != queue:
            parts = [field.name for field in fields(queue) if getattr(before, field.name) != getattr(queue, field.name)]
            yield f"queue {queue.name}: " + ", ".join(_change(part, getattr(before, part), getattr(queue, part)) for part in parts)


def _change(part: str, old: object, new: object) -> str:
    none = {"max": "no limit", "groups": "everyone", "clusters": "everywhere"}.get(part, "none")
    return f"{part} {_text(old) or none} -> {_text(new) or none}"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None or value == NOTHING else str(value)
