"""The programs that stand beside user code in containers, run as processes: what they answer the kubelet, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.user_machine import eventually
from tuttilab.sidecar import container
from tuttilab.sidecar.protocol import pod_token

PROGRAM = str(Path(container.__file__).with_name("__main__.py"))
KEY = "the gang's key"


class Pod:
    """One of our containers: its plan, its process, its answers."""

    def __init__(self, folder: Path, name: str, rank: int, master: Pod | None = None, **plan: Any) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.port = free_port()
        self.name = name
        self.plan = {
            "job_id": "job",
            "attempt": 1,
            "epoch": 1,
            "pod": name,
            "rank": rank,
            "env": {},
            "code": None,
            "inputs": [],
            "outputs": [],
            # Nobody listens at the discard port: pods live without a control plane.
            "artifacts_url": (folder / "artifacts").as_uri(),
            "report_url": "http://127.0.0.1:9",
            "grace_s": 5.0,
            "dirs": {each: str(self.folder / each) for each in ("work", "result", "code", "model", "data", "pod")},
            "token": pod_token(KEY, rank, name),
            "gang_key": None,
            "members": [],
            "master": {"address": f"127.0.0.1:{master.port}"} if master else None,
            "hosts": ["localhost"],
            "port": self.port,
            "message_file": str(self.folder / "message"),
            "heartbeat_s": 0.5,
            "lease_s": 3.0,
            **plan,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, program: str, **environ: str) -> subprocess.Popen[bytes]:
        file = self.folder / "plan.json"
        file.write_text(json.dumps(self.plan))
        command = [sys.executable, "-I", "-S", PROGRAM, program, str(file)]
        self.process = subprocess.Popen(command, env={"TUTTILAB_POD_UID": f"uid-{self.name}", **environ})
        return self.process

    def answers(self, path: str) -> int:
        """The status of a probe; 0 for no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=150) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code
        except OSError:
            return 0

    def until(self, path: str, status: int) -> None:
        eventually(lambda: self.answers(path) == status)

    def end(self) -> int:
        """As the kubelet ends a side-car once user code has ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(150)

    @property
    def message(self) -> Any:
        return json.loads((self.folder / "message").read_text())


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    made: list[Pod] = []

    def make(*arguments: Any, **plan: Any) -> Pod:
        made.append(Pod(tmp_path, *arguments, **plan))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def gang(pod: Callable[..., Pod], **plan: Any) -> tuple[Pod, Pod, Pod]:
    members = [{"pod": "m0", "rank": 0}, {"pod": "m1", "rank": 1}]
    master = pod("master", -1, gang_key=KEY, members=members, **plan)
    return master, pod("m0", 0, master, **plan), pod("m1", 1, master, **plan)


def test_the_barrier_opens_for_all_members_once_the_last_is_there(pod: Callable[..., Pod]) -> None:
    master, first, second = gang(pod, lease_s=60.0)
    first.start("member")
    first.until("/started", 503)
    ended = master.start("master")
    time.sleep(1.5)
    assert (first.answers("/started"), first.answers("/alive")) == (503, 200)

    second.start("member")

    first.until("/started", 200)
    second.until("/started", 200)
    assert (first.end(), second.end()) == (0, 0)
    assert ended.wait(150) == 0
    assert first.message == {"reason": "", "message": "", "outputs": {}}


def test_a_sidecar_that_comes_back_passes_an_open_barrier_without_a_master(pod: Callable[..., Pod]) -> None:
    master, first, second = gang(pod, lease_s=60.0)
    for each, program in ((master, "master"), (first, "member"), (second, "member")):
        each.start(program)
    first.until("/started", 200)
    for each in (first, master):
        assert each.process is not None
        each.process.kill()
        each.process.wait()

    first.start("member")

    first.until("/started", 200)


def test_a_member_that_loses_its_master_answers_that_user_code_has_to_end(pod: Callable[..., Pod]) -> None:
    master, first, second = gang(pod)
    for each, program in ((master, "master"), (first, "member"), (second, "member")):
        each.start(program)
    first.until("/started", 200)
    assert master.process is not None
    master.process.kill()
    master.process.wait()

    first.until("/alive", 503)

    assert first.end() == 0
    assert (first.message["reason"], first.message["message"]) == ("LeaseLost", "no word from the gang's master for 3 s")


def test_a_single_pod_goes_on_while_the_cluster_answers_and_not_when_nobody_does(pod: Callable[..., Pod]) -> None:
    single = pod("p", 0)
    with socket.create_server(("127.0.0.1", 0)) as api_server:
        address = api_server.getsockname()
        single.start("member", KUBERNETES_SERVICE_HOST=address[0], KUBERNETES_SERVICE_PORT=str(address[1]))
        single.until("/started", 200)
        time.sleep(4)
        assert single.answers("/alive") == 200

    single.until("/alive", 503)


def test_a_single_pod_that_never_reached_the_cluster_goes_on_without_a_control_plane(pod: Callable[..., Pod]) -> None:
    single = pod("p", 0)
    single.start("member", KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT="9")
    single.until("/started", 200)
    time.sleep(5)

    assert single.answers("/alive") == 200


def test_outputs_are_kept_when_user_code_has_ended_and_a_missing_one_is_told(pod: Callable[..., Pod], tmp_path: Path) -> None:
    wanted = [{"name": name, "path": f"{name}.txt", "is_optional": False} for name in ("kept", "missing")]
    single = pod("p", 0, outputs=wanted)
    assert single.start("prepare").wait(150) == 0
    single.start("member")
    single.until("/started", 200)
    (single.folder / "result" / "kept.txt").write_text("hello")

    assert single.end() == 0

    (artifact,) = single.message["outputs"].values()
    assert (tmp_path / "artifacts" / artifact[:2] / artifact).read_text() == "hello"
    assert single.message["reason"] == "OutputMissing"
    assert "there is no missing.txt in RESULT_DIR" in single.message["message"]


def test_prepare_leaves_folders_and_a_program_that_does_nothing(pod: Callable[..., Pod]) -> None:
    single = pod("p", 0)

    assert single.start("prepare").wait(150) == 0

    assert all(os.path.isdir(folder) for folder in single.plan["dirs"].values())
    assert subprocess.run([f"{single.plan['dirs']['pod']}/nothing"], timeout=150).returncode == 0


def test_prepare_fails_the_pod_when_code_or_an_input_is_not_there(pod: Callable[..., Pod]) -> None:
    single = pod("p", 0, code="a" * 64)

    assert single.start("prepare").wait(150) == 1

    assert single.message["reason"] == "InputMissing"
    assert "code bundle: artifact aaaa" in single.message["message"]
