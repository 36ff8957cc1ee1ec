"""A hub whose servers are pods: the real JupyterHub and its proxy, the control plane, and the proxy before it, on a real cluster.

What the guide says in its chapter on hubs is what runs; names and addresses of its example are replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.hub.site import HubSite
from tests.kube import lab_image, product_images
from tests.kube.access import rules_of
from tests.kube.real import GPU, RealCluster
from tests.ports import free_port
from tests.user_machine import CommandResult, eventually, made_machine

WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: it ends with the process that started it, however that ends."""
HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "docs" / "guides" / "kubernetes.md"
CHAPTER = "## 5. Notebook servers of a hub"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
GPU_MAX = 4
"""Of group research, in the guide."""
DRIVER_PORTS = "30100-30103"


def snippets(language: str) -> list[str]:
    """Of the guide's chapter on hubs."""
    chapter = GUIDE.read_text(encoding="utf-8").partition(CHAPTER)[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)


@dataclass
class KubeHubSite(HubSite):
    cluster: RealCluster = None  # type: ignore[assignment]  # given by `made_kube_hub`
    kubeconfigs: Mapping[str, Path] = field(default_factory=dict)
    namespace: str = ""
    """Of gangs."""
    servers_namespace: str = ""
    open_namespace: str = ""
    """Of servers whose volumes Pod Security "restricted" does not allow: those of profiles `path-…`."""
    storages: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """For `jupyterhub_config.py`."""

    def __post_init__(self) -> None:
        host = self.cluster.host
        self.hub_port, self.front_port, self.pods_port = (free_port(host) for _ in range(3))

    @property
    def hub_url(self) -> str:
        return f"http://{self.cluster.host}:{self.hub_port}"

    def replaced(self, text: str) -> str:
        """A snippet of the guide with the names and addresses of this site."""
        host = self.cluster.host
        for old, new in {
            "10.0.0.5:8081": f"{host}:{self.hub_port}",
            "10.0.0.5:8082": f"{host}:{self.front_port}",
            "10.0.0.5:8790": f"{host}:{self.pods_port}",
            "10.0.0.5": host,
            "port: 9321": f"port: {self.ports[3]}",
            "/etc/tuttilab/tuttilab.kubeconfig": str(self.kubeconfigs["product"]),
            "registry.example/tuttilab-sidecar:0.1": product_images.SIDECAR,
            "registry.example/python:3.12": product_images.NOTEBOOK,
            "registry.example/lab:2026.11": lab_image.LAB,
            '"ml-servers"': f'"{self.servers_namespace}"',
            "namespace: ml\n": f"namespace: {self.namespace}\n",
        }.items():
            text = text.replace(old, new)
        return text

    def proxy_command(self) -> list[str]:
        return [*WITH_US, *super().proxy_command()]

    def _start(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        super()._start(name, [*WITH_US, *arguments], environ)

    def start_control(self) -> None:
        config = self.folder / "tuttilab.yaml"
        content = {**yaml.safe_load(self.replaced(snippets("yaml")[0])), "storages": [dict(each) for each in self.storages]}
        content["driver_ports"] = DRIVER_PORTS
        config.write_text(yaml.safe_dump(content), encoding="utf-8")
        arguments = [sys.executable, "-m", "tuttilab.scheduler.server.serve", "--config", str(config)]
        self._start("control", arguments, {"JUPYTERHUB_API_TOKEN": self.service_token})
        eventually(lambda: self._answers(f"{self.control_url}/readyz"), 150)

    def start_front(self) -> None:
        """The proxy before the control plane, of which servers know; a site has one with TLS."""
        where = ["--ip", self.cluster.host, "--port", str(self.front_port), "--default-target", self.control_url]
        api = ["--api-ip", "127.0.0.1", "--api-port", str(free_port())]
        self._start("front", [*super().proxy_command(), *where, *api], {"CONFIGPROXY_AUTH_TOKEN": self.proxy_token})

    def start_hub(self) -> None:
        more = {"open_namespace": self.open_namespace, "snippet": self.replaced(snippets("python")[0]), **self.more}
        self._start_hub(HERE / "jupyterhub_config.py", more, {"KUBECONFIG": str(self.kubeconfigs["hub"])}, 90)

    def run(self, *arguments: str) -> CommandResult:
        """The command line of an operator."""
        return self.machine.run(*arguments, TUTTILAB_URL=self.control_url, TUTTILAB_TOKEN=self.service_token)

    def apply(self, *profiles: Mapping[str, Any]) -> None:
        said = self._apply(*profiles)
        assert said.code == 0, said

    def try_to_apply(self, profile: Mapping[str, Any]) -> str:
        """The refusal."""
        said = self._apply(profile)
        assert said.code != 0, said
        return said.err

    def _apply(self, *profiles: Mapping[str, Any]) -> CommandResult:
        file = self.folder / "profiles.yaml"
        file.write_text(yaml.safe_dump_all([{"kind": "Profile", **profile} for profile in profiles]), encoding="utf-8")
        return self.run("profile", "apply", str(file))

    def gpus_of_pods(self) -> int:
        """That the pods of servers and gangs which have not ended hold on the cluster."""
        pods = [each for place in (self.namespace, self.servers_namespace) for each in self.items("pods", place)]
        live = [each for each in pods if each["status"].get("phase") not in ("Succeeded", "Failed")]
        limits = [each["resources"].get("limits", {}) for one in live for each in one["spec"]["containers"]]
        return sum(int(limit.get(GPU, 0)) for limit in limits)

    def items(self, kind: str, namespace: str = "") -> list[Any]:
        found: list[Any] = self.cluster.api.get(f"/api/v1/namespaces/{namespace or self.servers_namespace}/{kind}")["items"]
        return found

    def job(self, job_id: str) -> Any:
        return self.control("GET", f"/jobs/{job_id}", self.service_token).json()

    def told(self) -> str:
        """What hub and control plane said, for a failure."""
        return "\n".join(f"--- {name}\n{self.log(name)[-5000:]}" for name in ("hub", "control"))


@contextmanager
def made_kube_hub(
    folder: Path,
    cluster: RealCluster,
    profiles: Sequence[Mapping[str, Any]],
    storages: Sequence[Mapping[str, Any]] = (),
    token_s: int = 3600,
    **settings: Any,
) -> Iterator[KubeHubSite]:
    """The hub and its service; nothing of it runs afterwards, and its namespaces are dropped. ``settings``: of `KubeHubSite`."""
    accounts = {"product": "roles.yaml", "hub": "hub-roles.yaml"}
    kubeconfigs = {
        name: cluster.service_account_kubeconfig(rules_of(file), name=name, lifetime_s=token_s) for name, file in accounts.items()
    }
    with (
        cluster.namespace("gangs", RESTRICTED) as gangs,
        cluster.namespace("servers", RESTRICTED) as servers,
        cluster.namespace("open") as open_namespace,
        made_machine(folder) as machine,
    ):
        site = KubeHubSite(
            machine,
            machine.state,
            cluster=cluster,
            kubeconfigs=kubeconfigs,
            namespace=gangs,
            servers_namespace=servers,
            open_namespace=open_namespace,
            storages=storages,
            **settings,
        )
        site.folder.mkdir(mode=0o700)
        try:
            site.start_control()
            site.start_front()
            site.start_hub()
            site.apply(*profiles)
            yield site
        finally:
            site.close()
