"""The simulator: traces read and made up, policies side by side, journals replayed both ways, and everything that is refused."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from tests.builders import run_cycle, start_all, state, submit
from tests.simulation.service import virtual
from tests.simulation.service import world as service_world
from tuttilab.scheduler.core.ordering.queues import check_tree
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Cluster, Node, Queue
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources
from tuttilab.scheduler.service.launch_plans import Secrets
from tuttilab.scheduler.simulation import (
    POLICIES,
    Outcome,
    Simulation,
    TraceJob,
    figures,
    generate,
    html_page,
    read_policy,
    read_site,
    read_trace,
    replay,
    shuffle_names,
    table,
    trace_lines,
)


def gpus(nodes: int = 2, each: int = 8) -> list[Cluster]:
    room = Resources.of({CPU: 64_000, MEMORY: 2**40, GPU: each})
    return [Cluster("gpu", "fake", tuple(Node(f"n{i}", "gpu", room) for i in range(nodes)))]


def simulate(trace: list[TraceJob], policy: str = "ours", queues: tuple[Queue, ...] = (Queue("main"),), nodes: int = 2) -> Outcome:
    return Simulation(gpus(nodes), queues, trace, POLICIES[policy], keeps_journal=True, sample_every=5).run()


def test_a_generated_trace_has_the_marginals_of_the_real_one() -> None:
    trace = generate(5000, 1.0, 64, 3)
    lengths = sorted(job.duration_s for job in trace)
    assert [lengths[2500], lengths[4500]] == pytest.approx([1144, 11266], rel=0.01)
    assert fmean(lengths) == pytest.approx(13136, rel=0.01)
    sizes = [job.gpus for job in trace]
    assert [sizes.count(size) / 5000 for size in (1, 2, 4, 8)] == [0.932, 0.022, 0.023, 0.02]
    assert sum(size >= 16 for size in sizes) == 15
    work = sum(job.gpus * job.duration_s for job in trace)
    assert work / 64 / max(job.submit_s for job in trace) == pytest.approx(1.0, rel=0.02)
    assert generate(200, seed=4) == generate(200, seed=4) != generate(200, seed=5)


def test_a_trace_survives_its_file() -> None:
    sets = (
        PodRequest(role="chief", cpus=2, gpus=1, gpu_type="a100"),
        PodRequest(role="ps", count=2, memory="2Gi", ends="with_job"),
    )
    trace = [
        *generate(50, seed=2),
        TraceJob("x,y", 10**6, 5.5, 4, 4, name='train "big", v2', owner="ann, bob", priority=-3, limit_s=60.5, min_count=2),
        TraceJob("z", 10**6, 5.5, labels={"gpu-model": "a100", "zone": "b=c"}, tolerations=("dedicated=ml:NoSchedule", "spot")),
        TraceJob("w", 10**6, 5.5, 1, 3, 4000, 6 * 2**30 - 1 * 2**30, pod_sets=sets),
    ]
    assert read_trace("".join(trace_lines(trace))) == trace


def test_a_trace_as_a_spreadsheet_writes_it_is_read() -> None:
    (job,) = read_trace('\ufeffjob_id,submit_s,duration_s,gpus,name\r\na,0,5,1,"x, y"\r\n')
    assert (job.job_id, job.name) == ("a", "x, y")


HEADER = "job_id,submit_s,duration_s,gpus\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("job_id,gpus\na,1\n", "t.csv, line 1: the columns submit_s, duration_s are missing"),
        (HEADER, "t.csv: it has no jobs"),
        (HEADER + "a,-1,5,1\n", "t.csv, line 2, submit_s: '-1' is not a time"),
        (HEADER + "a,0,5,1\nb,0,nan,1\n", "t.csv, line 3, duration_s: 'nan' is not a time"),
        (HEADER + "a,0,inf,1\n", "duration_s: 'inf' is not a time"),
        (HEADER + "a,0,0,1\n", "duration_s: '0' is not a time"),
        (HEADER + "a,0,5,1.5\n", "t.csv, line 2, gpus: '1.5' is not whole"),
        (HEADER + "a,0,5,-2\n", "gpus: '-2' is not an amount"),
        (HEADER + "a,0,5\n", "another number of fields"),
        (HEADER + "a,0,5,1\na,1,5,1\n", "job_id 'a' stands there twice"),
        (HEADER + ",0,5,1\n", "job_id: it is empty"),
        ("job_id,submit_s,duration_s,gpus,colour\na,0,5,1,red\n", "the columns colour are unknown"),
        ("job_id,submit_s,duration_s,gpus,pods\na,0,5,3,2\n", "cannot be shared out evenly"),
        ("job_id,submit_s,duration_s,gpus,pods\na,0,5,3,0\n", "pods: 0 is out of range"),
        ("job_id,submit_s,duration_s,gpus,memory\na,0,5,1,1Q\n", "t.csv, line 2, memory"),
        ("job_id,submit_s,duration_s,gpus,priority\na,0,5,1,high\n", "priority: 'high' is not whole"),
        ("job_id,submit_s,duration_s,gpus,priority\na,0,5,1,1%s\n" % ("0" * 400), "priority: 1000"),
        (HEADER + "a,0,5,%s\n" % ("9" * 5000), f"gpus: '{'9' * 79}… is not an amount"),
        (HEADER + "a,0,5,8589934592\n", "t.csv, line 2, gpus: 8589934592 is out of range; expected 0 to 1000000"),
        (HEADER + "a" * 200_000 + ",0,5,1\n", "t.csv, line 2: field larger than field limit"),
        (HEADER + "a,0,5,1\n" + "b" * 500 + ",0,5,1\n", "t.csv, line 3, job_id: 'bbbb"),
        (HEADER + "\x00,0,5,1\n", "t.csv, line 2, job_id: '\\x00' is not a name"),
        (HEADER + '"a,0,5,1\n', "t.csv, line 2: unexpected end of data"),
        (HEADER + "a,0,%s,1\n" % ("9" * 5000), "duration_s: '9999"),
        (
            "job_id,submit_s,duration_s,gpus,pods,min_count\na,0,5,4,4,5\n",
            "min_count: 5 is out of range; expected 1 to the number of pods (4)",
        ),
        ("job_id,submit_s,duration_s,gpus,labels\na,0,5,4,fast\n", "labels: 'fast' is no label"),
        ("job_id,submit_s,duration_s,gpus,tolerations\na,0,5,4,a=b:Never\n", "tolerations: 'a=b:Never' is no taint"),
        ("job_id,submit_s,duration_s,gpus,pod_sets\na,0,5,4,[{role: ps}]\n", "t.csv, line 2, gpus: it is told by pod_sets"),
        (
            "job_id,submit_s,duration_s,gpus,pod_sets\na,0,5,,[{rol: ps}]\n",
            "t.csv, line 2, pod_sets: unknown key pods[0].rol; did you mean 'role'?",
        ),
        (
            "job_id,submit_s,duration_s,gpus,pod_sets\na,0,5,,[{cpus: 0}]\n",
            "t.csv, line 2, pod_sets: pods[0].cpus: 0 is no CPU at all",
        ),
        ("job_id,submit_s,duration_s,gpus,pod_sets\na,0,5,,[{cpus: .nan}]\n", "'.nan' is no finite number"),
    ],
)
def test_a_bad_trace_is_refused_with_the_place_and_the_reason(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_trace(text, "t.csv")
    assert says in str(caught.value)


NODES = "nodes: [{name: n, cpus: 8, gpus: 2}]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nodes: []\n", "it has no nodes"),
        ("nodes: [{name: n, cpus: -1}]\n", "nodes[0].cpus: -1 is not an amount"),
        ("nodes: [{name: n, cpus: .nan}]\n", "c.yaml, line 1: '.nan' is no finite number"),
        ("nodes: [{name: n, cpus: 1, count: 0}]\n", "nodes[0].count: 0 is out of range"),
        ("nodes: [{name: n, cpus: 1, gpus: 0.5}]\n", "nodes[0].gpus: 0.5 is not whole"),
        ("nodes: [{name: n, cpus: 1}, {name: n, cpus: 1}]\n", "two nodes of one name"),
        (NODES + "queues: [{name: a, weight: 0}]\n", "queue 'a': weight 0 is not positive"),
        (NODES + "queues: [{name: a, weight: -3}]\n", "queue 'a': weight -3 is not positive"),
        (NODES + "queues: [{name: a, parent: b}, {name: b, parent: a}]\n", "form a loop"),
        (NODES + "queues: [{name: a, parent: z}]\n", "its parent 'z' is not there"),
        (NODES + "queues: [{name: a, guaranteed: {cpu: 3}, max: {cpu: 2}}]\n", "guaranteed 3 CPU is above its max 2 CPU"),
        (
            NODES + "queues: [{name: a, guaranteed: {cpu: 2}}, {name: b, parent: a, guaranteed: {cpu: 3}}]\n",
            "its children are guaranteed 3 CPU, more than its own 2 CPU",
        ),
        (NODES + "queues: [{name: a, overtaking: -1}]\n", "overtaking -1.0 is no amount"),
        (NODES + "queues: [{name: a, max_jobs: -1}]\n", "queues[0].max_jobs: -1 is negative"),
        (NODES + "queues: [{name: a, colour: red}]\n", "unknown key queues[0].colour"),
        (NODES + "queues: [{name: a, weight: 2, weight: 1}]\n", "c.yaml, line 2: the key 'weight' stands there twice"),
        (NODES + "queues:\n- {name: a, weight: 1%s}\n" % ("0" * 400), "c.yaml, line 3: '1000"),
        (NODES + "queues:\n- {name: a, overtaking: 1%s}\n" % ("0" * 400), "is too large a number"),
        (NODES + "queues: [{name: a, priority: 1%s}]\n" % ("0" * 5000), "c.yaml, line 2: '1000"),
        (NODES + "queues: [{name: a, overtaking: .inf}]\n", "c.yaml, line 2: '.inf' is no finite number"),
        (NODES + "queues: [{name: a, weight: 2000000}]\n", "queues[0].weight: 2000000 is out of range"),
        (NODES + "queues: [{name: ''}]\n", "queues[0].name: '' is not a name"),
        (
            NODES + "queues: [{name: a, clusters: [east]}]\n",
            "queues[0].clusters[0]: there is no cluster 'east'; expected one of cluster",
        ),
        (NODES + "queues: [{name: a, class_cap_s: -1}]\n", "class_cap_s -1.0 is no amount"),
        ("nodes: [{name: '', cpus: 1}]\n", "nodes[0].name: '' is not a name"),
        ("nodes: [{name: n, cpus: 1, cluster: ''}]\n", "nodes[0].cluster: '' is not a name"),
        ("nodes: [{name: n, cpus: 0}]\n", "nodes[0].cpus: 0 is none at all"),
        ("nodes: [{name: n, cpus: 1, memory: 0}]\n", "nodes[0].memory: 0 is none at all"),
        ("nodes: [{name: n, cpus: 1, taints: ['=x']}]\n", "nodes[0].taints[0]: '=x' is no taint"),
        ("nodes: [{name: n, cpus: 1, taints: [a:Never]}]\n", "nodes[0].taints[0]: 'a:Never' is no taint"),
        ("nodes: [{name: n, count: 3, cpus: 1, memory: 4096Pi}]\n", "the nodes together have"),
        ("nodes: [{name: n, count: 90000, cpus: 1}, {name: m, count: 90000, cpus: 1}]\n", "nodes[1].count: 90000 is out of range"),
        ("nodes: [{name: !!timestamp 2020-13-45, cpus: 1}]\n", "c.yaml, line 1: '2020-13-45' is too large or not of its type"),
        ("nodes: " + "[" * 3000, "c.yaml: it is nested too deeply"),
        ("nodes: []\n---\nnodes: []\n", "c.yaml: it holds 2 documents"),
        ("nodes: {", "mend the YAML there"),
        ("nodes: \x00", "c.yaml: it is not YAML"),
    ],
)
def test_a_bad_cluster_file_is_refused_with_the_place_and_the_reason(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_site(text, "c.yaml")
    assert says in str(caught.value)


def test_a_bad_policy_is_refused() -> None:
    with pytest.raises(BadInput, match="order: 'random' is not known; expected one of small-first, submission"):
        read_policy("order: random", "p.yaml")
    with pytest.raises(BadInput, match="policy: 'lottery' is not known"):
        read_policy("base: lottery", "p.yaml")
    assert read_policy("{base: ours, keep: nothing, name: x}", "p.yaml").rules.reservation == "nothing"


def test_a_refused_tree_changes_nothing() -> None:
    one = state()
    before = dict(one.queues)
    with pytest.raises(BadInput):
        one.handle(ev.QueuesConfigured((Queue("a", overtaking=float("nan")),)), 1.0)
    assert (dict(one.queues), one.take_changes().queues) == (before, tuple(before.values()))
    with pytest.raises(BadInput, match="negative"):
        check_tree([Queue("a", max=Resources((("cpu", -1),)))])


def test_a_node_that_vanishes_takes_nothing_new_and_its_gangs_go_on() -> None:
    room = Resources.of({CPU: 4000, MEMORY: 2**36})
    both = Cluster("here", "fake", (Node("a", "here", room), Node("b", "here", room)))
    one = state([both])
    old = submit(one, cpus=4)
    run_cycle(one)
    start_all(one, old.id)
    one.handle(ev.ClusterObserved(replace(both, nodes=both.nodes[1:])), 1.0)
    new, more = submit(one, cpus=4, at=2.0), submit(one, cpus=4, at=2.0)
    (admitted,) = run_cycle(one, 3.0)[0].admitted
    assert admitted.placements[0].node == "b"
    assert {one.jobs[job.id].phase for job in (old, new)} == {"Active"}
    assert more.id in one.waits
    one.check_invariants()


def test_B13_a_simulated_journal_replays_in_the_state_with_the_same_decisions() -> None:
    queues = (Queue("main", guaranteed=Resources.of({GPU: 8})), Queue("other", weight=2))
    trace = [replace(job, queue=("main", "other")[i % 2]) for i, job in enumerate(generate(250, 1.3, 16, seed=6)) if job.gpus <= 16]
    outcome = simulate(trace, queues=queues)
    again = replay(outcome.journal)
    assert again.differing == ()
    assert again.cycles > 100
    assert all(again.state.jobs[ran.job.job_id].phase == ran.phase for ran in outcome.ran if ran.job.job_id in again.state.jobs)


class FineWeather(service_world.Simulation):
    """The real service, a store and a cluster that do their work; people submit and cancel, and pods are killed."""

    def crash(self, life: service_world.Life | None = None) -> None:
        pass

    def halt(self) -> None:
        pass

    def change_weather(self) -> None:
        pass

    def freeze_pod(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(3))
def test_B13_the_journal_of_a_service_replays_in_the_simulator_with_the_same_decisions(seed: int, tmp_path: Path) -> None:
    again = replay(_journal(FineWeather, seed, tmp_path))
    assert again.differing == ()
    assert again.cycles >= 30


class RoughWeather(service_world.Simulation):
    """With everything but failed commits: what was decided on a turn that was never written is in no journal."""

    def change_weather(self) -> None:
        super().change_weather()
        self.commit_failure = 0.0


def test_B13_so_do_those_of_services_that_crash_and_lose_their_clusters(tmp_path: Path) -> None:
    runs = [replay(_journal(RoughWeather, seed, tmp_path)) for seed in range(4)]
    assert sum(again.cycles for again in runs) >= 120
    # Elastic gangs with equal claims may stand in another order after a restart.
    assert sum(len(again.differing) for again in runs) <= 6


def _journal(world: type[service_world.Simulation], seed: int, folder: Path) -> list[tuple[ev.Event, float]]:
    Secrets.in_folder(folder)

    async def lived() -> service_world.Store:
        one = world(seed, folder)
        await one.run(250)
        return one.store

    return [(event, at) for at, event in virtual.run(lived()).lines()]


def test_B13_a_replay_finds_decisions_that_the_scheduler_would_not_take() -> None:
    # Node n1 is told to be there for the decisions, and is not in the journal that is read.
    trace = [TraceJob("a", 0, 100, 8, 8), TraceJob("b", 1, 100, 8, 8), TraceJob("c", 2, 10, 8, 8)]
    journal = simulate(trace).journal
    (small,) = gpus(1)
    changed = [(ev.ClusterObserved(small) if isinstance(event, ev.ClusterObserved) else event, at) for event, at in journal]
    first = replay(changed).differing[0]
    assert (first.at, str(first)) == (1, "At 1.000 the journal says b starts on gpu (n1), and the cycle decides nothing.")
    # One that was left out: c could have started at 100 s already.
    late = [(event, at + 5 if isinstance(event, ev.GangAdmitted) and event.job_id == "c" else at) for event, at in journal]
    assert [str(each) for each in replay(late).differing] == []
    never = [(event, at) for event, at in journal if not isinstance(event, ev.GangAdmitted) or event.job_id != "b"]
    assert "c starts on gpu" in str(replay(never).differing[0])


def test_B05_policies_stand_side_by_side_on_one_trace() -> None:
    trace = generate(300, 1.3, 16, seed=1)
    trace = [job for job in trace if job.gpus <= 16]
    outcomes = [simulate(trace, name) for name in POLICIES]
    rows = {row.policy: row for row in map(figures, outcomes)}
    assert all(row.ended == len(trace) for row in rows.values())
    assert rows["ours"].mean_jct_s < rows["fifo"].mean_jct_s
    assert rows["easy"].mean_jct_s <= rows["fifo"].mean_jct_s
    text = table(rows.values(), rows["easy"])
    assert [line.split()[0] for line in text.splitlines()] == ["policy", *POLICIES]
    drawn = html_page(outcomes, text)
    assert drawn.count("<svg") == 2
    assert "http" not in drawn


def test_strict_fifo_lets_nobody_pass() -> None:
    trace = [TraceJob("a", 0, 100, 9, 9), TraceJob("b", 1, 10, 16, 16), TraceJob("c", 2, 10, 1)]
    starts = {ran.job.job_id: ran.started_at for ran in simulate(trace, "fifo").ran}
    assert starts == {"a": 0, "b": 100, "c": 110}
    assert {r.job.job_id: r.started_at for r in simulate(trace, "easy").ran} == {"a": 0, "b": 100, "c": 2}


@pytest.mark.parametrize(("policy", "c_starts"), [("easy", 2), ("easy-predicted", 110), ("sjf-oracle", 2)])
def test_only_a_policy_that_is_told_the_durations_knows_them(policy: str, c_starts: float) -> None:
    # Seven cores are free beside a for a hundred seconds: enough for c, of which history says nothing.
    trace = [TraceJob("a", 0, 100, 9, 9), TraceJob("b", 1, 10, 16, 16), TraceJob("c", 2, 90, 1)]
    ran = {each.job.job_id: each.started_at for each in simulate(trace, policy).ran}
    assert (ran["c"], ran["b"]) == (c_starts, 100)


@pytest.mark.parametrize("seed", range(3))
def test_S06_every_gang_starts_and_big_ones_are_not_starved(seed: int) -> None:
    trace = [job for job in generate(400, 1.2, 16, seed) if job.gpus <= 16]
    ours, skipping = figures(simulate(trace)), figures(simulate(trace, "besteffort"))
    assert ours.ended == len(trace)
    assert ours.max_wait_s < 3 * max(skipping.max_wait_s, 86_400)


def test_shuffled_names_keep_everything_but_who_is_who() -> None:
    trace = generate(300, seed=1)
    mixed = shuffle_names(trace, 2)
    assert [(j.submit_s, j.duration_s, j.gpus) for j in mixed] == [(j.submit_s, j.duration_s, j.gpus) for j in trace]
    assert sorted((j.owner, j.name) for j in mixed) == sorted((j.owner, j.name) for j in trace)
    assert [j.name for j in mixed] != [j.name for j in trace]
