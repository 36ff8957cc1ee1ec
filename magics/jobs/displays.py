"""Shows in the notebook what a cell displayed in its job. The records are described in `tuttilab.sidecar.cell.display`.

They came from user code, of the one who looks at them: they are shown as the output of a cell is.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from IPython.core.getipython import get_ipython
from IPython.display import publish_display_data

from tuttilab.scheduler.domain.terminal import clean

_RICH: Final = frozenset({"text/plain"})
"""What every object has: not rich."""
_PLAIN_TEXT: Final = "text/plain"


class Replay:
    """Shows outputs as their records come, each in a place of its own below the cell.

    After `clear_output` the places are used again from the first on, so that a plot that is drawn anew each round stays one plot.
    """

    def __init__(self) -> None:
        self._prefix = uuid.uuid4().hex
        self._places = 0
        """How many there are."""
        self._next = 0
        self._named: dict[str, int] = {}
        self._seen = 0

    def show(self, records: Sequence[Mapping[str, Any]]) -> None:
        """All records so far; those that were shown before are left out."""
        for record in records[self._seen :]:
            self._one(record)
        self._seen = max(self._seen, len(records))

    def finish(self) -> None:
        """Places that were cleared and not used again show nothing."""
        for place in range(self._next, self._places):
            self._publish(place, {_PLAIN_TEXT: ""}, {}, is_new=False)

    def _one(self, record: Mapping[str, Any]) -> None:
        if record.get("clear"):
            self._next = 0
            self._named.clear()
            return
        data, metadata, name = record.get("data"), record.get("metadata"), record.get("id")
        if not isinstance(data, dict):
            return
        if record.get("update"):
            place = self._named.get(str(name))
            if place is None:
                return
        else:
            place, self._next = self._next, self._next + 1
            if isinstance(name, str):
                self._named[name] = place
        self._publish(place, data, metadata if isinstance(metadata, dict) else {}, is_new=place >= self._places)
        self._places = max(self._places, place + 1)

    def _publish(self, place: int, data: dict[str, Any], metadata: dict[str, Any], *, is_new: bool) -> None:
        _publish(data, metadata, {"display_id": f"{self._prefix}-{place}"}, update=not is_new)


def replay(records: Sequence[Mapping[str, Any]]) -> None:
    """All outputs of a job that has ended."""
    shown = Replay()
    shown.show(records)
    shown.finish()


def value_shown(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The MIME bundle that the job made of its value."""
    return next((record["value"] for record in reversed(records) if isinstance(record.get("value"), dict)), None)


def replay_all(records: Sequence[Mapping[str, Any]]) -> None:
    """The outputs, and the value as the job showed it."""
    replay(records)
    told = value_shown(records)
    if told is not None:
        _publish(told, {}, {})


def show_value_as_there(records: Sequence[Mapping[str, Any]], value: object) -> None:
    """Shows the picture or HTML that the job made of its value, when this kernel would show less."""
    told = value_shown(records)
    shell = get_ipython()
    if told is None or shell is None:
        return
    formatter: Any = shell.display_formatter  # Any: IPython has no types here
    here = formatter.format(value)[0] if formatter is not None else {}
    rich = {kind: data for kind, data in told.items() if kind != _PLAIN_TEXT}
    if rich and not set(here) - _RICH:
        _publish({**rich, _PLAIN_TEXT: str(told.get(_PLAIN_TEXT, ""))}, {}, {})


def _publish(data: dict[str, Any], metadata: dict[str, Any], transient: dict[str, Any], *, update: bool = False) -> None:
    if isinstance(text := data.get(_PLAIN_TEXT), str):
        data = {**data, _PLAIN_TEXT: clean(text)}
    publish_display_data(data, metadata, transient=transient, update=update)  # type: ignore[no-untyped-call]  # IPython has no types here
