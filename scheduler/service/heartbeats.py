"""Heartbeats of pods, in memory only: the order of reports, and members that are missing and silent for too long.

After a restart every member counts as just seen, so a restart never makes a member lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import AttemptPhase, Pod, PodPhase

_Attempt = tuple[str, int]

REPORTS_A_SECOND: Final = 500.0
"""Target rate of all heartbeats together, which limits the load of the control plane."""
CHANCES: Final = 3
"""Heartbeats that are due within `lost_after_s`."""


def next_report_s(reporters: int, heartbeat_s: float, lost_after_s: float) -> float:
    """Seconds until the next heartbeat of a running pod: the configured period, longer when there are many reporters.

    It always allows `CHANCES` heartbeats within ``lost_after_s``. Changes are reported at once, whatever the period.
    """
    return min(max(heartbeat_s, reporters / REPORTS_A_SECOND), max(heartbeat_s, lost_after_s / CHANCES))


@dataclass(slots=True)
class Heartbeats:
    """``since``: when this memory began. Keys are pod names, which are unique."""

    since: float
    _seqs: dict[str, int] = field(default_factory=dict)
    _last_seen: dict[str, float] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)
    """Pods that their cluster no longer shows."""

    def is_newer(self, pod: str, seq: int) -> bool:
        """Whether the report is newer than every earlier one of this pod; remembers its number."""
        if seq <= self._seqs.get(pod, 0):
            return False
        self._seqs[pod] = seq
        return True

    def record_alive(self, pods: Iterable[str], at: float) -> None:
        for name in pods:
            self._last_seen[name] = at
            self._missing.discard(name)

    def record_observation(self, state: State, missing: Iterable[str], shown: Iterable[str], at: float) -> None:
        """Record a complete observation of a cluster, and drop entries of pods that are no longer live.

        That a cluster shows a pod is no sign of its life while the pod's node is not ready.
        """
        ready = {(c.name, n.name) for c in state.clusters.values() for n in c.nodes if n.is_ready}
        silent = {p.name for _, attempt in state.live() for p in attempt.pods if (p.cluster, p.node) not in ready}
        self.record_alive(set(shown) - silent, at)
        self._missing.update(missing)
        live = {pod.name for _, attempt in state.live() for pod in attempt.pods}
        self._missing &= live
        self._last_seen = {name: at for name, at in self._last_seen.items() if name in live}
        self._seqs = {name: seq for name, seq in self._seqs.items() if name in live}

    def missed(self, state: State, now: float, lost_after_s: float) -> tuple[list[ev.HeartbeatMissed], float | None]:
        """Members that are missing, or on a node that is not ready, and silent for that long; and when the next one is due.

        A cluster that does not answer shows nobody alive: silence is counted from when it answers again.
        """
        missed: list[ev.HeartbeatMissed] = []
        upcoming: list[float] = []
        for attempt, pod in self._suspects(state):
            last_seen = self._last_seen.get(pod.name, self.since)
            limit = max(last_seen, state.clusters[pod.cluster].reachable_since or last_seen) + lost_after_s
            if limit <= now:
                missed.append(ev.HeartbeatMissed(*attempt, pod.name))
            else:
                upcoming.append(limit)
        return missed, min(upcoming, default=None)

    def _suspects(self, state: State) -> Iterator[tuple[_Attempt, Pod]]:
        ready = {(c.name, n.name) for c in state.clusters.values() for n in c.nodes if n.is_ready}
        for _, attempt in state.live():
            if attempt.phase is AttemptPhase.STOPPING:
                continue
            for pod in attempt.pods:
                cluster = state.clusters.get(pod.cluster)
                answers = cluster is not None and cluster.unreachable_since is None
                is_known = answers and pod.uid is not None and pod.phase is not PodPhase.ENDED
                if is_known and not pod.is_given_back and (pod.name in self._missing or (pod.cluster, pod.node) not in ready):
                    yield (attempt.job_id, attempt.number), pod
