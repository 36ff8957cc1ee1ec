"""Who may do what on a test cluster: the product's own account with no more than it needs, and an ordinary user with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.kube.api import Api

Rule = dict[str, list[str]]
ROLES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
ALL_OF_OURS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def rule(group: str, resources: Sequence[str], verbs: Sequence[str]) -> Rule:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


PRODUCT_RULES: tuple[Rule, ...] = (
    rule("", ["nodes", "namespaces", "persistentvolumes", "resourcequotas", "limitranges"], ["get", "list", "watch"]),
    rule("", ["pods", "services", "configmaps", "secrets", "persistentvolumeclaims"], ALL_OF_OURS),
    rule("", ["pods/binding"], ["create"]),
    rule("", ["pods/status"], ["get", "patch"]),
    rule("", ["pods/log"], ["get"]),
    rule("", ["events"], ["create", "get", "list", "patch", "watch"]),
    rule("networking.k8s.io", ["networkpolicies"], ALL_OF_OURS),
    rule("coordination.k8s.io", ["leases"], ALL_OF_OURS),
    rule("storage.k8s.io", ["storageclasses"], ["get", "list", "watch"]),
    rule("scheduling.k8s.io", ["priorityclasses"], ["get", "list", "watch"]),
)


def rules_of(file: str) -> list[Rule]:
    """The rights in a file of deploy/kubernetes."""
    text = (ROLES / file).read_text(encoding="utf-8")
    return [rule for document in yaml.safe_load_all(text) for rule in document.get("rules", [])]


def product_rules() -> list[Rule]:
    """The rights in deploy/kubernetes/roles.yaml."""
    return rules_of("roles.yaml")


def service_account_token(api: Api, namespace: str, name: str, rules: Sequence[Rule], lifetime_s: int) -> str:
    """A token of the account, made with its role in the whole cluster. The server grants 600 s or more."""
    ensure(api, "/api/v1/namespaces", {"metadata": {"name": namespace}})
    ensure(api, f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
    roles, role = "/apis/rbac.authorization.k8s.io/v1", f"{namespace}-{name}"
    ensure(api, f"{roles}/clusterroles", {"metadata": {"name": role}, "rules": list(rules)})
    binding = {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    ensure(api, f"{roles}/clusterrolebindings", binding)
    asked = {"spec": {"expirationSeconds": lifetime_s}}
    made = api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", asked)
    return str(made["status"]["token"])


def ensure(api: Api, collection: str, manifest: dict[str, Any]) -> None:
    """Create it, or put it in the place of the one that is there."""
    path = f"{collection}/{manifest['metadata']['name']}"
    if api.exists(path):
        api.patch(path, manifest)
    else:
        api.post(collection, manifest)
