"""State files by which a new kernel recovers the running Spark operation of one that died, and joins the session that it had open.

Each Spark cell has one small file, readable by its owner only, from before its first operation until its end, however it
ends. A file whose process is gone belongs to a kernel that died: its operation may still be running.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import platformdirs

# The server keeps an unfetched result for an hour; a file older than a day is useless.
_MAX_AGE_S = 24 * 3600.0


@dataclass(frozen=True)
class Recoverable:
    """A cell of a kernel that died. `operations` in the order of their start, each with whether it gives rows."""

    cell_id: str
    session: str
    job_id: str
    session_id: str
    operations: tuple[tuple[str, bool], ...]
    var: str | None
    how: str
    source: str
    started_at: float
    pid: int
    process_started: float


@dataclass
class CellNote:
    """The file of one running cell."""

    directory: Path
    cell_id: str
    session: str
    job_id: str
    session_id: str
    var: str | None
    how: str
    source: str
    operations: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.directory / f"{self.cell_id}.json"

    def add(self, operation_id: str, gives_result: bool) -> None:
        """Writes the file atomically, before the operation is sent."""
        self.operations.append((operation_id, gives_result))
        entry = Recoverable(
            self.cell_id, self.session, self.job_id, self.session_id, tuple(self.operations),
            self.var, self.how, self.source[:500], time.time(), os.getpid(), _process_started(os.getpid()),
        )  # fmt: skip
        fresh = self.path.with_suffix(".tmp")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(entry), file)
        fresh.replace(self.path)

    def remove(self) -> None:
        """Removes the file: the cell has ended."""
        if self.operations:
            self.path.unlink(missing_ok=True)


def state_directory() -> Path:
    """The directory of the files; created on first use."""
    return _directory("spark-cells")


def _directory(name: str) -> Path:
    base = os.environ.get("TUTTILAB_STATE_DIR") or platformdirs.user_data_dir("tuttilab", appauthor=False)
    directory = Path(base) / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def orphaned_cells(directory: Path) -> list[Recoverable]:
    """The cells of dead kernels, newest first; files that are no notes, and outdated ones, are removed."""
    found: list[Recoverable] = []
    for path in directory.glob("*.json"):
        try:
            text = path.read_bytes()
        except OSError:
            continue  # its cell has just ended, or nobody can tell now
        try:
            body = json.loads(text)
            body["operations"] = tuple((str(name), bool(rows)) for name, rows in body["operations"])
            entry = Recoverable(**body)
        except (ValueError, TypeError, KeyError):
            entry = None
        if entry is None or time.time() - entry.started_at > _MAX_AGE_S:
            with contextlib.suppress(OSError):
                path.unlink()
        elif _process_started(entry.pid) != entry.process_started:
            found.append(entry)
    return sorted(found, key=lambda entry: entry.started_at, reverse=True)


def remove_entry(directory: Path, entry: Recoverable) -> None:
    """Removes the file of an entry that was recovered or cannot be."""
    (directory / f"{entry.cell_id}.json").unlink(missing_ok=True)


def _process_started(pid: int) -> float:
    """The kernel's start in clock ticks since boot, which distinguishes it from a later process with the same pid.

    0 when there is no such process, when it is dead and only not yet reaped, or when the platform does not say.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return 0.0 if fields[0] in "ZX" else float(fields[19])


@dataclass(frozen=True)
class Left:
    """What a kernel that died had open on a session: a new one that joins it finds views and settings as they were."""

    session_id: str
    views: tuple[str, ...]


@dataclass
class SessionNote:
    """The file of one open session of a kernel, which goes with the kernel's own end but stays when it is killed.

    `session`, `job_id` and `attempt` say which one on which server; `notebook` whose kernel may take it over.
    """

    directory: Path
    notebook: str
    session: str
    job_id: str
    attempt: int
    session_id: str
    views: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.directory / f"{self.session_id}.json"

    def write(self, views: Iterable[str] = ()) -> None:
        """Atomically, readable by its owner only."""
        self.views = tuple(views)
        body = {**asdict(self), "pid": os.getpid(), "process_started": _process_started(os.getpid())}
        del body["directory"]
        fresh = self.path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(body, file)
        fresh.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def take_over(directory: Path, notebook: str, session: str, job_id: str, attempt: int) -> Left | None:
    """What a dead kernel of this notebook left on this session, for one taker only. Files about sessions that are gone go."""
    for path in directory.glob("*.json"):
        try:
            body = json.loads(path.read_bytes())
            is_dead = _process_started(int(body["pid"])) != body["process_started"]
            is_same = (body["session"], body["job_id"], body["attempt"]) == (session, job_id, attempt)
            left = Left(str(body["session_id"]), tuple(str(view) for view in body["views"]))
            is_of_notebook, is_of_session = body["notebook"] == notebook, body["session"] == session
        except OSError:
            continue
        except (ValueError, TypeError, KeyError):
            path.unlink(missing_ok=True)
            continue
        if is_dead and is_same and is_of_notebook:
            try:
                path.rename(path.with_suffix(f".{os.getpid()}"))
            except OSError:
                continue  # another kernel was first
            path.with_suffix(f".{os.getpid()}").unlink(missing_ok=True)
            return left
        if is_dead and is_of_session and not is_same:
            path.unlink(missing_ok=True)
    return None


def sessions_directory() -> Path:
    """The directory of the files of open sessions; created on first use."""
    return _directory("spark-sessions")
