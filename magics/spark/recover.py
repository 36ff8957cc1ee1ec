"""`%attach` for Spark cells whose kernel died: binds or shows each result that can still be fetched.

Recovered is the operation that was running, or its whole result if it has ended meanwhile: not the rest of the cell's
Python, and not operations whose result the old kernel had fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.shared.display import Area, Shown, display_value, show
from tuttilab.magics.spark.errors import grpc_status
from tuttilab.magics.spark.session import SessionProvider
from tuttilab.magics.spark.state import Recoverable, orphaned_cells, remove_entry, state_directory

_SHOWN_ROWS = 1000


class CannotReattach(Exception):
    """The result is lost; the message says why. The entry has been removed."""


@dataclass(frozen=True)
class Recovered:
    """The result in the form that the cell asked for; None for a command, which gives no rows.

    `value` is to be bound to `var`; without a var it is a preview to display.
    """

    var: str | None
    value: Any  # Any: pandas, Arrow, polars, or a preview
    note: str


def recoverable() -> list[Recoverable]:
    """The cells of dead kernels whose operation may still run, newest first."""
    return orphaned_cells(state_directory())


def reattach(entry: Recoverable, provider: SessionProvider, on_wait: Callable[[str], None]) -> Recovered:
    """Wait for the entry's last operation and return its result; Stop leaves it running and the entry in place.

    Raises CannotReattach, or the operation's own error.
    """
    from tuttilab.magics.spark.connect import OperationGone, fetch_again, open_session  # imports pyspark: more than a second
    from tuttilab.magics.spark.display import preview_of
    from tuttilab.magics.spark.results import AS_DICT, as_dict, as_form

    directory = state_directory()
    if not any(info.job_id == entry.job_id for info in provider.list()):
        remove_entry(directory, entry)
        raise CannotReattach(f"The Spark session {entry.session} of that cell has ended; run the cell again.")
    endpoint = provider.endpoint(entry.session, on_wait)
    if endpoint.job_id != entry.job_id:
        remove_entry(directory, entry)
        raise CannotReattach(f"The Spark session {entry.session} was started anew since; run the cell again.")
    operation_id, gives_result = entry.operations[-1]
    session = open_session(endpoint, session_id=entry.session_id)
    try:
        fetched = fetch_again(session, operation_id)
    except OperationGone as error:
        remove_entry(directory, entry)
        raise CannotReattach(
            f"The operation is no longer known to session {entry.session}: its result was fetched, or nobody asked "
            "for it within an hour; run the cell again."
        ) from error
    except Exception as error:
        if grpc_status(error) != "UNAVAILABLE":  # then its result may be there when the proxy answers again
            remove_entry(directory, entry)  # the operation's own failure: there is nothing more to fetch
        raise
    remove_entry(directory, entry)
    if fetched is None or not gives_result:
        return Recovered(entry.var, None, "The command has ended; it gives no rows.")
    if entry.how.removesuffix(AS_DICT) in ("preview", "spark"):
        preview = preview_of(fetched.arrow(), _SHOWN_ROWS)
        return Recovered(None, preview, "The rows that the cell would have shown.")
    value = as_form(fetched, entry.how.removesuffix(AS_DICT))
    if entry.how.endswith(AS_DICT):
        value = as_dict([value], first=sum(gives_rows for _, gives_rows in entry.operations[:-1]))
    return Recovered(entry.var, value, f"The whole result: {fetched.raw.num_rows:,} row(s).")


def attach_spark(shell: InteractiveShell, provider: Any) -> int:
    """Returns how many cells were found. ``provider`` is None without Spark. Any: its type needs the extra."""
    if provider is None:
        return 0
    entries = recoverable()
    for entry in entries:
        first_line = next((line for line in entry.source.splitlines() if line.strip()), "")
        show(Shown(f"A Spark cell of a kernel that died: {first_line[:80]}"))
        area = Area()
        try:
            recovered = reattach(entry, provider, partial(_show_status, area))
        except CannotReattach as error:
            show(Shown(str(error)))
            continue
        show(Shown(recovered.note + (f" It is in {recovered.var}." if recovered.var and recovered.value is not None else "")))
        if recovered.var is not None:
            shell.user_ns[recovered.var] = recovered.value
        elif recovered.value is not None:
            display_value(recovered.value)
    return len(entries)


def _show_status(area: Area, text: str) -> None:
    area.update(Shown(text, change_key=text))
