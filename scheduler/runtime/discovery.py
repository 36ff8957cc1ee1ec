"""Finds the control plane of this machine, and starts it when none runs.

Its files are in the state folder: `runtime.json` (0600) has the URL and the token of a running control plane, `token` the token
alone, `control.json` the URL without the token for sidecars, `last.json` what the next start needs from the last one, `control.log`
is its log. Two locks ensure that only one runs: the control plane holds `control.lock` as long as it lives, a process that starts
one holds `start.lock`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import select
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import platformdirs

from tuttilab.scheduler import __version__
from tuttilab.scheduler.domain.errors import BadInput, Conflict, EnvironmentProblem, TuttiError, Unavailable
from tuttilab.scheduler.runtime.processes import ProcessId, boot_id, this_process

START_LIMIT_S: Final = 60.0
"""A start takes about a second; recovery of many live jobs takes longer. After this the error names the log."""

QUIET_S: Final = 3.0
"""A wait for another start that is longer is told."""

OWN_FILES: Final = ("start.lock", "control.lock", "state.db", "secret.key")
"""A folder with one of these was a state folder before."""
SHARED: Final = stat.S_ISVTX | stat.S_IWOTH
"""Mode of a folder that everybody writes to, such as one of temporary files, which may be empty for a moment."""
LARGEST: Final = 2**20
"""Bytes of one of the small files."""

RESTORE: Final = "restore"
"""Work of the process that holds `control.lock`."""

NOTIFY_FD: Final = "TUTTILAB_NOTIFY_FD"
"""Variable with the descriptor of the pipe on which a starting control plane reports `ready` or its error."""

PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,251}")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A running control plane, as it described itself when it was ready."""

    url: str
    token: str = field(repr=False)
    pid: int
    start_time: int
    boot_id: str
    version: str
    state_dir: str
    clusters: tuple[str, ...]
    config: str = ""
    """Path of the configuration file; empty for the built-in configuration."""
    config_digest: str = ""
    is_site: bool = False
    """See `LastRun`."""

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start_time, self.boot_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The last control plane of this state folder: its configuration, and how many live jobs it left behind when it ended."""

    config: str = ""
    live_jobs: int = 0
    was_put_down: bool = False
    """Whether `tuttilab down` ended it, so that the next start does not take its configuration."""
    is_site: bool = False
    """Whether a supervisor runs it (`tuttilab scheduler serve`) or a hub's users share it: then no client starts it."""


@dataclass(frozen=True, slots=True)
class Found:
    """``runtime`` of a running control plane, else None; then ``stale`` describes in one sentence what a former one left behind."""

    runtime: Runtime | None
    stale: str = ""


def state_dir(environ: Mapping[str, str]) -> Path:
    """TUTTILAB_STATE_DIR, else the platform's data folder. Not created here: see `prepare`."""
    given = environ.get("TUTTILAB_STATE_DIR")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_data_dir("tuttilab", appauthor=False))


def runtime_file(state: Path) -> Path:
    return state / "runtime.json"


def token_file(state: Path) -> Path:
    return state / "token"


def url_file(state: Path) -> Path:
    return state / "control.json"


def log_file(state: Path) -> Path:
    return state / "control.log"


def results_folder(state: Path, cluster: str, job_id: str, attempt: int, pod: str) -> Path:
    """RESULT_DIR of a pod of a local cluster. Raises BadInput for names that could lead elsewhere."""
    for name in (cluster, job_id, pod):
        if not PLAIN_NAME.fullmatch(name):
            raise BadInput(f"{name[:80]!r} is no name of a cluster, job or pod; expected letters, digits, dots and dashes.")
    return state / "clusters" / cluster / "pods" / job_id / str(attempt) / pod / "result"


