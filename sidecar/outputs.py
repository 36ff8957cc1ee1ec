"""Keeps the declared outputs after the main command has ended: copies them to the artifact store and lists them beside the results.

The list ``RESULT_DIR/.outputs.json`` is ``{name: {"artifact": sha256, "size": bytes, "sha256": sha256}}``. It is
complete before the pod's terminal record is written, so whoever reads the record finds the outputs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from tuttilab.sidecar import records
from tuttilab.sidecar.context import artifact_path, path_below, store_folder
from tuttilab.sidecar.protocol import OUTPUT_LOST, OUTPUT_MISSING

LIST = ".outputs.json"
_BLOCK = 2**20


def keep(plan: Mapping[str, Any]) -> tuple[dict[str, str], str, str]:
    """Keeps every declared output; returns artifact ids by name, and the reason and message of a failure, "" and "" without one.

    A missing file counts on rank 0 only: every rank runs the same command, and usually one of them writes the model.
    """
    kept: dict[str, dict[str, object]] = {}
    missing: list[str] = []
    lost: list[str] = []
    result: str = plan["dirs"]["result"]
    for output in plan["outputs"]:
        name, path = output["name"], path_below(result, output["path"])
        if path is None:
            lost.append(f"output {name}: {output['path']} is not below RESULT_DIR")
            continue
        try:
            kept[name] = _keep_file(plan, path)
        except FileNotFoundError:
            if plan["rank"] == 0 and not output["is_optional"]:
                missing.append(f"output {name}: there is no {output['path']} in RESULT_DIR")
        except (OSError, ValueError) as error:
            lost.append(f"output {name}: {output['path']} cannot be kept ({error})")
    try:
        records.write(f"{result}/{LIST}", kept)
    except OSError as error:
        lost.append(f"the list of outputs cannot be written ({error})")
    reason = OUTPUT_LOST if lost else OUTPUT_MISSING if missing else ""
    return {name: str(each["artifact"]) for name, each in kept.items()}, reason, "; ".join(lost + missing)


def _keep_file(plan: Mapping[str, Any], path: str) -> dict[str, object]:
    import hashlib

    # Without O_NONBLOCK a FIFO in place of the file would block the flush for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file; keep a directory as one tar file")
    with open(descriptor, "rb") as source:
        if plan["artifacts_url"].startswith("http"):
            from tuttilab.sidecar import http_store

            artifact, sent = http_store.send(plan, source)
            return {"artifact": artifact, "size": sent, "sha256": artifact}
        folder = store_folder(plan["artifacts_url"])
        os.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{os.getpid()}.new"
        digest, size = hashlib.sha256(), 0
        try:
            with open(temporary, "wb") as copy:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
                    copy.write(block)
                copy.flush()
                os.fsync(copy.fileno())
            target = artifact_path(folder, digest.hexdigest())
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(temporary, target)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
    records.sync_folder(os.path.dirname(target))
    return {"artifact": digest.hexdigest(), "size": size, "sha256": digest.hexdigest()}
