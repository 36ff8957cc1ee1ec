"""What a page shows of a code bundle: the cell, functions, names and files with sizes; and nothing of other bytes."""

import os
import tarfile
from pathlib import Path

import pytest

from tuttilab.magics.submission.bundle import build_bundle
from tuttilab.magics.submission.capture import Captured
from tuttilab.scheduler.usecases.bundles import LONGEST_TEXT, MOST_LISTED, read_bundle


def kept(folder: Path, content: bytes) -> Path:
    path = folder / "artifact"
    path.write_bytes(content)
    return path


def test_cell_names_files_and_functions_of_a_submit(tmp_path: Path) -> None:
    long_name = "data/" + "päth" * 40 + ".csv"
    captured = Captured({"x": 1200, "table": 3_000_000}, (), b"pickle", {"<In[3]>": {12: "    return 1", 9: "def f():"}})
    bundle = build_bundle("f(x)\n", "<%%submit In[5]>", captured, files={"a.py": b"12", long_name: b"345"})

    found = read_bundle(kept(tmp_path, bundle))

    assert found is not None
    assert (found.cell, found.cell_name, found.is_cut, found.size) == ("# %%submit\nf(x)\n", "<%%submit In[5]>", False, len(bundle))
    assert list(found.names.items()) == [("table", 3_000_000), ("x", 1200)]
    assert found.files == {long_name: 3, "a.py": 2}
    assert found.functions == {"<In[3]>": "def f():\n    return 1"}
    assert found.more == 0


def test_very_long_texts_and_very_many_names_are_cut(tmp_path: Path) -> None:
    sizes = {f"n{index}": index for index in range(1000)}
    cell = "x = 1\n" * 100_000

    found = read_bundle(kept(tmp_path, build_bundle(cell, "c", Captured(sizes))))

    assert found is not None
    assert (len(found.cell), found.is_cut) == (LONGEST_TEXT, True)
    assert (len(found.names), found.more) == (MOST_LISTED, 1000 - MOST_LISTED)
    assert next(iter(found.names)) == "n999"


@pytest.mark.parametrize("content", [b"", b"hello", os.urandom(5000), b"\0" * 2048, build_bundle("1", "c", Captured())[:600]])
def test_other_bytes_are_no_bundle(tmp_path: Path, content: bytes) -> None:
    found = read_bundle(kept(tmp_path, content))

    assert found is None or found.cell == ""


def test_lying_headers_are_not_followed(tmp_path: Path) -> None:
    def member(name: str, size: int, body: bytes) -> bytes:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT) + body

    padding = b"\0" * 508
    huge = member("cell.py", 4, b"1+1\n" + padding) + member("files/huge", 2**50, b"")
    listed = member("bundle.json", 4, b"[1]\n" + padding) + member("cell.py", 4, b"1+1\n" + padding)

    first, second = read_bundle(kept(tmp_path, huge)), read_bundle(kept(tmp_path, listed))

    assert first is not None
    assert (first.cell, first.files) == ("1+1\n", {})
    assert second is not None
    assert (second.cell, second.names) == ("1+1\n", {})
    assert read_bundle(tmp_path / "missing") is None
    assert read_bundle(tmp_path) is None
