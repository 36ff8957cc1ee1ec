"""One run of a Spark cell: its tag, its time limit, its progress line, its note for recovery, and how it may end.

Everything that a cell starts on the server carries the cell's tag, so that Stop and the time limit end all of it and
nothing else, and the session stays usable. Used as a context manager around the cell's work.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tuttilab.magics.parse import UsageError
from tuttilab.magics.spark_errors import SparkCellError, is_cancelled, is_lost_session, short_python_error, short_text
from tuttilab.magics.spark_progress import ProgressLine
from tuttilab.magics.spark_session import SessionProvider, SparkEndpoint
from tuttilab.magics.spark_state import CellNote, state_directory
from tuttilab.scheduler.errors import TuttiError

if TYPE_CHECKING:
    from tuttilab.magics.spark_connect import Operation, SparkSession

# A cell of Python that does not come back after its operations were ended is interrupted like by Stop.
_GRACE_S = 2.0
# An operation that was on its way when the others were ended is on the server by then.
_STRAGGLER_S = 0.5


class SparkCellStopped(KeyboardInterrupt):
    """Somebody pressed Stop; the cell's operations were ended."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass
class OpenSession:
    """A session that this kernel holds, the cell that uses it at the moment, and threads that stopped cells left."""

    endpoint: SparkEndpoint
    spark: SparkSession
    cell: SparkCell | None = None
    stopped: weakref.WeakSet[threading.Thread] = field(default_factory=weakref.WeakSet)

    def starting(self, operation: Operation) -> Iterable[str]:
        """Told by spark_connect before each operation."""
        if threading.current_thread() in self.stopped:
            raise RuntimeError("the cell that started this thread was stopped")
        return () if self.cell is None else self.cell.starting(operation)


class Sessions:
    """The sessions of this kernel by name; `current` is the one used when a cell names none."""

    def __init__(self, provider: SessionProvider) -> None:
        self.provider = provider
        self.current = "default"
        self._open: dict[str, OpenSession] = {}

    def get(self, name: str | None, on_wait: Callable[[str], None]) -> OpenSession:
        """The session, opened or opened again when its server has gone meanwhile."""
        name = name or self.current
        held = self._open.get(name)
        if held is not None and _answers(held.endpoint):
            return held
        try:
            endpoint = self.provider.endpoint(name, on_wait)
        except TuttiError as error:
            raise SparkCellError(short_text(str(error))) from error
        except KeyboardInterrupt as error:
            raise SparkCellStopped(
                f"Stopped waiting for the Spark session {name}, which still comes up; %spark stop {name} gives it up."
            ) from error
        if held is not None:
            self.drop(name)
            on_wait(f"session {name} had ended and was started again: its temporary views are gone")
        return self.adopt(endpoint)

    def adopt(self, endpoint: SparkEndpoint) -> OpenSession:
        """Hold a session that the provider has just started."""
        from tuttilab.magics.spark_connect import open_session  # imports pyspark: more than a second

        watcher = _Forward()
        held = OpenSession(endpoint, open_session(endpoint, watcher))
        watcher.session = held
        self._open[endpoint.name] = held
        return held

    def drop(self, name: str) -> None:
        """Forget a session that has ended."""
        held = self._open.pop(name, None)
        if held is not None:
            held.spark.client.close()

    def close(self) -> None:
        """Give up all connections, when the kernel ends or the extension is unloaded; the servers go on."""
        for name in list(self._open):
            self.drop(name)


class _Forward:
    """Stands in as the watcher until the session exists that it belongs to."""

    session: OpenSession | None = None

    def starting(self, operation: Operation) -> Iterable[str]:
        return () if self.session is None else self.session.starting(operation)


