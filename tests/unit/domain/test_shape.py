"""What is refused of a request before anything is built from it, and that long requests are read as short ones are."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from tuttilab.scheduler.api.schema import BODIES, BatchRequest
from tuttilab.scheduler.domain import shape, wire
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, NodeRequest, RunRequest

JOB: dict[str, Any] = {
    "command": ["sh", "-c", 'echo "a, b" \\ [{'],
    "env": {"A": "1", "é\n": "[1, 2]"},
    "pods": [{"role": "worker", "cpus": 1.5, "min_count": None, "tolerations": ["a"]}, {"role": "ps", "gpus": 1}],
    "inputs": [{"path": "x"}, {"path": "y", "artifact": "a" * 64}],
    "priority": -3,
    "sidecar": False,
}


def refusal(cls: type, text: bytes) -> str:
    with pytest.raises(BadInput) as refused:
        wire.parse_json(cls, text, "it")
    return str(refused.value)


@pytest.mark.parametrize(
    ("cls", "text", "sentence"),
    [
        (JobRequest, b'{"pods": [' + b"{}," * 256 + b"{}]}", "it: pods: more than 256 are given; expected at most 256."),
        (JobRequest, b'{"command": [' + b'"a",' * 16384 + b'""]}',
         "it: command: more than 16384 are given; expected at most 16384."),
        (JobRequest, b'{"pods": [{"role": "a"}, {"role": [1]}]}', "it: pods[1].role: input should be a valid string."),
        (JobRequest, b'{"pods": [1, 2, 3]}', "it: pods[0]: input should be an object (given: 1)."),
        (JobRequest, b'{"env": {"A": 1}}', "it: env.A: input should be a valid string (given: 1)."),
        (JobRequest, b'{"env": []}', "it: env: input should be an object."),
        (JobRequest, b'{"retries": null}', "it: retries: input should be a valid integer (given: None)."),
        (JobRequest, b'{"retries": true}', "it: retries: input should be a valid integer (given: True)."),
        (JobRequest, b'{"sidecar": 1}', "it: sidecar: input should be a valid boolean (given: 1)."),
        (JobRequest, b'{"po\\u0064s": [{"cpu": 1}]}', "it: unknown key pods[0].cpu; did you mean 'cpus'?"),
        (JobRequest, b'{"retries": 1, "retries": 2}', "it: retries: it is given twice; leave one of them out."),
        (JobRequest, b'{"inputs": [{}]}', "it: inputs[0].path: field required."),
        (JobRequest, b'{"retries": 9223372036854775808}',
         "it: retries: the number 9223372036854775808 is too large; expected at most 9223372036854775807."),
        (JobRequest, b'{"retries": 7' + b"\xf0\x9f" * 200 + b"}",
         "it: retries: the number 7" + "\ufffd" * 23 + "… is too large; expected at most 9223372036854775807."),
        (RunRequest, b'{"dag": {"name": "d", "nodes": [{"name": "n", "jobs": {}}]}}',
         "it: unknown key dag.nodes[0].jobs; did you mean 'job'?"),
        (wire.PodReport, b'{"members": [{}, {}]}', "it: members[0].pod: field required."),
        (JobRequest, b"[" * 100_000, "it: input should be an object."),
        (JobRequest, b'{"name": "a', "it: invalid json: eof while parsing a string at line 1 column 11."),
        (JobRequest, b"", "it: invalid json: eof while parsing a value at line 1 column 0."),
    ],
)  # fmt: skip
def test_the_first_thing_that_is_wrong_is_told(cls: type, text: bytes, sentence: str) -> None:
    assert refusal(cls, text) == sentence


def test_a_deep_value_where_any_is_allowed_is_refused() -> None:
    with pytest.raises(BadInput, match="nested too deeply"):
        shape.check(dict, b"[" * 1000, "it")


def test_what_lies_within_the_limits_is_read() -> None:
    labels = {str(number): "" for number in range(64)}
    text = json.dumps({**JOB, "labels": labels, "command": ["a"] * 16384})

    read = wire.parse_json(JobRequest, text, "it")

    assert (len(read.command), read.labels, read.env) == (16384, labels, JOB["env"])


@pytest.mark.parametrize("cls", BODIES)
def test_every_list_and_object_of_a_request_has_a_limit(cls: type) -> None:
    unlimited = []

    def walk(one: Any, path: str) -> None:
        for name in ("item", "value"):
            if hasattr(one, name):
                unlimited.extend([path] if one.most is None else [])
                walk(getattr(one, name), f"{path}[]")
        for key, inner in getattr(one, "keys", {}).items():
            walk(inner, f"{path}.{key}")

    walk(shape.shape_of(cls), cls.__name__)

    assert unlimited == []


LONG = 600
CASES: list[tuple[type, dict[str, Any]]] = [
    (BatchRequest, {"keys": [str(number) for number in range(LONG)], "jobs": [{**JOB, "retries": n} for n in range(LONG)]}),
    (DagRequest, {"nodes": [{"name": f"n{n}", "job": {**JOB, "workdir": "x" * 200}} for n in range(300)], "name": "d"}),
    (RunRequest, {"dag": {"name": "d", "nodes": [{"name": f"n{n}", "job": {**JOB, "name": "x" * 300}} for n in range(300)]}}),
    (JobRequest, {**JOB, "workdir": "x" * wire.WHOLE_BYTES}),
]


@pytest.mark.parametrize(("cls", "data"), CASES)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_long_request_is_read_as_a_short_one_is(cls: type, data: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(data, indent=indent).encode()
    assert len(text) > wire.WHOLE_BYTES

    assert wire.parse_json(cls, text, "it") == wire.adapter(cls).validate_json(text)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (b'"retries": 599', b'"retries": 1.5', "it: jobs[599].retries: input should be a valid integer"),
        (b'}, {"command"', b'} {"command"', "it: invalid json: expected `,` or `]`"),
        (b'}, {"command"', b'},, {"command"', "it: invalid json: expected value"),
        (b'"jobs": [', b'"jobs": [,', "it: invalid json: expected value"),
        (b'"retries": 599}]', b'"retries": 599},]', "it: invalid json: trailing comma"),
        (b'"sidecar": false', b'"sidecar": falsy', "it: jobs[0]: invalid json: expected ident"),
    ],
)
def test_an_error_in_a_long_request_is_told_as_in_a_short_one(before: bytes, after: bytes, sentence: str) -> None:
    text = json.dumps(CASES[0][1]).encode()
    assert before in text

    assert refusal(BatchRequest, text.replace(before, after, 1)).startswith(sentence)


def test_the_schema_tells_the_limits() -> None:
    properties = wire.adapter(JobRequest).json_schema()["properties"]

    assert (properties["pods"]["maxItems"], properties["env"]["maxProperties"]) == (256, 2000)
    assert {one.name for one in fields(NodeRequest)} == set(wire.adapter(NodeRequest).json_schema()["properties"])


@pytest.mark.parametrize("end", [0, 1, 20, 40, 63])
def test_a_beginning_is_refused_for_what_stands_there_and_not_for_where_it_ends(end: int) -> None:
    text = b'{"name": "a \\" [ b", "priority": 12, "command": ["echo", "{}"], "pods": [{"cpus": 1, "count": null}]}'
    for cut in range(end, len(text), 64):
        shape.check_beginning(JobRequest, text[:cut], "job")

    with pytest.raises(BadInput, match="job: pods: more than 256 are given"):
        shape.check_beginning(JobRequest, b'{"pods": [' + b"{}," * 300, "job")
    with pytest.raises(BadInput, match="unknown key nam; did you mean 'name'"):
        shape.check_beginning(JobRequest, b'{"nam": "x', "job")
