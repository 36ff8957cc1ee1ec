"""The house rules that a program can check: who imports whom, what is banned, and that the wheel holds all of it.

The import contracts are in setup.cfg and the banned names in ruff.toml. Here they are run, shown to catch what they are
for, and completed where neither tool can say it.
"""

import ast
import configparser
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")


def listed(section: str, option: str) -> list[str]:
    return [line.strip() for line in CONFIG[section][option].splitlines() if line.strip()]


FOLDERS = {
    package: ROOT / folder for package, folder in (map(str.strip, line.split("=")) for line in listed("options", "package_dir"))
}
MODULES = sorted(path for folder in FOLDERS.values() for path in folder.rglob("*.py"))
# What the sidecar may see of the scheduler; so these stand on the standard library too.
SHARED_WITH_SIDECAR = ("model", "resources", "events", "errors")


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("tuttilab", *parts)).removesuffix(".__init__")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- imports ---------------------------------------------------------------------------------------------------------


def test_import_contracts_hold() -> None:
    done = subprocess.run([BIN / "lint-imports", "--no-logo"], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def imported_roots(path: Path) -> set[str]:
    """First name of each import of the file, wherever it stands; our own modules in full."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module in ("tuttilab.scheduler", "tuttilab.scheduler.domain"):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module))
    return {name if name.startswith(("tuttilab", ".")) else name.split(".")[0] for name in names}


def foreign_imports(path: Path) -> set[str]:
    return {name for name in imported_roots(path) if not name.startswith(("tuttilab", "."))} - sys.stdlib_module_names


def test_sidecar_stands_on_the_standard_library() -> None:
    foreign = {shown(path): foreign_imports(path) for path in (ROOT / "sidecar").rglob("*.py")}
    # These it finds in the user's own environment, and only when the cell needs them.
    for path in foreign:
        if path.startswith("sidecar/cell/"):
            foreign[path] -= {"cloudpickle", "xgboost"}

    assert {path: names for path, names in foreign.items() if names} == {}


def test_what_runs_a_cell_needs_nothing_else_of_ours() -> None:
    files = list((ROOT / "sidecar" / "cell").glob("*.py"))

    assert files
    assert {name for path in files for name in imported_roots(path) if name.startswith("tuttilab")} == set()


@pytest.mark.parametrize("name", SHARED_WITH_SIDECAR)
def test_what_the_sidecar_sees_stands_on_the_standard_library(name: str) -> None:
    path = ROOT / "scheduler" / "domain" / f"{name}.py"

    assert foreign_imports(path) == set()
    assert {name for name in imported_roots(path) if name.startswith("tuttilab")} <= {
        f"tuttilab.scheduler.domain.{shared}" for shared in SHARED_WITH_SIDECAR
    }


def test_importing_the_scheduler_package_imports_nothing_else() -> None:
    assert imported_roots(ROOT / "scheduler" / "__init__.py") == set()


def test_imports_are_absolute() -> None:
    relative = {shown(path) for path in MODULES if any(name.startswith(".") for name in imported_roots(path))}

    # What runs a cell has another name where it runs.
    assert {path for path in relative if not path.startswith("sidecar/cell/")} == set()


# --- rooms -----------------------------------------------------------------------------------------------------------

MOST_FILES_IN_A_ROOM = 20


def test_no_module_stands_loose_in_the_scheduler() -> None:
    assert [path.name for path in (ROOT / "scheduler").glob("*.py")] == ["__init__.py"]


def test_no_room_is_crowded() -> None:
    """A room is a folder; past this number of modules it has two subjects. Its `__init__.py` is the sign at the door."""
    rooms: dict[str, int] = {}
    for path in MODULES:
        if path.name != "__init__.py":
            room = shown(path.parent)
            rooms[room] = rooms.get(room, 0) + 1

    assert {room: count for room, count in rooms.items() if count > MOST_FILES_IN_A_ROOM} == {}


# --- what is banned --------------------------------------------------------------------------------------------------

CLOCKS = {"now", "utcnow", "today", "fromtimestamp", "utcfromtimestamp"}


def offences(source: str, in_core: bool = False) -> Iterator[str]:
    """What ruff has no rule for: `line: what to do instead`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, keywords = node.func.attr, {keyword.arg for keyword in node.keywords}
            if name == "match" and len(node.args) == 1 and not keywords:
                yield f"{node.lineno}: match accepts a valid beginning; use fullmatch, or search for ^… where a beginning is meant"
            if name == "extractall" and "filter" not in keywords:
                yield f"{node.lineno}: extractall without filter= writes outside, a zip needs a check of each member"
            if in_core and name in CLOCKS:
                yield f"{node.lineno}: core has no clock, take the time as an argument"
        if in_core and isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{node.lineno}: core does not wait"


def test_no_banned_call() -> None:
    core = ROOT / "scheduler" / "core"
    found = [
        f"{shown(path)}:{offence}"
        for path in MODULES
        for offence in offences(path.read_text(encoding="utf-8"), path.is_relative_to(core))
    ]

    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "pattern.match(name)",
        "archive.extractall(folder)",
        "datetime.now(UTC)",
        "async def decide(): ...",
    ],
)
def test_banned_call_is_found(source: str) -> None:
    assert len(list(offences(source, in_core=True))) == 1


@pytest.mark.parametrize(
    "source", ["pattern.match(text, position)", "archive.extractall(folder, filter='data')", "pattern.fullmatch(name)"]
)
def test_its_safe_form_is_not(source: str) -> None:
    assert list(offences(source, in_core=True)) == []


def ruff_codes(source: str, as_file: str) -> set[str]:
    command = [str(BIN / "ruff"), "check", "--output-format", "json", "--stdin-filename", as_file, "-"]
    done = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True)
    return {finding["code"] for finding in json.loads(done.stdout)}


