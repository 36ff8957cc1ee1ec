"""Container images made from files of this machine, in Python alone: no registry, no root, no container tool.

`pause` and `busybox` have one static program; `python` has the interpreter that runs the tests, so that what was pickled by the one
is read by the other. They are made once, into the cache, as OCI layouts in a tar that `ctr images import` takes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tests.kube.tools import build

PAUSE, BUSYBOX, PYTHON = "localhost/pause:1", "localhost/busybox:1", "localhost/python:1"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
ACCOUNTS = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
NO_NEED = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "dist-packages", "_tkinter"}


@dataclass(frozen=True)
class Link:
    target: str


Content = Path | bytes | Link | None
"""Of one name in an image: a file of this machine, bytes, a symbolic link, or a folder."""


def layer(entries: Iterable[tuple[str, Content]], out: Path) -> None:
    """Everything belongs to root and may be read and run by all. The first of two entries with one name counts."""
    seen: set[str] = set()
    with tarfile.open(out, "w") as tar:
        for name, content in entries:
            name = name.lstrip("/")
            for parent in reversed(PurePosixPath(name).parents):
                if str(parent) != ".":
                    _add(tar, seen, str(parent), None)
            _add(tar, seen, name, content)


def _add(tar: tarfile.TarFile, seen: set[str], name: str, content: Content) -> None:
    if name in seen:
        return
    seen.add(name)
    info = tarfile.TarInfo(name)
    info.mode = 0o755
    if content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        tar.addfile(info)
    elif isinstance(content, Link):
        info.type, info.linkname = tarfile.SYMTYPE, content.target
        tar.addfile(info)
    elif isinstance(content, bytes):
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    else:
        # Its time stays: what Python compiled beforehand is for the source of that time.
        status = content.stat()
        info.size, info.mtime = status.st_size, int(status.st_mtime)
        with content.open("rb") as file:
            tar.addfile(info, file)


def image(out: Path, reference: str, layers: Sequence[Path], config: Mapping[str, Any]) -> None:
    """``config``: as in the OCI image specification, such as Cmd, Entrypoint and Env."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    parts = [blob(path.read_bytes(), LAYER_TYPE) for path in layers]
    described = {
        "architecture": ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [part["digest"] for part in parts]},
    }
    configured = blob(json.dumps(described).encode(), CONFIG_TYPE)
    listed = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": configured, "layers": parts}
    manifest = blob(json.dumps(listed).encode(), MANIFEST_TYPE)
    tag = reference.rsplit(":", 1)[1]
    manifest["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag}
    index = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    with tarfile.open(out, "w") as tar:
        for name, data in [*files.items(), *((f"blobs/sha256/{digest}", data) for digest, data in blobs.items())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def busybox_files() -> Iterator[tuple[str, Content]]:
    program = shutil.which("busybox")
    assert program is not None, "a test that needs images says so: @pytest.mark.tier('real-pods')"
    yield "bin/busybox", Path(program).resolve()
    for name in subprocess.check_output([program, "--list"], text=True, timeout=30).split():
        yield f"bin/{name}", Link("busybox")
    yield "tmp", None
    yield "etc/passwd", ACCOUNTS
    yield "etc/group", b"root:x:0:\nnogroup:x:65534:\n"
    yield "etc/nsswitch.conf", b"hosts: files dns\n"


def python_files() -> Iterator[tuple[str, Content]]:
    """The interpreter and its standard library below /usr/local, and the shared libraries that they need."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = Path(sys.executable).resolve()
    yield f"usr/local/bin/{version}", program
    for name in ("python3", "python"):
        yield f"usr/local/bin/{name}", Link(version)
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
    compiled = [program]
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in NO_NEED and not name.startswith("config-")]
        for name in names:
            path = Path(folder) / name
            if name.endswith((".opt-1.pyc", ".opt-2.pyc", ".a")) or name.partition(".")[0] in NO_NEED or not path.is_file():
                continue
            yield f"usr/local/lib/{version}/{path.relative_to(library)}", path
            if ".so" in path.suffixes:
                compiled.append(path)
    for path in sorted(shared_libraries(compiled)):
        yield str(path), path
    zones = Path("/usr/share/zoneinfo")
    for path in zones.rglob("*") if zones.is_dir() else ():
        if path.is_file():
            yield str(path), path


def shared_libraries(programs: Iterable[Path]) -> set[Path]:
    """With the loader, under the names that the programs ask for."""
    found: set[Path] = set()
    for program in programs:
        said = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=30).stdout
        words = (word for line in said.splitlines() for word in line.split())
        found |= {Path(word) for word in words if word.startswith("/") and os.path.isfile(word)}
    return found


def made() -> list[Path]:
    """The images as files; made now when they are not in the cache. The order is that in which a node needs them."""
    folder = build.cache() / "images" / _key()
    names = ("pause", "busybox", "python")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as place:
            _make(Path(place))
            try:
                (Path(place) / "images").rename(folder)
            except OSError:  # another process was first
                if not folder.exists():
                    raise
    return [folder / f"{name}.tar" for name in names]


def _make(place: Path) -> None:
    out = place / "images"
    out.mkdir()
    layer(busybox_files(), place / "busybox")
    layer(python_files(), place / "python")
    path = "PATH=/usr/local/bin:/bin"
    image(out / "busybox.tar", BUSYBOX, [place / "busybox"], {"Cmd": ["/bin/sh"], "Env": [path]})
    image(out / "pause.tar", PAUSE, [place / "busybox"], {"Entrypoint": ["/bin/sleep", "2147483647"], "Env": [path]})
    image(out / "python.tar", PYTHON, [place / "busybox", place / "python"], {"Cmd": ["python3"], "Env": [path]})


def _key() -> str:
    """Of everything that decides what is in them."""
    busybox = shutil.which("busybox")
    hashed = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode() + sys.base_prefix.encode())
    hashed.update(Path(busybox).read_bytes() if busybox else b"")
    return hashed.hexdigest()[:16]
