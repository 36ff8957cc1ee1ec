"""A user's machine for each test, or one for all tests of a file, on which a control plane runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_machine import CONFIG, UserMachine, made_machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UserMachine]:
    with made_machine(tmp_path) as machine:
        yield machine


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMachine]:
    """A machine with a running control plane, for all tests of a file: two nodes, two GPUs that are only counted, two queues."""
    with made_machine(tmp_path_factory.mktemp("running")) as machine:
        config = machine.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        said = machine.run("up", "--config", str(config))
        assert said.code == 0, said
        yield machine
