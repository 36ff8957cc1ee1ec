"""Prepares the start of the main command: unpacks the code bundle, fetches the declared inputs, expands the command line.

An artifact is named by the sha256 of its content, so every fetched file is checked against its name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from tuttilab.sidecar import accounts, beneath
from tuttilab.sidecar.protocol import INPUT_MISSING, MOST_UNPACKED_BYTES, WORKDIR_MISSING

INPUT_CORRUPT = "InputCorrupt"
LOCK_S = 600.0
"""How long a member waits for another one that fetches the same input."""
_BLOCK = 2**20


class PreparationFailed(Exception):
    """The main command must not start. ``reason`` becomes the pod's reason; the message names the path."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def expand(text: str, env: Mapping[str, str]) -> str:
    """Expands ``$(NAME)`` as Kubernetes does: an unknown name stays as it is, ``$$(NAME)`` stands for ``$(NAME)``."""

    def value(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        return env.get(match[1], match[0])

    return re.sub(r"\$?\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)", value, text)


def command_line(plan: Mapping[str, Any]) -> list[str]:
    return [expand(argument, plan["env"]) for argument in plan["command"]]


def working_directory(plan: Mapping[str, Any]) -> str:
    """The job's own directory if it names one, else the pod's. Raises PreparationFailed."""
    own: str = plan["dirs"]["work"]
    if not plan["workdir"]:
        return own
    folder = os.path.join(own, expand(plan["workdir"], plan["env"]))
    if not os.path.isdir(folder):
        raise PreparationFailed(WORKDIR_MISSING, f"working directory {folder} is not there.")
    return folder


def needs_preparation(plan: Mapping[str, Any]) -> bool:
    return bool(plan["code"] or plan["inputs"])


def prepare(plan: Mapping[str, Any]) -> None:
    """Fetches code and inputs. Raises PreparationFailed."""
    if plan["code"]:
        _unpack(plan, plan["code"], plan["dirs"]["code"])
    for needed in plan["inputs"]:
        if needed["artifact"]:
            _fetch(plan, needed["artifact"], plan["dirs"]["data"], needed["path"])
        else:
            path = os.path.join(plan["dirs"]["work"], expand(needed["path"], plan["env"]))
            if not os.path.exists(path):
                raise PreparationFailed(INPUT_MISSING, f"input {path} is not there.")


def store_folder(artifacts_url: str) -> str:
    """The directory behind a ``file://`` URL. Raises ValueError for any other."""
    scheme, _, path = artifacts_url.partition("://")
    if scheme != "file" or not path.startswith("/"):
        raise ValueError(f"{artifacts_url!r}: expected an artifact store such as file:///var/lib/tuttilab/artifacts.")
    if "%" in path:
        from urllib.parse import unquote

        return unquote(path)
    return path


def artifact_path(folder: str, artifact: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", artifact):
        raise ValueError(f"{artifact!r} is no artifact: expected the sha256 of its content, 64 hexadecimal digits.")
    return f"{folder}/{artifact[:2]}/{artifact}"


def _open(plan: Mapping[str, Any], artifact: str, wanted_for: str) -> BinaryIO:
    try:
        if plan["artifacts_url"].startswith("http"):
            from tuttilab.sidecar.artifacts import http_store

            return http_store.fetch(plan, artifact)
        return open(artifact_path(store_folder(plan["artifacts_url"]), artifact), "rb")
    except (OSError, ValueError) as error:
        raise PreparationFailed(INPUT_MISSING, f"{wanted_for}: artifact {artifact} cannot be read ({error}).") from error


def _check(file: BinaryIO, artifact: str, wanted_for: str, sink: BinaryIO | None = None) -> None:
    """Reads the whole file, into ``sink`` if there is one, and compares its sha256 with its name."""
    import hashlib

    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
        if sink is not None:
            sink.write(block)
    if digest.hexdigest() != artifact:
        raise PreparationFailed(INPUT_CORRUPT, f"{wanted_for}: artifact {artifact} has another content than its name says.")


def _unpack(plan: Mapping[str, Any], artifact: str, folder: str) -> None:
    from tuttilab.sidecar.artifacts import unpack

    with _open(plan, artifact, "code bundle") as file:
        _check(file, artifact, "code bundle")
        file.seek(0)
        owner = accounts.read(plan.get("owner_account"))
        largest = plan.get("unpacked_bytes", MOST_UNPACKED_BYTES)
        problem = unpack.in_child(file, folder, largest, plan.get("memory", 0), owner=owner)
    if problem:
        raise PreparationFailed(INPUT_CORRUPT, f"code bundle {artifact} cannot be unpacked ({problem}).")


def _fetch(plan: Mapping[str, Any], artifact: str, data: str, path: str) -> None:
    """Fetches to ``path`` below DATA_DIR, which the members of an attempt share: the first one fetches, the others wait for it."""
    wanted_for = f"input {path}"
    steps = os.path.normpath(path).split("/")
    if os.path.isabs(path) or steps[0] in ("..", "."):
        raise PreparationFailed(INPUT_MISSING, f"{wanted_for}: an artifact goes to a relative path below DATA_DIR.")
    try:
        with _lock_beside(data):
            folder = beneath.open_folder(os.path.dirname(data), "/".join((os.path.basename(data), *steps[:-1])), is_made=True)
            try:
                if _is_there(folder, steps[-1]):
                    return
                with _open(plan, artifact, wanted_for) as file, beneath.replacing(folder, steps[-1]) as copy:
                    _check(file, artifact, wanted_for, copy)
            finally:
                os.close(folder)
    except OSError as error:
        raise PreparationFailed(INPUT_MISSING, f"{wanted_for} cannot be written ({error}).") from error


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _lock_beside(folder: str) -> Iterator[None]:
    """Holds the lock of a folder of inputs. It lies beside the folder, where no input can take its name.

    Goes on without it after `LOCK_S`: a job that runs could hold it, and an input that is fetched twice harms nothing.
    """
    import fcntl
    import time

    descriptor = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + LOCK_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
