"""The hub of these tests: the guide's own snippet, and what differs from one run to the next, which comes in a variable."""

import json
import os
from typing import Any

from tests.e2e.hub.common_config import configure
from tests.e2e.hub.guide import CONTROL_URL, blocks

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821  JupyterHub gives it to its configuration
GIVEN = json.loads(os.environ["TEST_HUB"])

exec(blocks("python")[0].replace(CONTROL_URL, GIVEN["control_url"]))  # noqa: S102  what people are told to write is what runs here

configure(c, GIVEN)
c.JupyterHub.hub_bind_url = GIVEN["hub_url"]

c.TuttiLocalSpawner.homes = f"{GIVEN['folder']}/homes"
c.TuttiLocalSpawner.patience_s = GIVEN["patience_s"]
c.TuttiLocalSpawner.cmd = GIVEN["server_command"]
c.TuttiLocalSpawner.args = ["--allow-root"]
# Where an installed package has it, an editable one does not.
c.TuttiLocalSpawner.environment = {"JUPYTER_CONFIG_PATH": GIVEN["jupyter_config"]}
c.TuttiLocalSpawner.poll_interval = 1
c.TuttiLocalSpawner.interrupt_timeout = 3
c.TuttiLocalSpawner.consecutive_failure_limit = 3
for trait, given in GIVEN["traits"].items():
    setattr(c.TuttiLocalSpawner, trait, given)
