"""Notes for the next kernel: written before an operation, gone with the cell, found when the kernel is dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuttilab.magics.spark.state import CellNote, Left, SessionNote, orphaned_cells, remove_entry, state_directory, take_over


def note(directory: Path) -> CellNote:
    return CellNote(directory, "cell-1", "default", "job-1", "session-1", "df", "pandas", "select 1")


def test_a_running_cell_is_no_left_over(tmp_path: Path) -> None:
    cell = note(tmp_path)
    cell.add("op-1", True)
    assert cell.path.stat().st_mode & 0o777 == 0o600
    assert orphaned_cells(tmp_path) == []
    cell.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_kernels_cell_is_found_with_its_operations(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tuttilab.magics.spark.state import CellNote\n"
        "cell = CellNote(Path(sys.argv[1]), 'cell-1', 'default', 'job-1', 'session-1', 'df', 'pandas', 'select 1')\n"
        "cell.add('op-1', False)\n"
        "cell.add('op-2', True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=30)
    (entry,) = orphaned_cells(tmp_path)
    assert entry.operations == (("op-1", False), ("op-2", True))
    assert (entry.session, entry.job_id, entry.session_id, entry.var, entry.how) == (
        "default", "job-1", "session-1", "df", "pandas",
    )  # fmt: skip
    remove_entry(tmp_path, entry)
    assert orphaned_cells(tmp_path) == []


def test_another_process_under_the_same_number_does_not_count_as_the_kernel(tmp_path: Path) -> None:
    cell = note(tmp_path)
    cell.add("op-1", True)
    body = json.loads(cell.path.read_text())
    cell.path.write_text(json.dumps(body | {"process_started": body["process_started"] + 1}))
    assert [entry.pid for entry in orphaned_cells(tmp_path)] == [os.getpid()]


def test_a_note_that_cannot_be_read_now_stays(tmp_path: Path) -> None:
    (tmp_path / "loop.json").symlink_to("loop.json")

    assert orphaned_cells(tmp_path) == []
    assert (tmp_path / "loop.json").is_symlink()


def test_unreadable_and_old_notes_are_removed(tmp_path: Path) -> None:
    cell = note(tmp_path)
    cell.add("op-1", True)
    cell.path.write_text(json.dumps(json.loads(cell.path.read_text()) | {"started_at": 0.0}))
    (tmp_path / "x.json").write_text("{")
    assert orphaned_cells(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_state_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTTILAB_STATE_DIR", str(tmp_path))
    assert state_directory() == tmp_path / "spark-cells"
    assert state_directory().stat().st_mode & 0o777 == 0o700


KILLED = """
import os, signal, sys
from pathlib import Path
from tuttilab.magics.spark.state import SessionNote
note = SessionNote(Path(sys.argv[1]), "a.ipynb", "default", "job-1", 1, "session-1")
note.write()
note.write(["mine", "other"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False, timeout=150)


def test_a_session_of_a_killed_kernel_goes_to_one_kernel_of_its_notebook(tmp_path: Path) -> None:
    killed(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert take_over(tmp_path, "b.ipynb", "default", "job-1", 1) is None
    assert take_over(tmp_path, "a.ipynb", "wide", "job-2", 1) is None
    assert take_over(tmp_path, "a.ipynb", "default", "job-1", 1) == Left("session-1", ("mine", "other"))
    assert take_over(tmp_path, "a.ipynb", "default", "job-1", 1) is None
    assert list(tmp_path.iterdir()) == []


def test_a_session_that_was_started_again_has_nothing_to_take_over(tmp_path: Path) -> None:
    killed(tmp_path)
    assert take_over(tmp_path, "a.ipynb", "default", "job-1", 2) is None
    assert list(tmp_path.iterdir()) == []


def test_a_session_that_a_living_kernel_holds_is_left_to_it(tmp_path: Path) -> None:
    note = SessionNote(tmp_path, "a.ipynb", "default", "job-1", 1, "session-1")
    note.write(["mine"])
    assert take_over(tmp_path, "a.ipynb", "default", "job-1", 1) is None
    assert take_over(tmp_path, "a.ipynb", "default", "job-2", 1) is None
    note.remove()
    (tmp_path / "x.json").write_text("{")
    assert take_over(tmp_path, "a.ipynb", "default", "job-1", 1) is None
    assert list(tmp_path.iterdir()) == []
