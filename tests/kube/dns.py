"""The cluster's DNS, as far as pods need it to find each other: A records of Services and of the pods behind headless ones.

`python -m tests.kube.dns KUBECONFIG ADDRESS PORT` answers NAME.NAMESPACE.svc.cluster.local and HOST.NAME. … for a pod's,
from the API server at the moment of the question; of everything else it says that it does not exist.
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

from tests.kube.api import Api, ApiError, Unreachable

ZONE = ".svc.cluster.local"
A_RECORD = 1
TTL_S = 1
AUTHORITATIVE, NO_SUCH_NAME, SERVER_FAILED = 0x8580, 3, 2


def addresses(api: Api, name: str) -> list[str] | None:
    """None when there is no such name."""
    bare = name.lower().rstrip(".")
    parts = bare.removesuffix(ZONE).split(".")
    if not bare.endswith(ZONE) or len(parts) not in (2, 3):
        return None
    namespace, service = parts[-1], parts[-2]
    try:
        address = api.get(f"/api/v1/namespaces/{namespace}/services/{service}")["spec"].get("clusterIP")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    if address != "None" and len(parts) == 2:
        return [address]
    slices = api.get(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", labelSelector=f"kubernetes.io/service-name={service}"
    )
    endpoints = [endpoint for slice in slices["items"] for endpoint in slice.get("endpoints") or []]
    found = [endpoint for endpoint in endpoints if len(parts) == 2 or endpoint.get("hostname") == parts[0]]
    return [address for endpoint in found for address in endpoint["addresses"]] or None


def question(packet: bytes) -> tuple[str, int, int]:
    """Name, type, and where the question ends."""
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode())
        at += packet[at] + 1
    return ".".join(labels), struct.unpack(">H", packet[at + 1 : at + 3])[0], at + 5


def answer(api: Api, packet: bytes) -> bytes:
    name, kind, end = question(packet)
    try:
        found = addresses(api, name)
        code = NO_SUCH_NAME if found is None else 0
    except (ApiError, Unreachable):
        found, code = None, SERVER_FAILED
    records = [struct.pack(">HHHIH", 0xC00C, A_RECORD, 1, TTL_S, 4) + socket.inet_aton(a) for a in found or [] if kind == A_RECORD]
    return packet[:2] + struct.pack(">HHHHH", AUTHORITATIVE | code, 1, len(records), 0, 0) + packet[12:end] + b"".join(records)


def serve(kubeconfig: Path, address: str, port: int) -> None:
    api = Api(kubeconfig)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        while True:
            packet, peer = server.recvfrom(4096)
            try:
                server.sendto(answer(api, packet), peer)
            except (IndexError, struct.error, UnicodeDecodeError):
                continue  # no DNS question


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
