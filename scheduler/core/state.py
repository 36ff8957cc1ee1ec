"""`State.handle(event, at) -> [instruction]`: the only way in which a job, an attempt or a pod changes.

This maps each event to its handler in `core.rows.handlers`: the site, jobs and their attempts, DAG runs, notebooks.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Never

from tuttilab.scheduler.core.rows import invariants
from tuttilab.scheduler.core.rows.handlers import admission, endings, growth, jobs, notebooks, pods, runs, site
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import Bug
from tuttilab.scheduler.domain.instructions import Instruction


class State(Rows):
    """The rows, changed by events. A late, repeated or unknown event changes nothing."""

    __slots__ = ()

    def handle(self, event: ev.Event, at: float) -> list[Instruction]:
        match event:
            case ev.QueuesConfigured():
                return site.queues_configured(self, event, at)
            case ev.PolicyTuned():
                return site.policy_tuned(self, event, at)
            case ev.ClusterObserved():
                return site.cluster_observed(self, event, at)
            case ev.OthersObserved():
                return site.others_observed(self, event, at)
            case ev.ClusterLost():
                return site.cluster_lost(self, event, at)
            case ev.ClusterBack():
                return site.cluster_back(self, event, at)

            case ev.JobSubmitted():
                return jobs.submitted(self, event, at)
            case ev.GangAdmitted():
                return admission.admitted(self, event, at)
            case ev.PodSeen():
                return pods.seen(self, event, at)
            case ev.PodReady():
                return pods.ready(self, event, at)
            case ev.PodStarted():
                return pods.started(self, event, at)
            case ev.PodOffers():
                return pods.offers(self, event, at)
            case ev.GangGrown():
                return growth.grown(self, event, at)
            case ev.GangShrunk():
                return growth.shrunk(self, event, at)
            case ev.GrowthFailed():
                return growth.failed(self, event, at)
            case ev.PodEnded():
                return pods.ended(self, event, at)

            case ev.JobCancelRequested():
                return endings.cancel_requested(self, event, at)
            case ev.GangPreempted():
                return endings.preempted(self, event, at)
            case ev.SessionGaveWay():
                return endings.gave_way(self, event, at)
            case ev.LaunchFailed():
                return endings.launch_failed(self, event, at)
            case ev.BarrierTimedOut():
                return endings.barrier_timed_out(self, event, at)
            case ev.RunTimedOut():
                return endings.run_timed_out(self, event, at)
            case ev.HeartbeatMissed():
                return pods.heartbeat_missed(self, event, at)
            case ev.PodsOutlived() | ev.ArtifactStored():
                return []
            case ev.JobDeleted():
                return jobs.deleted(self, event, at)

            case ev.DagApplied():
                return runs.dag_applied(self, event, at)
            case ev.RunSubmitted():
                return runs.submitted(self, event, at)
            case ev.RunCancelRequested():
                return runs.cancel_requested(self, event, at)
            case ev.RunRetried():
                return runs.retried(self, event, at)

            case ev.NotebookActive():
                return notebooks.active(self, event, at)
            case ev.NotebookExpired():
                return notebooks.expired(self, event, at)
            case ev.ProfileApplied():
                return notebooks.profile_applied(self, event, at)
            case ev.ProfileDeleted():
                return notebooks.profile_deleted(self, event, at)
            case _:
                unknown: Never = event
                raise Bug(f"no handler for the event {unknown!r}")

    def check_invariants(self, lowered: Container[str] = ()) -> None:
        """Raises Bug when an invariant does not hold. ``lowered``: queues whose limits were set below what runs."""
        invariants.check(self, lowered)
