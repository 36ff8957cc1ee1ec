"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler on one address of this machine.

RBAC and Node authorisation, admission as a cluster has it by default and NodeRestriction, nobody without a name. Users are client
certificates, the tokens of ``users``, and service accounts. Gang scheduling of Kubernetes' own (PodGroup) is switched on.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kube import kubeconfig
from tests.kube.api import Api, ApiError, Unreachable
from tests.kube.pki import SERVICE_ACCOUNTS, Authority
from tests.kube.processes import Processes
from tests.ports import free_port

SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
GATES = "GenericWorkload=true"
ADMIN = "admin"
SERVERS = ("controller-manager", "scheduler", "proxy")
NAMES_IN_THE_CLUSTER = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True)
class User:
    """Somebody whom the API server knows by a token, who may do what RBAC says: at first nothing."""

    name: str
    groups: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16))


class ControlPlane:
    """``is_advertised``: pods reach it at ``address`` by the Service `kubernetes`, so it is no loopback address."""

    def __init__(
        self, program: Path, root: Path, address: str, processes: Processes, users: Sequence[User], *, is_advertised: bool
    ) -> None:
        self._program, self.root, self.address, self._processes = program, root, address, processes
        self._users, self._is_advertised = users, is_advertised
        # Of a kubelet four reports; thousands of fake nodes would be busy with theirs alone.
        self.silence_s = 16 if is_advertised else 240
        self.authority = Authority(root / "pki")
        self._etcd_port, self.port = free_port(), free_port(address)
        self.url = f"https://{address}:{self.port}"
        self._issue()
        self.admin_kubeconfig = self.certificate_kubeconfig(ADMIN)
        self.api = Api(self.admin_kubeconfig)

    def start(self) -> None:
        """Until it is usable: the controller manager has made the first service account."""
        self._start_etcd()
        self._start_api_server()
        # The controller manager ends when it may not ask for ten seconds, as while a busy machine's API server makes the roles.
        self.wait_until_ready()
        self._start_controller_manager()
        self._start_scheduler()
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._processes.wait_for("the controller manager works", lambda: self.api.exists(account))

    def wait_until_ready(self, limit_s: float = 240.0) -> None:
        self._processes.wait_for("the API server is ready", self.is_ready, limit_s)

    def is_ready(self) -> bool:
        try:
            return self.api.text("/readyz") == "ok"
        except Unreachable:
            return False
        except ApiError as error:
            # While it starts it does not know the roles yet.
            if error.status in (401, 403, 500, 503):
                return False
            raise

    # The levers for tests of outages. etcd stays, so what was written is still there afterwards.

    def stop_api_server(self) -> None:
        """Killed: connections break, new ones are refused."""
        self._processes.stop("apiserver")

    def start_api_server(self) -> None:
        self._start_api_server()
        self.wait_until_ready()

    def pause_api_server(self) -> None:
        """Connections stay open and new ones are accepted by the kernel, but nothing is answered."""
        self._processes.pause("apiserver")

    def resume_api_server(self) -> None:
        self._processes.resume("apiserver")

    # Who may talk to it.

    def certificate_kubeconfig(self, stem: str) -> Path:
        pki = self.authority.folder
        path = self.root / f"{stem}.kubeconfig"
        return kubeconfig.write(path, self.url, pki / "ca.crt", certificate=pki / f"{stem}.crt")

    def token_kubeconfig(self, stem: str, token: str) -> Path:
        return kubeconfig.write(self.root / f"{stem}.kubeconfig", self.url, self.authority.folder / "ca.crt", token=token)

    def _issue(self) -> None:
        names = ["localhost", "127.0.0.1", self.address, API_SERVICE, *NAMES_IN_THE_CLUSTER]
        self.authority.issue("apiserver", "kube-apiserver", hosts=dict.fromkeys(names))
        self.authority.issue(ADMIN, ADMIN, ["system:masters"])
        self.authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
        for server in SERVERS:
            self.authority.issue(server, f"system:kube-{server}")
            self.certificate_kubeconfig(server)
        lines = [f'{user.token},{user.name},{user.name},"{",".join(user.groups)}"\n' for user in self._users]
        tokens = self.root / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text("".join(lines) or f"{secrets.token_hex(16)},nobody,nobody\n", encoding="utf-8")

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._processes.start(
            "etcd",
            self._program,
            "etcd",
            "--name=test",
            f"--data-dir={self.root}/etcd",
            "--unsafe-no-fsync=true",
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
        )

    def _start_api_server(self) -> None:
        pki = self.authority.folder
        self._processes.start(
            "apiserver",
            self._program,
            "apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self.port}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--endpoint-reconciler-type={'lease' if self._is_advertised else 'none'}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/{SERVICE_ACCOUNTS}.pub",
            f"--service-account-signing-key-file={pki}/{SERVICE_ACCOUNTS}.key",
            "--authorization-mode=Node,RBAC",
            "--anonymous-auth=false",
            f"--token-auth-file={self.root}/tokens.csv",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            f"--feature-gates={GATES}",
            "--runtime-config=scheduling.k8s.io/v1beta1=true",
            "--enable-priority-and-fairness=false",
            "--profiling=false",
            "--event-ttl=1h",
        )

    def _start_controller_manager(self) -> None:
        pki = self.authority.folder
        self._processes.start(
            "controller-manager",
            self._program,
            "controller-manager",
            f"--kubeconfig={self.root}/controller-manager.kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki}/{SERVICE_ACCOUNTS}.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            f"--feature-gates={GATES}",
            "--node-monitor-period=1s",
            f"--node-monitor-grace-period={self.silence_s}s",
            "--profiling=false",
            # Its usual 20 requests a second would be what thousands of pods wait for.
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
            f"--cert-dir={self.root}/controller-manager-certificates",
        )

    def _start_scheduler(self) -> None:
        self._processes.start(
            "scheduler",
            self._program,
            "scheduler",
            f"--kubeconfig={self.root}/scheduler.kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--feature-gates={GATES}",
            "--profiling=false",
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
            f"--cert-dir={self.root}/scheduler-certificates",
        )
