"""The request made from the options of `tuttilab submit`."""

from typing import Any

import pytest

from tuttilab.scheduler.cli.submit import request_of
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, OutputRequest, PodRequest


def test_options_become_one_pod_set() -> None:
    options = {"name": "train", "cpus": "2", "memory": "4Gi", "gpus": "1", "workers": "2", "timeout": "10m", "retries": "3"}

    assert request_of(("python", "train.py"), options, "/home/me") == JobRequest(
        name="train",
        pods=(PodRequest(count=2, cpus="2", memory="4Gi", gpus="1"),),
        command=("python", "train.py"),
        workdir="/home/me",
        timeout="10m",
        retries=3,
    )


def test_command_alone_takes_its_name_from_the_program() -> None:
    request = request_of(("/usr/bin/python3", "train.py"), {}, "/w")

    assert request == JobRequest(name="python3", command=("/usr/bin/python3", "train.py"), workdir="/w")


def test_inputs_are_paths_of_the_current_directory_and_outputs_of_the_result_directory() -> None:
    request = request_of(("x",), {"inputs": ("a.csv", "/b.csv"), "outputs": {"model": "m.pt"}}, "/w")

    assert request.inputs == (InputRequest(path="/w/a.csv"), InputRequest(path="/b.csv"))
    assert request.outputs == (OutputRequest(name="model", path="m.pt"),)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gpus": "1.5"}, "--gpus: '1.5' is not whole; expected a whole number such as 0, 1 or 4."),
        ({"memory": "5Q"}, "--memory: '5Q' has the unknown unit 'Q'; expected bytes such as 512Mi, 8Gi or 16G."),
        ({"cpus": "-1"}, "--cpus: '-1' is not an amount; expected cores such as 2, 0.5 or 1500m."),
        ({"workers": "0"}, "--workers: '0' starts nothing; expected 1 or more."),
        (
            {"timeout": "1y"},
            "--timeout: '1y' is not a duration; expected one such as 90s, 10m, 1h30m or 2d, up to ten years.",
        ),
    ],
)
def test_invalid_amount_is_refused_naming_the_option(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        request_of(("x",), options, "/w")

    assert str(refusal.value) == sentence


@pytest.mark.parametrize("command", [(), ("",)])
def test_empty_command_is_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as refusal:
        request_of(command, {}, "/w")

    sentence = "The command after -- is empty; expected a program and its arguments, such as `-- python train.py`."
    assert str(refusal.value) == sentence
