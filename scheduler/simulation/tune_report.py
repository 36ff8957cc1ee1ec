"""A proposal of `tune` as text and as one HTML page: a table, and the same as bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import Final

from tuttilab.scheduler.core.rows.tuning import show
from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.simulation.tune import Group, Proposal, Waits, show_values

HEAD: Final = ("", "jobs", "rule", "mean wait", "p99", "longest", "mean done", "better", "worse")
RULES: Final = ("now", "proposed", "EASY")
WIDTH: Final = 760
LABEL: Final = 190
BAR: Final = 11
COLOURS: Final = ("--now", "--proposed", "--easy")

_STYLE: Final = (
    ":root{color-scheme:light dark;--now:#4a6fa5;--proposed:#2e8b57;--easy:#b08900;--line:#8888}"
    "@media(prefers-color-scheme:dark){:root{--now:#8fb3e8;--proposed:#6fd19b;--easy:#e0bf4f}}"
    "body{font:14px/1.5 sans-serif;max-width:64rem;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}"
    "svg{width:100%;height:auto}svg text{font:11px sans-serif;fill:currentColor}.key{display:inline-block;width:.8em;height:.8em}"
)


def lines(proposal: Proposal) -> Iterator[str]:
    """For a terminal."""
    yield f"{proposal.jobs} jobs in {proposal.days:.1f} days; in force is {show_values(proposal.now)}."
    yield from (f"left out: {sentence}" for sentence in proposal.left_out)
    if proposal.changed_clusters:
        yield f"The clusters changed {proposal.changed_clusters} times meanwhile; the replay changes them at the same times."
    if proposal.tried:
        yield ""
        yield from aligned([("candidate", "mean done", "p99", "longest", ""), *map(_candidate, _ranked(proposal))])
    if proposal.groups:
        yield ""
        yield from aligned(list(rows(proposal.groups)))
    yield ""
    yield proposal.text


def _ranked(proposal: Proposal) -> Iterable[tuple[str, Waits, bool]]:
    ranked = sorted(proposal.tried, key=lambda one: (one.cost, one.values))
    return [(show_values(one.values), one.waits, one.is_above_easy) for one in ranked]


def _candidate(one: tuple[str, Waits, bool]) -> tuple[str, ...]:
    name, waits, is_above_easy = one
    times = (show_duration(waits.done_s), show_duration(waits.p99_s), show_duration(waits.longest_s))
    return (name, *times, "" if is_above_easy else "below EASY")


def rows(groups: Sequence[Group]) -> Iterator[tuple[str, ...]]:
    """Header first; three lines for each group."""
    yield HEAD
    for group in groups:
        name = {"queue": f"queue {group.name}", "size": f"size {group.name}"}.get(group.kind, group.name)
        for number, (rule, waits) in enumerate(zip(RULES, (group.now, group.proposed, group.easy), strict=True)):
            times = (waits.mean_s, waits.p99_s, waits.longest_s, waits.done_s)
            counts = (str(group.better), str(group.worse)) if rule == "proposed" else ("", "")
            yield (name if not number else "", str(waits.jobs) if not number else "", rule, *map(show_duration, times), *counts)


def aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def config_lines(proposal: Proposal) -> list[str]:
    """What goes into tuttilab.yaml to have this fixed; empty without a proposal."""
    if proposal.values is None:
        return []
    inside = ", ".join(f"{name}: {show(value)}" for name, value in proposal.values)
    return [f"policy: {{{inside}}}"]


def page(proposal: Proposal) -> str:
    """Self-contained, without scripts; names are escaped."""
    keys = " ".join(f'<span class="key" style="background:var({c})"></span> {r}' for c, r in zip(COLOURS, RULES, strict=True))
    parts = [f"<p>{escape(line)}</p>" for line in lines(_without_tables(proposal)) if line]
    if proposal.groups:
        parts.append(f"<p>{keys}</p>{_bars('Mean from submission to end', proposal.groups, lambda waits: waits.done_s)}")
        parts.append(_bars("Mean wait", proposal.groups, lambda waits: waits.mean_s))
        parts.append(f"<h2>Who would have waited how long</h2>{_table(list(rows(proposal.groups)))}")
    if proposal.tried:
        tried = [("candidate", "mean done", "p99", "longest", ""), *map(_candidate, _ranked(proposal))]
        parts.append(f"<h2>Candidates, on the first part</h2>{_table(tried)}")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Tuning on the past</title><style>{_STYLE}</style><h1>Tuning on the past</h1>{''.join(parts)}</html>\n"
    )


def _without_tables(proposal: Proposal) -> Proposal:
    return replace(proposal, tried=(), groups=())


def _table(table: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _bars(title: str, groups: Sequence[Group], of: Callable[[Waits], float]) -> str:
    most = max((of(waits) for group in groups for waits in (group.now, group.proposed, group.easy)), default=0.0) or 1.0
    step = 3 * BAR + 12
    parts = []
    for place, group in enumerate(groups):
        top = place * step + 6
        parts.append(f'<text x="0" y="{top + 2 * BAR}">{escape(group.name[:28])}</text>')
        for number, waits in enumerate((group.now, group.proposed, group.easy)):
            value = of(waits)
            width = value / most * (WIDTH - LABEL - 70)
            y = top + number * BAR
            tip = f"{group.name}, {RULES[number]}: {show_duration(value)}"
            parts.append(
                f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="var({COLOURS[number]})">'
                f"<title>{escape(tip)}</title></rect>"
                f'<text x="{LABEL + width + 4:.1f}" y="{y + BAR - 2}">{escape(show_duration(value))}</text>'
            )
    height = len(groups) * step + 8
    drawn = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"<h2>{escape(title)}</h2>{drawn}"
