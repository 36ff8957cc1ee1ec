"""A job's page: what a person sees and does there, in a real browser against a real control plane."""

from __future__ import annotations

import re
import statistics
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.lab import SMALL, Lab, pictures, row
from tests.user_machine import eventually
from tuttilab.magics.submission.capture import capture
from tuttilab.magics.submission.request import Options, prepare
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

BURN = "import time\nend = time.time() + 150\nkept = bytearray(80 * 2**20)\nwhile time.time() < end: pass"


def opened(page: Page, job: JobView) -> Locator:
    row(page, job).locator(".tl-Job-main").click()
    found = page.locator(f"#tuttilab-job-{job.id}")
    expect(found).to_be_visible()
    return found


def fact(of: Locator, name: str) -> Locator:
    return of.locator(".tl-Pairs > div", has=of.page.get_by_text(name, exact=True)).locator("dd")


def submitted(lab: Lab, cell: str, **values: object) -> JobView:
    """As `%%submit` sends a cell with the notebook's variables."""
    submission = prepare(
        cell, "<%%submit In[7]>", capture(values), Options(name="a cell", cpus="100m", memory="256Mi"), lambda digest: digest[:40]
    )
    lab.client.put_artifact(submission.bundle)
    return lab.client.submit(submission.requests[0], key=submission.keys[0])


@pytest.mark.feature("B24")
def test_a_click_shows_what_when_where_and_what_was_sent_and_kept(page: Page, lab: Lab) -> None:
    job = lab.until(submitted(lab, "total = sum(numbers)\ntotal * factor\n", numbers=list(range(10_000)), factor=3), "Succeeded")

    shown = opened(page, job)

    expect(shown.get_by_role("heading", level=1)).to_have_text("a cell")
    expect(fact(shown, "State")).to_have_text("Succeeded")
    at = time.strftime("%H:%M:%S", time.localtime(job.created_at))
    expect(fact(shown, "Submitted")).to_have_text(at)
    expect(fact(shown, "Ended")).to_have_text(time.strftime("%H:%M:%S", time.localtime(job.ended_at)))
    expect(fact(shown, "Queue")).to_have_text("research")
    expect(fact(shown, "Where")).to_have_text(f"here: {job.attempts[0].pods[0].node}")
    expect(shown.locator(".tl-Code").first).to_contain_text("total = sum(numbers)\ntotal * factor")
    expect(shown.get_by_role("list", name="Names")).to_contain_text("numbers")
    expect(shown.get_by_role("list", name="Outputs")).to_contain_text("result")
    expect(shown.get_by_role("region", name="Attempts").get_by_role("row", name="worker 0")).to_contain_text("Ended")
    page.screenshot(path=pictures() / "page-cell.png")


DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DRAWS = f"""import base64, os, time
class Dot:
    def _repr_png_(self):
        return base64.b64decode("{DOT}")
    def _repr_html_(self):
        return "<script>document.title = 'hit'</script>"
    def __repr__(self):
        return "a dot"
display("some <b>text</b>")
while not os.path.exists(gate):
    time.sleep(0.1)
Dot()
"""


@pytest.mark.feature("B24")
def test_page_shows_the_pictures_and_texts_of_a_cell_as_they_come_and_runs_nothing(page: Page, lab: Lab) -> None:
    gate = lab.machine.home / "gate-draws"
    job = lab.until(submitted(lab, DRAWS, gate=str(gate)), "Running")

    shown = opened(page, job).get_by_role("region", name="Shown")

    expect(shown).to_contain_text("some <b>text</b>")  # while it runs
    gate.touch()
    picture = shown.get_by_role("img", name="a dot")
    expect(picture).to_have_attribute("src", f"data:image/png;base64,{DOT}")
    eventually(lambda: picture.evaluate("node => node.naturalWidth") == 1)
    expect(shown).to_contain_text("the value of the cell · text/html")
    assert page.title() != "hit"


