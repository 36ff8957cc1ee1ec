"""Tab completion for the lines of the magics: option names, their values, handle variables, queues and job ids.

Answers of the service are cached for five seconds. Without a connection nothing is fetched: Tab never starts a control plane.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.jobs import dag_magic, jobs_magic
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import MapHandle
from tuttilab.magics.shared.connection import connected
from tuttilab.magics.shared.job_text import short_id
from tuttilab.magics.shared.parse import Option
from tuttilab.magics.submission import submit_magic
from tuttilab.scheduler.domain.errors import TuttiError

_CACHE_S: Final = 5.0
_VARIABLES: Final = frozenset({"--in", "--out", "--map"})
_JOBS: Final = frozenset({"--after"})

_MOST_FILES: Final = 100
_WORD = re.compile(r"[\w.-]+")

Table = Mapping[str, Sequence[str]]
"""Option names with the values that each can take; an empty list for any value."""


def tables() -> dict[str, Table]:
    """The table of each magic, by its spelling."""
    found: dict[str, Table] = {
        "%%submit": _table(submit_magic.OPTIONS),
        "%submit": _table(submit_magic.NOTEBOOK_OPTIONS),
        "%jobs": _table(jobs_magic.JOBS_OPTIONS),
        "%job": _table(jobs_magic.JOB_OPTIONS),
        "%attach": _table(jobs_magic.ATTACH_OPTIONS),
        "%quota": {},
        "%dag": _table(dag_magic.DAG_OPTIONS),
    }
    return found


def _table(options: Sequence[Option]) -> dict[str, list[str]]:
    return {option.name: list(option.choices) for option in options}


class CachedAnswers:
    """Caches answers of the service for a few seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._answers: dict[str, tuple[float, list[str]]] = {}

    def get(self, what: str, fetch: Callable[[], Iterable[str]]) -> list[str]:
        at, values = self._answers.get(what, (float("-inf"), []))
        if self._now() - at < _CACHE_S:
            return values
        try:
            values = list(fetch())
        except TuttiError:
            # An error must not disturb the user's typing.
            values = []
        self._answers[what] = (self._now(), values)
        return values

    def queues(self) -> list[str]:
        return self.get("queues", lambda: [queue.name for queue in _service().queues() if queue.mine])

    def clusters(self) -> list[str]:
        return self.get("clusters", lambda: [cluster.name for cluster in _service().clusters()])

    def jobs(self) -> list[str]:
        """Short ids, names that one job alone has and that are one word, and ``last``."""

        def fetch() -> Iterable[str]:
            views = _service().jobs(all=True, limit=50).jobs
            names = [view.name for view in views]
            yield from (short_id(view.id) for view in views)
            yield from (name for name in dict.fromkeys(names) if names.count(name) == 1 and _WORD.fullmatch(name))
            yield from ["last"] if views else []

        return self.get("jobs", fetch)


def _service() -> Any:
    """The client if there is a connection. Any: the type alone would need the import of the client."""
    service = connected()
    if service is None:
        raise TuttiError("not connected")
    return service


