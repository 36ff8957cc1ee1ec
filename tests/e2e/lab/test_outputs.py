"""What a job shows appears in its cell, in a notebook in Lab: figures, HTML, tables."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.chromium import close_page
from tests.e2e.lab.test_box import box, notebook, opened, run_cell
from tests.lab import Lab, open_lab, pictures
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

CELL = """%%submit --memory 1Gi
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display

plt.plot([1, 3, 2])
plt.show()
display(HTML("<b class='from-the-job'>in <i>bold</i></b>"))
pd.DataFrame({"name": ["ann", "bob"], "score": [7, 12]})
"""


@pytest.mark.feature("B20")
def test_figures_html_and_tables_of_a_job_appear_in_its_cell(browser: Browser, lab: Lab) -> None:
    page = open_lab(browser, lab)
    opened(page, lab, notebook(lab, "rich", CELL))
    run_cell(page)
    expect(box(page)).to_contain_text("Succeeded", timeout=120_000)
    outputs = page.locator(".jp-Notebook .jp-CodeCell").first.locator(".jp-OutputArea-output")

    figure = outputs.locator("img").first
    expect(figure).to_be_visible()
    is_drawn = "image => image.complete && image.naturalWidth > 100 && image.naturalHeight > 100"
    eventually(lambda: figure.evaluate(is_drawn))
    expect(outputs.locator("b.from-the-job i")).to_have_text("bold")
    table = outputs.locator("table")
    expect(table.locator("th")).to_have_text(["", "name", "score", "0", "1"])
    expect(table.locator("td")).to_have_text(["ann", "7", "bob", "12"])
    expect(outputs.get_by_text("Traceback")).to_have_count(0)
    page.screenshot(path=pictures() / "outputs.png")
    close_page(page)