@pytest.mark.feature("B24")
def test_page_of_a_job_that_burns_shows_its_cpu_and_memory(page: Page, lab: Lab) -> None:
    script = lab.machine.home / "burn.py"
    script.write_text(BURN)
    job = lab.until(lab.submit("burner", "python", str(script), pods=(PodRequest(count=2, cpus=1, memory="200Mi"),)), "Running")
    eventually(lambda: [len(pod.seconds) >= 3 for pod in lab.client.usage(job.id).pods] == [True, True])

    shown = opened(page, job)

    use = shown.get_by_role("region", name="CPU and memory")
    expect(use.get_by_role("img", name="Memory")).to_have_attribute(
        "aria-label", re.compile(r"worker 1: .* MiB of 200 MiB at most")
    )
    expect(use.locator("canvas")).to_have_count(2)
    expect(use.get_by_role("row", name="worker 0")).to_contain_text("200 MiB")
    page.wait_for_timeout(300)
    page.screenshot(path=pictures() / "page-usage.png")
    lab.client.cancel(job.id)


@pytest.mark.feature("B24", "B02")
def test_page_says_why_the_job_waits_and_afterwards_why_it_waited(page: Page, lab: Lab) -> None:
    job = lab.waiting("patient")
    wait = eventually(lambda: lab.client.job(job.id).wait)
    shown = opened(page, job)
    expect(shown.get_by_role("region", name="Why it waits")).to_contain_text(wait.sentence)
    expect(shown.get_by_role("region", name="Why it waits")).to_contain_text(f"Place {wait.place} in queue none.")
    expect(shown.get_by_role("log")).to_contain_text("The job waits, so it has written nothing yet.")

    time.sleep(2)
    lab.client.cancel(lab.holder)

    expect(shown.locator(".tl-Page-state")).to_have_text("Succeeded")
    expect(shown.get_by_role("region", name="Why it waited")).to_contain_text(wait.sentence)


def test_job_is_cancelled_run_again_copied_and_deleted_on_its_page(page: Page, lab: Lab) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    job = lab.until(lab.submit("by-page", "sleep", "1000"), "Running")
    shown = opened(page, job)
    shown.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    expect(shown.locator(".tl-Page-state")).to_have_text("Cancelled")
    shown.get_by_role("button", name="Copy id").click()
    eventually(lambda: page.evaluate("navigator.clipboard.readText()") == job.id)

    shown.get_by_role("button", name="Run again").click()
    again = eventually(lambda: [found for found in lab.client.jobs(all=True).jobs if found.retry_of == job.id])[0]
    lab.until(again, "Running")
    second = opened(page, again)
    fact(second, "Runs again").get_by_role("button").click()
    expect(shown).to_be_visible()
    lab.client.cancel(again.id)

    shown.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(f"#tuttilab-job-{job.id}")).to_have_count(0)
    expect(row(page, job)).to_have_count(0)
    assert job.id not in [found.id for found in lab.client.jobs(all=True, limit=1000).jobs]


TRIES = "n=$(cat tries 2>/dev/null || echo 0); echo $((n+1)) > tries; echo this is try $((n+1)); [ $n = 1 ] || exit 7"


@pytest.mark.feature("B24")
def test_each_attempt_has_its_pods_exit_code_and_log(page: Page, lab: Lab) -> None:
    folder = lab.machine.home / "tries"
    folder.mkdir()
    request = JobRequest(name="stubborn", command=("sh", "-c", TRIES), pods=SMALL, retries=1, workdir=str(folder))
    job = lab.until(lab.client.submit(request), "Succeeded")
    shown = opened(page, job)
    attempts = shown.get_by_role("region", name="Attempts")

    expect(attempts.locator("summary").first).to_contain_text("attempt 2")
    attempts.locator("summary").nth(1).click()
    expect(attempts.get_by_role("row", name="worker 0").nth(1)).to_contain_text("7")
    expect(shown.get_by_role("log")).to_contain_text("this is try 2")
    shown.get_by_label("Which attempt").select_option("attempt 1")
    expect(shown.get_by_role("log")).to_contain_text("this is try 1")


NOISY = r"""for i in $(seq 1 400); do echo "line $i of loss"; done; echo 'Traceback (most recent call last):'
echo 'ValueError: a value'; for i in $(seq 1 300); do echo "tail $i"; done
printf '%0400d end of a long line
' 7; sleep 100"""


