"""Notebook profiles: validation, who is offered which, and which images are allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.kinds import Site, build, driver_ports
from tuttilab.scheduler.core.kinds.notebook import request_of
from tuttilab.scheduler.core.kinds.pods import check_env_names
from tuttilab.scheduler.core.ordering.queues import usable_queues
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.storages import check_kubernetes_name, check_listed, check_mounts
from tuttilab.scheduler.domain.errors import AboveMax, BadInput, Forbidden, NeverFits, Refused, UserError
from tuttilab.scheduler.domain.model import Job
from tuttilab.scheduler.domain.requests import (
    AccountRequest,
    HdfsRequest,
    IdleRequest,
    JobRequest,
    NotebookRequest,
    ProfileRequest,
    Who,
)
from tuttilab.scheduler.domain.resources import parse_duration
from tuttilab.scheduler.domain.titles import check_visible

LARGEST_ID: Final = 2**31 - 1
RESERVED_PREFIXES: Final = (
    "JUPYTERHUB_",
    "TUTTILAB_",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "HADOOP_CONF_DIR",
    "KRB5CCNAME",
)
"""Prefixes of variables that a profile must not set, because the spawner does."""

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_IMAGE = re.compile(
    r"(?P<repository>[a-z0-9]+(?:[-._a-z0-9]*[a-z0-9])?(?::\d{1,5})?(?:/[a-z0-9]+(?:[-._]+[a-z0-9]+)*)*)"
    r"(?::[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def check(profile: ProfileRequest, site: Site) -> None:
    """Validate a profile. Raises BadInput with the wrong key; AboveMax, NeverFits or Forbidden if a group could never use it."""
    if not _NAME.fullmatch(profile.name):
        raise BadInput(f"name: {profile.name[:80]!r} is no profile's name; expected up to 63 lower-case letters, digits and '-'.")
    for key, text in (("title", profile.title), ("description", profile.description)):
        if not re.fullmatch(r"[^\x00-\x1f\x7f]{0,500}", text):
            raise BadInput(f"{key}: expected one line of up to 500 characters.")
        check_visible(text, key)
    for index, image in enumerate((*([profile.image] if profile.image is not None else []), *profile.images)):
        repository_of(image, f"images[{index}]")
    for index, prefix in enumerate(profile.custom_images):
        if repository_of(prefix, f"custom_images[{index}]") != prefix:
            raise BadInput(f"custom_images[{index}]: {prefix!r} names a tag; expected a registry or repository without one.")
    check_env_names(profile.env)
    for name in profile.env:
        if name.startswith(RESERVED_PREFIXES):
            raise BadInput(f"env: {name} is set by the hub; leave it out.")
    check_mounts(profile.mounts)
    check_listed(profile, site.storages, profile.groups)
    driver_ports.check(profile.driver_ports, site.driver_ports)
    _check_hdfs(profile.hdfs)
    _check_idle(profile.idle)
    for name, account in profile.proxy_users.items():
        _check_account(name, account)
    _check_sizes(profile, site)


def _check_hdfs(hdfs: HdfsRequest | None) -> None:
    if hdfs is not None:
        check_kubernetes_name(hdfs.config, "hdfs.config")


def _check_account(name: str, account: AccountRequest) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(f"proxy_users: {name[:80]!r} is no account's name; expected up to 63 lower-case letters, digits and '-'.")
    for key, number in (("uid", account.uid), ("gid", account.gid)):
        if not 1 <= number <= LARGEST_ID:
            raise BadInput(f"proxy_users.{name}.{key}: {number} cannot be used; expected 1 to {LARGEST_ID}: nobody runs as root.")


def check_run_as(profile: ProfileRequest, asked: str | None) -> None:
    """Raises BadInput for a proxy user that the profile does not list."""
    if asked is not None and asked not in profile.proxy_users:
        known = ", ".join(profile.proxy_users) or "none"
        raise BadInput(f"run_as: {asked[:80]!r} is not a proxy user of profile {profile.name!r}; expected {known}.")


def check_queue(profile: ProfileRequest, asked: str | None) -> None:
    """Raises BadInput for another queue than the one that the profile names."""
    if asked is not None and profile.queue not in (None, asked):
        raise BadInput(f"queue: servers of profile {profile.name!r} wait in queue {profile.queue!r}; leave {asked[:80]!r} out.")


def queues_for(profile: ProfileRequest, owner: Who, site: Site) -> tuple[str, ...]:
    """The queues in which the owner's servers of the profile can start, the default one first."""
    member = replace(as_user_of(profile, owner), is_hub=True)
    request = request_of(NotebookRequest(owner=owner.name), profile, profile.image)
    names = [queue.name for queue in usable_queues(site.queues, site.default_queue, member)]
    return tuple(name for name in names if profile.queue in (None, name) and _is_built(replace(request, queue=name), member, site))


