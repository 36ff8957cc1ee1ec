"""Files that our containers write for the user's, and the one that they read of it."""

import json
import os
import stat
from pathlib import Path

import pytest

from tuttilab.sidecar.container.endpoints import Endpoints
from tuttilab.sidecar.container.prepare import write_accounts, write_secrets


def test_secrets_are_files_that_only_their_account_reads_also_after_a_second_start(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for text in ("first", "second"):
        write_secrets(str(folder), {"spark-secret": text})
        assert (folder / "spark-secret").read_text() == text
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "spark-secret").stat().st_mode) == 0o600


def test_a_secret_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "other").write_text("kept")
    (tmp_path / "own" / "spark-secret").symlink_to(tmp_path / "other")
    write_secrets(str(tmp_path / "own"), {"spark-secret": "new"})
    assert (tmp_path / "other").read_text() == "kept"
    assert (tmp_path / "own" / "spark-secret").read_text() == "new"


def test_the_number_that_a_pod_runs_as_has_a_name(tmp_path: Path) -> None:
    write_accounts(str(tmp_path / "passwd"), 1234, 1235, "/tuttilab/work")
    assert (tmp_path / "passwd").read_text() == ("root:x:0:0:root:/root:/bin/sh\nspark:x:1234:1235:spark:/tuttilab/work:/bin/sh\n")


def test_of_an_address_only_the_port_is_taken(tmp_path: Path) -> None:
    file = tmp_path / ".endpoints"
    told = Endpoints(str(file), "10.1.2.3")
    assert (told.look(), told.offers) == (False, {})
    file.write_text(json.dumps({"connect": "192.0.2.7:15002", "ui": "10.1.2.3:4040", "idle-since": "1764590000"}))
    assert told.look()
    assert told.offers == {"connect": "10.1.2.3:15002", "ui": "10.1.2.3:4040", "idle-since": "1764590000"}
    assert not told.look()
    file.write_text(json.dumps({"connect": "10.1.2.3:15002"}))
    assert told.look()
    assert told.offers == {"connect": "10.1.2.3:15002"}
    file.unlink()
    assert (told.look(), told.offers) == (False, {"connect": "10.1.2.3:15002"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"connect": 7}',
        '{"connect": "10.1.2.3:0"}',
        '{"connect": "a:65536"}',
        '{"connect": "http://a/"}',
        '{"a": "x"}',
    ],
)
def test_what_is_no_port_is_not_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "e").write_text(text)
    told = Endpoints(str(tmp_path / "e"), "10.1.2.3")
    told.look()
    assert told.offers == {}


def test_an_address_of_version_6_is_written_in_brackets(tmp_path: Path) -> None:
    (tmp_path / "e").write_text('{"connect": "[::1]:15002"}')
    told = Endpoints(str(tmp_path / "e"), "fd00::3")
    assert told.look()
    assert told.offers == {"connect": "[fd00::3]:15002"}


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "e")
    assert not Endpoints(str(tmp_path / "e"), "10.1.2.3").look()
