"""What of the control plane a page may reach at all."""

from __future__ import annotations

import re

import pytest

from tuttilab.jupyter_ext.handlers import ID, ROUTES


def matching(method: str, path: str) -> list[str]:
    return [route.path for route in ROUTES if route.method == method and re.fullmatch(route.path, path)]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/jobs"),
        ("POST", "/jobs:batch"),
        ("POST", "/jobs:dryrun"),
        ("DELETE", "/jobs"),
        ("DELETE", "/runs/abcdef"),
        ("POST", "/runs"),
        ("POST", "/dags"),
        ("PUT", "/artifacts/abcdef"),
        ("GET", "/artifacts/abcdef"),
        ("GET", "/spark/sessions/default/endpoint"),
        ("POST", "/shutdown"),
        ("POST", "/pods/report"),
        ("GET", "/changes"),
        ("GET", "/metrics"),
        ("GET", "/jobs/abcdef/cancel"),
    ],
)
def test_page_cannot_submit_fetch_files_or_secrets_or_stop_the_service(method: str, path: str) -> None:
    assert matching(method, path) == []


@pytest.mark.parametrize(
    "id", ["..", "../me", "a/b", "abc", "abcd%2fx", "abcd?x=1", "abcd#x", "a" * 65, "abcd\n", "äbcd", "abcd.x"]
)
def test_id_is_letters_digits_and_dashes(id: str) -> None:
    assert re.fullmatch(ID, id) is None


def test_routes_that_write_take_no_query() -> None:
    assert [route.path for route in ROUTES if route.method == "POST" and route.query] == []


def test_each_request_that_writes_has_a_key_of_its_own() -> None:
    writing = [route for route in ROUTES if route.method == "POST"]
    keys = [route.key() for route in writing for _ in range(3)]

    assert None not in keys
    assert len(set(keys)) == 3 * len(writing)
    assert {route.key() for route in ROUTES if route.method == "GET"} == {None}
