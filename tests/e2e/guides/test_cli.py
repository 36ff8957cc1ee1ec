"""`docs/guides/cli.md`: every block of commands runs as it stands, in order, in a new home on two cores."""

from __future__ import annotations

import pytest

from tests.e2e.guides.shell import GUIDES, blocks, output_of
from tests.user_machine import UserMachine

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]


@pytest.mark.feature("J14")
def test_every_command_of_the_guide_runs_as_written(machine: UserMachine) -> None:
    found = blocks((GUIDES / "cli.md").read_text())

    shown = output_of(machine, found)

    assert len(found) > 8
    for words in (
        "trained for 3 epochs",
        "the setting is 7",
        "monday",
        "report of 2026-11-22",
        "worker 1 of 2",
        "friday",
        "model.bin",
    ):
        assert words in shown, words
