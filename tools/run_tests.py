"""Run the parts of the test suite, show the time of each, and end with one summary.

`python tools/run_tests.py check` runs the quick parts, `all` every part, `soak` the long ones with many more examples, `attack` the
attack corpus with many more rounds.
A part without tests yet is left out silently; a test that the machine cannot run is listed at the end, with a remedy.
All parts run even when an early one fails. Options after the mode go to pytest: `… all -x -k quota`.

A failed test of a part that says so runs once more, by itself, when all parts have ended (`docs/adr/0029-once-more.md`): at most
eight of a run. The failure is printed like any other, and the summary's last line names the test. With TUTTILAB_ONCE_MORE=0 no test
runs twice.

Most of integration and of the tests with kills waits: for processes to start, for deadlines. So their tests run side by side (see
`tests/side_by_side.py`). `all` runs two parts beside all that follow: the simulation, which only computes, at the lowest priority,
takes the time that the others leave; the tests on Kubernetes wait for containers more than they work. Their output is kept and
shown when they have ended.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
BIN = Path(PYTHON).parent
ALL_CORES = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile")
# Tests that wait: more of them at a time than there are cores.
SIDE_BY_SIDE = ("-n", str(2 * min(os.cpu_count() or 1, 4)), "--dist", "loadgroup")
LOWEST_PRIORITY = 19  # as `nice` counts
LOWER_PRIORITY = 5
KILLS = ("tests/e2e/kills", "tests/e2e/replicas", "tests/e2e/dags")
MACHINE = (("sh", "tools/browser.sh"), (PYTHON, "-m", "tests.kube.tools.debian"))
"""What installs packages of the machine, where we may. One after the other and before all parts: apt-get runs once at a time."""
KUBE_PROGRAMS = (PYTHON, "-m", "tests.kube.tools.build", "--optional")
ONCE_MORE_AT_MOST = 8
"""Of some 1,600 tests of real processes."""
TESTS_FAILED = 1  # pytest's exit status
APART: set["subprocess.Popen[bytes]"] = set()
"""Sessions beside this one, which an interrupt at the terminal does not reach."""
PACKAGES = ("scheduler", "magics", "sidecar", "spawner", "jupyter_ext")


@dataclass(frozen=True)
class Part:
    """One line of the summary: a few commands, or a pytest run over some paths."""

    name: str
    modes: str
    commands: tuple[tuple[str, ...], ...] = ()
    tests: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    beside: int | None = None
    """In a run of all parts it runs beside those after it, at this niceness."""
    is_real: bool = False
    """Of real processes, browsers, kernels and clusters: a test of it that fails runs once more."""

    def has_work(self) -> bool:
        return bool(self.commands) or any(find_tests(path) for path in self.tests)

    def command_lines(self, extra: list[str]) -> Iterator[list[str]]:
        for command in self.commands:
            yield list(command)
        if self.tests:
            paths = [path for path in self.tests if find_tests(path)]
            yield [PYTHON, "-m", "pytest", "-q", *self.options, *extra, *paths]


@dataclass
class Outcome:
    part: Part
    seconds: float
    is_good: bool
    counts: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """What its tests counted: seeds, kills, planted bugs."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Of each test that failed, by name."""
    failed: list[str] = field(default_factory=list)
    """Names of its tests that failed, when nothing else did."""
    once_more: list[str] = field(default_factory=list)
    """Those of them that passed when they ran again."""

    def may_be_shaky(self) -> bool:
        """Whether nothing but failed tests keeps it from being good."""
        return not self.is_good and bool(self.failed) and not self.left_out


def find_tests(path: str) -> list[Path]:
    place = ROOT / path
    return [place] if place.is_file() else sorted(place.rglob("test_*.py"))


