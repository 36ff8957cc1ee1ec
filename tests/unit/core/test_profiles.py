"""Profiles: what is refused when one is applied, who is offered it, and which images may be chosen."""

from typing import Any

import pytest

from tests import builders as b
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.profiles import check, choose, image_of
from tuttilab.scheduler.domain.errors import AboveMax, BadInput, Forbidden, NeverFits, TuttiError
from tuttilab.scheduler.domain.requests import HdfsRequest, IdleRequest, MountRequest, NotebookRequest, ProfileRequest

QUEUES = (
    b.queue("root"),
    b.queue("research", parent="root", max={"nvidia.com/gpu": 2}, groups=("research",)),
    b.queue("quant", parent="root", max={"nvidia.com/gpu": 4}, groups=("quant",)),
)


def site() -> Site:
    state = b.state([b.cluster(b.node("a", cpus=16, gpus=4))], QUEUES)
    return Site(state.queues, state.clusters, "research")


def profile(**given: Any) -> ProfileRequest:
    return ProfileRequest(**{"name": "gpu-small", "groups": ("research",), **given})


def refused(**given: Any) -> TuttiError:
    with pytest.raises(TuttiError) as error:
        check(profile(**given), site())
    return error.value


def test_sound_profile_is_taken() -> None:
    mounts = (
        MountRequest(path="/workspace", cephfs="research", sub_path="users/{owner}"),
        MountRequest(path="/data/market", cephfs="market", mode="r"),
        MountRequest(path="/scratch", claim="scratch-1"),
    )
    check(
        profile(
            image="registry.example:5000/team/lab:2026.11",
            images=("lab", "lab@sha256:" + "0" * 64),
            custom_images=("registry.example/team",),
            gpus=2,
            mounts=mounts,
            hdfs=HdfsRequest(config="hadoop-conf", kerberos=True),
            idle=IdleRequest(stop_after="2h", warn_before="10m"),
            env={"SITE": "x"},
        ),
        site(),
    )


@pytest.mark.feature("N20")
def test_more_than_the_groups_max_is_refused_with_the_group() -> None:
    error = refused(gpus=3)

    assert isinstance(error, AboveMax)
    assert str(error) == (
        "profile 'gpu-small': group 'research': asks for 3 GPU, but queue 'research' may never use more than 2 GPU; "
        "ask for less or use another queue."
    )
    check(profile(groups=("quant",), gpus=3), site())
    assert "group 'research'" in str(refused(groups=("quant", "research"), gpus=3))


@pytest.mark.parametrize("preemptible", [False, True])
def test_server_above_the_guarantee_has_to_say_that_it_may_be_stopped(preemptible: bool) -> None:
    queues = (*QUEUES[:2], b.queue("quant", parent="root", guaranteed={"nvidia.com/gpu": 1}, groups=("quant",)))
    state = b.state([b.cluster(b.node("a", cpus=16, gpus=4))], queues)
    asked = profile(groups=("quant",), gpus=2, preemptible=preemptible)

    if preemptible:
        check(asked, Site(state.queues, state.clusters, "research"))
        return
    with pytest.raises(AboveMax) as error:
        check(asked, Site(state.queues, state.clusters, "research"))
    assert str(error.value) == (
        "profile 'gpu-small': group 'quant': asks for 1 GPU more than queue 'quant' is guaranteed, and it may not be stopped for "
        "others, so it never borrows; ask for less, or say preemptible: true."
    )


def test_pod_larger_than_any_node_is_refused() -> None:
    assert isinstance(refused(cpus=17), NeverFits)


def test_group_without_a_queue_is_refused() -> None:
    error = refused(groups=("nobody",))

    assert isinstance(error, Forbidden)
    assert str(error) == "profile 'gpu-small': group 'nobody': queue: you are in no group that has one; ask your admin for a group."


