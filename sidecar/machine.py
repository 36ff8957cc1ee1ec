"""What a worker does when something happens: events in, instructions out, no I/O and no clock. (The master: `gang`.)

Written so that a test can state the exact list of instructions for every event. The worker, by phase::

    Pending --Prepared--> Ready --BarrierOpened, or no master--> Running --MainExited, Cleared, Kept--> Ended
       any of them, told to stop or cut off from its master: main is asked, then forced, to end; Ended
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tuttilab.sidecar import protocol
from tuttilab.sidecar.protocol import ENDED, READY, RUNNING, Member

FLUSH_S = 5.0
"""What the flush of outputs still gets when main had to be ended by force."""

# What happened.


class Prepared(NamedTuple):
    """Code and inputs are there."""


class NotPrepared(NamedTuple):
    reason: str
    message: str


class BarrierOpened(NamedTuple):
    """Every member of the gang is ready."""


class StopAsked(NamedTuple):
    grace_s: float
    why: str


class MasterLost(NamedTuple):
    why: str


class MainStarted(NamedTuple):
    """The main command is executed."""


class MainRefused(NamedTuple):
    """The main command could not be executed."""

    exit_code: int
    reason: str
    message: str


class MainExited(NamedTuple):
    exit_code: int


class MemoryPassed(NamedTuple):
    used: int
    limit: int


class Offered(NamedTuple):
    """Main wrote where it can be reached."""

    endpoints: Mapping[str, str]


class TimeOver(NamedTuple):
    """The timer that `Arm` set."""


class Cleared(NamedTuple):
    """No process of the pod is alive."""


class Kept(NamedTuple):
    """Which outputs are in the artifact store, by name; a reason, and a sentence, when one that was promised is not."""

    outputs: Mapping[str, str]
    reason: str = ""
    message: str = ""


Event = (
    Prepared
    | NotPrepared
    | BarrierOpened
    | StopAsked
    | MasterLost
    | MainStarted
    | MainRefused
    | MainExited
    | MemoryPassed
    | Offered
    | TimeOver
    | Cleared
    | Kept
)

# What to do.


class Prepare(NamedTuple):
    """Fetch code and inputs; answered by Prepared or NotPrepared."""


class Report(NamedTuple):
    """Tell whoever listens how the pod is now."""


class StartMain(NamedTuple):
    """Answered by MainStarted or MainRefused."""


class AskMain(NamedTuple):
    """Send the polite signal to main's group."""


class KillAll(NamedTuple):
    """End every process of the pod by force, until none is left; answered by Cleared."""


class Arm(NamedTuple):
    """Set the one timer, in place of what it was set to."""

    seconds: float


class KeepOutputs(NamedTuple):
    """Answered by Kept."""


class Note(NamedTuple):
    """A line of ours in the pod's log."""

    sentence: str


class Record(NamedTuple):
    """The terminal record, before anybody is told of the end."""

    exit_code: int
    reason: str


class Exit(NamedTuple):
    """Deliver the last report if somebody takes it, and end."""


Instruction = Prepare | Report | StartMain | AskMain | KillAll | Arm | KeepOutputs | Note | Record | Exit


