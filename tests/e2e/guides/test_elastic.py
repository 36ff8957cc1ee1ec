"""`docs/guides/elastic.md`: its worker and its commands run as they stand, in a new home on two cores."""

from __future__ import annotations

import re

import pytest

from tests.e2e.guides.shell import GUIDES, blocks, output_of
from tests.user_machine import UserMachine

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]


@pytest.mark.feature("C01", "S16")
def test_the_worker_of_the_guide_does_each_piece_once_and_says_how_many_workers_it_can_use(machine: UserMachine) -> None:
    guide = (GUIDES / "elastic.md").read_text()
    (worker,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (machine.home / "worker.py").write_text(worker)

    shown = output_of(machine, blocks(guide))

    assert "20" in [line.strip() for line in shown.splitlines()]
    assert re.search(r"^asks for +[1-9][0-9]* workers$", shown, re.MULTILINE), shown
