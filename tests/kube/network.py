"""The network of real nodes: a bridge of this machine, and for each node a network namespace with a cable to it.

Names and addresses are the machine's, so there is one such network at a time. No rule is made on the machine itself: what
kube-proxy and CNI write is in the nodes' namespaces and goes with them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

BRIDGE = "tkbridge"
HOST = "172.30.0.1"
"""The machine's own address on the bridge: the API server's, and how pods reach what a test serves."""
NAME = "tutti-kube-"
CABLE = "tkcable"
NAMESPACES = Path("/run/netns")


def address_of(number: int) -> str:
    return f"172.30.0.{10 + number}"


def pods_of(number: int) -> str:
    """The network of a node's pods."""
    return f"10.244.{number}.0/24"


def start() -> None:
    _ip(f"link add {BRIDGE} type bridge")
    _ip(f"addr add {HOST}/24 dev {BRIDGE}")
    _ip(f"link set {BRIDGE} up")


def connect(number: int, others: list[int]) -> None:
    """A node's namespace, reached from this machine and from the nodes ``others``, as are its pods."""
    space, cable, address = f"{NAME}{number}", f"{CABLE}{number}", address_of(number)
    _ip(f"netns add {space}")
    _ip(f"link add {cable} type veth peer name eth0 netns {space}")
    _ip(f"link set {cable} master {BRIDGE} up")
    _ip(f"-n {space} link set lo up")
    _ip(f"-n {space} addr add {address}/24 dev eth0")
    _ip(f"-n {space} link set eth0 up")
    _ip(f"-n {space} route add default via {HOST}")
    _ip(f"route replace {pods_of(number)} via {address}")
    for other in others:
        _ip(f"-n {space} route replace {pods_of(other)} via {address_of(other)}")
        _ip(f"-n {NAME}{other} route replace {pods_of(number)} via {address}")


def disconnect(number: int) -> None:
    _ip(f"link del {CABLE}{number}", check=False)
    _ip(f"netns del {NAME}{number}", check=False)


def cut(number: int) -> None:
    """Pull the cable: the node and its pods run on and reach nobody."""
    _ip(f"link set {CABLE}{number} down")


def mend(number: int) -> None:
    _ip(f"link set {CABLE}{number} up")


def remove() -> None:
    """Whatever there is of it, also from a run that was killed."""
    for name in left():
        _ip(f"netns del {name}" if name.startswith(NAME) else f"link del {name}", check=False)
    # `ip netns add` mounts the folder of the namespaces; with nothing in it, it is as if it had never been.
    if NAMESPACES.is_dir() and not any(NAMESPACES.iterdir()):
        subprocess.run(["umount", NAMESPACES], capture_output=True, timeout=30)
        with contextlib.suppress(OSError):
            NAMESPACES.rmdir()


def left() -> list[str]:
    """Namespaces and links that are there."""
    spaces = os.listdir(NAMESPACES) if NAMESPACES.is_dir() else []
    links = os.listdir("/sys/class/net")
    return [name for name in spaces if name.startswith(NAME)] + [name for name in links if name.startswith((CABLE, BRIDGE))]


def _ip(line: str, *, check: bool = True) -> None:
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, timeout=30)
    if check and done.returncode != 0:
        raise OSError(f"ip {line}: {done.stderr.strip()}")
