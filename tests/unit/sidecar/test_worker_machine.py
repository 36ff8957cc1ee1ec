"""The worker's state machine: the exact list of instructions for each event."""

import pytest

from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.protocol import Member
from tuttilab.sidecar.worker_machine import WorkerMachine


def named(instructions: list[m.Instruction]) -> list[str]:
    """As text, because named tuples of different types may be equal."""
    return [repr(instruction) for instruction in instructions]


def machine(*happened: m.Event, has_master: bool = False, has_outputs: bool = False) -> WorkerMachine:
    made = WorkerMachine(Member("p", 0, "u"), has_master=has_master, grace_s=30.0, has_outputs=has_outputs)
    made.begin()
    for event in happened:
        made.handle(event)
    return made


RUNNING = (m.Prepared(), m.MainStarted())


def end(exit_code: int, reason: str) -> list[str]:
    return named([m.Record(exit_code, reason), m.Report(), m.Exit()])


def test_begins_with_report_and_prepare() -> None:
    made = WorkerMachine(Member("p", 0, "u"), has_master=False, grace_s=30.0)

    assert named(made.begin()) == named([m.Report(), m.Prepare()])
    assert made.member.phase == "Pending"


def test_single_pod_starts_when_prepared() -> None:
    made = machine()

    assert named(made.handle(m.Prepared())) == named([m.Report(), m.StartMain()])
    assert made.member.phase == "Ready"
    assert named(made.handle(m.MainStarted())) == named([m.Report()])
    assert made.member.phase == "Running"


def test_member_waits_for_the_barrier() -> None:
    made = machine(has_master=True)

    assert named(made.handle(m.Prepared())) == named([m.Report()])
    assert named(made.handle(m.BarrierOpened())) == named([m.StartMain()])


def test_barrier_that_is_open_already_is_passed_at_once() -> None:
    made = machine(m.BarrierOpened(), has_master=True)

    assert named(made.handle(m.Prepared())) == named([m.Report(), m.StartMain()])


def test_barrier_opens_once() -> None:
    made = machine(m.Prepared(), m.BarrierOpened(), m.MainStarted(), has_master=True)

    assert named(made.handle(m.BarrierOpened())) == []


@pytest.mark.parametrize(("exit_code", "reason"), [(0, "Completed"), (3, "Error"), (139, "Error")])
def test_main_that_exits_takes_the_rest_along(exit_code: int, reason: str) -> None:
    made = machine(*RUNNING)

    assert named(made.handle(m.MainExited(exit_code))) == named([m.KillAll()])
    assert named(made.handle(m.AllProcessesEnded())) == end(exit_code, reason)
    assert (made.member.phase, made.member.exit_code, made.member.reason) == ("Ended", exit_code, reason)


def test_outputs_are_kept_before_the_terminal_record() -> None:
    made = machine(*RUNNING, m.MainExited(0), has_outputs=True)

    assert named(made.handle(m.AllProcessesEnded())) == named([m.KeepOutputs()])
    assert named(made.handle(m.OutputsKept({"model": "a1"}))) == end(0, "Completed")
    assert made.member.outputs == {"model": "a1"}


@pytest.mark.parametrize(
    ("exit_code", "instructions"),
    [(0, [*named([m.Note("no model")]), *end(1, "OutputMissing")]), (3, end(3, "Error"))],
)
def test_promised_output_that_is_missing_ends_a_success_only(exit_code: int, instructions: list[str]) -> None:
    made = machine(*RUNNING, m.MainExited(exit_code), m.AllProcessesEnded(), has_outputs=True)

    assert named(made.handle(m.OutputsKept({}, "OutputMissing", "no model"))) == instructions


@pytest.mark.parametrize("has_master", [True, False])
def test_stop_before_the_start_means_never_started(has_master: bool) -> None:
    made = machine(has_master=has_master)

    assert named(made.handle(m.StopRequested(5, "Cancelled"))) == named(
        [m.Note("told to stop (Cancelled) before it started."), m.KillAll()]
    )
    assert named(made.handle(m.Prepared())) == []
    assert named(made.handle(m.BarrierOpened())) == []
    assert named(made.handle(m.AllProcessesEnded())) == end(143, "NeverStarted")


@pytest.mark.feature("C05")
def test_stop_asks_main_and_keeps_its_exit_code() -> None:
    made = machine(*RUNNING)

    assert named(made.handle(m.StopRequested(5, ""))) == named(
        [m.Note("told to stop, within 5 s."), m.TerminateMain(), m.SetTimer(5)]
    )
    assert named(made.handle(m.MainExited(0))) == named([m.KillAll()])
    assert named(made.handle(m.AllProcessesEnded())) == end(0, "Stopped")


