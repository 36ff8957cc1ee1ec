"""Bundles that unpack to more than they may, or that break what reads them."""

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tuttilab.sidecar.artifacts import unpack

LARGEST = 4 * 2**20
SMALL_JOB = 64 * 2**20


def tar(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        fill(file)
    return buffer.getvalue()


def tar_of(*members: tuple[str, bytes]) -> bytes:
    def fill(file: tarfile.TarFile) -> None:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))

    return tar(fill)


def raw_header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def record(text: str) -> bytes:
    """One record of a pax header, with its own length before it."""
    body = text.encode()
    length = len(body) + 3
    while length != len(f"{length} ".encode() + body + b"\n"):
        length += 1
    return f"{length} ".encode() + body + b"\n"


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return raw_header(kind, len(records)) + records + bytes(-len(records) % 512) + raw_header(tarfile.REGTYPE, 0)


def unpacked(tmp_path: Path, bundle: bytes, most: int = unpack.MOST_MEMBERS) -> str:
    (tmp_path / "code").mkdir()
    (tmp_path / "bundle").write_bytes(bundle)
    with open(tmp_path / "bundle", "rb") as file:
        return unpack.in_child(file, str(tmp_path / "code"), LARGEST, SMALL_JOB, most)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_bundle_of_any_compression_is_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    content = b"x" * 3 * 2**20

    assert unpacked(tmp_path, pack(tar_of(("pkg/mod.py", content), ("a", b"")))) == ""
    assert (tmp_path / "code" / "pkg" / "mod.py").read_bytes() == content


@pytest.mark.parametrize("name", ["BZhat", "]"])
def test_bundle_is_not_taken_for_a_compressed_one_by_its_first_name(tmp_path: Path, name: str) -> None:
    assert unpacked(tmp_path, tar_of((name, b"x"))) == ""
    assert (tmp_path / "code" / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("bundle", "problem"),
    [
        (gzip.compress(pax(record("comment=" + "a" * 3 * 2**20))), "a header of 314"),
        (
            gzip.compress(raw_header(tarfile.GNUTYPE_LONGNAME, 2**30) + bytes(2**25)),
            "a header of 1073741824 bytes;",
        ),
        (
            gzip.compress(tar_of(("small", b"x"), ("zeros", bytes(5 * 2**20)))),
            "it unpacks to more than 4194304 bytes (limits",
        ),
        (tar_of(*((f"{number}", bytes(2**20)) for number in range(5))), "it unpacks to more than 4194304 bytes"),
        (raw_header(tarfile.REGTYPE, 2**40), "it unpacks to more than 4194304 bytes"),
        (pax(record("size=-1")), ""),
        (pax(record("path=" + "a/" * 3000)), ""),
        (pax(record("GNU.sparse.map=1,2,x")), ""),
        (pax(b"9" * 4000 + b" a=b\n"), ""),
        (raw_header(b"x", 0) * 5000 + raw_header(tarfile.REGTYPE, 0), ""),
        (gzip.compress(tar_of(("a", b"x" * 9999)))[:-30], ""),
        (b"\x1f\x8b" + b"no gzip" * 99, ""),
        (lzma.compress(tar_of(("a", bytes(range(256)) * 99)))[:90], ""),
        (b"BZh9" + b"x" * 999, ""),
    ],
    ids=range(14),
)
def test_bomb_is_told_and_leaves_nothing(tmp_path: Path, bundle: bytes, problem: str) -> None:
    said = unpacked(tmp_path, bundle)

    assert said
    assert problem in said
    assert said.isprintable()
    assert list((tmp_path / "code").iterdir()) == []


def test_members_have_a_number(tmp_path: Path) -> None:
    many = raw_header(tarfile.DIRTYPE, 0, "same") * 11

    assert unpacked(tmp_path, many, most=10) == "more than 10 files and folders"


def test_memory_of_a_small_job_is_not_left(tmp_path: Path) -> None:
    """Attributes that each member would get a copy of."""
    records = b"".join(record(f"k{number}=v") for number in range(40_000))
    members = raw_header(tarfile.DIRTYPE, 0, "same") * 2000

    assert "it takes more than its 192 MiB of memory" in unpacked(tmp_path, pax(records, b"g") + members)
