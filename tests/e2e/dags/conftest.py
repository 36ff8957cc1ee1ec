"""One control plane for all tests of graphs: two nodes, two GPUs that only count."""

from collections.abc import Iterator

import pytest

from tests.user_machine import CONFIG, UserMachine, made_machine


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMachine]:
    with made_machine(tmp_path_factory.mktemp("dags")) as machine:
        config = machine.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        said = machine.run("up", "--config", str(config))
        assert said.code == 0, said
        yield machine
