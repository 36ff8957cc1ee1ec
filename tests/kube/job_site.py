"""A user's machine whose one cluster is a real Kubernetes, and small jobs on it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.kube import images, product_images
from tests.kube.real import RealCluster
from tests.ports import free_port
from tests.user_machine import CommandResult, UserMachine, eventually, made_machine
from tuttilab.scheduler.cli.follow import Stream
from tuttilab.scheduler.domain.wire import to_data

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
LIMITS = {"lost_after_s": 8, "heartbeat_s": 2, "lease_s": 10, "barrier_s": 60, "back_off_s": 2, "observe_every_s": 5}
"""So that nobody waits for long; what is configured for a site is as good as these."""
OLD_PYTHON = "localhost/old-python:1"
"""The site says so, and nobody looks."""
PATIENCE_S = 8
"""Of a busy machine's nodes, whose pods are placed and have their images in less."""
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
            "container_patience_s": PATIENCE_S,
            "pythons": {OLD_PYTHON: "2.7"},
            "report_url": f"http://{cluster.host}:{port}",
        }
        self.config: dict[str, Any] = {
            "listen": {"pods": f"{cluster.host}:{port}"},
            "limits": dict(LIMITS),
            "clusters": [self.settings],
        }

    def up(self) -> None:
        self.file.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        said = self.machine.run("up", "--config", str(self.file))
        assert said.code == 0, said

    def kill(self) -> None:
        process = psutil.Process(self.machine.runtime().pid)
        process.send_signal(signal.SIGKILL)
        process.wait(150)

    def submit(self, *arguments: str, image: str = images.PYTHON, timeout_s: float = 120.0) -> CommandResult:
        return self.machine.run("submit", "--cpus", "0.1", "--memory", "64Mi", "--image", image, *arguments, timeout_s=timeout_s)

    def started(self, *arguments: str, image: str = images.PYTHON) -> str:
        """Submit without waiting; the id of the job."""
        said = self.submit("--json", *arguments, image=image)
        assert said.code == 0, said
        return str(said.json["id"])

    def job(self, job_id: str) -> Any:
        return to_data(self.machine.client().job(job_id))

    def until(self, job_id: str, *phases: str, limit_s: float = 240.0) -> Any:
        def is_there() -> Any:
            job = self.job(job_id)
            return job if job["phase"] in phases else None

        try:
            return eventually(is_there, limit_s)
        except AssertionError:
            raise AssertionError(f"{self.job(job_id)}\n{self.log()}\n{json.dumps(self.pods(), indent=1)[:6000]}") from None

    def until_running(self, job_id: str, limit_s: float = 240.0) -> Any:
        def is_running() -> Any:
            job = self.job(job_id)
            return job if job["attempts"] and job["attempts"][-1]["phase"] == "Running" else None

        try:
            return eventually(is_running, limit_s)
        except AssertionError:
            raise AssertionError(f"{self.job(job_id)}\n{self.log()}\n{json.dumps(self.pods(), indent=1)[:6000]}") from None

    def until_it_waits_for(self, job_id: str, sentence: str) -> None:
        """A launch that was refused is tried again a few times, and the reason is told meanwhile."""
        eventually(lambda: sentence in self.machine.why_it_waits(job_id))

    def logs(self, job_id: str) -> str:
        """What `tuttilab logs JOB` prints."""
        client, lines = self.machine.client(), list[str]()
        attempts = client.job(job_id).attempts
        if attempts:
            Stream(client, job_id, lines.append).read(attempts[-1])
        return "".join(f"{line}\n" for line in lines)

    def usage(self, job_id: str) -> Any:
        return to_data(self.machine.client().usage(job_id))

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

    def tidy(self) -> None:
        """End what a test left, for the next one: its jobs, and their objects."""
        if self.machine.find() is None:
            self.up()
        for job in self.machine.client().jobs().jobs:
            self.machine.client().cancel(job.id)
        self.until_nothing_is_left()
        eventually(lambda: not self.machine.client().jobs().jobs)

    def processes(self, pod: Any, program: str) -> list[psutil.Process]:
        """Of one pod, on this machine, whose command line has ``program`` in a word."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                is_meant = any(program in word for word in process.cmdline())
                if is_meant and pod["metadata"]["uid"] in Path(f"/proc/{process.pid}/cgroup").read_text():
                    found.append(process)
        return found


class SharedSite:
    """One control plane for tests one after another; a test after which it cannot be made tidy costs the next one a new one."""

    def __init__(self, open_site: Callable[[], AbstractContextManager[Site]]) -> None:
        self._open = open_site
        self._stack = ExitStack()
        self._site: Site | None = None

    @contextmanager
    def lent(self) -> Iterator[Site]:
        if self._site is None:
            self._site = self._stack.enter_context(self._open())
            self._site.up()
        try:
            yield self._site
        finally:
            self._tidy(self._site)

    def _tidy(self, site: Site) -> None:
        try:
            site.tidy()
        except AssertionError:
            self.close()  # what is left, as on a node that is away, is none of the next test's
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._site = None
        self._stack.close()


@contextmanager
def made_site(cluster: RealCluster, kubeconfig: Path, namespace: str, folder: Path) -> Iterator[Site]:
    """Not up yet. Afterwards nothing of it runs."""
    with made_machine(folder) as machine:
        site = Site(machine, cluster, kubeconfig, namespace)
        try:
            yield site
        finally:
            if machine.find() is not None:
                machine.run("down", "--now", timeout_s=150)
