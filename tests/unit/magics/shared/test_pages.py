"""Where `%spark ui` sends people: through the Jupyter server that runs the kernel, to the session itself where there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tuttilab.magics.shared.pages import MIME, Pages, server_address

HERE = os.getpid()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def served(folder: Path, **more: object) -> None:
    said = {"pid": HERE, "url": "http://127.0.0.1:8889/a/", "token": "t", **more}
    (folder / f"jpserver-{HERE}.json").write_text(json.dumps(said))


def test_the_server_that_started_the_kernel_is_found(runtime: Path) -> None:
    served(runtime)
    for environ, parent in (({"JPY_PARENT_PID": str(HERE)}, 1), ({}, HERE), ({"JPY_PARENT_PID": "1"}, HERE)):
        assert server_address(environ, parent) == "http://127.0.0.1:8889/a/"


@pytest.mark.parametrize("more", [{"pid": 1}, {"url": None}, {"url": "javascript:alert(1)//"}, {"url": "http://127.0.0.1:8889"}])
def test_what_is_no_address_of_the_parent_is_none(runtime: Path, more: dict[str, object]) -> None:
    served(runtime, **more)
    assert server_address({}, HERE) is None
    (runtime / f"jpserver-{HERE}.json").write_text("[")
    assert server_address({}, HERE) is None
    assert server_address({}, 1) is None


def test_on_a_hub_it_is_the_users_server(runtime: Path) -> None:
    environ = {"JUPYTERHUB_SERVICE_PREFIX": "/user/ann/", "JPY_PARENT_PID": "7"}
    assert server_address(environ, HERE) == "/user/ann/"
    public = {**environ, "JUPYTERHUB_PUBLIC_URL": "https://hub.example/user/ann/"}
    assert server_address(public, HERE) == "https://hub.example/user/ann/"


def test_with_a_server_it_is_a_link_and_without_one_it_says_who_can_open_it() -> None:
    through = Pages("wide", "127.0.0.1:4040", "http://127.0.0.1:8889/a/")
    bundle = through._repr_mimebundle_()
    assert bundle[MIME] == {"version": 1, "session": "wide"}
    assert 'href="http://127.0.0.1:8889/a/tuttilab/spark/wide/ui"' in bundle["text/html"]
    assert bundle["text/plain"] == "Pages of session wide: http://127.0.0.1:8889/a/tuttilab/spark/wide/ui"
    assert "below the address at which you reach the hub" in repr(Pages("wide", "127.0.0.1:4040", "/user/ann/"))
    plain = Pages("wide", "127.0.0.1:4040", None)._repr_mimebundle_()
    assert list(plain) == ["text/plain"]
    assert plain["text/plain"].startswith("http://127.0.0.1:4040/ has the pages of session wide, for a browser on the machine")
