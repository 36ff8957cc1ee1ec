"""Write docs/features.md: which tests show which row of the feature list, and what is not shown yet.

The rows are in docs/features.csv. Which tests show them is read from the marks and names of the tests; none is run or imported.
`--check` changes nothing and exits 1 when the page is stale or rows and marks disagree. `tests/conftest.py` reads the rows through
this file too. Standard library only.
"""

import ast
import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs" / "features.csv"
PAGE = ROOT / "docs" / "features.md"
TESTS = ROOT / "tests"
COMMAND = "python tools/features_table.py"
SHOWN, PART, NOT_YET = "shown", "part", ""
GROUPS = {
    "N": "Notebooks and spawner",
    "M": "Magics",
    "J": "Jobs",
    "D": "DAGs and experiments",
    "S": "Scheduler",
    "C": "Side-cars and masters",
    "T": "Templates",
    "A": "Users, quota, administration",
    "F": "Models",
    "O": "Operations",
    "B": "Beyond that",
}
"""By the letter of a row's id. Names of tests may hold other letters: `test_I12_…` is about an invariant."""
BY_NAME = re.compile(rf"test_([{''.join(GROUPS)}]\d\d)_")
TIERS = {"M": "must", "S": "should", "L": "later", "X": "integrate"}
# The parts of tools/run_tests.py, longer paths first.
SUITE = {
    "e2e/lab": "browser",
    "e2e/kills": "kills",
    "e2e/replicas": "kills",
    "e2e/dags": "kills",
    "e2e": "end to end",
    "kube": "kube",
    "attack": "integration",
    "integration": "integration",
    "contract": "contract",
    "simulation": "simulation",
    "unit": "unit and property",
    "property": "unit and property",
}


@dataclass(frozen=True)
class Row:
    id: str
    feature: str
    shown_by: str
    """What a test has to show."""
    tier: str
    status: str
    missing: str
    """What of it no test shows, where the status is `part`."""


@dataclass(frozen=True, order=True)
class Shows:
    """One test with the ids that its marks and its name give it."""

    path: str
    """Below `tests/`."""
    name: str
    ids: tuple[str, ...]

    @property
    def part(self) -> str:
        return next((part for folder, part in SUITE.items() if self.path.startswith(f"{folder}/")), "architecture and packaging")


class UnreadMark(ValueError):
    """A mark stands where this program does not look for one."""


def rows(path: Path = ROWS) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def unknown_row(id: object) -> str:
    """Why a mark or a name is wrong."""
    return f"the feature list (docs/features.csv) has no row {id!r}; give the id of a row that the test shows, or leave it out"


# --- what the tests say ----------------------------------------------------------------------------------------------