def parts() -> tuple[Part, ...]:
    typed = [path for path in (".types/tuttilab", "tools", "tests", "examples") if any((ROOT / path).rglob("*.py"))]
    return (
        Part("lint", "check all", (tool("ruff", "check", "."), tool("ruff", "format", "--check", "."))),
        Part("types", "check all", (tool("mypy", *typed),), beside=LOWER_PRIORITY),
        Part("panel", "check all", panel()),
        Part(
            "architecture and packaging",
            "check all",
            tests=("tests/test_architecture.py", "tests/test_features.py", "tests/test_lock.py", "tests/test_runs.py"),
            options=ALL_CORES,
        ),
        Part("unit and property", "check all", tests=("tests/unit", "tests/property"), options=ALL_CORES),
        # Built beside the others; the part that needs it waits for it.
        Part("programs of test clusters", "all", (KUBE_PROGRAMS,), beside=LOWER_PRIORITY),
        # Its limit is long because it may stand still while the other parts use both cores.
        Part("simulation", "all soak", tests=("tests/simulation",), options=(*ALL_CORES, "--timeout=4800"), beside=LOWEST_PRIORITY),
        Part("contract", "all", tests=("tests/contract",), options=ALL_CORES),
        # Two processes: there is one cluster with real pods on a machine, and most of the time is spent waiting for containers.
        Part(
            "kube",
            "all",
            (KUBE_PROGRAMS,),
            tests=("tests/kube",),
            options=("-n", "2", "--dist", "loadgroup"),
            beside=LOWER_PRIORITY,
            is_real=True,
        ),
        Part("integration", "all soak", tests=("tests/integration", "tests/attack"), options=SIDE_BY_SIDE, is_real=True),
        # Two at a time: kernels, hubs and Spark start for a long time, and little else of them is work.
        Part(
            "end to end",
            "all",
            tests=("tests/e2e",),
            options=("-n", "2", "--dist", "loadgroup", *(f"--ignore={path}" for path in (*KILLS, "tests/e2e/lab"))),
            is_real=True,
        ),
        Part("kills", "all", tests=KILLS, options=SIDE_BY_SIDE, is_real=True),
        # One at a time: they look at a person's clicks and keys.
        Part("browser", "all", tests=("tests/e2e/lab",), is_real=True),
        Part("attack", "attack", tests=("tests/attack",), options=SIDE_BY_SIDE),
        Part("attack in the browser", "attack", tests=("tests/e2e/lab/test_hostile.py",)),
        Part("kills and takeovers", "soak", tests=("tests/e2e/kills", "tests/e2e/replicas")),
        Part(
            "load with a kill every 20 s",
            "soak",
            ((PYTHON, "-m", "tests.soak.run", os.environ.get("TUTTILAB_DOSE_MINUTES") or "30"),),
        ),
        Part(
            "kills of every part under load",
            "soak",
            ((PYTHON, "-m", "tests.soak.kills", os.environ.get("TUTTILAB_DOSE_KILLS") or "1000", "1000"),),
        ),
        Part(
            "gangs in containers, and outages of an API server",
            "soak",
            (KUBE_PROGRAMS,),
            tests=("tests/kube/test_members.py", "tests/kube/test_unkind_api.py"),
        ),
        Part("long properties", "soak", tests=("tests/property",), options=ALL_CORES),
        Part("demo", "all", demo()),
    )


def tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(BIN / name), *arguments)


def panel() -> tuple[tuple[str, ...], ...]:
    """Types, lint and unit tests of the TypeScript, and whether its types are those of the API."""
    program = (PYTHON, "labextension/build.py", "--run")
    return (
        (*program, "tsc", "-p", "tsconfig.json", "--noEmit"),
        (*program, "eslint", ".", "--max-warnings", "0"),
        (*program, "vitest", "run", "--reporter=dot"),
        (PYTHON, "tools/labextension_schema.py", "--check"),
        (PYTHON, "tools/labextension_text.py"),
    )


