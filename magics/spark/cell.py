"""One run of a Spark cell: its tag, its time limit, its progress line, its note for recovery, and how it may end.

Everything that a cell starts on the server carries the cell's tag, so that Stop and the time limit end all of it and
nothing else, and the session stays usable. Used as a context manager around the cell's work.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.spark.ends import refusal_of
from tuttilab.magics.spark.errors import (
    SparkCellError,
    SparkCellStopped,
    is_cancelled,
    is_lost_session,
    is_of_connection,
    short_python_error,
    short_text,
)
from tuttilab.magics.spark.progress import ProgressLine
from tuttilab.magics.spark.sessions import OpenSession, Sessions
from tuttilab.magics.spark.state import CellNote, state_directory

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import Operation

# A cell of Python that does not come back after its operations were ended is interrupted like by Stop.
_GRACE_S = 2.0
# One interrupt may be caught, by the cell or by a finaliser that may not raise; then the cell is interrupted again.
_AGAIN_S = 10.0
# For an interrupt that is on its way when the cell ends. It takes microseconds.
_ARRIVAL_S = 1.0
# An operation may still be on its way to the server when the cell's others are ended: one that has just started needs seconds
# to take it. So the cell's operations are ended again until the server knows each of them as ended.
_AGAIN_PAUSE_S = 0.5
_ARRIVES_S = 30.0
_OVER = ("succeeded", "failed", "cancelled")


class _Interrupts:
    """SIGINT while one cell runs: Stop, and the interrupt of the cell's own time limit.

    The limit's interrupt is a signal and not just an exception: it wakes the cell from a sleep or a read. It needs a handler of
    its own. The one that is there may ignore SIGINT, as in a process that was started in the background; then a cell
    that slept went on to its end. And an interrupt that comes when the cell's work is over must be raised neither in the
    middle of putting the cell away nor in the next cell. So whoever sends one says so before, and the cell gives the
    handler back only when what was sent has arrived.
    """

    def __init__(self, cell: SparkCell) -> None:
        self._cell = cell
        self._is_installed = False
        self._before: Any = None  # Any: what signal.signal takes and gives
        self._is_due = False
        self._is_stopped = False

    def take(self) -> None:
        """From here on SIGINT is ours. Nothing happens in another thread than the main one: signals do not reach it."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None:
            self._before = signal.signal(signal.SIGINT, self._arrive)
            self._is_installed = True

    def send(self) -> None:
        """From the thread that watches the time, under the lock of the cell's end."""
        if self._is_installed:
            self._is_due = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def give_back(self) -> bool:
        """Returns when nothing more can arrive; whether Stop was pressed while the cell was being put away."""
        if not self._is_installed:
            return False
        # The cell's own code may have set another handler: then that one has the interrupt, and stays.
        until = time.monotonic() + _ARRIVAL_S
        while self._is_due and self._is_ours() and time.monotonic() < until:
            time.sleep(0.001)
        if self._is_ours():
            signal.signal(signal.SIGINT, self._before)
        return self._is_stopped and self._before is not signal.SIG_IGN

    def _is_ours(self) -> bool:
        return signal.getsignal(signal.SIGINT) == self._arrive

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        is_limit, self._is_due = self._is_due, False
        if self._is_leaving(frame):
            self._is_stopped = self._is_stopped or not is_limit
        elif is_limit:
            raise KeyboardInterrupt("the cell's time is up")
        elif callable(self._before):
            self._before(number, frame)
        elif self._before == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)

    def _is_leaving(self, frame: FrameType | None) -> bool:
        """Whether the cell is being put away. Found in the stack: a flag could be set only after the end has begun."""
        while frame is not None:
            if frame.f_code is SparkCell.__exit__.__code__ and frame.f_locals.get("self") is self._cell:
                return True
            frame = frame.f_back
        return False


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
        self._interrupts = _Interrupts(self)
        self._timer: threading.Timer | None = None
        self._over_at = float("inf")
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
        try:
            self._begin()
        except BaseException as error:  # Stop, before the work has begun
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _begin(self) -> None:
        self._threads_before = set(threading.enumerate())
        self._interrupts.take()
        self.held.cell = self
        self.held.watch.begin()
        self.spark.registerProgressHandler(self._handler)
        if self.timeout_s is not None:
            self._over_at = time.monotonic() + self.timeout_s
            self._timer = threading.Timer(self.timeout_s, self._time_is_up)
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Here nothing is interrupted (`_Interrupts`): what comes late is heard when all is put away.
        is_stopped = self._put_away()
        try:
            if is_stopped and error is None:
                error = KeyboardInterrupt()
            # Whatever became of the interrupt, and of the thread that sends it: a cell whose time is up does not end well.
            if self._timed_out or error is not None:
                self._fail(error)
            else:
                self.progress.finish("done")
        finally:
            self._note.remove()

    def _put_away(self) -> bool:
        """Whether Stop was pressed meanwhile."""
        with self._lock:
            self._timed_out = self._timed_out or time.monotonic() >= self._over_at
            self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
        self.held.cell = None
        self.held.watch.finish()
        try:
            self.spark.client.remove_progress_handler(self._handler)
        finally:
            is_stopped = self._interrupts.give_back()
        return is_stopped

    def _fail(self, error: BaseException | None) -> None:
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
        if self.held.watch.has_ended and is_of_connection(error):
            raise SparkCellError(self._lost()) from error
        if (refusal := refusal_of(error, self.held.endpoint, self.sessions.provider)) is not None:
            raise SparkCellError(short_text(refusal or self._lost())) from error
        if is_lost_session(error):
            raise SparkCellError(self._lost()) from error
        if is_cancelled(error):
            raise SparkCellError(short_text("The operation was ended from elsewhere; run the cell again.")) from error
        raise SparkCellError(self.explain_error(error)) from error

    def interrupt(self) -> None:
        """End all operations of this cell, and let its threads start no more. Never waits long: the server may be gone."""
        self._stop_threads()
        self._end_operations()

    def _stop_threads(self) -> None:
        self.held.stopped.update(set(threading.enumerate()) - self._threads_before - {threading.current_thread()})

    def _end_operations(self) -> None:
        first = threading.Event()
        worker = threading.Thread(target=self._interrupt_quietly, args=(first,), daemon=True)
        with contextlib.suppress(KeyboardInterrupt):  # Stop again: whoever presses it does not want to wait
            worker.start()
            first.wait(3.0)

    def _interrupt_quietly(self, first: threading.Event) -> None:
        try:
            self.spark.interruptTag(self.tag)
            first.set()
            until = time.monotonic() + _ARRIVES_S
            while time.monotonic() < until:
                time.sleep(_AGAIN_PAUSE_S)
                self.spark.interruptTag(self.tag)
                if not self._are_some_left():
                    return
        except Exception:  # the cell ends anyway, and its own error says more
            first.set()

    def _are_some_left(self) -> bool:
        """Whether an operation of the cell runs, or is not known to the server yet."""
        from tuttilab.magics.spark.connect import operations

        with self._lock:
            ours = [operation for operation, _ in self._note.operations]
        return bool(ours) and any(state not in _OVER for _, state in operations(self.spark, ours))

    def _time_is_up(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._timed_out = True
            # Under the lock: afterwards the next cell may have threads of its own.
            self._stop_threads()
        self._end_operations()
        pause = _GRACE_S
        while not self._ended.wait(pause):
            with self._lock:
                if not self._ended.is_set():
                    self._interrupts.send()
            pause = _AGAIN_S

    def _lost(self) -> str:
        name = self.held.endpoint.name
        gone = self.sessions.lose(name)
        why = self.sessions.provider.why_ended(self.held.endpoint.job_id)
        return short_text(
            f"The Spark session {name} {why}.",
            f"Run the cell again to start a new one. {gone or 'Temporary views of the old one are gone.'}",
        )
