"""An event of the journal as one short sentence for the job's own history. Epochs, uids and tokens stay out of it."""

from __future__ import annotations

from tuttilab.scheduler import events as ev


def sentence(event: ev.Event) -> str:
    match event:
        case ev.JobSubmitted(job):
            return f"submitted to queue {job.queue}" + (f", again after {job.retry_of}" if job.retry_of else "")
        case ev.JobCancelRequested(_, by):
            return f"{by} asked to cancel"
        case ev.GangAdmitted(_, number, cluster, placements, _):
            nodes = ", ".join(sorted({placement.node for placement in placements}))
            return f"attempt {number}: {len(placements)} pods admitted to cluster {cluster}, nodes {nodes}"
        case ev.GangPreempted(_, number, _, reason):
            return f"attempt {number}: {reason}"
        case ev.GangGrown(_, number, placements, _):
            nodes = ", ".join(sorted({placement.node for placement in placements}))
            return f"attempt {number}: given {len(placements)} more pods, on nodes {nodes}"
        case ev.GangShrunk(_, number, pods, reason):
            return f"attempt {number}: {', '.join(pods)} told to go, {reason}"
        case ev.GrowthFailed(_, number, pods, reason, _):
            return f"attempt {number}: goes on without {', '.join(pods)}: {reason}"
        case ev.PodSeen(_, number, pod, _):
            return f"attempt {number}: pod {pod} is there"
        case ev.PodReady(_, number, pod):
            return f"attempt {number}: pod {pod} waits for the others"
        case ev.PodStarted(_, number, pod):
            return f"attempt {number}: pod {pod} runs"
        case ev.PodOffers(_, number, pod, endpoints):
            return f"attempt {number}: pod {pod} offers {', '.join(sorted(endpoints))}"
        case ev.PodEnded(_, number, pod, exit_code, reason, _):
            how = "nobody can tell how" if exit_code is None else f"exit code {exit_code}"
            return f"attempt {number}: pod {pod} ended, {how}" + (f" ({reason})" if reason else "")
        case ev.LaunchFailed(_, number, reason, permanent, _):
            return f"attempt {number} cannot start: {reason}" + (" (trying again cannot help)" if permanent else "")
        case ev.HeartbeatMissed(_, number, pod):
            return f"attempt {number}: no sign of life from pod {pod}"
        case ev.BarrierTimedOut(_, number):
            return f"attempt {number}: its pods did not all become ready in time"
        case ev.NotebookExpired():
            return "given up, because nobody waited for it any more"
        case ev.RunTimedOut(_, number):
            return f"attempt {number}: the run-time limit has passed"
        case _:
            # What is left is about queues and clusters, or a deletion, and no job's history shows it.
            return ""
