"""A real node: containerd, kubelet and kube-proxy in a mount, PID, network, UTS and IPC namespace of their own.

All its processes, those of its pods included, die with the first process in there; its mounts and firewall rules go with the
namespaces. `/run`, `/var/lib` and `/var/log` are the node's own, so nothing of it lies in the machine's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kube import cgroups, network
from tests.kube.control_plane import ControlPlane
from tests.kube.processes import Processes

DNS = "10.96.0.10"
POD_NETWORK = "10.244.0.0/16"
CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/state"
oom_score = 0
[grpc]
  address = "{folder}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  # Where CAP_SYS_RESOURCE is missing, as in many containers, runc may not lower an oom_score_adj.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/registries"
"""
BOOT = """\
set -eu
hostname {name}
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind {folder}/lib /var/lib
mount --bind {folder}/log /var/log
echo 1 > /proc/sys/net/ipv4/ip_forward
containerd --config {folder}/containerd.toml --log-level warn > {folder}/containerd.log 2>&1 &
until ctr -a {folder}/c.sock -n k8s.io version > /dev/null 2>&1; do sleep 0.05; done
for image in {images}; do ctr -a {folder}/c.sock -n k8s.io images import $image; done
{program} kubelet --config={folder}/kubelet.json --kubeconfig={kubeconfig} --root-dir=/var/lib/kubelet --hostname-override={name} \
--node-ip={address} --cert-dir={folder}/certificates --node-labels={labels} > {folder}/kubelet.log 2>&1 &
{program} proxy --config={folder}/proxy.json > {folder}/proxy.log 2>&1 &
wait
"""


@dataclass(frozen=True)
class Node:
    """``folder`` has its files, on the machine's side; short, because a socket's path may have 107 characters."""

    number: int
    folder: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "c.sock"

    @property
    def device_plugins(self) -> Path:
        return self.folder / "lib/kubelet/device-plugins"


def start(node: Node, control_plane: ControlPlane, processes: Processes, program: Path, images: Sequence[Path]) -> None:
    """As after power came back, when it has run before: pods and images are on its disk, nothing runs."""
    folder, address = node.folder, network.address_of(node.number)
    for stale in (folder / "state", folder / "ipam", node.device_plugins):
        shutil.rmtree(stale, ignore_errors=True)
    for needed in (folder / "cni", folder / "log", node.device_plugins):
        needed.mkdir(parents=True, exist_ok=True)
    control_plane.authority.issue(node.name, f"system:node:{node.name}", ["system:nodes"], [node.name, address])
    kubeconfig = control_plane.certificate_kubeconfig(node.name)
    cgroups.make(f"{network.NAME}{node.number}")
    _write(folder / "cni/10-bridge.conflist", _cni(node))
    _write(folder / "kubelet.json", _kubelet(node, control_plane.authority.folder))
    _write(folder / "proxy.json", _proxy(node, control_plane.root / "proxy.kubeconfig"))
    (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder), encoding="utf-8")
    boot = folder / "boot.sh"
    boot.write_text(
        BOOT.format(
            name=node.name,
            folder=folder,
            program=program,
            kubeconfig=kubeconfig,
            address=address,
            images=" ".join(map(str, images)),
            labels=",".join(f"{key}={value}" for key, value in node.labels.items()),
        ),
        encoding="utf-8",
    )
    into = ("nsenter", f"--net={network.NAMESPACES}/{network.NAME}{node.number}")
    apart = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc")
    processes.start(node.name, *into, *apart, "sh", boot)


def load_image(socket: Path, image: Path) -> None:
    """An OCI layout in a tar, onto the node whose containerd listens there."""
    command = ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", str(image)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)


def trust_registry(node: Node, address: str) -> None:
    """HOST:PORT, over plain HTTP, for the pulls from now on."""
    folder = node.folder / "registries" / address
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.toml").write_text(f'[host."http://{address}"]\n  capabilities = ["pull", "resolve"]\n', encoding="utf-8")


def logs(node: Node) -> list[Path]:
    return [node.folder / f"{server}.log" for server in ("containerd", "kubelet", "proxy")]


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _cni(node: Node) -> dict[str, Any]:
    ranges = [[{"subnet": network.pods_of(node.number)}]]
    addresses = {"type": "host-local", "dataDir": f"{node.folder}/ipam", "routes": [{"dst": "0.0.0.0/0"}], "ranges": ranges}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "kube", "plugins": [bridge, ports]}


def _kubelet(node: Node, pki: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{network.NAME}{node.number}",
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "address": network.address_of(node.number),
        "port": 10250,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/{node.name}.crt",
        "tlsPrivateKeyFile": f"{pki}/{node.name}.key",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS],
        "resolvConf": "",
        # Images here are ours alone and the disk is the machine's: neither is to be tidied up.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 16,
        "serializeImagePulls": False,
        "featureGates": {"GenericWorkload": True},
        "podLogsDir": f"{node.folder}/logs",
        "volumePluginDir": f"{node.folder}/volume-plugins",
    }


def _proxy(node: Node, kubeconfig: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": POD_NETWORK,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
