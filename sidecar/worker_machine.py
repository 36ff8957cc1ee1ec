"""The state machine of a worker: events in, instructions out, no I/O and no clock. (The master's: `master_machine`.)

A test can state the exact list of instructions for every event. Phases::

    Pending --Prepared--> Ready --BarrierOpened, or no master--> Running --MainExited, AllProcessesEnded, OutputsKept--> Ended
       in any phase, at a stop or without its master: main gets SIGTERM, after the grace period SIGKILL; then Ended
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tuttilab.sidecar import protocol
from tuttilab.sidecar.protocol import ENDED, READY, RUNNING, Member

FLUSH_TIMEOUT_S = 5.0
"""Time for keeping the outputs after main was killed."""

# Events.


class Prepared(NamedTuple):
    """Code and inputs are there."""


class NotPrepared(NamedTuple):
    reason: str
    message: str


class BarrierOpened(NamedTuple):
    """Every member of the gang is ready."""


class StopRequested(NamedTuple):
    grace_s: float
    why: str


class MasterLost(NamedTuple):
    why: str


class MainStarted(NamedTuple):
    """The main command is executed."""


class MainNotStarted(NamedTuple):
    """The main command could not be executed."""

    exit_code: int
    reason: str
    message: str


class MainExited(NamedTuple):
    exit_code: int


class MemoryLimitExceeded(NamedTuple):
    used: int
    limit: int


class EndpointsFound(NamedTuple):
    """Main wrote the addresses at which it can be reached."""

    endpoints: Mapping[str, str]


class TimerExpired(NamedTuple):
    """The timer that `SetTimer` set."""


class AllProcessesEnded(NamedTuple):
    """No process of the pod is alive."""


class OutputsKept(NamedTuple):
    """Artifact ids of the kept outputs by name; reason and message when a declared output is missing."""

    outputs: Mapping[str, str]
    reason: str = ""
    message: str = ""


Event = (
    Prepared
    | NotPrepared
    | BarrierOpened
    | StopRequested
    | MasterLost
    | MainStarted
    | MainNotStarted
    | MainExited
    | MemoryLimitExceeded
    | EndpointsFound
    | TimerExpired
    | AllProcessesEnded
    | OutputsKept
)

# Instructions.


class Prepare(NamedTuple):
    """Fetch code and inputs; answered by Prepared or NotPrepared."""


class Report(NamedTuple):
    """Report the pod's state."""


class StartMain(NamedTuple):
    """Answered by MainStarted or MainNotStarted."""


class TerminateMain(NamedTuple):
    """Send SIGTERM to main's process group."""


class KillAll(NamedTuple):
    """Kill every process of the pod until none is left; answered by AllProcessesEnded."""


class SetTimer(NamedTuple):
    """Set the one timer, in place of its last setting."""

    seconds: float


class KeepOutputs(NamedTuple):
    """Answered by OutputsKept."""


class Note(NamedTuple):
    """Write a line of the sidecar's own to the pod's log."""

    sentence: str


class Record(NamedTuple):
    """Write the terminal record; comes before the report of the end."""

    exit_code: int
    reason: str


class Exit(NamedTuple):
    """Try to deliver the last report, and end."""


Instruction = Prepare | Report | StartMain | TerminateMain | KillAll | SetTimer | KeepOutputs | Note | Record | Exit


class WorkerMachine:
    """The state of one member. `member` is what reports show."""

    def __init__(self, member: Member, *, has_master: bool, grace_s: float, has_outputs: bool = False) -> None:
        self.member = member
        self._has_master = has_master
        self._grace_s = grace_s
        self._has_outputs = has_outputs
        self._is_open = not has_master
        self._deadline_s: float | None = None
        """The shortest grace asked for; None while nobody asked to stop."""
        self._end: tuple[int, str] | None = None
        """Exit code and reason, once they are decided."""
        self._are_processes_ended = False
        self._stop_reason = protocol.STOPPED
        """The reason if it ends by a stop: stopped from outside, or without its master."""

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
            case MainNotStarted(exit_code, reason, message):
                return self._end_before_main(exit_code, reason, message)
            case StopRequested(grace_s, why):
                return self._stop(grace_s, f"told to stop ({why})" if why else "told to stop")
            case MasterLost(why):
                if self._deadline_s is None:
                    self._stop_reason = protocol.LEASE_LOST
                return self._stop(self._grace_s, f"stops itself: {why}")
            case MemoryLimitExceeded(used, limit):
                return self._out_of_memory(used, limit)
            case EndpointsFound(endpoints):
                self.member = self.member._replace(endpoints=endpoints)
                return [Report()]
            case MainExited(exit_code):
                return self._main_exited(exit_code)
            case TimerExpired():
                return self._timer_expired()
            case AllProcessesEnded():
                return self._all_processes_ended()
            case OutputsKept(outputs, reason, message):
                return self._outputs_kept(outputs, reason, message)

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
            return [Note(f"{message} at once."), KillAll(), SetTimer(FLUSH_TIMEOUT_S)]
        return [Note(f"{message}, within {grace_s:g} s."), *([TerminateMain()] if is_first else []), SetTimer(grace_s)]

    def _out_of_memory(self, used: int, limit: int) -> list[Instruction]:
        if self.member.phase != RUNNING or self._end is not None:
            return []
        self._end = (137, protocol.OOM_KILLED)
        return [Note(f"out of memory: used {used >> 20} MiB of the {limit >> 20} MiB asked for."), KillAll()]

    def _main_exited(self, exit_code: int) -> list[Instruction]:
        if self._end is None:
            if self._deadline_s is not None:
                self._end = (exit_code, self._stop_reason)
            else:
                self._end = (exit_code, protocol.COMPLETED if exit_code == 0 else protocol.ERROR)
        return [KillAll()]

    def _timer_expired(self) -> list[Instruction]:
        if self._are_processes_ended:
            return self._finish()  # keeping the outputs took too long
        return [KillAll(), SetTimer(FLUSH_TIMEOUT_S)]

    def _all_processes_ended(self) -> list[Instruction]:
        if self._are_processes_ended or self._end is None:
            return []
        self._are_processes_ended = True
        if self.member.phase != RUNNING or not self._has_outputs:
            return self._finish()
        # Main may have ended by itself just before its grace did: the flush has its own time.
        return [KeepOutputs(), *([SetTimer(FLUSH_TIMEOUT_S)] if self._deadline_s is not None else [])]

    def _outputs_kept(self, outputs: Mapping[str, str], reason: str, message: str) -> list[Instruction]:
        self.member = self.member._replace(outputs=outputs)
        is_unmet_promise = bool(reason) and self._end == (0, protocol.COMPLETED)
        if is_unmet_promise:
            self._end = (1, reason)  # without a declared output the run is no success
        return [*([Note(message)] if is_unmet_promise else []), *self._finish()]

    def _finish(self) -> list[Instruction]:
        exit_code, reason = self._end or (143, self._stop_reason)
        self.member = self.member._replace(phase=ENDED, exit_code=exit_code, reason=reason)
        return [Record(exit_code, reason), Report(), Exit()]
