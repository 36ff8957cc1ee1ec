"""Queues with their quota and use, clusters, nodes."""

from __future__ import annotations

from fastapi import APIRouter, Response

from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.dependencies import Caller, ServiceDep, json_response
from tuttilab.scheduler.core.ordering.queues import path_of
from tuttilab.scheduler.domain import wire

router = APIRouter(tags=["site"])


@router.get("/queues", response_model=list[wire.QueueView])
async def queues(service: ServiceDep, who: Caller) -> Response:
    """Every queue. A parent's use, waiting and running include those of the queues below it."""
    return json_response(views.queue_views(service.state, who), list[wire.QueueView])


@router.get("/quota", response_model=list[wire.QueueView])
async def quota(service: ServiceDep, who: Caller) -> Response:
    """The queues that the caller may submit to and those above them: all whose quota applies to the caller."""
    found = views.queue_views(service.state, who)
    applicable = {step.name for queue in found if queue.mine for step in path_of(service.state.queues, queue.name)}
    return json_response([queue for queue in found if queue.name in applicable], list[wire.QueueView])


@router.get("/clusters", response_model=list[wire.ClusterView])
async def clusters(service: ServiceDep, who: Caller) -> Response:
    used = service.state.node_use()
    kubernetes = {cluster.name: cluster.kubernetes for cluster in service.config.clusters}
    found = [views.cluster_view(cluster, used, kubernetes.get(cluster.name)) for cluster in service.state.clusters.values()]
    return json_response(found, list[wire.ClusterView])


@router.get("/nodes", response_model=list[wire.NodeView])
async def nodes(service: ServiceDep, who: Caller) -> Response:
    used = service.state.node_use()
    found = [node for cluster in service.state.clusters.values() for node in views.node_views(cluster, used)]
    return json_response(found, list[wire.NodeView])
