"""The master's machine: for each event the exact list of instructions."""

from tuttilab.sidecar import gang
from tuttilab.sidecar import machine as m
from tuttilab.sidecar.gang import MasterMachine
from tuttilab.sidecar.protocol import Member, Orders, Stop


def named(instructions: list[gang.Instruction]) -> list[str]:
    return [repr(instruction) for instruction in instructions]


def says(rank: int, phase: str, seq: int, exit_code: int | None = None) -> gang.MemberReported:
    reason = "" if exit_code is None else "Completed" if exit_code == 0 else "Error"
    return gang.MemberReported(Member(f"p{rank}", rank, f"u{rank}", phase, exit_code, reason), seq)


def master(*happened: gang.Event) -> MasterMachine:
    made = MasterMachine({"p0": 0, "p1": 1})
    for event in happened:
        made.handle(event)
    return made


OPEN = (says(0, "Ready", 1), says(1, "Ready", 1))
END = named([m.Record(0, "Completed"), m.Report(), m.Exit()])


def test_barrier_opens_when_every_member_is_ready() -> None:
    made = master()

    assert named(made.handle(says(1, "Pending", 1))) == named([m.Report()])
    assert named(made.handle(says(1, "Ready", 2))) == named([m.Report()])
    assert made.orders == Orders(0, False, None)
    assert named(made.handle(says(0, "Ready", 1))) == named([gang.Announce(), m.Report()])
    assert made.orders == Orders(1, True, None)


def test_barrier_stays_shut_when_a_member_ended_before() -> None:
    made = master(says(0, "Ready", 1))

    assert named(made.handle(says(1, "Ended", 1, exit_code=1))) == named([m.Report()])
    assert not made.orders.is_open


def test_same_state_again_is_a_heartbeat_and_no_news() -> None:
    made = master(*OPEN)

    assert named(made.handle(says(0, "Ready", 2))) == []
    assert named(made.handle(says(0, "Running", 3))) == named([m.Report()])


def test_older_report_changes_nothing() -> None:
    made = master(*OPEN, says(0, "Running", 5))

    assert named(made.handle(says(0, "Ready", 4))) == []
    assert made.members["p0"].phase == "Running"


def test_stranger_is_not_heard() -> None:
    made = master()

    assert named(made.handle(gang.MemberReported(Member("p7", 7, "u7"), 1))) == []
    assert named(made.handle(gang.MemberReported(Member("p0", 1, "u0"), 1))) == []
    assert made.state() == []


def test_other_process_by_the_same_name_is_not_heard() -> None:
    made = master(*OPEN)

    assert named(made.handle(gang.MemberReported(Member("p0", 0, "other", "Running"), 9))) == []


def test_failure_is_told_and_the_others_go_on() -> None:
    made = master(*OPEN, says(0, "Running", 2), says(1, "Running", 2))

    assert named(made.handle(says(1, "Ended", 3, exit_code=7))) == named([m.Report()])
    assert made.orders.stop is None
    assert [(member.phase, member.exit_code) for member in made.state()] == [("Running", None), ("Ended", 7)]


def test_gone_member_is_lost_or_what_its_record_says() -> None:
    made = master(*OPEN)

    assert named(made.handle(gang.MemberGone("p0"))) == named([m.Report()])
    assert named(made.handle(gang.MemberGone("p0", 0, "Completed"))) == []
    assert made.members["p0"]._asdict() == {
        **Member("p0", 0, "u0", "Ended", None, "Lost")._asdict(),
    }
    assert named(made.handle(gang.MemberGone("p1", 3, "Error", {"model": "a1"}))) == END
    assert made.members["p1"].outputs == {"model": "a1"}


def test_master_ends_after_its_members() -> None:
    made = master(*OPEN, says(0, "Ended", 2, exit_code=0))

    assert named(made.handle(says(1, "Ended", 2, exit_code=0))) == END
    assert named(made.handle(m.StopAsked(1, ""))) == []


