"""Tab completion on the lines of our magics: option names, their values, handle variables, queues and job ids.

What the service is asked for is kept for five seconds, and nothing is asked of a service that is not connected yet: Tab never
starts a control plane.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics import dag_magic, jobs_magic, submit_magic
from tuttilab.magics.connection import connected
from tuttilab.magics.handle import JobHandle
from tuttilab.magics.job_text import short_id
from tuttilab.magics.map_handle import MapHandle
from tuttilab.magics.parse import Option
from tuttilab.scheduler.errors import TuttiError

_KEPT_S: Final = 5.0
_VARIABLES: Final = frozenset({"--in", "--out", "--map"})
_JOBS: Final = frozenset({"--after"})

Table = Mapping[str, Sequence[str]]
"""Option names with the values that each can take; an empty list where anything goes."""


def tables() -> dict[str, Table]:
    """Per magic as it is written."""
    found: dict[str, Table] = {
        "%%submit": _table(submit_magic.OPTIONS),
        "%jobs": _table(jobs_magic.JOBS_OPTIONS),
        "%job": _table(jobs_magic.JOB_OPTIONS),
        "%attach": _table(jobs_magic.ATTACH_OPTIONS),
        "%quota": {},
        "%dag": _table(dag_magic.DAG_OPTIONS),
    }
    return found


def _table(options: Sequence[Option]) -> dict[str, list[str]]:
    return {option.name: list(option.choices) for option in options}


class Remembered:
    """Answers of the service, asked for again after a few seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kept: dict[str, tuple[float, list[str]]] = {}

    def get(self, what: str, ask: Callable[[], Iterable[str]]) -> list[str]:
        at, values = self._kept.get(what, (float("-inf"), []))
        if self._now() - at < _KEPT_S:
            return values
        try:
            values = list(ask())
        except TuttiError:
            # No answer is no reason to disturb somebody who types.
            values = []
        self._kept[what] = (self._now(), values)
        return values

    def queues(self) -> list[str]:
        return self.get("queues", lambda: [queue.name for queue in _service().queues() if queue.mine])

    def clusters(self) -> list[str]:
        return self.get("clusters", lambda: [cluster.name for cluster in _service().clusters()])

    def jobs(self) -> list[str]:
        return self.get("jobs", lambda: [short_id(view.id) for view in _service().jobs(all=True, limit=50).jobs])


def _service() -> Any:
    """The client when there is one. Any: the client's class would make this module import it for a type alone."""
    service = connected()
    if service is None:
        raise TuttiError("not connected")
    return service


class Completer:
    """Candidates for the word under the cursor. Apart from IPython, so that it can be asked directly."""

    def __init__(self, tables: Mapping[str, Table], namespace: Mapping[str, Any], remembered: Remembered | None = None) -> None:
        self._tables = tables
        self._namespace = namespace
        self._remembered = remembered or Remembered()

    def candidates(self, line: str) -> list[str] | None:
        """For the text up to the cursor; None when the line is not one of ours."""
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
            return self._of_list(self._values(before[-1], table), word)
        if word.startswith("-"):
            return [option for option in table if option.startswith(word)]
        positionals = [found for found in self._positionals(magic, len(before)) if found.startswith(word)]
        return positionals if word else [*positionals, *table]

    def _takes_value(self, magic: str, option: str) -> bool:
        spelled = {o.name: o for o in (*submit_magic.OPTIONS, *jobs_magic.JOBS_OPTIONS, *jobs_magic.JOB_OPTIONS)}.get(option)
        return bool(self._tables[magic][option]) or spelled is None or not spelled.is_flag

    def _of_list(self, values: Iterable[str], word: str) -> list[str]:
        """Of a list with commas only the last part is being written."""
        done, comma, part = word.rpartition(",")
        return [f"{done}{comma}{value}" for value in values if value.startswith(part)]

    def _values(self, option: str, table: Table) -> list[str]:
        if table[option]:
            return list(table[option])
        if option == "--queue":
            return self._remembered.queues()
        if option == "--cluster":
            return self._remembered.clusters()
        if option in _JOBS:
            return [*self._handles(), *self._remembered.jobs()]
        if option in _VARIABLES:
            return sorted(name for name in self._namespace if not name.startswith("_"))
        return []

    def _positionals(self, magic: str, given: int) -> list[str]:
        if magic in ("%job", "%attach") and given == 0:
            return [*self._handles(), *self._remembered.jobs()]
        if magic == "%job" and given == 1:
            return list(jobs_magic.COMMANDS)
        if magic == "%dag" and given == 0:
            return list(dag_magic.COMMANDS)
        if magic == "%quota" and given == 0:
            return self._remembered.queues()
        return []

    def _handles(self) -> list[str]:
        return sorted(
            name
            for name, value in self._namespace.items()
            if isinstance(value, (JobHandle, MapHandle)) and not name.startswith("_")
        )


def matcher(shell: InteractiveShell, extra: Mapping[str, Table]) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """For ``shell.Completer.custom_matchers``. ``extra`` are the tables of further magics."""
    completer = Completer({**tables(), **extra}, shell.user_ns)

    def tuttilab_matcher(context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        line = lines[context.cursor_line][: context.cursor_position] if context.cursor_line < len(lines) else ""
        found = completer.candidates(line)
        if found is None:
            return {"completions": [], "suppress": False}
        # IPython replaces what it takes for the last word, and for it a word begins anew behind "=" and the like.
        word = "" if line[-1].isspace() else line.split()[-1]
        skipped = len(word) - len(context.token)
        return {
            "completions": [SimpleCompletion(text[skipped:], type="option") for text in found],
            "suppress": True,
        }

    found: Callable[[CompletionContext], SimpleMatcherResult] = context_matcher()(tuttilab_matcher)
    return found
