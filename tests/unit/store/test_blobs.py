"""Bytes of artifacts in their folder: what is swept of writers that were killed."""

import os
from pathlib import Path

import pytest

from tuttilab.scheduler.store.blobs import STALE_S, Blobs

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("name", "age_s", "is_swept"),
    [
        ("ab/.tmp1x", STALE_S + 1, True),
        (".4711.0a.new", STALE_S + 1, True),
        ("ab/.tmp1x", STALE_S - 1, False),
        ("ab/" + "ab" * 32, STALE_S + 1, False),
        ("elsewhere/.tmp1x", STALE_S + 1, False),
    ],
)
def test_only_a_new_file_that_nobody_writes_is_swept(tmp_path: Path, name: str, age_s: float, is_swept: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (NOW - age_s, NOW - age_s))

    assert Blobs(tmp_path, 1).sweep(NOW) == int(is_swept)
    assert path.exists() != is_swept


def test_what_is_no_file_and_a_folder_that_is_not_there_harm_nobody(tmp_path: Path) -> None:
    (tmp_path / ".folder").mkdir()
    (tmp_path / ".link").symlink_to("/nowhere")

    assert Blobs(tmp_path, 1).sweep(2e12) == 0
    assert Blobs(tmp_path / "none", 1).sweep(2e12) == 0
