"""Fetches the outputs of a job into a folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tuttilab.scheduler.domain.errors import BadInput, TuttiError

if TYPE_CHECKING:
    from tuttilab.scheduler.client.sync_client import Client
    from tuttilab.scheduler.domain.wire import JobView


def download(client: Client, job: JobView, folder: Path) -> list[Path]:
    """Fetch every output of the newest attempt, under its path below RESULT_DIR; of several ranks each below ``rank-N``.

    Returns the files. Nothing that exists is replaced: raises BadInput before anything is fetched.
    """
    pods = [pod for pod in (job.attempts[-1].pods if job.attempts else ()) if pod.outputs]
    paths = _declared_paths(client, job)
    wanted: dict[Path, str] = {}
    for pod in pods:
        below = folder / f"rank-{pod.rank}" if len(pods) > 1 else folder
        for name, artifact in sorted(pod.outputs.items()):
            target = below / paths.get(name, name)
            # Two outputs of one path are one file; what an output is called is then the better name.
            wanted[below / name if target in wanted else target] = artifact
    for target in wanted:
        if target.exists() or target.is_symlink():
            raise BadInput(f"{target} is there already; give another folder, or move it away.")
    try:
        for target, artifact in wanted.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            try:
                client.get_artifact(artifact, part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{error.filename or folder}: it cannot be written ({error.strerror}); give another folder.") from error
    return list(wanted)


def _declared_paths(client: Client, job: JobView) -> dict[str, str]:
    """Where each output lies below RESULT_DIR. Empty where the definition is another's: then names do."""
    try:
        declared = client.definition(job.id).outputs
    except TuttiError:
        return {}
    return {one.name: one.path for one in declared if _is_below(one.path)}


def _is_below(path: str) -> bool:
    """The service has checked it; a file outside of the folder must not be written even so."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts
