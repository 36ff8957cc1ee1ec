"""A captured cell in the job's interpreter: its result, its error with its own lines, and a gang that trains with xgboost."""

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from tests.contract.clusters import all_lines, plan, watching
from tests.integration.local.test_pods import keep
from tuttilab.magics.jobs.results import Returned, unpack
from tuttilab.magics.submission.bundle import starter
from tuttilab.magics.submission.capture import capture
from tuttilab.scheduler.clusters.base import Cluster
from tuttilab.scheduler.domain.model import Framework, Output

CELL = "<cell In[5] 3f2a>"
VERSIONS = {"python": sys.version.split()[0], "cloudpickle": cloudpickle.__version__}


@dataclass
class Ran:
    exit_code: int
    output: str
    result: dict[str, Any] | None
    """``value``, and ``out``: the names."""
    returned: Returned | None
    shown: list[dict[str, Any]]
    error: dict[str, Any] | None


def pack(folder: Path, cell: str, inputs: dict[str, Any] | None = None, **about: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in starter().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(body)
    (folder / "cell.py").write_text(cell)
    (folder / "bundle.json").write_text(
        json.dumps({**VERSIONS, "cell_name": CELL, "out": [], "framework": "none", "map_index": None, **about})
    )
    if inputs is not None:
        (folder / "inputs.pkl").write_bytes(capture(inputs).pickled)


def run(folder: Path, cell: str, inputs: dict[str, Any] | None = None, env: dict[str, str] | None = None, **about: Any) -> Ran:
    pack(folder, cell, inputs, **about)
    results = folder / "results"
    results.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(folder / "runner.py")],
        env={**os.environ, "RESULT_DIR": str(results), **(env or {})},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    left, error, shown = results / "result.pkl", results / "error.json", results / "display.jsonl"
    returned = unpack(left.read_bytes(), "the cell", "") if left.exists() else None
    return Ran(
        done.returncode,
        done.stdout + done.stderr,
        {"value": returned.value, "out": dict(returned.names)} if returned is not None else None,
        returned,
        [json.loads(line) for line in shown.read_text().splitlines()] if shown.exists() else [],
        json.loads(error.read_text()) if error.exists() else None,
    )


def test_last_expression_and_named_variables_come_back(tmp_path: Path) -> None:
    ran = run(tmp_path, "m = [n + 1]\nprint('seen', __name__)\nsum(m)\n", {"n": 41}, out=["m"])

    assert (ran.exit_code, ran.output, ran.result) == (0, "seen __main__\n", {"value": 42, "out": {"m": [42]}})


def test_cell_that_ends_in_a_statement_has_no_value(tmp_path: Path) -> None:
    assert run(tmp_path, "x = 1\n").result == {"value": None, "out": {}}


def test_what_the_cell_defines_comes_back_by_value(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        "class A:\n    def __init__(self, n):\n        self.n = n\n    def twice(self):\n        return 2 * self.n\nA(21)\n",
    )

    assert ran.result is not None
    assert ran.result["value"].twice() == 42


@pytest.mark.feature("B15")
def test_error_shows_the_cells_own_lines_only(tmp_path: Path) -> None:
    ran = run(tmp_path, "# %%submit\ndef f(x):\n    return 1 / x\n\nf(0)\n")

    assert (ran.exit_code, ran.result) == (1, None)
    assert ran.error is not None
    assert (ran.error["type"], ran.error["message"]) == ("ZeroDivisionError", "division by zero")
    frames = [(frame["file"], frame["line"], frame["function"], frame["code"]) for frame in ran.error["frames"]]
    assert frames == [(CELL, 5, "<module>", "f(0)"), (CELL, 3, "f", "    return 1 / x")]
    assert ran.error["frames"][1]["around"] == {"1": "# %%submit", "2": "def f(x):", "3": "    return 1 / x", "5": "f(0)"}
    assert ran.output == ran.error["traceback"]
    assert "runner.py" not in ran.output


def test_syntax_error_names_its_line(tmp_path: Path) -> None:
    ran = run(tmp_path, "x = 1\nif x\n")

    assert ran.error is not None
    assert ran.error["type"] == "SyntaxError"
    assert [(frame["line"], frame["code"]) for frame in ran.error["frames"]] == [(2, "if x")]


