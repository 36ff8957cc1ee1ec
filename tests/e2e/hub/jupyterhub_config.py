"""The hub of these tests: the guide's own snippet, and what differs from one run to the next, which comes in a variable."""

import json
import os
from typing import Any

from tests.e2e.hub.guide import CONTROL_URL, blocks

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821  JupyterHub gives it to its configuration
GIVEN = json.loads(os.environ["TEST_HUB"])

exec(blocks("python")[0].replace(CONTROL_URL, GIVEN["control_url"]))  # noqa: S102  what people are told to write is what runs here

c.JupyterHub.bind_url = GIVEN["url"]
c.JupyterHub.hub_bind_url = GIVEN["hub_url"]
c.JupyterHub.db_url = f"sqlite:///{GIVEN['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{GIVEN['folder']}/cookie_secret"
c.ConfigurableHTTPProxy.command = GIVEN["proxy_command"]
c.ConfigurableHTTPProxy.api_url = GIVEN["proxy_url"]
c.ConfigurableHTTPProxy.pid_file = f"{GIVEN['folder']}/proxy.pid"

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = GIVEN["password"]
c.Authenticator.allow_all = True
c.JupyterHub.load_groups = {name: {"users": users} for name, users in GIVEN["groups"].items()}

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
