"""The state machine of a master: events in, instructions out, no I/O and no clock. (A member's: `worker_machine`.)

The master decides two things only: it opens the barrier when every member is ready, and it passes a stop on to every member. It
reports a failed member and leaves the consequences to the control plane. A pod that reports after the barrier opened joins the
gang: the control plane has grown the gang, and the new member passes the open barrier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tuttilab.sidecar.protocol import COMPLETED, ENDED, LOST, PENDING, PHASES, Member, Orders, Stop
from tuttilab.sidecar.worker_machine import Exit, Note, Record, Report, SetTimer, StopRequested, TimerExpired

END_GRACE_S = 7.0
"""Added to the members' grace period: by then they have kept their outputs and reported their end, or never will."""


class MemberReported(NamedTuple):
    member: Member
    seq: int


class SidecarEnded(NamedTuple):
    """The member's sidecar is no longer alive; exit code, reason and outputs are those of its terminal record, if it left one."""

    pod: str
    exit_code: int | None = None
    reason: str = LOST
    outputs: Mapping[str, str] = {}


class Announce(NamedTuple):
    """Send the present orders to every member."""


Event = MemberReported | SidecarEnded | StopRequested | TimerExpired
Instruction = Report | Announce | SetTimer | Note | Record | Exit


class MasterMachine:
    """The state of a gang in its master: `members` are those that reported, by name; `orders` is what they are to do."""

    def __init__(self, ranks: Mapping[str, int]) -> None:
        self.members: dict[str, Member] = {}
        self.orders = Orders()
        self._ranks = dict(ranks)
        self._replaced: set[str] = set()
        """Members whose rank another pod has taken over."""
        self._seqs: dict[str, int] = {}
        self._is_over = False

    def state(self) -> list[Member]:
        """The members by rank, for a report; without those that ended before their first report."""
        return sorted((member for member in self.members.values() if member.uid), key=lambda member: member.rank)

    def handle(self, event: Event) -> list[Instruction]:
        if self._is_over:
            return []
        match event:
            case MemberReported(member, seq):
                return self._reported(member, seq)
            case SidecarEnded():
                return self._sidecar_ended(event)
            case StopRequested(grace_s, why):
                return self._stop(grace_s, why)
            case TimerExpired():
                return self._finish([Note("members that did not report their end in time are left behind.")])

    def _reported(self, member: Member, seq: int) -> list[Instruction]:
        known = self.members.get(member.pod)
        if member.pod not in self._ranks:
            self._join(member)
        if self._ranks.get(member.pod) != member.rank or seq <= self._seqs.get(member.pod, 0):
            return []
        if known is not None and (known.phase == ENDED or known.uid != member.uid):
            return []  # an end is final, and a pod is one process
        self._seqs[member.pod] = seq
        return self._update(member)

    def _join(self, member: Member) -> None:
        """Adds a new member. It replaces an earlier pod of the same rank, whose end has been committed by then."""
        if not self.orders.is_open or member.pod in self._replaced:
            return
        for pod in [pod for pod, rank in self._ranks.items() if rank == member.rank]:
            self._replaced.add(pod)
            del self._ranks[pod]
            self.members.pop(pod, None)
        self._ranks[member.pod] = member.rank

    def _sidecar_ended(self, event: SidecarEnded) -> list[Instruction]:
        if event.pod not in self._ranks:
            return []
        known = self.members.get(event.pod, Member(event.pod, self._ranks[event.pod], uid=""))
        if known.phase == ENDED:
            return []
        return self._update(known._replace(phase=ENDED, exit_code=event.exit_code, reason=event.reason, outputs=event.outputs))

    def _update(self, member: Member) -> list[Instruction]:
        known = self.members.get(member.pod, member._replace(phase=PENDING))
        if PHASES.index(member.phase) < PHASES.index(known.phase):
            return []
        is_new = self.members.get(member.pod) != member
        self.members[member.pod] = member
        have_all_reported = self._ranks.keys() == self.members.keys()
        if have_all_reported and all(other.phase == ENDED for other in self.members.values()):
            return self._finish([])
        reports: list[Instruction] = [Report()] if is_new else []
        is_ready = have_all_reported and all(other.phase not in (PENDING, ENDED) for other in self.members.values())
        if is_ready and not self.orders.is_open and self.orders.stop is None:
            return [*self._set_orders(is_open=True), *reports]
        return reports

    def _stop(self, grace_s: float, why: str) -> list[Instruction]:
        present = self.orders.stop
        if present is not None and present.grace_s <= grace_s:
            return []
        announced = self._set_orders(is_open=self.orders.is_open, stop=Stop(grace_s, why))
        if not self.members:
            return self._finish(announced)  # no member has reported yet; one that starts now finds no master and stops itself
        return [*announced, SetTimer(grace_s + END_GRACE_S)]

    def _set_orders(self, *, is_open: bool, stop: Stop | None = None) -> list[Instruction]:
        self.orders = Orders(self.orders.version + 1, is_open, stop)
        return [Announce()]

    def _finish(self, first: Sequence[Instruction]) -> list[Instruction]:
        self._is_over = True
        return [*first, Record(0, COMPLETED), Report(), Exit()]