@pytest.mark.parametrize(
    ("cell", "exit_code"),
    [("import sys\nsys.exit(5)", 5), ("raise SystemExit", 0), ("raise SystemExit('no')", 1), ("import os\nos._exit(9)", 9)],
)
def test_exit_of_the_cell_is_the_jobs(tmp_path: Path, cell: str, exit_code: int) -> None:
    assert run(tmp_path, cell).exit_code == exit_code


def test_value_that_cannot_be_sent_is_named(tmp_path: Path) -> None:
    ran = run(tmp_path, "import threading\ngood = 1\nlock = threading.Lock()\n", out=["good", "lock"])

    assert ran.exit_code == 1
    assert ran.error is not None
    assert ran.error["message"].startswith("The cell ran, but variable lock (a _thread.lock) cannot be sent back: TypeError")


def test_variable_that_the_cell_did_not_set_is_named(tmp_path: Path) -> None:
    ran = run(tmp_path, "x = 1", out=["y"])

    assert ran.error is not None
    assert ran.error["message"] == "--out y: the cell has set no variable y."


@pytest.mark.feature("B14")
@pytest.mark.parametrize(("key", "version"), [("python", "2.7.18"), ("cloudpickle", "1.6.0")])
def test_other_versions_are_refused_before_anything_is_read(tmp_path: Path, key: str, version: str) -> None:
    about: dict[str, Any] = {key: version}
    ran = run(tmp_path, "print('ran')", **about)

    assert ran.exit_code == 78
    assert version in ran.output
    assert VERSIONS[key] in ran.output
    assert ran.output.count("\n") == 1


@pytest.mark.parametrize("cell", ["name = input('who? ')", "import getpass\ngetpass.getpass()"])
def test_a_question_to_nobody_is_one_sentence_with_the_way_out(tmp_path: Path, cell: str) -> None:
    ran = run(tmp_path, cell)

    assert ran.error is not None
    assert ran.error["type"] == "EOFError"
    assert ran.error["message"].endswith(
        "() in a job has nobody to ask: assign the answer to a variable in a cell before, which the job then takes along, "
        "or give it with --env."
    )
    assert ran.error["frames"][0]["own"]
    assert not any(frame["own"] for frame in ran.error["frames"][1:])


@pytest.mark.parametrize(
    ("cell", "line", "what"),
    [
        ("x = 1\nbreakpoint()\nx", 2, "breakpoint()"),
        ("import pdb\npdb.set_trace()", 2, "set_trace()"),
        ("from IPython.core.debugger import set_trace\n1\nset_trace()", 3, "set_trace()"),
        ("import pdb\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    pdb.post_mortem()", 5, "The debugger"),
        ("import pdb\npdb.run('x = 1')", 2, "The debugger"),
    ],
)
def test_a_debugger_says_at_the_users_line_that_nobody_is_there(tmp_path: Path, cell: str, line: int, what: str) -> None:
    ran = run(tmp_path, cell, env={"PYTHONBREAKPOINT": ""})

    assert (ran.exit_code, ran.result) == (1, None)
    assert ran.error is not None
    assert (ran.error["type"], ran.error["frames"][0]["line"]) == ("RuntimeError", line)
    assert ran.error["message"].startswith(
        f"{what} in a job has no keyboard to stop at: run the cell in the notebook, without its %%submit line, to step through it,"
    )


def test_breakpoints_are_passed_over_or_go_elsewhere_as_the_environment_says(tmp_path: Path) -> None:
    assert run(tmp_path / "a", "breakpoint()\n1", env={"PYTHONBREAKPOINT": "0"}).result == {"value": 1, "out": {}}
    assert run(tmp_path / "b", "breakpoint()", env={"PYTHONBREAKPOINT": "builtins.list"}).result == {"value": [], "out": {}}
    asked = run(tmp_path / "c", "breakpoint()", env={"PYTHONBREAKPOINT": "pdb.set_trace"}).error
    assert asked is not None
    assert asked["message"].startswith("set_trace() in a job has no keyboard to stop at:")


