from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_machine import UserMachine, made_machine

TWO_CORES = "clusters: [{name: here, kind: local, nodes: [{name: a, cpus: 2, memory: 8Gi}]}]\n"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UserMachine]:
    """A new home with a control plane on two cores."""
    with made_machine(tmp_path) as made:
        (made.home / "two-cores.yaml").write_text(TWO_CORES)
        assert made.run("up", "--config", str(made.home / "two-cores.yaml")).code == 0
        yield made
