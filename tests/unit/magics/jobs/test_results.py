"""A failed job in the notebook: its own lines, short, in whatever shape the job left them."""

import json
from typing import Any, cast

import pytest

from tests.unit.magics.builders import NOW, a_job, a_pod, an_attempt, an_ended_job
from tuttilab.magics.jobs.results import LIMIT_BYTES, RemoteError, failure_of
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.wire import JobView, LogView

CELL = "<%%submit In[5]>"


class Service:
    """Has one artifact and one line of log."""

    def __init__(self, error: object, line: str = "") -> None:
        self.error = error
        self.line = line

    def get_artifact(self, artifact: str) -> bytes:
        assert artifact == "e" * 64
        return self.error if isinstance(self.error, bytes) else json.dumps(self.error).encode()

    def logs(self, job: str, *, rank: int) -> LogView:
        return LogView(pod="p", rank=rank, start=0, lines=(self.line,), next=1, is_end=True)


def frame(
    line: int, code: str, around: dict[int, str] | None = None, file: str = CELL, function: str = "<module>"
) -> dict[str, Any]:
    lines = around or {line: code}
    return {"file": file, "line": line, "function": function, "code": code, "around": lines, "own": file.startswith("<")}


def reported(*frames: dict[str, Any], message: str = "division by zero") -> dict[str, Any]:
    return {"type": "ZeroDivisionError", "message": message, "frames": list(frames), "traceback": "Traceback …\nall of it"}


def failed(**more: Any) -> JobView:
    return an_ended_job(a_pod(phase="Ended", exit_code=1, reason="Error", outputs={"error": "e" * 64}, **more))


def failure(error: object, view: JobView | None = None, line: str = "") -> RemoteError:
    found = failure_of(cast(Client, Service(error, line)), view or failed(), rank=0)
    assert found is not None
    return found


@pytest.mark.feature("B15")
def test_the_cells_own_lines_are_shown_with_the_failing_one_marked() -> None:
    around = {1: "# %%submit", 2: "a = 1", 3: "a / 0", 4: "b = 2"}
    error = failure(reported(frame(3, "a / 0", around)))
    assert error.short().splitlines() == [
        "ZeroDivisionError: division by zero",
        "<%%submit In[5]>, line 3",
        "      2 a = 1",
        "-->   3 a / 0",
        "      4 b = 2",
        "In job 3f2a9c12 'train'; `%job 3f2a9c12 logs` shows what it printed, %tb the whole trace.",
    ]


@pytest.mark.feature("B15")
def test_a_function_of_another_cell_is_shown_with_all_its_lines() -> None:
    helper = frame(2, "    return a / b", {1: "def ratio(a, b):", 2: "    return a / b"}, "<In[4]>", "ratio")
    library = frame(99, "raise", file="/lib/numpy/x.py", function="f")
    error = failure(reported(frame(2, "ratio(1, 0)", {1: "# %%submit", 2: "ratio(1, 0)"}), helper, library))
    assert error.short().splitlines()[1:-1] == [
        "<%%submit In[5]>, line 2",
        "-->   2 ratio(1, 0)",
        "<In[4]>, line 2, in ratio",
        "      1 def ratio(a, b):",
        "-->   2     return a / b",
    ]


@pytest.mark.feature("B15")
def test_lines_of_libraries_are_folded_and_shown_when_asked_again() -> None:
    error = failure(reported(frame(3, "np.f(x)"), frame(99, "raise", file="/lib/numpy/x.py", function="f")))
    assert "numpy/x.py" not in "\n".join(error._render_traceback_())
    assert error._render_traceback_()[:2] == ["Traceback …", "all of it"]


@pytest.mark.feature("B15")
def test_it_stays_under_a_kilobyte_whatever_the_job_says() -> None:
    long = "é" * 2000
    error = failure(reported(*(frame(n, long, {n: long, n + 1: long}, function=long) for n in range(2, 60)), message=long))
    assert len(error.short().encode()) <= LIMIT_BYTES
    assert error.short().startswith("ZeroDivisionError: éé")
    assert error.short().endswith("%tb the whole trace.")


def test_an_error_in_a_library_called_by_nothing_of_ours_shows_its_last_line() -> None:
    error = failure(reported(frame(1, "a", file="/lib/a.py"), frame(2, "b()", file="/lib/b.py")))
    assert "/lib/b.py, line 2" in error.short()
    assert "/lib/a.py" not in error.short()


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b'{"type": 1}', {"type": "E", "message": "m", "frames": [3], "traceback": ""}, b'"text"', b"null"]
)
def test_what_has_not_the_shape_of_an_error_gives_the_sentence_of_the_end(body: object) -> None:
    sentence = "job 3f2a9c12 'train' ended with exit code 1; `%job 3f2a9c12 logs` shows what it printed."
    assert str(failure(body)) == sentence
    assert failure(body)._render_traceback_() == [sentence]


def test_success_is_no_failure() -> None:
    assert failure_of(cast(Client, Service(b"")), an_ended_job(a_pod(), phase="Succeeded"), 0) is None


@pytest.mark.feature("B14")
def test_other_versions_are_named_as_the_job_named_them() -> None:
    view = an_ended_job(a_pod(phase="Ended", exit_code=78, reason="Error"))
    assert str(failure(b"", view, "The notebook runs Python 3.11 and the job's image Python 3.12: choose another.\n")) == (
        "job 3f2a9c12 'train': The notebook runs Python 3.11 and the job's image Python 3.12: choose another."
    )


def test_in_a_gang_the_first_member_that_failed_explains_the_others() -> None:
    pods = (
        a_pod(0, phase="Ended", exit_code=1, reason="Error", ended_at=NOW, outputs={"error": "x" * 64}),
        a_pod(1, phase="Ended", exit_code=1, reason="Error", ended_at=NOW - 3, outputs={"error": "e" * 64}),
    )
    view = a_job(phase="Failed", is_ended=True, ended_at=NOW, attempts=(an_attempt(*pods),))
    assert failure(reported(frame(3, "a / 0")), view).type_name == "ZeroDivisionError"
