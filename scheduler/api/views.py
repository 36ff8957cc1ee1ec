"""Builds the views of the REST API from the model. Pure: state in, view out. No view has a field for epochs, uids or tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.core.explain.names import blocked_by
from tuttilab.scheduler.core.kinds.spark import CONNECT_ENDPOINT, executors_of, session_name, size_of
from tuttilab.scheduler.core.ordering.queues import leaves, may_use, path_of
from tuttilab.scheduler.core.placement.fit import charge_of
from tuttilab.scheduler.core.rows.resizing import asked_text
from tuttilab.scheduler.core.rows.tuning import describe, tuning_of
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.model import (
    Attempt,
    AttemptPhase,
    Cluster,
    Dag,
    Job,
    NodePhase,
    Past,
    Pod,
    PodSet,
    Promise,
    Run,
    RunNode,
    RunPhase,
    Wait,
)
from tuttilab.scheduler.domain.requests import DagRequest, Who
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, NOTHING, Resources, show_amount, total


def wait_view(wait: Wait, job: Job | None = None, state: State | None = None) -> wire.WaitView:
    """``job`` and ``state``: of a job that waits; without them, of one that would."""
    return wire.WaitView(
        why=wait.why.value,
        sentence=wait.sentence,
        place=wait.place,
        short=wait.short.show(),
        queue=wait.queue,
        role=wait.role,
        blockers=wait.blockers,
        estimated_start=wait.estimated_start,
        basis=wait.basis,
        earliest=wait.earliest,
        latest=wait.latest,
        held_by=wait.held_by,
        kept=None if wait.kept is None else wire.KeptView(**asdict(wait.kept)),
        passed=passed_views(job, state) if job is not None and state is not None else (),
        overtaken_s=wait.overtaken_s,
        allowed_s=wait.allowed_s,
        is_protected=wait.is_protected,
    )


def passed_views(job: Job, state: State) -> tuple[wire.PassedView, ...]:
    """Who was started past the hold of the job, newest first, as its owner may know them."""
    found = []
    for key in reversed(state.passed.get(job.id, ())):
        other, attempt = state.jobs.get(key[0]), state.attempts.get(key)
        if other is not None and attempt is not None:
            found += [_passed_view(other, attempt, past, job) for past in attempt.past if past.job_id == job.id]
    return tuple(found)


def _passed_view(other: Job, attempt: Attempt, past: Past, job: Job) -> wire.PassedView:
    predicted = None if attempt.prediction is None else attempt.admitted_at + attempt.prediction.seconds
    limit = None if other.timeout_s is None else attempt.admitted_at + other.timeout_s
    ends_by = limit if past.promise is Promise.LIMIT or predicted is None else min(predicted, limit or predicted)
    return wire.PassedView(
        job=blocked_by(other, job),
        promise=past.promise.text,
        started_at=attempt.admitted_at,
        kept_start=past.start,
        ends_by=ends_by,
        ended_at=attempt.ended_at,
        nodes=tuple(dict.fromkeys(pod.node for pod in (*attempt.pods, *attempt.left) if pod.node)),
        must_end=past.promise in (Promise.PREDICTION, Promise.SPREAD, Promise.LIMIT),
    )


def rule_text(state: State) -> str:
    """What the decision rule was tuned to, since when and by whom; empty while nobody tuned it."""
    tuning = tuning_of(state.queues.values())
    if tuning is None:
        return ""
    since = datetime.fromtimestamp(tuning.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{describe(tuning) or 'the built-in rule'}, since {since} by {tuning.by}" + (f": {tuning.why}" if tuning.why else "")


def pod_view(pod: Pod) -> wire.PodView:
    return wire.PodView(
        name=pod.name,
        rank=pod.rank,
        role=pod.role,
        node=pod.node,
        phase=pod.phase.value,
        exit_code=pod.exit_code,
        reason=pod.reason,
        started_at=pod.started_at,
        ended_at=pod.ended_at,
        outputs=pod.outputs,
        given_back=pod.given_back_why,
    )


def attempt_view(attempt: Attempt) -> wire.AttemptView:
    return wire.AttemptView(
        number=attempt.number,
        phase=attempt.phase.value,
        cluster=attempt.cluster,
        reason=attempt.reason or (attempt.stop_reason or ""),
        admitted_at=attempt.admitted_at,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        exit_code=attempt.exit_code,
        charge=attempt.charge.show(),
        pods=tuple(pod_view(pod) for pod in attempt.pods),
        left=tuple(pod_view(pod) for pod in attempt.left),
        asks_for=asked_text(attempt),
        waited_for=attempt.waited_for,
    )


def shape_view(pods: PodSet) -> wire.PodShapeView:
    others = {key: text for key, text in pods.resources.show().items() if key not in (CPU, MEMORY, GPU)}
    return wire.PodShapeView(
        role=pods.role,
        count=pods.count,
        cpus=show_amount(CPU, pods.resources[CPU]),
        memory=show_amount(MEMORY, pods.resources[MEMORY]),
        gpus=pods.resources[GPU],
        resources=others,
    )


def shown_phase(job: Job, attempts: Sequence[Attempt]) -> str:
    """The phase of the live attempt if there is one, else the job's; `jobs --state` filters by the same word."""
    live = _live(attempts)
    return live.phase.value if live else job.phase.value