def test_a_debugger_with_an_input_of_its_own_stops_where_it_is_called(tmp_path: Path) -> None:
    cell = (
        "import io, pdb\nsaid = io.StringIO()\nseen = 42\ndebugger = pdb.Pdb(stdin=io.StringIO('p seen\\nc\\n'), stdout=said)\n"
        "debugger.set_trace()\nafter = 1\nsaid.getvalue()"
    )
    ran = run(tmp_path, cell)

    assert ran.result is not None, ran.output
    assert "after = 1" in ran.result["value"]
    assert "(Pdb) 42" in ran.result["value"]


def test_a_question_that_the_cell_is_ready_to_miss_is_missed(tmp_path: Path) -> None:
    assert run(tmp_path, "try:\n    x = input()\nexcept EOFError:\n    x = 'default'\nx").result == {"value": "default", "out": {}}


def test_bars_of_widgets_are_bars_of_text(tmp_path: Path) -> None:
    cell = (
        (
            "from tqdm.notebook import tqdm, trange\nimport tqdm.auto\n"
            "sum(tqdm([1, 2], display=True, desc='one')) + sum(trange(3, desc='two')) + sum(tqdm.auto.tqdm([4], desc='three'))"
        )
        .replace("import tqdm.auto", "import tqdm.auto as auto")
        .replace("tqdm.auto.tqdm(", "auto.tqdm(")
    )
    ran = run(tmp_path, cell)

    assert ran.result == {"value": 10, "out": {}}, ran.output
    assert all(f"{name}: 100%|" in ran.output for name in ("one", "two", "three"))


def test_mapped_variable_is_one_of_its_elements(tmp_path: Path) -> None:
    ran = run(tmp_path, "n * 2", {"n": range(10, 20)}, env={"TUTTILAB_MAP_INDEX": "3"}, map_name="n")

    assert ran.result == {"value": 26, "out": {}}


def test_files_that_came_along_are_importable(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mine.py").write_text("ANSWER = 42")

    assert run(tmp_path, "import mine\nmine.ANSWER").result == {"value": 42, "out": {}}


TRAIN = """
import os
import xgboost
from sklearn.datasets import load_breast_cancer
x, y = load_breast_cancer(return_X_y=True)
rank, size = xgboost.collective.get_rank(), xgboost.collective.get_world_size()
assert rank == int(os.environ["TUTTILAB_RANK"])
data = xgboost.DMatrix(x[rank::size], y[rank::size])
shown = {}
model = xgboost.train({"objective": "binary:logistic", "nthread": 1, "eval_metric": "error"}, data, 5,
                      evals=[(data, "train")], evals_result=shown, verbose_eval=False)
(size, shown["train"]["error"][-1], len(model.get_dump()), model.get_dump()[0])
"""


@pytest.mark.feature("J04")
@pytest.mark.timeout(700)
async def test_gang_of_two_trains_with_xgboost(tmp_path: Path, cluster: Cluster) -> None:
    pack(tmp_path / "bundle", TRAIN, framework="xgboost")
    with tarfile.open(tmp_path / "bundle.tar", "w") as tar:
        tar.add(tmp_path / "bundle", ".")
    store = tmp_path / "store"
    launch = plan(
        "train",
        sys.executable,
        "$(TUTTILAB_CODE_DIR)/runner.py",
        members=2,
        work={
            "code": keep(store, (tmp_path / "bundle.tar").read_bytes()),
            "framework": Framework.XGBOOST,
            "outputs": (Output("result", "result.pkl"),),
        },
        artifacts_url=store.as_uri(),
    )
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.until(lambda pods: all(f"train-1-{r}" in pods and pods[f"train-1-{r}"].phase == "Ended" for r in (0, 1)))
        members = [seen.pods["train-1-0"], seen.pods["train-1-1"]]
        assert [(pod.exit_code, pod.reason) for pod in members] == [(0, "Completed")] * 2
        for rank in (0, 1):
            (line,) = await all_lines(cluster, launch, rank)
            assert line.endswith(f"Task 0000000{rank} got rank {rank}")
    results = []
    for pod in members:
        kept = pod.outputs["result"]
        results.append(unpack((store / kept[:2] / kept).read_bytes(), "the cell", "").value)

    # Both ranks hold the one model that they trained together.
    assert results[0] == results[1]
    size, error, trees, _ = results[0]
    assert (size, trees) == (2, 5)
    assert error < 0.05