@pytest.mark.feature("N06", "N20")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "Big One"}, "name: 'Big One' is no profile's name"),
        ({"gpus": "1.5"}, "profile 'gpu-small': pods[0].gpus: '1.5' is not whole"),
        ({"gpus": 0.5}, "profile 'gpu-small': pods[0].gpus: 0.5 is not whole"),
        ({"memory": "8Gb"}, "profile 'gpu-small': pods[0].memory: '8Gb' has the unknown unit 'Gb'"),
        ({"queue": "nowhere"}, "profile 'gpu-small': queue: there is no queue 'nowhere'"),
        ({"title": "two\nlines"}, "title: expected one line"),
        ({"image": "-x"}, "images[0]: '-x' is no image"),
        ({"images": ("a", "b c")}, "images[1]: 'b c' is no image"),
        ({"custom_images": ("registry.example/team:1",)}, "custom_images[0]: 'registry.example/team:1' names a tag"),
        ({"env": {"1A": ""}}, "env: '1A' is not a variable's name"),
        ({"env": {"JUPYTERHUB_API_TOKEN": "x"}}, "env: JUPYTERHUB_API_TOKEN is set by the hub"),
        ({"env": {"NVIDIA_VISIBLE_DEVICES": "all"}}, "env: NVIDIA_VISIBLE_DEVICES is set by the hub"),
        ({"hdfs": HdfsRequest(config="../x")}, "hdfs.config: '../x' is not a name"),
        ({"idle": IdleRequest(stop_after="soon")}, "idle.stop_after: 'soon' is not a duration"),
        ({"idle": IdleRequest(stop_after="5m")}, "idle.warn_before: '10m' is not before the stop after '5m'"),
    ],
)
def test_mistake_is_refused_with_its_key(given: dict[str, Any], said: str) -> None:
    error = refused(**given)

    assert isinstance(error, BadInput)
    assert str(error).startswith(said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": "workspace"}, "mounts[0].path: 'workspace' is no plain absolute path"),
        ({"path": "/"}, "mounts[0].path: '/' is no plain absolute path"),
        ({"path": "/a/../etc"}, "mounts[0].path: '/a/../etc' is no plain absolute path"),
        ({"path": "//etc"}, "mounts[0].path: '//etc' is no plain absolute path"),
        ({"path": "/work/"}, "mounts[0].path: '/work/' is no plain absolute path"),
        ({"path": "/etc/hadoop"}, "mounts[0].path: '/etc/hadoop' belongs to the image"),
        ({"path": "/dev"}, "mounts[0].path: '/dev' belongs to the image"),
        ({"mode": "w"}, "mounts[0].mode: 'w' is not known; expected r or rw."),
        ({"cephfs": None}, "mounts[0]: expected either cephfs (a shared volume) or claim"),
        ({"claim": "x"}, "mounts[0]: expected either cephfs (a shared volume) or claim"),
        ({"cephfs": "A B"}, "mounts[0].cephfs: 'A B' is not a name"),
        ({"sub_path": "../other"}, "mounts[0].sub_path: '../other' is no folder"),
        ({"sub_path": "/abs"}, "mounts[0].sub_path: '/abs' is no folder"),
        ({"sub_path": "{user}"}, "mounts[0].sub_path: '{user}' is no folder"),
    ],
)
def test_mount_that_leads_elsewhere_is_refused(given: dict[str, Any], said: str) -> None:
    mount = MountRequest(**{"path": "/workspace", "cephfs": "research", **given})

    assert str(refused(mounts=(mount,))).startswith(said)


def test_path_is_mounted_once() -> None:
    mount = MountRequest(path="/w", cephfs="a")

    assert str(refused(mounts=(mount, mount))).startswith("mounts[1].path: '/w' stands there twice")


def asked(*groups: str, **given: Any) -> NotebookRequest:
    return NotebookRequest(owner="ann", groups=groups, **given)


PROFILES = {
    one.name: one
    for one in (
        profile(name="b-research"),
        profile(name="c-both", groups=("research", "quant")),
        profile(name="a-off", disabled=True),
        profile(name="d-quant", groups=("quant",)),
    )
}


@pytest.mark.feature("N20")
def test_user_gets_a_profile_of_a_group_and_no_other() -> None:
    assert choose(PROFILES, asked("research")).name == "b-research"
    assert choose(PROFILES, asked("research", profile="c-both")).name == "c-both"
    for name in ("d-quant", "a-off", "unknown"):
        with pytest.raises(Forbidden) as error:
            choose(PROFILES, asked("research", profile=name))
        assert str(error.value) == f"profile: {name!r} is not offered to ann; expected b-research, c-both."


@pytest.mark.parametrize(
    ("groups", "why"), [((), "is in no group of the hub"), (("sales",), "is in the groups sales, which have none")]
)
def test_user_who_is_offered_nothing_is_told_why(groups: tuple[str, ...], why: str) -> None:
    with pytest.raises(Forbidden) as error:
        choose(PROFILES, asked(*groups))

    assert str(error.value) == f"profile: none is offered to ann, who {why}; ask an admin for a group or a profile."


LAB = profile(image="reg.example/lab:1", images=("reg.example/lab:2",), custom_images=("reg.example/team", "own.example:5000"))


@pytest.mark.feature("N02")
@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (None, "reg.example/lab:1"),
        ("reg.example/lab:2", "reg.example/lab:2"),
        ("reg.example/team/x:9", "reg.example/team/x:9"),
        ("reg.example/team:1", "reg.example/team:1"),
        ("own.example:5000/any/thing@sha256:" + "a" * 64, "own.example:5000/any/thing@sha256:" + "a" * 64),
    ],
)
def test_image_that_the_profile_allows_is_taken(wanted: str | None, got: str) -> None:
    assert image_of(LAB, wanted) == got


@pytest.mark.feature("N02")
@pytest.mark.parametrize(
    "wanted",
    [
        "reg.example/lab:3",
        "reg.example/teamster/x",
        "evil/reg.example/team/x",
        "own.example/x",
        "reg.example/team/../lab",
        "",
        "a b",
    ],
)
def test_other_image_is_refused(wanted: str) -> None:
    with pytest.raises(BadInput, match="image"):
        image_of(LAB, wanted)
