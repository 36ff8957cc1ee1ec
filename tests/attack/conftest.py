"""A machine with a running control plane, for all attacks of a file: what one attack leaves must not hurt the next."""

from collections.abc import Iterator

import pytest

from tests.user_machine import CONFIG, UserMachine, made_machine


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMachine]:
    with made_machine(tmp_path_factory.mktemp("attacked")) as machine:
        config = machine.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        said = machine.run("up", "--config", str(config))
        assert said.code == 0, said
        yield machine
