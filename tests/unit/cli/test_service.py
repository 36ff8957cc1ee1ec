"""What `tuttilab scheduler check` and `backup` find before anything starts or is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tuttilab.scheduler.cli.service import scheduler
from tuttilab.scheduler.domain.errors import EnvironmentProblem, NotFound
from tuttilab.scheduler.store.backup import backup


def checked(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    monkeypatch.setenv("TUTTILAB_STATE_DIR", str(folder))
    config = folder / "tuttilab.yaml"
    config.write_text(
        "auth: {key_file: own.key}\nqueues: [{name: root, max: {nvidia.com/gpu: 0, cpu: 8}}]\ndefaults: {queue: root}\n"
    )
    arguments = ["check", "--config", str(config), *options]
    return CliRunner().invoke(scheduler, arguments, catch_exceptions=False, standalone_mode=False).output


def test_a_key_that_the_control_plane_could_not_start_with_is_not_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "own.key"
    with pytest.raises(EnvironmentProblem, match=r"auth\.key_file: .*own\.key cannot be read \(No such file or directory\)"):
        checked(tmp_path, monkeypatch)
    key.write_bytes(b"short")
    with pytest.raises(EnvironmentProblem, match="has 5 bytes"):
        checked(tmp_path, monkeypatch)
    key.write_bytes(b"k" * 64)

    said = checked(tmp_path, monkeypatch)

    assert "is sound" in said
    assert "max 8 CPU, no GPU" in said


def test_a_backup_into_a_folder_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no folder .*/no; make it, or name another file"):
        backup(f"sqlite:///{tmp_path}/state.db", tmp_path / "no" / "backup")

    assert list(tmp_path.iterdir()) == []
