"""Manifests: what a YAML file of jobs means, and what it is refused for."""

import pytest

from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.manifests import parse_manifests
from tuttilab.scheduler.requests import InputRequest, JobRequest, OutputRequest, PodRequest

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

pytestmark = pytest.mark.feature("J14")


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


def test_documents_of_a_file_keep_their_order() -> None:
    text = "kind: Job\nname: a\ncommand: [x]\n---\n# nothing here\n---\nkind: Job\nname: b\ncommand: [y]\n"

    assert [request.name for request in parse_manifests(text, "two.yaml", JobRequest)] == ["a", "b"]


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
