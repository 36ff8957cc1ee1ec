"""Whether a job's results hold something for TensorBoard, whatever the job put there."""

from pathlib import Path

from tuttilab.jupyter_ext.event_files import DEEPEST, MOST_ENTRIES
from tuttilab.jupyter_ext.tensorboard import has_events


def test_an_event_file_some_folders_down_is_found(tmp_path: Path) -> None:
    assert not has_events(tmp_path)
    deep = tmp_path / "logs" / "run-1"
    deep.mkdir(parents=True)
    (deep / "model.pt").touch()
    assert not has_events(tmp_path)
    (deep / "events.out.tfevents.1.host").touch()
    assert has_events(tmp_path)


def test_links_and_folders_of_that_name_are_no_event_files(tmp_path: Path) -> None:
    (tmp_path / "tfevents-folder").mkdir()
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "x.tfevents").symlink_to("/etc/passwd")
    assert not has_events(tmp_path)


def test_the_search_ends_in_a_folder_with_very_many_files_and_far_down(tmp_path: Path) -> None:
    for number in range(MOST_ENTRIES + 1):
        (tmp_path / f"{number:05}").touch()
    inner = tmp_path / "below"
    inner.mkdir()
    (inner / "x.tfevents").touch()
    assert not has_events(tmp_path)
    far = tmp_path / "far"
    below = far.joinpath(*["d"] * (DEEPEST + 1))
    below.mkdir(parents=True)
    (below / "x.tfevents").touch()
    assert not has_events(far)


def test_a_folder_that_is_gone_has_none(tmp_path: Path) -> None:
    assert not has_events(tmp_path / "gone")