def _live(attempts: Sequence[Attempt]) -> Attempt | None:
    return next((attempt for attempt in reversed(attempts) if attempt.phase.is_live), None)


def job_view(job: Job, attempts: Sequence[Attempt], state: State) -> wire.JobView:
    """``attempts`` are in order of their numbers."""
    live = _live(attempts)
    wait = None if live or job.phase.is_terminal else state.waits.get(job.id)
    reason = job.reason or (live.stop_reason if live else None) or (wait.why if wait else "")
    cluster = (live or attempts[-1]).cluster if attempts else job.cluster
    live_cluster = state.clusters.get(live.cluster) if live else None
    return wire.JobView(
        id=job.id,
        name=job.name,
        owner=job.owner,
        group=job.group,
        queue=job.queue,
        kind=job.kind.value,
        phase=shown_phase(job, attempts),
        reason=str(reason),
        created_at=job.submitted_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        exit_code=job.exit_code,
        is_ended=job.phase.is_terminal,
        cluster=cluster,
        unreachable_since=live_cluster.unreachable_since if live_cluster else None,
        priority=job.priority,
        pods=tuple(shape_view(pods) for pods in job.gang.pod_sets),
        charge=(live.charge if live else expected_charge(job, state)).show(),
        after=job.after,
        retry_of=job.retry_of,
        labels=job.labels,
        command=job.work.command,
        run_as=job.work.run_as,
        timeout_s=job.timeout_s,
        wait=wait_view(wait, job, state) if wait else None,
        attempts=tuple(attempt_view(attempt) for attempt in attempts),
    )


def expected_charge(job: Job, state: State) -> Resources:
    """What the job will be charged on the cluster it names, else on the first; the gang's own resources without any cluster."""
    clusters = [state.clusters[job.cluster]] if job.cluster in state.clusters else list(state.clusters.values())
    return charge_of(job, clusters[0]) if clusters else job.gang.resources


def queue_views(state: State, who: Who) -> list[wire.QueueView]:
    ledger = state.ledger()
    waiting = dict.fromkeys(state.queues, 0)
    for job in state.queued():
        for queue in path_of(state.queues, job.queue) if job.queue in state.queues else ():
            waiting[queue.name] += 1
    mine = {queue.name for queue in leaves(state.queues) if may_use(queue, who)}
    return [
        wire.QueueView(
            name=queue.name,
            parent=queue.parent,
            weight=queue.weight,
            priority=queue.priority,
            groups=queue.groups,
            waiting=waiting[queue.name],
            running=ledger.jobs.get(queue.name, 0),
            use=use_views(ledger.use.get(queue.name, NOTHING), queue.guaranteed, queue.max),
            mine=queue.name in mine,
        )
        for queue in state.queues.values()
    ]


