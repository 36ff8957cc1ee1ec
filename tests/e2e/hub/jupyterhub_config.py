"""The hub of these tests, as docs/guides/hub.md shows it; what differs from one run to the next comes in variables."""

import json
import os
from typing import Any

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821  JupyterHub gives it to its configuration
GIVEN = json.loads(os.environ["TEST_HUB"])

c.JupyterHub.bind_url = GIVEN["url"]
c.JupyterHub.hub_bind_url = GIVEN["hub_url"]
c.JupyterHub.db_url = f"sqlite:///{GIVEN['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{GIVEN['folder']}/cookie_secret"
c.JupyterHub.log_level = "INFO"
c.ConfigurableHTTPProxy.command = GIVEN["proxy_command"]
c.ConfigurableHTTPProxy.api_url = GIVEN["proxy_url"]
c.ConfigurableHTTPProxy.pid_file = f"{GIVEN['folder']}/proxy.pid"

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = GIVEN["password"]
c.Authenticator.allow_all = True
c.JupyterHub.load_groups = {name: {"users": users} for name, users in GIVEN["groups"].items()}

# [guide: the control plane as a service of the hub]
c.JupyterHub.services = [{"name": "tuttilab", "url": GIVEN["control_url"], "api_token": GIVEN["service_token"]}]
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self", "access:services!service=tuttilab"]},
    {"name": "tuttilab", "services": ["tuttilab"], "scopes": ["list:users", "read:users:name", "read:servers"]},
]

# [guide: the spawner]
c.JupyterHub.spawner_class = "tutti-local"
c.TuttiLocalSpawner.control_url = GIVEN["control_url"]
c.TuttiLocalSpawner.control_token = GIVEN["service_token"]
c.TuttiLocalSpawner.homes = f"{GIVEN['folder']}/homes"
c.TuttiLocalSpawner.patience_s = GIVEN["patience_s"]
# [guide: end]
c.TuttiLocalSpawner.cmd = GIVEN["server_command"]
c.TuttiLocalSpawner.args = ["--allow-root"]
c.TuttiLocalSpawner.poll_interval = 1
c.TuttiLocalSpawner.interrupt_timeout = 3
c.TuttiLocalSpawner.consecutive_failure_limit = 3
