"""Lines and configuration of LinkisMagic, as they are written there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuttilab.magics.linkis.config import VARIABLE, Config, read_config
from tuttilab.magics.linkis.lines import CELL, ONE, PYTHON_CELL, as_ours, one_statement_a_line, read_line
from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.spark.session import SessionRequest, as_quantity


@pytest.mark.parametrize(
    ("line", "quiet"),
    [
        ("", True),
        ("-q", True),
        ("-q true", True),
        ("-qfalse", False),
        ("-q False", False),
        ("--quiet=false", False),
        ("-q -o df", True),
        ("-o df -qfalse -p a.csv", False),
    ],
)
def test_q_is_read_in_every_spelling(line: str, quiet: bool) -> None:
    assert read_line("%%sql", CELL, line)["quiet"] is quiet


def test_glued_values_are_read_and_long_names_stay_whole() -> None:
    parsed = read_line("%%pyspark", PYTHON_CELL, "-oout -vx --upload y")
    assert (parsed["output"], parsed["var"], parsed["upload"]) == ("out", "x", "y")
    assert read_line("%kill", ONE, "")["id"] == "last"
    assert read_line("%kill", ONE, "-i3f2a")["id"] == "3f2a"


@pytest.mark.parametrize("line", ["-q perhaps", "-o 3", "-x", "-o", "rest"])
def test_what_is_wrong_is_named(line: str) -> None:
    with pytest.raises(UsageError, match="%%sql: "):
        read_line("%%sql", CELL, line)


@pytest.mark.parametrize(
    ("written", "path"),
    [("daily", "daily.csv"), ("/daily", "daily.csv"), ("a/b.parquet", "a/b.parquet"), ("a.b", "a.b.csv"), ("x.JSON", "x.JSON")],
)
def test_a_path_lies_below_the_workspace(written: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTTILAB_WORKSPACE", str(tmp_path))
    asked = as_ours(read_line("%%sql", CELL, f"-p {written}"))
    assert (asked["save"], asked["overwrite"]) == (str(tmp_path / path), True)
    assert as_ours(read_line("%%sql", CELL, f"-p {tmp_path / path}"))["save"] == str(tmp_path / path)


@pytest.mark.parametrize("written", ["../x", "/", ".", "a/../../x", "/../x"])
def test_a_path_out_of_the_workspace_is_refused_and_nothing_is_made(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTTILAB_WORKSPACE", str(tmp_path))
    with pytest.raises(UsageError, match="leads out of the workspace"):
        as_ours(read_line("%%sql", CELL, f"-p {written}"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("SELECT 1\nSELECT 2", "SELECT 1;\nSELECT 2;"),
        ("show tables\n\nuse x\n", "show tables;\n\nuse x;"),
        ("SELECT a\nFROM t\nWHERE b", "SELECT a\nFROM t\nWHERE b"),
        ("SELECT 1;\nSELECT 2", "SELECT 1;\nSELECT 2"),
        ("SELECT 1", "SELECT 1"),
        ("", ""),
    ],
)
def test_lines_of_sql_that_are_statements_need_no_semicolon(body: str, text: str) -> None:
    assert one_statement_a_line(body) == text


@pytest.mark.parametrize(
    ("written", "size"), [("4g", "4Gi"), ("1000M", "1000Mi"), ("2GB", "2Gi"), ("8Gi", "8Gi"), ("lots", "lots")]
)
def test_sizes_of_spark(written: str, size: str) -> None:
    assert as_quantity(written) == size


def test_no_file_is_no_configuration(tmp_path: Path) -> None:
    assert read_config({VARIABLE: str(tmp_path / "none.json")}).request is None


def test_the_configuration_takes_sizes_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "linkismagic.json"
    settings = {"driverMemory": "2g", "spark.driver.cores": "2", "wds.linkis.yarnqueue": "quant", "spark.sql.x": 1, "other": 2}
    file.write_text(json.dumps({"username": "me", "password": "hush", "jupyter_dir": str(tmp_path), "session_configs": settings}))
    config = read_config({VARIABLE: str(file)})
    assert config == Config(tmp_path, SessionRequest(2, "2Gi", "quant", conf=(("spark.sql.x", "1"),)), config.notes)
    assert "hush" not in " ".join(config.notes)
    assert config.notes[1] == "linkismagic.json: session_configs other have no counterpart in a session here."


def test_executors_of_the_configuration_are_those_of_the_session(tmp_path: Path) -> None:
    file = tmp_path / "linkismagic.json"
    sizes = {"spark.executor.instances": 4, "spark.executor.cores": "2", "spark.executor.memory": "4g", "spark.driver.memory": "2g"}
    file.write_text(json.dumps({"session_configs": sizes}))
    config = read_config({VARIABLE: str(file)})
    assert config.request == SessionRequest(memory="2Gi", executors=4, executor_cores=2, executor_memory="4g")
    assert config.notes == ()
    # The size of executors of which there are none is said, not dropped.
    file.write_text(json.dumps({"session_configs": {"executorMemory": "4g", "numExecutors": 0}}))
    config = read_config({VARIABLE: str(file)})
    assert config.request == SessionRequest()
    assert config.notes == ("linkismagic.json: session_configs executorMemory have no counterpart in a session here.",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        '{"session_configs": []}',
        '{"session_configs": {"driverCores": "two"}}',
        '{"session_configs": {"spark.executor.instances": "many"}}',
        "[" * 100_000,
        " " * 1_000_001,
    ],
)
def test_a_wrong_configuration_is_one_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "linkismagic.json"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_config({VARIABLE: str(file)})
    assert str(file) in str(raised.value)
    assert len(str(raised.value)) < 600
