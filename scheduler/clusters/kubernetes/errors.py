"""What the API server refuses, as one sentence each: what was asked, why not, what to do. The client's errors stay in this room."""

from __future__ import annotations

import json
import re
from typing import Final

from tuttilab.scheduler.domain.errors import ClusterError, ClusterUnreachable, LaunchRefused, StaleEpoch

_RBAC = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"(?P<where>.*)'
)
_LIMIT_RANGE = re.compile(r"\b(?:maximum|minimum|max limit to request ratio)\b.*\b(?:Container|Pod)\b")
_NAMESPACE = re.compile(r'namespaces "(?P<name>[^"]+)" not found')
MESSAGE: Final = 500
WEBHOOK_DOWN: Final = "failed calling webhook"
EPOCH_POLICY: Final = "ValidatingAdmissionPolicy 'tuttilab-epoch'"
"""Of deploy/kubernetes/epoch.yaml, as the API server names it."""


class ApiError(Exception):
    """An answer that is no success. ``reason`` is the API server's word for it: NotFound, AlreadyExists, Conflict, Expired …"""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def is_gone(self) -> bool:
        return self.status == 404

    @property
    def exists_already(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def is_about_a_missing_namespace(self) -> bool:
        """Whether nothing can be made because the namespace is not there, or on its way out."""
        is_missing = self.status == 404 and _NAMESPACE.search(self.message) is not None
        return is_missing or (self.status == 403 and "being terminated" in self.message)

    @property
    def is_transient(self) -> bool:
        """Whether the same call may be taken later."""
        return self.status == 429 or self.status >= 500 or (self.status == 409 and self.reason == "Conflict")


def from_body(status: int, text: str) -> ApiError:
    """Of an answer whose body is a Status of the API, or whatever a proxy before it wrote."""
    try:
        body = json.loads(text)
        return ApiError(status, str(body.get("reason", "")), str(body.get("message", ""))[: MESSAGE * 2])
    except (ValueError, AttributeError):
        return ApiError(status, "", text[:MESSAGE])


def as_cluster_error(error: ApiError, cluster: str, what: str) -> ClusterError:
    """For a call that only looks. It is tried again by who asked."""
    return ClusterUnreachable(sentence(error, cluster, what))


def as_refusal(error: ApiError, cluster: str, what: str) -> ClusterError | StaleEpoch:
    """For a call that creates: what a retry may mend is no refusal."""
    # A webhook is asked before anything is written: nothing was made, and the job is told why it waits.
    if error.is_transient and WEBHOOK_DOWN not in error.message:
        return ClusterUnreachable(sentence(error, cluster, what))
    if error.status == 403 and EPOCH_POLICY in error.message:
        return StaleEpoch(f"cluster {cluster}: the API server refused to {what}: {error.message[:MESSAGE]}")
    return LaunchRefused(sentence(error, cluster, what), permanent=error.status in (400, 422))


def sentence(error: ApiError, cluster: str, what: str) -> str:
    """``what``: what was tried, such as ``create pod ml/a-1``."""
    rbac, namespace = _RBAC.search(error.message), _NAMESPACE.search(error.message)
    where = f"cluster {cluster}: "
    if error.status == 401:
        return f"{where}the API server does not accept our credentials ({what}); renew those of its kubeconfig."
    if error.status == 403 and rbac is not None:
        resource = rbac["resource"] + (f".{rbac['group']}" if rbac["group"] else "")
        return (
            f"{where}{rbac['user']} may not {rbac['verb']} {resource}{rbac['where'][:200]}; "
            "give it the roles in deploy/kubernetes/roles.yaml."
        )
    if error.status == 403 and ("exceeded quota" in error.message or "failed quota" in error.message):
        return (
            f"{where}a ResourceQuota of the namespace is smaller than our queues believe; make it larger, or the queues' max "
            f"smaller: {error.message[:MESSAGE]}"
        )
    if error.status == 403 and "violates PodSecurity" in error.message:
        return f"{where}the namespace's Pod Security level refuses the pod: {error.message[:MESSAGE]}"
    if error.status == 403 and "being terminated" in error.message:
        return f"{where}its namespace is being deleted ({what}); name another one in clusters[].namespace."
    if namespace is not None and error.status == 404:
        return f"{where}there is no namespace {namespace['name']!r}; create it, or name another one in clusters[].namespace."
    if error.status == 403 and _LIMIT_RANGE.search(error.message):
        return (
            f"{where}a LimitRange of the namespace does not allow pods of that size, so ask for others: {error.message[:MESSAGE]}"
        )
    if WEBHOOK_DOWN in error.message:
        return f"{where}an admission webhook of the cluster does not answer ({what}); have it mended: {error.message[:MESSAGE]}"
    if "admission webhook" in error.message:
        return f"{where}an admission webhook of the cluster refuses the pod: {error.message[:MESSAGE]}"
    if "ValidatingAdmissionPolicy" in error.message:
        return f"{where}a ValidatingAdmissionPolicy of the cluster refuses the pod: {error.message[:MESSAGE]}"
    return f"{where}the API server answered {error.status} {error.reason} when asked to {what}: {error.message[:MESSAGE]}"
