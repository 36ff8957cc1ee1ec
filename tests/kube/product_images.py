"""The images that the product's own tests need, made from the one with the tests' Python: no registry, no container tool.

`SIDECAR` is what deploy/kubernetes/sidecar.Containerfile describes. `NOTEBOOK` is an image for captured cells: the same Python as
the notebook's, with cloudpickle.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.kube import images
from tests.kube.tools import build

SIDECAR, NOTEBOOK = "localhost/tuttilab-sidecar:1", "localhost/tuttilab-notebook:1"
ROOT = Path(__file__).resolve().parent.parent.parent
PATH = {"Env": ["PATH=/usr/local/bin:/bin"]}


def made() -> list[Path]:
    """The images as files; made now when they are not in the cache."""
    base = next(path for path in images.made() if path.name == "python.tar")
    folder = build.cache() / "images" / f"product-{_key(base)}"
    folder.mkdir(parents=True, exist_ok=True)
    for reference, entries in ((SIDECAR, sidecar_files()), (NOTEBOOK, notebook_files())):
        out = folder / f"{reference.partition('/')[2].partition(':')[0]}.tar"
        if not out.exists():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                extend(base, Path(place), reference, entries, PATH)
                (Path(place) / "image.tar").rename(out)
    return sorted(folder.glob("*.tar"))


def sidecar_files() -> Iterator[tuple[str, images.Content]]:
    """The room `sidecar/`, where the pods' bodies look for it."""
    for path in sorted((ROOT / "sidecar").rglob("*.py")):
        yield f"opt/tuttilab/{path.relative_to(ROOT)}", path


def notebook_files() -> Iterator[tuple[str, images.Content]]:
    found = importlib.util.find_spec("cloudpickle")
    assert found is not None
    assert found.origin is not None
    library = next(iter({name.rpartition("/")[0] for name, _ in images.python_files() if name.endswith("/this.py")}))
    for path in sorted(Path(found.origin).parent.glob("*.py")):
        yield f"{library}/site-packages/cloudpickle/{path.name}", path


def extend(
    base: Path, place: Path, reference: str, entries: Iterable[tuple[str, images.Content]], config: Mapping[str, Any]
) -> None:
    """``place``/image.tar: the image of ``base`` with one more layer."""
    layers = []
    with tarfile.open(base) as tar:

        def blob(digest: str) -> bytes:
            file = tar.extractfile(f"blobs/sha256/{digest.partition(':')[2]}")
            assert file is not None
            return file.read()

        index = tar.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        for number, part in enumerate(manifest["layers"]):
            layers.append(place / f"layer{number}")
            layers[-1].write_bytes(blob(part["digest"]))
    layers.append(place / "own")
    images.layer(entries, layers[-1])
    images.image(place / "image.tar", reference, layers, config)


def _key(base: Path) -> str:
    hashed = hashlib.sha256(Path(__file__).read_bytes() + base.parent.name.encode())
    for _, content in (*sidecar_files(), *notebook_files()):
        assert isinstance(content, Path)
        hashed.update(content.read_bytes())
    return hashed.hexdigest()[:16]
