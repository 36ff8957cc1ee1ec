"""The hub of these tests: the snippets of both guides, and what differs from one run to the next, which comes in a variable."""

import json
import os
from typing import Any

from tests.e2e.hub.guide import CONTROL_URL, blocks

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821  JupyterHub gives it to its configuration
GIVEN = json.loads(os.environ["TEST_HUB"])

exec(blocks("python")[0].replace(CONTROL_URL, GIVEN["control_url"]))  # noqa: S102  what people are told to write is what runs here
exec(GIVEN["snippet"])  # noqa: S102

c.JupyterHub.bind_url = GIVEN["url"]
c.JupyterHub.db_url = f"sqlite:///{GIVEN['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{GIVEN['folder']}/cookie_secret"
c.ConfigurableHTTPProxy.command = GIVEN["proxy_command"]
c.ConfigurableHTTPProxy.api_url = GIVEN["proxy_url"]
c.ConfigurableHTTPProxy.pid_file = f"{GIVEN['folder']}/proxy.pid"

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = GIVEN["password"]
c.Authenticator.allow_all = True
c.JupyterHub.load_groups = {name: {"users": users} for name, users in GIVEN["groups"].items()}

c.TuttiSpawner.patience_s = GIVEN["patience_s"]
c.TuttiSpawner.poll_interval = 1
c.TuttiSpawner.http_timeout = 90
c.TuttiSpawner.consecutive_failure_limit = 0
c.TuttiSpawner.container_patience_s = 4


def prepare(spawner: Any) -> None:
    """Pod Security "restricted" allows no folder of a node. A label that no node has is what keeps `no-room` from its node."""
    profile = str(spawner.user_options.get("profile", ""))
    is_open = profile.startswith("path-")
    spawner.node_selector = {"pool": "none"} if profile == "no-room" else {}
    spawner.namespace = GIVEN["open_namespace"] if is_open else c.TuttiSpawner.namespace


c.Spawner.pre_spawn_hook = prepare
# The images of these tests have no user but root and nobody.
c.TuttiSpawner.uid = 1000
c.TuttiSpawner.gid = 1000
