"""What the site adds to a job's containers, on a real Kubernetes: volumes of its list, side-cars of its registry."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube import images, real
from tests.kube.job_site import RESTRICTED, SharedSite, Site, made_site
from tests.kube.real import RealCluster
from tests.kube.volumes import drop_volume, make_claim
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]

VOLUMES = real.ROOT / "job-volumes"
PAGES = """
mkdir /tmp/www
echo "$(greeting) from the site" > /tmp/www/index.html
trap "exit 0" TERM
httpd -f -p 8088 -h /tmp/www & wait
"""
SIDECARS: list[dict[str, Any]] = [
    {
        "name": "pages",
        "image": images.BUSYBOX,
        "cpus": "20m",
        "memory": "16Mi",
        "port": 8088,
        "command": ["sh", "-c", PAGES],
        "params": {"greeting": {"pattern": "[a-z ]+"}},
    },
    {"name": "broken", "image": images.BUSYBOX, "cpus": "10m", "memory": "16Mi", "port": 8099, "command": ["sh", "-c", "exit 3"]},
]
QUEUES = [{"name": "root"}, *({"name": name, "parent": "root", "groups": [name]} for name in ("research", "quant"))]
STORAGES: list[dict[str, Any]] = [
    {"claim": "work", "sub_path": "users/{owner}", "groups": {"research": "rw", "quant": "rw"}},
    {"claim": "market", "groups": {"research": "rw", "quant": "r"}},
]


@pytest.fixture(scope="module")
def shared_site(
    product_cluster: RealCluster, product_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedSite]:
    @contextmanager
    def opened() -> Iterator[Site]:
        with (
            product_cluster.namespace(labels=RESTRICTED) as namespace,
            made_site(product_cluster, product_kubeconfig, namespace, tmp_path_factory.mktemp("additions")) as site,
        ):
            site.config |= {"queues": QUEUES, "defaults": {"queue": "research"}, "storages": STORAGES, "sidecars": SIDECARS}
            yield site

    with closing(SharedSite(opened)) as shared:
        yield shared


@pytest.fixture
def market(site: Site) -> Iterator[Path]:
    """A folder that the nodes share, as an export is, behind a claim."""
    folder = VOLUMES / "market"
    folder.mkdir(parents=True)
    os.chown(folder, 1000, 1000)
    make_claim(site.cluster, site.namespace, "market", folder)
    yield folder
    drop_volume(site.cluster, site.namespace, "market")
    shutil.rmtree(VOLUMES)


@pytest.mark.feature("N08")
def test_what_a_gang_writes_to_a_volume_the_next_job_reads_and_a_group_that_may_read_cannot_write(site: Site, market: Path) -> None:
    write = "echo rank $TUTTILAB_RANK > /data/rank-$TUTTILAB_RANK"
    first = site.started("--workers", "2", "--mount", "market:/data", "--", "sh", "-c", write, image=images.BUSYBOX)
    site.until(first, "Succeeded")
    read = "cat /data/rank-0 /data/rank-1; touch /data/new || echo cannot write; id -u"

    second = site.started("--queue", "quant", "--mount", "market:/data", "--", "sh", "-c", read, image=images.BUSYBOX)
    site.until(second, "Succeeded")

    assert [line for line in site.logs(second).splitlines() if "touch" not in line] == ["rank 0", "rank 1", "cannot write", "1000"]
    assert sorted(path.name for path in market.iterdir()) == ["rank-0", "rank-1"]
    # The volume's files stay whose they were.
    assert {(path.stat().st_uid, path.stat().st_gid) for path in market.iterdir()} == {(1000, 1000)}

    outside = site.submit("--mount", "nfs=nas.example:/export:/data", "--", "true")
    assert (outside.code, "'nas.example:/export' is not in storages of tuttilab.yaml; expected claim work" in outside.err) == (
        2,
        True,
    )
    site.config["storages"] = [{**STORAGES[1], "groups": {"research": "rw"}}]
    site.file.write_text(yaml.safe_dump(site.config), encoding="utf-8")
    said = site.machine.run("scheduler", "reload")
    assert said.out.splitlines() == ["storage claim work below users/{owner} is gone", "storage claim market: quant r -> none"]
    refused = site.submit("--queue", "quant", "--mount", "market:/data", "--", "true")
    assert (refused.code, "is not for group 'quant'" in refused.err) == (3, True)


@pytest.mark.feature("C08")
def test_a_side_car_of_the_site_serves_the_users_container_and_ends_with_it(site: Site) -> None:
    wrong = site.submit("--sidecar", "pages:greeting=HELLO", "--", "true")
    assert wrong.code == 2
    assert "sidecars[0].params.greeting: 'HELLO' was given; expected string, like [a-z ]+." in wrong.err
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8088/').read().decode())"

    job = site.started("--workers", "2", "--sidecar", "pages:greeting=hello", "--", "python3", "-c", ask)
    ended = site.until(job, "Succeeded")

    assert site.logs(job).count("hello from the site") == 2
    # Two members of 100m with ours of 10m and the site's of 20m, and a master of 100m.
    assert ended["attempts"][-1]["charge"]["cpu"] == "360m"
    site.until_nothing_is_left()


@pytest.mark.feature("C08")
def test_a_side_car_that_does_not_stay_up_ends_the_job_with_its_name(site: Site) -> None:
    job = site.started("--sidecar", "broken", "--", "true")

    ended = site.until(job, "Failed", limit_s=120)

    assert "a side-car of the site ends again and again" in ended["reason"]
    assert "side-car 'broken' of the site ended" in site.logs(job)
    eventually(lambda: site.pods() == [])