def test_stop_is_fanned_out_and_waits_for_the_members() -> None:
    made = master(*OPEN)

    assert named(made.handle(m.StopAsked(5, "Cancelled"))) == named([gang.Announce(), m.Arm(12.0)])
    assert made.orders == Orders(2, True, Stop(5, "Cancelled"))
    assert named(made.handle(m.StopAsked(9, ""))) == []
    assert named(made.handle(m.StopAsked(1, ""))) == named([gang.Announce(), m.Arm(8.0)])
    assert named(made.handle(says(0, "Ended", 2, exit_code=143))) == named([m.Report()])
    assert named(made.handle(says(1, "Ended", 2, exit_code=143))) == END


def test_stop_keeps_the_barrier_shut() -> None:
    made = master(says(0, "Ready", 1), m.StopAsked(5, ""))

    assert named(made.handle(says(1, "Ready", 1))) == named([m.Report()])
    assert not made.orders.is_open


def test_stop_before_anybody_came_ends_at_once() -> None:
    assert named(master().handle(m.StopAsked(5, ""))) == [*named([gang.Announce()]), *END]


def test_members_that_never_tell_their_end_do_not_hold_the_master() -> None:
    made = master(*OPEN, m.StopAsked(5, ""))

    assert named(made.handle(m.TimeOver()))[-3:] == END


def test_member_that_was_never_made_counts_as_ended_and_is_not_reported() -> None:
    made = master(says(0, "Ready", 1), m.StopAsked(5, ""), says(0, "Ended", 2, exit_code=143))

    assert named(made.handle(gang.MemberGone("p1", 143, "NeverStarted"))) == END
    assert [member.pod for member in made.state()] == ["p0"]


def joins(rank: int, phase: str, seq: int, times: int = 1, exit_code: int | None = None) -> gang.MemberReported:
    told = says(rank, phase, seq, exit_code)
    return gang.MemberReported(told.member._replace(pod=f"p{rank}-g{times}", uid=f"u{rank}-g{times}"), seq)


def test_who_comes_to_an_open_barrier_joins_and_finds_it_open() -> None:
    made = master(*OPEN)

    assert named(made.handle(joins(2, "Pending", 1))) == named([m.Report()])
    assert made.orders == Orders(1, True, None)
    made.handle(joins(2, "Running", 2))
    assert [(member.pod, member.phase) for member in made.state()] == [("p0", "Ready"), ("p1", "Ready"), ("p2-g1", "Running")]


def test_nobody_joins_before_the_barrier_is_open() -> None:
    made = master(says(0, "Ready", 1))

    assert made.handle(joins(2, "Ready", 1)) == []
    assert [member.pod for member in made.state()] == ["p0"]
    assert not made.orders.is_open


def test_the_master_ends_after_those_who_joined() -> None:
    made = master(*OPEN, joins(2, "Running", 1), says(0, "Ended", 2, exit_code=0))

    assert named(made.handle(says(1, "Ended", 2, exit_code=0))) == named([m.Report()])
    assert named(made.handle(joins(2, "Ended", 2, exit_code=0))) == END


def test_who_comes_in_the_place_of_another_is_told_of_in_its_stead() -> None:
    made = master(*OPEN, says(1, "Ended", 2, exit_code=143), joins(1, "Running", 1))

    assert [member.pod for member in made.state()] == ["p0", "p1-g1"]
    made.handle(joins(1, "Running", 1, times=2))
    assert made.handle(joins(1, "Running", 9)) == [], "a late report of the former one"
    assert made.handle(says(1, "Running", 9)) == []
    assert made.handle(gang.MemberGone("p1-g1")) == []
    assert [member.pod for member in made.state()] == ["p0", "p1-g2"]
    made.handle(says(0, "Ended", 2, exit_code=0))
    assert named(made.handle(joins(1, "Ended", 2, times=2, exit_code=0))) == END


def test_a_stop_reaches_who_joined_and_who_joins_meanwhile() -> None:
    made = master(*OPEN, joins(2, "Running", 1), m.StopAsked(5.0, "Cancelled"))

    assert made.orders == Orders(2, True, Stop(5.0, "Cancelled"))
    made.handle(joins(3, "Pending", 1))
    for rank, told in ((0, says), (1, says), (2, joins)):
        made.handle(told(rank, "Ended", 9, exit_code=143))
    assert named(made.handle(joins(3, "Ended", 2, exit_code=143))) == END
