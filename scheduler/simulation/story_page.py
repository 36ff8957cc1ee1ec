"""A story as a picture: nodes as rows, jobs as bars, the gang's hold shaded, and how its expected start moved; and as two tables.

The picture is for eyes; the tables beside it say the same to screen readers and keyboards. Every text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

from tuttilab.scheduler.domain.model import Cluster
from tuttilab.scheduler.domain.resources import GPU, show_duration
from tuttilab.scheduler.domain.terminal import plain
from tuttilab.scheduler.simulation import story_text
from tuttilab.scheduler.simulation.engine import JobOutcome, Outcome
from tuttilab.scheduler.simulation.story import Story

WIDTH: Final = 1160
LEFT: Final = 120
RIGHT: Final = 10
MOVES_HEIGHT: Final = 150
NODE_HEIGHT: Final = 34
GAP: Final = 6
LANES: Final = 8
MOST_NODES: Final = 24
"""Drawn: those that the gang was held or ran on first, then those of the gangs that went past it."""
MOST_BARS: Final = 6000
MOST_MOMENTS: Final = 200
MOST_PASSED: Final = 200

STYLE: Final = """
.story{--before:#b9bec6;--others:#7f9cc0;--order:#e0a92e;--backfill:#c8553d;--own:#2e8b57;--hold:#2e8b57;--moves:#7d5ba6}
@media (prefers-color-scheme:dark){.story{--before:#565c66;--others:#5b7aa5;--order:#c9962a;--backfill:#e07a5f;--own:#4fc08d;
--hold:#4fc08d;--moves:#b79ae0}}
.story svg{width:100%;height:auto}.story .before{fill:var(--before)}.story .others{fill:var(--others)}
.story .order{fill:var(--order)}.story .backfill{fill:var(--backfill)}.story .own{fill:var(--own)}
.story .hold{fill:var(--hold);fill-opacity:.22}.story .moves{fill:none;stroke:var(--moves);stroke-width:2}
.story .ruled{stroke:currentColor;stroke-opacity:.35}.story .now{stroke:currentColor;stroke-opacity:.5;stroke-dasharray:4 4}
.story .told{fill:var(--moves);fill-opacity:.6}
.story text{fill:currentColor}.story .scroll{overflow:auto;max-height:28em;border:1px solid #8888}
.story table{border-collapse:collapse;font-size:12px}.story caption{text-align:left;font-weight:bold;padding:.4em}
.story th,.story td{text-align:left;padding:.15em .7em;vertical-align:top;border-bottom:1px solid #8884}
.story .key i{display:inline-block;width:1em;height:1em;margin:0 .3em 0 1em;vertical-align:-.1em}
"""
KEY: Final = (
    ("own", "the gang itself"),
    ("hold", "what was held for it"),
    ("backfill", "submitted later, backfilled past it"),
    ("order", "submitted later, started without a promise to it"),
    ("others", "submitted earlier, started while it waited"),
    ("before", "ran when it was submitted"),
)


@dataclass(frozen=True, slots=True)
class _Bar:
    node: str
    began: float
    ended: float
    share: float
    """Of the node."""
    what: str
    tip: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """From time to pixels. ``top``: the first node's."""

    first: float
    last: float
    nodes: tuple[str, ...]

    def x(self, at: float) -> float:
        part = (min(max(at, self.first), self.last) - self.first) / (self.last - self.first)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, node: str) -> float:
        return MOVES_HEIGHT + 30 + self.nodes.index(node) * (NODE_HEIGHT + GAP)

    @property
    def height(self) -> float:
        return MOVES_HEIGHT + 30 + len(self.nodes) * (NODE_HEIGHT + GAP) + 20


def story_section(told: Story, outcome: Outcome, clusters: Iterable[Cluster], number: int) -> str:
    """One gang under one policy. ``number`` makes the ids on the page differ."""
    frame = _frame(told, clusters)
    title = f"{told.job_id} under {told.policy}"
    sentences = list(story_text.summary(told))
    parts = [*_nodes(told, frame), *_bars(told, outcome, frame, clusters), *_holds(told, frame), *_moves(told, frame)]
    key = "".join(f'<span><i style="background:var(--{what});{_opacity(what)}"></i>{text}</span>' for what, text in KEY)
    moments = story_text.of_all(told.moments, MOST_MOMENTS)
    passed = sorted(story_text.worst_passed(told, MOST_PASSED), key=lambda one: one.at)
    return (
        f'<section class="story" aria-labelledby="story-{number}"><h2 id="story-{number}">{_text(title)}</h2>'
        + "".join(f"<p>{_text(sentence)}</p>" for sentence in sentences)
        + f'<p class="key" aria-hidden="true">{key}</p>'
        f'<svg viewBox="0 0 {WIDTH} {frame.height:.0f}" role="img" aria-label="{_text(_described(told))}">{"".join(parts)}</svg>'
        + _table(
            f"Place, hold and expected start of {told.job_id}: {_some(moments, told.moments, 'changes')}",
            story_text.MOMENT_HEAD,
            [story_text.moment_row(moment, told) for moment in moments],
        )
        + _table(
            f"Who went past {told.job_id}: {_some(passed, told.passed, 'gangs')}",
            story_text.PASSED_HEAD,
            [story_text.passed_row(one, told) for one in passed],
        )
        + "</section>"
    )


def _text(text: str) -> str:
    """Of the trace, or ours: without control sequences, and escaped."""
    return escape(plain(text))


def _opacity(what: str) -> str:
    return "opacity:.3" if what == "hold" else ""


def _some(shown: Sequence[object], every: Sequence[object], what: str) -> str:
    return f"{len(every)} {what}" if len(shown) == len(every) else f"{len(shown)} of {len(every)} {what}"


def _described(told: Story) -> str:
    return (
        f"Nodes as rows and jobs as bars over time, from the submission of {told.job_id} to its start; the room held for it shaded;"
        " above, when it was expected to start, over time: a line for the hold, dots for what its owner was told."
        " The tables below say the same."
    )


def _frame(told: Story, clusters: Iterable[Cluster]) -> _Frame:
    seen = [moment.at for moment in told.moments]
    until = told.started if told.started is not None else max(seen, default=told.submitted)
    waited = max(until - told.submitted, 60.0)
    last = min(told.ended, until + waited / 4) if told.ended is not None else until
    own = [*told.nodes, *(node for _, kept in told.kept for node in kept.nodes)]
    passers = [node for one in told.passed for node in one.nodes]
    rest = [node.name for cluster in clusters for node in cluster.nodes]
    nodes = list(dict.fromkeys([*own, *passers, *rest]))[:MOST_NODES]
    return _Frame(told.submitted - waited / 20, max(last, until) + waited / 40, tuple(sorted(nodes, key=_natural)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _nodes(told: Story, frame: _Frame) -> Iterator[str]:
    bottom = frame.height - 20
    for node in frame.nodes:
        y = frame.y(node)
        yield f'<text x="4" y="{y + NODE_HEIGHT / 2 + 4:.0f}">{_text(node[:16])}</text>'
        below = y + NODE_HEIGHT + GAP / 2
        yield f'<line class="ruled" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{below:.1f}" y2="{below:.1f}"/>'
    for number in range(6):
        at = frame.first + (frame.last - frame.first) * number / 5
        anchor = "start" if number == 0 else "end" if number == 5 else "middle"
        text = ("+" if at >= told.submitted else "-") + show_duration(abs(at - told.submitted))
        yield f'<text x="{frame.x(at):.0f}" y="{bottom + 14:.0f}" text-anchor="{anchor}">{text}</text>'


def _bars(told: Story, outcome: Outcome, frame: _Frame, clusters: Iterable[Cluster]) -> Iterator[str]:
    """In each node's row a job takes lanes by its share of the node, the first that are free."""
    sizes = {node.name: node.allocatable for cluster in clusters for node in cluster.nodes}
    passed = {one.job_id: one for one in told.passed}
    bars: dict[str, list[_Bar]] = {node: [] for node in frame.nodes}
    for ran in outcome.ran:
        began, ended = ran.started_at, frame.last if ran.ended_at is None else ran.ended_at
        if ran.last is None or began is None or began >= frame.last or ended <= frame.first:
            continue
        what = _what(ran, told, passed)
        tip = f"{ran.job.job_id} ({ran.job.name} of {ran.job.owner}), {ran.job.gpus} GPUs, {show_duration(ended - began)}"
        tip += f"; {passed[ran.job.job_id].promise.text}" if ran.job.job_id in passed else ""
        pods: dict[str, int] = {}
        for pod in ran.last.pods:
            pods[pod.node] = pods.get(pod.node, 0) + 1
        each = ran.job.job(0).gang.pod_sets[0].resources
        for node, count in pods.items():
            if node in bars:
                has = sizes[node]
                keys = [key for key, _ in each if has[key]]
                share = each[GPU] / has[GPU] if each[GPU] and has[GPU] else max((each[key] / has[key] for key in keys), default=0.0)
                bars[node].append(_Bar(node, began, ended, min(count * share, 1.0), what, tip))
    drawn = 0
    for node in frame.nodes:
        free_at = [0.0] * LANES
        for bar in sorted(bars[node], key=lambda one: (one.began, one.what)):
            wanted = max(round(bar.share * LANES), 1)
            lanes = sorted(sorted(range(LANES), key=lambda lane: (free_at[lane] > bar.began + 1e-6, lane))[:wanted])
            for lane in lanes:
                free_at[lane] = bar.ended
            for lane, height in _runs(lanes):
                drawn += 1
                if drawn <= MOST_BARS:
                    yield _rect(bar, frame, lane, height)


def _runs(lanes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring lanes together: the first, and how many."""
    first = lanes[0]
    for before, lane in pairwise([*lanes, LANES + 1]):
        if lane != before + 1:
            yield first, before - first + 1
            first = lane


def _rect(bar: _Bar, frame: _Frame, lane: int, height: int) -> str:
    x, y, each = frame.x(bar.began), frame.y(bar.node), NODE_HEIGHT / LANES
    width = max(frame.x(bar.ended) - x - 0.4, 0.8)
    box = f'x="{x:.1f}" y="{y + lane * each + 0.2:.1f}" width="{width:.1f}" height="{height * each - 0.4:.1f}"'
    return f'<rect class="{bar.what}" {box}><title>{_text(bar.tip)}</title></rect>'


def _what(ran: JobOutcome, told: Story, passed: Mapping[str, object]) -> str:
    if ran.job.job_id == told.job_id:
        return "own"
    if ran.job.job_id in passed:
        one = next(one for one in told.passed if one.job_id == ran.job.job_id)
        return "order" if one.promise.name in ("ORDER", "FITS") else "backfill"
    return "before" if ran.started_at is not None and ran.started_at <= told.submitted else "others"


def _until(told: Story, frame: _Frame) -> list[tuple[float, float, int]]:
    """Each moment with when the next one is."""
    ends = [*(moment.at for moment in told.moments[1:]), told.started if told.started is not None else frame.last]
    return [(moment.at, end, number) for number, (moment, end) in enumerate(zip(told.moments, ends, strict=False))]


def _holds(told: Story, frame: _Frame) -> Iterator[str]:
    open_since: dict[str, float] = {}
    spans: list[tuple[str, float, float]] = []
    for at, end, number in _until(told, frame):
        kept = told.moments[number].kept
        nodes = set(kept.nodes if kept is not None else ()) & set(frame.nodes)
        for node in [node for node in open_since if node not in nodes]:
            spans.append((node, open_since.pop(node), at))
        for node in nodes:
            open_since.setdefault(node, at)
        if number == len(told.moments) - 1:
            spans += [(node, since, end) for node, since in open_since.items()]
    for node, began, ended in sorted(spans):
        x = frame.x(began)
        box = f'x="{x:.1f}" y="{frame.y(node) - 2:.1f}" width="{max(frame.x(ended) - x, 1):.1f}" height="{NODE_HEIGHT + 4}"'
        yield f'<rect class="hold" {box}><title>{_text(f"held on {node}")}</title></rect>'


def _moves(told: Story, frame: _Frame) -> Iterator[str]:
    """The start of its hold over time, and as dots what its owner was told; dashed the time itself: where they meet, it starts."""
    points = [(at, end, kept.start) for at, end, number in _until(told, frame) if (kept := told.moments[number].kept) is not None]
    said = [(one.at, one.start) for one in told.told if one.start is not None]
    top = max([frame.last, *(start for _, _, start in points), *(start for _, start in said)])

    def y(at: float) -> float:
        return MOVES_HEIGHT - (min(max(at, frame.first), top) - frame.first) / (top - frame.first) * (MOVES_HEIGHT - 20)

    yield f'<text x="4" y="16">expected start</text><text x="4" y="32">{show_duration(top - told.submitted)}</text>'
    yield f'<text x="4" y="{MOVES_HEIGHT}">submission</text>'
    yield f'<line class="ruled" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{MOVES_HEIGHT + 10}" y2="{MOVES_HEIGHT + 10}"/>'
    times = frame.x(frame.first), y(frame.first), frame.x(frame.last), y(frame.last)
    yield '<line class="now" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*times)
    for at, start in said:
        where = f'cx="{frame.x(at):.1f}" cy="{y(start):.1f}"'
        yield f'<circle class="told" {where} r="2"><title>what its owner was told</title></circle>'
    path, before = "", None
    for at, end, start in points:
        command = "L" if before == at else "M"
        path += f"{command}{frame.x(at):.1f} {y(start):.1f}H{frame.x(end):.1f}"
        before = end
    if path:
        yield f'<path class="moves" d="{path}"><title>when it was expected to start</title></path>'


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col">{_text(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>' + "".join(f"<td>{_text(text)}</td>" for text in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table><caption>{_text(caption)}</caption>'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )
