"""Outputs: what is kept, what counts as missing, and what is refused."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tuttilab.sidecar.artifacts import outputs

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


@pytest.mark.parametrize(("rank", "is_optional"), [(0, False), (0, True), (1, False)])
def test_a_store_that_is_gone_is_no_file_that_is_missing(tmp_path: Path, rank: int, is_optional: bool) -> None:
    made = plan(tmp_path, ("model", "model.pt"), rank=rank, is_optional=is_optional) | {"artifacts_url": "file:///proc/none/store"}
    (tmp_path / "result" / "model.pt").write_bytes(b"weights")

    kept, reason, message = outputs.keep(made)
    assert (kept, reason) == ({}, "OutputLost")
    assert message.startswith("output model: model.pt cannot be kept (the artifact folder refused: [Errno 2]"), message


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "link", "linked/secret"])
def test_path_outside_is_refused(tmp_path: Path, path: str) -> None:
    made = plan(tmp_path, ("model", path))
    (tmp_path / "secret").write_text("x")
    (tmp_path / "result" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "result" / "linked").symlink_to(tmp_path)

    assert outputs.keep(made) == ({}, "OutputLost", f"output model: {path} is not below RESULT_DIR")


@pytest.mark.parametrize("target", ["model-3.pt", "{result}/model-3.pt", "sub/../model-3.pt", "sub/back"])
def test_link_to_another_file_in_the_folder_is_followed(tmp_path: Path, target: str) -> None:
    made = plan(tmp_path, ("model", "latest"))
    result = tmp_path / "result"
    (result / "model-3.pt").write_bytes(b"weights")
    (result / "sub").mkdir()
    (result / "sub" / "back").symlink_to("../model-3.pt")
    (result / "latest").symlink_to(target.format(result=result))

    assert outputs.keep(made) == ({"model": MODEL}, "", "")


def test_links_in_a_circle_are_lost(tmp_path: Path) -> None:
    made = plan(tmp_path, ("model", "a"))
    (tmp_path / "result" / "a").symlink_to("b")
    (tmp_path / "result" / "b").symlink_to("a")

    kept, reason, message = outputs.keep(made)

    assert (kept, reason) == ({}, "OutputLost")
    assert "symbolic links" in message


@pytest.mark.parametrize("is_link", [True, False])
def test_nothing_is_read_or_written_where_a_job_put_a_link_in_place_of_the_folder(tmp_path: Path, is_link: bool) -> None:
    made = plan(tmp_path, ("model", "secret"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("x")
    (tmp_path / "result").rmdir()
    if is_link:
        (tmp_path / "result").symlink_to(tmp_path / "elsewhere")

    kept, reason, message = outputs.keep(made)

    assert (kept, reason) == ({}, "OutputLost")
    assert message.startswith("outputs: RESULT_DIR was removed or replaced")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["secret"]


def test_list_of_outputs_goes_through_no_link(tmp_path: Path) -> None:
    made = plan(tmp_path, ("model", "model.pt"))
    (tmp_path / "result" / "model.pt").write_bytes(b"weights")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "result" / ".outputs.json").symlink_to(tmp_path / "mine")

    assert outputs.keep(made)[1] == ""
    assert (tmp_path / "mine").read_text() == "mine"
    assert "model" in json.loads((tmp_path / "result" / ".outputs.json").read_text())


def test_outputs_have_a_number_of_bytes_together(tmp_path: Path) -> None:
    made = plan(tmp_path, ("model", "model.pt"), ("more", "more.pt")) | {"output_bytes": 10}
    for name in ("model.pt", "more.pt"):
        (tmp_path / "result" / name).write_bytes(b"weights")

    kept, reason, message = outputs.keep(made)

    assert (kept, reason) == ({"model": MODEL}, "OutputLost")
    assert message.startswith(
        "output more: more.pt is too large; the outputs of a pod may have 10 bytes together (limits.output_by"
    )
    assert [path.name for path in (tmp_path / "store").iterdir()] == [MODEL[:2]]


def test_outputs_are_not_without_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MOST_NAMES", 2)
    made = plan(tmp_path, *((f"o{number}", "model.pt") for number in range(3)))
    (tmp_path / "result" / "model.pt").write_bytes(b"weights")

    kept, reason, message = outputs.keep(made)

    assert (len(kept), reason) == (2, "OutputLost")
    assert message == "outputs: 3 are declared and at most 2 are kept; put files into one tar file"


def test_empty_space_in_a_file_takes_no_room_in_the_store(tmp_path: Path) -> None:
    made = plan(tmp_path, ("model", "model.pt"))
    with open(tmp_path / "result" / "model.pt", "wb") as file:
        file.truncate(32 * 2**20)
        file.seek(17 * 2**20 + 5)
        file.write(b"weights")
    digest = hashlib.sha256((tmp_path / "result" / "model.pt").read_bytes()).hexdigest()

    assert outputs.keep(made) == ({"model": digest}, "", "")
    stored = tmp_path / "store" / digest[:2] / digest
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == digest
    assert stored.stat().st_blocks * 512 <= 4 * 2**20


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
