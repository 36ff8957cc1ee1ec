"""One control plane for all tests of graphs: two nodes, two GPUs that only count."""

from collections.abc import Iterator

import pytest

from tests.desk import CONFIG, Desk, made_desk


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with made_desk(tmp_path_factory.mktemp("dags")) as desk:
        config = desk.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        said = desk.run("up", "--config", str(config))
        assert said.code == 0, said
        yield desk
