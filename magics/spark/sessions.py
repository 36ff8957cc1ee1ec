"""The sessions that a kernel holds: opened, opened again when their server has gone, taken over from a kernel that was killed."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from tuttilab.magics.shared.notebook import notebook_name
from tuttilab.magics.spark.ends import EndWatch, answers
from tuttilab.magics.spark.errors import SparkCellError, SparkCellStopped, short_text
from tuttilab.magics.spark.session import SessionProvider, SparkEndpoint
from tuttilab.magics.spark.state import SessionNote, sessions_directory, take_over
from tuttilab.scheduler.domain.errors import TuttiError

if TYPE_CHECKING:
    from tuttilab.magics.spark.calls import Gate
    from tuttilab.magics.spark.cell import SparkCell
    from tuttilab.magics.spark.connect import Operation, SparkSession


@dataclass
class OpenSession:
    """A session that this kernel holds, the cell that uses it at the moment, and threads that stopped cells left."""

    endpoint: SparkEndpoint
    spark: SparkSession
    watch: EndWatch
    gate: Gate
    cell: SparkCell | None = None
    stopped: weakref.WeakSet[threading.Thread] = field(default_factory=weakref.WeakSet)
    views: dict[str, None] = field(default_factory=dict)
    """Names of the temporary views that this kernel made in it."""
    note: SessionNote | None = None

    def starting(self, operation: Operation) -> Iterable[str]:
        """Told by spark_connect before each operation."""
        if operation.views:
            self.views.update(dict.fromkeys(operation.views))
            if self.note is not None:
                self.note.write(self.views)
        if threading.current_thread() in self.stopped:
            raise RuntimeError("the cell that started this thread was stopped")
        return () if self.cell is None else self.cell.starting(operation)


class Sessions:
    """The sessions of this kernel by name; `current` is the one used when a cell names none."""

    def __init__(self, provider: SessionProvider, module_path: Callable[[], Sequence[str]] = tuple) -> None:
        """`module_path`: the folders in which this notebook finds its own modules."""
        self.provider = provider
        self._module_path = module_path
        self.current = "default"
        self._open: dict[str, OpenSession] = {}
        self._lost: dict[str, str] = {}

    def get(self, name: str | None, on_wait: Callable[[str], None], tell: Callable[[str], None]) -> OpenSession:
        """The session, opened or opened again when its server has gone meanwhile. `tell` shows what must stay visible."""
        name = name or self.current
        held = self._open.get(name)
        try:
            if held is not None and not held.watch.has_ended and answers(held.endpoint, self.provider):
                return held
            endpoint = self.provider.endpoint(name, on_wait)
        except TuttiError as error:
            raise SparkCellError(short_text(str(error))) from error
        except KeyboardInterrupt as error:
            raise stopped_waiting(name) from error
        if held is None:
            # A cell that failed with the session dropped it, and has said so; what was lost with it is said here.
            gone = self._lost.pop(name, None)
        elif endpoint.is_same_session(held.endpoint):
            gone = None
        else:
            why = self.provider.why_ended(held.endpoint.job_id)
            gone = f"Spark session {name} {why}; it was started again. {lost_views(held)}"
        self.drop(name)
        if gone is not None:
            tell(gone)
        return self.adopt(endpoint, tell)

    def adopt(self, endpoint: SparkEndpoint, tell: Callable[[str], None] = lambda _text: None) -> OpenSession:
        """Hold a session that the provider has found or just started, as a kernel of this notebook that was killed had it."""
        from tuttilab.magics.spark.connect import Gate, open_session, versions_of  # imports pyspark: more than a second

        watcher = _Forward()
        notebook = notebook_name()
        where = endpoint.name, endpoint.job_id, endpoint.attempt
        left = None if notebook is None else take_over(sessions_directory(), notebook, *where)
        session_id = None if left is None else left.session_id
        gate = Gate()
        spark = open_session(endpoint, watcher, session_id=session_id, module_path=self._module_path, gate=gate)
        try:
            there = versions_of(spark)
        except Exception:  # the cell's own first call says more
            there = None, None
        try:
            check_versions(endpoint.name, gate, *there)
        except SparkCellError:
            spark.client.close()
            raise
        held = OpenSession(endpoint, spark, EndWatch(endpoint, self.provider, gate.shut), gate)
        if notebook is not None:
            held.note = SessionNote(sessions_directory(), notebook, *where, spark.session_id)
            held.note.write(() if left is None else left.views)
        if left is not None:
            held.views.update(dict.fromkeys(left.views))
            tell(f"Spark session {endpoint.name} is as the kernel before, which was killed, left it{_shown_views(left.views)}.")
        watcher.session = held
        self._open[endpoint.name] = held
        return held

    def drop(self, name: str) -> str:
        """Forget a session that has ended; says which temporary views are gone with it."""
        held = self._open.pop(name, None)
        if held is None:
            return ""
        held.watch.finish()
        if held.note is not None:
            held.note.remove()
        # First, because the client waits for calls that it tries again.
        held.gate.shut()
        held.spark.client.close()
        return lost_views(held) if held.views else ""

    def lose(self, name: str) -> str:
        """Forget a session that ended under a cell: what is gone is said now, and once more by the next cell that uses it."""
        gone = self.drop(name)
        self._lost[name] = f"Spark session {name} was started again. {gone or 'Temporary views of the one before are gone.'}"
        return gone

    def close(self) -> None:
        """Give up all connections, when the kernel ends or the extension is unloaded; the servers go on."""
        for name in list(self._open):
            self.drop(name)


def check_versions(name: str, gate: Gate, python: str | None, spark: str | None) -> None:
    """Python and Spark of the session's server against the kernel's own. Raises SparkCellError for another minor version of Spark.

    With another Python no function may be sent. Functions are written by Spark's own cloudpickle, so its version is Spark's.
    """
    mine, spark_here = f"{sys.version_info.major}.{sys.version_info.minor}", version("pyspark")
    remedy = f"`%spark start {name} --restart` starts it with this kernel's, another name a second one."
    if spark is not None and spark.split(".")[:2] != spark_here.split(".")[:2]:
        said = f"Spark session {name} runs Spark {spark} and this kernel has Spark {spark_here}: neither reads the other."
        raise SparkCellError(short_text(said, remedy))
    if python is not None and python != mine:
        gate.no_functions = (
            f"Spark session {name} runs functions with Python {python}, and this kernel is Python {mine}: it could not read them. "
            f"SQL and DataFrames work; {remedy}"
        )


def stopped_waiting(name: str) -> SparkCellStopped:
    return SparkCellStopped(f"Stopped waiting for the Spark session {name}, which still comes up; %spark stop {name} gives it up.")


def lost_views(held: OpenSession) -> str:
    """Names the temporary views that are gone with the session, as far as this kernel made them."""
    names = list(held.views)
    if not names:
        return "Temporary views of the one before are gone."
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"Its temporary view{'s' if len(names) > 1 else ''} {shown} {'are' if len(names) > 1 else 'is'} gone."


def _shown_views(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"; its temporary view{'s' if len(names) > 1 else ''}: {shown}" if names else ""


class _Forward:
    """Stands in as the watcher until the session exists that it belongs to."""

    session: OpenSession | None = None

    def starting(self, operation: Operation) -> Iterable[str]:
        return () if self.session is None else self.session.starting(operation)