class Completer:
    """Finds candidates for the word under the cursor. Independent of IPython, for tests."""

    def __init__(self, tables: Mapping[str, Table], namespace: Mapping[str, Any], cached: CachedAnswers | None = None) -> None:
        self._tables = tables
        self._namespace = namespace
        self._cached = cached or CachedAnswers()

    def candidates(self, line: str) -> list[str] | None:
        """Candidates for the text up to the cursor; None when the line is not one of these magics."""
        magic, _, rest = line.lstrip().partition(" ")
        table = self._tables.get(magic)
        if table is None or not line.lstrip()[len(magic) :]:
            return None
        words = rest.split()
        word = "" if not rest or rest[-1].isspace() else words[-1]
        before = words[: len(words) - bool(word)]
        name, equals, value = word.partition("=")
        if equals and name in table:
            return [f"{name}={found}" for found in self._values(name, table) if found.startswith(value)]
        if before and before[-1] in table and not word.startswith("-") and self._takes_value(magic, before[-1]):
            return self._last_of_list(self._values(before[-1], table), word)
        if word.startswith("-"):
            return [option for option in table if option.startswith(word)]
        positionals = [found for found in self._positionals(magic, len(before)) if found.startswith(word)]
        return positionals if word else [*positionals, *table]

    def _takes_value(self, magic: str, option: str) -> bool:
        spelled = {
            o.name: o
            for o in (*submit_magic.OPTIONS, *submit_magic.NOTEBOOK_OPTIONS, *jobs_magic.JOBS_OPTIONS, *jobs_magic.JOB_OPTIONS)
        }.get(option)
        return bool(self._tables[magic][option]) or spelled is None or not spelled.is_flag

    def _last_of_list(self, values: Iterable[str], word: str) -> list[str]:
        """Completes the last part of a comma-separated list."""
        done, comma, part = word.rpartition(",")
        return [f"{done}{comma}{value}" for value in values if value.startswith(part)]

    def _values(self, option: str, table: Table) -> list[str]:
        if table[option]:
            return list(table[option])
        if option == "--queue":
            return self._cached.queues()
        if option == "--cluster":
            return self._cached.clusters()
        if option in _JOBS:
            return [*self._handles(), *self._cached.jobs()]
        if option in _VARIABLES:
            return sorted(name for name in self._namespace if not name.startswith("_"))
        return []

    def _positionals(self, magic: str, given: int) -> list[str]:
        if magic in ("%job", "%attach") and given == 0:
            return [*self._handles(), *self._cached.jobs()]
        if magic == "%job" and given == 1:
            return list(jobs_magic.COMMANDS)
        if magic == "%dag" and given == 0:
            return list(dag_magic.COMMANDS)
        if magic == "%dag" and given == 1:
            return ["last", *_files("*.yaml"), *_files("*.yml")]
        if magic == "%submit" and given == 0:
            return _files("*.ipynb")
        if magic == "%quota" and given == 0:
            return self._cached.queues()
        return []

    def _handles(self) -> list[str]:
        return sorted(
            name
            for name, value in self._namespace.items()
            if isinstance(value, (JobHandle, MapHandle)) and not name.startswith("_")
        )


def _files(pattern: str) -> list[str]:
    """Of the current folder, at most `_MOST_FILES`."""
    try:
        return sorted(itertools.islice((path.name for path in Path().glob(pattern)), _MOST_FILES))
    except OSError:
        return []


_SQL_CELL: Final = re.compile(r"^\s*%%?sparksql\b|^\s*%%spark\b[^\n]*--lang[= ]sql\b")
_BINDING: Final = re.compile(r"(?<![\w:)\]`'\"]):(\w*)\Z")
_AFTER_TABLE_WORD: Final = re.compile(r"\b(?:FROM|JOIN)\s+:\w*\Z", re.IGNORECASE)


def bindings(text: str, namespace: Mapping[str, Any]) -> list[str] | None:
    """Notebook variables for `:na` before the cursor of an SQL cell, frames alone after FROM and JOIN; None elsewhere."""
    typed = _BINDING.search(text)
    if typed is None or _SQL_CELL.search(text) is None:
        return None
    is_table = _AFTER_TABLE_WORD.search(text) is not None
    return sorted(
        name
        for name, value in namespace.items()
        if name.startswith(typed[1]) and not name.startswith("_") and (not is_table or _is_frame(value))
    )


def _length_typed(line: str) -> int:
    typed = _BINDING.search(line)
    return len(typed[1]) if typed is not None else 0


def _is_frame(value: object) -> bool:
    """Whether it can stand after FROM; found by name, as no library is imported for Tab."""
    module = type(value).__module__.partition(".")[0]
    return (module, type(value).__name__) in _FRAMES


_FRAMES: Final = frozenset({("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"), ("pyspark", "DataFrame")})


def matcher(shell: InteractiveShell, extra: Mapping[str, Table]) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """A matcher for ``shell.Completer.custom_matchers``. ``extra``: tables of further magics."""
    completer = Completer({**tables(), **extra}, shell.user_ns)

    def tuttilab_matcher(context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        line = lines[context.cursor_line][: context.cursor_position] if context.cursor_line < len(lines) else ""
        names = bindings("\n".join([*lines[: context.cursor_line], line]), shell.user_ns)
        if names is not None:
            skipped = _length_typed(line) - len(context.token.rpartition(":")[2])
            colon = ":" if context.token.endswith(":") or ":" in context.token else ""
            return {
                "completions": [SimpleCompletion(colon + name[skipped:], type="variable") for name in names],
                "suppress": True,
            }
        found = completer.candidates(line)
        if found is None:
            return {"completions": [], "suppress": False}
        # IPython replaces only what it takes for the last word, and it begins a new word after "=" and the like.
        word = "" if line[-1].isspace() else line.split()[-1]
        skipped = len(word) - len(context.token)
        return {
            "completions": [SimpleCompletion(text[skipped:], type="option") for text in found],
            "suppress": True,
        }

    found: Callable[[CompletionContext], SimpleMatcherResult] = context_matcher()(tuttilab_matcher)
    return found
