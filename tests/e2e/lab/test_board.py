"""TensorBoard on a job's results, in a tab of Lab, through the user's own server and nobody else's."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import suppress

import psutil
import pytest
from playwright.sync_api import Dialog, Page, expect

from tests.e2e.lab.test_notices import saved
from tests.lab import TOKEN, Lab, pictures, row
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

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
        with OPENER.open(urllib.request.Request(lab.url + path, body, headers, method=method), timeout=150) as answer:
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
    expect(frame.get_by_text("loss", exact=True).first).to_be_visible(timeout=150_000)
    page.screenshot(path=pictures() / "tensorboard.png")

    # It comes back with Lab; and when the job is gone it says what became of the results.
    workspaces = lab.machine.home / ".jupyter" / "lab" / "workspaces"
    eventually(lambda: f"tuttilab-board-{job.id}" in saved(workspaces))
    page.goto(page.url.split("?")[0])
    expect(page.locator(".lm-TabBar-tabLabel", has_text="TensorBoard of curves")).to_be_visible(timeout=150_000)
    expect(frame.get_by_text("loss", exact=True).first).to_be_visible(timeout=150_000)
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
        urllib.request.urlopen(f"http://127.0.0.1:{port}/data/environment", timeout=150)
    # A second wish for the same results is the same board.
    assert json.loads(ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")[1])["path"] == path


HOSTILE = """
import os
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

here = os.environ["RESULT_DIR"]
names = ["<img src=x onerror=alert(1)>", "../../../etc/passwd", "<script>alert(2)</script>"]
writer = EventFileWriter(here)
for step in range(3):
    values = [Summary.Value(tag=name, simple_value=step) for name in names]
    writer.add_event(Event(wall_time=1.8e9 + step, step=step, summary=Summary(value=values)))
writer.close()
os.symlink("/etc", os.path.join(here, "out"))
os.mkdir(os.path.join(here, "zzz"))
os.mkfifo(os.path.join(here, "zzz", "events.out.tfevents.1"))
"""


def headers_of(lab: Lab, path: str) -> list[str]:
    request = urllib.request.Request(lab.url + path, headers={"Authorization": f"token {TOKEN}"})
    with OPENER.open(request, timeout=150) as answer:
        return list(answer.headers.get_all("Content-Security-Policy", []))


def test_what_a_job_wrote_is_data_of_no_origin_and_its_names_run_nothing(page: Page, lab: Lab) -> None:
    script = lab.machine.home / "hostile.py"
    script.write_text(HOSTILE)
    job = lab.until(lab.submit("hostile", "python", str(script)), "Succeeded")
    path = json.loads(ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")[1])["path"]

    def tags() -> object:
        return json.loads(ask(lab, path + "data/plugin/scalars/tags")[1])

    eventually(tags, 150)
    dialogs: list[str] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    page.goto(lab.url + path)
    expect(page.get_by_text("<img src=x onerror=alert(1)>", exact=True).first).to_be_visible(timeout=150_000)

    assert dialogs == []
    assert any("sandbox; default-src 'none'" in policy for policy in headers_of(lab, path + "data/plugin/scalars/tags"))
    assert not any("sandbox" in policy for policy in headers_of(lab, path))
    # The FIFO holds up neither the board nor the server.
    assert ask(lab, path + "data/environment")[0] == 200
    assert ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard")[0] == 200


HUGE = f"""{WRITER}
import struct
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
(path,) = [os.path.join(os.environ["RESULT_DIR"], name) for name in os.listdir(os.environ["RESULT_DIR"]) if "tfevents" in name]
head = struct.pack("<Q", 8 * 2**30)
with open(path, "ab") as file:
    if os.environ.get("FIRST"):
        # So many that a look at the file does not come to the huge one.
        for _ in range(30_000):
            size = struct.pack("<Q", 0)
            file.write(size + struct.pack("<II", masked_crc32c(size), masked_crc32c(b"")))
    file.write(head + struct.pack("<I", masked_crc32c(head)))
    file.truncate(file.tell() + 8 * 2**30)
"""
DAMAGED = f"""{WRITER}
(path,) = [os.path.join(os.environ["RESULT_DIR"], name) for name in os.listdir(os.environ["RESULT_DIR"]) if "tfevents" in name]
with open(path, "ab") as file:
    file.write(b"?" * 100)
"""


def memory_of_boards(lab: Lab) -> int:
    most = 0
    for one in lab.machine.processes():
        with suppress(psutil.NoSuchProcess):  # it may end at any time
            if "tuttilab.jupyter_ext.board_process" in one.cmdline():
                most = max(most, one.memory_info().rss)
    return most


def test_an_event_file_that_says_it_has_gigabytes_is_refused_in_a_sentence(page: Page, lab: Lab) -> None:
    script = lab.machine.home / "huge.py"
    script.write_text(HUGE)
    job = lab.until(lab.submit("huge", "python", str(script)), "Succeeded")

    status, body = ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")

    said = "has an entry of 8192 MiB, which TensorBoard would read whole; expected at most 64 MiB"
    assert (status, said in json.loads(body)["message"]) == (409, True)
    row(page, job).click()
    page.get_by_role("button", name="TensorBoard").click()
    expect(page.locator(".tl-Board")).to_contain_text(said, timeout=30_000)


def test_one_that_a_look_does_not_come_to_ends_its_board_within_its_memory_and_not_the_server(lab: Lab) -> None:
    script = lab.machine.home / "huge-later.py"
    script.write_text(HUGE)
    job = lab.until(lab.submit("huge-later", "env", "FIRST=1", "python", str(script)), "Succeeded")
    status, body = ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard", method="POST")
    most = 0

    def has_ended() -> bool:
        nonlocal most
        most = max(most, memory_of_boards(lab))
        return ask(lab, path + "data/environment")[0] == 404

    if status == 200:
        # It was quicker to start than to come to that entry.
        path = json.loads(body)["path"]
        eventually(has_ended)
        body = ask(lab, path)[1]

    assert most < 2**30
    assert "TensorBoard ended while it read these results: it needs more memory than it may have." in body.decode()
    assert ask(lab, f"/tuttilab/jobs/{job.id}/tensorboard")[0] == 200


def test_a_damaged_event_file_shows_what_stands_before_and_says_so(page: Page, lab: Lab) -> None:
    script = lab.machine.home / "damaged.py"
    script.write_text(DAMAGED)
    job = lab.until(lab.submit("damaged", "python", str(script)), "Succeeded")
    row(page, job).click()
    page.get_by_role("button", name="TensorBoard").click()

    note = page.locator(".tl-Board").get_by_role("status")
    expect(note).to_contain_text(" bytes; TensorBoard shows what stands before.", timeout=150_000)
    frame = page.frame_locator(".tl-Board iframe")
    expect(frame.get_by_text("loss", exact=True).first).to_be_visible(timeout=150_000)


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
