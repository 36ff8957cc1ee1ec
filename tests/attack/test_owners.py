"""The same attempts where pods run as the owners of their jobs, with a control plane that root runs: nothing can be taken away."""

from __future__ import annotations

import io
import os
import pwd
import signal
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attack.test_kept_files import BOMBS, FOLDERS, INPUT_CORRUPT, bomb, log_of
from tests.attack.test_pod_files import FOLDER_TRICKS, LOG_TRICKS, POD, RECORD_TRICKS, works
from tests.ports import free_ports
from tests.unix_accounts import Accounts, open_folder, processes_of
from tests.user_machine import CONFIG, UserMachine, eventually, made_machine
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, OutputRequest
from tuttilab.scheduler.domain.wire import JobView
from tuttilab.sidecar import records

pytestmark = pytest.mark.tier("users")


@dataclass
class Guarded:
    machine: UserMachine
    accounts: Accounts
    pods: Path

    @property
    def home(self) -> Path:
        return self.accounts.homes / self.accounts.ann

    def start(self) -> None:
        said = self.machine.run("up", "--config", str(self.machine.home / "tuttilab.yaml"))
        assert said.code == 0, said

    def client(self) -> Client:
        runtime = self.machine.runtime()
        return Client(runtime.url, runtime.token)

    def left(self) -> list[int]:
        """Processes of pods."""
        return [pid for name in (self.accounts.ann, self.accounts.sidecar) for pid in processes_of(self.accounts.uid(name))]

    def folder_of(self, job: JobView) -> Path:
        return self.pods / "here" / "pods" / job.id / "1" / job.attempts[0].pods[0].name


def config_of(accounts: Accounts, folder: Path, owner: str) -> str:
    settings = accounts.settings(folder)
    run_as = (
        f"run_as: owner\n    folder: {folder}\n    sidecar_user: {accounts.sidecar}\n    python: {settings.python}\n"
        f"    accounts: {{{owner}: {accounts.ann}}}"
    )
    (port,) = free_ports(1)
    return CONFIG.replace("kind: local", f"kind: local\n    {run_as}") + f"listen: {{port: {port}}}\n"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, accounts: Accounts) -> Iterator[Guarded]:
    """The only user of the control plane is root, whose jobs run as ann, because the configuration lists it."""
    with open_folder() as folder, made_machine(tmp_path_factory.mktemp("guarded")) as machine:
        (machine.home / "tuttilab.yaml").write_text(config_of(accounts, folder, pwd.getpwuid(os.getuid()).pw_name))
        guarded = Guarded(machine, accounts, folder)
        guarded.start()
        yield guarded
        assert guarded.left() == []


@pytest.fixture
def client(guarded: Guarded) -> Iterator[Client]:
    with closing(guarded.client()) as client:
        yield client


