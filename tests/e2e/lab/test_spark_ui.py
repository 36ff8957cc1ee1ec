"""Spark's own pages of a real session, through a real Jupyter server, asked as browsers, as strangers and as hostile pages ask."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.chromium import close_page
from tests.e2e.lab.test_box import notebook, run_cell
from tests.e2e.lab.test_box import opened as opened_notebook
from tests.lab import TOKEN, Lab, made_lab, open_lab, saved_outputs
from tests.user_machine import eventually
from tuttilab.jupyter_ext.spark_ui import PAGES, checked
from tuttilab.scheduler.domain.errors import Refused
from tuttilab.scheduler.domain.requests import SparkRequest

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with made_lab(tmp_path_factory.mktemp("spark-ui")) as lab:
        for name, ui in (("default", True), ("plain", False)):
            lab.client.spark_start(SparkRequest(name=name, cpus=1, memory="1Gi", ui=ui))
        eventually(lambda: all(view.is_ready for view in lab.client.spark_sessions()))
        yield lab
        for name in ("default", "plain"):
            lab.client.spark_stop(name)


@pytest.fixture
def signed_in(lab: Lab) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=lab.url, trust_env=False, timeout=150) as client:
        client.get("/lab", params={"token": TOKEN}, follow_redirects=True)
        yield client


@pytest.fixture
def stranger(lab: Lab) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=lab.url, trust_env=False, timeout=150) as client:
        yield client


def opened(client: httpx.Client) -> str:
    """The path of the pages."""
    answer = client.get("/tuttilab/spark/default/ui")
    assert answer.status_code == 303, answer.text
    path = str(answer.headers["location"])
    assert path.startswith(f"{PAGES}/")
    assert path.endswith("/jobs/")
    return path.removesuffix("/jobs/")


@pytest.mark.feature("M01")
def test_pages_come_sandboxed_and_without_cookies(signed_in: httpx.Client) -> None:
    root = opened(signed_in)

    answer = signed_in.get(f"{root}/jobs/")

    assert (answer.status_code, "Spark Jobs" in answer.text) == (200, True)
    assert f'href="{root}/stages/"' in answer.text
    policies = answer.headers.get_list("content-security-policy")
    assert any(policy.startswith("sandbox allow-scripts") for policy in policies)
    assert "allow-same-origin" not in "".join(policies)
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in answer.headers
    assert opened(signed_in) == root
    # A redirect of Spark stays within its pages, and is not followed here.
    moved = signed_in.get(f"{root}/")
    assert (moved.status_code, moved.headers["location"]) == (302, f"{root}/jobs/")


@pytest.mark.feature("M01")
def test_strangers_get_neither_pages_nor_the_way_to_them(signed_in: httpx.Client, stranger: httpx.Client) -> None:
    root = opened(signed_in)

    for path in ("/tuttilab/spark/default/ui", f"{root}/jobs/", f"{root}/environment/", f"{root}/"):
        assert stranger.get(path).status_code in (302, 403), path
    assert "login" in stranger.get(f"{root}/jobs/").headers.get("location", "login")
    # Scripts and data are for whoever knows the path, as a page of no origin sends no cookies.
    assert stranger.get(f"{root}/static/webui.js").status_code == 200
    asks = {"Origin": "null", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-requested-with"}
    assert stranger.options(f"{root}/api/v1/applications", headers=asks).status_code == 204
    assert [stranger.options(f"{root}/{path}", headers=asks).status_code for path in ("jobs/", "")] == [404, 404]
    guessed = f"{PAGES}/{'A' * 22}"
    assert (stranger.get(f"{guessed}/static/webui.js").status_code, signed_in.get(f"{guessed}/jobs/").status_code) == (404, 404)
    for method in ("POST", "PUT", "DELETE"):
        assert signed_in.request(method, f"{root}/jobs/").status_code in (403, 405)


def test_what_is_not_there_is_said_in_a_sentence(signed_in: httpx.Client) -> None:
    plain = signed_in.get("/tuttilab/spark/plain/ui")
    none = signed_in.get("/tuttilab/spark/none/ui")

    assert plain.json()["message"] == "The Spark session plain serves no pages; `%spark start plain --ui --restart` turns them on."
    assert (none.status_code, none.json()["message"]) == (404, "There is no Spark session 'none'; `%spark start none` starts one.")


def test_the_request_never_says_where_to(signed_in: httpx.Client, lab: Lab) -> None:
    root = opened(signed_in)
    port = lab.client.spark_endpoint("default").port
    tries = [
        f"/tuttilab/spark/http:%2F%2F127.0.0.1:{port}/ui",
        f"/tuttilab/spark/127.0.0.1:{port}/ui",
        "/tuttilab/spark/../jobs/ui",
        "/tuttilab/spark/%2e%2e%2fquota/ui",
        f"{root}/@127.0.0.1:{port}/",
        f"{root}//127.0.0.1:{port}/",
        f"{root}/http://127.0.0.1:{port}/",
        f"{root}/..//..//api/kernels",
        f"{root}/%2e%2e/%2e%2e/api/kernels",
    ]
    for path in tries:
        answer = signed_in.get(path)
        assert answer.status_code in (302, 400, 403, 404, 405), (path, answer.status_code, answer.text[:200])
        if answer.status_code == 302:
            assert answer.headers["location"].startswith(root), (path, answer.headers["location"])
    answer = signed_in.get(f"{root}/jobs/", headers={"Host": f"127.0.0.1:{port}", "X-Forwarded-Context": "https://evil.example"})
    assert "evil.example" not in answer.text


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254:8080",
        "0.0.0.0:4040",
        "224.0.0.1:4040",
        "metadata.example:4040",
        "127.0.0.1:80",
        "127.0.0.1:x",
        "4040",
        ":",
        "127.0.0.1@evil.example:4040",
        "127.0.0.1:4040/path",
        "http://evil.example:4040",
        "[fe80::1]:4040",
        "127.1:4040",
        "2130706433:4040",
    ],
)
def test_addresses_that_no_session_has_are_refused(address: str) -> None:
    with pytest.raises(Refused, match="as the address of its pages, which is none"):
        checked(address)


def test_addresses_of_sessions_pass() -> None:
    assert [checked(one) for one in ("127.0.0.1:4040", "http://10.0.0.7:40001/", "[fd00::7]:4040")] == [
        "127.0.0.1:4040",
        "10.0.0.7:40001",
        "[fd00::7]:4040",
    ]


@pytest.mark.feature("M01")
def test_a_browser_shows_them_and_they_cannot_reach_lab(lab: Lab, browser: Browser) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{lab.url}/lab?token={TOKEN}")
    page.goto(f"{lab.url}/tuttilab/spark/default/ui")
    expect(page.get_by_text("Spark Jobs").first).to_be_visible(timeout=150_000)
    # Drawn by a script, from data that the script fetched.
    page.goto(page.url.removesuffix("jobs/") + "executors/")
    try:
        expect(page.locator("#active-executors-table")).to_contain_text("driver", timeout=60_000)
    except AssertionError as error:
        raise AssertionError("\n".join(said)) from error
    assert page.evaluate("self.origin") == "null"
    reach = "() => fetch('/api/kernels', {credentials: 'include'}).then(answer => answer.status, () => 'refused')"
    assert page.evaluate(reach) == "refused"
    assert page.evaluate("() => { try { return document.cookie } catch { return 'refused' } }") == "refused"
    page.close()


@pytest.mark.feature("M01")
def test_a_notebook_links_them_where_this_browser_has_lab(lab: Lab, browser: Browser) -> None:
    page = open_lab(browser, lab)
    path = notebook(lab, "pages", "%spark ui")
    opened_notebook(page, lab, path)
    run_cell(page)
    link = page.get_by_role("link", name="Pages of Spark session default")
    expect(link).to_have_attribute("href", f"{lab.url}/tuttilab/spark/default/ui", timeout=150_000)
    with page.expect_popup(timeout=150_000) as popup:
        link.click()
    expect(popup.value.get_by_text("Spark Jobs").first).to_be_visible(timeout=150_000)
    # Elsewhere it is a link too: the kernel knows the server that started it.
    popup.value.close()
    page.keyboard.press("Control+s")
    (output,) = eventually(lambda: saved_outputs(path))
    as_served = f"http://localhost:{lab.port}/tuttilab/spark/default/ui"
    assert "".join(output["data"]["text/plain"]) == f"Pages of session default: {as_served}"
    assert f'href="{as_served}"' in "".join(output["data"]["text/html"])
    close_page(page)


def test_pages_end_with_their_session(lab: Lab, signed_in: httpx.Client) -> None:
    lab.client.spark_start(SparkRequest(name="short", cpus=1, memory="1Gi", ui=True))
    eventually(lambda: all(view.is_ready for view in lab.client.spark_sessions()))
    path = signed_in.get("/tuttilab/spark/short/ui").headers["location"]
    assert signed_in.get(path).status_code == 200
    job_id = lab.client.spark_endpoint("short").job_id
    lab.client.spark_stop("short")
    lab.client.wait(job_id, timeout_s=150)
    answer = eventually(lambda: found if (found := signed_in.get(path)).status_code == 404 else None)
    assert "The Spark session short has ended, and its pages with it." in answer.text
