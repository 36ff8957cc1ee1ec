"""The story of one waiting gang: what was held for it, who went past it by which promise; as text, as data and as a page."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.simulation.test_simulator import gpus
from tuttilab.scheduler.cli.root import run
from tuttilab.scheduler.domain.model import Promise, Queue
from tuttilab.scheduler.simulation import (
    POLICIES,
    Simulation,
    Story,
    TraceJob,
    Watch,
    html_page,
    story,
    story_lines,
    story_section,
)

HOSTILE = '"><script>alert(1)</script>\x1b[31m&amp;'


def told(trace: list[TraceJob], job_id: str, policy: str = "easy", nodes: int = 1) -> tuple[Story, str]:
    """The story, and the page."""
    watch = Watch(job_id)
    outcome = Simulation(gpus(nodes), (Queue("main"),), trace, POLICIES[policy], watch=watch).run()
    one = story(watch, outcome)
    return one, html_page([outcome], "", [story_section(one, outcome, gpus(nodes), 1)])


def trace(limit_s: float | None = None) -> list[TraceJob]:
    """`wide` waits for all of the node, behind `long`; `short` fits beside that until then, `late` does not."""
    return [
        TraceJob("long", 0, 100, 4, owner="ann", name="train"),
        TraceJob("wide", 1, 10, 8, owner="bob", name="wide"),
        TraceJob("short", 2, 50, 4, limit_s=limit_s),
        TraceJob("late", 3, 500, 1),
    ]


def test_B02_the_story_tells_the_hold_and_who_went_past_by_which_promise() -> None:
    one, _ = told(trace(), "wide")
    assert (one.submitted, one.started, one.nodes) == (1, 100, ("n0",))
    # From its first cycle on the node is held for it, for when `long` ends.
    assert [(moment.at, kept.cluster, kept.nodes, kept.start) for moment, kept in one.kept] == [(1, "gpu", ("n0",), 100)]
    assert (one.moves(), one.node_changes()) == ((0, 0), 0)
    (short,) = one.passed
    assert (short.job_id, short.at, short.promise) == ("short", 2, Promise.PREDICTION)
    assert (short.predicted_end, short.kept_start, short.ended, short.is_late) == (52, 100, 52, False)
    assert one.gpu_seconds() == 4 * 50
    assert [said.start for said in one.told][:1] == [100]


def test_a_promise_that_was_not_kept_is_told() -> None:
    quick = [TraceJob(f"quick{number}", number * 700, 10, 4, name="quick") for number in range(5)]
    slow = [TraceJob(f"slow{number}", number * 700, 600, 4, name="slow") for number in range(5)]
    late = [
        TraceJob("long", 5000, 600, 4, name="slow"),
        TraceJob("wide", 5001, 10, 8, name="wide"),
        TraceJob("liar", 5002, 3000, 4, name="quick"),
    ]
    one, page = told([*quick, *slow, *late], "wide", "easy-predicted")
    (liar,) = one.passed
    assert liar.is_late
    assert one.started == 8002
    text = "\n".join(story_lines(one))
    assert "1 of those that were to end before its start ended after it." in text
    assert "too late" in text
    assert one.moves()[0] >= 1
    assert "too late" in page


def test_a_gang_before_which_room_is_held_for_another_says_for_whom() -> None:
    jobs = [
        TraceJob("long", 0, 100, 4),
        TraceJob("first", 1, 10, 8, owner="ann", name="one"),
        TraceJob("second", 2, 10, 8),
        TraceJob("small", 3, 20, 4),
    ]
    one, _ = told(jobs, "second")
    assert one.moments[0].behind == "first (one of ann)"
    assert one.passed[0].promise is Promise.FITS
    assert [kept.start for _, kept in one.kept] == [pytest.approx(110)]


def test_what_only_its_limit_lets_past_and_what_stands_before_it() -> None:
    jobs = [
        *(TraceJob(f"past{number}", 10.0 * number, 5, 1, name="small") for number in range(3)),
        TraceJob("long", 100, 1000, 8, name="long"),
        TraceJob("wide", 101, 1000, 8, name="wide"),
        TraceJob("small", 102, 5, 1, name="small"),
    ]
    one, _ = told(jobs, "wide", "sjf-oracle")
    assert [(each.job_id, each.promise) for each in one.passed] == [("small", Promise.ORDER)]


def test_watching_changes_no_decision() -> None:
    def starts(watch: Watch | None) -> list[float | None]:
        outcome = Simulation(gpus(1), (Queue("main"),), trace(60.0), POLICIES["ours"], watch=watch).run()
        return [ran.started_at for ran in outcome.ran]

    assert starts(Watch("wide")) == starts(None)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_for_all_readers_and_takes_names_as_text() -> None:
    jobs = [
        TraceJob("long", 0, 100, 4, owner=HOSTILE, name=HOSTILE),
        TraceJob("wide", 1, 10, 8, owner=HOSTILE, name=HOSTILE),
        TraceJob(HOSTILE, 2, 50, 4, owner=HOSTILE, name=HOSTILE),
    ]
    one, text = told(jobs, "wide")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "a"} & {tag for tag, _ in page.tags}
    assert "http" not in text
    assert "\x1b" not in text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "prefers-color-scheme:dark" in text
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.all("svg"))
    regions = [attributes for attributes in page.all("div") if attributes.get("role") == "region"]
    assert [attributes["tabindex"] for attributes in regions] == ["0", "0"]
    assert len(page.all("table")) == len(page.all("caption")) == 2
    assert {attributes["scope"] for attributes in page.all("th")} == {"col", "row"}
    kinds = {attributes.get("class") for attributes in page.all("rect")}
    assert {"own", "before", "backfill", "hold"} <= kinds
    assert len(page.all("path")) == 1
    assert "\x1b" not in "\n".join(story_lines(one))


def test_the_command_explains_a_job_of_the_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("job_id,submit_s,duration_s,gpus\nlong,0,100,4\nwide,1,10,8\nshort,2,50,4\n")
    words = ["simulate", "--nodes", "1", "--trace", str(tmp_path / "t.csv"), "--compare", "easy,ours"]
    page = tmp_path / "page.html"
    assert run([*words, "--explain", "wide", "--plot", str(page)]) == 0
    text = capsys.readouterr().out
    assert "easy: wide (job of someone): 8 GPUs in one pod, waited 1m39s, ran on gpu." in text
    assert "1: was predicted to end before its start, 0.1 GPU-hours" in text
    assert page.read_text().count('<section class="story"') == 2
    assert run([*words, "--explain", "wide", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["policy"], one["explained"]["job_id"]) for one in told] == [("easy", "wide"), ("ours", "wide")]
    assert run([*words, "--explain", "nobody"]) == 2
    assert "--explain: the trace has no job 'nobody'; expected the job_id of one." in capsys.readouterr().err