@pytest.mark.feature("B24")
def test_log_is_searched_wrapped_downloaded_and_jumps_to_the_first_error(page: Page, lab: Lab) -> None:
    job = lab.until(lab.submit("noisy", "sh", "-c", NOISY), "Running")
    shown = opened(page, job)
    log = shown.get_by_role("log", name="Log of noisy")
    expect(log).to_contain_text("end of a long line")

    shown.get_by_role("button", name="First error").click()
    expect(log.locator(".tl-mod-current")).to_contain_text("Traceback (most recent call last):")
    log.focus()
    page.keyboard.press("Control+f")
    box = shown.get_by_role("searchbox", name="Search the log")
    expect(box).to_be_focused()
    page.keyboard.type("LOSS")
    count = shown.locator(".tl-LogBar-count")
    expect(count).to_have_text(re.compile(r"\d+ of 400"))
    box.fill("tail 30")
    expect(count).to_have_text("1 of 2")
    expect(log.locator(".tl-mod-current")).to_contain_text("tail 30")
    page.keyboard.press("Enter")
    expect(count).to_have_text("2 of 2")
    expect(log.locator(".tl-mod-current mark")).to_have_text("tail 30")
    expect(log.locator(".tl-mod-current")).to_contain_text("tail 300")
    page.keyboard.press("Enter")
    expect(count).to_have_text("1 of 2")
    page.keyboard.press("Shift+Enter")
    expect(count).to_have_text("2 of 2")
    box.fill("nowhere")
    expect(count).to_have_text("no match")
    page.keyboard.press("Escape")
    expect(box).to_have_value("")

    shown.get_by_label("Follow").check()
    long_line = log.locator(".tl-Line", has_text="end of a long line")
    expect(long_line).to_be_visible()
    assert long_line.evaluate("node => node.offsetHeight") < 20
    shown.get_by_label("Wrap").check()
    expect(long_line).to_be_in_viewport()
    eventually(lambda: long_line.evaluate("node => node.offsetHeight") > 30)
    assert log.evaluate("node => node.scrollWidth <= node.clientWidth")

    with page.expect_download() as saved:
        shown.get_by_role("button", name="Download the log").click()
    assert saved.value.suggested_filename == "noisy.log"
    text = Path(saved.value.path()).read_text()
    assert text.splitlines()[0] == "line 1 of loss"
    assert len(text.splitlines()) == 703
    shown.get_by_label("Wrap").uncheck()
    lab.client.cancel(job.id)


@pytest.mark.feature("B24", "J10")
def test_all_ranks_are_one_stream_with_their_names_or_one_is_chosen(page: Page, lab: Lab) -> None:
    pods = (PodRequest(role="worker", count=3, cpus="100m", memory="64Mi"),)
    # No later step has the same beginning, and none pushes these out of sight.
    talk = 'for i in 1 2 3 4 5; do echo "step $i of $TUTTILAB_RANK"; sleep 0.5; done; sleep 1000'
    job = lab.until(lab.submit("trio", "sh", "-c", talk, pods=pods), "Running")
    shown = opened(page, job)
    log = shown.get_by_role("log", name="Log of trio")

    for rank in range(3):
        line = log.locator(".tl-Line", has_text=f"step 4 of {rank}")
        expect(line.locator(".tl-Line-rank")).to_have_text(f"worker {rank}")
    shown.get_by_label("Whose log").select_option("worker 2")
    expect(log).to_contain_text("step 5 of 2")
    expect(log).not_to_contain_text("of 0")
    expect(log.locator(".tl-Line-rank")).to_have_count(0)
    lab.client.cancel(job.id)


# Rank 0 says 100 lines, then rank 1 says 20, then rank 0 another 100; each waits for the other.
TURNS = r"""say() { for i in $(seq 1 $2); do echo "$1 $i"; done; sleep 0.5; touch "$DONE/$1"; }
after() { while [ ! -e "$DONE/$1" ]; do sleep 0.05; done; }
if [ $TUTTILAB_RANK = 0 ]; then say first 100; after second; say third 100; else after first; say second 20; fi"""


