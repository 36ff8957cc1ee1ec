"""A cell and a notebook become jobs from where one works: menus, toolbar, launcher, after a form with the dry run's verdict."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.chromium import close_page
from tests.e2e.lab.test_box import box, notebook, opened, run_cell
from tests.e2e.lab.test_looks import serious
from tests.lab import Lab, open_lab, pictures
from tests.user_machine import eventually
from tuttilab.scheduler.domain.wire import JobView

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]


def form(page: Page) -> Locator:
    return page.get_by_role("dialog")


def named(lab: Lab, name: str) -> JobView | None:
    return next((job for job in lab.client.jobs(all=True, text=name).jobs if job.name == name), None)


@pytest.mark.feature("B23")
def test_a_cell_becomes_a_job_by_its_menu_and_its_names_travel(browser: Browser, lab: Lab) -> None:
    page = open_lab(browser, lab)
    opened(page, lab, notebook(lab, "cells", "rate = 21", "rate * 2"))
    run_cell(page)
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(1).click(button="right")
    page.get_by_role("menuitem", name="Run This Cell as a Job…").click()
    expect(form(page).get_by_role("status")).to_contain_text("starts")
    form(page).get_by_label("CPUs").fill("4000")
    expect(form(page).get_by_role("status")).to_contain_text("refused")
    form(page).get_by_label("CPUs").fill("1")
    form(page).get_by_label("Name").fill("my cell")
    expect(form(page).get_by_role("status")).to_contain_text("starts")
    page.screenshot(path=pictures() / "form-cell.png")
    assert serious(page, ".jp-Dialog") == []
    form(page).get_by_role("button", name="Submit").click()

    expect(page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(1)).to_contain_text("%%submit --name 'my cell'")
    expect(box(page)).to_contain_text("Succeeded")
    expect(page.locator(".jp-OutputArea-output").get_by_text("42", exact=True)).to_be_visible()
    assert lab.until(named(lab, "my cell") or lab.submit("none", "false"), "Succeeded").name == "my cell"
    close_page(page)


@pytest.mark.feature("B23")
def test_a_notebook_becomes_a_job_by_its_menu_and_by_its_toolbar(browser: Browser, lab: Lab) -> None:
    path = notebook(lab, "nightly report", "print('made')")
    page = open_lab(browser, lab)
    page.locator('.lm-TabBar-tab[data-id="filebrowser"]').click()
    page.locator(".jp-DirListing-item", has_text=path.name).click(button="right")
    page.get_by_role("menuitem", name="Submit Notebook as Job…").click()
    expect(form(page).get_by_label("Name")).to_have_value("nightly report")
    expect(form(page).get_by_role("status")).to_contain_text("starts")
    form(page).get_by_label("Name").fill("by-menu")
    form(page).get_by_role("button", name="Submit").click()
    eventually(lambda: named(lab, "by-menu"))

    opened(page, lab, path)
    page.get_by_role("button", name="Submit Notebook as Job…").click()
    expect(form(page).get_by_role("status")).to_contain_text("starts")
    form(page).get_by_label("Name").fill("by-button")
    form(page).get_by_role("button", name="Submit").click()
    eventually(lambda: named(lab, "by-button"))
    close_page(page)


def test_the_launcher_leads_to_the_jobs(browser: Browser, lab: Lab) -> None:
    page = open_lab(browser, lab)
    page.locator('.lm-TabBar-tab[data-id="filebrowser"]').click()
    expect(page.locator("#tuttilab-panel")).not_to_be_visible()
    page.locator(".jp-LauncherCard", has_text="Show Jobs, Quota and DAGs").click()
    expect(page.locator("#tuttilab-panel")).to_be_visible()
    close_page(page)
