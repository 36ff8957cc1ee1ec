"""Proxy users of jobs: who may name which, where, and what of a list is no proxy user."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import builders as b
from tuttilab.scheduler.clusters.local.owners import OwnersSettings
from tuttilab.scheduler.config.file import ProxyUserFile
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.config.proxy_users import proxy_users_of
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.kinds.definition import definition_of
from tuttilab.scheduler.core.kinds.proxy_users import check_listed
from tuttilab.scheduler.domain.errors import BadInput, Forbidden, NeverFits
from tuttilab.scheduler.domain.model import Job
from tuttilab.scheduler.domain.requests import JobRequest, Who

OWNERS = ClusterConfig("here", "local", None, owners=OwnersSettings(Path("/var/pods")))
ONE_USER = ClusterConfig("shared", "local", None)
CONTAINERS = ClusterConfig("k", "kubernetes", None)
USERS = proxy_users_of(
    [ProxyUserFile(name="etl", groups=("quant",)), ProxyUserFile(name="web", groups=("quant", "research"), uid=3001, gid=3002)],
    [OWNERS, CONTAINERS],
)
ANN = Who("ann", ("research",))
BOB = Who("bob", ("quant",))


def built(who: Who, run_as: str | None, *, cannot: dict[str, frozenset[str]] | None = None, **given: Any) -> Job:
    state = b.state([b.cluster(b.node("a", cpus=64))], [b.queue()])
    site = Site(state.queues, state.clusters, "main", proxy_users=USERS, cannot_run_as=cannot or {})
    request = JobRequest(command=("true",), run_as=run_as, **given)
    return build(request, who, site, job_id="j", order=1, now=0.0)


@pytest.mark.feature("J16")
def test_only_members_of_its_groups_run_jobs_as_a_proxy_user_and_no_admin_of_another() -> None:
    assert built(BOB, "etl").work.run_as == "etl"
    assert built(ANN, "web").work.run_as == "web"
    assert built(ANN, None).work.run_as is None
    assert built(Who("me", in_every_group=True), "etl").work.run_as == "etl"
    for who, asked in ((ANN, "etl"), (ANN, "nobody"), (ANN, "root"), (Who("root", is_admin=True), "etl")):
        with pytest.raises(Forbidden) as refused:
            built(who, asked)
        expected = "web" if who is ANN else "none, so leave it out"
        assert str(refused.value) == (
            f"run_as: {asked!r} is no proxy user of yours; expected {expected}. The site's admin lists them by group, under "
            "proxy_users of tuttilab.yaml."
        )


@pytest.mark.feature("J16")
def test_what_runs_as_its_owner_only_refuses_a_proxy_user() -> None:
    with pytest.raises(BadInput, match="run_as: 'etl' was given, and a spark runs as its owner; leave it out"):
        built(BOB, "etl", kind="spark", labels={"spark-session": "s"})


@pytest.mark.feature("J16")
def test_a_job_that_may_come_to_a_cluster_that_cannot_is_refused() -> None:
    with pytest.raises(NeverFits, match="run_as: here cannot run jobs as 'etl'; leave it out"):
        built(BOB, "etl", cannot={"etl": frozenset({"here"})})
    assert built(BOB, None, cannot={"etl": frozenset({"here"})})


@pytest.mark.feature("J16")
def test_a_definition_keeps_it_and_a_retry_needs_it_listed_still() -> None:
    job = built(BOB, "etl")

    assert definition_of(job).run_as == "etl"
    check_listed(job, USERS)
    with pytest.raises(Forbidden, match="run_as: 'etl' is not listed under proxy_users"):
        check_listed(job, {})
    # Attempts that an older version launched have the digest that they have.
    assert repr(job.work) == repr(replace(job.work, run_as=None))


@pytest.mark.feature("J16")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "root", "groups": ("a",)}, "proxy_users[0].name: 'root' is no account for jobs"),
        ({"name": "etl", "account": "root", "groups": ("a",)}, "proxy_users[0].account: 'root' is no account for jobs"),
        ({"name": "../x", "groups": ("a",)}, "proxy_users[0].name: '../x' is no account for jobs"),
        ({"name": "etl"}, "proxy_users[0].groups: nobody may use 'etl'; expected groups"),
        ({"name": "etl", "groups": ("a",), "uid": 7}, "proxy_users[0]: one of uid and gid is missing"),
        ({"name": "etl", "groups": ("a",), "uid": 0, "gid": 7}, "proxy_users[0].uid: 0 cannot be used; expected 1 to"),
        ({"name": "etl", "groups": ("a",), "uid": 7, "gid": 0}, "proxy_users[0].gid: 0 cannot be used; expected 1 to"),
    ],
)
def test_what_is_no_proxy_user_is_refused_with_its_key(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        proxy_users_of([ProxyUserFile(**given)], [OWNERS])
    assert said in str(refused.value)


@pytest.mark.feature("J16")
def test_a_proxy_user_that_no_cluster_runs_is_refused_and_so_is_one_twice() -> None:
    etl = ProxyUserFile(name="etl", groups=("quant",))
    with pytest.raises(BadInput, match=r"proxy_users\[0\]: no cluster runs jobs as 'etl'"):
        proxy_users_of([etl], [ONE_USER, CONTAINERS])
    with pytest.raises(BadInput, match=r"proxy_users\[1\]: 'etl' stands there twice"):
        proxy_users_of([etl, etl], [OWNERS])
