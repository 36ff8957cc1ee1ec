"""What a person sees and does in the sidebar, in a real browser against a real control plane."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from playwright.sync_api import Page, expect

from tests.lab import GPU, Lab, row
from tests.user_machine import eventually
from tuttilab.scheduler.domain.requests import PodRequest

pytestmark = pytest.mark.tier("browser")


@pytest.mark.feature("A09", "B02")
def test_rows_say_state_place_and_reason_as_they_change(page: Page, lab: Lab) -> None:
    running = lab.submit("train", "sleep", "1000", pods=(PodRequest(count=2, cpus=1, memory="64Mi", gpus=1),))
    waiting = lab.waiting("patient")

    expect(row(page, running)).to_contain_text("Running")
    expect(row(page, running)).to_contain_text("gpu-a")
    expect(row(page, running)).to_contain_text("2 × (1 CPU, 1 GPU)")
    expect(row(page, waiting)).to_contain_text("Waiting")
    reason = lab.client.job(waiting.id).wait
    assert reason is not None
    expect(row(page, waiting)).to_contain_text(f"place {reason.place} · {reason.sentence}")
    # What a screen reader says of the row.
    name = row(page, waiting).aria_snapshot().splitlines()[0]
    assert re.search(rf"\bpatient \d\d:\d\d · [^·]+ Waiting place {reason.place} · ", name), name

    lab.client.cancel(running.id)
    expect(row(page, running)).to_contain_text("Cancelled")
    lab.client.cancel(waiting.id)


def test_job_is_cancelled_by_click_after_a_question(page: Page, lab: Lab) -> None:
    job = lab.until(lab.submit("by-click", "sleep", "1000"), "Running")
    page.get_by_role("button", name="Cancel by-click").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("by-click stops")
    dialog.get_by_role("button", name="Keep it").click()
    assert lab.client.job(job.id).phase == "Running"

    page.get_by_role("button", name="Cancel by-click").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()

    expect(row(page, job)).to_contain_text("Cancelled")
    assert lab.client.job(job.id).phase == "Cancelled"


@pytest.mark.feature("B16")
def test_every_action_by_keyboard(page: Page, lab: Lab) -> None:
    older = lab.until(lab.submit("older", "sleep", "1000"), "Running")
    newer = lab.until(lab.submit("newer", "sh", "-c", "echo written; sleep 100"), "Running")
    expect(row(page, newer)).to_be_visible()

    page.get_by_role("searchbox", name="Filter jobs by name").focus()
    page.keyboard.press("Tab")  # the box for ended jobs
    for _ in range(8):  # grouped, five states, the order, the list: its first row
        page.keyboard.press("Tab")
    expect(row(page, newer)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(row(page, older)).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.get_by_role("dialog").get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(row(page, older)).to_contain_text("Cancelled")

    row(page, older).focus()
    page.keyboard.press("Home")
    expect(row(page, newer)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("log", name="Log of newer")).to_contain_text("written")

    row(page, newer).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="Cancel newer")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert lab.client.job(newer.id).phase == "Running"
    lab.client.cancel(newer.id)


def test_ended_job_runs_again_by_its_button(page: Page, lab: Lab) -> None:
    job = lab.until(lab.submit("once", "false"), "Failed")
    expect(row(page, job)).to_contain_text("it exited with code 1")
    page.get_by_role("button", name="Run once again").click()

    again = eventually(lambda: [found for found in lab.client.jobs(all=True).jobs if found.retry_of == job.id])[0]
    expect(row(page, again)).to_contain_text("Failed")


def test_log_follows_with_colours_and_links(page: Page, lab: Lab) -> None:
    script = r"""printf '\033[1;31mred\033[0m and plain\n'; echo see https://example.org/a?b=1.; i=0
        while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; sleep 3; echo the end"""
    job = lab.submit("talker", "sh", "-c", script)
    page.get_by_role("button", name="Logs of talker").click()
    log = page.get_by_role("log", name="Log of talker")

    expect(log).to_contain_text("line 3000")
    expect(log).to_contain_text("the end")
    log.focus()
    page.get_by_label("Follow").uncheck()
    log.evaluate("node => node.scrollTo(0, 0)")
    red = log.get_by_text("red", exact=True)
    expect(red).to_have_css("font-weight", "700")
    assert red.evaluate("node => node.style.color") == "var(--tl-ansi-1)"
    link = log.get_by_role("link")
    assert [link.get_attribute(name) for name in ("href", "rel", "target")] == [
        "https://example.org/a?b=1",
        "noopener noreferrer",
        "_blank",
    ]
    assert log.locator(".tl-Line").count() < 200
    lab.until(job, "Succeeded")


def test_log_of_each_rank_of_a_gang(page: Page, lab: Lab) -> None:
    pods = (PodRequest(role="worker", count=2, cpus="100m", memory="64Mi"),)
    job = lab.submit("pair", "sh", "-c", "echo I am $TUTTILAB_RANK; sleep 60", pods=pods)
    lab.until(job, "Running")
    page.get_by_role("button", name="Logs of pair").click()
    log = page.get_by_role("log", name="Log of pair")

    expect(log).to_contain_text("I am 0")
    page.get_by_label("Whose log").select_option("worker 1")
    expect(log).to_contain_text("I am 1")
    expect(log).not_to_contain_text("I am 0")
    lab.client.cancel(job.id)


@pytest.mark.feature("A09")
def test_quota_bars_follow_use(page: Page, lab: Lab) -> None:
    meter = page.get_by_role("meter", name="GPU in queue quant")
    expect(meter).to_have_attribute("aria-valuetext", "0 of 2, guaranteed 1")

    job = lab.submit("user-of-gpu", "sleep", "1000", queue="quant", pods=GPU)
    expect(meter).to_have_attribute("aria-valuetext", "1 of 2, guaranteed 1")
    expect(meter).to_have_attribute("aria-valuenow", "50")

    lab.client.cancel(job.id)
    expect(meter).to_have_attribute("aria-valuetext", "0 of 2, guaranteed 1")


def test_filter_by_name_and_without_ended_ones(page: Page, lab: Lab) -> None:
    wanted = lab.until(lab.submit("needle", "true"), "Succeeded")
    other = lab.until(lab.submit("hay", "true"), "Succeeded")
    expect(row(page, other)).to_be_visible()
    page.get_by_role("searchbox", name="Filter jobs by name").fill("needle")
    expect(row(page, other)).to_have_count(0)
    expect(row(page, wanted)).to_be_visible()

    page.get_by_label("Ended").uncheck()
    expect(page.get_by_text("No job fits this filter.")).to_be_visible()


def test_live_jobs_are_in_the_running_panel(page: Page, lab: Lab) -> None:
    job = lab.until(lab.submit("in-running", "sleep", "1000"), "Running")
    page.locator('.lm-TabBar-tab[data-id="jp-running-sessions"]').click()
    running = page.locator("#jp-running-sessions")

    expect(running).to_contain_text("in-running")
    lab.client.cancel(job.id)
    expect(running).not_to_contain_text("in-running")


@pytest.mark.feature("A09", "D09", "B10")
def test_graph_of_a_run_follows_its_nodes(page: Page, lab: Lab) -> None:
    def until(gate: str) -> str:
        return f"while [ ! -e {gate} ]; do sleep 0.1; done"

    def node(name: str, *command: str, after: str = "") -> str:
        shown = ", ".join(f'"{word}"' for word in command)
        pods = "[{role: worker, count: 1, cpus: 100m, memory: 64Mi}]"
        return f"  - {{name: {name}, job: {{pods: {pods}, command: [{shown}]}}, after: [{after}]}}\n"

    manifest = lab.machine.home / "nightly.yaml"
    manifest.write_text(
        "kind: Dag\nname: nightly\nnodes:\n"
        + node("features", "sh", "-c", until("gate-features"))
        + node("train", "sh", "-c", f"{until('gate-train')}; rm gate-train; exit 3", after="features")
        + node("report", "true", after="train")
    )
    said = lab.machine.run("dag", "run", str(manifest))
    assert said.code == 0, said
    # Not merely the first: that is another run's until the list has this one.
    page.locator(".tl-Run-main", has_text="nightly").first.click()

    graph = page.get_by_role("region", name="Graph of nightly")
    first, second, third = (graph.locator(f'[data-node="{name}"]') for name in ("features", "train", "report"))
    expect(first).to_contain_text("Running")
    expect(third).to_contain_text("Waiting")
    (lab.machine.home / "gate-features").touch()
    expect(first).to_contain_text("Succeeded")
    expect(second).to_contain_text("Running")
    (lab.machine.home / "gate-train").touch()
    expect(second).to_contain_text("Failed")
    expect(third).to_contain_text("Skipped")
    expect(page.locator(".tl-Run").first).to_contain_text("Failed")

    page.get_by_role("button", name="Go on", exact=True).click()
    expect(second).to_contain_text("Running")
    first.click()
    expect(page.get_by_role("log", name="Log of")).to_be_visible()
    lab.client.cancel_run(lab.client.run("nightly").id)


@pytest.mark.timeout(700)
def test_control_plane_that_dies_is_said_and_its_return_seen(page: Page, lab: Lab) -> None:
    job = lab.until(lab.submit("survivor", "sleep", "1000"), "Running")
    expect(row(page, job)).to_contain_text("Running")
    os.kill(lab.machine.runtime().pid, signal.SIGKILL)
    status = page.locator("#tuttilab-panel").get_by_role("status")

    expect(status).to_contain_text("The control plane is down, retrying…")
    expect(row(page, job)).to_be_visible()
    time.sleep(2)
    assert lab.machine.run("up").code == 0
    lab.reconnect()
    expect(status).to_be_empty()
    lab.client.cancel(job.id)
    expect(row(page, job)).to_contain_text("Cancelled")


@pytest.mark.timeout(700)
def test_control_plane_that_was_stopped_starts_by_a_click_and_not_before(page: Page, lab: Lab) -> None:
    assert lab.machine.run("down", "--now").code == 0
    status = page.locator("#tuttilab-panel").get_by_role("status")
    expect(status).to_contain_text("The control plane is down, retrying…")
    time.sleep(3)
    assert lab.machine.run("status", "--json").json["running"] is False

    status.get_by_role("button", name="Start it").click()

    expect(status).to_be_empty(timeout=30_000)
    lab.reconnect()
    job = lab.submit("after-start", "true")
    expect(row(page, job)).to_contain_text("Succeeded")
    lab.reset()
