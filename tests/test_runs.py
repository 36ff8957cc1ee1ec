"""How a run of the suite judges its parts: real pytest runs over files of the test's own."""

import os
from pathlib import Path

import pytest

from tests import side_by_side
from tools import run_tests
from tools.run_tests import ROOT as HERE
from tools.run_tests import Outcome, Part

OPTIONS = ("-p", "tests.conftest", "-p", "no:cacheprovider")
ONCE = """
from pathlib import Path
def test_fails_once():
    again = Path(__file__).with_name("again")
    was_there = again.exists()
    again.touch()
    assert was_there
"""
FAILS = "def test_fails_{}():\n    assert 1 == 2\n"
PASSES = "def test_passes():\n    pass\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are of a project in a temporary folder."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)


def outcomes(
    folder: Path,
    sources: list[str],
    *,
    is_real: bool = True,
    once_more: int = 2,
    options: tuple[str, ...] = (),
    beside: bool = False,
) -> list[Outcome]:
    """Of one part for each source."""
    for number, source in enumerate(sources):
        (folder / str(number)).mkdir()
        (folder / str(number) / "test_it.py").write_text(source, encoding="utf-8")
    chosen = [
        Part(f"part {number}", "all", tests=(str(number),), options=(*OPTIONS, *options), is_real=is_real, beside=5)
        for number, _ in enumerate(sources)
    ]
    environment = {word: value for word, value in os.environ.items() if word != "TUTTILAB_REPORT"} | {"PYTHONPATH": str(HERE)}
    return run_tests.run_all(chosen, [], environment, beside=beside, once_more=once_more)


@pytest.mark.parametrize(("options", "beside"), [((), False), (("-n", "2", "--dist", "loadgroup"), False), ((), True)])
def test_a_test_that_fails_and_then_passes_by_itself_is_named_and_the_part_good(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], beside: bool
) -> None:
    (outcome,) = outcomes(tmp_path, [ONCE + PASSES], options=options, beside=beside)
    run_tests.summarise([outcome], 1.0)

    assert outcome.is_good
    assert outcome.counts["failed"] == 1
    assert [test.rpartition("::")[2] for test in outcome.once_more] == ["test_fails_once"]
    assert "assert was_there" in (said := capfd.readouterr().out), "the failure is shown"
    assert said.rstrip().rpartition("\n")[2].startswith("A defect of the test or of what it tests")
    assert said.rstrip().endswith("test_fails_once")


def test_a_test_that_fails_twice_has_failed(tmp_path: Path) -> None:
    (outcome,) = outcomes(tmp_path, [ONCE + FAILS.format("always")])

    assert not outcome.is_good


def test_with_more_than_may_run_again_none_does(tmp_path: Path) -> None:
    several = "".join(ONCE.replace("again", f"again{n}").replace("fails_once", f"fails_once_{n}") for n in range(3))

    (outcome,) = outcomes(tmp_path, [several])
    assert not outcome.is_good
    assert not outcome.once_more


def test_they_are_counted_over_all_parts(tmp_path: Path) -> None:
    assert [outcome.is_good for outcome in outcomes(tmp_path, [ONCE, PASSES, ONCE, ONCE])] == [False, True, False, False]


def test_they_run_again_when_all_parts_have_ended(tmp_path: Path) -> None:
    later = "from pathlib import Path\ndef test_is_first():\n    assert not Path('0/ran_again').exists()\n"
    first = ONCE.replace("    assert was_there", "    was_there and Path('0/ran_again').touch()\n    assert was_there")

    assert [outcome.is_good for outcome in outcomes(tmp_path, [first, later])] == [True, True]
    assert (tmp_path / "0" / "ran_again").exists()


def test_the_summary_says_why_a_test_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = outcomes(tmp_path, [ONCE, FAILS.format("always")])
    run_tests.summarise(found, 1.0)

    said = capfd.readouterr().out.rpartition("=== summary ===")[2]
    assert "::test_fails_once: assert False; it passed by itself\n" in said
    assert "::test_fails_always: assert 1 == 2\n" in said


@pytest.mark.parametrize("how", [{"is_real": False}, {"once_more": 0}])
def test_no_test_of_another_part_runs_again(tmp_path: Path, how: dict[str, bool | int]) -> None:
    (outcome,) = outcomes(tmp_path, [ONCE], **how)  # type: ignore[arg-type]

    assert not outcome.is_good
    assert not outcome.once_more


def test_a_file_that_cannot_be_read_is_no_failed_test(tmp_path: Path) -> None:
    (outcome,) = outcomes(tmp_path, ["import nothing_of_this_name\n"])

    assert not outcome.is_good
    assert not outcome.once_more


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("tests/e2e/test_x.py::test_a[b@c]@tests/e2e", "tests/e2e/test_x.py::test_a[b@c]"),
        ("tests/e2e/test_x.py::test_a[b@c]", "tests/e2e/test_x.py::test_a[b@c]"),
        ("tests/e2e/test_x.py::test_a", "tests/e2e/test_x.py::test_a"),
        ("tests/kube/test_x.py::test_a@real_cluster", "tests/kube/test_x.py::test_a"),
    ],
)
def test_the_group_is_no_part_of_a_tests_name(nodeid: str, name: str) -> None:
    assert side_by_side.name_of(nodeid) == name
