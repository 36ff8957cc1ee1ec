"""The list of volumes: what profiles may mount, who may write there, and what never leads elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from tests import builders as b
from tuttilab.scheduler.config.file import StorageFile
from tuttilab.scheduler.config.storages import storages_of
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.profiles import check
from tuttilab.scheduler.core.storages import as_seen_by
from tuttilab.scheduler.domain.errors import BadInput, Forbidden
from tuttilab.scheduler.domain.requests import AccountRequest, MountRequest, ProfileRequest

STORAGES = storages_of(
    [
        StorageFile(claim="work", groups={"research": "rw", "quant": "r"}),
        StorageFile(host_path="/srv/data", sub_path="open", groups={"research": "r"}),
        StorageFile(nfs="nas.example:/export", groups={"quant": "rw"}),
    ]
)


def profile(*mounts: MountRequest, groups: tuple[str, ...] = ("research",), **given: Any) -> ProfileRequest:
    return ProfileRequest(name="p", groups=groups, mounts=mounts, **given)


def checked(asked: ProfileRequest, *, is_listed: bool = True) -> None:
    state = b.state([b.cluster(b.node("a", cpus=64))], [b.queue(groups=frozenset({"research", "quant"}))])
    check(asked, Site(state.queues, state.clusters, "main", storages=STORAGES if is_listed else ()))


@pytest.mark.feature("N08")
@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ({"claim": "others"}, "mounts[0].claim: 'others' is not in storages of tuttilab.yaml; expected claim work, host_path /srv"),
        ({"host_path": "/srv"}, "mounts[0].host_path: '/srv' is not in storages"),
        ({"host_path": "/srv/data"}, "mounts[0].host_path: '/srv/data' is not in storages"),
        ({"host_path": "/srv/data", "sub_path": "opened"}, "mounts[0].host_path: '/srv/data' with sub_path 'opened' is not in"),
        ({"host_path": "/srv/data/../data"}, "mounts[0].host_path: '/srv/data/../data' is no plain absolute path"),
        (
            {"nfs": "nas.example:/export"},
            "mounts[0].nfs: 'nas.example:/export' is not for group 'research'; expected groups q",
        ),
        ({"nfs": "/export"}, "mounts[0].nfs: '/export' is no plain absolute path; expected one such as nas.example:/export/team."),
        ({"claim": "work", "host_path": "/srv/data"}, "mounts[0]: expected either"),
        ({"claim": "work", "sub_path": "users/{owner}/x"}, "mounts[0].sub_path: 'users/{owner}/x' goes on below the user's own"),
    ],
)
def test_a_mount_outside_of_the_list_is_refused(mount: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        checked(profile(MountRequest(path="/data", **mount)))

    assert str(refused.value).startswith(said)


def test_a_folder_where_another_mount_may_put_a_link_is_refused() -> None:
    upper, lower = MountRequest(path="/all", claim="work"), MountRequest(path="/one", claim="work", sub_path="one")

    with pytest.raises(BadInput, match=r"mounts\[1\].sub_path: 'one' is below what is mounted at /all with mode rw"):
        checked(profile(upper, lower))
    checked(profile(MountRequest(path="/all", claim="work", mode="r"), lower))


def test_a_storage_is_for_groups_and_so_is_its_profile() -> None:
    checked(profile(MountRequest(path="/data", host_path="/srv/data", sub_path="open/here", mode="rw")))

    with pytest.raises(BadInput, match=r"mounts\[0\].claim: 'work' is for groups, and the profile is for everybody"):
        checked(profile(MountRequest(path="/data", claim="work"), groups=()))


def test_volumes_of_the_cluster_need_no_list_and_paths_do() -> None:
    checked(profile(MountRequest(path="/data", claim="any"), MountRequest(path="/more", cephfs="any")), is_listed=False)

    for mount in (MountRequest(path="/d", host_path="/srv"), MountRequest(path="/d", nfs="nas:/export")):
        with pytest.raises(BadInput, match=r"is not in storages of tuttilab.yaml; expected none"):
            checked(profile(mount), is_listed=False)


@pytest.mark.feature("N08")
def test_a_group_that_may_read_gets_the_volume_read_only() -> None:
    asked = profile(MountRequest(path="/data", claim="work", mode="rw"), groups=("research", "quant"))

    assert [as_seen_by(group, asked, STORAGES).mounts[0].mode for group in ("research", "quant")] == ["rw", "r"]
    with pytest.raises(Forbidden, match=r"which storages of tuttilab.yaml do not list for group 'other'"):
        as_seen_by("other", asked, STORAGES)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"groups": {"a": "r"}}, "storages[0]: expected one of cephfs, claim, nfs, host_path."),
        ({"claim": "work"}, "storages[0].groups: nobody may use it"),
        ({"claim": "work", "groups": {"a": "w"}}, "storages[0].groups.a: 'w' is not known; expected r or rw."),
        ({"host_path": "srv", "groups": {"a": "r"}}, "storages[0].host_path: 'srv' is no plain absolute path"),
        ({"claim": "work", "sub_path": "..", "groups": {"a": "r"}}, "storages[0].sub_path: '..' is no folder"),
    ],
)
def test_a_mistake_in_the_list_is_refused_with_its_key(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        storages_of([StorageFile(**given)])

    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("uid", "gid", "key"), [(0, 5, "uid"), (5, 0, "gid"), (2**31, 5, "uid")])
def test_nobody_runs_as_root(uid: int, gid: int, key: str) -> None:
    with pytest.raises(BadInput, match=rf"proxy_users.etl.{key}: .* cannot be used; expected 1 to 2147483647: nobody runs as root"):
        checked(profile(proxy_users={"etl": AccountRequest(uid=uid, gid=gid)}))
