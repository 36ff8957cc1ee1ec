"""Draws results as one self-contained HTML page: mean wait by gang size, and use of the cluster over time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean

from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.simulation.engine import Outcome

COLOURS = ("#1b6ca8", "#c8553d", "#5b8e3e", "#7d5ba6", "#b08900", "#4a4a4a")
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
                f'<rect x="{x + number * bar + 4:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{height:.1f}" fill="{colour}">'
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
        parts.append(f'<polyline fill="none" stroke-width="1.5" stroke="{COLOURS[number % len(COLOURS)]}" points="{points}"/>')
    parts.append(f'<text x="{WIDTH - 60}" y="{HEIGHT - 14}">{show_duration(last)}</text>')
    return _frame("Used part of the scarcest resource over time", "".join(parts), "100%")


def html_page(outcomes: Sequence[Outcome], text: str) -> str:
    """The page: the legend, the table as text, the drawings."""
    legend = " ".join(
        f'<span style="color:{COLOURS[n % len(COLOURS)]}">&#9632; {escape(outcome.policy)}</span>'
        for n, outcome in enumerate(outcomes)
    )
    style = "body{font:14px sans-serif;max-width:900px;margin:2em auto}pre{overflow-x:auto}svg text{font:11px sans-serif}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Simulation</title><style>{style}</style>'
        f"<h1>Simulation</h1><p>{legend}</p><pre>{escape(text)}</pre>{waits_by_size(outcomes)}{use_over_time(outcomes)}</html>\n"
    )
