"""Manifests: the requests that are read from YAML, and the errors of invalid files."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tuttilab.scheduler.client.manifests import parse_manifests, read, write
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import (
    DagRequest,
    InputRequest,
    JobRequest,
    NodeRequest,
    OutputRequest,
    PodRequest,
    VariableRequest,
)

MNIST = """
kind: Job
name: mnist
queue: research
pods:
  - {role: worker, count: 2, cpus: 4, memory: 16Gi, gpus: 1}
image: registry.example/train:1.4
command: [python, train.py]
env: {DAY: 2026-11-22}
inputs:  [{path: /workspace/mnist.parquet}]
outputs: [{name: model, path: model.pt}]
timeout: 2h
retries: 1
"""


@pytest.mark.feature("S01")
def test_job_of_the_documentation_is_read() -> None:
    assert parse_manifests(MNIST, "mnist.yaml", JobRequest) == [
        JobRequest(
            name="mnist",
            queue="research",
            pods=(PodRequest(role="worker", count=2, cpus=4, memory="16Gi", gpus=1),),
            image="registry.example/train:1.4",
            command=("python", "train.py"),
            env={"DAY": "2026-11-22"},
            inputs=(InputRequest(path="/workspace/mnist.parquet"),),
            outputs=(OutputRequest(name="model", path="model.pt"),),
            timeout="2h",
            retries=1,
        )
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpus: 1", "unknown key gpus; GPUs are written as `pods: [{gpus: 1}]` here."),
        ("pods: [{gpu: 1}]", "unknown key pods[0].gpu; GPUs are written as `gpus: 1` here."),
    ],
)
def test_where_gpus_are_written_is_said_to_who_writes_them_elsewhere(text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        parse_manifests(f"kind: Job\ncommand: [x]\n{text}\n", "m.yaml", JobRequest)


def test_documents_of_a_file_keep_their_order() -> None:
    text = "kind: Job\nname: a\ncommand: [x]\n---\n# nothing here\n---\nkind: Job\nname: b\ncommand: [y]\n"

    assert [request.name for request in parse_manifests(text, "two.yaml", JobRequest)] == ["a", "b"]


@pytest.mark.feature("S01")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Job\nnme: x", "j.yaml: unknown key nme; did you mean 'name'?"),
        ("kind: Job\npods: [{gpuss: 1}]", "j.yaml: unknown key pods[0].gpuss; did you mean 'gpus'?"),
        ("kind: Job\n---\nkind: Job\nquue: x", "j.yaml, document 2: unknown key quue; did you mean 'queue'?"),
        ("kind: Dag\nname: x", "j.yaml: kind: 'Dag' goes to `tuttilab dag run`; expected `kind: Job` here."),
        ("kind: Dug\nname: x", "j.yaml: kind: 'Dug' is not a kind of manifest; did you mean 'Dag'?"),
        ("kind: job", "j.yaml: kind: 'job' is not a kind of manifest; did you mean 'Job'?"),
        ("name: x", "j.yaml: the key kind is missing; expected `kind: Job`."),
        ("- a\n- b", "j.yaml: expected a mapping that begins with `kind: Job`."),
        ("", "j.yaml: it is empty; expected a document that begins with `kind: Job`."),
        ("kind: Job\nkind: Job", "j.yaml, line 2: the key 'kind' stands there twice; mend the YAML there."),
        ("kind: Job\nname: [x", "j.yaml, line 2: expected ',' or ']', but got '<stream end>'; mend the YAML there."),
        ("kind: !!python/object:os.system x", "j.yaml, line 1: could not determine a constructor for the tag"),
        ("kind: Job\npods: [{count: true}]", "j.yaml: pods[0].count: input should be a valid integer (given: True)."),
        ("kind: Job\nenv: {A: 1}", "j.yaml: env.A: input should be a valid string (given: 1)."),
    ],
)
def test_refusal_names_file_place_and_remedy(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parse_manifests(text, "j.yaml", JobRequest)

    assert str(refusal.value).startswith(sentence)


CONTAINER = """
kind: Job
name: container
cluster: k
image: registry.example/train@sha256:00
pods: [{count: 2, gpus: 1, node_labels: {pool: ml}, tolerations: ["dedicated=ml:NoSchedule"], resources: {rdma/hca: 1}}]
command: [python, train.py]
sidecar: false
"""
GRAPH = """
kind: Dag
name: nightly
queue: research
variables: {day: {type: string, default: "2026-11-22"}}
nodes:
  - {name: features, spark_sql: "SELECT * FROM raw WHERE day = '${day}'", save: line.parquet, cpus: 2, memory: 4Gi}
  - name: train
    after: [features]
    ignore_fail: true
    job: {pods: [{role: worker, count: 2, cpus: "500m"}], command: [python, train.py]}
