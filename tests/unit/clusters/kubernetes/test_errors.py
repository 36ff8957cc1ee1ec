"""Each refusal of the API server as one sentence that says what to do."""

import json

import pytest

from tuttilab.scheduler.clusters.kubernetes.errors import ApiError, as_refusal, from_body, sentence
from tuttilab.scheduler.domain.errors import ClusterUnreachable, LaunchRefused, StaleEpoch

RBAC = (
    'pods is forbidden: User "system:serviceaccount:tuttilab:scheduler" cannot create resource "pods" in API group "" '
    'in the namespace "ml"'
)
LEASES = (
    'leases.coordination.k8s.io "x" is forbidden: User "ann" cannot get resource "leases" in API group "coordination.k8s.io" '
    'in the namespace "ml"'
)


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (401, "Unauthorized", "cluster k: the API server does not accept our credentials (create pod ml/a); renew those"),
        (403, RBAC, "system:serviceaccount:tuttilab:scheduler may not create pods in the namespace \"ml\"; give it the roles in"),
        (403, LEASES, "ann may not get leases.coordination.k8s.io in the namespace \"ml\"; give it the roles in "),
        (403, 'pods "a" is forbidden: exceeded quota: q, requested: cpu=1', "a ResourceQuota of the namespace is smaller than our"),
        (403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest"', "the namespace's Pod Security level refuses"),
        (403, "unable to create new content in namespace ml because it is being terminated", "its namespace is being deleted"),
        (404, 'namespaces "ml" not found', "there is no namespace 'ml'; create it, or name another one in clusters[].namespace"),
        (400, 'admission webhook "x.example" denied the request: no', "an admission webhook of the cluster refuses the pod"),
        (422, "Pod is invalid: spec.x", "the API server answered 422 Why when asked to create pod ml/a: Pod is invalid: spec.x"),
    ],
)  # fmt: skip
def test_sentence(status: int, message: str, said: str) -> None:
    assert said in sentence(ApiError(status, "Why", message), "k", "create pod ml/a")


@pytest.mark.parametrize(
    ("status", "reason", "kind", "is_permanent"),
    [
        (403, "Forbidden", LaunchRefused, False),
        (404, "NotFound", LaunchRefused, False),
        (422, "Invalid", LaunchRefused, True),
        (400, "BadRequest", LaunchRefused, True),
        (429, "TooManyRequests", ClusterUnreachable, None),
        (500, "InternalError", ClusterUnreachable, None),
        (409, "Conflict", ClusterUnreachable, None),
    ],
)
def test_what_a_retry_may_mend_is_no_refusal(status: int, reason: str, kind: type, is_permanent: bool | None) -> None:
    error = as_refusal(ApiError(status, reason, "m"), "k", "create")

    assert type(error) is kind
    assert getattr(error, "permanent", None) is is_permanent


def test_an_answer_of_the_api_and_one_of_a_proxy() -> None:
    status = {"kind": "Status", "reason": "AlreadyExists", "message": 'pods "a" already exists', "code": 409}

    assert from_body(409, json.dumps(status)).exists_already
    assert from_body(502, "<html>Bad Gateway</html>").message == "<html>Bad Gateway</html>"
    assert from_body(500, "[]").status == 500


def test_the_policy_of_epochs_is_told_from_other_refusals() -> None:
    said = (
        "pods \"a\" is forbidden: ValidatingAdmissionPolicy '{}' with binding '{}' denied request: epoch 1 was given, and 2 leads"
    )

    ours = as_refusal(ApiError(403, "Forbidden", said.format("tuttilab-epoch", "tuttilab-epoch")), "k", "create pod ml/a")
    others = as_refusal(ApiError(403, "Forbidden", said.format("no-pods", "x")), "k", "create pod ml/a")

    assert isinstance(ours, StaleEpoch)
    assert "epoch 1 was given, and 2 leads" in str(ours)
    assert isinstance(others, LaunchRefused)
