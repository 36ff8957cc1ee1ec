"""Of which images it is known before the submit that they cannot read a cell."""

from typing import Any

import pytest

from tuttilab.magics.submission.interpreter import check_image, versions
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import JobRequest
from tuttilab.scheduler.domain.wire import ClusterView

HERE = versions()["python"]
OLD, SAME, UNKNOWN = "registry.example/old:1", "registry.example/same:1", "registry.example/unknown:1"
PYTHONS = {OLD: "2.7", SAME: HERE}


def cluster(name: str = "k", kind: str = "kubernetes", **more: Any) -> ClusterView:
    given = {"nodes": 1, "is_reachable": True, "unreachable_since": None, "allocatable": {}, "used": {}, "pythons": PYTHONS, **more}
    return ClusterView(name=name, kind=kind, **given)


def asked(image: str | None, on: str | None = None) -> JobRequest:
    return JobRequest(command=("true",), image=image, cluster=on)


@pytest.mark.feature("B14")
def test_an_image_that_is_known_to_have_another_python_is_refused_with_both_versions_named() -> None:
    with pytest.raises(BadInput) as refused:
        check_image(asked(OLD), [cluster()])

    assert str(refused.value) == (
        f"The notebook runs Python {HERE} and image {OLD} Python 2.7, as clusters[].pythons of the site says: "
        "a captured cell needs the same major and minor version; choose an image with it."
    )


@pytest.mark.parametrize(
    ("request_", "clusters"),
    [
        (asked(SAME), [cluster()]),
        (asked(UNKNOWN), [cluster()]),
        (asked(OLD), [cluster(pythons={})]),
        (asked(OLD), [cluster(), cluster("other", pythons={})]),
        (asked(OLD), [cluster(kind="local")]),
        (asked(None), [cluster()]),
        (asked(None), [cluster(image=OLD), cluster("other", image=SAME)]),
        (asked(None, "other"), [cluster(image=OLD), cluster("other", image=SAME)]),
    ],
)
def test_an_image_that_may_have_the_same_is_asked_at_the_start_of_the_job(
    request_: JobRequest, clusters: list[ClusterView]
) -> None:
    check_image(request_, clusters)


@pytest.mark.parametrize(
    ("request_", "clusters"),
    [
        (asked(None), [cluster(image=OLD)]),
        (asked(None, "k"), [cluster(image=OLD), cluster("other", image=SAME)]),
        (asked(OLD), [cluster(), cluster("here", "local", pythons={})]),
    ],
)
def test_the_default_image_counts_where_the_job_can_go(request_: JobRequest, clusters: list[ClusterView]) -> None:
    with pytest.raises(BadInput, match=r"Python 2\.7"):
        check_image(request_, clusters)
