"""Build the one program that holds every server of the test clusters, once, into a cache outside the tree.

`python -m tests.kube.tools.build` (`make kube-tools`) prints where it lies. The first build downloads 630 MiB of Go modules and
takes 10 to 25 minutes on two cores; Go keeps modules and compiled packages in its own caches. The program's folder is named after
a hash of all that decides what it is, so another version of the Go files gets another folder and no rebuild is needed to go back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
GO_FILES = ("main.go", "go.mod", "go.sum")
KUBERNETES = "v1.37.2"
"""What go.mod requires; the servers say it as their version."""
GO = ("go", "/usr/local/go/bin/go")
"""On PATH, or where Go's own installer puts it."""
PLAIN_LINE_EVERY_S = 15.0
TAIL_LINES = 20
REMEDY = "install Go 1.26 or newer so that `go` is on PATH, then: make kube-tools"


class CannotBuild(Exception):
    """Says what went wrong, and what to do about it."""


def flags() -> list[str]:
    words = ["-s", "-w"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        values = {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": "37", "gitTreeState": "clean", "gitCommit": KUBERNETES}
        words += [word for name, value in values.items() for word in ("-X", f"{package}.{name}={value}")]
    return ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(words)]


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuttilab" / "kube"


def key() -> str:
    """The hash of the Go files and of the flags they are built with."""
    hashed = hashlib.sha256(" ".join(flags()).encode())
    for name in GO_FILES:
        content = (HERE / name).read_bytes()
        hashed.update(f"\n{name} {len(content)}\n".encode() + content)
    return hashed.hexdigest()[:16]


def program() -> Path:
    """Where the built program is, or will be."""
    return cache() / key() / "kube"


def is_built() -> bool:
    return os.access(program(), os.X_OK)


def go() -> str | None:
    return next((found for found in map(shutil.which, GO) if found is not None), None)


def build() -> Path:
    """The program, built now when it is not there yet; who comes second waits for the first."""
    target = program()
    if is_built():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(target.parent / "lock"):
        if not is_built():
            compiler = go()
            if compiler is None:
                raise CannotBuild(f"There is no Go to build the test clusters' programs with: {REMEDY}")
            _compile(compiler, target)
    return target


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another process builds the test clusters' programs; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(compiler: str, target: Path) -> None:
    environment = dict(os.environ, CGO_ENABLED="0")
    began = time.monotonic()
    _say("Building the test clusters' programs: Go modules first (630 MiB the first time), then 10 to 25 minutes once")
    listed = _run([compiler, "list", "-deps", "."], environment, "modules")
    total = sum(1 for line in listed if not line.startswith("go: "))
    # Compiled under another name and renamed: a build that was killed leaves nothing that looks built.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as folder:
        made = Path(folder) / "kube"
        _run([compiler, "build", "-v", *flags(), "-o", str(made), "."], environment, f"of {total} packages")
        made.replace(target)
    _say(f"Built {target} in {time.monotonic() - began:.0f} s, {target.stat().st_size / 2**20:.0f} MiB")


def _run(command: list[str], environment: dict[str, str], noun: str) -> list[str]:
    """The lines the command says, its progress shown as their number; CannotBuild with the last of them when it fails."""
    lines: list[str] = []
    shown = time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=HERE, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                lines.append(line.rstrip())
                if sys.stderr.isatty():
                    print(f"\r\033[K{len(lines)} {noun}: {lines[-1][:90]}", end="", file=sys.stderr, flush=True)
                elif time.monotonic() - shown > PLAIN_LINE_EVERY_S:
                    shown = time.monotonic()
                    _say(f"{len(lines)} {noun}: {lines[-1][:90]}")
        except BaseException:
            running.terminate()
            raise
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if running.returncode != 0:
        said = "\n".join(lines[-TAIL_LINES:])
        raise CannotBuild(f"{said}\n`{' '.join(command[:2])}` failed in {HERE}: is Go 1.26 or newer, are its modules reached?")
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(*, is_optional: bool = False) -> int:
    """``is_optional``: that it could not be built is said, and no failure; the tests that need it say so too."""
    try:
        print(build())
    except CannotBuild as problem:
        _say(str(problem))
        return 0 if is_optional else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(is_optional=sys.argv[1:] == ["--optional"]))
