"""The file in which a job says how many workers it can use: whatever lies there, a sidecar goes on."""

import os
from pathlib import Path

import pytest

from tuttilab.sidecar.wish import LONGEST, VARIABLE, Wish, of_env

pytestmark = pytest.mark.feature("C01")


def test_a_number_is_told_once(tmp_path: Path) -> None:
    wish = Wish(str(tmp_path / "workers"))
    assert (wish.look(), wish.offers) == (False, {})
    (tmp_path / "workers").write_text("3\n")
    assert (wish.look(), wish.offers) == (True, {"workers": "3"})
    assert not wish.look()
    (tmp_path / "workers").write_text("")
    assert (wish.look(), wish.offers) == (False, {"workers": "3"})
    (tmp_path / "workers").unlink()
    assert (wish.look(), wish.offers) == (False, {"workers": "3"})


def test_other_text_is_passed_on_short_and_without_what_is_not_seen(tmp_path: Path) -> None:
    wish = Wish(str(tmp_path / "workers"))
    (tmp_path / "workers").write_bytes(b"\x1b]52;c;\x07 two \xff" + b"x" * 1_000_000)
    assert wish.look()
    assert len(wish.offers["workers"]) == LONGEST
    assert wish.offers["workers"].isprintable()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("7")
    for make in (
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(tmp_path / "secret"),
        lambda path: path.symlink_to("/dev/zero"),
    ):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        make(place)
        wish = Wish(str(place))
        assert (wish.look(), wish.offers) == (False, {})


def test_only_who_has_a_file_looks() -> None:
    assert of_env({}) is None
    assert of_env({VARIABLE: "/somewhere/workers"}) is not None
