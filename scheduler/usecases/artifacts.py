"""Who may read an artifact: whoever uploaded it, the owner of a job that has it as an output, and admins.

The same rule holds for a download and for a job that is given the artifact as its code or an input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Work
from tuttilab.scheduler.domain.requests import JobRequest, Who
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.queries import QueryStore


async def readable(service: Service, artifact_ids: Collection[str], who: Who) -> frozenset[str]:
    """Those of the artifacts that the caller may read; for an admin all."""
    wanted = frozenset(artifact_ids)
    if who.is_admin or not wanted:
        return wanted
    found = frozenset(await cast(QueryStore, service.store).artifacts_of(who.name, sorted(wanted)))
    if found == wanted:
        return found
    mine = {job.id for job in service.state.jobs.values() if job.owner == who.name}
    attempts = (attempt for attempt in service.state.attempts.values() if attempt.job_id in mine)
    outputs = {one for attempt in attempts for pod in (*attempt.pods, *attempt.left) for one in pod.outputs.values()}
    return found | (wanted & outputs)


def needed_by(requests: Iterable[JobRequest]) -> set[str]:
    """The artifacts that the jobs of these requests are given."""
    return {
        one for request in requests for one in (request.code, *(needed.artifact for needed in request.inputs)) if one is not None
    }


@dataclass(frozen=True, slots=True)
class ReadableArtifacts:
    """What the submitter of new jobs may read, found before they are made; jobs are checked when they are made."""

    ids: frozenset[str]

    def check(self, work: Work) -> None:
        """Raises BadInput with the field of the first artifact that the submitter may not read."""
        needed: Mapping[str, str | None] = {
            "code": work.code,
            **{f"inputs[{index}].artifact": one.artifact for index, one in enumerate(work.inputs)},
        }
        for place, artifact_id in needed.items():
            if artifact_id is not None and artifact_id not in self.ids:
                raise BadInput(f"{place}: you have no artifact {artifact_id[:80]!r}; upload it first, then submit again.")
