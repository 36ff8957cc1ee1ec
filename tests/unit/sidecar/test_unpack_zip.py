"""Zip files as code bundles: what is unpacked, and what is refused before a byte of it is written."""

import io
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.sidecar.test_unpack import LARGEST, unpacked

LINK = 0o120777
FIFO = 0o010644
DEVICE = 0o020666


def zip_of(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = method, mode << 16
            file.writestr(info, content)
    return buffer.getvalue()


def directory_at(bundle: bytes, number: int = 0) -> int:
    """Where the central directory's entry of a member begins."""
    at = bundle.index(b"PK\1\2")
    for _ in range(number):
        at = bundle.index(b"PK\1\2", at + 4)
    return at


def patched(bundle: bytes, at: int, kind: str, value: int) -> bytes:
    content = bytearray(bundle)
    struct.pack_into(f"<{kind}", content, at, value)
    return bytes(content)


def renamed(bundle: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    return bundle.replace(old, new)


def encrypted() -> bytes:
    bundle = zip_of(("a", b"secret"))
    return patched(patched(bundle, 6, "H", 1), directory_at(bundle) + 8, "H", 1)


def overlapping(count: int) -> bytes:
    """Entries that all stand for the content of the first."""
    bundle = zip_of(("a", b"x" * 2**20))
    at = directory_at(bundle)
    entry, end = bundle[at : at + 47], bundle[at + 47 :]
    entries = [renamed(entry, entry[46:47], bytes([97 + number])) for number in range(count)]
    tail = patched(patched(patched(end, 8, "H", count), 10, "H", count), 12, "I", 47 * count)
    return bundle[:at] + b"".join(entries) + tail


def shifted(members: Sequence[tuple[str, bytes]]) -> bytes:
    """The last entry's content reaches into the directory."""
    bundle = zip_of(*members, method=zipfile.ZIP_STORED)
    at = directory_at(bundle, len(members) - 1)
    return patched(patched(bundle, at + 20, "I", 2000), at + 24, "I", 2000)


def zip64_lie() -> bytes:
    """A size of 2**62 in the extra field, behind the mark that says to look there."""
    bundle = zip_of(("a", b"x"), method=zipfile.ZIP_STORED)
    at = directory_at(bundle)
    extra = struct.pack("<HHQ", 1, 8, 2**62)
    body = patched(patched(bundle, at + 24, "I", 2**32 - 1), at + 30, "H", len(extra))
    body = body[: at + 47] + extra + body[at + 47 :]
    return patched(body, len(body) - 10, "I", 47 + len(extra))


def zip64_end_lie() -> bytes:
    """An end record of zip64 that promises 2**60 members in a directory of 2**60 bytes."""
    bundle = zip_of(("a", b"x"))
    end = bundle.index(b"PK\5\6")
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2**60, 2**60, 2**60, 0)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    return bundle[:end] + record + locator + bundle[end:]


def test_a_zip_is_unpacked_with_folders_and_programs(tmp_path: Path) -> None:
    bundle = zip_of(("pkg/", b""), ("pkg/mod.py", b"x" * 3 * 2**20), ("./a", b""), ("数据.txt", b"data"))

    assert unpacked(tmp_path, bundle) == ""
    found = {str(path.relative_to(tmp_path / "code")) for path in (tmp_path / "code").rglob("*")}
    assert found == {"pkg", "pkg/mod.py", "a", "数据.txt"}
    assert (tmp_path / "code" / "pkg" / "mod.py").read_bytes() == b"x" * 3 * 2**20
    assert (tmp_path / "code" / "pkg" / "mod.py").stat().st_mode & 0o111 == 0


def test_only_the_programs_of_a_zip_can_be_run(tmp_path: Path) -> None:
    assert unpacked(tmp_path, zip_of(("run.sh", b"#!/bin/sh"), mode=0o106775)) == ""

    assert (tmp_path / "code" / "run.sh").stat().st_mode & 0o7777 == 0o755


def test_a_zip_without_members_is_an_empty_bundle(tmp_path: Path) -> None:
    assert unpacked(tmp_path, zip_of()) == ""
    assert list((tmp_path / "code").iterdir()) == []


def test_a_name_of_the_old_character_set_is_taken_for_its_own_length(tmp_path: Path) -> None:
    bundle = renamed(zip_of(("aaaa", b"x"), ("bbbb", b"y"), method=zipfile.ZIP_STORED), b"aaaa", b"\x81" * 4)

    assert unpacked(tmp_path, bundle) == ""
    assert (tmp_path / "code" / "üüüü").read_bytes() == b"x"


NAMES = {
    "above": "../escape",
    "above, later": "a/../../escape",
    "absolute": "/tmp/escape",
    "absolute twice": "//tmp/escape",
    "of another system": "..\\escape",
    "of a drive": "C:escape",
    "of none": "./",
    "the folder above": "..",
}
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "zeros": (lambda: zip_of(("zeros", bytes(5 * 2**20))), "it unpacks to more than 4194304 bytes"),
    "many halves": (lambda: zip_of(*((f"{n}", bytes(2**20)) for n in range(5))), "it unpacks to more than 4194304 bytes"),
    "a size that is less than there is": (
        lambda: patched(b := zip_of(("zeros", bytes(8 * 2**20))), directory_at(b) + 24, "I", 1000),
        "Bad CRC-32",
    ),
    "overlapping entries": (lambda: overlapping(4), "lies in another member"),
    "many overlapping entries": (lambda: overlapping(26), "it unpacks to more than 4194304 bytes"),
    "content in the directory": (lambda: shifted([("a", b"x"), ("b", b"y")]), "after the file's directory begins"),
    "a link": (lambda: zip_of(("x", b"/etc"), mode=LINK), "no regular file"),
    "a file below a link": (lambda: zip_of(("x", b"/etc"), ("x/passwd", b"root"), mode=LINK), "no regular file"),
    "a FIFO": (lambda: zip_of(("x", b""), mode=FIFO), "no regular file"),
    "a device": (lambda: zip_of(("x", b""), mode=DEVICE), "no regular file"),
    "a folder with the kind of a file": (lambda: zip_of(("x/", b""), mode=0o100755), "no regular file"),
    "encrypted": (encrypted, "is encrypted"),
    "bzip2": (lambda: zip_of(("a", b"x"), method=zipfile.ZIP_BZIP2), "compressed by method 12"),
    "lzma": (lambda: zip_of(("a", b"x"), method=zipfile.ZIP_LZMA), "compressed by method 14"),
    "a size of zip64 that is none": (zip64_lie, "it unpacks to more than 4194304 bytes"),
    "a directory of zip64 that is none": (zip64_end_lie, ""),
    "two of a name": (lambda: zip_of(("a", b"x"), ("./a", b"y")), "two members have the same name"),
    "a file and a folder of a name": (lambda: zip_of(("a", b"x"), ("a/b", b"y")), ""),
    "another name before the content": (lambda: (b := zip_of(("aaaa", b"x")))[:30] + b"bbbb" + b[34:], "differ"),
    "a name that ends early": (lambda: renamed(zip_of(("aXetc", b"x")), b"aXetc", b"a\0etc"), "the name 'a\\x00etc'"),
    "cut in its content": (lambda: zip_of(("a", bytes(range(256)) * 99))[:90], ""),
    "cut in its directory": (lambda: zip_of(("a", b"x"))[:-25], ""),
    "broken content": (lambda: renamed(zip_of(("a", b"hello"), method=zipfile.ZIP_STORED), b"hello", b"hullo"), "Bad CRC-32"),
    "no zip but its first bytes": (lambda: b"PK\3\4" + b"x" * 999, "not a zip file"),
    "a directory of which there is none": (
        lambda: patched(b := zip_of(("a", b"x")), len(b) - 6, "I", 2**31),
        "",
    ),
    "thousands of ends": (lambda: zip_of(("a", b"x"))[:20] + b"PK\5\6" * 20_000, ""),
}


@pytest.mark.feature("J06")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    said = unpacked(tmp_path, zip_of(("first", b"x"), (name, b"x")))

    assert said.startswith("the name ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "code"]
    assert list((tmp_path / "code").iterdir()) == []


@pytest.mark.feature("J06")
@pytest.mark.parametrize(("made", "problem"), BOMBS.values(), ids=BOMBS)
def test_a_hostile_zip_is_told_and_leaves_nothing(tmp_path: Path, made: Callable[[], bytes], problem: str) -> None:
    said = unpacked(tmp_path, made())

    assert said
    assert problem in said
    assert said.isprintable()
    assert list((tmp_path / "code").iterdir()) == []


def test_members_of_a_zip_have_a_number(tmp_path: Path) -> None:
    many = zip_of(*((f"{number}", b"") for number in range(11)))

    assert unpacked(tmp_path, many, most=10) == "more than 10 files and folders"


def test_a_zip_of_the_largest_size_is_taken(tmp_path: Path) -> None:
    assert unpacked(tmp_path, zip_of(("a", bytes(LARGEST)))) == ""
