"""A zip file as the code of a job: it runs, and whoever runs the job again runs the same code."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.user_machine import UserMachine
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

MAIN = (sys.executable, "$(TUTTILAB_CODE_DIR)/pkg/main.py")


@pytest.fixture
def client(running: UserMachine) -> Iterator[Client]:
    runtime = running.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        yield client


def zip_of(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(f"pkg/{name}.py", text)
    return buffer.getvalue()


def job_with(code: str, retries: int = 0) -> JobRequest:
    pod = PodRequest(cpus="100m", memory="64Mi")
    return JobRequest(name="zipped", pods=(pod,), command=MAIN, code=code, retries=retries)


def printed(client: Client, job_id: str) -> tuple[str, tuple[str, ...]]:
    ended = client.wait(job_id, timeout_s=150)
    return ended.phase, client.logs(job_id).lines


@pytest.mark.feature("J06")
def test_a_job_that_is_run_again_gets_the_code_it_had(client: Client) -> None:
    first = client.put_artifact(zip_of(main="import version\nprint(version.NAME)\n", version="NAME = 'first'\n"))
    job = client.submit(job_with(first))
    assert printed(client, job.id) == ("Succeeded", ("first",))
    second = client.put_artifact(zip_of(main="import version\nprint(version.NAME)\n", version="NAME = 'second'\n"))

    assert printed(client, client.submit(job_with(second)).id) == ("Succeeded", ("second",))
    again = client.retry(job.id)
    assert client.definition(again.id).code == first
    assert printed(client, again.id) == ("Succeeded", ("first",))


@pytest.mark.feature("J06")
def test_the_next_attempt_has_none_of_the_changes_of_the_one_before(client: Client) -> None:
    changes = (
        "import os, pathlib, sys\n"
        "here = pathlib.Path(__file__)\n"
        "print('as sent', sorted(path.name for path in here.parent.iterdir()))\n"
        "here.write_text('print(\"changed\")')\n"
        "(here.parent / 'more.py').touch()\n"
        "sys.exit(os.environ['TUTTILAB_ATTEMPT'] == '1')\n"
    )
    job = client.submit(job_with(client.put_artifact(zip_of(main=changes)), retries=1))

    ended = client.wait(job.id, timeout_s=150)
    assert (ended.phase, [attempt.phase for attempt in ended.attempts]) == ("Succeeded", ["Failed", "Succeeded"])
    assert {client.logs(job.id, attempt=number).lines for number in (1, 2)} == {("as sent ['main.py']",)}


@pytest.mark.feature("J06")
def test_a_job_whose_zip_leads_out_of_its_folder_does_not_start(client: Client, running: UserMachine) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("pkg/main.py", "print('ran')")
        file.writestr("../../../../escape", "x")
    job = client.submit(job_with(client.put_artifact(buffer.getvalue())))

    ended = client.wait(job.id, timeout_s=150)
    assert ended.phase == "Failed"
    assert "the name '../../../../escape'" in " ".join((ended.reason or "", *client.logs(job.id).lines))
    assert not list(running.state.rglob("escape"))
