"""A device plugin that has GPUs on paper: a kubelet gives them out by count, and a container sees which in its environment.

`python -m tests.kube.device_plugin FOLDER RESOURCE COUNT`; FOLDER is the kubelet's device-plugins folder. The protocol is the
kubelet's v1beta1, its few messages written by hand: field numbers are those of `deviceplugin/v1beta1/api.proto`. How many of its
devices are unhealthy now stands in the folder's file `UNHEALTHY`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
UNHEALTHY = "unhealthy"
LIMIT_S = 150.0
LOOK_S = 0.5


def field(number: int, content: str | bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    data = content.encode() if isinstance(content, str) else content
    length, size = len(data), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + data


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that has length-delimited ones only."""
    at = 0
    while at < len(message):
        number, length, shift = message[at] >> 3, 0, 0
        while True:
            at += 1
            length |= (message[at] & 127) << shift
            shift += 7
            if message[at] < 128:
                break
        at += 1
        yield number, message[at : at + length]
        at += length


def devices(count: int, unhealthy: int = 0) -> bytes:
    """ListAndWatchResponse: the last ones are unhealthy."""
    states = ["Healthy"] * (count - unhealthy) + ["Unhealthy"] * unhealthy
    return b"".join(field(1, field(1, f"gpu-{number}") + field(2, state)) for number, state in enumerate(states))


def count_unhealthy(folder: Path) -> int:
    try:
        return int((folder / UNHEALTHY).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0


def allocation(request: bytes) -> bytes:
    """AllocateResponse: for each container of the AllocateRequest one environment variable with its devices."""
    answer = b""
    for _, container in fields(request):
        ids = ",".join(id.decode() for _, id in fields(container))
        answer += field(1, field(1, field(1, VISIBLE) + field(2, ids)))
    return answer


def serve(folder: Path, resource: str, count: int) -> None:
    kubelet = folder / "kubelet.sock"
    end = time.monotonic() + LIMIT_S
    while not kubelet.exists():  # a kubelet that starts empties the folder
        if time.monotonic() > end:
            raise TimeoutError(f"no kubelet within {LIMIT_S:.0f} s at {kubelet}")
        time.sleep(0.05)

    def watch(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        told = None
        while context.is_active():
            unhealthy = count_unhealthy(folder)
            if unhealthy != told:
                told = unhealthy
                yield devices(count, unhealthy)
            time.sleep(LOOK_S)

    def nothing(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b""

    methods = {
        "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(nothing),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(watch),
        "Allocate": grpc.unary_unary_rpc_method_handler(lambda request, context: allocation(request)),
        "PreStartContainer": grpc.unary_unary_rpc_method_handler(nothing),
    }
    name = resource.replace("/", "_") + ".sock"
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods)])
    server.add_insecure_port(f"unix:{folder}/{name}")
    server.start()
    with grpc.insecure_channel(f"unix:{kubelet}", options=[("grpc.default_authority", "localhost")]) as channel:
        register = channel.unary_unary("/v1beta1.Registration/Register")
        register(field(1, "v1beta1") + field(2, name) + field(3, resource), wait_for_ready=True, timeout=LIMIT_S)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
