"""`tuttilab profile` on the command line, against a real control plane."""

import getpass
from pathlib import Path

import pytest
import yaml

from tests.user_machine import UserMachine

PROFILES = """
kind: Profile
name: gpu-small
groups: [research]
image: reg.example/lab:1
gpus: 1
---
kind: Profile
name: cpu
memory: 1Gi
disabled: true
"""


@pytest.mark.feature("N20")
def test_profile_is_applied_shown_cloned_and_deleted(running: UserMachine, tmp_path: Path) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(PROFILES)

    assert running.run("profile", "apply", str(file)).out == (
        "gpu-small: 1 CPU, 2Gi, 1 GPU, for research\ncpu: 1 CPU, 1Gi (disabled), for everybody\n"
    )
    shown = running.run("profile", "show", "gpu-small").out
    assert yaml.safe_load(shown) == {
        "kind": "Profile",
        "name": "gpu-small",
        "groups": ["research"],
        "image": "reg.example/lab:1",
        "gpus": 1,
    }

    clone = tmp_path / "clone.yaml"
    clone.write_text(shown.replace("gpu-small", "gpu-clone"))
    assert running.run("profile", "apply", str(clone)).code == 0
    assert [one["profile"]["name"] for one in running.run("profile", "list", "--json").json] == ["cpu", "gpu-clone", "gpu-small"]

    for name in ("cpu", "gpu-clone", "gpu-small"):
        assert running.run("profile", "delete", name).code == 0
    assert running.run("profile", "list").err == "No profiles; `tuttilab profile apply FILE` keeps one.\n"


@pytest.mark.feature("N20")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("gpus: 3", "asks for 3 GPU, but queue 'research' may never use more than 2 GPU"),
        ("gpuss: 1", "unknown key gpuss; did you mean 'gpus'?"),
        ("gpus: 1.5", "1.5 is not whole"),
        ("queue: reserch", "queue: there is no queue 'reserch'"),
    ],
)
def test_invalid_profile_is_refused_and_not_stored(running: UserMachine, tmp_path: Path, change: str, said: str) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(f"kind: Profile\nname: p\n{change}\n")

    refused = running.run("profile", "apply", str(file))

    assert refused.code in (2, 3)
    assert said in refused.err
    assert running.run("profile", "list", "--json").json == []


@pytest.mark.feature("A08")
def test_a_command_shows_who_deleted_and_who_reloaded(running: UserMachine, tmp_path: Path) -> None:
    me = getpass.getuser()
    (tmp_path / "profile.yaml").write_text("kind: Profile\nname: small\ncpus: 1\nmemory: 1Gi\n")
    assert running.run("profile", "apply", "profile.yaml", cwd=tmp_path).code == 0
    assert running.run("profile", "delete", "small").code == 0
    config = running.home / "tuttilab.yaml"
    config.write_text(config.read_text().replace("root, max: {nvidia.com/gpu: 2}", "root, max: {nvidia.com/gpu: 1}"))
    assert running.run("scheduler", "reload").code == 0

    lines = running.run("audit").out.splitlines()
    of_it = running.run("audit", "small", "--json").json

    assert lines[0].split() == ["WHEN", "WHO", "WHAT"]
    assert [line.split(maxsplit=2)[2].split(maxsplit=1) for line in lines[1:4]] == [
        [me, "reloaded queues and defaults: root, research, small"],
        [me, "deleted profile small"],
        [me, "applied profile small"],
    ]
    assert [(write["by"], write["text"]) for write in of_it] == [(me, "deleted profile small"), (me, "applied profile small")]
    assert running.run("audit", "nosuch").err == "Nothing was changed, or not since the journal is kept.\n"