def _is_built(request: JobRequest, member: Who, site: Site) -> bool:
    try:
        build(request, member, site, job_id="offer", order=0, now=0.0)
    except UserError:
        return False
    return True


def _check_idle(idle: IdleRequest | None) -> None:
    if idle is None:
        return
    stop = parse_duration(idle.stop_after, "idle.stop_after")
    if parse_duration(idle.warn_before, "idle.warn_before") >= stop:
        raise BadInput(f"idle.warn_before: {idle.warn_before!r} is not before the stop after {idle.stop_after!r}; expected less.")


def _check_sizes(profile: ProfileRequest, site: Site) -> None:
    """Refuse a profile that the members of one of its groups could never start."""
    asked = NotebookRequest(owner="member")
    for group in profile.groups or (None,):
        member = Who("member", () if group is None else (group,), is_hub=True)
        try:
            _check_member(request_of(asked, profile, profile.image), member, profile, site)
        except UserError as error:
            # BadInput is a mistake of the profile itself; a refusal depends on the group, so it names the group.
            whose = f"group {group!r}: " if group is not None and isinstance(error, Refused) else ""
            raise type(error)(f"profile {profile.name!r}: {whose}{str(error).removeprefix('notebook: ')}") from error


def _check_member(request: JobRequest, member: Who, profile: ProfileRequest, site: Site) -> None:
    """Raises what the first queue is refused for where the member could start the profile's servers in none."""
    queues = [] if request.queue is not None else usable_queues(site.queues, site.default_queue, member)
    refusal: AboveMax | NeverFits | None = None
    for asked in [replace(request, queue=queue.name) for queue in queues] or [request]:
        try:
            _check_guarantee(profile, build(asked, member, site, job_id="check", order=0, now=0.0), site)
            return
        except (AboveMax, NeverFits) as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _check_guarantee(profile: ProfileRequest, job: Job, site: Site) -> None:
    """Refuse a non-preemptible server above its queue's guarantee: it never borrows, so it would wait forever."""
    ledger = Ledger.of(site.queues, ())
    short = None if profile.preemptible else ledger.shortage(job.queue, job.gang.resources, 1, may_borrow=False)
    if short is not None:
        raise AboveMax(
            f"asks for {short.over} more than queue {short.queue!r} is guaranteed, and it may not be stopped for others, "
            "so it never borrows; ask for less, or say preemptible: true."
        )


def repository_of(image: str, where: str = "image") -> str:
    """Registry and path of an image reference, without tag and digest. Raises BadInput if it is not a reference."""
    match = _IMAGE.fullmatch(image)
    if match is None or ".." in image:
        raise BadInput(f"{where}: {image[:120]!r} is no image; expected one such as registry.example/team/lab:1.0.")
    return match["repository"]


def image_of(profile: ProfileRequest, asked: str | None) -> str | None:
    """The requested image, by default the profile's own. Raises BadInput with the allowed ones if the profile does not allow it."""
    if asked is None or asked in (profile.image, *profile.images):
        return asked if asked is not None else profile.image
    repository = repository_of(asked)
    if any(repository == allowed or repository.startswith(f"{allowed}/") for allowed in profile.custom_images):
        return asked
    known = ", ".join(image for image in (profile.image, *profile.images) if image)
    below = f", or any below {', '.join(profile.custom_images)}" if profile.custom_images else ""
    raise BadInput(f"image: {asked[:120]!r} is not an image of profile {profile.name!r}; expected {known or 'none'}{below}.")


def is_offered(profile: ProfileRequest, groups: Iterable[str]) -> bool:
    return not profile.disabled and (not profile.groups or not set(profile.groups).isdisjoint(groups))


def as_user_of(profile: ProfileRequest, owner: Who) -> Who:
    """The owner as a member of only those groups for which the profile is: in them its servers are queued and charged."""
    return replace(owner, groups=tuple(group for group in owner.groups if group in profile.groups)) if profile.groups else owner


def choose(profiles: Mapping[str, ProfileRequest], asked: NotebookRequest) -> ProfileRequest:
    """The profile of a server. Raises Forbidden if the owner is offered none, or not the requested one."""
    offered = [profile for _, profile in sorted(profiles.items()) if is_offered(profile, asked.groups)]
    names = ", ".join(profile.name for profile in offered)
    if not offered:
        why = f"is in the groups {', '.join(asked.groups)}, which have none" if asked.groups else "is in no group of the hub"
        raise Forbidden(f"profile: none is offered to {asked.owner}, who {why}; ask an admin for a group or a profile.")
    if asked.profile is None:
        return offered[0]
    found = next((profile for profile in offered if profile.name == asked.profile), None)
    if found is None:
        raise Forbidden(f"profile: {asked.profile[:80]!r} is not offered to {asked.owner}; expected {names}.")
    return found
