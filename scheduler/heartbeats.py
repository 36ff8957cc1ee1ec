"""Who was heard of and when, in memory only: order of reports, and members that are gone and silent for too long.

Nothing of this is a row. After a restart every member counts as just heard from, so a restart never makes anybody lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.model import AttemptPhase, Pod, PodPhase

_Attempt = tuple[str, int]

REPORTS_A_SECOND: Final = 500.0
"""More than that the control plane does not ask for, of pods that run and have no news."""
CHANCES: Final = 3
"""Reports that are due within the time after which silence counts."""


def next_report_s(reporters: int, heartbeat_s: float, lost_after_s: float) -> float:
    """Seconds until a pod that runs is to report again: the period of the configuration, longer the more of them there are.

    It is never longer than lets `CHANCES` reports be lost. What changes is reported at once, whatever the period.
    """
    return min(max(heartbeat_s, reporters / REPORTS_A_SECOND), max(heartbeat_s, lost_after_s / CHANCES))


@dataclass(slots=True)
class Heartbeats:
    """``since``: when this memory began. Pods are known by their names, which are unique."""

    since: float
    _seqs: dict[str, int] = field(default_factory=dict)
    _heard: dict[str, float] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    """Pods that their cluster does not show any more."""

    def is_news(self, pod: str, seq: int) -> bool:
        """Whether a report is newer than every one before it that this pod sent."""
        if seq <= self._seqs.get(pod, 0):
            return False
        self._seqs[pod] = seq
        return True

    def heard(self, pods: Iterable[str], at: float) -> None:
        for name in pods:
            self._heard[name] = at
            self._gone.discard(name)

    def looked(self, state: State, gone: Iterable[str], shown: Iterable[str], at: float) -> None:
        """A cluster was looked at as a whole. What is over is forgotten here."""
        self.heard(shown, at)
        self._gone.update(gone)
        live = {pod.name for _, attempt in state.live() for pod in attempt.pods}
        self._gone &= live
        self._heard = {name: at for name, at in self._heard.items() if name in live}
        self._seqs = {name: seq for name, seq in self._seqs.items() if name in live}

    def missed(self, state: State, now: float, lost_after_s: float) -> tuple[list[ev.HeartbeatMissed], float | None]:
        """Members that are gone, or whose node is, and were silent for that long; and when the next one would be."""
        missed: list[ev.HeartbeatMissed] = []
        upcoming: list[float] = []
        for attempt, pod in self._in_doubt(state):
            limit = self._heard.get(pod.name, self.since) + lost_after_s
            if limit <= now:
                missed.append(ev.HeartbeatMissed(*attempt, pod.name))
            else:
                upcoming.append(limit)
        return missed, min(upcoming, default=None)

    def _in_doubt(self, state: State) -> Iterator[tuple[_Attempt, Pod]]:
        ready = {(c.name, n.name) for c in state.clusters.values() for n in c.nodes if n.is_ready}
        for _, attempt in state.live():
            if attempt.phase is AttemptPhase.STOPPING:
                continue
            for pod in attempt.pods:
                is_known = pod.uid is not None and pod.phase is not PodPhase.ENDED and pod.cluster in state.clusters
                if is_known and not pod.is_given_back and (pod.name in self._gone or (pod.cluster, pod.node) not in ready):
                    yield (attempt.job_id, attempt.number), pod