class SparkCell(AbstractContextManager["SparkCell"]):
    """`with SparkCell(...) as cell: …`: leaves with SparkCellError or SparkCellStopped instead of Spark's exceptions."""

    def __init__(
        self,
        sessions: Sessions,
        held: OpenSession,
        progress: ProgressLine,
        source: str,
        var: str | None,
        how: str,
        timeout_s: float | None,
    ) -> None:
        self.sessions = sessions
        self.held = held
        self.spark = held.spark
        self.progress = progress
        self.timeout_s = timeout_s
        # Turns an exception into the short text; the SQL magic sets one that knows the statement.
        self.explain_error: Callable[[BaseException], str] = short_python_error
        self.tag = f"tuttilab-cell-{uuid.uuid4().hex}"
        endpoint = held.endpoint
        self._note = CellNote(state_directory(), self.tag, endpoint.name, endpoint.job_id, held.spark.session_id, var, how, source)
        # Any: Spark declares a base class where it only calls.
        self._handler: Any = progress
        self._timer: threading.Timer | None = None
        self._timed_out = False
        self._ended = threading.Event()
        self._threads_before: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def starting(self, operation: Operation) -> Iterable[str]:
        if self._timed_out:
            raise TimeoutError("the cell's time is up")
        with self._lock:
            if not self._ended.is_set():
                self._note.add(operation.operation_id, operation.gives_result)
        return (self.tag,)

    def __enter__(self) -> SparkCell:
        self._threads_before = set(threading.enumerate())
        self.held.cell = self
        self.spark.registerProgressHandler(self._handler)
        if self.timeout_s is not None:
            self._timer = threading.Timer(self.timeout_s, self._time_is_up)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
        self.held.cell = None
        self.spark.client.remove_progress_handler(self._handler)
        try:
            if error is None:
                self.progress.finish("done")
            else:
                self._fail(error)
        finally:
            self._note.remove()

    def _fail(self, error: BaseException) -> None:
        if self._timed_out:
            self.progress.finish("time is up")
            limit = f"{self.timeout_s:g} s"
            raise SparkCellError(short_text(f"The cell ran longer than --timeout {limit} and was ended.")) from error
        if isinstance(error, KeyboardInterrupt):
            self.interrupt()
            self.progress.finish("stopped")
            raise SparkCellStopped("Stopped: the cell's Spark operations were ended; the session stays usable.") from error
        if isinstance(error, UsageError) or not isinstance(error, Exception):
            self.progress.finish("failed")
            return
        self.progress.finish("failed")
        if is_lost_session(error):
            raise SparkCellError(self._lost()) from error
        if is_cancelled(error):
            raise SparkCellError(short_text("The operation was ended from elsewhere; run the cell again.")) from error
        raise SparkCellError(self.explain_error(error)) from error

    def interrupt(self) -> None:
        """End all operations of this cell, and let its threads start no more. Never waits long: the server may be gone."""
        self.held.stopped.update(set(threading.enumerate()) - self._threads_before - {threading.current_thread()})
        first = threading.Event()
        worker = threading.Thread(target=self._interrupt_quietly, args=(first,), daemon=True)
        worker.start()
        first.wait(3.0)

    def _interrupt_quietly(self, first: threading.Event) -> None:
        try:
            self.spark.interruptTag(self.tag)
            first.set()
            time.sleep(_STRAGGLER_S)
            self.spark.interruptTag(self.tag)
        except Exception:  # the cell ends anyway, and its own error says more
            first.set()

    def _time_is_up(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._timed_out = True
        self.interrupt()
        if not self._ended.wait(_GRACE_S):
            # A signal and not just an exception: it wakes the cell from a sleep or a read.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _lost(self) -> str:
        name = self.held.endpoint.name
        self.sessions.drop(name)
        reason = ""
        for info in self.sessions.provider.list():
            if info.name == name and info.job_id == self.held.endpoint.job_id:
                reason = f" ({info.phase}: {info.reason})" if info.reason else f" ({info.phase})"
        return short_text(
            f"The Spark session {name} has ended{reason}.",
            "Run the cell again to start a new one; temporary views of the old one are gone.",
        )


def _answers(endpoint: SparkEndpoint) -> bool:
    """Whether something listens there: a tenth of a millisecond, against seconds of retries by the client."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=1.0):
            return True
    except OSError:
        return False
