"""The feature list: rows and marks agree, the page made from them is up to date, and a mark of no row is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import features_table, run_tests
from tools.features_table import Row, Shows

ROOT = Path(__file__).resolve().parent.parent


def row(id: str = "S05", status: str = "shown", missing: str = "") -> Row:
    return Row(id, "a feature", "a test", "M", status, missing)


MARKED = Shows("unit/test_a.py", "test_a", ("S05",))


def test_page_is_what_rows_and_marks_say(capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to do where it is not."""
    assert (features_table.main(["--check"]), capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize(
    ("rows", "shows", "said"),
    [
        ([row(), row("S06", "")], [MARKED], ""),
        ([row(status="part", missing="a half")], [MARKED], ""),
        ([row()], [], "row S05: no test has its mark"),
        ([row(status="part", missing="a half")], [], "row S05: no test has its mark"),
        ([row(status="")], [MARKED], "row S05: a test has its mark; set the status"),
        ([row(status="part")], [MARKED], "row S05: the column missing goes with the status part"),
        ([row(missing="a half")], [MARKED], "row S05: the column missing goes with the status part"),
        ([row(status="done")], [MARKED], "id, tier or status (S05, M, 'done') is not one that is known"),
        ([row(), row()], [MARKED], "row S05 stands there twice"),
        ([row()], [MARKED, Shows("unit/test_b.py", "test_b", ("S99",))], "tests/unit/test_b.py::test_b: the feature list"),
    ],
)
def test_rows_and_marks_that_disagree_are_named(rows: list[Row], shows: list[Shows], said: str) -> None:
    found = features_table.disagreements(rows, shows)

    assert len(found) == bool(said)
    assert said in "".join(found)


SOURCE = """
import pytest
pytestmark = [pytest.mark.timeout(5), pytest.mark.feature("A01")]
@pytest.mark.feature("S05", "S06")
@pytest.mark.parametrize("x", [1])
async def test_S06_one(x): ...
def test_I12_two(): ...
@pytest.mark.feature("B01")
class TestThree:
    def test_four(self): ...
TestFive = Machine.TestCase
def helper(): ...
"""


def test_marks_are_read_from_modules_classes_functions_and_names() -> None:
    assert features_table.shows_of(SOURCE, "unit/x/test_x.py") == [
        Shows("unit/x/test_x.py", "test_S06_one", ("A01", "S05", "S06")),
        Shows("unit/x/test_x.py", "test_I12_two", ("A01",)),
        Shows("unit/x/test_x.py", "TestThree::test_four", ("A01", "B01")),
        Shows("unit/x/test_x.py", "TestFive", ("A01",)),
    ]


def test_a_mark_that_would_be_overlooked_is_refused() -> None:
    with pytest.raises(features_table.UnreadMark, match=r"^tests/test_x\.py: 1 feature mark\(s\) neither above a test"):
        features_table.shows_of('case = pytest.param(1, marks=pytest.mark.feature("S05"))\n', "test_x.py")


def test_parts_of_the_suite_are_those_that_run() -> None:
    names = {part.name for part in run_tests.parts()}

    assert {each.part for each in features_table.all_shows()} <= names
    assert set(features_table.SUITE.values()) <= names


@pytest.mark.parametrize(
    ("test", "code", "said"),
    [
        (
            "def test_S99_x(): ...",
            pytest.ExitCode.INTERRUPTED,
            "::test_S99_x: the feature list (docs/features.csv) has no row 'S99'",
        ),
        ("@pytest.mark.feature('X01')\ndef test_x(): ...", pytest.ExitCode.INTERRUPTED, "has no row 'X01'; give the id of a row"),
        ("def test_I12_x(): ...", pytest.ExitCode.OK, "1 test collected"),
    ],
)
def test_an_id_that_is_no_row_ends_the_collection(tmp_path: Path, test: str, code: int, said: str) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\n{test}\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--collect-only", "-q"]
    done = subprocess.run(
        [*command, f"--rootdir={ROOT}", "-c", "setup.cfg", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == code
    assert said in done.stdout + done.stderr
