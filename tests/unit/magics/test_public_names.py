"""`tuttilab.magics` imports its public names on first use: each is found where it lives."""

import pytest

from tuttilab import magics


@pytest.mark.parametrize("name", magics.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert callable(getattr(magics, name))
