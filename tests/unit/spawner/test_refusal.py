"""What a user of the hub sees of an error, and what only the hub's log has."""

import pytest
from jupyterhub.spawner import SpawnException

from tuttilab.scheduler.domain.requests import NotebookRequest
from tuttilab.spawner.notebook_jobs import NotebookJobs


@pytest.mark.parametrize(("url", "token"), [("http://10.0.0.7:9321", ""), ("", "secret"), ("10.0.0.7", "secret")])
async def test_a_hub_that_is_not_set_up_is_no_fault_of_the_users_choice_and_shows_no_address(url: str, token: str) -> None:
    with pytest.raises(SpawnException) as refused:
        await NotebookJobs(url, token).admit(NotebookRequest(owner="ann"), 1.0, print)

    assert (refused.value.status_code, refused.value.reason) == (503, "control-plane")
    assert (
        refused.value.message
        == "The hub is not set up to ask the control plane; an admin has to check its log. Nothing was started."
    )
    assert "control_url or control_token of the hub" in str(refused.value.log_message)
