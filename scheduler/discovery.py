"""How a client finds the control plane of this machine and starts it when there is none.

Everything lies in the state folder: `runtime.json` (0600) says where a running control plane listens and with which token,
`token` holds that token alone, `control.json` has the URL without the token for the sidecars, `last.json` is what the next start
must know of the last one, `control.log` is its log. Two locks keep it single: `control.lock` is held by the control plane as long
as it lives, `start.lock` by whoever is starting one.
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
from typing import Final

import platformdirs

from tuttilab.scheduler import __version__
from tuttilab.scheduler.errors import BadInput, Conflict, EnvironmentProblem, TuttiError, Unavailable
from tuttilab.scheduler.processes import ProcessId, boot_id, this_process

START_LIMIT_S: Final = 60.0
"""A start takes about a second; recovery of many live jobs takes longer. After this the caller is told where the log is."""

NOTIFY_FD: Final = "TUTTILAB_NOTIFY_FD"
"""Variable that names the pipe on which the starting control plane says `ready`, or why it is not."""

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

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start_time, self.boot_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The last control plane of this state folder: its configuration, and how many live jobs it left behind when it ended."""

    config: str = ""
    live_jobs: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """``runtime`` of a control plane that runs, else None; then ``stale`` says in one sentence what is left of one that did."""

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
    """Make the state folder, for its owner only. Raises EnvironmentProblem when it cannot be, or is somebody else's."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = state.stat()
        if status.st_uid != os.geteuid():
            raise EnvironmentProblem(
                f"The state folder {state} belongs to user id {status.st_uid}, not to you ({os.geteuid()}); "
                "set TUTTILAB_STATE_DIR to a folder of your own."
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            state.chmod(0o700)
        if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it is not writable")
    except OSError as error:
        raise EnvironmentProblem(
            f"The state folder {state} cannot be used ({error.strerror}); set TUTTILAB_STATE_DIR to a folder that you may write."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only, so that a reader sees the old text or the new one."""
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


def find(state: Path) -> Found:
    """Who runs here. Never raises for what another process left behind: that is `stale`."""
    path = runtime_file(state)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        # Fields that a newer version adds are not ours to understand: its version alone will be compared.
        known = {item.name: data[item.name] for item in fields(Runtime) if item.name in data}
        runtime = Runtime(**known | {"clusters": tuple(known["clusters"])})
    except FileNotFoundError:
        return Found(None)
    except PermissionError as error:
        raise EnvironmentProblem(f"{path} belongs to another user; set TUTTILAB_STATE_DIR to a folder of your own.") from error
    except (OSError, ValueError, TypeError, KeyError):
        return Found(None, f"{path} is damaged and does not count; the next start replaces it.")
    if runtime.process.is_alive():
        return Found(runtime)
    return Found(None, f"The control plane with pid {runtime.pid} ended without saying so; {path} does not count any more.")


def read_runtime(state: Path, say: Say | None = None) -> Runtime | None:
    """The running control plane, None when there is none. What is left of a dead one is told to ``say``."""
    found = find(state)
    if found.stale and say is not None:
        say(found.stale)
    return found.runtime


def read_last(state: Path) -> Last | None:
    try:
        data = json.loads((state / "last.json").read_text(encoding="utf-8"))
        return Last(config=str(data["config"]), live_jobs=int(data["live_jobs"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_last(state: Path, last: Last) -> None:
    write_private(state / "last.json", json.dumps(asdict(last)))


def note_leading(state: Path, epoch: int) -> None:
    """This process leads in that epoch."""
    write_private(state / "leading.json", json.dumps({"epoch": epoch, **asdict(this_process())}))


def ended_epoch(state: Path) -> int | None:
    """The epoch in which a process of this state folder led that is certainly gone: it ran since this machine's last start."""
    try:
        data = json.loads((state / "leading.json").read_text(encoding="utf-8"))
        leader = ProcessId(int(data["pid"]), int(data["start_time"]), str(data["boot_id"]))
        return int(data["epoch"]) if leader.boot_id == boot_id() and not leader.is_alive() else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def forget_last(state: Path) -> None:
    (state / "last.json").unlink(missing_ok=True)


def config_digest(config: Path | None) -> str:
    """Tells one configuration from another; empty for the built-in one. Raises BadInput when the file cannot be read."""
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


def ensure_started(environ: Mapping[str, str], *, config: Path | None = None, say: Say | None = None) -> Runtime:
    """The control plane of this machine, started first when none runs. Two callers at once start one.

    Without ``config`` a running one counts whatever its configuration, and a new one takes the configuration that the last one had.
    Raises Conflict when one with another configuration runs, EnvironmentProblem when one of another version does, and the error of
    the start itself: what the control plane refused, or the last lines of its log.
    """
    state = state_dir(environ)
    wanted = config.absolute() if config else None
    digest = config_digest(wanted)
    # The usual case takes no lock and creates nothing.
    runtime = find(state).runtime
    if runtime is None:
        prepare(state)
        with locked(state / "start.lock", START_LIMIT_S):
            runtime = _settled(state, say)
            if runtime is None:
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


def _last_config(state: Path, say: Say | None) -> Path | None:
    last = read_last(state)
    if last is None or not last.config:
        return None
    if say is not None:
        say(f"Starting with {last.config}, as the last time; `tuttilab down` forgets it.")
    config_digest(Path(last.config))
    return Path(last.config)


def _settled(state: Path, say: Say | None) -> Runtime | None:
    """The running one, once whoever holds `control.lock` is either ready or gone: it may be starting, or ending."""
    until = time.monotonic() + START_LIMIT_S
    while True:
        is_busy = is_held(state / "control.lock")
        found = find(state)
        if found.runtime is not None or not is_busy:
            break
        if time.monotonic() >= until:
            raise Unavailable(f"A control plane is starting or ending in {state} for {START_LIMIT_S:.0f} s; see {log_file(state)}.")
        time.sleep(0.05)
    if found.stale and say is not None:
        say(found.stale)
    return found.runtime


def _start(environ: Mapping[str, str], state: Path, config: Path | None) -> Runtime:
    log = log_file(state)
    # -P, because the folder it runs in is no place to import from.
    command = [sys.executable, "-P", "-m", "tuttilab.scheduler.serve", *(["--config", str(config)] if config else [])]
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
                    # Where it was started from must neither be kept busy nor decide what a relative path means.
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
        # It outlives us, but should we outlive it, it must not stay a zombie.
        threading.Thread(target=process.wait, name="tuttilab control plane", daemon=True).start()
        return runtime
    exit_code = process.wait()
    if "type" in notice:
        raise _error_of(str(notice["type"]), str(notice["message"]))
    raise Unavailable(f"The control plane ended while it started (exit code {exit_code}). {_last_lines(log, begin)}")


def _notice(reader: int) -> dict[str, object] | None:
    """What the starting process says on the pipe: empty when it ended without a word, None when it is too slow."""
    poll = select.poll()
    poll.register(reader, select.POLLIN | select.POLLHUP)
    if not poll.poll(START_LIMIT_S * 1000):
        return None
    # A notice is shorter than the pipe's atomic write, so one read has all of it.
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
