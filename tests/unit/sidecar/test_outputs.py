"""Outputs: what is kept, what counts as missing, and what is refused."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tuttilab.sidecar import outputs

MODEL = hashlib.sha256(b"weights").hexdigest()


def plan(tmp_path: Path, *outputs: tuple[str, str], rank: int = 0, is_optional: bool = False) -> dict[str, Any]:
    (tmp_path / "result").mkdir(exist_ok=True)
    declared = [{"name": name, "path": path, "is_optional": is_optional} for name, path in outputs]
    return {
        "dirs": {"result": str(tmp_path / "result")},
        "outputs": declared,
        "rank": rank,
        "artifacts_url": tmp_path.as_uri() + "/store",
    }


def test_output_is_in_the_store_and_on_the_list(tmp_path: Path) -> None:
    made = plan(tmp_path, ("model", "model.pt"))
    (tmp_path / "result" / "model.pt").write_bytes(b"weights")

    assert outputs.keep(made) == ({"model": MODEL}, "", "")
    assert (tmp_path / "store" / MODEL[:2] / MODEL).read_bytes() == b"weights"
    listed = json.loads((tmp_path / "result" / ".outputs.json").read_text())
    assert listed == {"model": {"artifact": MODEL, "size": 7, "sha256": MODEL}}
    assert [path.name for path in (tmp_path / "store").iterdir()] == [MODEL[:2]]


@pytest.mark.parametrize(
    ("rank", "is_optional", "reason", "message"),
    [
        (0, False, "OutputMissing", "output model: there is no model.pt in RESULT_DIR"),
        (0, True, "", ""),
        (1, False, "", ""),
    ],
)
def test_absent_file_matters_where_it_was_promised(tmp_path: Path, rank: int, is_optional: bool, reason: str, message: str) -> None:
    assert outputs.keep(plan(tmp_path, ("model", "model.pt"), rank=rank, is_optional=is_optional)) == ({}, reason, message)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "link", "linked/secret"])
def test_path_outside_is_refused(tmp_path: Path, path: str) -> None:
    made = plan(tmp_path, ("model", path))
    (tmp_path / "secret").write_text("x")
    (tmp_path / "result" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "result" / "linked").symlink_to(tmp_path)

    assert outputs.keep(made) == ({}, "OutputLost", f"output model: {path} is not below RESULT_DIR")


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_only_regular_files_are_kept(tmp_path: Path, kind: str) -> None:
    made = plan(tmp_path, ("model", "model"))
    place = tmp_path / "result" / "model"
    place.mkdir() if kind == "folder" else os.mkfifo(place)

    kept, reason, message = outputs.keep(made)

    assert (kept, reason) == ({}, "OutputLost")
    assert message == "output model: model cannot be kept (it is no regular file; keep a directory as one tar file)"


def test_one_that_is_lost_does_not_keep_the_others_back(tmp_path: Path) -> None:
    made = plan(tmp_path, ("gone", "../x"), ("model", "model.pt"))
    (tmp_path / "result" / "model.pt").write_bytes(b"weights")

    kept, reason, _ = outputs.keep(made)

    assert (kept, reason) == ({"model": MODEL}, "OutputLost")


def test_failing_store_is_reported(tmp_path: Path) -> None:
    made = plan(tmp_path, ("model", "model.pt"))
    (tmp_path / "result" / "model.pt").write_bytes(b"weights")
    (tmp_path / "store").write_text("no folder")

    kept, reason, message = outputs.keep(made)

    assert (kept, reason) == ({}, "OutputLost")
    assert message.startswith("output model: model.pt cannot be kept")
