"""Reads `/etc/linkismagic/linkismagic.json`: where results are saved, the size of the session. It takes no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.spark.session import SessionRequest, as_quantity

PATH: Final = "/etc/linkismagic/linkismagic.json"
VARIABLE: Final = "TUTTILAB_LINKISMAGIC_JSON"
"""Another place of the file."""
_MOST_BYTES: Final = 1_000_000
_DEFAULT_WORKSPACE: Final = "/workspace"
_MEMORY: Final = ("spark.driver.memory", "driverMemory", "wds.linkis.rm.client.memory.max")
_CORES: Final = ("spark.driver.cores", "driverCores", "wds.linkis.rm.client.core.max")
_EXECUTORS: Final = ("spark.executor.instances", "numExecutors")
_EXECUTOR_CORES: Final = ("spark.executor.cores", "executorCores")
_EXECUTOR_MEMORY: Final = ("spark.executor.memory", "executorMemory")
_QUEUE: Final = ("wds.linkis.yarnqueue", "wds.linkis.rm.yarnqueue", "spark.yarn.queue", "queue")
_NOT_USED: Final = ("base_url", "Token-Code", "username", "password")


@dataclass(frozen=True)
class Config:
    """`workspace`: root of `-p`, None for the current folder. `request`: the session that cells start. `notes`: what to tell."""

    workspace: Path | None = None
    request: SessionRequest | None = None
    notes: tuple[str, ...] = ()


def read_config(environ: Mapping[str, str] = os.environ) -> Config:
    """The file's settings, or the defaults where there is none. Raises UsageError for a file that cannot be read."""
    path = Path(environ.get(VARIABLE) or PATH)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(
                f"{path} has {path.stat().st_size:,} bytes; a configuration of LinkisMagic has at most {_MOST_BYTES:,}."
            )
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}; expected a JSON object as LinkisMagic has it.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} has a JSON {type(found).__name__}; expected an object as LinkisMagic has it.")
    notes = []
    if any(key in found for key in _NOT_USED):
        given = ", ".join(key for key in _NOT_USED if key in found)
        notes.append(f"{path.name}: {given} not used: jobs and sessions run here, with your own token.")
    root = Path(str(found.get("jupyter_dir", _DEFAULT_WORKSPACE)))
    if "jupyter_dir" in found and not root.is_dir():
        notes.append(f"{path.name}: jupyter_dir {root} is no folder here; -p saves below the current folder.")
    request, left = _request(path, found.get("session_configs", {}))
    if left:
        notes.append(f"{path.name}: session_configs {', '.join(left)} have no counterpart in a session here.")
    return Config(root if root.is_dir() else None, request, tuple(notes))


def _request(path: Path, settings: object) -> tuple[SessionRequest | None, list[str]]:
    """The session asked for, and the settings that have no counterpart."""
    if not isinstance(settings, dict) or not all(isinstance(value, (str, int, float)) for value in settings.values()):
        raise UsageError(f"{path}: session_configs is an object of settings, got {str(settings)[:200]!r}.")
    if not settings:
        return None, []
    texts = {str(key): str(value) for key, value in settings.items()}

    def first(names: tuple[str, ...]) -> str | None:
        return next((texts[name] for name in names if name in texts), None)

    def number(names: tuple[str, ...], what: str) -> int | None:
        text = first(names)
        if text is not None and not (text.isascii() and text.isdigit()):
            raise UsageError(f"{path}: the number of {what} in session_configs is a whole number, got {text!r}.")
        return None if text is None else int(text)

    cores, executors = number(_CORES, "cores"), number(_EXECUTORS, "executors")
    executor_cores, executor_memory = number(_EXECUTOR_CORES, "executor cores"), first(_EXECUTOR_MEMORY)
    memory = first(_MEMORY)
    used = {*_MEMORY, *_CORES, *_QUEUE, *_EXECUTORS}
    if executors:  # the size of executors of which there are none is left over
        used |= {*_EXECUTOR_CORES, *_EXECUTOR_MEMORY}
    else:
        executor_cores = executor_memory = None
    conf = tuple((key, value) for key, value in texts.items() if key.startswith("spark.sql."))
    left = [key for key in texts if key not in used and not key.startswith("spark.sql.")]
    request = SessionRequest(cores, memory and as_quantity(memory), first(_QUEUE), conf=conf)
    if executors:
        request = replace(
            request,
            executors=executors,
            executor_cores=executor_cores,
            executor_memory=executor_memory,
        )
    return request, left
