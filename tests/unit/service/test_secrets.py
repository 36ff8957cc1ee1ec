"""The key that all secrets are derived from: whole or refused, made once, for its owner only."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.service.launch_plans import Secrets


def test_the_key_of_a_folder_is_made_once_and_private(tmp_path: Path) -> None:
    first, second = Secrets.in_folder(tmp_path), Secrets.in_folder(tmp_path)

    assert first == second
    assert len(first.key) == 32
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir()] == [("secret.key", 0o600)]


def test_two_that_make_it_at_once_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: Secrets.in_folder(tmp_path).key, range(8)))

    assert len(keys) == 1


@pytest.mark.parametrize("size", [0, 1, 31])
def test_a_key_that_was_cut_off_is_refused_with_what_to_do(tmp_path: Path, size: int) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(b"k" * size)

    with pytest.raises(EnvironmentProblem, match=rf"secret\.key has {size} bytes; expected the 32 .* Remove it and start again"):
        Secrets.in_folder(tmp_path)
    assert path.read_bytes() == b"k" * size

    path.unlink()
    assert len(Secrets.in_folder(tmp_path).key) == 32


def test_a_key_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "secret.key").mkdir()

    with pytest.raises(EnvironmentProblem, match=r"secret\.key cannot be read or made"):
        Secrets.in_folder(tmp_path)
