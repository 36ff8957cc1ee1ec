"""From options to requests and keys."""

import hashlib
import os
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.submission.capture import capture
from tuttilab.magics.submission.request import Executions, Options, Submission, check_syntax, elements_of, prepare
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import OutputRequest, PodRequest


def prepared(options: Options | None = None, **more: Any) -> Submission:
    return prepare("x + 1", "<%%submit In[1]>", capture({"x": [1, 2]}), options or Options(), lambda digest: digest[:40], **more)


def test_options_become_a_request() -> None:
    options = Options(
        name="train", cpus="2", memory="4Gi", gpus="1", gpu_type="a100", workers=3, min_workers=2, queue="q", priority=5,
        timeout=90.2, retries=2, after=("j1",), cluster="here", env={"A": "1"}, framework="torch", labels={"cell": "c"},
    )  # fmt: skip
    submission = prepared(options)
    (request,) = submission.requests
    assert (PodRequest(role="worker", count=3, min_count=2, cpus="2", memory="4Gi", gpus="1", gpu_type="a100"),) == request.pods
    assert (sys.executable, "$(TUTTILAB_CODE_DIR)/runner.py") == request.command
    assert hashlib.sha256(submission.bundle).hexdigest() == request.code
    assert os.getcwd() == request.workdir
    assert (
        OutputRequest(name="result", path="result.pkl", optional=True),
        OutputRequest(name="error", path="error.json", optional=True),
        OutputRequest(name="display", path="display.jsonl", optional=True),
    ) == request.outputs
    assert request.timeout == 91
    assert (
        request.name, request.queue, request.priority, request.retries, request.after, request.cluster, request.env,
        request.framework, request.labels,
    ) == ("train", "q", 5, 2, ("j1",), "here", {"A": "1"}, "torch", {"cell": "c"})  # fmt: skip


def test_an_image_brings_its_own_interpreter_and_directory() -> None:
    (request,) = prepared(Options(image="i:1")).requests
    assert (request.command[0], request.workdir, request.image) == ("python3", None, "i:1")


def test_more_min_workers_than_workers_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^--min-workers 3 is more than --workers 2; give at most that\.$"):
        prepared(Options(workers=2, min_workers=3))


def test_a_map_is_one_bundle_and_a_request_an_element() -> None:
    submission = prepared(Options(name="s"), map_name="x", elements=2)
    assert len({request.code for request in submission.requests}) == 1
    assert [dict(r.env) for r in submission.requests] == [{"TUTTILAB_MAP_INDEX": "0"}, {"TUTTILAB_MAP_INDEX": "1"}]
    sweep = submission.requests[0].labels["sweep"]
    assert [f"s-{sweep}[0]", f"s-{sweep}[1]"] == [request.name for request in submission.requests]
    assert len(set(submission.keys)) == 2


def test_one_execution_sent_again_has_the_same_key() -> None:
    again = Executions()
    again.begin()
    first = again.stem("message-1", "digest")
    # The same message delivered a second time begins anew.
    again.begin()
    assert first == again.stem("message-1", "digest")


def test_another_execution_another_body_and_a_loop_have_keys_of_their_own() -> None:
    executions = Executions()
    executions.begin()
    stems = {executions.stem("m1", "d"), executions.stem("m1", "d"), executions.stem("m1", "other")}
    executions.begin()
    stems.add(executions.stem("m2", "d"))
    assert len(stems) == 4


def test_without_a_front_end_each_cell_run_counts_as_an_execution() -> None:
    executions = Executions()
    executions.begin()
    first = executions.stem(None, "d")
    executions.begin()
    assert first != executions.stem(None, "d")


def test_a_syntax_error_has_the_editors_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        check_syntax("ok = 1\n1 +", "<%%submit In[1]>")
    assert (caught.value.lineno, caught.value.filename) == (3, "<%%submit In[1]>")


@pytest.mark.parametrize(
    ("value", "elements"), [((1, 2), [1, 2]), (range(3), [0, 1, 2]), ([None], [None]), (np.array([1.5, 2.5]), [1.5, 2.5])]
)
def test_elements_of_what_has_an_order(value: Any, elements: list[Any]) -> None:
    assert elements == elements_of("xs", value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("abc", "--map xs is a str; expected a list, a tuple, a range or an array: use list(...) of what each job shall get."),
        ({"a": 1}, "--map xs is a dict; expected a list, a tuple, a range or an array: use list(...) of what each job shall get."),
        (pd.DataFrame(), '--map xs is a DataFrame; expected a list, a tuple, a range or an array: use df.to_dict("records").'),
        (7, "--map xs is a int without a length; expected a list, a tuple, a range or an array."),
        (iter([1]), "--map xs is a list_iterator without a length; expected a list, a tuple, a range or an array."),
        ([], "--map xs has 0 elements; expected 1 to 10,000."),
        (range(10_001), "--map xs has 10,001 elements; expected 1 to 10,000."),
    ],
)
def test_what_has_no_elements_in_order_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        elements_of("xs", value)
    assert sentence == str(caught.value)
