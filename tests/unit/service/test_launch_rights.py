"""A volume that was taken off the list since the job was accepted: asked again before a pod is made."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.contract.clusters import growth, plan
from tuttilab.scheduler.config.file import StorageFile
from tuttilab.scheduler.config.storages import storages_of
from tuttilab.scheduler.domain.errors import LaunchRefused
from tuttilab.scheduler.domain.model import Mount
from tuttilab.scheduler.service.loop import Service

GANG = replace(plan("job", "true", members=2, work={"mounts": (Mount("/data", "claim", "work", "", True),)}), group="quant")


def of_site(**groups: str) -> Service:
    """With what is asked of it here."""
    config: Any = SimpleNamespace(storages=storages_of([StorageFile(claim="work", groups=groups)]))
    return cast("Service", SimpleNamespace(config=config))


def test_what_the_group_may_is_launched() -> None:
    Service.check_launch(of_site(quant="rw"), GANG)
    Service.check_launch(of_site(research="rw"), plan("job", "true"))


@pytest.mark.parametrize(("groups", "what"), [({"quant": "r"}, "write to"), ({"research": "rw"}, "mount")])
def test_what_it_may_no_more_ends_the_job_with_the_reason(groups: dict[str, str], what: str) -> None:
    with pytest.raises(LaunchRefused, match=f"do not let group 'quant' {what} claim 'work' any more") as refused:
        Service.check_launch(of_site(**groups), GANG)

    assert refused.value.permanent


def test_a_gang_that_runs_grows_with_what_it_has() -> None:
    Service.check_launch(of_site(research="rw"), growth(GANG, 2))
