"""Bars, tables of use, and KEY=VALUE options."""

import click
import pytest

from tuttilab.scheduler.cli.console import bar, pairs
from tuttilab.scheduler.cli.site import room_rows, use_rows, with_depth
from tuttilab.scheduler.domain.wire import QueueView, UseView


def view(name: str, parent: str | None = None, *use: UseView) -> QueueView:
    return QueueView(name=name, parent=parent, weight=1, priority=0, groups=(), waiting=0, running=0, use=use, mine=True)


def gpus(used: int, guaranteed: int, most: int | None) -> UseView:
    return UseView(
        resource="nvidia.com/gpu",
        used=used,
        guaranteed=guaranteed,
        max=most,
        used_text=str(used),
        guaranteed_text=str(guaranteed),
        max_text="" if most is None else str(most),
    )


@pytest.fixture
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.encoding", "ascii", raising=False)


@pytest.mark.parametrize(
    ("used", "whole", "mark", "full", "marked_at"),
    [
        (0, 4, 0, 0, None),
        (1, 4, 0, 5, None),
        (4, 4, 0, 20, None),
        (6, 4, 0, 20, None),
        (1, 1000, 0, 1, None),
        (999, 1000, 0, 19, None),
        (1, 4, 2, 5, 10),
    ],
)
def test_bar_shows_all_use_and_is_full_only_when_full(used: int, whole: int, mark: int, full: int, marked_at: int | None) -> None:
    text = bar(used, whole, mark)

    cells = text.replace("|", "")
    assert len(cells) == 20
    assert sum(cell in "█#" for cell in cells) == full
    assert (text.index("|") if "|" in text else None) == marked_at


def test_bar_without_a_limit_is_blank() -> None:
    assert bar(3, None) == ""


def test_queue_has_a_row_a_resource_and_its_name_once() -> None:
    two = (gpus(1, 2, 4), gpus(0, 0, None))

    rows = [row[:-1] for row in use_rows("research", view("research", None, *two))]

    assert rows == [("research", "GPU", "1", "2", "4"), ("", "GPU", "0", "", "no limit")]


def test_node_shows_what_it_has_even_when_nothing_is_used() -> None:
    rows = room_rows(("a", "here"), {"cpu": "2"}, {"cpu": "8", "memory": "16Gi"}, {})

    assert [row[:-1] for row in rows] == [("a", "here", "CPU", "2", "8"), ("", "", "memory", "0", "16Gi")]


def test_what_others_have_of_a_node_stands_beside_what_is_used() -> None:
    (row,) = room_rows(("a",), {"cpu": "2"}, {"cpu": "8"}, {"cpu": "500m", "nvidia.com/gpu": "1"})

    assert row[:-1] == ("a", "CPU", "2 + 500m of others", "8")


def test_queues_stand_below_their_parents_and_orphans_at_the_end() -> None:
    views = [view("b", "root"), view("lost", "hidden"), view("root"), view("c", "b")]

    assert [(depth, one.name) for depth, one in with_depth(views)] == [(0, "root"), (1, "b"), (2, "c"), (0, "lost")]


def test_value_may_hold_the_sign_that_separates_it() -> None:
    split = pairs("--env")

    context = click.Context(click.Command("x"))
    assert split(context, click.Option(["--env"]), ("A=b=c", "D=")) == {"A": "b=c", "D": ""}