@pytest.mark.parametrize("package", sorted(FOLDERS))
def test_bare_import_is_banned(package: str) -> None:
    bare = package.removeprefix("tuttilab.")

    assert "TID251" in ruff_codes(f"import {bare}\n", "tests/sample.py")
    assert "TID251" in ruff_codes(f"from {bare} import x\n", "magics/sample.py")
    assert "TID251" not in ruff_codes(f"import tuttilab.{bare}\n", "tests/sample.py")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("import re\nre.match('a', 'b')\n", "TID251"),
        ("import yaml\nyaml.load('a', Loader=yaml.Loader)\n", "TID251"),
        ("import os\nos.system('ls')\n", "TID251"),
        ("import pickle\npickle.loads(b'')\n", "S301"),
        ("import subprocess\nsubprocess.run('ls', shell=True)\n", "S602"),
        ("import tarfile\ntarfile.open('a').extractall('b')\n", "S202"),
        ("eval('1')\n", "S307"),
        ("try:\n    f()\nexcept:\n    g()\n", "E722"),
        ("print('a')\n", "T201"),
        ("import datetime\ndatetime.datetime.now()\n", "DTZ005"),
    ],
)
def test_banned_name_is_found(source: str, code: str) -> None:
    assert code in ruff_codes(source, "scheduler/sample.py")


# --- packaging -------------------------------------------------------------------------------------------------------


def test_every_folder_is_listed_as_a_package() -> None:
    folders = {dotted(path) for path in MODULES if path.name == "__init__.py"}

    assert folders == set(listed("options", "packages"))


def test_every_import_is_a_declared_dependency() -> None:
    extras = [line for name in CONFIG["options.extras_require"] for line in listed("options.extras_require", name)]
    lines = [line for line in (*listed("options", "install_requires"), *extras) if not line.startswith("#")]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}
    home = packages_distributions()
    undeclared = {
        f"{shown(path)}: {name}"
        for path in MODULES
        for name in foreign_imports(path)
        if declared.isdisjoint(dist.lower().replace("_", "-") for dist in home.get(name, [name]))
    }

    assert undeclared == set()


def test_every_module_lies_in_a_package() -> None:
    assert [shown(path) for path in MODULES if not (path.parent / "__init__.py").exists()] == []


def test_wheel_holds_every_file(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for folder in FOLDERS.values():
        copytree(folder, tree / folder.name, ignore=ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    panel = ROOT / "labextension"
    copytree(panel, tree / panel.name, ignore=ignore_patterns("node_modules", "lib", "__pycache__"))
    # As in an sdist: the panel comes built, and no Node is looked for.
    assert (panel / "dist" / "package.json").exists(), "The panel is not built; run `python labextension/build.py`."
    (tree / panel.name / "dist" / ".tuttilab.key").unlink(missing_ok=True)
    for name in ("setup.cfg", "setup.py", "MANIFEST.in", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            copy(ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,) = tmp_path.glob("tuttilab-*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    inside = {name for name in names if ".data/" not in name}
    sources = {
        f"tuttilab/{shown(path)}"
        for folder in FOLDERS.values()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts
    }
    data = "tuttilab-{version}.data/data/"
    shipped = {re.sub(r"^tuttilab-[^/]+\.data/data/", data, name) for name in names if ".data/data/" in name}
    place = f"{data}share/jupyter/labextensions/@tuttilab/labextension/"
    built = {place + str(path.relative_to(panel / "dist")) for path in (panel / "dist").rglob("*") if path.is_file()}
    built.discard(place + ".tuttilab.key")
    assert inside == sources
    # The last is where a Jupyter server looks for extensions to turn on.
    assert shipped == built | {f"{data}etc/jupyter/jupyter_server_config.d/tuttilab.json"}


# --- text ------------------------------------------------------------------------------------------------------------


def test_every_package_says_what_belongs_there() -> None:
    def says_it(path: Path) -> bool:
        return len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") > 40

    assert [shown(path) for path in MODULES if path.name == "__init__.py" and not says_it(path)] == []


def links_of(page: Path) -> Iterator[str]:
    """The relative links of a page, without their anchors."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.search(r"^(?:[a-z]+:|#)", target):
            yield target.partition("#")[0]


def test_every_link_of_the_documentation_leads_to_a_file() -> None:
    pages = [path for path in files_of_the_tree() if path.suffix == ".md"]
    broken = [f"{shown(page)}: {target}" for page in pages for target in links_of(page) if not (page.parent / target).exists()]

    assert broken == []


# Written in two halves, so that this file does not match itself.
REGISTRY_HOSTS = tuple(
    first + second
    for first, second in [
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("npm", "js.org"),
        ("npm", "js.com"),
        ("yarn", "pkg.com"),
        ("repo1.", "maven"),
        ("repo.", "maven"),
        ("maven", ".org"),
        ("anaconda", ".org"),
        ("proxy.", "golang"),
    ]
)


def files_of_the_tree() -> list[Path]:
    """What git tracks or would track; without git, all but hidden and installed folders."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if git.returncode == 0:
        paths = [ROOT / name for name in git.stdout.split("\0") if name]
    else:
        skip = {".venv", ".venv-newest", ".types", ".git", "node_modules", "__pycache__"}
        paths = [path for path in ROOT.rglob("*") if not skip & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_package_registry() -> None:
    def names_one(path: Path) -> bool:
        text = path.read_text(encoding="utf-8", errors="ignore")
        return any(host in text for host in REGISTRY_HOSTS)

    assert [shown(path) for path in files_of_the_tree() if names_one(path)] == []
