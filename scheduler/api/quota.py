"""What there is and who uses it: queues with their quota, clusters, nodes."""

from __future__ import annotations

from fastapi import APIRouter, Response

from tuttilab.scheduler import wire
from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.parts import Caller, ServiceHere, answer
from tuttilab.scheduler.core.queues import path_of

router = APIRouter(tags=["site"])


@router.get("/queues", response_model=list[wire.QueueView])
async def queues(service: ServiceHere, who: Caller) -> Response:
    """Every queue. A parent's use, waiting and running include what is below it."""
    return answer(views.queue_views(service.state, who), list[wire.QueueView])


@router.get("/quota", response_model=list[wire.QueueView])
async def quota(service: ServiceHere, who: Caller) -> Response:
    """The queues that the caller may submit to and those above them: all whose quota counts for the caller."""
    found = views.queue_views(service.state, who)
    counting = {step.name for queue in found if queue.mine for step in path_of(service.state.queues, queue.name)}
    return answer([queue for queue in found if queue.name in counting], list[wire.QueueView])


@router.get("/clusters", response_model=list[wire.ClusterView])
async def clusters(service: ServiceHere, who: Caller) -> Response:
    used = service.state.node_use()
    found = [views.cluster_view(cluster, used) for cluster in service.state.clusters.values()]
    return answer(found, list[wire.ClusterView])


@router.get("/nodes", response_model=list[wire.NodeView])
async def nodes(service: ServiceHere, who: Caller) -> Response:
    used = service.state.node_use()
    found = [node for cluster in service.state.clusters.values() for node in views.node_views(cluster, used)]
    return answer(found, list[wire.NodeView])