def use_views(used: Resources, guaranteed: Resources, limit: Resources) -> tuple[wire.UseView, ...]:
    """One view for each resource that is used, guaranteed or limited."""
    limits = dict(limit)
    keys = sorted({key for amounts in (used, guaranteed, limit) for key, _ in amounts})
    return tuple(
        wire.UseView(
            resource=key,
            used=used[key],
            guaranteed=guaranteed[key],
            max=limits.get(key),
            used_text=show_amount(key, used[key]),
            guaranteed_text=show_amount(key, guaranteed[key]),
            max_text=show_amount(key, limits[key]) if key in limits else "",
        )
        for key in keys
    )


def node_views(cluster: Cluster, used: Mapping[tuple[str, str], Resources]) -> list[wire.NodeView]:
    return [
        wire.NodeView(
            name=node.name,
            cluster=cluster.name,
            is_ready=node.is_ready,
            allocatable=node.allocatable.show(),
            used=used.get((cluster.name, node.name), NOTHING).show(),
            others=node.others.show(),
            labels=node.labels,
        )
        for node in cluster.nodes
    ]


def cluster_view(
    cluster: Cluster, used: Mapping[tuple[str, str], Resources], kubernetes: KubernetesSettings | None
) -> wire.ClusterView:
    return wire.ClusterView(
        name=cluster.name,
        kind=cluster.kind,
        nodes=len(cluster.nodes),
        is_reachable=cluster.unreachable_since is None,
        unreachable_since=cluster.unreachable_since,
        unreachable_why=cluster.unreachable_why,
        allocatable=total(node.allocatable for node in cluster.nodes).show(),
        used=total(amounts for (name, _), amounts in used.items() if name == cluster.name).show(),
        others=total(node.others for node in cluster.nodes).show(),
        image=None if kubernetes is None else kubernetes.image,
        pythons={} if kubernetes is None else kubernetes.pythons,
    )


def spark_view(job: Job, state: State) -> wire.SparkSessionView:
    attempt = state.live_attempt(job.id)
    attempts = [attempt] if attempt else []
    view = job_view(job, attempts, state)
    cpus, memory = size_of(job)
    size = executors_of(job)
    return wire.SparkSessionView(
        name=session_name(job),
        job_id=job.id,
        phase=view.phase,
        reason=view.reason,
        is_ready=is_session_ready(attempts),
        cpus=show_amount(CPU, cpus),
        memory=show_amount(MEMORY, memory),
        created_at=job.submitted_at,
        wait=view.wait,
        executors=size.executors,
        executor_cores=size.executor_cores,
        executor_memory=size.heap_text() if size.executors else "",
    )


def is_session_ready(attempts: Iterable[Attempt]) -> bool:
    running = (attempt for attempt in attempts if attempt.phase is AttemptPhase.RUNNING)
    return any(CONNECT_ENDPOINT in pod.endpoints for attempt in running for pod in attempt.members)


def dag_view(dag: Dag) -> wire.DagView:
    body = wire.from_json(DagRequest, dag.body)
    names = tuple(node.name for node in body.nodes)
    return wire.DagView(name=dag.name, version=dag.version, owner=dag.owner, applied_at=dag.applied_at, nodes=names)


def run_view(run: Run, state: State) -> wire.RunView:
    return wire.RunView(
        id=run.id,
        name=run.name,
        owner=run.owner,
        phase=run.phase,
        created_at=run.created_at,
        ended_at=run.ended_at,
        is_ended=run.phase is not RunPhase.RUNNING,
        variables=run.variables,
        nodes=tuple(_node_view(node, state) for node in run.nodes),
    )


def _node_view(node: RunNode, state: State) -> wire.RunNodeView:
    """A node whose job is in memory shows the job's phase, times and wait."""
    job = state.jobs.get(node.job.id)
    if job is None:
        has_run = node.phase not in (NodePhase.PENDING, NodePhase.SKIPPED)
        return wire.RunNodeView(
            name=node.name, phase=node.phase, after=node.after, reason=node.reason, job_id=node.job.id if has_run else None
        )
    attempt = state.live_attempt(job.id)
    wait = state.waits.get(job.id)
    return wire.RunNodeView(
        name=node.name,
        phase=node.phase if node.phase.is_terminal else shown_phase(job, [attempt] if attempt else []),
        after=node.after,
        reason=wait.sentence if wait else job.reason,
        job_id=job.id,
        started_at=job.started_at,
        ended_at=job.ended_at,
    )
