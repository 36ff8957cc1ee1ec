"""The master's state machine: the exact list of instructions for each event."""

from tuttilab.sidecar import master_machine
from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.master_machine import MasterMachine
from tuttilab.sidecar.protocol import Member, Orders, Stop


def named(instructions: list[master_machine.Instruction]) -> list[str]:
    return [repr(instruction) for instruction in instructions]


def reported(rank: int, phase: str, seq: int, exit_code: int | None = None) -> master_machine.MemberReported:
    reason = "" if exit_code is None else "Completed" if exit_code == 0 else "Error"
    return master_machine.MemberReported(Member(f"p{rank}", rank, f"u{rank}", phase, exit_code, reason), seq)


def master(*happened: master_machine.Event) -> MasterMachine:
    made = MasterMachine({"p0": 0, "p1": 1})
    for event in happened:
        made.handle(event)
    return made


OPEN = (reported(0, "Ready", 1), reported(1, "Ready", 1))
END = named([m.Record(0, "Completed"), m.Report(), m.Exit()])


def test_barrier_opens_when_every_member_is_ready() -> None:
    made = master()

    assert named(made.handle(reported(1, "Pending", 1))) == named([m.Report()])
    assert named(made.handle(reported(1, "Ready", 2))) == named([m.Report()])
    assert made.orders == Orders(0, False, None)
    assert named(made.handle(reported(0, "Ready", 1))) == named([master_machine.Announce(), m.Report()])
    assert made.orders == Orders(1, True, None)


def test_barrier_stays_shut_when_a_member_ended_before() -> None:
    made = master(reported(0, "Ready", 1))

    assert named(made.handle(reported(1, "Ended", 1, exit_code=1))) == named([m.Report()])
    assert not made.orders.is_open


def test_unchanged_state_is_a_heartbeat_without_a_report() -> None:
    made = master(*OPEN)

    assert named(made.handle(reported(0, "Ready", 2))) == []
    assert named(made.handle(reported(0, "Running", 3))) == named([m.Report()])


def test_older_report_changes_nothing() -> None:
    made = master(*OPEN, reported(0, "Running", 5))

    assert named(made.handle(reported(0, "Ready", 4))) == []
    assert made.members["p0"].phase == "Running"


def test_report_of_an_unknown_pod_is_ignored() -> None:
    made = master()

    assert named(made.handle(master_machine.MemberReported(Member("p7", 7, "u7"), 1))) == []
    assert named(made.handle(master_machine.MemberReported(Member("p0", 1, "u0"), 1))) == []
    assert made.state() == []


def test_report_of_another_process_with_the_same_name_is_ignored() -> None:
    made = master(*OPEN)

    assert named(made.handle(master_machine.MemberReported(Member("p0", 0, "other", "Running"), 9))) == []


def test_failure_is_reported_and_the_others_go_on() -> None:
    made = master(*OPEN, reported(0, "Running", 2), reported(1, "Running", 2))

    assert named(made.handle(reported(1, "Ended", 3, exit_code=7))) == named([m.Report()])
    assert made.orders.stop is None
    assert [(member.phase, member.exit_code) for member in made.state()] == [("Running", None), ("Ended", 7)]


def test_member_without_sidecar_is_lost_or_ends_as_its_record_says() -> None:
    made = master(*OPEN)

    assert named(made.handle(master_machine.SidecarEnded("p0"))) == named([m.Report()])
    assert named(made.handle(master_machine.SidecarEnded("p0", 0, "Completed"))) == []
    assert made.members["p0"]._asdict() == {
        **Member("p0", 0, "u0", "Ended", None, "Lost")._asdict(),
    }
    assert named(made.handle(master_machine.SidecarEnded("p1", 3, "Error", {"model": "a1"}))) == END
    assert made.members["p1"].outputs == {"model": "a1"}


def test_master_ends_after_its_members() -> None:
    made = master(*OPEN, reported(0, "Ended", 2, exit_code=0))

    assert named(made.handle(reported(1, "Ended", 2, exit_code=0))) == END
    assert named(made.handle(m.StopRequested(1, ""))) == []


