"""Almost valid archives as code bundles: unpacked below their folder, or refused with nothing left; never more than they may."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attack.mutations import changed_bytes, rounds
from tests.doses import attack_dose
from tuttilab.scheduler.usecases.bundles import read_bundle
from tuttilab.sidecar.artifacts import unpack

ROUNDS = attack_dose("ARCHIVES", suite=8, attack=400)
"""For each archive."""
LARGEST = 2**20
FILES = {
    "cell.py": b"print(1)\n",
    "bundle.json": b'{"cell_name": "a", "sources": {}, "sizes": {"x": 1}}',
    "files/a/b.txt": b"b" * 3000,
}


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, content in {**FILES, "long/" + "n" * 150: b"x"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "cell.py"
        file.addfile(link)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in FILES.items():
            file.writestr(name, content)
        file.writestr(zipfile.ZipInfo("empty/"), b"")
    return buffer.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "tar": tar,
    "gzip": lambda: gzip.compress(tar(), mtime=0),
    "bzip2": lambda: bz2.compress(tar()),
    "xz": lambda: lzma.compress(tar()),
    "zip": zipped,
}


def size_below(folder: Path) -> int:
    """Of all files; each of them, and what each link leads to, lies in the folder."""
    size = 0
    for path in folder.rglob("*"):
        assert path.resolve().is_relative_to(folder), path
        assert path.is_file() or path.is_dir() or path.is_symlink(), path
        size += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    return size


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + 2 * ROUNDS)
@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_almost_valid_archive_stays_in_its_folder_and_its_limits(tmp_path: Path, kind: str, tell: Callable[[str], None]) -> None:
    good, refused = ARCHIVES[kind](), 0
    folder, bundle = tmp_path / "code", tmp_path / "bundle"
    for number, chance in enumerate(rounds(len(kind), ROUNDS)):
        folder.mkdir()
        bundle.write_bytes(changed_bytes(good, chance) if number else good)
        with open(bundle, "rb") as file:
            problem = unpack.in_child(file, str(folder), LARGEST, 64 * 2**20, 50)

        assert size_below(folder) <= LARGEST, f"round {number}"
        assert problem.isprintable(), f"round {number}"
        assert not problem or not os.listdir(folder), f"round {number}: {problem}"
        assert sorted(os.listdir(tmp_path)) == ["bundle", "code"], f"round {number}"
        read_bundle(bundle)
        assert number or not problem
        refused += bool(problem)
        _remove(folder)
    assert 0 < refused < ROUNDS
    tell(f"{ROUNDS} almost valid archives ({kind}), {refused} refused")


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()
