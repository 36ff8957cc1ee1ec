"""The two test clusters as fixtures of a whole run; `tests/conftest.py` hands them to the tests of every folder.

Their modules are imported when the first test asks: most processes of a run need none of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kube.cluster import Cluster
    from tests.kube.real import RealCluster

NAMES = ("real_cluster", "control_plane_cluster")


@pytest.fixture(scope="session")
def control_plane_cluster() -> Iterator[Cluster]:
    """Real servers of Kubernetes on loopback, fake nodes by the thousand: with `pytest.mark.tier("control-plane")`."""
    from tests.kube.cluster import running_control_plane

    with running_control_plane() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def real_cluster() -> Iterator[RealCluster]:
    """Two nodes with containers, four GPUs on paper each, one cluster on a machine: with `pytest.mark.tier("real-pods")`."""
    from tests.kube.real import running_real_cluster

    with running_real_cluster() as cluster:
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the servers of its cluster said since the one before."""
    report = yield
    for name in NAMES:
        cluster = getattr(item, "funcargs", {}).get(name)
        if cluster is not None and report.failed:
            report.sections.append((f"logs of {name}", cluster.new_log_lines()))
        if cluster is not None and report.when == "teardown":
            cluster.forget_log_lines()
    return report