def is_mark(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.feature"


def ids_in(*nodes: ast.expr) -> tuple[str, ...]:
    """Of the marks among decorators, or in the value of `pytestmark`."""
    marks = [each for node in nodes for each in ast.walk(node) if isinstance(each, ast.Call) and is_mark(each)]
    return tuple(str(ast.literal_eval(argument)) for mark in marks for argument in mark.args)


def shows_of(source: str, path: str) -> list[Shows]:
    tree = ast.parse(source)
    found = list(_shows_in(tree.body, path, "", ()))
    read = sum(1 for node in _places(tree.body) for each in ast.walk(node) if is_mark(each))
    if read != (there := sum(is_mark(node) for node in ast.walk(tree))):
        raise UnreadMark(
            f"tests/{path}: {there - read} feature mark(s) neither above a test or a class nor in pytestmark; move them there"
        )
    return found


def _places(body: list[ast.stmt]) -> Iterator[ast.expr]:
    """Where marks may stand."""
    for node in body:
        if (value := _pytestmark(node)) is not None:
            yield value
        if isinstance(node, ast.ClassDef):
            yield from node.decorator_list
            yield from _places(node.body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield from node.decorator_list


def _pytestmark(node: ast.stmt) -> ast.expr | None:
    return node.value if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" else None


def _shows_in(body: list[ast.stmt], path: str, prefix: str, above: tuple[str, ...]) -> Iterator[Shows]:
    """Tests of a module or a class that have ids; ``above``: what all of them have."""
    above += tuple(id for node in body if (value := _pytestmark(node)) is not None for id in ids_in(value))
    for node in body:
        found: Shows | None = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            by_name = BY_NAME.match(node.name)
            ids = (*above, *ids_in(*node.decorator_list), *((by_name[1],) if by_name else ()))
            found = Shows(path, prefix + node.name, tuple(dict.fromkeys(ids)))
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _shows_in(node.body, path, f"{prefix}{node.name}::", above + ids_in(*node.decorator_list))
        elif isinstance(node, ast.Assign) and re.fullmatch(r"Test\w*", name := ast.unparse(node.targets[0])) and not prefix:
            # As Hypothesis makes the test of a state machine: `TestCore = Core.TestCase`.
            found = Shows(path, name, above)
        if found is not None and found.ids:
            yield found


def all_shows() -> list[Shows]:
    paths = sorted(TESTS.rglob("test_*.py"))
    return sorted(each for path in paths for each in shows_of(path.read_text(encoding="utf-8"), path.relative_to(TESTS).as_posix()))


# --- whether both agree ----------------------------------------------------------------------------------------------


def disagreements(rows: list[Row], shows: list[Shows]) -> list[str]:
    """One sentence each."""
    known = [row.id for row in rows]
    shown = {id for each in shows for id in each.ids}
    found = [f"tests/{each.path}::{each.name}: {unknown_row(id)}" for each in shows for id in each.ids if id not in known]
    found += [
        f"docs/features.csv: row {id} stands there twice; remove one" for id in sorted({i for i in known if known.count(i) > 1})
    ]
    for row in rows:
        found += [f"docs/features.csv: row {row.id}: {why}" for why in _faults(row, has_mark=row.id in shown)]
    return found


def _faults(row: Row, *, has_mark: bool) -> Iterator[str]:
    if row.id[:1] not in GROUPS or row.tier not in TIERS or row.status not in (SHOWN, PART, NOT_YET):
        yield f"id, tier or status ({row.id}, {row.tier}, {row.status!r}) is not one that is known"
    if has_mark and row.status == NOT_YET:
        yield "a test has its mark; set the status to shown or part, or remove the mark"
    if not has_mark and row.status != NOT_YET:
        yield f"no test has its mark; mark the test that shows it, or clear the status {row.status}"
    if (row.status == PART) != bool(row.missing):
        yield "the column missing goes with the status part, and with no other; fill it or clear it"


# --- the page --------------------------------------------------------------------------------------------------------


def page(rows: list[Row], shows: list[Shows]) -> str:
    by_row: defaultdict[str, list[Shows]] = defaultdict(list)
    for each in shows:
        for id in each.ids:
            by_row[id].append(each)
    number = {status: sum(row.status == status for row in rows) for status in (SHOWN, PART, NOT_YET)}
    lines = [
        f"<!-- Made by `{COMMAND}` from docs/features.csv and the marks of the tests; make it again after a change of either. -->",
        "",
        "# Features, and the tests that show them",
        "",
        f"**{len(rows)} rows: {number[SHOWN]} shown, {number[PART]} in part, {number[NOT_YET]} not yet.**",
        "",
        "A row is *shown* when the tests beside it together show all that its third column asks for, *in part* when they show some",
        "of that. Numbers such as 1,000 kills are reached by the same tests in the long run (`make soak`); other runs do fewer.",
        f"Tiers: {', '.join(f'{letter} {word}' for letter, word in TIERS.items())}.",
    ]
    for letter, title in GROUPS.items():
        chosen = [row for row in rows if row.id.startswith(letter) and row.status != NOT_YET]
        if chosen:
            lines += [
                "",
                f"## {title}",
                "",
                *table(("id", "feature", "what shows it", "tier", "status", "tests", "part of the suite")),
            ]
            lines += [line(*_cells(row, by_row[row.id])) for row in chosen]
    lines += ["", "## Not shown yet", "", *table(("id", "feature", "what is missing", "tier"))]
    lines += [line(row.id, row.feature, row.shown_by, row.tier) for row in rows if row.status == NOT_YET]
    return "\n".join([*lines, ""])


def _cells(row: Row, tests: list[Shows]) -> tuple[str, ...]:
    status = row.status if row.status == SHOWN else f"in part; missing: {row.missing}"
    names = "<br>".join(f"`tests/{each.path}::{each.name}`" for each in tests)
    return row.id, row.feature, row.shown_by, row.tier, status, names, ", ".join(dict.fromkeys(each.part for each in tests))


def table(titles: tuple[str, ...]) -> tuple[str, str]:
    return line(*titles), line(*("---" for _ in titles))


def line(*cells: str) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(f"Unknown arguments {arguments}: expected none, or --check. Example: {COMMAND} --check")
        return 2
    try:
        listed, shows = rows(), all_shows()
    except UnreadMark as error:
        print(error)
        return 1
    found = disagreements(listed, shows)
    text = page(listed, shows)
    if not arguments and not found:
        PAGE.write_text(text, encoding="utf-8")
    elif not found and (not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text):
        found.append(f"docs/features.md is not what the marks and docs/features.csv say; run `{COMMAND}` and commit it.")
    for sentence in found:
        print(sentence)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
