"""Which queue a job or a notebook server goes to: the groups of its owner and of the profile decide together, then room."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import cluster, node, queue, request, run_cycle, state
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import AboveMax, BadInput, Forbidden
from tuttilab.scheduler.domain.model import Job, Profile
from tuttilab.scheduler.domain.requests import NotebookRequest, ProfileRequest, Who
from tuttilab.scheduler.domain.wire import to_json
from tuttilab.scheduler.usecases.notebooks import build_server
from tuttilab.scheduler.usecases.queue_choice import QueueChoice

BOTH = Who("eva", ("research", "quant"))
QUEUES = (
    queue("root"),
    queue("quant", parent="root", groups=("quant",), max={"nvidia.com/gpu": 2}),
    queue("research", parent="root", groups=("research",), max={"nvidia.com/gpu": 2}),
)


def a_site(*queues: Any) -> State:
    return state([cluster(node("a", cpus=64, gpus=8))], queues or QUEUES)


def site_of(of: State) -> Site:
    return Site(of.queues, of.clusters, "research")


def asked(of: State, who: Who = BOTH, **given: Any) -> Job:
    return QueueChoice(of, site_of(of), who).build(request(**given), job_id=f"j{len(of.jobs)}", order=len(of.jobs), now=0.0)


def take(of: State, queue_name: str, gpus: int) -> None:
    job = asked(of, queue=queue_name, gpus=gpus)
    of.handle(ev.JobSubmitted(job), 0.0)
    run_cycle(of)


def server(of: State, profile: ProfileRequest, groups: tuple[str, ...] = BOTH.groups) -> tuple[str, str]:
    """Queue and group of a server."""
    of.handle(ev.ProfileApplied(Profile(profile.name, to_json(profile).decode(), "root", 0.0)), 0.0)
    asked = NotebookRequest(owner="eva", groups=groups, profile=profile.name)
    job = build_server(asked, of, site_of(of), job_id="s", order=1, now=0.0)
    return job.queue, job.group


def test_the_profile_of_a_group_is_queued_and_charged_in_that_group() -> None:
    assert server(a_site(), ProfileRequest(name="q", groups=("quant",), gpus=1)) == ("quant", "quant")
    assert server(a_site(), ProfileRequest(name="r", groups=("research",), gpus=1)) == ("research", "research")


def test_a_profile_too_large_for_the_default_queue_starts_in_the_queue_of_its_group() -> None:
    queues = (*QUEUES[:2], queue("research", parent="root", groups=("research",), max={"nvidia.com/gpu": 1}))

    assert server(a_site(*queues), ProfileRequest(name="q", groups=("quant",), gpus=2)) == ("quant", "quant")


@pytest.mark.parametrize("groups", [("research", "quant"), ()])
def test_a_profile_of_several_groups_goes_to_a_queue_with_room(groups: tuple[str, ...]) -> None:
    profile = ProfileRequest(name="p", groups=groups, gpus=1)
    of = a_site()
    assert server(of, profile) == ("research", "research")

    take(of, "research", 2)
    assert server(of, profile) == ("quant", "quant")

    take(of, "quant", 2)
    assert server(of, profile) == ("research", "research")


def test_a_server_that_never_borrows_goes_where_its_guarantee_is_large_enough() -> None:
    guaranteed = {"nvidia.com/gpu": 2}
    queues = (
        queue("root"),
        queue("quant", parent="root", groups=("quant",), guaranteed=guaranteed),
        queue("research", parent="root", groups=("research",)),
    )

    assert server(a_site(*queues), ProfileRequest(name="p", gpus=1)) == ("quant", "quant")
    assert server(a_site(*queues), ProfileRequest(name="p", gpus=1, preemptible=True)) == ("research", "research")


def test_a_job_goes_to_the_default_queue_while_that_has_room_and_else_to_another_of_its_owners_groups() -> None:
    of = a_site()
    assert asked(of, gpus=1).queue == "research"

    take(of, "research", 2)
    assert (asked(of, gpus=1).queue, asked(of, gpus=1).group) == ("quant", "quant")
    assert asked(of, gpus=1, who=Who("ann", ("research",))).queue == "research"
    assert asked(of, gpus=1, queue="research").queue == "research"


def test_a_queue_in_which_somebody_waits_has_no_room() -> None:
    of = a_site()
    take(of, "research", 1)
    of.handle(ev.JobSubmitted(asked(of, queue="research", gpus=2)), 0.0)

    assert asked(of, gpus=1).queue == "quant"


def test_a_job_that_names_a_group_is_queued_in_it() -> None:
    of = a_site()

    assert (asked(of, group="quant").queue, asked(of, group="quant").group) == ("quant", "quant")
    with pytest.raises(Forbidden, match=r"queue: 'research' is for the groups research; expected one of quant\."):
        asked(of, group="quant", queue="research")
    with pytest.raises(BadInput, match=r"group: you are not in 'risk'; expected one of research, quant\."):
        asked(of, group="risk")


def test_a_job_above_the_max_of_one_queue_goes_to_the_other_and_above_both_is_refused_for_the_first() -> None:
    queues = (*QUEUES[:2], queue("research", parent="root", groups=("research",), max={"nvidia.com/gpu": 1}))
    of = a_site(*queues)

    assert asked(of, gpus=2).queue == "quant"
    with pytest.raises(AboveMax, match="queue 'research' may never use more than 1 GPU"):
        asked(of, gpus=3)


def test_an_admin_gets_the_default_queue() -> None:
    of = a_site()
    take(of, "research", 2)

    assert asked(of, who=Who("op", is_admin=True, in_every_group=True), gpus=1).queue == "research"
