"""Write lock.txt and constraints.txt from the ranges in setup.cfg, and bring the lock files of npm up to their package.json.

`make lock` keeps each version that still fits; `make lock UPGRADE="pydantic httpx"` takes the newest of these that fits,
`UPGRADE=all` of every Python package. `UPGRADE=npm BEFORE=2026-11-01` renews the lock files of npm with what was published by then:
the parts of one release may reach an index on different days.
"""

import configparser
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

from tools import environment, locked

ROOT = locked.ROOT
UV = Path(sys.executable).parent / "uv"
NPM_FOLDERS = ("labextension", "tools/hub_proxy_npm")
OLDEST_PYTHON = "3.11"
LOCK_HEADER = f"""\
# Every package of every extra in the one version that was tested, with the hashes of its files: for Python {OLDEST_PYTHON} to 3.13,
# and for each platform by its markers. Made by `make lock` from the ranges in setup.cfg; `make env` installs just this.
"""
CONSTRAINTS_HEADER = """\
# The versions that were tested, of what tuttilab[all] needs: pip install '.[all]' -c constraints.txt
# Made by `make lock`, from lock.txt.
"""


def main(upgrade: list[str], before: str) -> int:
    old = locked.LOCK.read_text(encoding="utf-8") if locked.LOCK.exists() else ""
    npm = "npm" in upgrade
    new = resolved(old, [name for name in upgrade if name != "npm"])
    if new is None:
        return 1
    locked.LOCK.write_text(new, encoding="utf-8")
    locked.CONSTRAINTS.write_text(constraints(new), encoding="utf-8")
    for line in differences(old, new, "locked", "now"):
        print(line)
    if not all(renew_npm(ROOT / folder, npm, before) for folder in NPM_FOLDERS):
        return 1
    print("lock.txt and constraints.txt are up to date, and so are the lock files of npm. `make check` installs and tries them.")
    return 0


def resolved(old: str, upgrade: list[str]) -> str | None:
    """The lock's new text; None, with what uv said on the error output, where the ranges cannot be met."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "lock.txt"
        target.write_text(old, encoding="utf-8")
        options = ["--universal", "--python-version", OLDEST_PYTHON, "--fork-strategy", "fewest"]
        if upgrade == ["all"]:
            options.append("--upgrade")
        else:
            options += [f"--upgrade-package={name}" for name in upgrade]
        if not compile_requirements(target, options):
            return None
        return LOCK_HEADER + target.read_text(encoding="utf-8")


def compile_requirements(target: Path, options: list[str]) -> bool:
    """Every extra of setup.cfg, into a requirements file that names neither an index nor this machine."""
    command = [str(UV), "pip", "compile", "setup.cfg", "--quiet", "--no-header", "--generate-hashes", "--output-file", str(target)]
    command += [f"--extra={extra}" for extra in extras() if extra not in ("", "all")]
    venv = Path(sys.executable).parent.parent
    return subprocess.run([*command, *options], cwd=ROOT, env=environment.uv_environment(venv)).returncode == 0


def constraints(lock: str) -> str:
    """The part of the lock that `tuttilab[all]` needs, without hashes."""
    found = locked.entries(lock)
    needed = {locked.normal(requirement.name) for requirement in required(of_all())}
    size = 0
    while size != len(needed):
        size = len(needed)
        needed |= {entry.name for entry in found if not needed.isdisjoint(locked.parents(entry))}
    lines = [f"{entry.name}=={entry.version}{entry.marker and ' ; ' + entry.marker}\n" for entry in found if entry.name in needed]
    return CONSTRAINTS_HEADER + "".join(lines)


def extras() -> dict[str, list[str]]:
    """Requirements of each extra in setup.cfg; those of the base below an empty name."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {name: [line.strip() for line in text.splitlines() if line.strip()] for name, text in texts.items()}


def of_all() -> list[str]:
    """What `tuttilab[all]` asks for."""
    known = extras()
    (whole,) = known["all"]
    return [line for name in ("", *sorted(Requirement(whole).extras)) for line in known[name]]


def everything() -> list[str]:
    return [line for name, lines in extras().items() if name != "all" for line in lines]


def required(lines: Iterable[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def differences(old: str, new: str, old_title: str, new_title: str) -> list[str]:
    """`name  old  new` for each package whose version differs, with a line of titles; empty where none does."""
    before, after = versions(old), versions(new)
    rows = [
        (name, before.get(name, "-"), after.get(name, "-"))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return [f"{name:<32} {was:<20} {now}" for name, was, now in [("", old_title, new_title), *rows]] if rows else []


def versions(text: str) -> dict[str, str]:
    """A package with different versions for different machines has them all: `2.0, 2.1`."""
    found: dict[str, str] = {}
    for entry in locked.entries(text):
        found[entry.name] = f"{found[entry.name]}, {entry.version}" if entry.name in found else entry.version
    return found


def renew_npm(folder: Path, upgrade: bool, before: str) -> bool:
    build = runpy.run_path(str(ROOT / "labextension" / "build.py"))
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(folder / name, scratch)
        command = [build["node"](), build["npm"](), "update" if upgrade else "install", "--package-lock-only", "--ignore-scripts"]
        command += ["--no-audit", "--no-fund", "--loglevel=error", *([f"--before={before}"] if before else [])]
        done = subprocess.run(command, cwd=scratch, env=build["environment"](), capture_output=True, text=True)
        if done.returncode != 0:
            print(f"npm did not lock {folder.relative_to(ROOT)}:\n{done.stdout}{done.stderr}", file=sys.stderr)
            return False
        shutil.copy(Path(scratch) / "package-lock.json", folder)
    return True


if __name__ == "__main__":
    if len(sys.argv) > 2 and not re.fullmatch(r"(\d{4}-\d\d-\d\d)?", sys.argv[2]):
        sys.exit(f"BEFORE={sys.argv[2]}: expected a day, such as BEFORE=2026-11-01")
    sys.exit(main(sys.argv[1].split() if len(sys.argv) > 1 else [], sys.argv[2] if len(sys.argv) > 2 else ""))
