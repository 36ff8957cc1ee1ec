"""Draws results as one self-contained HTML page: mean wait by gang size, and use of the cluster over time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean

from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.simulation import story_page
from tuttilab.scheduler.simulation.engine import Outcome

COLOURS = tuple(f"var(--p{number})" for number in range(6))
STYLE = """
:root{color-scheme:light dark;--p0:#1b6ca8;--p1:#c8553d;--p2:#5b8e3e;--p3:#7d5ba6;--p4:#8f6f00;--p5:#4a4a4a}
@media (prefers-color-scheme:dark){:root{--p0:#6cb2e8;--p1:#e88a74;--p2:#8fc46f;--p3:#b79ae0;--p4:#d9b23a;--p5:#c0c0c0}}
body{font:14px sans-serif;max-width:1180px;margin:2em auto;padding:0 1em}pre{overflow-x:auto}
svg text{font:11px sans-serif;fill:currentColor}
"""
WIDTH, HEIGHT, LEFT, BOTTOM = 860, 260, 70, 40
POINTS = 400


def _frame(title: str, body: str, top: str) -> str:
    return (
        f'<h2>{escape(title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<line x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH}" y2="{HEIGHT - BOTTOM}" stroke="#888"/>'
        f'<line x1="{LEFT}" y1="10" x2="{LEFT}" y2="{HEIGHT - BOTTOM}" stroke="#888"/>'
        f'<text x="4" y="20">{escape(top)}</text><text x="4" y="{HEIGHT - BOTTOM}">0</text>{body}</svg>'
    )


def waits_by_size(outcomes: Sequence[Outcome]) -> str:
    sizes = sorted({max(ran.job.gpus, ran.job.pods) for outcome in outcomes for ran in outcome.ran})
    means = [
        [
            fmean([r.wait_s for r in o.ran if r.wait_s is not None and max(r.job.gpus, r.job.pods) == size] or [0.0])
            for size in sizes
        ]
        for o in outcomes
    ]
    most = max((value for row in means for value in row), default=0.0) or 1.0
    step = (WIDTH - LEFT) / max(len(sizes), 1)
    bar = step * 0.8 / max(len(outcomes), 1)
    parts = []
    for place, size in enumerate(sizes):
        x = LEFT + place * step
        parts.append(f'<text x="{x + step * 0.3:.1f}" y="{HEIGHT - 14}">{size}</text>')
        for number, row in enumerate(means):
            height = row[place] / most * (HEIGHT - BOTTOM - 20)
            y = HEIGHT - BOTTOM - height
            tip = f"{outcomes[number].policy}, size {size}: {show_duration(row[place])}"
            colour = COLOURS[number % len(COLOURS)]
            parts.append(
                f'<rect x="{x + number * bar + 4:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{height:.1f}" style="fill:{colour}">'
                f"<title>{escape(tip)}</title></rect>"
            )
    return _frame("Mean wait by gang size (pods or GPUs)", "".join(parts), show_duration(most))


def use_over_time(outcomes: Sequence[Outcome]) -> str:
    last = max((at for outcome in outcomes for at, _ in outcome.use), default=0.0) or 1.0
    parts = []
    for number, outcome in enumerate(outcomes):
        cells = [0.0] * POINTS
        for (at, share), (after, _) in zip(outcome.use, outcome.use[1:], strict=False):
            first, final = at / last * POINTS, after / last * POINTS
            for cell in range(int(first), min(int(final) + 1, POINTS)):
                cells[cell] += share * max(min(final, cell + 1) - max(first, cell), 0.0)
        points = " ".join(
            f"{LEFT + i / POINTS * (WIDTH - LEFT):.1f},{HEIGHT - BOTTOM - value * (HEIGHT - BOTTOM - 20):.1f}"
            for i, value in enumerate(cells)
        )
        parts.append(
            f'<polyline fill="none" stroke-width="1.5" style="stroke:{COLOURS[number % len(COLOURS)]}" points="{points}"/>'
        )
    parts.append(f'<text x="{WIDTH - 60}" y="{HEIGHT - 14}">{show_duration(last)}</text>')
    return _frame("Used part of the scarcest resource over time", "".join(parts), "100%")


def html_page(outcomes: Sequence[Outcome], text: str, stories: Sequence[str] = ()) -> str:
    """The page: the legend, the table as text, the drawings, then the sections of `story_page`."""
    legend = " ".join(
        f'<span style="color:{COLOURS[n % len(COLOURS)]}">&#9632; {escape(outcome.policy)}</span>'
        for n, outcome in enumerate(outcomes)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Simulation</title><style>{STYLE}{story_page.STYLE if stories else ''}</style>"
        f'<h1>Simulation</h1><p>{legend}</p><pre tabindex="0">{escape(text)}</pre>'
        f"{waits_by_size(outcomes)}{use_over_time(outcomes)}{''.join(stories)}</html>\n"
    )
