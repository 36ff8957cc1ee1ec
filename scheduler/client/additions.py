"""How a volume and a side-car of the site are written in one word, on the command line and in a cell's first line."""

from __future__ import annotations

from typing import Final

from tuttilab.scheduler.domain.requests import MountRequest, SideCarRequest

KINDS: Final = ("claim", "cephfs", "nfs", "host_path")
MOUNT: Final = "[KIND=]VOLUME[/FOLDER]:PATH[:r]"
SIDECAR: Final = "NAME[:K=V,...]"


def read_mount(text: str) -> MountRequest:
    """``work:/workspace``, ``work/users/{owner}:/workspace``, ``cephfs=market:/data:r``, ``nfs=nas.example:/export//team:/team``.

    A folder of an ``nfs`` or ``host_path`` volume comes after two slashes, as one is part of its name. Raises ValueError with
    what is expected.
    """
    expected = f"{MOUNT}, such as work:/workspace, or cephfs=market:/data:r to read only"
    rest, mode = text, "rw"
    for each in ("r", "rw"):
        if rest.endswith(f":{each}"):
            rest, mode = rest.removesuffix(f":{each}"), each
            break
    volume, colon, path = rest.rpartition(":")
    kind, equals, source = volume.partition("=")
    if not equals:
        kind, source = "claim", volume
    if not colon or not path.startswith("/") or not source or kind not in KINDS:
        raise ValueError(expected)
    source, _, folder = source.partition("/" if kind in ("claim", "cephfs") else "//")
    return MountRequest(path=path, sub_path=folder, mode=mode, **{kind: source})


def read_sidecar(text: str) -> SideCarRequest:
    """``proxy`` or ``proxy:port=8081,mode=fast``. Raises ValueError with what is expected."""
    name, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")] if colon else []
    if not name or any(not key or not equals for key, equals, _ in pairs):
        raise ValueError(f"{SIDECAR}, such as proxy:port=8081")
    return SideCarRequest(name=name, params={key: value for key, _, value in pairs})
