"""A user's machine whose one cluster is a real Kubernetes, and small jobs on it."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.kube import images, product_images
from tests.kube.real import RealCluster
from tests.ports import free_port
from tests.user_machine import CommandResult, UserMachine, eventually

LOST_AFTER_S = 8
LEASE_S = 15
SLEEPER = (
    "python3",
    "-c",
    "import signal, time; signal.signal(15, lambda *_: exit(143)); print('on', flush=True); time.sleep(600)",
)


class Site:
    """A user's machine whose one cluster is Kubernetes."""

    def __init__(self, machine: UserMachine, cluster: RealCluster, kubeconfig: Path, namespace: str) -> None:
        self.machine = machine
        self.cluster = cluster
        self.namespace = namespace
        self.kubeconfig = kubeconfig
        self.file = machine.home / "tuttilab.yaml"
        port = free_port(cluster.host)
        self.settings: dict[str, Any] = {
            "name": "k",
            "kind": "kubernetes",
            "kubeconfig": str(kubeconfig),
            "namespace": namespace,
            "sidecar_image": product_images.SIDECAR,
            "report_url": f"http://{cluster.host}:{port}",
        }
        self.config: dict[str, Any] = {
            "listen": {"pods": f"{cluster.host}:{port}"},
            "limits": {"lost_after_s": LOST_AFTER_S, "lease_s": LEASE_S, "barrier_s": 60},
            "clusters": [self.settings],
        }

    def up(self) -> None:
        self.file.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        said = self.machine.run("up", "--config", str(self.file))
        assert said.code == 0, said

    def kill(self) -> None:
        process = psutil.Process(self.machine.runtime().pid)
        process.send_signal(signal.SIGKILL)
        process.wait(60)

    def submit(self, *arguments: str, image: str = images.PYTHON, timeout_s: float = 120.0) -> CommandResult:
        return self.machine.run("submit", "--cpus", "0.1", "--memory", "64Mi", "--image", image, *arguments, timeout_s=timeout_s)

    def started(self, *arguments: str, image: str = images.PYTHON) -> str:
        """Submit without waiting; the id of the job."""
        said = self.submit("--json", *arguments, image=image)
        assert said.code == 0, said
        return str(said.json["id"])

    def job(self, job_id: str) -> Any:
        said = self.machine.run("job", job_id, "--json")
        assert said.code == 0, said
        return said.json

    def until(self, job_id: str, *phases: str, limit_s: float = 60.0) -> Any:
        def is_there() -> Any:
            job = self.job(job_id)
            return job if job["phase"] in phases else None

        try:
            return eventually(is_there, limit_s)
        except AssertionError:
            raise AssertionError(f"{self.job(job_id)}\n{self.log()}\n{json.dumps(self.pods(), indent=1)[:6000]}") from None

    def until_running(self, job_id: str, limit_s: float = 60.0) -> Any:
        def is_running() -> Any:
            job = self.job(job_id)
            return job if job["attempts"] and job["attempts"][-1]["phase"] == "Running" else None

        try:
            return eventually(is_running, limit_s)
        except AssertionError:
            raise AssertionError(f"{self.job(job_id)}\n{self.log()}\n{json.dumps(self.pods(), indent=1)[:6000]}") from None

    def until_it_waits_for(self, job_id: str, sentence: str) -> None:
        """A launch that was refused is tried again a few times, and the reason is told meanwhile."""
        eventually(lambda: sentence in self.machine.run("explain", job_id).out.replace("\n", " "))

    def logs(self, job_id: str) -> str:
        said = self.machine.run("logs", job_id)
        assert said.code == 0, said
        return said.out

    def usage(self, job_id: str) -> Any:
        runtime = self.machine.runtime()
        headers = {"Authorization": f"Bearer {runtime.token}"}
        return httpx.get(f"{runtime.url}/api/v1/jobs/{job_id}/usage", headers=headers, trust_env=False, timeout=30).json()

    def log(self) -> str:
        """The end of what the control plane said."""
        return (self.machine.state / "control.log").read_text(encoding="utf-8")[-4000:]

    def pods(self) -> list[Any]:
        found: list[Any] = self.cluster.api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return found

    def members_of(self, job_id: str) -> list[Any]:
        labels = ((pod, pod["metadata"]["labels"]) for pod in self.pods())
        return [pod for pod, has in labels if has["tuttilab.io/job"] == job_id and has["tuttilab.io/role"] != "master"]

    def policies(self) -> list[Any]:
        path = f"/apis/networking.k8s.io/v1/namespaces/{self.namespace}/networkpolicies"
        found: list[Any] = self.cluster.api.get(path)["items"]
        return found

    def until_nothing_is_left(self) -> None:
        """No object of a job; the Lease and what a namespace is made with stay."""

        def left() -> list[str]:
            base = f"/api/v1/namespaces/{self.namespace}"
            kinds = ("pods", "services", "secrets", "configmaps")
            items = [item for kind in kinds for item in self.cluster.api.get(f"{base}/{kind}")["items"]] + self.policies()
            return [item["metadata"]["name"] for item in items if item["metadata"]["name"] != "kube-root-ca.crt"]

        eventually(lambda: not left())

    def processes(self, pod: Any, program: str) -> list[psutil.Process]:
        """Of one pod, on this machine, whose command line has ``program`` in a word."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                is_meant = any(program in word for word in process.cmdline())
                if is_meant and pod["metadata"]["uid"] in Path(f"/proc/{process.pid}/cgroup").read_text():
                    found.append(process)
        return found
