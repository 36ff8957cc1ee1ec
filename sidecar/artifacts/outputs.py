"""Keeps the declared outputs after the main command has ended: copies them to the artifact store and lists them beside the results.

The list ``RESULT_DIR/.outputs.json`` is ``{name: {"artifact": sha256, "size": bytes, "sha256": sha256}}``. It is
complete before the pod's terminal record is written, so whoever reads the record finds the outputs.

RESULT_DIR is the job's: whatever it put there, only regular files in it are read, and nothing outside it is read or written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from tuttilab.sidecar import beneath, records
from tuttilab.sidecar.context import artifact_path, store_folder
from tuttilab.sidecar.protocol import MOST_NAMES, MOST_OUTPUT_BYTES, OUTPUT_LOST, OUTPUT_MISSING

LIST = ".outputs.json"
_BLOCK = 2**20
_EMPTY = bytes(_BLOCK)


class _TooMuch(Exception):
    """The outputs of the pod have more bytes than they may."""


def keep(plan: Mapping[str, Any], beside: str | None = None) -> tuple[dict[str, str], str, str]:
    """Keeps every declared output; returns artifact ids by name, and the reason and message of a failure, "" and "" without one.

    A missing file counts on rank 0 only: every rank runs the same command, and usually one of them writes the model.
    ``beside``: the folder that holds RESULT_DIR, where the caller knows it by something that the job cannot replace.
    """
    root: str = plan["dirs"]["result"]
    try:
        folder = beneath.open_folder(beside or os.path.dirname(root), os.path.basename(root))
    except OSError as error:
        return {}, OUTPUT_LOST, f"outputs: RESULT_DIR was removed or replaced ({error.strerror}), so nothing is kept"
    try:
        return _keep_all(plan, folder, root)
    finally:
        os.close(folder)


def _keep_all(plan: Mapping[str, Any], folder: int, root: str) -> tuple[dict[str, str], str, str]:
    kept: dict[str, dict[str, object]] = {}
    missing: list[str] = []
    lost: list[str] = []
    limit = room = int(plan.get("output_bytes", MOST_OUTPUT_BYTES))
    for number, output in enumerate(plan["outputs"]):
        name = output["name"]
        if number >= MOST_NAMES:
            lost.append(
                f"outputs: {len(plan['outputs'])} are declared and at most {MOST_NAMES} are kept; put files into one tar file"
            )
            break
        try:
            with beneath.open_inside(folder, output["path"], root) as source:
                kept[name] = _keep_file(plan, source, room)
                room -= os.fstat(source.fileno()).st_size
        except beneath.Outside:
            lost.append(f"output {name}: {output['path']} is not below RESULT_DIR")
        except beneath.NotRegular:
            lost.append(f"output {name}: {output['path']} cannot be kept (it is no regular file; keep a directory as one tar file)")
        except FileNotFoundError:
            if plan["rank"] == 0 and not output["is_optional"]:
                missing.append(f"output {name}: there is no {output['path']} in RESULT_DIR")
        except _TooMuch:
            lost.append(
                f"output {name}: {output['path']} is too large; the outputs of a pod may have {limit} bytes together "
                "(limits.output_bytes), so write larger files to shared storage"
            )
        except (OSError, ValueError) as error:
            lost.append(f"output {name}: {output['path']} cannot be kept ({error})")
    try:
        with beneath.replacing(folder, LIST) as file:
            file.write(json.dumps(kept).encode())
    except OSError as error:
        lost.append(f"the list of outputs cannot be written ({error})")
    reason = OUTPUT_LOST if lost else OUTPUT_MISSING if missing else ""
    return {name: str(each["artifact"]) for name, each in kept.items()}, reason, "; ".join(lost + missing)


def _keep_file(plan: Mapping[str, Any], source: BinaryIO, room: int) -> dict[str, object]:
    if os.fstat(source.fileno()).st_size > room:
        raise _TooMuch
    if plan["artifacts_url"].startswith("http"):
        from tuttilab.sidecar.artifacts import http_store

        artifact, sent = http_store.send(plan, source)
        return {"artifact": artifact, "size": sent, "sha256": artifact}
    try:
        return _copy(source, store_folder(plan["artifacts_url"]), room)
    except FileNotFoundError as error:
        # Not what is missing among the outputs: that one is open.
        raise ValueError(f"the artifact folder refused: {error}") from error


def _copy(source: BinaryIO, store: str, room: int) -> dict[str, object]:
    """Copies to the store; what is empty space in the file takes no room there either."""
    import hashlib

    os.makedirs(store, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    temporary = f"{store}/.{os.getpid()}.{os.urandom(8).hex()}.new"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0) as copy:
            while block := source.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if size > room:  # it grows while it is read
                    raise _TooMuch
                if block == _EMPTY:
                    copy.seek(size)
                else:
                    _write(copy, block)
            copy.truncate(size)
            os.fsync(copy.fileno())
        target = artifact_path(store, digest.hexdigest())
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(temporary, target)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    records.sync_folder(os.path.dirname(target))
    return {"artifact": digest.hexdigest(), "size": size, "sha256": digest.hexdigest()}


def _write(file: BinaryIO, block: bytes) -> None:
    while block:
        block = block[file.write(block) :]
