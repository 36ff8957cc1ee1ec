"""Try the newest versions that the ranges in setup.cfg allow, in an environment of their own, .venv-newest.

`make newest` runs the parts of `make check` there, `make newest PARTS=all` every part. It says what differs from lock.txt, which
tests fail, and which of our dependencies have a release beyond our upper bound. Ends with 0 when all is good, 1 when a part failed,
2 when the environment could not be made.
"""

import json
import os
import re
import shutil
import subprocess
import sys

from packaging.markers import Marker

from tools import environment, lock, locked

ROOT = locked.ROOT
VENV = ROOT / ".venv-newest"
VERSIONS = VENV / "newest.txt"


def main(mode: str) -> int:
    shutil.rmtree(VENV, ignore_errors=True)
    python = VENV / "bin" / "python"
    if not environment.create(VENV) or not lock.compile_requirements(VERSIONS, ["--python", str(python)]):
        return 2
    now, newest = (path.read_text(encoding="utf-8") for path in (locked.LOCK, VERSIONS))
    changes = lock.differences(applying(now), newest, "locked", "newest")
    show(changes)
    if not environment.install(VENV, VERSIONS, lock.UV) or not environment.build_panel(VENV):
        return 2
    returncode, failures = try_them(mode)
    print("\n=== newest versions ===")
    show(changes)
    show(beyond())
    for line in failures:
        print(line)
    print(
        "The newest versions fail."
        if returncode
        else "The newest versions are good: `make lock UPGRADE=all` takes up those that every Python may have."
    )
    return 1 if returncode else 0


def show(changes: list[str]) -> None:
    print("\n".join(changes) if changes else "The lock has the newest versions that setup.cfg allows.", flush=True)


def applying(text: str) -> str:
    """The entries for this machine and its Python."""
    return "".join(entry.text for entry in locked.entries(text) if not entry.marker or Marker(entry.marker).evaluate())


def try_them(mode: str) -> tuple[int, list[str]]:
    """How the suite ended, and what it says of tests and parts that failed."""
    command = [str(VENV / "bin" / "python"), "tools/run_tests.py", mode]
    told = dict(os.environ, TUTTILAB_NEWEST="1", MYPY_CACHE_DIR=str(VENV / "mypy"), PYTHONUNBUFFERED="1")
    failures = []
    with subprocess.Popen(command, cwd=ROOT, env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as suite:
        assert suite.stdout is not None
        for line in suite.stdout:
            print(line, end="", flush=True)
            if re.search(r"^(FAILED|ERROR) |^--- .*: FAILED", line):
                failures.append(line.rstrip())
    return suite.returncode, failures


def beyond() -> list[str]:
    """Our own dependencies that have a release which their range leaves out."""
    command = [str(lock.UV), "pip", "list", "--outdated", "--format", "json", "--python", str(VENV / "bin" / "python")]
    done = subprocess.run(command, cwd=ROOT, env=environment.uv_environment(VENV), capture_output=True, text=True)
    if done.returncode != 0:
        return ["Which have a release beyond our bounds is not known: the index did not say."]
    newest = {locked.normal(row["name"]): row["latest_version"] for row in json.loads(done.stdout)}
    ours = {locked.normal(wanted.name): wanted for wanted in lock.required(lock.everything())}
    rows = [
        f"{name:<32} {ours[name].specifier!s:<20} {newest[name]}"
        for name in sorted(ours.keys() & newest.keys())
        if not ours[name].specifier.contains(newest[name])
    ]
    return ["", f"{'beyond our bounds':<32} {'range':<20} newest", *rows] if rows else ["No release is beyond our bounds."]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "check"))
    except KeyboardInterrupt:
        sys.exit(130)
