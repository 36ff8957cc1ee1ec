"""A desk for each test, or one whose control plane runs for all tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desk import CONFIG, Desk, made_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with made_desk(tmp_path) as desk:
        yield desk


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose control plane runs, for all tests of a file: two nodes, two GPUs that only count, two queues."""
    with made_desk(tmp_path_factory.mktemp("running")) as desk:
        config = desk.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        said = desk.run("up", "--config", str(config))
        assert said.code == 0, said
        yield desk
