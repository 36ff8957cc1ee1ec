"""Which kinds of clusters a job may come to: by its kind, its image, and whether it names a cluster."""

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import job, node, queue
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.kinds.spark import check_reachable, request_of
from tuttilab.scheduler.core.placement.fit import permitted_clusters
from tuttilab.scheduler.domain.errors import BadInput, NeverFits
from tuttilab.scheduler.domain.model import Cluster, JobKind
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, OutputRequest, SparkBatchRequest, SparkRequest, Who

KINDS = {"machine": "local", "k": "kubernetes", "other": "kubernetes"}


def clusters(*names: str) -> dict[str, Cluster]:
    return {name: Cluster(name, KINDS[name], (replace(node("a"), cluster=name),)) for name in names}


def site(clusters: dict[str, Cluster], **given: Any) -> Site:
    return Site({"main": queue()}, clusters, "main", **given)


ALL = clusters("machine", "k", "other")


@pytest.mark.parametrize(
    ("given", "known", "allowed"),
    [
        ({}, ALL, ["machine"]),
        ({"image": "i"}, ALL, ["k", "other"]),
        ({"cluster": "k"}, ALL, ["k"]),
        ({"cluster": "k", "image": "i"}, ALL, ["k"]),
        ({}, clusters("k", "other"), ["k", "other"]),
        ({"image": "i"}, clusters("k"), ["k"]),
    ],
)
def test_a_job_with_an_image_goes_to_containers_and_one_without_to_the_machine(
    given: dict[str, Any], known: dict[str, Cluster], allowed: list[str]
) -> None:
    made = job(site(known), **given)

    assert [cluster.name for cluster in permitted_clusters(made, known)] == allowed


def test_a_notebook_goes_wherever_the_hub_has_its_pods() -> None:
    assert len(permitted_clusters(replace(job(site(ALL)), kind=JobKind.NOTEBOOK), ALL)) == 3


@pytest.mark.parametrize(
    ("given", "known", "allowed"),
    [
        ({}, ALL, ["machine"]),
        ({"image": "i"}, ALL, ["k", "other"]),
        ({"cluster": "k"}, ALL, ["k"]),
        ({}, clusters("k", "other"), ["k", "other"]),
    ],
)
def test_a_spark_session_goes_to_the_machine_or_where_its_image_or_its_wish_says(
    given: dict[str, Any], known: dict[str, Cluster], allowed: list[str]
) -> None:
    made = replace(job(site(known), **given), kind=JobKind.SPARK)

    assert [cluster.name for cluster in permitted_clusters(made, known)] == allowed


def test_a_session_on_a_network_of_pods_needs_a_proxy() -> None:
    for asked, known in (
        (SparkRequest(), clusters("k")),
        (SparkRequest(image="i"), ALL),
        (SparkRequest(cluster="k"), ALL),
    ):
        with pytest.raises(NeverFits, match=r"this site has no Spark proxy; an admin names one in tuttilab.yaml"):
            check_reachable(asked, known)

    check_reachable(SparkRequest(), ALL)
    check_reachable(SparkRequest(cluster="machine"), ALL)


@pytest.mark.parametrize(
    ("known", "given"), [(clusters("k", "other"), {}), (ALL, {"cluster": "k"}), (clusters("k"), {"executors": 2})]
)
def test_spark_where_no_cluster_has_an_image_for_it_is_refused_before_anything_is_made(
    known: dict[str, Cluster], given: dict[str, Any]
) -> None:
    asked = SparkRequest(cluster=given.get("cluster"), executors=given.get("executors", 0))
    application = JobRequest(kind="spark-batch", cluster=given.get("cluster"), spark=SparkBatchRequest(main="a.py"))
    for request in (request_of(asked, "python"), application):
        checked = site(known, without_spark_image=frozenset({"k", "other"}))
        with pytest.raises(NeverFits, match=r"k.* has no image for Spark; give --image with one that has tuttilab\[spark\] in it"):
            build(request, Who("ann"), checked, job_id="j", order=1, now=0.0)
        named = replace(request, image="i")
        assert build(named, Who("ann"), checked, job_id="j", order=1, now=0.0).work.image == "i"


@pytest.mark.parametrize(
    ("given", "without_default", "sentence"),
    [
        ({"cluster": "k"}, {"k"}, "image: k has no default image for jobs that name none; give the job's --image."),
        (
            {"cluster": "machine", "image": "i"},
            set(),
            "image: 'i' cannot be run here: pods of machine are processes of the machine;",
        ),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_submitted(given: dict[str, Any], without_default: set[str], sentence: str) -> None:
    checked = site(ALL, without_images=frozenset({"machine"}), without_default_image=frozenset(without_default))

    with pytest.raises(NeverFits) as refusal:
        job(checked, **given)

    assert str(refusal.value).startswith(sentence)


def test_a_gang_with_an_image_is_refused_where_there_are_only_machines() -> None:
    checked = site(clusters("machine"), without_images=frozenset({"machine"}))

    with pytest.raises(NeverFits, match="cannot be run here"):
        job(checked, workers=2, image="i")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"code": "c" * 64}, "sidecar: without one a container has nobody for a code bundle; expected sidecar: true, or none"),
        ({"inputs": (InputRequest(path="a.csv"),)}, "sidecar: without one a container has nobody for inputs;"),
        ({"outputs": (OutputRequest(name="m", path="m.pt"),)}, "sidecar: without one a container has nobody for outputs;"),
        ({"workdir": "sub"}, "sidecar: without one a container has nobody for a workdir of its own folder;"),
        (
            {"workers": 2, "framework": "torch", "code": "c" * 64},
            "sidecar: without one a container has nobody for a code bundle and the framework torch, whose members wait for",
        ),
    ],
)
def test_bare_pods_that_need_a_side_car_are_refused_in_containers_only(given: dict[str, Any], sentence: str) -> None:
    places: list[dict[str, Any]] = [{"cluster": "k"}, {"image": "i"}]
    for in_containers in places:
        with pytest.raises(BadInput) as refusal:
            job(site(ALL), sidecar=False, **given, **in_containers)
        assert str(refusal.value).startswith(sentence)

    assert not job(site(ALL), sidecar=False, **given).work.sidecar, "on a machine there is one all the same"


def test_a_bare_gang_runs_in_containers() -> None:
    made = job(site(ALL), sidecar=False, workers=3, image="i", workdir="/data")

    assert (made.gang.size, made.work.sidecar) == (3, False)