def prepare(state: Path) -> None:
    """Create the state folder with mode 0700.

    Raises EnvironmentProblem when that fails, it belongs to another user, or is a folder of something else that others may read.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = state.stat()
        if status.st_uid != os.geteuid():
            raise EnvironmentProblem(
                f"The state folder {state} belongs to user id {status.st_uid}, not to you ({os.geteuid()}); "
                "set TUTTILAB_STATE_DIR to a folder of your own."
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            if not any(_is_own_file(state / name) for name in OWN_FILES):
                holds = "holds files of something else" if any(state.iterdir()) else "is there for others to write to"
                if mode & SHARED or any(state.iterdir()):
                    raise EnvironmentProblem(
                        f"The state folder {state} is open to others (mode {mode:03o}) and {holds}; "
                        "set TUTTILAB_STATE_DIR to a folder of its own, which may be a new one."
                    )
            state.chmod(0o700)
        if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it is not writable")
    except OSError as error:
        raise EnvironmentProblem(
            f"The state folder {state} cannot be used ({error.strerror}); set TUTTILAB_STATE_DIR to a folder that you may write."
        ) from error


def _is_own_file(path: Path) -> bool:
    """Whether it is a regular file of this user that nobody else may read, as those that we make: others choose names too."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically, with mode 0600."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def write_runtime(runtime: Runtime) -> None:
    state = Path(runtime.state_dir)
    write_private(token_file(state), runtime.token)
    write_private(runtime_file(state), json.dumps(asdict(runtime), indent=1))