def demo() -> tuple[tuple[str, ...], ...]:
    return ((PYTHON, "examples/demo.py"),) if (ROOT / "examples" / "demo.py").exists() else ()


def provide_postgres() -> None:
    """On Debian, as root, as in a container of the continuous integration; elsewhere the tests' summary names the remedy."""
    has_it = shutil.which("pg_ctl") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if has_it or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print("\n=== installing Postgres for the tests ===", flush=True)
    # The package would start a server of the machine's own otherwise; the tests make theirs in a temporary folder.
    settings = Path("/etc/postgresql-common/createcluster.conf")
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("create_main_cluster = false\n", encoding="utf-8")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    keep = ("-o", "Dpkg::Options::=--force-confold")
    for command in (("update", "-q"), ("install", "-q", "-y", "--no-install-recommends", *keep, "postgresql")):
        if subprocess.run(["apt-get", *command], env=environment, stdout=subprocess.DEVNULL).returncode != 0:
            print("It could not be installed; the tests that need it are left out.", flush=True)
            return


def run(part: Part, extra: list[str], environment: dict[str, str], output: IO[bytes] | None = None) -> Outcome:
    """``output``: where it is kept for a part that runs beside others."""
    if output is None:
        print(f"\n=== {part.name} ===", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        codes: list[int] = []
        for line in part.command_lines(extra):
            given = environment | {"TUTTILAB_REPORT": str(report)}
            if output is None:
                codes.append(subprocess.run(line, cwd=ROOT, env=given).returncode)
            else:
                codes.append(run_apart(line, part.beside or 0, given, output))
        is_good = not any(codes)
        outcome = Outcome(part, time.monotonic() - began, is_good)
        if report.exists():
            said = json.loads(report.read_text(encoding="utf-8"))
            outcome.counts, outcome.left_out, outcome.told = said["counts"], said["left_out"], said["told"]
            outcome.reasons = said["failed"]
            outcome.failed = sorted(outcome.reasons) if codes[-1] == TESTS_FAILED and not any(codes[:-1]) else []
    if output is None:
        print(f"--- {part.name}: {'good' if is_good else 'FAILED'} after {outcome.seconds:.1f} s", flush=True)
    return outcome


def run_apart(command: list[str], niceness: int, environment: dict[str, str], output: IO[bytes]) -> int:
    """In a session of its own. Where Linux groups processes by session, niceness counts only within one: the session has it too."""
    nice = ["nice", "-n", str(niceness), *command]
    with subprocess.Popen(
        nice, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        APART.add(process)
        with suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text(str(niceness), encoding="ascii")
        try:
            return process.wait()
        finally:
            APART.discard(process)


def run_once_more(outcome: Outcome, environment: dict[str, str]) -> None:
    """Run the failed tests by themselves, one process each; when all pass, the part is good and remembers their names."""
    began = time.monotonic()
    for test in outcome.failed:
        print(f"\n=== once more, by itself: {test} ===", flush=True)
        command = [PYTHON, "-m", "pytest", "-q", test]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode == 0:
            outcome.once_more.append(test)
    outcome.seconds += time.monotonic() - began
    outcome.is_good = outcome.once_more == outcome.failed


def run_beside(part: Part, extra: list[str], environment: dict[str, str]) -> Callable[[], Outcome]:
    """Start the part in a thread; what is returned waits for its end and prints what it said."""
    print(f"\n=== {part.name}: runs beside the next parts, its output follows ===", flush=True)
    output = tempfile.TemporaryFile()  # noqa: SIM115  closed when the part has ended
    pool = ThreadPoolExecutor(1)
    running = pool.submit(run, part, extra, environment, output)

    def finish() -> Outcome:
        if not running.done():
            print(f"\n... waiting for {part.name}", flush=True)
        outcome = running.result()
        pool.shutdown()
        output.seek(0)
        print(f"\n=== {part.name} ===", flush=True)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
        output.close()
        print(
            f"--- {part.name}: {'good' if outcome.is_good else 'FAILED'} after {outcome.seconds:.1f} s, beside others", flush=True
        )
        return outcome

    return finish


def run_all(
    chosen: Sequence[Part], extra: list[str], environment: dict[str, str], *, beside: bool, once_more: int
) -> list[Outcome]:
    """``beside``: whether parts that can run beside others do. ``once_more``: how many failed tests may run again."""
    outcomes: list[Outcome] = []
    running: list[Callable[[], Outcome]] = []
    for part in chosen:
        if part.beside is not None and beside:
            running.append(run_beside(part, extra, environment))
        else:
            outcomes.append(run(part, extra, environment))
    outcomes += [finish() for finish in running]
    # Only now: most of them failed for what ran beside them.
    shaky = [outcome for outcome in outcomes if outcome.part.is_real and outcome.may_be_shaky()]
    if sum(len(outcome.failed) for outcome in shaky) <= once_more:
        for outcome in shaky:
            run_once_more(outcome, environment)
    return outcomes


def summarise(outcomes: list[Outcome], seconds: float) -> None:
    print("\n=== summary ===")
    for outcome in outcomes:
        counts = ", ".join(f"{number} {word}" for word, number in outcome.counts.items() if number)
        print(f"{'good' if outcome.is_good else 'FAILED':<7}{outcome.seconds:7.1f} s  {outcome.part.name:<28}{counts}")
    for line in (line for outcome in outcomes for line in (*outcome.told, *outcome.left_out)):
        print(line)
    for outcome in outcomes:
        for test, reason in outcome.reasons.items():
            print(f"failed: {test}: {reason}{'; it passed by itself' if test in outcome.once_more else ''}")
    passed, failed, skipped = (sum(o.counts.get(word, 0) for o in outcomes) for word in ("passed", "failed", "skipped"))
    bad = [outcome.part.name for outcome in outcomes if not outcome.is_good]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of CPU, {os.cpu_count()} cores; what outlives its starter is not counted")
    print(f"{passed} passed, {failed} failed, {skipped} left out in {seconds:.1f} s; parts that ran side by side count once")
    print(f"FAILED: {', '.join(bad)}" if bad else "All parts are good.")
    shaky = [test for outcome in outcomes for test in outcome.once_more]
    if shaky:
        print(f"A defect of the test or of what it tests, each is to be found: failed, then passed by itself: {', '.join(shaky)}")
    sys.stdout.flush()


def main(mode: str, extra: list[str]) -> int:
    if mode not in ("check", "all", "soak", "attack"):
        print(f"Unknown mode {mode!r}: expected check, all, soak or attack. Example: python tools/run_tests.py check")
        return 2
    subprocess.run([PYTHON, "tools/types_tree.py"], cwd=ROOT, check=True)
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    if sys.dont_write_bytecode:
        # Where Python may not keep what it compiles, each of thousands of processes would compile our modules anew.
        subprocess.run([PYTHON, "-m", "compileall", "-q", *PACKAGES], cwd=ROOT, check=True)
    if mode in ("soak", "attack"):
        environment[f"TUTTILAB_{mode.upper()}"] = "1"
        extra = ["--timeout=0", *extra]
    if mode != "check":
        provide_postgres()
        for command in MACHINE:
            subprocess.run(command, cwd=ROOT)
    chosen = [part for part in parts() if mode in part.modes.split() and part.has_work()]
    began = time.monotonic()
    once_more = ONCE_MORE_AT_MOST if mode == "all" and os.environ.get("TUTTILAB_ONCE_MORE") != "0" else 0
    outcomes = run_all(chosen, extra, environment, beside=mode == "all", once_more=once_more)
    summarise(outcomes, time.monotonic() - began)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all", sys.argv[2:]))
    except KeyboardInterrupt:
        for process in tuple(APART):
            os.killpg(process.pid, signal.SIGINT)
        sys.exit(130)
