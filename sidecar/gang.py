"""What a master does when something happens: events in, instructions out, no I/O and no clock. (A member: `machine`.)

The master decides two things only: the barrier opens when every member is ready, and a stop that it was told reaches every
member. That a member failed it reports, and leaves to the control plane what follows. Who comes to a gang whose barrier is open
joins it: the control plane has given it more members, and he finds the way open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tuttilab.sidecar.machine import Arm, Exit, Note, Record, Report, StopAsked, TimeOver
from tuttilab.sidecar.protocol import COMPLETED, ENDED, LOST, PENDING, PHASES, Member, Orders, Stop

END_S = 7.0
"""After the members' grace: until then they have kept their outputs and told their end, or never will."""


class MemberReported(NamedTuple):
    member: Member
    seq: int


class MemberGone(NamedTuple):
    """The member's sidecar does not live any more; how it ended, where it left a record of that."""

    pod: str
    exit_code: int | None = None
    reason: str = LOST
    outputs: Mapping[str, str] = {}


class Announce(NamedTuple):
    """Let every member know the present orders."""


Event = MemberReported | MemberGone | StopAsked | TimeOver
Instruction = Report | Announce | Arm | Note | Record | Exit


class MasterMachine:
    """The life of a gang as its master sees it. `members` are those heard of, by name; `orders` is what they are to do."""

    def __init__(self, ranks: Mapping[str, int]) -> None:
        self.members: dict[str, Member] = {}
        self.orders = Orders()
        self._ranks = dict(ranks)
        self._former: set[str] = set()
        """Members in whose place, by their rank, others have come."""
        self._seqs: dict[str, int] = {}
        self._is_over = False

    def state(self) -> list[Member]:
        """By rank, for a report; without those that ended before they had told who they are."""
        return sorted((member for member in self.members.values() if member.uid), key=lambda member: member.rank)

    def handle(self, event: Event) -> list[Instruction]:
        if self._is_over:
            return []
        match event:
            case MemberReported(member, seq):
                return self._reported(member, seq)
            case MemberGone():
                return self._gone(event)
            case StopAsked(grace_s, why):
                return self._stop(grace_s, why)
            case TimeOver():
                return self._finish([Note("members that did not tell their end in time are left behind.")])

    def _reported(self, member: Member, seq: int) -> list[Instruction]:
        known = self.members.get(member.pod)
        if member.pod not in self._ranks:
            self._join(member)
        if self._ranks.get(member.pod) != member.rank or seq <= self._seqs.get(member.pod, 0):
            return []
        if known is not None and (known.phase == ENDED or known.uid != member.uid):
            return []  # an end is final, and a pod is one process
        self._seqs[member.pod] = seq
        return self._put(member)

    def _join(self, member: Member) -> None:
        """The pod of a rank comes again after its predecessor's end was committed: nobody waits for news of that one any more."""
        if not self.orders.is_open or member.pod in self._former:
            return
        for pod in [pod for pod, rank in self._ranks.items() if rank == member.rank]:
            self._former.add(pod)
            del self._ranks[pod]
            self.members.pop(pod, None)
        self._ranks[member.pod] = member.rank

    def _gone(self, gone: MemberGone) -> list[Instruction]:
        if gone.pod not in self._ranks:
            return []
        known = self.members.get(gone.pod, Member(gone.pod, self._ranks[gone.pod], uid=""))
        if known.phase == ENDED:
            return []
        return self._put(known._replace(phase=ENDED, exit_code=gone.exit_code, reason=gone.reason, outputs=gone.outputs))

    def _put(self, member: Member) -> list[Instruction]:
        known = self.members.get(member.pod, member._replace(phase=PENDING))
        if PHASES.index(member.phase) < PHASES.index(known.phase):
            return []
        is_new = self.members.get(member.pod) != member
        self.members[member.pod] = member
        all_told = self._ranks.keys() == self.members.keys()
        if all_told and all(other.phase == ENDED for other in self.members.values()):
            return self._finish([])
        told: list[Instruction] = [Report()] if is_new else []
        is_ready = all_told and all(other.phase not in (PENDING, ENDED) for other in self.members.values())
        if is_ready and not self.orders.is_open and self.orders.stop is None:
            return [*self._order(is_open=True), *told]
        return told

    def _stop(self, grace_s: float, why: str) -> list[Instruction]:
        present = self.orders.stop
        if present is not None and present.grace_s <= grace_s:
            return []
        announced = self._order(is_open=self.orders.is_open, stop=Stop(grace_s, why))
        if not self.members:
            return self._finish(announced)  # nobody has come yet; who comes now finds no master and stops itself
        return [*announced, Arm(grace_s + END_S)]

    def _order(self, *, is_open: bool, stop: Stop | None = None) -> list[Instruction]:
        self.orders = Orders(self.orders.version + 1, is_open, stop)
        return [Announce()]

    def _finish(self, first: Sequence[Instruction]) -> list[Instruction]:
        self._is_over = True
        return [*first, Record(0, COMPLETED), Report(), Exit()]
