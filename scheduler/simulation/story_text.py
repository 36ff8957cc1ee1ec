"""A story as text and as rows: what is printed, and what the tables of the page say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tuttilab.scheduler.domain.model import Kept, Promise
from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.domain.terminal import plain
from tuttilab.scheduler.simulation.story import Moment, Passed, Story

MOST_MOMENTS: Final = 25
MOST_PASSED: Final = 15
MOMENT_HEAD: Final = ("when", "place", "held for it", "it starts", "what it was told")
PASSED_HEAD: Final = ("when", "job", "GPUs", "nodes", "how it went past", "was to end", "ended", "its start was")


def since(at: float, story: Story) -> str:
    """From the submission on."""
    return "+" + show_duration(max(at - story.submitted, 0.0))


def of_all(rows: Sequence[Moment], most: int) -> list[Moment]:
    """At most so many, evenly, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]


def told_at(moment: Moment, story: Story) -> str:
    """The last that its owner was told by then."""
    said = [one for one in story.told if one.at <= moment.at]
    if not said:
        return "-"
    last = said[-1]
    if last.earliest is None or last.latest is None:
        return plain(last.sentence)
    return f"starts {since(last.earliest, story)} to {since(last.latest, story)}; {plain(last.sentence)}"


def held(kept: Kept | None, behind: str) -> str:
    if kept is None:
        return f"nothing; room is held for {plain(behind)}" if behind else "nothing"
    where = ", ".join(kept.nodes) or "nodes that others leave first"
    return f"{where} on {kept.cluster}, by {kept.trusts}"


def moment_row(moment: Moment, story: Story) -> tuple[str, ...]:
    place = f"{moment.place}{' protected' if moment.is_protected else ''}"
    start = "-" if moment.kept is None else since(moment.kept.start, story)
    return (since(moment.at, story), place, held(moment.kept, moment.behind), start, told_at(moment, story))


def passed_row(one: Passed, story: Story) -> tuple[str, ...]:
    promised = one.limit_end if one.promise is Promise.LIMIT else one.predicted_end
    start = "-" if one.kept_start is None else since(one.kept_start, story)
    late = " too late" if one.is_late else ""
    return (
        since(one.at, story),
        f"{plain(one.job_id)} ({plain(one.name)} of {plain(one.owner)})",
        str(one.gpus),
        ", ".join(one.nodes),
        one.promise.text,
        "-" if promised is None else since(promised, story),
        ("never" if one.ended is None else since(one.ended, story)) + late,
        start,
    )


def worst_passed(story: Story, most: int) -> list[Passed]:
    """Those that held it up longest first: late ones, then by what they used."""

    def weight(one: Passed) -> tuple[bool, float]:
        return (one.is_late, ((one.ended or one.at) - one.at) * max(one.gpus, 1))

    return sorted(story.passed, key=weight, reverse=True)[:most]


def summary(story: Story) -> Iterator[str]:
    """Sentences."""
    what = f"{story.gpus} GPUs in {story.pods} pods" if story.pods != 1 else f"{story.gpus} GPUs in one pod"
    name = f"{plain(story.job_id)} ({plain(story.name)} of {plain(story.owner)}): {what}"
    if story.started is None:
        yield f"{story.policy}: {name}, never started."
    else:
        yield f"{story.policy}: {name}, waited {show_duration(story.started - story.submitted)}, ran on {', '.join(story.nodes)}."
    if story.kept:
        later, earlier = story.moves()
        first = story.kept[0]
        yield (
            f"Room was first held for it after {show_duration(first[0].at - story.submitted)}, for a start at"
            f" {since(first[1].start, story)}. That start went later {later} times and earlier {earlier} times, and the hold went"
            f" to other nodes {story.node_changes()} times."
        )
    else:
        yield "No room was ever held for it."
    if not story.passed:
        yield "No gang that was submitted later started before it."
        return
    late = sum(one.is_late for one in story.passed)
    yield (
        f"{len(story.passed)} gangs that were submitted later started before it and used {story.gpu_seconds() / 3600:.1f} GPU-hours"
        f" while it waited:"
    )
    for promise in Promise:
        count = sum(one.promise is promise for one in story.passed)
        if count:
            yield f"  {count}: {promise.text}, {story.gpu_seconds(promise) / 3600:.1f} GPU-hours"
    if late:
        yield f"  {late} of those that were to end before its start ended after it."


def lines(story: Story) -> Iterator[str]:
    """What is printed."""
    yield from summary(story)
    if story.moments:
        shown = of_all(story.moments, MOST_MOMENTS)
        more = f" ({len(shown)} of {len(story.moments)} changes)" if len(shown) < len(story.moments) else ""
        yield f"\nIts place and its hold{more}; times from its submission:"
        yield from _table([MOMENT_HEAD, *(moment_row(moment, story) for moment in shown)])
    if story.passed:
        worst = worst_passed(story, MOST_PASSED)
        more = (
            f" ({len(worst)} of {len(story.passed)}, those that were in its way longest)" if len(worst) < len(story.passed) else ""
        )
        yield f"\nWho went past it{more}:"
        yield from _table([PASSED_HEAD, *(passed_row(one, story) for one in worst)])


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
