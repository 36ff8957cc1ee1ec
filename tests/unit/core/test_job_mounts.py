"""Volumes of jobs: what the list says of the job's group is what its containers get, and nothing else is mounted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests import builders as b
from tests.contract.clusters import plan
from tuttilab.scheduler.config.file import StorageFile
from tuttilab.scheduler.config.storages import storages_of
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.kinds.definition import definition_of
from tuttilab.scheduler.core.placement.fit import permitted_clusters
from tuttilab.scheduler.core.storages import refusal_now
from tuttilab.scheduler.domain.errors import BadInput, Forbidden, NeverFits
from tuttilab.scheduler.domain.model import Cluster, Job, Mount
from tuttilab.scheduler.domain.requests import MountRequest, Who

BOB = Who("bob", ("quant",))
STORAGES = storages_of(
    [
        StorageFile(claim="work", sub_path="users/{owner}", groups={"research": "rw", "quant": "rw"}),
        StorageFile(cephfs="market", groups={"research": "rw", "quant": "r"}),
        StorageFile(nfs="nas.example:/export", groups={"research": "r"}),
    ]
)
QUEUES = {name: b.queue(name, groups=(name,)) for name in ("research", "quant")}


def clusters(**kinds: str) -> dict[str, Cluster]:
    return {name: Cluster(name, kind, (replace(b.node("a"), cluster=name),)) for name, kind in kinds.items()}


def built(*mounts: MountRequest, known: dict[str, Cluster] | None = None, who: Who = BOB, **given: Any) -> Job:
    known = clusters(k="kubernetes") if known is None else known
    local = frozenset(name for name, one in known.items() if one.kind == "local")
    bare = frozenset(given.pop("without_default_image", ()))
    site = Site(QUEUES, known, storages=STORAGES, without_images=local, without_default_image=bare)
    return b.job(site, who=who, mounts=mounts, **given)


@pytest.mark.feature("N08")
@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (
            {"claim": "others"},
            "mounts[0].claim: 'others' is not in storages of tuttilab.yaml; expected claim work below users/{owner}",
        ),
        ({"claim": "work"}, "mounts[0].claim: 'work' is not in storages of tuttilab.yaml"),
        ({"claim": "work", "sub_path": "users/ann"}, "mounts[0].claim: 'work' with sub_path 'users/ann' is not in storages"),
        ({"cephfs": "market", "sub_path": "../etc"}, "mounts[0].sub_path: '../etc' is no folder"),
        ({"host_path": "/srv"}, "mounts[0].host_path: '/srv' is not in storages"),
        ({"cephfs": "market", "claim": "work"}, "mounts[0]: expected either"),
        ({"cephfs": "market", "path": "/tuttilab/work"}, "mounts[0].path: '/tuttilab/work' belongs to the pod itself"),
        ({"cephfs": "market", "path": "/etc/x"}, "mounts[0].path: '/etc/x' belongs to the image"),
    ],
)
def test_what_the_list_does_not_have_is_refused_at_the_submit(mount: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        built(MountRequest(**{"path": "/data", **mount}))

    assert str(refused.value).startswith(said)


def test_what_is_listed_for_other_groups_is_refused_with_the_groups() -> None:
    with pytest.raises(
        Forbidden, match=r"mounts\[0\].nfs: .* is not for group 'quant', to which the job is charged; expected groups re"
    ):
        built(MountRequest(path="/data", nfs="nas.example:/export"))


def test_without_a_list_a_job_mounts_nothing_at_all() -> None:
    with pytest.raises(BadInput, match=r"'work' is not in storages of tuttilab\.yaml; expected none"):
        b.job(Site(QUEUES, clusters(k="kubernetes")), who=BOB, mounts=(MountRequest(path="/data", claim="work"),))


@pytest.mark.feature("N08")
def test_a_group_that_may_read_gets_the_volume_read_only_whatever_the_job_says() -> None:
    asked = MountRequest(path="/data", cephfs="market", mode="rw")
    research = built(asked, who=Who("ann", ("research",)))

    assert built(asked).work.mounts == (Mount("/data", "cephfs", "market"),)
    assert research.work.mounts[0].is_writable
    assert not built(replace(asked, mode="r"), who=Who("ann", ("research",))).work.mounts[0].is_writable


@pytest.mark.parametrize(("known", "allowed"), [({"machine": "local", "k": "kubernetes"}, ["k"]), ({"k": "kubernetes"}, ["k"])])
def test_a_job_with_a_volume_goes_to_containers_only(known: dict[str, str], allowed: list[str]) -> None:
    there = clusters(**known)
    made = built(MountRequest(path="/data", cephfs="market"), known=there)

    assert [cluster.name for cluster in permitted_clusters(made, there)] == allowed


@pytest.mark.parametrize(
    ("known", "given", "said"),
    [
        ({"machine": "local"}, {}, "mounts: pods of machine are processes of the machine and have none; read the folder where"),
        ({"machine": "local", "k": "kubernetes"}, {"cluster": "machine"}, "mounts: pods of machine are processes of the machine"),
        (
            {"machine": "local", "k": "kubernetes"},
            {"without_default_image": ["k"]},
            "image: k has no default image for jobs that name",
        ),
    ],
)
def test_where_there_are_no_containers_for_it_it_is_refused(known: dict[str, str], given: dict[str, Any], said: str) -> None:
    with pytest.raises(NeverFits) as refused:
        built(MountRequest(path="/data", cephfs="market"), known=clusters(**known), **given)

    assert str(refused.value).startswith(said)


def test_a_notebook_server_has_the_mounts_of_its_profile_and_no_others() -> None:
    with pytest.raises(BadInput, match="mounts: a job of kind notebook has none"):
        built(MountRequest(path="/data", cephfs="market"), who=replace(BOB, is_hub=True), kind="notebook")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"research": "rw", "quant": "rw"}, ""),
        (
            {"research": "rw", "quant": "r"},
            "do not let group 'quant' write to cephfs 'market' any more, which the job mounts at /data",
        ),
        ({"research": "rw"}, "do not let group 'quant' mount cephfs 'market' any more"),
    ],
)
def test_a_right_that_was_taken_away_meanwhile_is_asked_again_at_the_start(now: dict[str, str], said: str) -> None:
    refusal = refusal_now(
        [Mount("/data", "cephfs", "market", "", True)], "quant", storages_of([StorageFile(cephfs="market", groups=now)])
    )

    assert said in refusal
    assert bool(refusal) == bool(said)


def test_a_jobs_manifest_has_its_mounts() -> None:
    asked = (
        MountRequest(path="/data", cephfs="market", mode="r"),
        MountRequest(path="/me", claim="work", sub_path="users/{owner}"),
    )

    definition = definition_of(built(*asked))

    assert (definition.mounts, definition.workdir) == (asked, None)


def test_the_digest_of_a_job_without_volumes_is_what_it_was_before_there_were_any() -> None:
    """An upgrade adopts what is starting then."""
    without, mounted = plan("job", "true"), plan("job", "true", work={"mounts": (Mount("/data", "claim", "work"),)})

    assert without.digest == "5ba329f8f3ba4c058f1da0554449a75d"
    assert mounted.digest != without.digest
