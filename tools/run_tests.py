"""Run the parts of the test suite in turn, show the time of each, and end with one summary.

`python tools/run_tests.py check` runs the quick parts, `all` every part, `soak` the long ones with many more examples.
A part without tests yet is left out silently; a test that the machine cannot run is listed at the end, with a remedy.
All parts run even when an early one fails. Options after the mode go to pytest: `… all -x -k quota`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
BIN = Path(PYTHON).parent
ALL_CORES = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile")


@dataclass(frozen=True)
class Part:
    """One line of the summary: a few commands, or a pytest run over some paths."""

    name: str
    modes: str
    commands: tuple[tuple[str, ...], ...] = ()
    tests: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

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


def find_tests(path: str) -> list[Path]:
    place = ROOT / path
    return [place] if place.is_file() else sorted(place.rglob("test_*.py"))


def parts() -> tuple[Part, ...]:
    typed = [path for path in (".types/tuttilab", "tools", "tests", "examples") if any((ROOT / path).rglob("*.py"))]
    return (
        Part("lint", "check all", (tool("ruff", "check", "."), tool("ruff", "format", "--check", "."))),
        Part("types", "check all", (tool("mypy", *typed),)),
        Part("panel", "check all", panel()),
        Part("architecture and packaging", "check all", tests=("tests/test_architecture.py",)),
        Part("unit and property", "check all", tests=("tests/unit", "tests/property"), options=ALL_CORES),
        Part("simulation", "all soak", tests=("tests/simulation",), options=ALL_CORES),
        Part("contract", "all", tests=("tests/contract",), options=ALL_CORES),
        Part("integration", "all soak", tests=("tests/integration",)),
        Part(
            "end to end",
            "all",
            tests=("tests/e2e",),
            options=("--ignore=tests/e2e/lab",),
        ),
        Part("browser", "all", (("sh", "tools/browser.sh"),), tests=("tests/e2e/lab",)),
        Part("kills and takeovers", "soak", tests=("tests/e2e/kills", "tests/e2e/replicas")),
        Part(
            "load with a kill every 20 s",
            "soak",
            ((PYTHON, "-m", "tests.soak.run", os.environ.get("TUTTILAB_DOSE_MINUTES") or "30"),),
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


def run(part: Part, extra: list[str], environment: dict[str, str]) -> Outcome:
    print(f"\n=== {part.name} ===", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        is_good = True
        for line in part.command_lines(extra):
            done = subprocess.run(line, cwd=ROOT, env=environment | {"TUTTILAB_REPORT": str(report)})
            is_good = is_good and done.returncode == 0
        outcome = Outcome(part, time.monotonic() - began, is_good)
        if report.exists():
            said = json.loads(report.read_text(encoding="utf-8"))
            outcome.counts, outcome.left_out, outcome.told = said["counts"], said["left_out"], said["told"]
    print(f"--- {part.name}: {'good' if is_good else 'FAILED'} after {outcome.seconds:.1f} s", flush=True)
    return outcome


def summarise(outcomes: list[Outcome]) -> None:
    print("\n=== summary ===")
    for outcome in outcomes:
        counts = ", ".join(f"{number} {word}" for word, number in outcome.counts.items() if number)
        print(f"{'good' if outcome.is_good else 'FAILED':<7}{outcome.seconds:7.1f} s  {outcome.part.name:<28}{counts}")
    for line in (line for outcome in outcomes for line in (*outcome.told, *outcome.left_out)):
        print(line)
    passed, failed, skipped = (sum(o.counts.get(word, 0) for o in outcomes) for word in ("passed", "failed", "skipped"))
    seconds = sum(outcome.seconds for outcome in outcomes)
    bad = [outcome.part.name for outcome in outcomes if not outcome.is_good]
    print(f"{passed} passed, {failed} failed, {skipped} left out in {seconds:.1f} s")
    print(f"FAILED: {', '.join(bad)}" if bad else "All parts are good.", flush=True)


def main(mode: str, extra: list[str]) -> int:
    if mode not in ("check", "all", "soak"):
        print(f"Unknown mode {mode!r}: expected check, all or soak. Example: python tools/run_tests.py check")
        return 2
    subprocess.run([PYTHON, "tools/types_tree.py"], cwd=ROOT, check=True)
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    if mode == "soak":
        environment["TUTTILAB_SOAK"] = "1"
        extra = ["--timeout=0", *extra]
    if mode != "check":
        provide_postgres()
    chosen = [part for part in parts() if mode in part.modes.split() and part.has_work()]
    outcomes = [run(part, extra, environment) for part in chosen]
    summarise(outcomes)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all", sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
