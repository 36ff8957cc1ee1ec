"""The code bundle: what lies in it, that its bytes are stable, and what --files may name."""

import io
import json
import sys
import tarfile
from pathlib import Path

import cloudpickle
import pytest

from tests.unit.magics.submission.pickles import unpickled
from tuttilab.magics.submission.bundle import build_bundle, cell_source, read_files
from tuttilab.magics.submission.capture import Captured, capture
from tuttilab.magics.submission.names import Brought
from tuttilab.scheduler.domain.errors import BadInput


def members(bundle: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        found = {info.name: tar.extractfile(info) for info in tar}
        return {name: file.read() for name, file in found.items() if file is not None}


def test_it_holds_runner_cell_inputs_and_files() -> None:
    captured = capture({"x": 1})
    bundle = build_bundle(
        "x + 1",
        "<%%submit In[5]>",
        captured,
        out=("m",),
        brought=Brought(("x",), ("x",), "an assignment"),
        map_name="x",
        framework="torch",
        files={"a/b.txt": b"hi"},
        path=("/src",),
    )
    found = members(bundle)
    assert [name for name in found if not name.startswith("tuttilab_cell/")] == [
        "bundle.json", "cell.py", "files/a/b.txt", "inputs.pkl", "runner.py",
    ]  # fmt: skip
    assert {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "cloudpickle": cloudpickle.__version__,
        "cell_name": "<%%submit In[5]>",
        "out": ["m"],
        "framework": "torch",
        "map_index": None,
        "map_name": "x",
        "sources": {},
        "brought": ["x"],
        "value_names": ["x"],
        "ending": "an assignment",
        "path": ["/src"],
        "is_image": False,
        "sizes": dict(captured.sizes),
    } == json.loads(found["bundle.json"])
    assert unpickled(found["inputs.pkl"]) == {"x": 1}
    assert found["cell.py"].splitlines(keepends=True)[1] == b"x + 1\n"
    assert b"RESULT_DIR" in found["tuttilab_cell/main.py"]


def test_lines_are_numbered_as_in_the_editor() -> None:
    assert cell_source("first\nsecond") == "# %%submit\nfirst\nsecond\n"


def test_the_same_cell_gives_the_same_bytes_whatever_the_order_of_files() -> None:
    captured = capture({"x": 1})
    one = build_bundle("x", "c", captured, files={"a": b"1", "b": b"2"})
    two = build_bundle("x", "c", captured, files={"b": b"2", "a": b"1"})
    assert one == two


def test_a_folder_is_sent_below_its_name_without_caches_and_links_that_leave_it(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "m.pyc").write_bytes(b"x")
    (package / "m.py").write_text("y = 1")
    (tmp_path / "secret").write_text("s")
    (package / "link").symlink_to(tmp_path / "secret")
    assert read_files([str(package)]) == {"pkg/m.py": b"y = 1"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^--files nowhere\.py: there is no such file or folder here"):
        read_files(["nowhere.py"])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f.py").write_text("")
    with pytest.raises(BadInput, match=r"a file f\.py is sent already; rename one of the two\.$"):
        read_files([str(tmp_path / "a" / "f.py"), str(tmp_path / "b" / "f.py")])


def test_an_empty_capture_is_an_empty_mapping() -> None:
    assert unpickled(members(build_bundle("1", "c", capture({})))["inputs.pkl"]) == {}
    assert str(Captured()) == ""