def test_stop_without_grace_kills_at_once() -> None:
    assert named(machine(*RUNNING).handle(m.StopRequested(0, ""))) == named(
        [m.Note("told to stop at once."), m.KillAll(), m.SetTimer(5.0)]
    )


def test_second_stop_only_shortens_the_grace() -> None:
    made = machine(*RUNNING, m.StopRequested(10, ""))

    assert named(made.handle(m.StopRequested(20, ""))) == []
    assert named(made.handle(m.StopRequested(10, ""))) == []
    assert named(made.handle(m.StopRequested(2, ""))) == named([m.Note("told to stop, within 2 s."), m.SetTimer(2)])


@pytest.mark.feature("C05")
def test_grace_over_is_force_and_the_flush_has_its_own_limit() -> None:
    made = machine(*RUNNING, m.StopRequested(5, ""), has_outputs=True)

    assert named(made.handle(m.TimerExpired())) == named([m.KillAll(), m.SetTimer(5.0)])
    assert named(made.handle(m.MainExited(137))) == named([m.KillAll()])
    assert named(made.handle(m.AllProcessesEnded())) == named([m.KeepOutputs(), m.SetTimer(5.0)])
    assert named(made.handle(m.TimerExpired())) == end(137, "Stopped")
    assert named(made.handle(m.OutputsKept({"late": "a1"}))) == []


@pytest.mark.feature("C05")
def test_main_that_ends_at_the_last_moment_of_its_grace_has_its_outputs_kept() -> None:
    made = machine(*RUNNING, m.StopRequested(5, ""), m.MainExited(3), has_outputs=True)

    # Replaces the timer of the grace period, which may be almost over.
    assert named(made.handle(m.AllProcessesEnded())) == named([m.KeepOutputs(), m.SetTimer(5.0)])
    assert named(made.handle(m.OutputsKept({"model": "a1"}))) == end(3, "Stopped")
    assert made.member.outputs == {"model": "a1"}


def test_lost_master_is_a_stop_by_itself() -> None:
    made = machine(m.Prepared(), m.BarrierOpened(), m.MainStarted(), has_master=True)

    assert named(made.handle(m.MasterLost("the gang's master is gone"))) == named(
        [m.Note("stops itself: the gang's master is gone, within 30 s."), m.TerminateMain(), m.SetTimer(30.0)]
    )


def test_too_much_memory() -> None:
    made = machine(*RUNNING)

    assert named(made.handle(m.MemoryLimitExceeded(3 * 2**20, 2 * 2**20))) == named(
        [m.Note("out of memory: used 3 MiB of the 2 MiB asked for."), m.KillAll()]
    )
    assert named(made.handle(m.MemoryLimitExceeded(4 * 2**20, 2 * 2**20))) == []
    assert named(made.handle(m.MainExited(137))) == named([m.KillAll()])
    assert named(made.handle(m.AllProcessesEnded())) == end(137, "OOMKilled")


@pytest.mark.feature("C09")
@pytest.mark.parametrize(
    ("event", "exit_code", "reason"),
    [
        (m.NotPrepared("InputMissing", "input /x is not there."), 1, "InputMissing"),
        (m.MainNotStarted(127, "CommandNotFound", "nope: command not found"), 127, "CommandNotFound"),
    ],
)
def test_what_cannot_start_says_why(event: m.NotPrepared | m.MainNotStarted, exit_code: int, reason: str) -> None:
    made = machine()

    assert named(made.handle(event)) == named([m.Note(event.message), m.KillAll()])
    assert named(made.handle(m.AllProcessesEnded())) == end(exit_code, reason)


def test_found_endpoints_are_reported() -> None:
    made = machine(*RUNNING)

    assert named(made.handle(m.EndpointsFound({"connect": "h:1"}))) == named([m.Report()])
    assert made.member.endpoints == {"connect": "h:1"}


def test_the_ended_does_nothing_more() -> None:
    made = machine(*RUNNING, m.MainExited(0), m.AllProcessesEnded())
    late: list[m.Event] = [
        m.StopRequested(0, ""),
        m.MainExited(1),
        m.AllProcessesEnded(),
        m.TimerExpired(),
        m.MasterLost("gone"),
        m.OutputsKept({}),
    ]

    assert [made.handle(event) for event in late] == [[]] * 6
    assert (made.member.exit_code, made.member.reason) == (0, "Completed")
