"""Cells of Spark SQL in a notebook: coloured as SQL, and with results that are ordered, filtered and saved where they are shown."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, expect

from tests.chromium import close_page
from tests.e2e.lab.test_box import notebook, opened, run_cell
from tests.e2e.lab.test_looks import serious
from tests.lab import Lab, open_lab, pictures, saved_outputs
from tests.user_machine import eventually
from tuttilab.magics.spark.display import preview_of

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

SQL = """%%sparksql df --limit 3
-- the largest first
SELECT `a b`, lambda, 'it''s' AS s FROM trades WHERE n > 12 AND pass IS NOT NULL"""
PYTHON = "import math  # plain\nx = 'SELECT'"
# SQL with variables of the notebook, and in lines of Python.
VARIABLES = """%%sparksql
SELECT n::int, ':text' FROM :trades WHERE n > :least"""
LINES = """few = %sparksql SELECT lambda FROM t WHERE n < :most
class After: pass"""
# The colour of a piece of a cell's source.
COLOUR = """(cell, piece) => {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
        if (node.textContent.includes(piece)) {
            return getComputedStyle(node.parentElement).color;
        }
    }
    return 'none';
}"""


def source(page: Page, index: int) -> Locator:
    return page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(index)


def colour(cell: Locator, piece: str) -> str:
    return str(cell.evaluate(COLOUR, piece))


def plain(cell: Locator) -> str:
    return str(cell.evaluate("cell => getComputedStyle(cell).color"))


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_sql_cell_has_the_colours_of_sql_below_its_first_line(browser: Browser, lab: Lab, theme: str) -> None:
    lab.settings("@jupyterlab/apputils-extension/themes", {"theme": theme})
    page = open_lab(browser, lab)
    opened(page, lab, notebook(lab, "colours", SQL, PYTHON))
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    sql, python = source(page, 0), source(page, 1)
    expect(python.locator("span", has_text="import").first).to_be_visible(timeout=30_000)
    keyword, comment, string = colour(python, "import"), colour(python, "# plain"), colour(python, "'SELECT'")
    expect(sql.locator("span", has_text="WHERE").first).to_have_css("color", keyword)

    assert [colour(sql, word) for word in ("SELECT", "FROM", "AND", "-- the largest", "'it'")] == [keyword] * 3 + [comment, string]
    # Words of Python are names there, and `--limit` is no comment of SQL.
    assert keyword not in (colour(sql, "lambda"), colour(sql, "pass"))
    assert colour(sql, "limit") != comment
    page.screenshot(path=pictures() / f"sql-{theme.split()[-1].lower()}.png")

    # Without the magic it is Python again, and with it SQL.
    sql.click(position={"x": 5, "y": 8})
    page.keyboard.press("Control+Home")
    page.keyboard.press("Delete")
    expect(sql.locator("span", has_text="lambda").first).to_have_css("color", keyword)
    page.keyboard.type("%")
    expect(sql.locator("span", has_text="WHERE").first).to_have_css("color", keyword)
    assert colour(sql, "lambda") != keyword
    close_page(page)
    lab.settings("@jupyterlab/apputils-extension/themes", {"theme": "JupyterLab Light"})


def test_variables_in_sql_and_sql_in_one_line_have_their_colours(browser: Browser, lab: Lab) -> None:
    page = open_lab(browser, lab)
    opened(page, lab, notebook(lab, "variables", VARIABLES, LINES, PYTHON))
    sql, lines, python = source(page, 0), source(page, 1), source(page, 2)
    expect(python.locator("span", has_text="import").first).to_be_visible(timeout=30_000)
    keyword, string = colour(python, "import"), colour(python, "'SELECT'")
    expect(sql.locator("span", has_text="WHERE").first).to_have_css("color", keyword)
    expect(lines.locator("span", has_text="WHERE").first).to_have_css("color", keyword)

    variable = colour(sql, ":trades")
    assert variable not in (plain(sql), keyword, string)
    assert [colour(cell, name) for cell, name in ((sql, ":least"), (lines, ":most"))] == [variable] * 2
    assert (colour(sql, ":text"), colour(sql, "::int")) == (string, plain(sql))
    assert [colour(lines, word) for word in ("SELECT", "FROM", "class", "pass")] == [keyword] * 4
    assert colour(lines, "lambda") != keyword

    # A line that becomes one of SQL, and no more.
    lines.click()
    page.keyboard.press("Control+Home")
    for _ in "few = ":
        page.keyboard.press("Delete")
    expect(lines.locator("span", has_text="WHERE").first).to_have_css("color", keyword)
    page.keyboard.press("Delete")
    expect(lines.locator("span", has_text="lambda").first).to_have_css("color", keyword)
    close_page(page)


def names(output: Locator) -> list[str]:
    return output.locator("tbody td:nth-child(2)").all_inner_texts()


def csv(page: Page, output: Locator) -> str:
    with page.expect_download() as download:
        output.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "result.csv"
    return Path(download.value.path()).read_bytes().decode()


@pytest.mark.requires("java")
def test_a_result_is_ordered_filtered_and_saved_by_keyboard(browser: Browser, lab: Lab) -> None:
    values = "(9, 'Bea', 0.1D + 0.2D), (10, 'ann', NULL), (NULL, 'Carl', 3D), (2, 'a, \"b\"', 4D), (1, 'not shown', 5D)"
    cell = f"%%sparksql --limit 4\nSELECT * FROM VALUES {values} AS t(n, name, x)"
    path = notebook(lab, "results", cell)
    page = open_lab(browser, lab)
    opened(page, lab, path)
    run_cell(page)
    output = page.locator(".jp-OutputArea-output.tl-Result")
    expect(output).to_contain_text("first 4 rows × 3 columns, there are more", timeout=180_000)
    expect(output).to_contain_text("order, filter and CSV are of these rows only; --save NAME.csv writes all")
    heads = output.get_by_role("columnheader")
    assert names(output) == ["Bea", "ann", "Carl", 'a, "b"']

    # Numbers as numbers, NULL last; a third time as it came.
    button = heads.nth(0).get_by_role("button", name="n")
    button.focus()
    page.keyboard.press("Enter")
    expect(heads.nth(0)).to_have_attribute("aria-sort", "ascending")
    assert names(output) == ['a, "b"', "Bea", "ann", "Carl"]
    page.keyboard.press("Space")
    expect(heads.nth(0)).to_have_attribute("aria-sort", "descending")
    assert names(output) == ["ann", "Bea", 'a, "b"', "Carl"]
    expect(heads.nth(1)).to_have_attribute("aria-sort", "none")

    output.get_by_role("searchbox", name="Filter the 4 rows shown").fill("B")
    expect(output.get_by_role("status")).to_contain_text("2 of 4 rows")
    assert csv(page, output) == 'n,name,x\r\n9,Bea,0.30000000000000004\r\n2,"a, ""b""",4\r\n'
    output.get_by_role("searchbox").fill("")
    button.press("Enter")
    assert names(output) == ["Bea", "ann", "Carl", 'a, "b"']
    assert csv(page, output).splitlines()[2:4] == ["10,ann,", ",Carl,3"]
    assert serious(page, ".tl-Result") == []
    page.screenshot(path=pictures() / "result.png")

    # What is saved has no script, and a table that needs none of this.
    page.keyboard.press("Control+s")
    outputs = eventually(lambda: saved_outputs(path))
    saved = "".join(outputs[-1]["data"]["text/html"])
    assert "<script" not in saved
    assert "<button" not in saved
    assert saved.count("<tr>") == 5
    lab.reset()
    close_page(page)


def test_a_result_in_a_notebook_from_elsewhere_is_a_table_that_can_be_ordered(browser: Browser, lab: Lab) -> None:
    """Not trusted: its HTML goes through Lab's sanitizer."""
    table = pa.table({"n": [2, 10], "<img src=x onerror=alert(1)>": ["<script>alert(1)</script>", None]})
    other = preview_of(table, 10, is_whole=True)
    page = open_lab(browser, lab)
    alerts: list[str] = []

    def heard(dialog: Dialog) -> None:
        alerts.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", heard)
    opened(page, lab, notebook(lab, "foreign", "1", shown=[other]))
    output = page.locator(".jp-OutputArea-output.tl-Result").first
    expect(output.get_by_role("searchbox", name="Filter the rows")).to_be_visible()
    output.get_by_role("columnheader").nth(0).get_by_role("button").click()
    output.get_by_role("columnheader").nth(0).get_by_role("button").click()
    assert output.locator("tbody td:first-child").all_inner_texts() == ["10", "2"]
    expect(output.get_by_role("columnheader").nth(1)).to_contain_text("<img src=x onerror=alert(1)>")
    assert csv(page, output).splitlines()[1:] == ["10,", "2,<script>alert(1)</script>"]
    assert alerts == []
    close_page(page)
