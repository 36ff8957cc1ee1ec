"""Taking up the Spark operation of a kernel that died (`%attach` uses this).

What comes back is the operation that was running, or its whole result if it has ended meanwhile: not the rest of the
cell's Python, and not operations that had given their result to the old kernel before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuttilab.magics.spark_display import preview_of
from tuttilab.magics.spark_results import in_form
from tuttilab.magics.spark_session import SessionProvider
from tuttilab.magics.spark_state import Recoverable, forget, left_behind, state_directory

_SHOWN_ROWS = 1000


class CannotReattach(Exception):
    """The result is gone for good; the message says why. The entry has been forgotten."""


@dataclass(frozen=True)
class Recovered:
    """The result in the form that the cell asked for; None for a command, which has done its work by now.

    `value` belongs into `var`; without a var it is a preview to be displayed.
    """

    var: str | None
    value: Any  # Any: pandas, Arrow, polars, or a preview
    note: str


def recoverable() -> list[Recoverable]:
    """The cells of dead kernels whose operation may still run, newest first."""
    return left_behind(state_directory())


def reattach(entry: Recoverable, provider: SessionProvider, on_wait: Callable[[str], None]) -> Recovered:
    """Wait for the entry's last operation and return its result; Stop leaves it running and the entry in place.

    Raises CannotReattach, or the operation's own error.
    """
    from tuttilab.magics.spark_connect import OperationGone, fetch_again, open_session

    directory = state_directory()
    if not any(info.job_id == entry.job_id for info in provider.list()):
        forget(directory, entry)
        raise CannotReattach(f"The Spark session {entry.session} of that cell has ended; run the cell again.")
    endpoint = provider.endpoint(entry.session, on_wait)
    if endpoint.job_id != entry.job_id:
        forget(directory, entry)
        raise CannotReattach(f"The Spark session {entry.session} was started anew since; run the cell again.")
    operation_id, gives_result = entry.operations[-1]
    session = open_session(endpoint, session_id=entry.session_id)
    try:
        fetched = fetch_again(session, operation_id)
    except OperationGone as error:
        forget(directory, entry)
        raise CannotReattach(
            f"The operation is no longer known to session {entry.session}: its result was fetched, or nobody asked "
            "for it within an hour; run the cell again."
        ) from error
    except Exception:
        forget(directory, entry)  # the operation's own failure: there is nothing more to fetch
        raise
    forget(directory, entry)
    if fetched is None or not gives_result:
        return Recovered(entry.var, None, "The command has ended; it gives no rows.")
    if entry.how in ("preview", "spark"):
        preview = preview_of(fetched.arrow(), _SHOWN_ROWS)
        return Recovered(None, preview, "The rows that the cell would have shown.")
    return Recovered(entry.var, in_form(fetched, entry.how), f"The whole result: {fetched.raw.num_rows:,} row(s).")
