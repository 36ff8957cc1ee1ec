"""`tuttilab simulate` as people type it: a table and a page, and every bad file refused before anything runs."""

import csv
import json
import re
import shlex
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


def test_B05_policies_are_compared_in_one_table_and_drawn_on_one_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "page.html"
    assert simulate(folder, "--compare", "fifo,besteffort,easy,sjf-oracle,ours", "--plot", str(page)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["policy", "fifo", "besteffort", "easy", "sjf-oracle", "ours"]
    drawn = page.read_text()
    assert drawn.count("<svg") == 2
    assert all(line in drawn for line in lines)


def test_figures_are_data_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_generated_trace_can_be_kept_and_run_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = folder / "kept.csv"
    assert run(["simulate", "--jobs", "30", "--seed", "3", "--write-trace", str(kept)]) == 0
    assert capsys.readouterr().out == f"wrote 30 jobs to {kept}\n"
    assert run(["simulate", "--trace", str(kept), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ended"] == 30


def test_a_trace_written_from_a_trace_says_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


Runs = dict[str, dict[str, str]]


def runs(folder: Path, cluster: str, trace: str, events: str = "") -> Runs:
    """What `--write-runs` tells of each job."""
    (folder / "c.yaml").write_text(cluster)
    (folder / "t.csv").write_text(trace)
    (folder / "e.yaml").write_text(events or "events: []")
    assert simulate(folder, "--events", str(folder / "e.yaml"), "--write-runs", str(folder / "runs.csv")) == 0
    with (folder / "runs.csv").open(newline="") as file:
        return {row["job_id"]: row for row in csv.DictReader(file)}


def told(ran: Runs, *keys: str) -> list[tuple[str, ...]]:
    return [tuple(row[key] for key in ("job_id", *keys)) for row in ran.values()]


TWO = "nodes: [{name: n, cpus: 8, cluster: east}, {name: n, cpus: 8, cluster: west}]\n"
HEAD = "job_id,submit_s,duration_s,gpus,cpu"


def test_S11_a_queue_is_drained_to_another_cluster_while_its_jobs_run_on(folder: Path) -> None:
    ran = runs(
        folder,
        TWO + "queues: [{name: main, clusters: [east], max: {cpu: 8}}]",
        f"{HEAD}\na,0,200,0,4\nb,50,500,0,4\nc,150,100,0,4\nd,160,100,0,4\n",
        "events: [{at_s: 100, queues: [{name: main, clusters: [west], max: {cpu: 8}}]}]",
    )
    # c waits for the limit that a and b use up on east, not for room on west.
    assert told(ran, "phase", "cluster", "started_s", "attempts") == [
        ("a", "Succeeded", "east", "0.000", "1"),
        ("b", "Succeeded", "east", "50.000", "1"),
        ("c", "Succeeded", "west", "200.000", "1"),
        ("d", "Succeeded", "west", "300.000", "1"),
    ]


@pytest.mark.feature("A04")
def test_S12_jobs_go_where_their_gpu_type_labels_and_tolerations_lead_them(folder: Path) -> None:
    ran = runs(
        folder,
        "nodes:\n"
        "- {name: big, cpus: 8, gpus: 2, labels: {gpu-model: a100}, cluster: west}\n"
        "- {name: small, cpus: 8, gpus: 2, labels: {gpu-model: t4}}\n"
        "- {name: ssd, cpus: 8, labels: {disk: ssd, zone: z1}}\n"
        "- {name: ours, cpus: 8, gpus: 8, labels: {gpu-model: a100}, taints: [dedicated=ml:NoSchedule]}\n",
        "job_id,submit_s,duration_s,gpus,gpu_type,labels,tolerations,pod_sets\n"
        "a,0,10,2,a100,,,\n"
        "b,0,10,1,t4,,,\n"
        "c,0,10,0,,disk=ssd;zone=z1,,\n"
        "d,0,10,8,,,dedicated=ml,\n"
        "e,0,10,8,,,dedicated=other,\n"
        'f,20,10,,,,,"[{role: chief, gpus: 1, gpu_type: t4}, {role: ps, count: 2, cpus: 4, ends: with_job}]"\n',
    )
    assert told(ran, "phase", "cluster", "nodes") == [
        ("a", "Succeeded", "west", "big"),
        ("b", "Succeeded", "cluster", "small"),
        ("c", "Succeeded", "cluster", "ssd"),
        ("d", "Succeeded", "cluster", "ours"),
        ("e", "Queued", "", ""),
        ("f", "Succeeded", "cluster", ran["f"]["nodes"]),
    ]
    assert set(ran["f"]["nodes"].split(";")) == {"small", "ssd"}


def test_S13_a_lost_cluster_keeps_its_jobs_and_the_others_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = f"{HEAD}\na,0,100,0,8\nb,0,60,0,8\nc,70,100,0,8\nd,80,10,0,8\n"
    ran = runs(folder, TWO, trace, "events: [{at_s: 50, lost: east}, {at_s: 300, back: east}]")
    assert told(ran, "cluster", "started_s", "ended_s", "attempts") == [
        ("a", "east", "0.000", "300.000", "1"),
        ("b", "west", "0.000", "60.000", "1"),
        ("c", "west", ran["c"]["started_s"], ran["c"]["ended_s"], "1"),
        ("d", "west", ran["d"]["started_s"], ran["d"]["ended_s"], "1"),
    ]
    capsys.readouterr()
    ran = runs(folder, TWO, trace, "events: [{at_s: 50, lost: east}]")
    assert (ran["a"]["phase"], ran["c"]["phase"], ran["d"]["phase"]) == ("Active", "Succeeded", "Succeeded")
    assert capsys.readouterr().out.splitlines()[-1] == "ours: 1 of 4 jobs never end, as their cluster stays lost: a"


def test_S16_an_elastic_gang_gives_its_borrowed_pods_back(folder: Path) -> None:
    ran = runs(
        folder,
        "nodes: [{name: n, count: 8, cpus: 1}]\nqueues: [{name: a, guaranteed: {cpu: 4}}, {name: b, guaranteed: {cpu: 4}}]",
        "job_id,submit_s,duration_s,gpus,pods,cpu,min_count,queue\nlong,0,1000,0,8,8,2,a\nother,100,50,0,4,4,,b\n",
    )
    assert told(ran, "attempts", "started_s", "given_back") == [("long", "1", "0.000", "4"), ("other", "1", "105.000", "0")]


def test_a_higher_class_and_a_cancel_are_told_in_the_runs(folder: Path) -> None:
    ran = runs(
        folder,
        "nodes: [{name: n, cpus: 8}]",
        "job_id,submit_s,duration_s,gpus,cpu,priority\nlow,0,1000,0,8,0\nhigh,100,50,0,8,5\ngone,101,50,0,8,0\n",
        "events: [{at_s: 120, cancel: gone}]",
    )
    assert told(ran, "phase", "started_s", "attempts") == [
        ("low", "Succeeded", ran["low"]["started_s"], "2"),
        ("high", "Succeeded", "105.000", "1"),
        ("gone", "Cancelled", "", "0"),
    ]
    assert float(ran["low"]["ended_s"]) == 1155


def test_the_files_of_the_guide_are_read(folder: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "simulator.md").read_text()
    site, events = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (pods,) = re.findall(r'`("\[\{role: .*?\]")`', text)
    trace = f"job_id,submit_s,duration_s,gpus,queue,pod_sets\njob-17,4999,9000,,production,{pods}\nb,0,50,1,research,\n"
    events = events.replace("name: main, clusters: [west]", "name: production}, {name: research, clusters: [west]")
    ran = runs(folder, site, trace, events)
    assert told(ran, "phase", "nodes") == [("b", "Succeeded", "gpu-0"), ("job-17", "Cancelled", "gpu-0")]


def test_the_commands_of_the_guide_run_as_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "simulator.md").read_text()
    (folder / "site.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    (folder / "jobs.csv").write_text("job_id,submit_s,duration_s,gpus,queue\na,0,50,8,research\nb,1,50,16,production\n")
    monkeypatch.chdir(folder)
    commands = re.findall(r"^tuttilab (simulate .*)$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert run(shlex.split(command)) == 0, command
    assert "t000164 (" in capsys.readouterr().out
    assert "<h2" in (folder / "page.html").read_text()


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
        ("e.yaml", b"- {at_s: 1, lost: cluster}", ("--events", "e.yaml"), "e.yaml: "),
        ("e.yaml", b"events: [{at_s: 1}]", ("--events", "e.yaml"), "e.yaml: events[0]: it says nothing; expected one of"),
        (
            "e.yaml",
            b"events: [{at_s: 1, lost: a, cancel: b}]",
            ("--events", "e.yaml"),
            "e.yaml: events[0]: it says lost and cancel",
        ),
        ("e.yaml", b"events: [{at_s: -1, lost: cluster}]", ("--events", "e.yaml"), "events[0].at_s: -1 is not a time"),
        ("e.yaml", b"events: [{at_s: .nan, lost: cluster}]", ("--events", "e.yaml"), "e.yaml, line 1: '.nan' is no finite number"),
        ("e.yaml", b"events: [{at_s: 1, lost: mars}]", ("--events", "e.yaml"), "events[0].lost: there is no cluster 'mars'"),
        ("e.yaml", b"events: [{at_s: 1, cancel: z}]", ("--events", "e.yaml"), "events[0].cancel: the trace has no job 'z'"),
        (
            "e.yaml",
            b"events: [{at_s: 1, queues: [{name: x}]}]",
            ("--events", "e.yaml"),
            "events[0].queues: there is no queue 'main'",
        ),
        ("e.yaml", b"events: [{at_s: 1, queue: x}]", ("--events", "e.yaml"), "unknown key events[0].queue; did you mean 'queues'?"),
        (
            "p.yaml",
            b"",
            ("--trace", "lottery"),
            "there is no file 'lottery', and it is no generator; expected a CSV file or one of gene",
        ),
        ("p.yaml", b"", ("--trace", "recurring:load=much"), "trace recurring, load: 'much' is no number or out of range"),
        ("p.yaml", b"", ("--explain", "nobody"), "--explain: the trace has no job 'nobody'; expected the job_id of one"),
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
