"""Images made from the packages of this environment: with a notebook server, as `pip install "tuttilab[lab]" jupyterhub` gives it,
and for the cells of `make demo CLUSTER=kube`.

Their packages are one layer, kept in the cache; the tree itself is another of the servers' image, made anew for each run.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib.metadata
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from tests.kube import images
from tests.kube.product_images import PATH, ROOT, extend
from tests.kube.tools import build

LAB, OTHER_LAB = "localhost/tuttilab-lab:1", "localhost/tuttilab-lab:2"
"""``OTHER_LAB`` has a file /image.txt more."""
LAB_PACKAGES = ("jupyterhub", "jupyterlab", "ipykernel", "tuttilab")
DEMO = "localhost/tuttilab-demo:1"
DEMO_PACKAGES = ("cloudpickle", "pandas", "xgboost-cpu")
NO_NEED = ("jedi/third_party/django-stubs/", "/tests/", "share/jupyterhub/static/components/")
SITE = f"usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
SERVER = b"""#!/usr/local/bin/python3
import sys
from jupyterhub.singleuser import main
sys.exit(main())
"""


def made(place: Path, references: Sequence[str] = (LAB, OTHER_LAB)) -> list[Path]:
    """The images as files below ``place``."""
    base = packages_image(LAB, LAB_PACKAGES, [("usr/local/bin/jupyterhub-singleuser", SERVER)])
    found = []
    for reference in references:
        more = [("image.txt", b"the other one\n")] if reference == OTHER_LAB else []
        folder = place / reference.rpartition(":")[2]
        folder.mkdir(parents=True)
        extend(base, folder, reference, [*more, *tree_files()], PATH)
        found.append(folder / "image.tar")
    return found


def demo() -> Path:
    return packages_image(DEMO, DEMO_PACKAGES)


def packages_image(
    reference: str, packages: Sequence[str], more: Sequence[tuple[str, images.Content]] = (), no_need: Sequence[str] = ()
) -> Path:
    """``no_need``: parts of paths that are left out, beside `NO_NEED`."""
    needed = distributions(packages)
    python = next(path for path in images.made() if path.name == "python.tar")
    hashed = hashlib.sha256(Path(__file__).read_bytes() + python.parent.name.encode() + repr(no_need).encode())
    for name, distribution in sorted(needed.items()):
        hashed.update(f"{name} {distribution.version}\n".encode())
    out = build.cache() / "images" / f"{reference.rpartition('-')[2].partition(':')[0]}-{hashed.hexdigest()[:16]}.tar"
    if not out.exists():
        with tempfile.TemporaryDirectory(dir=out.parent) as place:
            extend(python, Path(place), reference, [*package_files(needed, (*NO_NEED, *no_need)), *more], PATH)
            (Path(place) / "image.tar").rename(out)
    return out


def distributions(packages: Sequence[str]) -> dict[str, importlib.metadata.Distribution]:
    """Those packages and what they require here, without our own."""
    found: dict[str, importlib.metadata.Distribution] = {}
    left = list(packages)
    while left:
        name = left.pop().lower().replace("_", "-").replace(".", "-")
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        for text in found[name].requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("",)):
                left.append(wanted.name)
    found.pop("tuttilab", None)
    return found


def package_files(
    needed: dict[str, importlib.metadata.Distribution], no_need: Sequence[str]
) -> Iterator[tuple[str, images.Content]]:
    """Packages, and what they put beside (share/jupyter); no programs, which name this environment's interpreter."""
    compiled = []
    prefix = Path(sys.prefix).resolve()
    for distribution in needed.values():
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file))).resolve()
            if not path.is_file() or any(part in str(path) for part in no_need):
                continue
            if "site-packages" in path.parts:
                at = path.parts.index("site-packages")
                yield f"{SITE}/{'/'.join(path.parts[at + 1 :])}", path
                if ".so" in path.suffixes:
                    compiled.append(path)
            elif path.is_relative_to(prefix) and path.relative_to(prefix).parts[0] in ("share", "etc"):
                yield f"usr/local/{path.relative_to(prefix)}", path
    for path in sorted(images.shared_libraries(compiled)):
        if not path.is_relative_to(prefix):
            yield str(path), path


def tree_files() -> Iterator[tuple[str, images.Content]]:
    """The packages of this tree as an install would put them, and the switch of its server extension."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    for line in config["options"]["package_dir"].split("\n"):
        if line:
            package, folder = (side.strip() for side in line.split("="))
            for path in sorted((ROOT / folder).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield f"{SITE}/{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}", path
    yield "usr/local/etc/jupyter/jupyter_server_config.d/tuttilab.json", ROOT / "jupyter_ext" / "etc" / "tuttilab.json"
