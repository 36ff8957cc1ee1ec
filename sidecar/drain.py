"""Keeps the declared outputs when the main command has ended: copied to the artifact store, listed beside the results.

The list ``RESULT_DIR/.outputs.json`` is ``{name: {"artifact": sha256, "size": bytes, "sha256": sha256}}``. It is complete
before the pod's terminal record is written, so whoever sees the end sees the outputs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from tuttilab.sidecar import records
from tuttilab.sidecar.context import inside, place, store_folder
from tuttilab.sidecar.protocol import OUTPUT_LOST, OUTPUT_MISSING

LIST = ".outputs.json"
_BLOCK = 2**20


def keep(plan: Mapping[str, Any]) -> tuple[dict[str, str], str, str]:
    """Keeps every declared output; returns artifact ids by name, and why the run is no success with a sentence, or twice "".

    A file that is absent matters on rank 0 only: every rank runs the same command, and by custom one of them writes the model.
    """
    kept: dict[str, dict[str, object]] = {}
    missing: list[str] = []
    lost: list[str] = []
    result: str = plan["dirs"]["result"]
    for output in plan["outputs"]:
        name, path = output["name"], inside(result, output["path"])
        if path is None:
            lost.append(f"output {name}: {output['path']} is not below RESULT_DIR")
            continue
        try:
            kept[name] = _keep_file(plan["artifacts_url"], path)
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


def _keep_file(artifacts_url: str, path: str) -> dict[str, object]:
    import hashlib

    folder = store_folder(artifacts_url)
    # Without O_NONBLOCK a FIFO in place of the file would hold the flush for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file; keep a directory as one tar file")
    with open(descriptor, "rb") as source:
        os.makedirs(folder, exist_ok=True)
        beside = f"{folder}/.{os.getpid()}.new"
        digest, size = hashlib.sha256(), 0
        try:
            with open(beside, "wb") as copy:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
                    copy.write(block)
                copy.flush()
                os.fsync(copy.fileno())
            target = place(folder, digest.hexdigest())
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(beside, target)
        except BaseException:
            if os.path.exists(beside):
                os.unlink(beside)
            raise
    records.sync_folder(os.path.dirname(target))
    return {"artifact": digest.hexdigest(), "size": size, "sha256": digest.hexdigest()}
