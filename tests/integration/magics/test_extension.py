"""Loading and unloading the extension in a shell of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics import load_ipython_extension, unload_ipython_extension

OURS = {"line": {"submit", "jobs", "job", "quota", "attach", "spark", "sparksql"}, "cell": {"submit", "spark", "sparksql"}}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def known(shell: InteractiveShell) -> dict[str, set[str]]:
    return {kind: OURS[kind] & set(shell.magics_manager.magics[kind]) for kind in OURS}


def test_it_brings_all_magics_and_takes_them_away_again(shell: InteractiveShell) -> None:
    matchers = len(shell.Completer.custom_matchers)
    load_ipython_extension(shell)
    load_ipython_extension(shell)
    assert known(shell) == OURS
    assert len(shell.Completer.custom_matchers) == matchers + 1
    unload_ipython_extension(shell)
    assert known(shell) == {"line": set(), "cell": set()}
    assert len(shell.Completer.custom_matchers) == matchers


def test_help_names_every_option(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    load_ipython_extension(shell)
    shell.run_line_magic("submit", "--help")
    text = capsys.readouterr().out
    for option in ("--workers N", "--framework torch|tensorflow|xgboost|none", "--on-interrupt detach|cancel", "--map VAR"):
        assert option in text
    unload_ipython_extension(shell)
