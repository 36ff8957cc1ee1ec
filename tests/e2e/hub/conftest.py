"""One hub for all tests of a file: starting one takes seconds."""

from collections.abc import Iterator

import pytest

from tests.e2e.hub.site import HubSite, made_hub
from tests.e2e.hub.users import amy, ann, bob

__all__ = ["amy", "ann", "bob"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with made_hub(tmp_path_factory.mktemp("hub")) as site:
        yield site
