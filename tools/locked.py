"""What lock.txt says: each package with its version, where it applies and its hashes. Standard library only."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "lock.txt"
CONSTRAINTS = ROOT / "constraints.txt"
# `name[extra]==1.2 ; marker \` and then one line for each hash.
PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>[^\\]*[^\\\s]))?\s*\\?")


@dataclass(frozen=True)
class Entry:
    """One package of a requirements file. A package may have more than one, each with a marker of its own."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    text: str


def entries(text: str) -> list[Entry]:
    """Raises ValueError for a line that is neither a comment nor a package with its version."""
    joined = re.findall(r"^(?!#|[ \t]|$).*\n?(?:[ \t].*\n?)*", text, re.MULTILINE)
    return [parsed(piece) for piece in joined]


def parsed(piece: str) -> Entry:
    first, *rest = piece.splitlines()
    found = PINNED.fullmatch(first.rstrip())
    if found is None:
        raise ValueError(f"Not a package with its version: {first!r}. Expected for example `pyyaml==6.0.3`; run `make lock`.")
    hashes = tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", "\n".join(rest)))
    return Entry(normal(found["name"]), found["version"], found["marker"] or "", hashes, piece.rstrip() + "\n")


def normal(name: str) -> str:
    """As package indexes compare names: `Types_PyYAML` is `types-pyyaml`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def excerpt(text: str, *names: str, but: bool = False) -> str:
    """The entries of these packages alone, as a requirements file; with `but`, all others."""
    return "".join(entry.text for entry in entries(text) if (entry.name in names) is not but)


def parents(entry: Entry) -> list[str]:
    """Who asked for the package, as uv notes it: `# via jupyterlab`, or one line each below `# via`."""
    notes = "\n".join(re.findall(r"^ +#(.*)$", entry.text, re.MULTILINE)).partition("via")[2]
    return [line.strip() for line in notes.splitlines() if line.strip()]
