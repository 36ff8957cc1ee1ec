"""`tuttilab simulate` as people type it: a table and a page, and every bad file refused before anything runs."""

import json
from pathlib import Path

import pytest

from tuttilab.scheduler.cli.root import run

CLUSTER = "nodes: [{name: gpu, count: 2, cpus: 64, memory: 1Ti, gpus: 8}]\nqueues: [{name: main}]\n"
TRACE = "job_id,submit_s,duration_s,gpus,pods\na,0,100,16,16\nb,1,50,16,16\nc,2,10,1,1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CLUSTER)
    (tmp_path / "t.csv").write_text(TRACE)
    return tmp_path


def simulate(folder: Path, *words: str) -> int:
    return run(["simulate", "--cluster", str(folder / "c.yaml"), "--trace", str(folder / "t.csv"), *words])


def test_S18_policies_are_compared_in_one_table_and_drawn_on_one_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "page.html"
    assert simulate(folder, "--compare", "fifo,besteffort,easy,sjf-oracle,ours", "--plot", str(page)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["policy", "fifo", "besteffort", "easy", "sjf-oracle", "ours"]
    drawn = page.read_text()
    assert drawn.count("<svg") == 2
    assert all(line in drawn for line in lines)


def test_B13_figures_are_data_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(folder, "--compare", "fifo", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    # a from 0 to 100, b from 100 to 150, c from 150 to 160.
    expected = {
        "policy": "fifo",
        "ended": 3,
        "mean_jct_s": (100 + 149 + 158) / 3,
        "p50_jct_s": 149,
        "p99_jct_s": 158,
        "mean_wait_s": (0 + 99 + 148) / 3,
        "p99_wait_s": 148,
        "max_wait_s": 148,
        "makespan_s": 160,
        "preemptions": 0,
        "decisions": 3,
    }
    assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert 0.9 < row["utilisation"] <= 1


def test_B13_a_generated_trace_can_be_kept_and_run_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = folder / "kept.csv"
    assert run(["simulate", "--jobs", "30", "--seed", "3", "--write-trace", str(kept)]) == 0
    assert capsys.readouterr().out == f"wrote 30 jobs to {kept}\n"
    assert run(["simulate", "--trace", str(kept), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ended"] == 30


def test_B13_a_trace_written_from_a_trace_says_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "job_id,submit_s,duration_s,gpus,name,priority,limit_s\n"
    (folder / "t.csv").write_text(head + 'a,0,100,8,"x,y",0,\nb,1,50,16,z,5,20\nc,1,10,16,z,0,\n')
    assert simulate(folder, "--json") == 0
    before = json.loads(capsys.readouterr().out)
    assert simulate(folder, "--write-trace", str(folder / "kept.csv")) == 0
    (folder / "kept.csv").replace(folder / "t.csv")
    capsys.readouterr()
    assert simulate(folder, "--json") == 0
    after = json.loads(capsys.readouterr().out)
    del before[0]["decisions_per_s"], after[0]["decisions_per_s"]
    assert after == before


def test_jobs_that_never_start_are_told_below_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text("nodes: [{name: n, cpus: 64, gpus: 1}]\n")
    assert simulate(folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ours: 2 of 3 jobs never end, as they fit on no nodes or quota: a, b"


@pytest.mark.parametrize(
    ("name", "content", "words", "says"),
    [
        ("t.csv", b"job_id,gpus\na,1\n", (), "t.csv, line 1: the columns submit_s, duration_s are missing"),
        ("t.csv", b"job_id,submit_s,duration_s,gpus\na,-1,5,1\n", (), "t.csv, line 2, submit_s: '-1' is not a time"),
        ("t.csv", b"\xff\xfe\x00", (), "t.csv: byte 0 is not UTF-8; expected a text file"),
        (
            "t.csv",
            b"job_id,submit_s,duration_s,gpus,queue\na,0,5,1,z\n",
            (),
            "trace: there is no queue 'z' for jobs; expected one of main",
        ),
        ("c.yaml", b"nodes: []\n", (), "c.yaml: it has no nodes"),
        ("c.yaml", b"nodes: [{name: n, cpus: 1}]\nqueues: [{name: a, weight: 0}]\n", (), "queue 'a': weight 0 is not positive"),
        ("c.yaml", b"\xff", (), "c.yaml: byte 0 is not UTF-8"),
        ("p.yaml", b"order: random\n", ("--policy", "p.yaml"), "p.yaml: order: 'random' is not known"),
        ("p.yaml", b"", ("--compare", "fifo,lottery"), "policy: 'lottery' is not known; expected one of fifo"),
        ("p.yaml", b"", ("--plot", "nowhere/page.html"), "the folder"),
        ("p.yaml", b"order: fifo\norder: fifo\n", ("--policy", "p.yaml"), "p.yaml, line 2: the key 'order' stands there twice"),
        ("p.yaml", b"", ("--load", "nan"), "Invalid value for '--load': nan is not in the range"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, words: tuple[str, ...], says: str
) -> None:
    (folder / name).write_bytes(content)
    given = [str(folder / word) if word.endswith((".yaml", ".html")) else word for word in words]
    before = sorted(folder.rglob("*"))
    assert simulate(folder, *given) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert (told.out, sorted(folder.rglob("*"))) == ("", before)
