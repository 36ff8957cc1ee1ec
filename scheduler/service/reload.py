"""Reload of queues, defaults, storages and side-cars of the site while jobs run: the file is checked as a whole and applied as a
whole, or not at all.

A limit that would be loosened is applied only if the caller names it, because a slip in the file looks the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.config.resources import unseen_resources
from tuttilab.scheduler.core.ordering.queues import check_tree, path_of
from tuttilab.scheduler.core.rows.tuning import configured_queues, describe
from tuttilab.scheduler.core.storages import READ, WRITE
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import Conflict
from tuttilab.scheduler.domain.model import Queue, Tuning
from tuttilab.scheduler.domain.resources import NOTHING, Resources, show_amount
from tuttilab.scheduler.domain.wire import ReloadView

if TYPE_CHECKING:
    from tuttilab.scheduler.config.model import Config, Defaults
    from tuttilab.scheduler.core.sidecars import SideCarOffer
    from tuttilab.scheduler.core.state import State
    from tuttilab.scheduler.core.storages import Storage
    from tuttilab.scheduler.service.loop import Service
    from tuttilab.scheduler.service.turn import Turn

RELOADED: Final = ("queues", "defaults", "storages", "sidecars", "tune")
"""Parts of the configuration that may change while jobs run."""


async def reload(
    service: Service, wanted: Config, *, dry_run: bool = False, accept: Collection[str] = (), by: str = ""
) -> ReloadView:
    """Apply `RELOADED` of ``wanted``, unless it is a dry run; return what changes, one sentence each.

    Raises, and changes nothing: Conflict when another part differs, a removed queue has unended jobs, or a limit is loosened that
    is not in ``accept``; BadInput when a limit names a resource that no node has.
    """
    others = [part.name for part in fields(wanted) if part.name not in RELOADED and _differs(part.name, service.config, wanted)]
    if others:
        may = f"{', '.join(RELOADED[:-1])} and {RELOADED[-1]}"
        raise Conflict(
            f"reload: {' and '.join(others)} changed too, and only {may} can while jobs run; restart the control plane (no "
            "accepted job is lost), or put them back. Nothing was changed."
        )
    known = service.config
    old, new = known.defaults, wanted.defaults

    def apply(turn: Turn) -> ReloadView:
        before = turn.state.queues
        queues = configured_queues(wanted.queues, before.values(), turn.now, by)
        tree = check_tree(queues)
        unchecked = unseen_resources(queues, before.values(), wanted.clusters, turn.state.clusters)
        parts = [part.name for part in fields(new) if getattr(old, part.name) != getattr(new, part.name)]
        view = ReloadView(
            changes=(
                *_changes(before, queues),
                *(f"defaults: {_change(part, getattr(old, part), getattr(new, part))}" for part in parts),
                *_storage_changes(known.storages, wanted.storages),
                *_sidecar_changes(known.sidecars, wanted.sidecars),
                *(["tune changed, for the next run"] if known.tune != wanted.tune else ()),
            ),
            loosened=(
                *loosened_limits(before, tree),
                *_loosened_defaults(old, new),
                *_loosened_storages(known.storages, wanted.storages),
            ),
            unchecked=unchecked,
        )
        _check_removed(turn.state, tree)
        refused = [sentence for sentence in view.loosened if sentence not in accept]
        if refused and not dry_run:
            raise Conflict(
                f"reload: it would loosen {'a limit' if len(refused) == 1 else f'{len(refused)} limits'} ({'; '.join(refused)}); "
                "put that back, or say that it is meant with `tuttilab scheduler reload --yes`. Nothing was changed."
            )
        if not dry_run and (parts or tuple(before.values()) != queues):
            turn.apply(ev.QueuesConfigured(queues, by), "queues")
        return view

    view = await service.ask(apply)
    if not dry_run:
        service.apply_config(replace(service.config, **{part: getattr(wanted, part) for part in RELOADED}))
    return view


def loosened_limits(old: Mapping[str, Queue], new: Mapping[str, Queue]) -> Iterator[str]:
    """A sentence for each limit on a queue that stays, its own or one above it, that is larger or gone."""
    for name, queue in new.items():
        before = old.get(name)
        if before is None:
            continue
        own = list(_loosened_amounts(before.max, queue.max))
        yield from (f"queue {name}: max {_limit(key, was)} -> {_limit(key, now)}" for key, was, now in own)
        for part in ("max_jobs", "max_pods"):
            was, now = getattr(before, part), getattr(queue, part)
            if was is not None and (now is None or now > was):
                yield f"queue {name}: {part} {was} -> {'no limit' if now is None else now}"
        for part in ("groups", "clusters"):
            if getattr(before, part) and not getattr(queue, part):
                yield f"queue {name}: {_change(part, getattr(before, part), getattr(queue, part))}"
        if queue.can_borrow and not before.can_borrow:
            yield f"queue {name}: can_borrow false -> true"
        if [step.name for step in path_of(old, name)] != [step.name for step in path_of(new, name)]:
            said = {key for key, _, _ in own}
            for key, was, now in _loosened_amounts(_over_path(old, name), _over_path(new, name)):
                if key not in said:
                    where = f"below {queue.parent}" if queue.parent else "without a parent"
                    yield f"queue {name}, {where}: limit of all above it {_limit(key, was)} -> {_limit(key, now)}"


def _loosened_amounts(old: Resources, new: Resources) -> Iterator[tuple[str, int, int | None]]:
    left = dict(new)
    yield from ((key, was, left.get(key)) for key, was in old if key not in left or left[key] > was)


def _over_path(tree: Mapping[str, Queue], name: str) -> Resources:
    """The limits that hold for the queue: the least of its own and of those above it."""
    least: dict[str, int] = {}
    for step in path_of(tree, name):
        for key, amount in step.max:
            least[key] = min(amount, least.get(key, amount))
    return Resources.limits(least)


def _limit(key: str, amount: int | None) -> str:
    return "no limit" if amount is None else f"{show_amount(key, amount)} {key}"


def _loosened_defaults(old: Defaults, new: Defaults) -> Iterator[str]:
    if old.timeout_s is not None and (new.timeout_s is None or new.timeout_s > old.timeout_s):
        yield f"defaults: {_change('timeout_s', old.timeout_s, new.timeout_s)}"


def _loosened_storages(old: Sequence[Storage], new: Sequence[Storage]) -> Iterator[str]:
    if old and not new:
        yield "storages: the list is gone, and then profiles may mount any claim"
    before = {storage.title: storage for storage in old}
    for storage in new:
        was = before.get(storage.title)
        for group, mode in storage.modes.items():
            if was is not None and was.modes.get(group) == READ and mode == WRITE:
                yield f"storage {storage.title}: {group} {READ} -> {WRITE}"


def _storage_changes(old: Sequence[Storage], new: Sequence[Storage]) -> Iterator[str]:
    before, after = ({storage.title: dict(storage.modes) for storage in each} for each in (old, new))
    yield from (f"storage {title} is gone" for title in before if title not in after)
    for title, modes in after.items():
        if title not in before:
            yield f"storage {title} is new"
        elif (was := before[title]) != modes:
            groups = [group for group in {**was, **modes} if was.get(group) != modes.get(group)]
            told = (f"{group} {was.get(group, 'none')} -> {modes.get(group, 'none')}" for group in groups)
            yield f"storage {title}: {', '.join(told)}"


def _sidecar_changes(old: Sequence[SideCarOffer], new: Sequence[SideCarOffer]) -> Iterator[str]:
    before, after = ({offer.name: offer for offer in each} for each in (old, new))
    yield from (f"side-car {name} is gone" for name in before if name not in after)
    for name, offer in after.items():
        if name not in before:
            yield f"side-car {name} is new"
        elif before[name] != offer:
            parts = [field.name for field in fields(offer) if getattr(before[name], field.name) != getattr(offer, field.name)]
            yield f"side-car {name}: {', '.join(parts)} changed, for jobs that are submitted from now on"


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
    none = {"max": "no limit", "groups": "everyone", "clusters": "everywhere", "tuning": "the built-in rule"}.get(part, "none")
    return f"{part} {_text(old) or none} -> {_text(new) or none}"


def _text(value: object) -> str:
    if isinstance(value, Tuning):
        return describe(value) or "the built-in rule"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None or value == NOTHING else str(value)