def _read(path: Path) -> Any:
    """Decoded JSON of a regular file. Raises OSError, ValueError; never waits, whatever lies there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is no regular file")
        return json.loads(file.read(LARGEST))


def find(state: Path) -> Found:
    """The control plane of this state folder. Never raises for files that a former process left: that is `Found.stale`."""
    path = runtime_file(state)
    try:
        data = _read(path)
        # Unknown fields of a newer version are ignored; callers compare its version.
        known = {item.name: data[item.name] for item in fields(Runtime) if item.name in data}
        runtime = Runtime(**known | {"clusters": tuple(known["clusters"])})
    except FileNotFoundError:
        return Found(None)
    except PermissionError as error:
        raise EnvironmentProblem(f"{path} belongs to another user; set TUTTILAB_STATE_DIR to a folder of your own.") from error
    except (OSError, ValueError, TypeError, KeyError):
        return Found(None, f"{path} is damaged and does not count; the next start replaces it.")
    if runtime.process.is_alive():
        if _is_of_another(state, runtime):
            # Whoever believed it would see the jobs of that one, and end it.
            return Found(None, f"{path} is a copy: the control plane with pid {runtime.pid} is that of {runtime.state_dir}.")
        return Found(runtime)
    return Found(None, f"The control plane with pid {runtime.pid} ended without saying so; {path} does not count any more.")


def _is_of_another(state: Path, runtime: Runtime) -> bool:
    """Whether the folder was copied from one whose control plane runs: then nobody holds the lock of this one.

    A folder that was moved, or is reached by another path, has its lock with it.
    """
    try:
        return not os.path.samefile(runtime.state_dir, state) and not is_held(state / "control.lock")
    except FileNotFoundError:
        return not is_held(state / "control.lock")
    except OSError:
        return False


def read_runtime(state: Path, say: Say | None = None) -> Runtime | None:
    """The running control plane, or None. ``say`` gets a sentence about the files of a former one."""
    found = find(state)
    if found.stale and say is not None:
        say(found.stale)
    return found.runtime


def read_last(state: Path) -> LastRun | None:
    try:
        data = _read(state / "last.json")
        flags = {name: bool(data.get(name, False)) for name in ("was_put_down", "is_site")}
        return LastRun(config=str(data["config"]), live_jobs=int(data["live_jobs"]), **flags)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_last(state: Path, last: LastRun) -> None:
    write_private(state / "last.json", json.dumps(asdict(last)))


def note_leading(state: Path, epoch: int) -> None:
    """Record that this process leads in that epoch."""
    write_private(state / "leading.json", json.dumps({"epoch": epoch, **asdict(this_process())}))


def ended_epoch(state: Path) -> int | None:
    """The epoch of the last leader of this state folder if it has certainly ended; None when unknown, as after a reboot."""
    try:
        data = _read(state / "leading.json")
        leader = ProcessId(int(data["pid"]), int(data["start_time"]), str(data["boot_id"]))
        return int(data["epoch"]) if leader.boot_id == boot_id() and not leader.is_alive() else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def forget_last(state: Path) -> None:
    """After `tuttilab down`: the next start takes the built-in configuration, and can name the one that it does not take."""
    last = read_last(state)
    if last is not None and (last.config or last.is_site):
        write_last(state, LastRun(config=last.config, was_put_down=True, is_site=last.is_site))
    else:
        (state / "last.json").unlink(missing_ok=True)


def config_digest(config: Path | None) -> str:
    """Digest of a configuration file; empty for the built-in one. Raises BadInput when the file cannot be read."""
    if config is None:
        return ""
    try:
        return hashlib.sha256(config.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(
            f"The configuration {config} cannot be read ({error.strerror}); give the path of a tuttilab.yaml."
        ) from error


@contextlib.contextmanager
def locked(path: Path, limit_s: float) -> Iterator[None]:
    """Hold a lock file. Raises Unavailable when another process holds it for longer than ``limit_s``."""
    until = time.monotonic() + limit_s
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Unavailable(
                        f"{path} is held by another process for {limit_s:.0f} s; see {log_file(path.parent)}."
                    ) from None
                time.sleep(0.02)
        yield


def is_held(path: Path) -> bool:
    try:
        with locked(path, 0.0):
            return False
    except Unavailable:
        return True


def ensure_started(
    environ: Mapping[str, str], *, config: Path | None = None, say: Say | None = None, is_asked: bool = False
) -> Runtime:
    """The control plane of this machine; started when none runs. Concurrent callers start only one.

    Without ``config`` a running control plane may have any configuration, and a new one uses that of the last one. A site's is only
    started when that is asked for (``is_asked``), not on the way to something else (Unavailable).

    Raises Conflict when a control plane with another configuration runs, EnvironmentProblem when one of another version runs, and
    the error of a failed start: that of the control plane, or the last lines of its log.
    """
    state = state_dir(environ)
    wanted = config.absolute() if config else None
    digest = config_digest(wanted)
    # The common case takes no lock and creates nothing.
    runtime = find(state).runtime
    if runtime is not None and runtime.process.is_being_killed():
        runtime = _wait_for_end(runtime)
    if runtime is None:
        prepare(state)
        with locked(state / "start.lock", START_LIMIT_S):
            runtime = _wait_for_holder(state, say)
            if runtime is None:
                if not is_asked:
                    _check_may_start(state)
                return _start(environ, state, wanted or _last_config(state, say))
    if runtime.version != __version__:
        raise EnvironmentProblem(
            f"A control plane of tuttilab {runtime.version} runs (pid {runtime.pid}), and this is {__version__}; "
            "run `tuttilab down`, then `tuttilab up`."
        )
    if wanted is not None and runtime.config_digest != digest:
        runs_with = runtime.config or "the built-in configuration"
        same = "an earlier content of " if runtime.config == str(wanted) else ""
        raise Conflict(
            f"The control plane that runs (pid {runtime.pid}) has {same}{runs_with}, not {wanted}; "
            f"run `tuttilab down`, then `tuttilab up --config {wanted}`."
        )
    return runtime


def _wait_for_end(runtime: Runtime) -> Runtime | None:
    """None when it has ended, as a killed process does within milliseconds, unless it waits for a disk."""
    until = time.monotonic() + START_LIMIT_S
    while runtime.process.is_alive():
        if time.monotonic() >= until:
            return runtime
        time.sleep(0.01)
    return None


def _check_may_start(state: Path) -> None:
    """Raises Unavailable for the state folder of a site."""
    last = read_last(state)
    if last is not None and last.is_site:
        raise Unavailable(
            f"The control plane of {state} does not run. It is not started from here, because it ran as a service: "
            "start it as your site does (`tuttilab scheduler serve`), or with `tuttilab up` as a process of your own."
        )


def _last_config(state: Path, say: Say | None) -> Path | None:
    last = read_last(state)
    if last is None or not last.config:
        return None
    if last.was_put_down:
        if say is not None:
            say(
                f"Starting with the built-in configuration. The control plane before had {last.config}; "
                f"`tuttilab down` and `tuttilab up --config {last.config}` take that again."
            )
        return None
    if say is not None:
        say(f"Starting with {last.config}, as the last time; `tuttilab down` forgets it.")
    config_digest(Path(last.config))
    return Path(last.config)


def _wait_for_holder(state: Path, say: Say | None) -> Runtime | None:
    """The running control plane, or None. Waits while the holder of `control.lock` is starting or ending."""
    until = time.monotonic() + START_LIMIT_S
    while True:
        is_busy = is_held(state / "control.lock")
        found = find(state)
        if found.runtime is not None or not is_busy:
            break
        if restoring := being_restored(state):
            raise Unavailable(restoring)
        if time.monotonic() >= until:
            raise Unavailable(_of_holder(state, found))
        if say is not None and time.monotonic() >= until - START_LIMIT_S + QUIET_S:
            say(f"{_holder(state)} starts or ends in {state}: waiting for it, {START_LIMIT_S:.0f} s at most.")
            say = None
        time.sleep(0.05)
    if found.stale and say is not None:
        say(found.stale)
    return found.runtime


def note_holder(state: Path, work: str = "") -> None:
    """Record in `control.lock`, which this process holds, who holds it: nobody else may know when `runtime.json` is gone.

    ``work``: `RESTORE`, or nothing for a control plane.
    """
    with open(os.open(state / "control.lock", os.O_RDWR), "r+") as file:
        file.truncate(file.write(json.dumps([os.getpid(), work])))


def being_restored(state: Path) -> str:
    """A sentence for whoever needs the control plane while its database is replaced; empty when that is not so.

    Meant for when somebody holds `control.lock`.
    """
    pid, work = _noted_holder(state)
    # The note of a restore that has ended stays until the next holder's; somebody who only tests the lock holds it for an instant.
    if work != RESTORE or not Path(f"/proc/{pid}").exists():
        return ""
    return f"The database of {state} is being restored (pid {pid}), and nothing starts there until that has ended; try again then."


def _noted_holder(state: Path) -> tuple[int, str]:
    """Pid and work; 0 where none is known."""
    try:
        pid, work = _read(state / "control.lock")
        return int(pid), str(work)
    except (OSError, ValueError, TypeError):
        return 0, ""


def _holder(state: Path) -> str:
    pid, _ = _noted_holder(state)
    return f"A control plane (pid {pid})" if pid else "A control plane"


def _of_holder(state: Path, found: Found) -> str:
    who, log = _holder(state), log_file(state)
    if not found.stale and runtime_file(state).exists():
        return f"{who} is starting or ending in {state} for {START_LIMIT_S:.0f} s; see {log}."
    pid = who.partition("pid ")[2].rstrip(")")
    end = f"`kill {pid}` ends it" if pid else f"end it (its pid is in {log})"
    return (
        f"{who} holds {state} for {START_LIMIT_S:.0f} s, and {runtime_file(state)}, which says where it is reached, is missing or "
        f"damaged. If it does not become ready (see {log}), {end}: its jobs go on, and the next start takes them over."
    )


def _start(environ: Mapping[str, str], state: Path, config: Path | None) -> Runtime:
    log = log_file(state)
    # -P: the working directory must not be on the import path.
    command = [sys.executable, "-P", "-m", "tuttilab.scheduler.server.serve", *(["--config", str(config)] if config else [])]
    reader, writer = os.pipe()
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            begin = output.tell()
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Independent of the caller's folder: it stays removable, and relative paths do not depend on it.
                    cwd=state,
                    env={**environ, "TUTTILAB_STATE_DIR": str(state), NOTIFY_FD: str(writer)},
                    pass_fds=(writer,),
                    start_new_session=True,
                )
            finally:
                os.close(writer)
        notice = _notice(reader)
    finally:
        os.close(reader)
    if notice is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        raise Unavailable(f"The control plane was not ready after {START_LIMIT_S:.0f} s and was stopped. {_last_lines(log, begin)}")
    runtime = find(state).runtime
    if notice == {"ready": True} and runtime is not None:
        # It outlives this process; if not, it must be reaped.
        threading.Thread(target=process.wait, name="tuttilab control plane", daemon=True).start()
        return runtime
    exit_code = process.wait()
    if "type" in notice:
        raise _error_of(str(notice["type"]), str(notice["message"]))
    raise Unavailable(f"The control plane ended while it started (exit code {exit_code}). {_last_lines(log, begin)}")


def _notice(reader: int) -> dict[str, object] | None:
    """The report of the starting process; empty when it ended without one, None on timeout."""
    poll = select.poll()
    poll.register(reader, select.POLLIN | select.POLLHUP)
    if not poll.poll(START_LIMIT_S * 1000):
        return None
    # A report is smaller than an atomic pipe write, so one read returns all of it.
    text = os.read(reader, select.PIPE_BUF)
    return dict(json.loads(text)) if text else {}


def _error_of(kind: str, message: str) -> TuttiError:
    classes: list[type[TuttiError]] = [TuttiError]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    by_type = {cls.type: cls for cls in reversed(classes)}
    return by_type.get(kind, TuttiError)(message)


def _last_lines(log: Path, begin: int) -> str:
    with open(log, "rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()[-8:]
    if not lines:
        return f"Its log {log} says nothing."
    return "\n".join([f"The last lines of {log}:", *(f"  {line}" for line in lines)])
