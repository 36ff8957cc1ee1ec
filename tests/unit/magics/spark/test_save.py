"""`--save`: what paths are taken, and what a file holds afterwards."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.spark.save import Target, target, workspace, write_file

SCHEMA = pa.schema([("n", pa.int64()), ("d", pa.decimal128(10, 2)), ("t", pa.date32())])
BATCH = pa.record_batch([[1, 2], [decimal.Decimal("1.10"), None], [datetime.date(2026, 1, 2)] * 2], schema=SCHEMA)


@pytest.mark.feature("M03")
@pytest.mark.parametrize("text", ["../a.parquet", "x/../../a.parquet", "/etc/a.csv", "a/../b.csv", "link/a.csv", "./"])
def test_paths_out_of_the_workspace_are_refused(tmp_path: Path, text: str) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    with pytest.raises(UsageError, match="leads out of the workspace"):
        target(text, root, False)


@pytest.mark.feature("M03")
def test_a_link_to_a_file_outside_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    (tmp_path / "secret.csv").write_text("x")
    (root / "a.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(UsageError, match="leads out of the workspace"):
        target("a.csv", root, True)


@pytest.mark.feature("M03")
def test_what_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(UsageError, match="exists; add --overwrite to replace it"):
        target("a.csv", tmp_path, False)
    assert target("a.csv", tmp_path, True) == Target(tmp_path / "a.csv", "csv", False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.parqet", "did you mean .parquet?"),
        ("a", "end it in .parquet, .csv or .json, or in / for a folder."),
        ("no/a.csv", "does not exist; make it first"),
    ],
)
def test_other_wrong_paths_say_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        target(text, tmp_path, False)
    assert message in str(caught.value)


def test_a_path_ending_in_a_slash_is_a_folder(tmp_path: Path) -> None:
    assert target("out/", tmp_path, False) == Target(tmp_path / "out", "parquet", True, False)
    assert target("out.csv/", tmp_path, False).format == "csv"


def test_the_workspace_is_the_variable_or_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert workspace({}) == tmp_path.resolve()
    assert workspace({"TUTTILAB_WORKSPACE": "/"}) == Path("/")


@pytest.mark.feature("M03")
def test_each_format_holds_the_rows(tmp_path: Path) -> None:
    for ending in ("parquet", "csv", "json"):
        saved = write_file(Target(tmp_path / f"a.{ending}", ending, False, False), SCHEMA, [BATCH, BATCH])
        assert (saved.rows, saved.bytes) == (4, (tmp_path / f"a.{ending}").stat().st_size)
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet").to_batches()[0].slice(0, 2).equals(BATCH)
    assert pyarrow.csv.read_csv(tmp_path / "a.csv").column("n").to_pylist() == [1, 2, 1, 2]
    lines = [json.loads(line) for line in (tmp_path / "a.json").read_text().splitlines()]
    assert lines[:2] == [{"n": 1, "d": "1.10", "t": "2026-01-02"}, {"n": 2, "d": None, "t": "2026-01-02"}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "a.parquet"]


@pytest.mark.feature("M03")
def test_a_result_that_breaks_off_leaves_the_old_file_and_no_new_one(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield BATCH
        raise RuntimeError("gone")

    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(RuntimeError, match="gone"):
        write_file(Target(tmp_path / "a.csv", "csv", False, True), SCHEMA, broken())
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"


@pytest.mark.feature("M03")
def test_a_file_that_came_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("other")
    with pytest.raises(UsageError, match="came into being meanwhile"):
        write_file(Target(tmp_path / "a.csv", "csv", False, False), SCHEMA, [BATCH])
    assert (tmp_path / "a.csv").read_text() == "other"


def test_csv_names_the_column_that_it_cannot_hold(tmp_path: Path) -> None:
    schema = pa.schema([("tags", pa.list_(pa.string()))])
    with pytest.raises(UsageError, match="CSV cannot hold column tags of type list"):
        write_file(Target(tmp_path / "a.csv", "csv", False, False), schema, [])