def sent(client: Client, script: str, **given: object) -> JobView:
    return client.submit(JobRequest(name="trick", pods=POD, command=("sh", "-c", script), **given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "script",
    [*LOG_TRICKS.values(), *RECORD_TRICKS.values(), *FOLDER_TRICKS.values()],
    ids=[*LOG_TRICKS, *RECORD_TRICKS, *FOLDER_TRICKS],
)
def test_a_job_takes_nothing_of_its_pod_away_and_goes_on(guarded: Guarded, client: Client, script: str) -> None:
    job = sent(client, f"echo first; {{ {script}; }} 2>/dev/null; touch ~/done-$TUTTILAB_JOB_ID; sleep 300")
    eventually(lambda: (guarded.home / f"done-{job.id}").exists() and client.job(job.id).phase == "Running")
    folder = guarded.folder_of(client.job(job.id))

    eventually(lambda: client.logs(job.id).lines == ("first",))
    sidecar = guarded.accounts.uid(guarded.accounts.sidecar)
    for place in (folder.parent.parent, folder.parent, folder, folder / "log", folder / records.LOCK, folder / records.SIDECAR):
        about = place.lstat()
        assert about.st_uid == sidecar
        assert stat.S_ISREG(about.st_mode) or place in (folder, folder.parent, folder.parent.parent)
    assert records.is_locked(str(folder / records.LOCK))
    works(client)
    client.cancel(job.id)
    assert client.wait(job.id, timeout_s=150).phase == "Cancelled"
    eventually(lambda: guarded.left() == [])


@pytest.mark.parametrize("script", FOLDERS.values(), ids=FOLDERS)
def test_no_file_from_outside_is_kept_and_none_written_there(guarded: Guarded, client: Client, script: str) -> None:
    outside = guarded.home / "outside"
    outputs = tuple(OutputRequest(name=name, path=path, optional=True) for name, path in (("a", "secret"), ("b", "way/secret")))

    job = sent(
        client, f'mkdir -p "$OUTSIDE"; echo secret >"$OUTSIDE/secret"; {script}', outputs=outputs, env={"OUTSIDE": str(outside)}
    )
    ended = client.wait(job.id, timeout_s=150)

    assert [pod.outputs for attempt in ended.attempts for pod in attempt.pods] == [{}]
    assert {path.name for path in outside.rglob("*")} - {"secret", "result"} == set()
    assert (outside / "secret").read_text() == "secret\n"


def a_bundle(**files: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_code_inputs_and_outputs_are_the_owners_and_have_the_right_content(guarded: Guarded, client: Client) -> None:
    code = client.put_artifact(
        a_bundle(run='cat "$DATA_DIR/in" >"$RESULT_DIR/out"; stat -c "%U %a" "$TUTTILAB_CODE_DIR" "$DATA_DIR/in" .')
    )
    given = client.put_artifact(b"what was given" * 1000)

    job = sent(
        client,
        'sh "$TUTTILAB_CODE_DIR/run"',
        code=code,
        inputs=(InputRequest(path="in", artifact=given),),
        outputs=(OutputRequest(name="out", path="out"),),
    )
    ended = client.wait(job.id, timeout_s=150)

    assert ended.phase == "Succeeded", log_of(client, ended)
    ann = guarded.accounts.ann
    assert client.logs(job.id).lines == (f"{ann} 700", f"{ann} 600", f"{ann} 700")
    (kept,) = (pod.outputs["out"] for pod in ended.attempts[0].pods)
    assert client.get_artifact(kept) == b"what was given" * 1000
    artifacts = [path for path in (guarded.machine.state / "artifacts").rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in artifacts} == {0}
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in artifacts)


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bundle_that_is_a_bomb_costs_its_job_alone(client: Client, kind: str) -> None:
    ended = client.wait(sent(client, "true", code=client.put_artifact(bomb(kind))).id, timeout_s=150)

    assert (ended.phase, ended.reason) == ("Failed", INPUT_CORRUPT)
    assert f"cannot be unpacked ({BOMBS[kind]}" in log_of(client, ended)
    works(client)


def test_a_job_cannot_reach_the_state_of_the_control_plane(guarded: Guarded, client: Client) -> None:
    runtime = guarded.machine.runtime()
    tried = f"cat {guarded.machine.state}/runtime.json /proc/{runtime.pid}/environ; ls {guarded.machine.state}; kill {runtime.pid}"

    ended = client.wait(sent(client, f"{{ {tried}; }} 2>/dev/null; echo end").id, timeout_s=150)

    assert client.logs(ended.id).lines == ("end",)
    assert guarded.machine.runtime().pid == runtime.pid
    works(client)


DETACHED = (
    "(setsid sh -c 'trap \"\" TERM; sleep 300 & sleep 300' &) ; (env -i setsid sh -c 'exec sleep 300' <&- >/dev/null 2>&1 &); "
)


def test_a_restarted_control_plane_adopts_pods_of_others_and_cancels_them(guarded: Guarded, client: Client) -> None:
    job = sent(client, f"{DETACHED} echo up; sleep 300")
    eventually(lambda: client.logs(job.id).lines == ("up",))
    folder = guarded.folder_of(client.job(job.id))
    before = records.read(str(folder / records.SIDECAR))

    os.kill(guarded.machine.runtime().pid, signal.SIGKILL)
    guarded.start()

    with closing(guarded.client()) as again:
        eventually(lambda: again.job(job.id).phase == "Running")
        assert (len(again.job(job.id).attempts), records.read(str(folder / records.SIDECAR))) == (1, before)
        assert len(guarded.left()) >= 6
        again.cancel(job.id)
        assert again.wait(job.id, timeout_s=40).phase == "Cancelled"
        eventually(lambda: guarded.left() == [])


def test_outputs_of_a_job_that_ends_while_no_control_plane_runs_are_kept(guarded: Guarded, client: Client) -> None:
    job = sent(
        client,
        'echo up; while [ ! -e ~/end ]; do sleep 0.05; done; echo kept >"$RESULT_DIR/out"',
        outputs=(OutputRequest(name="out", path="out"),),
    )
    eventually(lambda: client.logs(job.id).lines == ("up",))
    folder = guarded.folder_of(client.job(job.id))
    os.kill(guarded.machine.runtime().pid, signal.SIGKILL)
    (guarded.home / "end").touch()
    eventually(lambda: (folder / "result" / "out").exists())
    guarded.start()

    with closing(guarded.client()) as again:
        ended = again.wait(job.id, timeout_s=150)
        assert ended.phase == "Succeeded", log_of(again, ended)
        assert again.get_artifact(ended.attempts[0].pods[0].outputs["out"]) == b"kept\n"
