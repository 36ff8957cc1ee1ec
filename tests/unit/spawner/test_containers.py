"""What a pod's state means for the user of its server: one sentence with the cluster's own words, or none while all is well."""

from __future__ import annotations

from typing import Any

import pytest

from tuttilab.spawner.containers import problem_of, words_of

SPEC = {"containers": [{"name": "notebook", "resources": {"limits": {"memory": "67108864"}}}]}


def pod(state: dict[str, Any] | None = None, name: str = "notebook", **status: Any) -> dict[str, Any]:
    containers = [{"name": name, "image": "reg.example/lab:1", "state": state}] if state is not None else []
    return {"metadata": {}, "spec": SPEC, "status": {"phase": "Pending", "containerStatuses": containers, **status}}


def waiting(reason: str, message: str = "why") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def said(shown: dict[str, Any], *, is_late: bool = True) -> str | None:
    found = problem_of(shown, is_late=is_late)
    return found.sentence if found is not None else None


@pytest.mark.parametrize(
    "shown",
    [
        pod(),
        pod(waiting("ContainerCreating")),
        pod({"running": {}}, phase="Running"),
        pod(ended(0, "Completed")),
        pod(ended(0, "Completed"), name="prepare"),
        pod(ended(137, "OOMKilled")) | {"metadata": {"deletionTimestamp": "now"}},
    ],
)
def test_a_pod_that_comes_or_runs_or_was_asked_to_end_is_no_problem(shown: dict[str, Any]) -> None:
    assert said(shown) is None


@pytest.mark.feature("N12")
@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (
            pod(waiting("ErrImagePull", "not found")),
            "image 'reg.example/lab:1' cannot be pulled on this cluster (ImagePullBackOff: not found); "
            "check its name, and that the nodes may pull it",
        ),
        (
            pod(waiting("InvalidImageName")),
            "image 'reg.example/lab:1' cannot be pulled on this cluster (InvalidImageName: why); "
            "check its name, and that the nodes may pull it",
        ),
        (
            pod(waiting("CreateContainerConfigError", "subpath leads out")),
            "the container of image 'reg.example/lab:1' cannot be made (CreateContainerConfigError: subpath leads out)",
        ),
        (
            pod(ended(137, "OOMKilled")),
            "the server used more memory than it has (64Mi) and was killed (OOMKilled); choose a profile with more",
        ),
        (
            pod(ended(127, "StartError", "no such file")),
            "the server could not start in image 'reg.example/lab:1' (StartError: no such file)",
        ),
        (
            pod(ended(128, "StartError", "exec format error")),
            "the server is for another kind of machine than its node (exec format error); "
            "choose an image for the nodes' architecture",
        ),
        (
            pod(waiting("ErrImagePull", "no match for platform in manifest")),
            "image 'reg.example/lab:1' is for another kind of machine than its node (no match for platform in manifest); "
            "choose an image for the nodes' architecture",
        ),
        (pod(ended(2, "Error")), "the server ended with code 2 (Error)"),
        (pod(ended(3, "Error"), name="prepare"), "container prepare ended with code 3 before the server could start (Error)"),
        (
            pod(phase="Failed", reason="OutOfcpu", message="too many"),
            "its node did not run the pod (OutOfcpu: too many); start it again",
        ),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]),
            "the cluster did not place it on the node that was chosen (Unschedulable: 0/2 nodes); start it again",
        ),
    ],
)
def test_what_keeps_a_server_from_running_is_one_sentence(shown: dict[str, Any], sentence: str) -> None:
    assert said(shown) == sentence


@pytest.mark.parametrize(
    "shown",
    [
        pod(waiting("ImagePullBackOff")),
        pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]),
    ],
)
def test_what_may_come_by_itself_is_waited_for(shown: dict[str, Any]) -> None:
    assert said(shown, is_late=False) is None
    assert said(shown, is_late=True) is not None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"message": "pods is\\nforbidden"}', "pods is forbidden"),
        ("<html>", ""),
        (None, ""),
        ("[1]", ""),
        ('{"message": null}', ""),
    ],
)
def test_a_refusal_of_the_api_server_is_its_words(answer: str | bytes | None, words: str) -> None:
    assert words_of(answer) == words
