"""The snippets of the hub guide that no hub of the end-to-end tests runs."""

from pathlib import Path

import pytest
import yaml
from traitlets.config import Config

from tests.e2e.hub.guide import blocks
from tests.kube.hub_site import snippets
from tuttilab.scheduler.client.manifests import parse_manifests
from tuttilab.scheduler.clusters.local.owners import OwnersSettings
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.core.storages import as_seen_by, check_listed
from tuttilab.scheduler.domain.requests import ProfileRequest

pytest.importorskip("kubespawner")
from tuttilab.spawner import TuttiLocalSpawner, TuttiSpawner


def test_settings_of_the_guide_are_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTTILAB_HUB_TOKEN", "secret")
    names = {"c": (c := Config())}
    for snippet in blocks("python"):
        exec(snippet, names)  # noqa: S102  what people are told to write

    for cls in (TuttiSpawner, TuttiLocalSpawner):
        assert set(c[cls.__name__]) - set(cls.class_traits(config=True)) == set()
    assert "cephfs_claim" in c.TuttiSpawner


def test_the_kubernetes_guides_chapter_on_hubs_is_read() -> None:
    configuration, listed, profile = snippets("yaml")
    c = Config()
    for snippet in snippets("python"):
        exec(snippet, {"c": c, "control_url": "http://control", "control_token": "secret"})  # noqa: S102

    read = parse_config({**yaml.safe_load(configuration), **yaml.safe_load(listed)}, Path("/state"), "guide")
    (lab,) = parse_manifests(profile, "guide", ProfileRequest)
    check_listed(lab, read.storages, lab.groups)

    assert set(c.TuttiSpawner) - set(TuttiSpawner.class_traits(config=True)) == set()
    assert [as_seen_by(group, lab, read.storages).mounts[1].mode for group in lab.groups] == ["rw", "r"]


def test_configuration_and_profile_of_the_guide_are_read() -> None:
    configuration, of_owners, profile = blocks("yaml")

    assert parse_config(yaml.safe_load(configuration), Path("/state"), "guide").auth.kind == "hub"
    read_of_owners = parse_config(yaml.safe_load(of_owners), Path("/state"), "guide")
    assert (read_of_owners.auth.unsafe_shared_user, read_of_owners.clusters[0].owners) == (
        False,
        OwnersSettings(Path("/var/lib/tuttilab-pods"), accounts={"eva.berg": "eva"}),
    )
    (read,) = parse_manifests(profile, "guide", ProfileRequest)
    assert (read.name, read.mounts[0].sub_path) == ("gpu-small", "users/{owner}")
