"""Jobs that put something else in the place of the files of their pod, or take them away."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psutil
import pytest

from tests.strangers import processes_with
from tests.user_machine import UserMachine, eventually, kill
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

POD = (PodRequest(cpus="100m", memory="64Mi"),)
STAY = '; touch "$HOME/done-$TUTTILAB_JOB_ID"; sleep 300'
LOG_TRICKS = {
    "a FIFO": "rm ../log; mkfifo ../log",
    "a device": "rm ../log; ln -s /dev/zero ../log",
    "a link out of the folder": "rm ../log; ln -s ../../../../../runtime.json ../log",
    "a folder": "rm ../log; mkdir ../log",
    "a file of a terabyte": "rm ../log; truncate -s 1T ../log",
    "segments without numbers": "touch ../log.x.y ../log.1 ../log.99999999999999999999.1 ../log.-1.-1; mkdir ../log.5.5",
    "the newest line as a FIFO": "rm -f ../partial; mkfifo ../partial",
    "ten thousand files": "seq -f ../log.%.0f.7 10000 | xargs touch",
}
RECORD_TRICKS = {
    "records as FIFOs": "for f in end ready endpoints stop processes usage/points; do rm -f ../$f.json; mkfifo ../$f.json; done",
    "an end of another kind": 'echo \'{"exit_code": [], "reason": {}}\' > ../end.json',
    "an identity of another kind": "echo '{}' > ../sidecar.json",
    "an identity of init": 'echo "{\\"pid\\": 1, \\"start_time\\": 0, \\"boot_id\\": \\"x\\"}" > ../sidecar.json',
    "deep nesting": "python3 -c \"print('[' * 200000)\" > ../endpoints.json",
    "an attempt of another kind": "echo '{\"pods\": 7}' > ../../.attempt.json",
}
FOLDER_TRICKS = {
    "the pod's folder": 'rm -rf "$TUTTILAB_POD_DIR"',
    "the attempt's folder": 'rm -rf "${TUTTILAB_POD_DIR%/*}"',
    "the job's folder": 'cd /; d=${TUTTILAB_POD_DIR%/*}; rm -rf "${d%/*}"',
    "the lock": 'rm "$TUTTILAB_POD_DIR/lock"',
    "the files in it": 'rm -rf "$TUTTILAB_POD_DIR"/*',
    "a link in its place": 'rm -rf "$TUTTILAB_POD_DIR"; ln -s / "$TUTTILAB_POD_DIR"',
    "a file in its place": 'rm -rf "$TUTTILAB_POD_DIR"; touch "$TUTTILAB_POD_DIR"',
}


@pytest.fixture
def client(attacked: UserMachine) -> Iterator[Client]:
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        yield client


def sent(client: Client, name: str, script: str) -> JobView:
    return client.submit(JobRequest(name=name, pods=POD, command=("sh", "-c", script)))


def has_done_it(machine: UserMachine, job: JobView) -> bool:
    return (machine.home / f"done-{job.id}").exists()


def works(client: Client) -> None:
    """The control plane launches, and shows what was printed."""
    job = sent(client, "honest", "echo hello")
    assert client.wait(job.id, timeout_s=150).phase == "Succeeded"
    assert client.logs(job.id).lines == ("hello",)


def names_of(processes: list[psutil.Process], job_id: str) -> list[str]:
    """Command lines that hold the job's id, of the processes that are still there."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            found.append(" ".join(process.cmdline()))
    return [line for line in found if job_id in line]


@pytest.mark.parametrize("script", LOG_TRICKS.values(), ids=LOG_TRICKS)
def test_readers_of_a_log_wait_for_nothing_that_a_job_put_there(attacked: UserMachine, client: Client, script: str) -> None:
    job = sent(client, "trick", f"echo first; {script}{STAY}")
    eventually(lambda: has_done_it(attacked, job))

    with ThreadPoolExecutor(12) as readers:  # one that waited for the job would run into the client's limit
        shown = list(readers.map(lambda _: client.logs(job.id, limit=100), range(12)))
    token = attacked.runtime().token
    assert not any(token in line for page in shown for line in page.lines)
    works(client)
    client.cancel(job.id)
    assert client.wait(job.id, timeout_s=150).phase == "Cancelled"


@pytest.mark.parametrize("script", RECORD_TRICKS.values(), ids=RECORD_TRICKS)
def test_records_that_a_job_replaced_hold_up_nobody(attacked: UserMachine, client: Client, script: str) -> None:
    job = sent(client, "trick", f"cd ..; mkdir -p work; cd work; {script}{STAY}")
    eventually(lambda: client.job(job.id).phase == "Running" and has_done_it(attacked, job))

    works(client)
    client.cancel(job.id)
    assert client.wait(job.id, timeout_s=150).phase in ("Cancelled", "Failed")
    eventually(lambda: not names_of(attacked.processes(), job.id))


@pytest.mark.parametrize("script", FOLDER_TRICKS.values(), ids=FOLDER_TRICKS)
def test_a_job_that_removes_its_files_is_ended_and_not_started_again(attacked: UserMachine, client: Client, script: str) -> None:
    mark = f"300.{zlib.crc32(script.encode()) % 10**6}"
    job = sent(client, "gone", f"{script}; exec sleep {mark}")

    ended = client.wait(job.id, timeout_s=150)
    assert (ended.phase, len(ended.attempts)) == ("Failed", 1)
    assert "deleted or replaced its own folder" in (ended.reason or "")
    assert processes_with(mark) == []
    works(client)


def test_a_job_that_removed_its_folder_while_nobody_watched_is_found_after_the_restart(attacked: UserMachine) -> None:
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        wait = 'while [ ! -e "$HOME/gone" ]; do sleep 0.1; done'
        job = sent(client, "gone", f'{wait}; rm -rf "${{TUTTILAB_POD_DIR%/*}}"; exec sleep 301.5')
        eventually(lambda: client.job(job.id).phase == "Running")
    kill(runtime.pid)
    (attacked.home / "gone").touch()
    eventually(lambda: processes_with("301.5"))
    assert attacked.run("up", "--config", str(attacked.home / "tuttilab.yaml")).code == 0

    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        ended = client.wait(job.id, timeout_s=150)
        assert (ended.phase, len(ended.attempts)) == ("Failed", 1)
        assert processes_with("301.5") == []
        works(client)


def test_the_control_plane_ends_in_time_whatever_lies_in_a_pods_folder(attacked: UserMachine, client: Client) -> None:
    job = sent(client, "trick", f"{LOG_TRICKS['a FIFO']}; {RECORD_TRICKS['records as FIFOs']}{STAY}")
    eventually(lambda: has_done_it(attacked, job))
    process = psutil.Process(attacked.runtime().pid)
    with ThreadPoolExecutor(6) as readers:
        list(readers.map(lambda _: client.logs(job.id), range(6)))

    process.terminate()
    process.wait(150)