"""
SPARK = "kind: Dag\nname: sql\nnodes: [{name: a, spark_sql: SELECT 1, save: a.parquet}]\n"


@pytest.mark.feature("S01")
def test_a_job_in_containers_is_read() -> None:
    pod = PodRequest(
        count=2,
        gpus=1,
        node_labels={"pool": "ml"},
        tolerations=("dedicated=ml:NoSchedule",),
        resources={"rdma/hca": 1},
    )
    assert parse_manifests(CONTAINER, "c.yaml", JobRequest) == [
        JobRequest(
            name="container",
            cluster="k",
            image="registry.example/train@sha256:00",
            pods=(pod,),
            command=("python", "train.py"),
            sidecar=False,
        )
    ]


@pytest.mark.feature("S01")
def test_a_graph_with_sql_on_spark_and_a_gang_is_read() -> None:
    train = JobRequest(pods=(PodRequest(role="worker", count=2, cpus="500m"),), command=("python", "train.py"))
    assert parse_manifests(GRAPH, "g.yaml", DagRequest) == [
        DagRequest(
            name="nightly",
            queue="research",
            variables={"day": VariableRequest(type="string", default="2026-11-22")},
            nodes=(
                NodeRequest(
                    name="features",
                    spark_sql="SELECT * FROM raw WHERE day = '${day}'",
                    save="line.parquet",
                    cpus=2,
                    memory="4Gi",
                ),
                NodeRequest(name="train", after=("features",), ignore_fail=True, job=train),
            ),
        )
    ]
    assert parse_manifests(SPARK, "s.yaml", DagRequest)[0].nodes == (NodeRequest(name="a", spark_sql="SELECT 1", save="a.parquet"),)


def parse_jobs(text: str) -> list[JobRequest]:
    return parse_manifests(text, "m.yaml", JobRequest)


def parse_graphs(text: str) -> list[DagRequest]:
    return parse_manifests(text, "m.yaml", DagRequest)


@pytest.mark.feature("S01")
@pytest.mark.parametrize(
    ("text", "right", "wrong", "sentence"),
    [
        (CONTAINER, "gpus: 1", "gpus: [1]", "m.yaml: pods[0].gpus: "),
        (CONTAINER, "{pool: ml}", "{pool: 3}", "m.yaml: pods[0].node_labels.pool: input should be a valid string (given: 3)."),
        (CONTAINER, "sidecar: false", "sidecr: false", "m.yaml: unknown key sidecr; did you mean 'sidecar'?"),
        (SPARK, "spark_sql: SELECT 1", "spark_sql: 1", "m.yaml: nodes[0].spark_sql: input should be a valid string (given: 1)."),
        (SPARK, "save:", "saev:", "m.yaml: unknown key nodes[0].saev; did you mean 'save'?"),
        (GRAPH, "count: 2", "count: two", "m.yaml: nodes[1].job.pods[0].count: input should be a valid integer"),
        (GRAPH, "command:", "comand:", "m.yaml: unknown key nodes[1].job.comand; did you mean 'command'?"),
        (GRAPH, "type: string", "typ: string", "m.yaml: unknown key variables.day.typ; did you mean 'type'?"),
    ],
)
def test_a_wrong_field_of_a_container_of_sql_and_of_a_graph_is_named_by_its_path(
    text: str, right: str, wrong: str, sentence: str
) -> None:
    assert right in text
    changed = text.replace(right, wrong)

    with pytest.raises(BadInput) as refusal:
        (parse_graphs if "kind: Dag" in text else parse_jobs)(changed)

    assert str(refusal.value).startswith(sentence)


def full_request() -> JobRequest:
    return JobRequest(
        name="größe",
        group="research",
        queue="research",
        priority=5,
        pods=(
            PodRequest(role="chief", cpus="500m", memory="2Gi"),
            PodRequest(
                role="worker", count=4, min_count=2, cpus="2", gpus=1, node_labels={"zone": "a"}, tolerations=("ml:NoSchedule",)
            ),
        ),
        command=("sh", "-c", "echo one\necho ${HOME}"),
        env={"DAY": "2026-11-22", "N": "1", "EMPTY": ""},
        workdir="/work",
        inputs=(InputRequest(path="/data/a"), InputRequest(path="b", artifact="0" * 64)),
        outputs=(OutputRequest(name="model", path="model.pt", optional=True),),
        framework="torch",
        timeout="7200s",
        retries=2,
        labels={"team": "x"},
    )


@pytest.mark.feature("J17")
def test_a_written_manifest_is_read_as_the_same_request_and_written_the_same(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(write(full_request()))

    (again,) = read(file, JobRequest)

    assert again == replace(full_request(), pods=(again.pods[0], replace(full_request().pods[1], cpus=2)))
    assert write(again) == write(full_request())


def test_a_written_manifest_leaves_secrets_out_and_says_so() -> None:
    request = JobRequest(command=("x",), env={"API_TOKEN": "abc", "DATABASE": "postgres://me:abc@host/db", "DAY": "1"})

    text = write(request)

    assert "abc" not in text
    assert text.startswith("# Left out of env, as they may be secret: API_TOKEN, DATABASE\nkind: Job\n")
    assert "DAY: '1'" in text


@pytest.mark.parametrize(
    ("line", "workdir"),
    [
        ("", "{folder}"),
        ("workdir: .", "{folder}"),
        ("workdir: src/part", "{folder}/src/part"),
        ("workdir: ../beside", "{parent}/beside"),
        ("workdir: '~'", "{home}"),
        ("workdir: ~/data", "{home}/data"),
        ("workdir: /abs", "/abs"),
        ("workdir: ''", ""),
        ("workdir: $(RESULT_DIR)", "$(RESULT_DIR)"),
    ],
)
def test_folders_of_a_job_and_of_a_graph_are_relative_to_the_manifest(tmp_path: Path, line: str, workdir: str) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    expected = workdir.format(folder=folder, parent=tmp_path, home=Path.home())
    (folder / "job.yaml").write_text(f"kind: Job\ncommand: [x]\ninputs: [{{path: a.csv}}]\n{line}\n")
    node = f"nodes: [{{name: a, job: {{command: [x], {line}}}}}]"
    (folder / "dag.yaml").write_text(f"kind: Dag\nname: d\n{node}\n")

    (job,) = read(folder / "job.yaml", JobRequest)
    (dag,) = read(folder / "dag.yaml", DagRequest)

    assert (job.workdir, job.inputs) == (expected, (InputRequest(path=f"{folder}/a.csv"),))
    assert dag.workdir == str(folder)
    in_graph = dag.nodes[0].job
    assert in_graph is not None
    assert in_graph.workdir == (expected if line else None)


def test_an_image_has_folders_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("kind: Job\ncommand: [x]\nimage: a/b\ninputs: [{path: a.csv}]\n")

    (job,) = read(tmp_path / "job.yaml", JobRequest)

    assert (job.workdir, job.inputs) == (None, (InputRequest(path="a.csv"),))


def test_the_submitters_environment_is_not_part_of_a_manifest() -> None:
    with pytest.raises(BadInput, match="unknown key inherited; did you mean 'env'"):
        parse_manifests("kind: Job\ncommand: [x]\ninherited: {A: b}", "j.yaml", JobRequest)
