"""The end of a Spark cell: its time limit and Stop, whenever their interrupt comes. The session is a stand-in."""

from __future__ import annotations

import functools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest

from tuttilab.magics.spark import cell as spark_cell
from tuttilab.magics.spark.calls import Gate
from tuttilab.magics.spark.cell import SparkCell
from tuttilab.magics.spark.ends import EndWatch
from tuttilab.magics.spark.errors import SparkCellError, SparkCellStopped
from tuttilab.magics.spark.progress import ProgressLine
from tuttilab.magics.spark.session import SparkEndpoint
from tuttilab.magics.spark.sessions import OpenSession, Sessions

LIMIT = "The cell ran longer than --timeout 0.05 s and was ended."
STOPPED = "Stopped: the cell's Spark operations were ended; the session stays usable."
OPERATION = cast(Any, SimpleNamespace(operation_id="00000000-0000-4000-8000-000000000000", gives_result=True, views=()))


class Server:
    """Stands for the session and its client. `answering` is called when operations are ended, `leaving` while the cell ends."""

    session_id = "s"

    def __init__(self) -> None:
        self.client = self
        self.interrupted: list[str] = []
        self.answering: Callable[[], object] = lambda: None
        self.leaving: Callable[[], object] = lambda: None

    def registerProgressHandler(self, handler: object) -> None: ...

    def remove_progress_handler(self, handler: object) -> None:
        self.leaving()

    def interruptTag(self, tag: str) -> None:
        self.interrupted.append(tag)
        self.answering()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def held(server: Server) -> OpenSession:
    endpoint = SparkEndpoint("127.0.0.1", 1, "t", "job", "default")
    return OpenSession(endpoint, cast(Any, server), EndWatch(endpoint, cast(Any, None), lambda: None), Gate())


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def cell(
    held: OpenSession, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SparkCell]]:
    """Makes cells; the pauses before an interrupt are short, and SIGINT is handled as in a kernel's cell."""
    monkeypatch.setenv("TUTTILAB_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(spark_cell, "_GRACE_S", 0.05)
    monkeypatch.setattr(spark_cell, "_AGAIN_S", 0.2, raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def make(timeout_s: float | None = 0.05) -> SparkCell:
        progress = ProgressLine(lambda status: shown.append(status.text))
        progress.wait_reason("waiting")
        return SparkCell(cast(Sessions, None), held, progress, "the source", None, "preview", timeout_s)

    yield make
    signal.signal(signal.SIGINT, before)


def error_of(cell: SparkCell, work: Callable[[], object]) -> str:
    """The text with which the cell ends, empty when it ends well; any other exception passes."""
    try:
        with cell:
            work()
    except (SparkCellError, SparkCellStopped) as error:
        return str(error)
    return ""


def spin(seconds: float) -> None:
    """Without a wait in which another thread could run."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def press_stop() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_limit_wakes_a_cell_that_sleeps(cell: Callable[..., SparkCell], server: Server, shown: list[str]) -> None:
    began = time.monotonic()
    one = cell()
    assert error_of(one, lambda: time.sleep(20)) == LIMIT
    assert time.monotonic() - began < 10
    assert set(server.interrupted) == {one.tag}
    assert shown[-1].startswith("Spark: time is up")


def test_a_limit_wakes_a_cell_where_the_process_ignores_the_signal(cell: Callable[..., SparkCell]) -> None:
    # As in a process that was started in the background of a shell.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = time.monotonic()
    assert error_of(cell(), lambda: time.sleep(20)) == LIMIT
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_cell_that_caught_the_interrupt_ends_with_the_limit_all_the_same(cell: Callable[..., SparkCell]) -> None:
    caught = []

    def work() -> None:
        try:
            time.sleep(20)
        except BaseException as error:
            caught.append(type(error))

    assert error_of(cell(), work) == LIMIT
    assert caught == [KeyboardInterrupt]


def test_a_cell_that_goes_on_after_an_interrupt_gets_another(cell: Callable[..., SparkCell]) -> None:
    def work() -> None:
        try:
            time.sleep(20)
        except KeyboardInterrupt:
            time.sleep(20)

    began = time.monotonic()
    assert error_of(cell(), work) == LIMIT
    assert time.monotonic() - began < 10


def test_a_cell_that_was_over_its_limit_before_anybody_saw_it_ends_with_the_limit(
    cell: Callable[..., SparkCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread that watches the time does not come to run, as on a machine that is too busy.
    monkeypatch.setattr(threading.Timer, "run", lambda self: None)
    assert error_of(cell(), lambda: time.sleep(0.06)) == LIMIT


def test_the_cells_own_error_is_the_cause_when_its_time_is_up(cell: Callable[..., SparkCell]) -> None:
    def work() -> None:
        time.sleep(0.06)
        raise ValueError("own")

    with pytest.raises(SparkCellError, match="ran longer") as raised, cell():
        work()
    assert isinstance(raised.value.__cause__, ValueError)


def test_an_interrupt_that_comes_while_the_cell_ends_changes_nothing(
    cell: Callable[..., SparkCell], server: Server, held: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = threading.Event()
    monkeypatch.setattr(signal, "pthread_kill", lambda _thread, _number: sent.set())
    server.leaving = press_stop  # only now it arrives
    assert error_of(cell(), lambda: sent.wait(10)) == LIMIT
    assert held.cell is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_comes_in_the_first_moment_of_the_end_changes_nothing(
    cell: Callable[..., SparkCell], held: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = threading.Event()
    monkeypatch.setattr(signal, "pthread_kill", lambda _thread, _number: sent.set())

    def trace(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is SparkCell.__exit__.__code__:
            press_stop()

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        said = error_of(cell(), lambda: sent.wait(10))
    finally:
        sys.settrace(before)
    assert said == LIMIT
    assert held.cell is None


def test_a_cell_does_not_end_before_the_interrupt_that_was_sent_to_it_has_come(
    cell: Callable[..., SparkCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill, sent = signal.pthread_kill, threading.Event()

    def late(thread: int, number: int) -> None:
        # On a slow machine the cell is interrupted again before the first has come; such a one would come to the next cell.
        if not sent.is_set():
            sent.set()
            threading.Timer(0.2, kill, (thread, number)).start()

    monkeypatch.setattr(signal, "pthread_kill", late)
    assert error_of(cell(), lambda: sent.wait(10)) == LIMIT
    assert error_of(cell(None), lambda: time.sleep(0.3)) == ""


def test_no_interrupt_misses_its_cell_when_limit_and_end_meet(
    cell: Callable[..., SparkCell], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The cell's end is moved past the moment of the interrupt, back and forth, in steps of 20 µs."""
    monkeypatch.setattr(spark_cell, "_GRACE_S", 0.0)
    monkeypatch.setattr(SparkCell, "_end_operations", lambda self: None)
    request.addfinalizer(functools.partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)  # the thread that watches the time comes between as often as can be
    ends = set()
    for step in range(400):
        ends.add(error_of(cell(0.002), functools.partial(spin, 0.001 + step % 100 * 0.00002)))
        spin(0.0005)  # not the cell's: an interrupt here would be the next cell's
    assert ends == {"", "The cell ran longer than --timeout 0.002 s and was ended."}


def test_threads_of_the_next_cell_are_not_taken_for_those_of_one_whose_time_was_up(
    cell: Callable[..., SparkCell], held: OpenSession, server: Server
) -> None:
    at_limit, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def held_up() -> None:
        at_limit.set()
        go_on.wait(10)
        done.set()

    server.answering = held_up  # the server answers only when the next cell runs
    assert error_of(cell(), lambda: at_limit.wait(10)) == LIMIT
    said: list[object] = []

    def next_work() -> None:
        def use() -> None:
            done.wait(10)
            try:
                said.extend(held.starting(OPERATION))
            except RuntimeError as error:
                said.append(error)

        worker = threading.Thread(target=use)
        worker.start()
        go_on.set()
        worker.join()

    following = cell(None)
    assert error_of(following, next_work) == ""
    assert said == [following.tag]


def test_what_a_stopped_cell_left_running_starts_no_more(cell: Callable[..., SparkCell], held: OpenSession) -> None:
    go_on = threading.Event()
    said: list[str] = []

    def use() -> None:
        go_on.wait(10)
        try:
            held.starting(OPERATION)
        except RuntimeError as error:
            said.append(str(error))

    worker = threading.Thread(target=use)

    def work() -> None:
        worker.start()
        time.sleep(20)

    assert error_of(cell(), work) == LIMIT
    go_on.set()
    worker.join()
    assert said == ["the cell that started this thread was stopped"]


def test_an_operation_after_the_limit_is_refused(cell: Callable[..., SparkCell], held: OpenSession) -> None:
    said: list[str] = []

    def work() -> None:
        try:
            time.sleep(20)
        except KeyboardInterrupt:
            try:
                held.starting(OPERATION)
            except TimeoutError as error:
                said.append(str(error))

    assert error_of(cell(), work) == LIMIT
    assert said == ["the cell's time is up"]


def test_stop_ends_the_cell_and_gives_the_handler_back(cell: Callable[..., SparkCell], server: Server, held: OpenSession) -> None:
    one = cell(None)
    assert error_of(one, press_stop) == STOPPED
    assert one.tag in server.interrupted
    assert held.cell is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stop_in_the_middle_of_the_cells_end_stops_it_when_all_is_put_away(
    cell: Callable[..., SparkCell], server: Server, held: OpenSession
) -> None:
    server.leaving = press_stop
    assert error_of(cell(None), lambda: None) == STOPPED
    assert held.cell is None


def test_stop_before_the_cells_work_begins_leaves_nothing_behind(
    cell: Callable[..., SparkCell], server: Server, held: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []
    server.leaving = lambda: removed.append(True)
    monkeypatch.setattr(server, "registerProgressHandler", lambda _handler: press_stop(), raising=False)
    assert error_of(cell(None), lambda: pytest.fail("the work began")) == STOPPED
    assert (held.cell, removed) == (None, [True])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stop_pressed_twice_ends_the_cell_as_once(cell: Callable[..., SparkCell], server: Server) -> None:
    asked, answered = threading.Event(), threading.Event()

    def busy() -> None:
        asked.set()
        answered.wait(10)

    def press_again() -> None:
        asked.wait(10)
        time.sleep(0.3)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    server.answering = busy
    again = threading.Thread(target=press_again)
    again.start()
    assert error_of(cell(None), press_stop) == STOPPED
    answered.set()
    again.join()


def test_where_stop_is_ignored_it_is_ignored_in_a_cell_too(cell: Callable[..., SparkCell], server: Server) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.leaving = press_stop
    assert error_of(cell(None), press_stop) == ""


def test_a_handler_of_the_cells_own_is_kept(cell: Callable[..., SparkCell]) -> None:
    def own(_number: int, _frame: object) -> None: ...

    assert error_of(cell(None), lambda: signal.signal(signal.SIGINT, own)) == ""
    assert signal.getsignal(signal.SIGINT) is own


def test_the_limit_of_a_cell_ends_a_cell_within_it(cell: Callable[..., SparkCell]) -> None:
    def work() -> None:
        with cell(None):
            time.sleep(20)

    began = time.monotonic()
    assert error_of(cell(), work) == LIMIT
    assert time.monotonic() - began < 10


def test_a_cell_in_another_thread_ends_with_its_limit_and_interrupts_nobody(cell: Callable[..., SparkCell]) -> None:
    said: list[str] = []
    worker = threading.Thread(target=lambda: said.append(error_of(cell(), lambda: time.sleep(0.3))))
    worker.start()
    worker.join()
    assert said == [LIMIT]
