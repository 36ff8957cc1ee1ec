"""Builds the `LaunchPlan` of a committed attempt, with its secrets. Secrets are derived from one key, so none is stored."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.core.kinds.spark import TOKEN_SECRET
from tuttilab.scheduler.core.kinds.spark_size import SECRET
from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.domain.model import Attempt, Framework, Job, JobKind, Pod, PodPhase
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.sidecar.protocol import pod_token

SHORTEST_KEY: Final = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """Derives every secret of the service from one key of 32 random bytes."""

    key: bytes

    @classmethod
    def of(cls, key_file: str | None, folder: Path) -> Secrets:
        """From the configured key file, else from the key in ``folder``. Raises EnvironmentProblem."""
        if key_file is None:
            return cls.in_folder(folder)
        try:
            key = Path(key_file).read_bytes().strip()
        except OSError as error:
            raise EnvironmentProblem(
                f"auth.key_file: {key_file} cannot be read ({error.strerror}); mend its path or mode."
            ) from error
        if len(key) < SHORTEST_KEY:
            raise EnvironmentProblem(
                f"auth.key_file: {key_file} has {len(key)} bytes; expected {SHORTEST_KEY} random ones or more."
            )
        return cls(key)

    @classmethod
    def in_folder(cls, folder: Path) -> Secrets:
        """From the key in ``folder`` (mode 0600), created on first use. Raises EnvironmentProblem."""
        path = folder / "secret.key"
        try:
            key = path.read_bytes() if path.exists() else _create_key(path)
        except OSError as error:
            raise EnvironmentProblem(
                f"{path} cannot be read or made ({error.strerror}); make room on its disk, or mend its mode, and start again."
            ) from error
        if len(key) < SHORTEST_KEY:
            raise EnvironmentProblem(
                f"{path} has {len(key)} bytes; expected the {SHORTEST_KEY} that are made at the first start. Remove it and start "
                "again: another key is made, and pods that run now, which have their tokens of this one, are not heard any more."
            )
        return cls(key)

    def attempt_key(self, job_id: str, attempt: int, epoch: int) -> str:
        """Signs the tokens with which the attempt's pods report. Only the control plane and the attempt's master have it."""
        return self._derive(f"attempt/{job_id}/{attempt}/{epoch}")

    def spark_token(self, job_id: str, attempt: int) -> str:
        """Authenticates the owner's kernels to one attempt of a Spark session."""
        return self._derive(f"spark/{job_id}/{attempt}")

    def proxy_token(self) -> str:
        """With it the Spark proxy asks where sessions are. It opens nothing without a user's token."""
        return self._derive("spark-proxy")

    def spark_secret(self, job_id: str, attempt: int) -> str:
        """With it the driver and the executors of one attempt know each other (``spark.authenticate.secret``)."""
        return self._derive(f"spark-secret/{job_id}/{attempt}")

    def user_token(self) -> str:
        """Token of the user of a local control plane, the same on all replicas."""
        return self._derive("user")

    @property
    def installation(self) -> str:
        """Of the key and not of the folder: whoever has the key can speak to the pods, and nobody else adopts them."""
        return self.digest()[:16]

    def digest(self) -> str:
        """Distinguishes keys without revealing them."""
        return self._derive("digest")

    def _derive(self, what: str) -> str:
        return hmac.new(self.key, what.encode(), "sha256").hexdigest()


def _create_key(path: Path) -> bytes:
    """Create the key file and return its content. It is renamed once it is on the disk; of two concurrent ones the first stays."""
    handle, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(secrets.token_bytes(SHORTEST_KEY))
            file.flush()
            os.fsync(file.fileno())
        point("key.before")
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        point("key.after")
    finally:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
    return path.read_bytes()


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs of the control plane and of the artifacts, for pods."""

    report_url: str
    report_url_file: str | None
    artifacts_url: str


def plan_of(
    job: Job, attempt: Attempt, keys: Secrets, addresses: Addresses, barrier_s: float, run_as: ProxyUser | None = None
) -> LaunchPlan:
    """What the cluster needs to create the attempt's pods. The same attempt always gives the same plan."""
    gang_key = keys.attempt_key(job.id, attempt.number, attempt.epoch)
    return LaunchPlan(
        job_id=job.id,
        attempt=attempt.number,
        owner=job.owner,
        kind=job.kind,
        epoch=attempt.epoch,
        work=job.work,
        pods=tuple(_pod_plan(pod, gang_key, job) for pod in attempt.pods),
        gang_key=gang_key,
        report_url=addresses.report_url,
        report_url_file=addresses.report_url_file,
        artifacts_url=addresses.artifacts_url,
        secrets=_secret_files(job, attempt, keys),
        barrier_s=barrier_s,
        min_members=sum(one.count if one.min_count is None else one.min_count for one in job.gang.pod_sets),
        max_members=job.gang.size,
        group=job.group,
        job_name=job.name,
        run_as=run_as,
    )


def _secret_files(job: Job, attempt: Attempt, keys: Secrets) -> Mapping[str, str]:
    files: dict[str, str] = {}
    if job.kind is JobKind.SPARK:
        files[TOKEN_SECRET] = keys.spark_token(job.id, attempt.number)
    if job.work.framework is Framework.SPARK:
        files[SECRET] = keys.spark_secret(job.id, attempt.number)
    return files


def _pod_plan(pod: Pod, gang_key: str, job: Job) -> PodPlan:
    """With what the job asked for: what the pod takes beside it is in the pod's own resources, and in containers of its own."""
    asked = next((one.resources for one in job.gang.pod_sets if one.role == pod.role), pod.resources)
    was_made = pod.uid is not None or pod.phase is PodPhase.ENDED or pod.is_given_back
    return PodPlan(
        pod.name,
        pod.role,
        pod.rank,
        pod.node,
        asked,
        was_made=was_made,
        joins=pod.joined_at is not None,
        token=pod_token(gang_key, pod.rank, pod.name),
    )
