"""TensorBoard on a job's results, in a tab of Lab, through the user's own server and nobody else's."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.lab.test_notices import saved
from tests.lab import TOKEN, Lab, pictures, row
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(180)]

# Needs nothing but tensorboard: no framework has to be there to write what it shows.
WRITER = """
import os
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

writer = EventFileWriter(os.environ["RESULT_DIR"])
for step in range(20):
    value = Summary.Value(tag="loss", simple_value=1 / (step + 1))
    writer.add_event(Event(wall_time=1.8e9 + step, step=step, summary=Summary(value=[value])))
writer.close()
"""


class Stay(urllib.request.HTTPRedirectHandler):
    """Being sent to the sign-in page is an answer too."""

    def redirect_request(self, *_: object) -> None:
        return None


OPENER = urllib.request.build_opener(Stay)


def ask(lab: Lab, path: str, *, method: str = "GET", token: str | None = TOKEN) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"token {token}"} if token else {})
    body = b"{}" if method == "POST" else None
    try:
        with OPENER.open(urllib.request.Request(lab.url + path, body, headers, method=method), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.feature("N19")
def test_results_of_a_job_open_in_a_tab(page: Page, lab: Lab) -> None:
    script = lab.machine.home / "write.py"
    script.write_text(WRITER)
    job = lab.until(lab.submit("curves", "python", str(script)), "Succeeded")
    row(page, job).click()
    page.get_by_role("button", name="TensorBoard").click()

    frame = page.frame_locator(".tl-Board iframe")
    expect(frame.get_by_text("loss", exact=True).first).to_be_visible(timeout=60_000)
    page.screenshot(path=pictures() / "tensorboard.png")

    # It comes back with Lab; and when the job is gone it says what became of the results.
    workspaces = lab.machine.home / ".jupyter" / "lab" / "workspaces"
    eventually(lambda: f"tuttilab-board-{job.id}" in saved(workspaces))
    page.goto(page.url.split("?")[0])
    expect(page.locator(".lm-TabBar-tabLabel", has_text="TensorBoard of curves")).to_be_visible(timeout=60_000)
    expect(frame.get_by_text("loss", exact=True).first).to_be_visible(timeout=60_000)
    lab.client.delete(job.id)
    page.goto(page.url.split("?")[0])
    expect(page.locator(".tl-Board")).to_contain_text("The job was deleted, and its results with it.")


@pytest.mark.feature("N19")
def test_tensorboard_is_offered_where_there_are_event_files(page: Page, lab: Lab) -> None:
    plain = lab.until(lab.submit("plain", "sh", "-c", "echo 1 > $RESULT_DIR/out.csv"), "Succeeded")
    script = lab.machine.home / "write-more.py"
    script.write_text(WRITER)
    curves = lab.until(lab.submit("more-curves", "python", str(script)), "Succeeded")
    assert [json.loads(ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard")[1]) for job in (plain, curves)] == [
        {"has_events": False},
        {"has_events": True},
    ]

    row(page, curves).click()
    expect(page.get_by_role("button", name="TensorBoard")).to_be_visible()
    row(page, plain).click()
    expect(page.get_by_role("heading", name="plain")).to_be_visible()
    page.wait_for_timeout(500)
    expect(page.get_by_role("button", name="TensorBoard")).not_to_be_visible()


@pytest.mark.feature("N19")
def test_board_is_for_who_is_signed_in_and_knows_its_path(lab: Lab) -> None:
    job = lab.until(lab.submit("board", "true"), "Succeeded")
    status, body = ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")
    assert status == 200, body
    path = json.loads(body)["path"]

    assert ask(lab, path)[0] == 200
    assert ask(lab, path + "data/environment")[0] == 200
    assert ask(lab, path, token="wrong")[0] in (302, 403)
    assert ask(lab, path, token=None)[0] in (302, 403)
    assert ask(lab, "/tuttilab/tensorboard/" + "A" * 22 + "/")[0] == 404
    # Its own port, which every user of the machine can reach, gives nothing away without the path, and no command line tells it.
    (process,) = [one for one in lab.machine.processes() if "tuttilab.jupyter_ext.board_process" in one.cmdline()][-1:]
    assert all(path.split("/")[-2] not in word for word in process.cmdline())
    port = next(one.laddr.port for one in process.net_connections() if one.status == psutil.CONN_LISTEN)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/data/environment", timeout=10)
    # A second wish for the same results is the same board.
    assert json.loads(ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")[1])["path"] == path


def test_job_that_has_not_started_has_no_board(lab: Lab) -> None:
    job = lab.waiting("later")
    status, body = ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")

    assert (status, json.loads(body)["message"]) == (409, "Job later has not started, so it has no results yet.")
    lab.client.cancel(job.id)


def test_boards_end_with_the_server(lab: Lab) -> None:
    """Last in this file: the Lab of the session is started anew."""
    job = lab.until(lab.submit("board", "true"), "Succeeded")
    assert ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")[0] == 200
    boards = [one for one in lab.machine.processes() if "tuttilab.jupyter_ext.board_process" in one.cmdline()]
    assert boards

    lab.restart_server()

    eventually(lambda: not any(board.is_running() and board.status() != psutil.STATUS_ZOMBIE for board in boards))