@pytest.mark.feature("B24", "J10")
def test_ranks_stand_in_the_order_of_time_and_late_lines_move_nothing_that_is_read(page: Page, lab: Lab, tmp_path: Path) -> None:
    pods = (PodRequest(role="worker", count=2, cpus="100m", memory="64Mi"),)
    job = lab.until(lab.submit("turns", "sh", "-c", f"DONE='{tmp_path}'\n{TURNS}", pods=pods), "Succeeded")
    late: list[Route] = []
    page.route(re.compile(r"/logs\?rank=1&"), lambda route: late.append(route))
    shown = opened(page, job)
    log = shown.get_by_role("log", name="Log of turns")
    shown.get_by_label("Follow").check()
    expect(log.get_by_text("third 100", exact=True)).to_be_visible()
    shown.get_by_label("Follow").uncheck()
    log.evaluate("node => node.scrollTo(0, 110 * 18)")
    read = log.locator(".tl-Line", has_text=re.compile(r"third 15$"))
    expect(read).to_be_in_viewport()
    before = read.bounding_box()
    assert before is not None
    assert read.get_attribute("data-index") == "114"

    for route in late:
        route.continue_()
    expect(read).to_have_attribute("data-index", "134")

    after = read.bounding_box()
    assert after is not None
    assert abs(after["y"] - before["y"]) <= 1, (before, after)
    log.evaluate("node => node.scrollTo(0, 98 * 18)")
    expect(log.get_by_text("second 10", exact=True)).to_be_in_viewport()
    at = log.locator(".tl-Line").evaluate_all(
        "all => all.map(one => [+one.dataset.index, [...one.children].map(part => part.textContent).join(' ')])"
    )
    assert [text for index, text in sorted(at) if 99 <= index <= 120] == [
        "100 worker 0 first 100",
        *(f"{number} worker 1 second {number}" for number in range(1, 21)),
        "101 worker 0 third 1",
    ]
    log.evaluate("node => node.scrollTo(0, 0)")
    expect(log.get_by_text("first 1", exact=True)).to_be_in_viewport()


BAR = r"""printf 'begin\n'; i=0
while [ $i -lt 4000 ]; do i=$((i+1)); printf '\r\033[32m%3d%%\033[0m of the work' $i; sleep 0.25; done"""


@pytest.mark.feature("B21")
def test_a_progress_bar_is_live_in_the_log_tab(page: Page, lab: Lab) -> None:
    job = lab.until(lab.submit("bar", "sh", "-c", BAR), "Running")
    page.get_by_role("button", name="Logs of bar").click()
    log = page.locator(f"#tuttilab-log-{job.id}").get_by_role("log")
    bar = log.locator(".tl-mod-partial")

    expect(bar).to_contain_text("of the work")
    first = int(bar.inner_text().strip().split("%")[0])
    eventually(lambda: int(bar.inner_text().strip().split("%")[0]) > first + 3)
    expect(bar).to_have_count(1)
    assert bar.get_by_text(re.compile("^ *[0-9]+%$")).evaluate("node => node.style.color") == "var(--tl-ansi-2)"
    assert log.inner_text().count("of the work") == 1
    lab.client.cancel(job.id)


CLOCK = "import time\nwhile True:\n    print(f'\\r{time.time():.2f} on its clock', end='', flush=True)\n    time.sleep(0.1)"


@pytest.mark.feature("B21")
def test_the_state_in_the_log_tab_is_less_than_a_second_old(page: Page, lab: Lab) -> None:
    job = lab.until(lab.submit("clock", sys.executable, "-c", CLOCK), "Running")
    page.get_by_role("button", name="Logs of clock").click()
    bar = page.locator(f"#tuttilab-log-{job.id}").get_by_role("log").locator(".tl-mod-partial")
    expect(bar).to_contain_text("on its clock")

    def median_age() -> float:
        """Of the states that are seen in some seconds, each when it is seen first."""
        shown: dict[float, float] = {}
        while len(shown) <= 8:
            found = re.search(r"[0-9]+\.[0-9]+", bar.inner_text())
            if found:
                shown.setdefault(float(found[0]), time.time() - float(found[0]))
            page.wait_for_timeout(100)
        return statistics.median(shown.values())

    # The machine may stand still, and be busy with other work for a while.
    eventually(lambda: median_age() < 1.0)
    lab.client.cancel(job.id)
