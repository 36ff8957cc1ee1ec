"""Volumes and side-cars as one word."""

import pytest

from tuttilab.scheduler.client import read_mount, read_sidecar
from tuttilab.scheduler.domain.requests import MountRequest, SideCarRequest


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("work:/workspace", MountRequest(path="/workspace", claim="work")),
        ("work/users/{owner}:/me:rw", MountRequest(path="/me", claim="work", sub_path="users/{owner}")),
        ("cephfs=market:/data:r", MountRequest(path="/data", cephfs="market", mode="r")),
        ("nfs=nas.example:/export/a:/a", MountRequest(path="/a", nfs="nas.example:/export/a")),
        ("nfs=nas.example:/export//team:/a:r", MountRequest(path="/a", nfs="nas.example:/export", sub_path="team", mode="r")),
        ("host_path=/srv/data//open:/d", MountRequest(path="/d", host_path="/srv/data", sub_path="open")),
    ],
)
def test_a_mount(text: str, request_: MountRequest) -> None:
    assert read_mount(text) == request_


@pytest.mark.parametrize("text", ["", "work", "work:", ":/data", "work:data", "disk=a:/data", "=a:/data"])
def test_what_is_no_mount_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="such as work:/workspace"):
        read_mount(text)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("proxy", SideCarRequest(name="proxy")),
        ("proxy:level=3,url=a=b", SideCarRequest(name="proxy", params={"level": "3", "url": "a=b"})),
    ],
)
def test_a_side_car(text: str, request_: SideCarRequest) -> None:
    assert read_sidecar(text) == request_


@pytest.mark.parametrize("text", ["", ":a=b", "proxy:", "proxy:a", "proxy:=b"])
def test_what_is_no_side_car_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="such as proxy:port=8081"):
        read_sidecar(text)
