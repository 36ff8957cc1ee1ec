"""Handles Spark results: shows them, binds them in the form asked for, names them as a view, saves them to a file.

Each result set is fetched once. Without a variable and a file, only the rows that are shown are fetched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet

from tuttilab.magics.shared.parse import Parsed, UsageError
from tuttilab.magics.spark.display import Line, Preview, preview_of, show
from tuttilab.magics.spark.save import Saved, Target, target, workspace, write_file

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import DataFrame, Fetched


AS_DICT: Final = " as dict"
"""After the form, in the note of a cell whose VAR is a dict."""


class Results:
    """The result sets of one cell. `is_line` is for `df = %sparksql …`: the value is wanted, nothing is shown.

    `is_dict`: the value is a dict, whatever the number of results.
    """

    def __init__(self, parsed: Parsed, is_line: bool, is_dict: bool = False) -> None:
        self.is_dict = is_dict
        self.form: str = parsed["as"]
        self.limit: int = parsed["limit"]
        self.view: str | None = parsed["view"]
        self.is_silent: bool = parsed["quiet"] or is_line
        self.is_run = not is_line and self.view is None
        """Whether a result that nobody sees, binds or names is computed all the same: `--quiet` is about what is shown."""
        self.is_wanted = parsed.var is not None or (is_line and parsed.magic == "%sparksql")
        self.target: Target | None = None
        if parsed["save"]:
            self.target = target(parsed["save"], workspace(os.environ), parsed["overwrite"])
        elif parsed["overwrite"]:
            raise UsageError(f"{parsed.magic}: --overwrite belongs to --save PATH, which is missing.")
        self._values: list[Any] = []  # Any: pandas, Arrow, polars or Spark

    def add(self, frame: DataFrame, caption: str, is_last: bool) -> None:
        """Handles one result. `--view` and `--save` apply to the last one. Raises UsageError when that is a command's."""
        if is_last and (self.view is not None or self.target is not None) and not frame.columns:
            raise UsageError("A command has no result, so there is nothing to save or name; end the cell with a query.")
        if is_last and self.view is not None:
            frame.createOrReplaceTempView(self.view)
        if is_last and self.target is not None:
            self._save(frame, self.target)
            if not self.is_wanted:
                return
        if self.is_wanted and self.form != "spark":
            self._fetch_all(frame, caption)
        else:
            self._fetch_shown(frame, caption)

    def add_value(self, value: Any) -> None:  # Any: as above
        """A result that is no table."""
        if value is not None:
            self._values.append(value)

    def value(self) -> Any:  # Any: as above
        """What VAR gets: the result, a list when several statements gave one, None when none did; or the dict of them."""
        if self.is_dict:
            return as_dict(self._values)
        if len(self._values) > 1:
            return self._values
        return self._values[0] if self._values else None

    def _fetch_all(self, frame: DataFrame, caption: str) -> None:
        from tuttilab.magics.spark.connect import fetch

        fetched = fetch(frame)
        if not fetched.schema.fields:
            return  # a command such as CREATE or USE: no result set
        self._values.append(as_form(fetched, self.form))
        if not self.is_silent:
            show(preview_of(fetched.arrow(), self.limit, caption, is_whole=True))

    def _fetch_shown(self, frame: DataFrame, caption: str) -> None:
        if self.is_wanted:
            self._values.append(frame)
        if self.is_silent and (self.is_wanted or not self.is_run):
            return
        from tuttilab.magics.spark.connect import fetch

        fetched = fetch(frame.limit(self.limit + 1))
        if fetched.schema.fields and not self.is_silent:
            show(preview_of(fetched.arrow(), self.limit, caption))

    def _save(self, frame: DataFrame, target: Target) -> None:
        from tuttilab.magics.spark.connect import intervals_as_text

        # In a file an interval would be a bare number, of months or of microseconds, and a variant the bytes of its parts.
        frame = intervals_as_text(frame, frame.schema, is_for_file=True)
        if target.is_directory:
            mode = "overwrite" if target.overwrite else "error"
            options = {"header": "true"} if target.format == "csv" else {}
            frame.write.format(target.format).mode(mode).options(**options).save(target.path.as_uri())
            if not self.is_silent:
                show(Line(f"saved to the folder {target.path}"))
            return
        with rows_of(frame, target.path) as (schema, batches):
            first = _KeepHead(batches, self.limit + 1)
            saved = write_file(target, schema, first)
        if not self.is_silent:
            show(Line(_saved(saved)))
            if not self.is_wanted:
                head = pa.Table.from_batches(first.kept, schema)
                show(Preview(head.slice(0, self.limit), total=saved.rows))


@contextlib.contextmanager
def rows_of(frame: DataFrame, near: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """All rows in order, of any number, without holding them in memory.

    Spark's processes write them beside `near` as Parquet, one file per partition, and we read the files: as a result,
    everything not yet read would lie in the server's heap. Only when Spark has another disk are they fetched as a
    result, which then must fit.
    """
    from tuttilab.magics.spark.connect import arrow_batches, sees_file

    folder = Path(tempfile.mkdtemp(prefix=f".{near.name}.", suffix=".parts", dir=near.parent))
    try:
        probe = folder / "probe.txt"
        probe.write_text("seen")
        if not sees_file(frame, probe):
            yield arrow_batches(frame)
            return
        frame.write.parquet((folder / "rows").as_uri())
        parts = sorted((folder / "rows").glob("part-*.parquet"))
        schema = pyarrow.parquet.read_schema(parts[0]).remove_metadata()
        yield schema, _batches_of(parts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _batches_of(parts: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        # With read-ahead, the library would keep a whole file in memory until it is closed.
        with pyarrow.parquet.ParquetFile(part, pre_buffer=False, buffer_size=1 << 20) as file:
            yield from file.iter_batches()


def as_dict(values: Sequence[Any], first: int = 0) -> dict[str, Any]:  # Any: results in whatever form
    """`{"result0": …}`, as LinkisMagic named them; `first` is the number of the first."""
    return {f"result{number}": value for number, value in enumerate(values, first)}


def as_form(fetched: Fetched, form: str) -> Any:  # Any: the form decides
    """A fetched result as pandas, arrow or polars."""
    if form == "arrow":
        return fetched.arrow()
    if form == "polars":
        try:
            import polars
        except ImportError as error:
            raise UsageError("--as polars needs the package polars: %pip install polars.") from error
        return polars.from_arrow(fetched.arrow())
    return fetched.pandas()


def fetched_form(frame: DataFrame, form: str) -> Any:  # Any: as above
    """All rows of a frame as pandas, arrow or polars."""
    from tuttilab.magics.spark.connect import fetch

    return as_form(fetch(frame), form)


class _KeepHead(Iterator[pa.RecordBatch]):
    """Passes batches on and keeps the first rows for the preview, so that saving costs one execution."""

    def __init__(self, batches: Iterator[pa.RecordBatch], rows: int) -> None:
        self._batches = batches
        self._left = rows
        self.kept: list[pa.RecordBatch] = []

    def __next__(self) -> pa.RecordBatch:
        batch = next(self._batches)
        if self._left > 0:
            self.kept.append(batch.slice(0, self._left))
            self._left -= batch.num_rows
        return batch


def _saved(saved: Saved) -> str:
    size = float(saved.bytes)
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"saved {saved.rows:,} rows ({size:.4g} {unit}) to {saved.path}"
