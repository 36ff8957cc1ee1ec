"""Reading what a pod used: only the sidecar's own record counts, whatever the job wrote in its place."""

import json
import os
from pathlib import Path

import pytest

from tuttilab.scheduler.clusters.base import Usage
from tuttilab.scheduler.clusters.kept.usage import read_usage
from tuttilab.sidecar.records import USAGE

GOOD = {"started_at": 100.0, "points": [[1.0, 0.5, 10], [2.0, 1.5, 20]], "cpu_s": 2.0, "peak_bytes": 30}


def put(folder: Path, body: str) -> None:
    (folder / USAGE).parent.mkdir(exist_ok=True)
    (folder / USAGE).write_text(body)


def test_record_of_the_sidecar(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(GOOD))

    assert read_usage(tmp_path) == Usage(100.0, ((1.0, 0.5, 10), (2.0, 1.5, 20)), 2.0, 30)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "[" * 50_000,
        json.dumps(GOOD | {"points": [[2.0, 1, 1], [1.0, 1, 1]]}),
        json.dumps(GOOD | {"points": [[1.0, "x", 1]]}),
        json.dumps(GOOD | {"points": [[1.0, -1, 1]]}),
        json.dumps(GOOD | {"points": [[float(i), 1, 1] for i in range(1000)]}),
        json.dumps(GOOD | {"cpu_s": float("nan")}),
        json.dumps(GOOD | {"peak_bytes": True}),
        json.dumps(GOOD | {"peak_bytes": 2**80}),
        json.dumps({"points": []}),
        json.dumps(GOOD) + " " * 100_000,
    ],
)
def test_anything_else_is_no_record(tmp_path: Path, body: str) -> None:
    put(tmp_path, body)

    assert read_usage(tmp_path) is None


def test_fifo_folder_and_link_are_no_record(tmp_path: Path) -> None:
    for name in ("fifo", "folder", "link", "none"):
        (tmp_path / name / "usage").mkdir(parents=True)
    os.mkfifo(tmp_path / "fifo" / USAGE)
    (tmp_path / "folder" / USAGE).mkdir()
    (tmp_path / "secret").write_text(json.dumps(GOOD))
    (tmp_path / "link" / USAGE).symlink_to(tmp_path / "secret")

    assert [read_usage(tmp_path / name) for name in ("fifo", "folder", "link", "none")] == [None] * 4
