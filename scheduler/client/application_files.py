"""The files of a Spark application on their way to containers, which do not see the submitter's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tuttilab.scheduler.client.environment import LOCAL
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.wire import ClusterView

FOLDER: Final = "application"
"""Below the pods' DATA_DIR."""
LISTS: Final = ("py_files", "jars", "archives")


def goes_to_containers(request: JobRequest, clusters: Sequence[ClusterView]) -> bool:
    """Whether the job comes to no machine that could have the submitter's files."""
    possible = [cluster for cluster in clusters if request.cluster in (None, cluster.name)]
    return request.needs_containers or (bool(possible) and all(cluster.kind != LOCAL for cluster in possible))


def with_files(request: JobRequest, clusters: Sequence[ClusterView], folder: Path, put: Callable[[Path], str] | None) -> JobRequest:
    """The request with the application's files as inputs, where it goes to containers.

    Relative paths are below ``folder``, or the request's own; absolute ones are of the image, or of a volume. ``put`` uploads a
    file and returns its id; None only looks whether it is there. Raises BadInput for a file that is missing.
    """
    spark = request.spark
    if spark is None or not goes_to_containers(request, clusters):
        return request
    if request.workdir and not request.needs_containers:
        folder = Path(request.workdir)
    sent: dict[Path, str] = {}
    inputs: list[InputRequest] = []

    def send(text: str, field: str) -> str:
        path, mark, alias = text.partition("#")
        if path.startswith(("/", "$")):
            return text
        file = folder / path
        if file not in sent:
            if not file.is_file():
                raise BadInput(
                    f"spark.{field}: there is no file {path!r} in {folder}; expected one, or the absolute path of one in the image."
                )
            taken = {one.path for one in inputs}
            name = f"{FOLDER}/{file.name}"
            sent[file] = name if name not in taken else f"{FOLDER}/{len(sent)}/{file.name}"
            inputs.append(InputRequest(path=sent[file], artifact=None if put is None else put(file)))
        return f"$(DATA_DIR)/{sent[file]}{mark}{alias}"

    changed: dict[str, Any] = {
        key: tuple(send(path, f"{key}[{at}]") for at, path in enumerate(getattr(spark, key))) for key in LISTS
    }
    placed = replace(spark, main=send(spark.main, "main"), **changed)
    kept = request.inputs if put is None else (*request.inputs, *inputs)
    return replace(request, spark=placed, inputs=kept, workdir=None if inputs else request.workdir)
