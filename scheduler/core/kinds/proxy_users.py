"""Proxy users: accounts other than their owner's as which jobs run, which `tuttilab.yaml` lists for groups."""

from __future__ import annotations

from collections.abc import Mapping

from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.errors import BadInput, Forbidden
from tuttilab.scheduler.domain.model import Job, JobKind
from tuttilab.scheduler.domain.requests import Who

KINDS = (JobKind.BATCH, JobKind.DISTRIBUTED)


def check_proxy_user(job: Job, who: Who, users: Mapping[str, ProxyUser]) -> None:
    """Raises for a proxy user that is not listed for a group of ``who``, in the same words as for one that nobody has."""
    asked = job.work.run_as
    if asked is None:
        return
    if job.kind not in KINDS:
        raise BadInput(f"run_as: {asked[:80]!r} was given, and a {job.kind.value} runs as its owner; leave it out.")
    allowed = [user.name for user in users.values() if any(who.is_in(group) for group in user.groups)]
    if asked not in allowed:
        raise Forbidden(
            f"run_as: {asked[:80]!r} is no proxy user of yours; expected {' or '.join(allowed) or 'none, so leave it out'}. The "
            "site's admin lists them by group, under proxy_users of tuttilab.yaml."
        )


def check_listed(job: Job, users: Mapping[str, ProxyUser]) -> None:
    """Of a job that was accepted before: raises Forbidden where its proxy user was taken off the list since."""
    if job.work.run_as is not None and job.work.run_as not in users:
        raise Forbidden(f"run_as: {job.work.run_as[:80]!r} is not listed under proxy_users of tuttilab.yaml any more.")