def test_stop_is_fanned_out_and_waits_for_the_members() -> None:
    made = master(*OPEN)

    assert named(made.handle(m.StopRequested(5, "Cancelled"))) == named([master_machine.Announce(), m.SetTimer(12.0)])
    assert made.orders == Orders(2, True, Stop(5, "Cancelled"))
    assert named(made.handle(m.StopRequested(9, ""))) == []
    assert named(made.handle(m.StopRequested(1, ""))) == named([master_machine.Announce(), m.SetTimer(8.0)])
    assert named(made.handle(reported(0, "Ended", 2, exit_code=143))) == named([m.Report()])
    assert named(made.handle(reported(1, "Ended", 2, exit_code=143))) == END


def test_stop_keeps_the_barrier_shut() -> None:
    made = master(reported(0, "Ready", 1), m.StopRequested(5, ""))

    assert named(made.handle(reported(1, "Ready", 1))) == named([m.Report()])
    assert not made.orders.is_open


def test_stop_before_any_report_ends_at_once() -> None:
    assert named(master().handle(m.StopRequested(5, ""))) == [*named([master_machine.Announce()]), *END]


def test_members_that_never_report_their_end_do_not_block_the_master() -> None:
    made = master(*OPEN, m.StopRequested(5, ""))

    assert named(made.handle(m.TimerExpired()))[-3:] == END


def test_member_that_was_never_made_counts_as_ended_and_is_not_reported() -> None:
    made = master(reported(0, "Ready", 1), m.StopRequested(5, ""), reported(0, "Ended", 2, exit_code=143))

    assert named(made.handle(master_machine.SidecarEnded("p1", 143, "NeverStarted"))) == END
    assert [member.pod for member in made.state()] == ["p0"]


def joins(rank: int, phase: str, seq: int, times: int = 1, exit_code: int | None = None) -> master_machine.MemberReported:
    event = reported(rank, phase, seq, exit_code)
    return master_machine.MemberReported(event.member._replace(pod=f"p{rank}-g{times}", uid=f"u{rank}-g{times}"), seq)


def test_member_that_reports_after_the_barrier_opened_joins() -> None:
    made = master(*OPEN)

    assert named(made.handle(joins(2, "Pending", 1))) == named([m.Report()])
    assert made.orders == Orders(1, True, None)
    made.handle(joins(2, "Running", 2))
    assert [(member.pod, member.phase) for member in made.state()] == [("p0", "Ready"), ("p1", "Ready"), ("p2-g1", "Running")]


def test_no_member_joins_before_the_barrier_is_open() -> None:
    made = master(reported(0, "Ready", 1))

    assert made.handle(joins(2, "Ready", 1)) == []
    assert [member.pod for member in made.state()] == ["p0"]
    assert not made.orders.is_open


def test_master_ends_after_members_that_joined() -> None:
    made = master(*OPEN, joins(2, "Running", 1), reported(0, "Ended", 2, exit_code=0))

    assert named(made.handle(reported(1, "Ended", 2, exit_code=0))) == named([m.Report()])
    assert named(made.handle(joins(2, "Ended", 2, exit_code=0))) == END


def test_member_that_replaces_another_is_reported_instead() -> None:
    made = master(*OPEN, reported(1, "Ended", 2, exit_code=143), joins(1, "Running", 1))

    assert [member.pod for member in made.state()] == ["p0", "p1-g1"]
    made.handle(joins(1, "Running", 1, times=2))
    assert made.handle(joins(1, "Running", 9)) == [], "a late report of the former one"
    assert made.handle(reported(1, "Running", 9)) == []
    assert made.handle(master_machine.SidecarEnded("p1-g1")) == []
    assert [member.pod for member in made.state()] == ["p0", "p1-g2"]
    made.handle(reported(0, "Ended", 2, exit_code=0))
    assert named(made.handle(joins(1, "Ended", 2, times=2, exit_code=0))) == END


def test_stop_reaches_members_that_joined_and_that_join_meanwhile() -> None:
    made = master(*OPEN, joins(2, "Running", 1), m.StopRequested(5.0, "Cancelled"))

    assert made.orders == Orders(2, True, Stop(5.0, "Cancelled"))
    made.handle(joins(3, "Pending", 1))
    for rank, event in ((0, reported), (1, reported), (2, joins)):
        made.handle(event(rank, "Ended", 9, exit_code=143))
    assert named(made.handle(joins(3, "Ended", 2, exit_code=143))) == END