class WorkerMachine:
    """The life of one member. `member` is its state as reports show it."""

    def __init__(self, member: Member, *, has_master: bool, grace_s: float, has_outputs: bool = False) -> None:
        self.member = member
        self._has_master = has_master
        self._grace_s = grace_s
        self._has_outputs = has_outputs
        self._is_open = not has_master
        self._deadline_s: float | None = None
        """The shortest grace asked for; None while nobody asked to stop."""
        self._end: tuple[int, str] | None = None
        """Exit code and reason, from the moment they are settled."""
        self._is_cleared = False
        self._stopped = protocol.STOPPED
        """Why it ends when it was stopped: it was told so, or it was cut off."""

    def begin(self) -> list[Instruction]:
        return [Report(), Prepare()]

    def handle(self, event: Event) -> list[Instruction]:
        if self.member.phase == ENDED:
            return []
        match event:
            case Prepared():
                return self._prepared()
            case NotPrepared(reason, message):
                return self._end_before_main(1, reason, message)
            case BarrierOpened():
                self._is_open = True
                return [StartMain()] if self.member.phase == READY and self._end is None else []
            case MainStarted():
                return self._to(RUNNING)
            case MainRefused(exit_code, reason, message):
                return self._end_before_main(exit_code, reason, message)
            case StopAsked(grace_s, why):
                return self._stop(grace_s, f"told to stop ({why})" if why else "told to stop")
            case MasterLost(why):
                if self._deadline_s is None:
                    self._stopped = protocol.LEASE_LOST
                return self._stop(self._grace_s, f"stops itself: {why}")
            case MemoryPassed(used, limit):
                return self._out_of_memory(used, limit)
            case Offered(endpoints):
                self.member = self.member._replace(endpoints=endpoints)
                return [Report()]
            case MainExited(exit_code):
                return self._main_exited(exit_code)
            case TimeOver():
                return self._time_over()
            case Cleared():
                return self._cleared()
            case Kept(outputs, reason, message):
                return self._kept(outputs, reason, message)

    def _to(self, phase: str) -> list[Instruction]:
        self.member = self.member._replace(phase=phase)
        return [Report()]

    def _prepared(self) -> list[Instruction]:
        if self._end is not None:
            return []
        return [*self._to(READY), *([StartMain()] if self._is_open else [])]

    def _end_before_main(self, exit_code: int, reason: str, message: str) -> list[Instruction]:
        if self._end is not None:
            return []
        self._end = (exit_code, reason)
        return [Note(message), KillAll()]

    def _stop(self, grace_s: float, message: str) -> list[Instruction]:
        if self.member.phase != RUNNING:
            return self._end_before_main(143, protocol.NEVER_STARTED, f"{message} before it started.")
        if self._end is not None or (self._deadline_s is not None and self._deadline_s <= grace_s):
            return []
        is_first = self._deadline_s is None
        self._deadline_s = grace_s
        if grace_s <= 0:
            return [Note(f"{message} at once."), KillAll(), Arm(FLUSH_S)]
        return [Note(f"{message}, within {grace_s:g} s."), *([AskMain()] if is_first else []), Arm(grace_s)]

    def _out_of_memory(self, used: int, limit: int) -> list[Instruction]:
        if self.member.phase != RUNNING or self._end is not None:
            return []
        self._end = (137, protocol.OOM_KILLED)
        return [Note(f"out of memory: used {used >> 20} MiB of the {limit >> 20} MiB asked for."), KillAll()]

    def _main_exited(self, exit_code: int) -> list[Instruction]:
        if self._end is None:
            if self._deadline_s is not None:
                self._end = (exit_code, self._stopped)
            else:
                self._end = (exit_code, protocol.COMPLETED if exit_code == 0 else protocol.ERROR)
        return [KillAll()]

    def _time_over(self) -> list[Instruction]:
        if self._is_cleared:
            return self._finish()  # the flush has used up its time
        return [KillAll(), Arm(FLUSH_S)]

    def _cleared(self) -> list[Instruction]:
        if self._is_cleared or self._end is None:
            return []
        self._is_cleared = True
        if self.member.phase != RUNNING or not self._has_outputs:
            return self._finish()
        # Main may have ended by itself just before its grace did: the flush has its own time.
        return [KeepOutputs(), *([Arm(FLUSH_S)] if self._deadline_s is not None else [])]

    def _kept(self, outputs: Mapping[str, str], reason: str, message: str) -> list[Instruction]:
        self.member = self.member._replace(outputs=outputs)
        is_told = bool(reason) and self._end == (0, protocol.COMPLETED)
        if is_told:
            self._end = (1, reason)  # what was promised is not there: that is no success
        return [*([Note(message)] if is_told else []), *self._finish()]

    def _finish(self) -> list[Instruction]:
        exit_code, reason = self._end or (143, self._stopped)
        self.member = self.member._replace(phase=ENDED, exit_code=exit_code, reason=reason)
        return [Record(exit_code, reason), Report(), Exit()]
