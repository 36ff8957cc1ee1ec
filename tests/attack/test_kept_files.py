"""Jobs that put something else in the place of what is kept of them, and bundles and inputs that are made to do harm."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.user_machine import UserMachine, eventually, kill
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, OutputRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

POD = (PodRequest(cpus="100m", memory="64Mi"),)
INPUT_CORRUPT = "it did not start: its code bundle or an input cannot be used; its log says why"
OUTPUT_LOST = "it ended, but a declared output could not be kept; its log says why"
FOLDERS = {
    "the folder as a link": 'rm -rf "$RESULT_DIR"; ln -s "$OUTSIDE" "$RESULT_DIR"',
    "the pod's folder as a link": 'mkdir "$OUTSIDE/result"; echo secret >"$OUTSIDE/result/secret"; rm -rf "$TUTTILAB_POD_DIR"; '
    'ln -s "$OUTSIDE" "$TUTTILAB_POD_DIR"',
    "a link on the way": 'ln -s "$OUTSIDE" "$RESULT_DIR/way"',
    "the file as a link": 'ln -s "$OUTSIDE/secret" "$RESULT_DIR/secret"; mkdir "$RESULT_DIR/way"; ln -s "$OUTSIDE/secret" '
    '"$RESULT_DIR/way/secret"',
}
BOMBS = {"header": "a header of 2147483648 bytes", "content": "it unpacks to more than 2147483648 bytes"}
RECORDS = {
    "a folder in place of the end": "mkdir -p ../end.json/x",
    "folders and FIFOs in place of new files": "n=$PPID; for f in end endpoints processes; do mkdir -p ../$f.json.$n.new/x; done; "
    "mkfifo ../partial.new ../times.new; seq 100",
}


@pytest.fixture
def client(attacked: UserMachine) -> Iterator[Client]:
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        yield client


def sent(client: Client, script: str, **given: object) -> JobView:
    job = JobRequest(name="trick", pods=POD, command=("sh", "-c", script), **given)  # type: ignore[arg-type]  # each test gives its own
    return client.wait(client.submit(job).id, timeout_s=150)


def log_of(client: Client, job: JobView) -> str:
    return "\n".join(client.logs(job.id).lines)


@pytest.mark.parametrize("script", FOLDERS.values(), ids=FOLDERS)
def test_no_file_from_outside_is_kept_and_none_written_there(client: Client, tmp_path: Path, script: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    outputs = (
        OutputRequest(name="first", path="secret", optional=True),
        OutputRequest(name="second", path="way/secret", optional=True),
    )

    ended = sent(client, script, outputs=outputs, env={"OUTSIDE": str(outside)})

    assert ended.phase == "Failed"
    assert [pod.outputs for attempt in ended.attempts for pod in attempt.pods] == [{}]
    assert {path.name for path in outside.rglob("*")} - {"secret", "result", "end.json"} == set()
    assert (outside / "secret").read_text() == "secret"


def test_a_huge_sparse_output_is_no_copy_of_that_size(attacked: UserMachine, client: Client) -> None:
    ended = sent(client, 'truncate -s 20G "$RESULT_DIR/model"', outputs=(OutputRequest(name="model", path="model"),))

    assert (ended.phase, ended.reason) == ("Failed", OUTPUT_LOST)
    assert "the outputs of a pod may have 17179869184 bytes together (limits.output_bytes)" in log_of(client, ended)
    kept = [path.stat().st_size for path in attacked.state.rglob("artifacts/**/*") if path.is_file()]
    assert max(kept, default=0) < 2**20


def test_an_input_has_its_content_whatever_its_name(client: Client) -> None:
    artifact = client.put_artifact(b"content")

    ended = sent(client, 'cat "$DATA_DIR/.lock"', inputs=(InputRequest(path=".lock", artifact=artifact),))
    assert (ended.phase, log_of(client, ended)) == ("Succeeded", "content")


def test_what_a_killed_upload_left_is_removed(attacked: UserMachine) -> None:
    runtime = attacked.runtime()
    artifacts = attacked.state / "artifacts"
    target = urlsplit(runtime.url)
    head = f"PUT /api/v1/artifacts/{'ab' * 32} HTTP/1.1\r\nHost: {target.netloc}\r\nAuthorization: Bearer {runtime.token}\r\n"
    with socket.create_connection((target.hostname, target.port), 20) as connection:
        connection.sendall(f"{head}Content-Length: 90000000\r\n\r\n".encode() + bytes(3 * 2**20))
        left = eventually(lambda: [path for path in artifacts.glob("ab/.*") if path.stat().st_size >= 2**20])
        kill(runtime.pid)
    for path in left:
        os.utime(path, (time.time() - 7200, time.time() - 7200))

    fresh = artifacts / "ab" / ".being-written"
    fresh.touch()
    assert attacked.run("up", "--config", str(attacked.home / "tuttilab.yaml")).code == 0
    eventually(lambda: not any(path.exists() for path in left))
    assert fresh.exists()


def bomb(kind: str) -> bytes:
    info = tarfile.TarInfo("file")
    if kind == "header":
        info.type, info.size = b"x", 2**31
    else:
        info.size = 2**33
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        file.write(info.tobuf())
        for _ in range(64):
            file.write(bytes(2**20))
    return packed.getvalue()


@pytest.mark.parametrize(("kind", "problem"), BOMBS.items())
def test_a_bundle_that_is_a_bomb_costs_its_job_alone(client: Client, kind: str, problem: str) -> None:
    ended = sent(client, "true", code=client.put_artifact(bomb(kind)))

    assert (ended.phase, len(ended.attempts), ended.reason) == ("Failed", 1, INPUT_CORRUPT)
    assert f"cannot be unpacked ({problem}" in log_of(client, ended)
    assert log_of(client, sent(client, "echo hello")) == "hello"


@pytest.mark.parametrize("script", RECORDS.values(), ids=RECORDS)
def test_a_pod_ends_whatever_lies_where_its_records_go(client: Client, script: str) -> None:
    ended = sent(client, f"cd ../work; {script}; exit 3")

    assert (ended.phase, ended.exit_code) == ("Failed", 3)
    assert log_of(client, sent(client, "echo hello")) == "hello"
